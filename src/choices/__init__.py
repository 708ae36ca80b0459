"""The choices of options: names, and tables with a row for each name.

Parsers offer the names. The packages of science (`src.stitching`, `src.ood`, …) have the functions,
in dicts with the same keys. This package does not import torch.
"""

from collections.abc import Mapping
from typing import Any

Options = Mapping[str, Any]  # of a script or a run, by name: values of JSON, as in a `config.txt`

AUTO = "auto"  # a stitching type: chosen by the kinds of the activations of both layers

# Kinds of activations
MAP = "feature map"
GRID = "grid of tokens"
SEQUENCE = "sequence"
VECTOR = "vector"
STITCHING_TYPES = {  # by name: (kind of the front activation, kind of the end activation)
    "rc2c_pre": (MAP, MAP),
    "rc2c_post": (MAP, MAP),
    "c2c": (MAP, MAP),
    "t2t": (GRID, GRID),
    "c2t": (MAP, GRID),
    "t2c": (GRID, MAP),
    "s2s": (SEQUENCE, SEQUENCE),
    "c2s": (MAP, SEQUENCE),
    "s2c": (SEQUENCE, MAP),
    "t2s": (GRID, SEQUENCE),
    "s2t": (SEQUENCE, GRID),
    "c2v": (MAP, VECTOR),
    "t2v": (GRID, VECTOR),
    "s2v": (SEQUENCE, VECTOR),
    "v2c": (VECTOR, MAP),
    "v2t": (VECTOR, GRID),
    "v2s": (VECTOR, SEQUENCE),
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
