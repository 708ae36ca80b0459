"""Kinds of activations, by their positions. This module does not import torch."""

MAP = "feature map"
GRID = "grid of tokens"
SEQUENCE = "sequence"
VECTOR = "vector"
