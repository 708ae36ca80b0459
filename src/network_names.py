"""The names of trained networks: checkpoint, type, and for fresh weights a seed."""

import functools
import hashlib
import os
from pathlib import Path
from typing import NamedTuple

from src.errors import UserError

FRESH = "-"  # stands for a checkpoint: weights as they are drawn


class NetworkName(NamedTuple):
    """A network as a command, a run or a row names it."""

    path: str  # of the checkpoint; FRESH; or, for `tv_NAME`, an entry of torchvision's weights
    type: str  # as `build_model` takes it
    seed: int | None = None  # of fresh weights

    @property
    def is_fresh(self) -> bool:
        """Whether its weights are freshly drawn."""
        return self.path == FRESH

    @property
    def is_file(self) -> bool:
        """Whether its weights are in a file, and no entry of torchvision's such as DEFAULT."""
        is_entry = self.path.isidentifier() and self.path.isupper() and not Path(self.path).exists()
        return not (self.is_fresh or is_entry)

    @property
    def identity(self) -> str:
        """A text that two names share if they name the same network: the SHA-256 of its checkpoint's content.

        Of fresh weights and torchvision's, which are no files, it is that of the name itself; of a file that is not
        there, its absolute path without links.
        """
        if not self.is_file:
            return hashlib.sha256(f"{self.path} {self.type} {self.seed}".encode()).hexdigest()
        try:
            return content_of(self.path)
        except UserError:
            return os.path.realpath(self.path)

    def title(self, seed: int | None) -> str:
        """Return the path; without a file, also type and seed.

        Args:
            seed: of the run; that of fresh weights derives from it.
        """
        if self.is_file:
            return os.path.normpath(self.path) if self.path else "unknown"
        return f"{self.path} ({self.type}, seed {seed or 0})" if self.is_fresh else f"{self.path} ({self.type})"


def content_of(path: str | Path) -> str:
    """Return the SHA-256 of a file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        status = os.stat(path)
        return _sha256(os.path.realpath(path), status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; check the path") from error


@functools.cache  # a table names the same few files in every row
def _sha256(path: str, modified: int, size: int) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def fresh_seed(seed: int | None) -> int:
    """Derive the seed of fresh weights from that of a run, so that they are not those that training begins with."""
    return int.from_bytes(hashlib.sha256(f"{seed or 0} fresh weights".encode()).digest()[:6], "big")


def is_user_network(name: str) -> bool:
    """Return whether a name has the form FILE.py:FUNCTION."""
    file, _, function = name.rpartition(":")
    return file.endswith(".py") and function.isidentifier()


def file_and_function(name: str) -> tuple[Path, str]:
    """Split a name of this form."""
    file, _, function = name.rpartition(":")
    return Path(file), function
