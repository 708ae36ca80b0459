"""Files that runs write and read back, of all experiments: tables, runs, options and figures."""
