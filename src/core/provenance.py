"""The provenance of a run, recorded in `run.json`: command, versions, device and times."""

import platform
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

    The git commit is None outside of a repository. On a GPU the record also holds the version of
    CUDA.

    Args:
        start: when the run started.
    """
    versions = {
        "suite": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        **_versions(),
    }
    device: dict[str, str | None] = {"device": "CPU"}
    if gpu != -1:
        import torch  # a run on a GPU has loaded it; other records are made without it

        device = {"device": torch.cuda.get_device_name(gpu), "cuda": torch.version.cuda}
    times = {"start": start.isoformat(), "end": datetime.now().isoformat()}
    return {"command": shlex.join(sys.argv), **versions, **device, **times}


@cache  # reading the metadata of torch takes longer than stitching small networks
def _versions() -> dict[str, str]:
    return {name: version(name) for name in PACKAGES}


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
