"""Writes and reads the options of runs in `config.txt`.

This module does not import torch.
"""

import json
from pathlib import Path

from src.choices import Options
from src.core.errors import UserError
from src.core.files import read_json
from src.results.spec import NOT_RECORDED

# Values of this suite for the options that the public code writes as "" or 0
EMPTY: Options = {
    "scheduler": "none",
    "front_stitch_rank": None,
    "front_pinv_rank": None,
}


def as_written(options: Options) -> Options:
    """Return options in the form that `read_options` returns: without `NOT_RECORDED`, in JSON's types."""
    recorded = {name: value for name, value in options.items() if name not in NOT_RECORDED}
    return json.loads(json.dumps(recorded))


def read_options(path: Path) -> Options:
    """Read the options in a `config.txt` of this suite or of the public code."""
    options = read_json(path)
    if not isinstance(options, dict):
        raise UserError(f"{path} holds no options; remove its folder")
    for name, value in EMPTY.items():
        if name in options and not options[name]:
            options[name] = value
    return options
