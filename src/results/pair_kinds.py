"""Kinds of pairs of networks. Stitches of different kinds are not averaged together."""

from collections.abc import Collection, Hashable

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


def counted(pairs: Collection[tuple[Hashable, Hashable]], kind: str = PAIRS) -> str:
    """Return the number of different ordered pairs of networks in words."""
    is_of_networks = kind == PAIRS
    if is_of_networks and len(pairs) == 2 and len(set(map(frozenset, pairs))) == 1:
        return "both directions of 2 networks"
    if is_of_networks and len(pairs) == 1:
        return "1 pair of networks"
    return f"{len(pairs):,} {kind}"
