"""What is written and read back, whatever the science: tables, runs, experiments and figures."""
