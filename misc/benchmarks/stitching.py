#!/usr/bin/env python3
"""How much faster a grid is than the straightforward way, on the CPU, side by side in one run.

The straightforward way treats each pair alone: the front network runs whole with a hook on the front layer, the end
network runs whole with a hook that puts the stitched activation in the place of its own, once for the accuracy and
once more for the representation difference; direct matching lays out the upsampled source and takes its pseudo-inverse.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from src.activations import captured, replaced
from src.checkpoints import save_state
from src.datasets.in_memory import ImageSet
from src.low_rank import as_rows
from src.models import build_model
from src.report import result
from src.stitching import Grid, build_layers
from src.training import Settings, train

SHAPE = (3, 32, 32)
"""


class Straightforward:
    """Each pair alone, with hooks on whole passes."""
"""
