"""The options of a training, read from the `config.txt` beside its checkpoint.

This module does not import torch.
"""

import contextlib
import json
from pathlib import Path

from src.choices import Options
from src.tables.network_names import NetworkName


def options_beside(checkpoint: str | Path) -> Options:
    """Return the options in `config.txt` beside a checkpoint; {} without a readable file."""
    if not Path(checkpoint).is_file():  # for example DEFAULT
        return {}
    with contextlib.suppress(OSError, ValueError, TypeError):
        return dict(json.loads((Path(checkpoint).parent / "config.txt").read_text()))
    return {}


def training_of(network: NetworkName) -> str:
    """Return a text that two names share if they name one network, at whatever epochs.

    It is made of the options of the training. Of a network without a record of its training, it is
    made of its weights and type.
    """
    options = options_beside(network.path) if network.is_file else {}
    if options.get("model_type") != network.type:
        return " ".join(network.key)
    return json.dumps(options, sort_keys=True)
