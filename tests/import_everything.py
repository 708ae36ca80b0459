"""Imports every module of the suite; fails if that changes what belongs to the whole process."""

import importlib
import os
import signal
import sys
import warnings

import matplotlib
import numpy as np
import scipy.stats  # noqa: F401 - before the first look: the libraries have filters of their own
import torch
import torchvision  # noqa: F401
from torch.nn.parallel import DistributedDataParallel  # noqa: F401

from tests.commands import ROOT


def global_state() -> dict:
    """What modules could change, as text."""
    return {
        "warnings": list(map(str, warnings.filters)),
        "signals": [
            str(signal.getsignal(signum))
            for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)
        ],
        "environment": dict(os.environ),
        "matplotlib": dict(matplotlib.rcParams),
        "numpy": [str(np.geterr()), str(np.get_printoptions())],
        "random numbers": [torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()],
        "torch": [
            torch.backends.cudnn.allow_tf32,
            torch.backends.cudnn.benchmark,
            torch.backends.cudnn.deterministic,
            torch.get_float32_matmul_precision(),
            torch.get_default_dtype(),
            torch.get_num_threads(),
            torch.is_grad_enabled(),
        ],
    }


def main() -> None:
    before = global_state()
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in sorted(ROOT.glob("src/**/*.py"))
    ]
    assert len(names) > 50
    for name in names:
        importlib.import_module(name.removesuffix(".__init__"))
        after = global_state()
        assert after == before, (
            f"{name} changes {[key for key in before if before[key] != after[key]]}"
        )


if __name__ == "__main__":
    sys.exit(main())
