"""The training of a checkpoint, by the `config.txt` beside it. This module does not import torch."""

import contextlib
import json
import os
from pathlib import Path

from src.choices import Options
from src.ground.console import warn_once
from src.results.network_names import FRESH, NetworkName
from src.results.options import read_options


def options_beside(checkpoint: str | Path) -> Options:
    """Return the options in `config.txt` beside a checkpoint; {} without a readable file."""
    if not Path(checkpoint).is_file():  # for example DEFAULT
        return {}
    with contextlib.suppress(OSError, ValueError, TypeError):
        config = Path(checkpoint).parent / "config.txt"
        return dict(json.loads(config.read_text()))
    return {}


def training_of(network: NetworkName) -> str:
    """Return a text that two names share if they name one network, at whatever epochs.

    It is made of the options of the training, if they have its folder, as those of exec_train.py
    do: a `config.txt` of the user's may be the same for many trainings. Otherwise it is made of
    weights and type.
    """
    options = options_beside(network.path) if network.is_file else {}
    if options.get("model_type") != network.type or "save_dir" not in options:
        return " ".join(network.key)
    return json.dumps(options, sort_keys=True)


def is_untrained(network: NetworkName) -> bool:
    """Return whether a network has fresh weights. A head on it (`exec_probe.py --with-head`) may be
    trained."""
    if network.is_fresh:
        return True
    config_of_head = Path(network.path).with_suffix(".config.txt")
    return config_of_head.is_file() and read_options(config_of_head).get("model_path") == FRESH


def warn_of_other_data(checkpoint: str, dataset: str) -> None:
    """Warn, once, if a checkpoint was trained on a data set of another name.

    Args:
        dataset: the data set at hand.
    """
    trained = options_beside(checkpoint).get("dataset")
    if isinstance(trained, str) and os.path.abspath(trained) != os.path.abspath(dataset):
        warn_once(
            f"{checkpoint} was trained on {trained}; -d is {dataset}. Name the data set of the training by -d, unless "
            "other images are meant"
        )
