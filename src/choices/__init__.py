"""What options can choose: names, and tables with a row each. Importing this spares torch.

Parsers offer the names. The functions stand beside others of their kind, in a dict with the same
keys."""

STITCHING_TYPES = {  # type: (kind of the front layer, kind of the end layer)
    "rc2c_pre": ("conv", "conv"),
    "rc2c_post": ("conv", "conv"),
    "c2c": ("conv", "conv"),
    "t2t": ("token", "token"),
    "c2t": ("conv", "token"),
    "t2c": ("token", "conv"),
}
STARTS = {"rand": "random", "eye": "the identity"}  # of a stitching layer that is not matched
C2T_CLS_TOKENS = ("pool", "learn")
T2C_CLS_TOKENS = ("drop", "add", "only")
UPSAMPLE_MODES = ("bilinear", "nearest")
OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULERS = ("none", "cosine")
PENALTIES = ("energy", "OE")  # of fine-tuning a detector
LR_STEPS = ("updates", "epochs")
PRECISIONS = ("none", "bf16")
ALIGNMENTS = ("auto", "pool", "positions")  # of layers whose similarity is measured
