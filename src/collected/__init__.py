"""Collections of many runs: one table of all measurements, and curves over depth."""
