"""Which kind a pair of networks is."""

from pathlib import Path

from src.runs.options import read_options
from src.runs.trained_with import training_of
from src.tables.network_names import FRESH, NetworkName
from src.tables.pair_kinds import PAIRS, SAME_RUN, UNTRAINED_END, UNTRAINED_FRONT


def kind_of_pair(front: NetworkName, end: NetworkName) -> str:
    """Return the kind of a pair of networks, a member of `pair_kinds.KINDS`."""
    if is_untrained(end):
        return UNTRAINED_END
    if is_untrained(front):
        return UNTRAINED_FRONT
    if front.key == end.key or training_of(front) == training_of(end):
        return SAME_RUN
    return PAIRS


def is_untrained(network: NetworkName) -> bool:
    """Return whether a network has fresh weights. A head on it (`exec_probe.py --with-head`) may be
    trained."""
    if network.is_fresh:
        return True
    config_of_head = Path(network.path).with_suffix(".config.txt")
    return config_of_head.is_file() and read_options(config_of_head).get("model_path") == FRESH
