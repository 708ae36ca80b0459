"""Collections of many runs: measured values, groups, verdicts and ground truth."""
