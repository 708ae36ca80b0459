"""How not to stitch representations: task loss matching against direct matching (Balogh and
Jelasity, AAAI 2025)."""

__version__ = "2.0.0.dev1"
