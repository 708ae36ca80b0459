"""Kinds of pairs of networks. Stitches of different kinds are not averaged together."""

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
