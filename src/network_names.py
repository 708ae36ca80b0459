"""The names of networks: checkpoint, type, for fresh weights a seed, and what is recorded of the
weights."""

import functools
import hashlib
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from src.errors import UserError

FRESH = "-"  # stands for a checkpoint: weights as they are drawn
DEFAULT = "DEFAULT"  # stands for a checkpoint: the weights that come with the type
FEATURES = "features"  # stands for a type: the checkpoint is an .npz file of activations
SHORT = 12  # digits of a SHA-256 in the row of a table

NetworkKey = tuple[str, str]  # what tells networks apart


class NetworkName(NamedTuple):
    """A network as a command, a list, a run or a row names it."""

    # of the checkpoint; FRESH; DEFAULT; or, for `tv_NAME`, another entry of torchvision's weights
    path: str
    type: str  # as `build_model` takes it
    seed: int | None = None  # of the run, if the weights are fresh
    weights: str = (
        ""  # their SHA-256, or its first `SHORT` digits, as a run recorded it; "": none did
    )

    @classmethod
    def of(
        cls, path: str | None, kind: str | None, *, seed: int | None, weights: str | None = ""
    ) -> "NetworkName":
        """Return the name from options of a run or columns of a row, whose seed counts for fresh
        weights alone."""
        return cls(path or "", kind or "", (seed or 0) if path == FRESH else None, weights or "")

    @property
    def is_fresh(self) -> bool:
        """Whether its weights are freshly drawn."""
        return self.path == FRESH

    @property
    def is_file(self) -> bool:
        """Whether its weights are in a file: neither fresh nor an entry such as DEFAULT."""
        is_entry = self.path.isidentifier() and self.path.isupper() and not Path(self.path).exists()
        return not (self.is_fresh or is_entry)

    @property
    def is_given(self) -> bool:
        """Whether its weights come with the type, as DEFAULT does."""
        return not (self.is_fresh or self.is_file)

    @property
    def place(self) -> str:
        """Where its weights come from, whatever they are: the file, without links, or the title."""
        return os.path.realpath(self.path) if self.is_file else self.title

    @property
    def content(self) -> str:
        """The SHA-256 of its weights: the recorded one, or that of its file as it is now.

        Of fresh weights, and of DEFAULT where nothing is recorded, it is that of the name.

        Raises:
            UserError: nothing is recorded, and the file cannot be read.
        """
        if self.weights:
            return self.weights
        if self.is_file:
            return content_of(self.path)
        seed = fresh_seed(self.seed) if self.is_fresh else None
        return hashlib.sha256(f"{self.path} {self.type} {seed}".encode()).hexdigest()

    @property
    def identity(self) -> str:
        """A text that two names share if they name the same weights: the first digits of their
        `content`.

        Of a file that is gone, and of which nothing is recorded, it is the absolute path without
        links."""
        try:
            return self.content[:SHORT]
        except UserError:
            return os.path.realpath(self.path)

    @property
    def key(self) -> NetworkKey:
        """A value that two names share if they name the same network: its identity and its type."""
        return self.identity, self.type

    @property
    def listed_as(self) -> NetworkKey:
        """A value that it shares with its line in a list of networks, which knows neither seed nor
        given weights."""
        return self.key if self.is_file else (self.path, self.type)

    @property
    def has_changed(self) -> bool:
        """Whether its file holds other weights than were recorded; a file that is gone has not
        changed."""
        if not self.weights or not self.is_file or not os.path.isfile(self.path):
            return False
        return content_of(self.path)[:SHORT] != self.weights[:SHORT]

    @property
    def title(self) -> str:
        """The path; without a file, also type and seed."""
        if self.is_file:
            return os.path.normpath(self.path) if self.path else "unknown"
        return (
            f"{self.path} ({self.type}, seed {self.seed or 0})"
            if self.is_fresh
            else f"{self.path} ({self.type})"
        )


def titles_of(networks: Iterable[NetworkName]) -> dict[NetworkKey, str]:
    """Return the title of each network by key; those that share a title have type and identity in
    it as well."""
    titles: dict[NetworkKey, str] = {}
    for network in dict.fromkeys(networks):
        titles.setdefault(network.key, network.title)
    n_networks = Counter(titles.values())
    for (identity, kind), title in titles.items():
        if n_networks[title] > 1:
            titles[identity, kind] = f"{title} [{kind}, {identity}]"
    return titles


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
    """Derive the seed of fresh weights from that of a run, so that they are not those that training
    begins with."""
    return int.from_bytes(hashlib.sha256(f"{seed or 0} fresh weights".encode()).digest()[:6], "big")


def is_user_network(name: str) -> bool:
    """Return whether a name has the form FILE.py:FUNCTION."""
    file, _, function = name.rpartition(":")
    return file.endswith(".py") and function.isidentifier()


def file_and_function(name: str) -> tuple[Path, str]:
    """Split a name of this form."""
    file, _, function = name.rpartition(":")
    return Path(file), function
