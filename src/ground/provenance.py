"""The provenance of a run, recorded in `run.json`: command, versions, device and times."""

import platform
import re
import shlex
import subprocess
import sys
from datetime import datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path

from src import __version__

PACKAGES = ("torch", "torchvision", "numpy", "scipy")


def provenance(*, gpu: int, start: datetime) -> dict[str, object]:
    """Return a record of the command, versions, device and times of a run that ends now.

    The git commit is None outside of a repository. On a GPU the record also holds the versions of
    CUDA, cuDNN and the driver, and whether TF32 was allowed.

    Args:
        start: when the run started.
    """
    versions = {
        "suite": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }
    device: dict[str, str | int | bool | None] = {"device": "CPU"}
    if gpu != -1:
        device = _gpu_provenance(gpu)
    times = {"start": start.isoformat(), "end": datetime.now().isoformat()}
    return {"command": shlex.join(sys.argv), **versions, **device, **times}


def _gpu_provenance(gpu: int) -> dict[str, str | int | bool | None]:
    import torch  # a run on a GPU has loaded it; other records are made without it

    return {
        "device": torch.cuda.get_device_name(gpu),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "driver": _driver_version(),
        "tf32": torch.backends.cudnn.allow_tf32,
    }


def _driver_version() -> str | None:
    """Return the version of Nvidia's driver; None where the system does not tell."""
    file = Path("/proc/driver/nvidia/version")
    if not file.exists():
        return None
    match = re.search(r"Kernel Module\D*([\d.]+)", file.read_text())
    if match is None:
        return None
    return match[1]


@cache
def _commit() -> str | None:
    """Return the git commit of this checkout; None outside of a repository or without git."""
    root = Path(__file__).parents[2]
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if answer.returncode != 0:
        return None
    return answer.stdout.strip()
