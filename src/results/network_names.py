"""Names of networks: the checkpoint, the type, the seed of randomly initialised weights, the recorded weights."""

import functools
import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

from src.choices import Options
from src.core.errors import UserError
from src.core.user_code import title_of

UNTRAINED = "-"  # in place of a checkpoint: randomly initialised weights
DEFAULT = "DEFAULT"  # in place of a checkpoint: the weights that come with the type
FEATURES = "features"  # in place of a type: the checkpoint is an .npz file of activations
TITLES = {UNTRAINED: "untrained"}  # in captions, of networks without a checkpoint
SHORT = 12  # digits of a SHA-256 in the row of a table

# Ending of the option in `config.txt` that holds the SHA-256 of a network's weights
RECORD = "_path_sha256"

NetworkKey = tuple[str, str]  # identity and type; equal for names of the same network


class NetworkName(NamedTuple):
    """The name of a network in a command, a list, a run or a row."""

    # The checkpoint; UNTRAINED; DEFAULT; or, for `tv_NAME`, another entry of torchvision's weights
    path: str
    type: str  # as `build_model` takes it
    seed: int | None = None  # of the run; None unless the weights are randomly initialised
    # The SHA-256 of the weights, or its first `SHORT` digits, as a run recorded it; "" without
    weights: str = ""

    @classmethod
    def of(
        cls, path: str | None, kind: str | None, *, seed: int | None, weights: str | None = ""
    ) -> "NetworkName":
        """Return the name from options of a run or columns of a row; None stands for a missing one.

        Args:
            kind: the type.
            seed: of the run; counts for randomly initialised weights only.
        """
        initialisation_seed = None
        if path == UNTRAINED:
            initialisation_seed = seed or 0
        return cls(path or "", kind or "", initialisation_seed, weights or "")

    @property
    def is_untrained(self) -> bool:
        """Whether the weights are randomly initialised."""
        return self.path == UNTRAINED

    @property
    def is_file(self) -> bool:
        """Whether the weights are in a file."""
        is_entry = self.path.isidentifier() and self.path.isupper() and not Path(self.path).exists()
        return not (self.is_untrained or is_entry)

    @property
    def is_given(self) -> bool:
        """Whether the weights come with the type: DEFAULT, or another entry of torchvision's."""
        return not (self.is_untrained or self.is_file)

    @property
    def place(self) -> str:
        """The place of the weights: the path of the file, without links, or else the title."""
        if self.is_file:
            return os.path.realpath(self.path)
        return self.title

    @property
    def content(self) -> str:
        """The recorded SHA-256 of the weights, or else the SHA-256 of the file.

        Without a file it is computed from the name: path, type and seed.

        Raises:
            UserError: nothing is recorded, and the file cannot be read.
        """
        if self.weights:
            return self.weights
        if self.is_file:
            return content_of(self.path)
        seed = None
        if self.is_untrained:
            seed = seed_of_untrained(self.seed)
        text = f"{self.path} {title_of(self.type)} {seed}"
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def known_content(self) -> str | None:
        """`content`, or None if nothing is recorded and the file cannot be read."""
        try:
            return self.content
        except UserError:
            return None

    @property
    def identity(self) -> str:
        """The first digits of `content`; equal for names of equal weights.

        If nothing is recorded and the file is gone, it is the absolute path without links.
        """
        return (self.known_content or "")[:SHORT] or os.path.realpath(self.path)

    @property
    def key(self) -> NetworkKey:
        """Identity and type, of a user's code the function; equal for names of the same network."""
        return self.identity, title_of(self.type)

    @property
    def listed_as(self) -> NetworkKey:
        """The key of the line for this network in a list of networks.

        A list knows neither seeds nor the SHA-256 of weights without a file. For such a network it
        is path and type.
        """
        if self.is_file:
            return self.key
        return self.path, title_of(self.type)

    @property
    def has_changed(self) -> bool:
        """Whether the file holds weights that differ from the record; false without a file."""
        if not self.weights or not self.is_file or not os.path.isfile(self.path):
            return False
        return content_of(self.path)[:SHORT] != self.weights[:SHORT]

    @property
    def title(self) -> str:
        """The path as a text for tables; without a file, with type and seed behind it."""
        if not self.path:
            return "unknown"
        if self.is_file:
            return os.path.normpath(self.path)
        if self.is_untrained:
            return f"{self.path} ({self.type}, seed {self.seed or 0})"
        return f"{self.path} ({self.type})"


def networks_named_by(options: Options) -> dict[str, NetworkName]:
    """Return the networks that options name, with the recorded weights.

    Args:
        options: of a run. A network named `front_model` has the options `front_model_path` and
            `front_model_type`.

    Returns:
        Networks by such a name.
    """
    networks = {}
    for name, path in options.items():
        prefix = name.removesuffix("_path")
        if prefix != name and f"{prefix}_type" in options:
            networks[prefix] = NetworkName.of(
                path,
                options[f"{prefix}_type"],
                seed=options.get("seed"),
                weights=options.get(f"{prefix}{RECORD}"),
            )
    return networks


class OfTwoNetworks:
    """A row of two networks; randomly initialised weights of both are of one seed."""

    # Of each network, the columns of path, type and weights
    network_columns: ClassVar[tuple[tuple[str, str, str], tuple[str, str, str]]]
    seed: int | None

    @functools.cached_property  # both are asked for again and again
    def networks(self) -> tuple[NetworkName, NetworkName]:
        """The first and the second network; of a stitch, the front and the end network."""
        first, second = map(self._network, self.network_columns)
        return first, second

    def _network(self, columns: tuple[str, str, str]) -> NetworkName:
        path, kind, weights = (getattr(self, column) for column in columns)
        return NetworkName.of(path, kind, seed=self.seed, weights=weights)

    @functools.cached_property
    def network_keys(self) -> tuple[NetworkKey, NetworkKey]:
        """The keys of both networks."""
        first, second = self.networks
        return first.key, second.key


def titles_of(networks: Iterable[NetworkName]) -> dict[NetworkKey, str]:
    """Return a title for each network, by key; titles of different networks differ.

    Where two networks have an equal `title`, type and identity are appended.
    """
    titles: dict[NetworkKey, str] = {}
    for network in dict.fromkeys(networks):
        titles.setdefault(network.key, network.title)
    n_networks = Counter(titles.values())  # by title
    for (identity, kind), title in titles.items():
        if n_networks[title] > 1:
            titles[identity, kind] = f"{title} [{kind}, {identity}]"
    return titles


def networks_in_words(networks: Iterable[NetworkName]) -> str:
    """Return the titles of networks as a text, such as "a.pt and b.pt"."""
    return " and ".join(dict.fromkeys(network.title for network in networks))


def content_of(path: str | Path) -> str:
    """Return the SHA-256 of a file.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        status = os.stat(path)
        return _sha256(os.path.realpath(path), status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; check the path") from error


@functools.cache  # a table names the same few files in every row
def _sha256(path: str, modified: int, size: int) -> str:
    """Return the SHA-256 of a file; time and size tell whether the file is still the same."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def architecture(name: str, kind: str) -> str:
    """Return the type of a network; the name of a file of features, which is of no architecture."""
    return name if kind == FEATURES else kind


def seed_of_untrained(seed: int | None) -> int:
    """Derive the seed of randomly initialised weights from the seed of a run (None: 0).

    It differs from the seed of the run, so randomly initialised weights are not the start of a training run.
    """
    digest = hashlib.sha256(f"{seed or 0} randomly initialised weights".encode()).digest()
    return int.from_bytes(digest[:6], "big")


def short(name: str) -> str:
    """Return the last two parts of an absolute path; return a relative name unchanged."""
    path = Path(name)
    if path.is_absolute():
        return "/".join(path.parts[-2:])
    return name


def without_ending(path: str) -> Path:
    """Return the path of a checkpoint without its ending, such as .pt or .pth.tar."""
    checkpoint = Path(path)
    if checkpoint.suffix == ".tar":
        checkpoint = checkpoint.with_suffix("")
    return checkpoint.with_suffix("")


def short_names(paths: Sequence[str]) -> list[str]:
    """Return names of networks without the ending, and for `FOLDER/model_15.pt` the folder.

    If these are equal for different checkpoints, names have more of the path.
    """
    plain = [TITLES.get(path, without_ending(path).name) for path in paths]
    by_folder = []
    for path, name in zip(paths, plain, strict=True):
        folder = Path(path).parent.name
        is_numbered = re.fullmatch(r"(final_)?model(_\d+)?", name) and folder
        if is_numbered:
            name = folder
            if folder.isdecimal():
                name = f"network {folder}"
        by_folder.append(name)
    whole = []
    for path in paths:
        whole.append(TITLES.get(path, short(str(without_ending(path)))))
    n_networks = len(set(paths))
    for names in (by_folder, plain):
        if len(set(names)) == n_networks:
            return names
    return whole
