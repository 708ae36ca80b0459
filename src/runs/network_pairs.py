"""Kinds of pairs of networks. Stitches of different kinds are not averaged together."""

from pathlib import Path

from src.runs.options import read_options
from src.runs.trained_with import training_of
from src.tables.network_names import FRESH, NetworkName

PAIRS = "pairs of networks"
SAME_RUN = "pairs of a network with itself"  # at the same or another epoch
UNTRAINED_FRONT = "pairs with an untrained front network"
UNTRAINED_END = "pairs with an untrained end network"
IN_SHORT = {  # in headings, of pairs that are not of two trained networks
    SAME_RUN: "of a network with itself",
    UNTRAINED_FRONT: "untrained front",
    UNTRAINED_END: "untrained end",
}
KINDS = (PAIRS, SAME_RUN, UNTRAINED_FRONT, UNTRAINED_END)


def kind_of_pair(front: NetworkName, end: NetworkName) -> str:
    """Return the kind of a pair of networks, a member of `KINDS`."""
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
