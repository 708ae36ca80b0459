"""Linear probes: how well classes can be read from the layers of a network, at any rank."""

from src.probing.probes import Probes, decay_epochs

__all__ = ["Probes", "decay_epochs"]
