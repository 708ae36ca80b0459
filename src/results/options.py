"""Writes and reads the options of runs in `config.txt`.

This module does not import torch.
"""

import json

from src.choices import Options
from src.results.spec import NOT_RECORDED


def as_written(options: Options) -> Options:
    """Return options in the form that `read_options` returns: without `NOT_RECORDED`, in JSON's types."""
    recorded = {name: value for name, value in options.items() if name not in NOT_RECORDED}
    return json.loads(json.dumps(recorded))
