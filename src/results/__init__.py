"""The one wing for what is written and read back: rows and their codec, experiments, runs, folders, figures.

Nothing here knows a science: measures and scores hand their names in. Rows, records, experiments and captions spare
torch.
"""
