"""Runs in a process of its own what changes the whole of it: imports every module of the suite, then runs
the main commands on the CPU and on a GPU; writes as JSON what was found.

cd EMPTY_FOLDER; PYTHONPATH=CHECKOUT python -m tests.fresh_process answers.json pretended
"""

import importlib
import json
import os
import signal
import sys
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import scipy.stats  # noqa: F401 - before the first look: the libraries have filters of their own
import torch
import torchvision  # noqa: F401
from torch.nn.parallel import DistributedDataParallel  # noqa: F401

ROOT = Path(__file__).parents[1]


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


def changed_by_imports() -> list[str]:
    """Import every module of the suite; name those that change what belongs to the whole process."""
    changes, before = [], global_state()
    for path in sorted((ROOT / "src").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        importlib.import_module(name)
        after = global_state()
        changes += [f"{name} changes {key}" for key in before if before[key] != after[key]]
        before = after
    return changes


def main(path: str, gpu: str) -> None:
    changes = changed_by_imports()
    from tests.on_both_devices import run_on_both  # which imports some of the modules

    Path(path).write_text(json.dumps({"changed by imports": changes} | run_on_both(gpu)))


if __name__ == "__main__":
    main(*sys.argv[1:])
