"""Linear probes: how well classes can be read from the layers of a network, at any rank."""

from src.probing.probes import Probes, decay_epochs, pool, truncated_pools

__all__ = ["Probes", "decay_epochs", "pool", "truncated_pools"]
