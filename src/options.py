"""The names that options can take, in tables that need no torch: parsers offer them, the code behind looks them up."""

from typing import NamedTuple

STITCHING_TYPES = {  # type: (kind of the front layer, kind of the end layer)
    "rc2c_pre": ("conv", "conv"),
    "rc2c_post": ("conv", "conv"),
    "c2c": ("conv", "conv"),
    "t2t": ("token", "token"),
    "c2t": ("conv", "token"),
    "t2c": ("token", "conv"),
}
MATCHED_INITS = {  # direct matching, in closed form
    "pinv": "least squares",
    "ortho": "an orthogonal map",
    "ridge": "least squares with a penalty",
}
INITS = {"rand": "random", "eye": "the identity", **MATCHED_INITS}
OBJECTIVES = {  # a row each in src.stitching.objectives
    "task": "cross-entropy",
    "soft": "KL divergence to the end network's predictions",
    "hint": "relative distance at the end layer",
    "fula": "mean relative distance at the end layer and all blocks behind it",
    "feature": "mean squared difference at the last block",
}
C2T_CLS_TOKENS = ("pool", "learn")
T2C_CLS_TOKENS = ("drop", "add", "only")
UPSAMPLE_MODES = ("bilinear", "nearest")
OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULERS = ("none", "cosine")
OOD_SCORES = ("energy", "OE")
LR_STEPS = ("updates", "epochs")
PRECISIONS = ("none", "bf16")


class Similarity(NamedTuple):
    """How a measure is called in printed tables (as in the public code) and in figures."""

    heading: str
    title: str


SIMILARITIES = {  # by the name of a method of src.similarity.pairs.LayerPair
    "cka": Similarity("CKA", "linear CKA"),
    "pwcca": Similarity("CCA", "PWCCA distance"),
    "procrustes": Similarity("Orth. Procr", "Procrustes distance"),
    "pwcca_morcos": Similarity("CCA (Morcos)", "PWCCA distance (Morcos)"),
}
PAPER_SIMILARITIES = ("cka", "pwcca", "procrustes")
