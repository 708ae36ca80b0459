"""Identifies the networks of results by name and weights, and reads lists of networks with names and groups.

A network is identified by its checkpoint, its type, the seed of randomly initialised weights and the recorded weights.
A list is a CSV with the columns of `LIST`. Two epochs of a training run are one network. This module
does not import torch.
"""

import contextlib
import functools
import hashlib
import itertools
import json
import math
import os
import re
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from src.core.choices import Options
from src.core.choices.similarity import SIMILARITY
from src.core.console import listed, warn, warn_once
from src.core.errors import UserError, unknown_name
from src.core.grouping import grouped
from src.core.user_code import absolute, title_of
from src.results.tables import (
    FIRST_LINE,
    PAIRS,
    SAME_RUN,
    UNLISTED,
    UNTRAINED_END,
    UNTRAINED_FRONT,
    Layout,
    columns,
    read_table,
)

UNTRAINED = "-"  # in place of a checkpoint: randomly initialised weights
DEFAULT = "DEFAULT"  # in place of a checkpoint: the weights that come with the type
FEATURES = "features"  # in place of a type: the checkpoint is an .npz file of activations
TITLES = {UNTRAINED: "untrained"}  # in captions, of networks without a checkpoint
SHORT = 12  # digits of a SHA-256 in the row of a table

# Ending of the option in `config.txt` that holds the SHA-256 of a network's weights
RECORD = "_path_sha256"

NEVER_TRAINED = "untrained"  # marks the group of such a network
# Of a network: of any script, but no path, no hidden file and no option
NAME = re.compile(r"[^\s./\\-]([^/\\\x00-\x1f]*[^\s/\\])?")

# Folders of tables, beside the folders of stitching methods
PROBES = "probes"
TABLES = (SIMILARITY, PROBES)
NetworkKey = tuple[str, str]  # identity and type; equal for names of the same network


LIST = Layout(
    "networks",
    "with the columns name, path, type, and optionally group, layers, depths and training",
    {
        **dict.fromkeys(("name", "path", "type"), str),
        **dict.fromkeys(("group", "layers", "depths", "training"), str | None),
    },
    optional=("group", "layers", "depths", "training"),
    further=str,
)


@dataclass(frozen=True)
class NamedNetwork:
    """A network of a command, a list, a run or a report.

    Networks are equal if checkpoint, type, seed and weights are, whatever a list says of them.
    """

    # The checkpoint; UNTRAINED; DEFAULT; or, for `tv_NAME`, another entry of torchvision's weights
    path: str
    type: str  # as `build_model` takes it; FEATURES: the path is an .npz file of activations
    seed: int | None = None  # of the run; None unless the weights are randomly initialised
    # The SHA-256 of the weights, or its first `SHORT` digits, as a run recorded it; "" without
    weights: str = ""
    # Of a list or of reports
    name: str = field(default="", compare=False)  # in the names of folders and files
    group: str | None = field(default=None, compare=False)  # networks of a group were made alike
    # Names and patterns of layers with commas between them; None: as for all
    layers: str | None = field(default=None, compare=False)
    # Relative depths to take in place of the recorded ones, such as "pool1=0.2, pool2=1"
    depths: str | None = field(default=None, compare=False)
    # Equal for one network at several epochs; None: as was recorded
    training: str | None = field(default=None, compare=False)

    @classmethod
    def of(
        cls, path: str | None, kind: str | None, *, seed: int | None, weights: str | None = ""
    ) -> "NamedNetwork":
        """Return the network from the options of a run or the columns of a row; None stands for a
        missing value.

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
        """Whether the weights are pretrained ones of torchvision: DEFAULT, or another entry."""
        return not (self.is_untrained or self.is_file)

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
        """The first digits of the SHA-256 of the weights; equal for names of equal weights.

        If nothing is recorded and the file is gone, it is the absolute path without links.
        """
        return (self.known_content or "")[:SHORT] or os.path.realpath(self.path)

    @property
    def key(self) -> NetworkKey:
        """The key of a network: its identity and its type, or the function of a user's code."""
        return self.identity, title_of(self.type)

    @property
    def listed_as(self) -> NetworkKey:
        """The key by which a list of networks has this network.

        A list knows neither seeds nor the SHA-256 of weights without a file. For such a network it
        is path and type.
        """
        if self.is_file:
            return self.key
        return self.path, title_of(self.type)

    @property
    def has_changed(self) -> bool:
        """Whether the weights in the file differ from the recorded ones; false without a file."""
        if not self.weights or not self.is_file or not os.path.isfile(self.path):
            return False
        return content_of(self.path)[:SHORT] != self.weights[:SHORT]

    @property
    def title(self) -> str:
        """The title of the network in tables: its path, or without a file the path with type and seed."""
        if not self.path:
            return "unknown"
        if self.is_file:
            return os.path.normpath(self.path)
        if self.is_untrained:
            return f"{self.path} ({self.type}, seed {self.seed or 0})"
        return f"{self.path} ({self.type})"

    @property
    def is_features(self) -> bool:
        """Whether a file of features replaces the network."""
        return self.type == FEATURES

    @property
    def relative_depths(self) -> dict[str, float]:
        """The relative depths of layers that the list gives, from 0 to 1.

        Raises:
            UserError: they are not written as LAYER=DEPTH with commas between them, or a layer has
                two.
        """
        depths: dict[str, float] = {}
        for part in (self.depths or "").split(","):
            layer, _, text = part.partition("=")
            layer = layer.strip()
            if not part.strip():
                continue
            try:
                depth = float(text)
            except ValueError:
                depth = math.nan
            if not layer or not 0 <= depth <= 1:
                raise UserError(
                    f"depths of {self.name}: {part.strip()!r} is not the relative depth of a layer; give "
                    "LAYER=DEPTH with commas between them, and depths from 0 to 1"
                )
            if layer in depths:
                raise UserError(
                    f"depths of {self.name}: {layer} is repeated; give each layer one depth"
                )
            depths[layer] = depth
        return depths

    @property
    def group_title(self) -> str:
        """The title of the group in tables, else the type; untrained networks are marked."""
        group = self.group or self.type
        if self.is_untrained and group != NEVER_TRAINED:
            return f"{group} ({NEVER_TRAINED})"
        return group


def networks_named_by(options: Options) -> dict[str, NamedNetwork]:
    """Return the networks in the options of a run, with their recorded weights.

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
            networks[prefix] = NamedNetwork.of(
                path,
                options[f"{prefix}_type"],
                seed=options.get("seed"),
                weights=options.get(f"{prefix}{RECORD}"),
            )
    return networks


def titles_of(networks: Iterable[NamedNetwork]) -> dict[NetworkKey, str]:
    """Return unique titles of networks, by key.

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


def networks_in_words(networks: Iterable[NamedNetwork]) -> str:
    """Join the titles of networks, such as "a.pt and b.pt"."""
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
    """Return the SHA-256 of a file, cached by its modification time and size."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def are_same(first: str | None, second: str | None) -> bool:
    """Return whether two digests, possibly shortened, are equal; an unknown digest equals any other."""
    return not first or not second or first[:SHORT] == second[:SHORT]


def architecture(name: str, kind: str) -> str:
    """Return the type of a network, or the name of a file of features, which has no type."""
    return name if kind == FEATURES else kind


def seed_of_untrained(seed: int | None) -> int:
    """Derive the seed of randomly initialised weights from the seed of a run (None: 0).

    It differs from the seed of the run, so randomly initialised weights are not the start of a training run.
    """
    digest = hashlib.sha256(f"{seed or 0} randomly initialised weights".encode()).digest()
    return int.from_bytes(digest[:6], "big")


def without_ending(path: str) -> Path:
    """Return the path of a checkpoint without its ending, such as .pt or .pth.tar."""
    checkpoint = Path(path)
    if checkpoint.suffix == ".tar":
        checkpoint = checkpoint.with_suffix("")
    return checkpoint.with_suffix("")


def short_names(paths: Sequence[str]) -> list[str]:
    """Return short, unique names of networks: the file without its ending, or for `FOLDER/model_15.pt` the folder.

    If these are equal for different checkpoints, names have more of the path. Where the rest of the paths is
    equal as well, they are numbered.
    """
    distinct = list(dict.fromkeys(paths))
    parts = [str(without_ending(path)).strip(os.sep).split(os.sep) for path in distinct]
    choices = [list(map(_folder_or_file, distinct))]
    for n_parts in range(1, max(map(len, parts), default=0) + 1):
        choices.append(["/".join(of_path[-n_parts:]) for of_path in parts])
    for names in choices:
        names = [TITLES.get(path, name) for path, name in zip(distinct, names, strict=True)]
        if len(set(names)) == len(distinct):
            break
    else:
        names = [f"{name} ({number})" for number, name in enumerate(choices[0], start=1)]
    name_of = dict(zip(distinct, names, strict=True))
    return [name_of[path] for path in paths]


def _folder_or_file(path: str) -> str:
    """Return the folder of a checkpoint that is named by a number, else the file without its ending."""
    name = without_ending(path).name
    folder = Path(path).parent.name
    if not folder or not re.fullmatch(r"(final_)?model(_\d+)?", name):
        return name
    return f"network {folder}" if folder.isdecimal() else folder


def options_beside(checkpoint: str | Path) -> Options:
    """Return the options in `config.txt` beside a checkpoint; {} without a readable file."""
    if not Path(checkpoint).is_file():  # for example DEFAULT
        return {}
    with contextlib.suppress(OSError, ValueError, TypeError):
        config = Path(checkpoint).parent / "config.txt"
        return dict(json.loads(config.read_text()))
    return {}


def training_of(network: NamedNetwork) -> str:
    """Return an identifier of a network's training run, shared by its checkpoints of all epochs.

    It is a digest of the options of the training, if they have its folder, as those of exec_train.py
    do: a `config.txt` of the user's may be the same for many training runs. Otherwise it is made of
    weights and type.
    """
    options = options_beside(network.path) if network.is_file else {}
    is_of_type = title_of(str(options.get("model_type"))) == title_of(network.type)
    if not is_of_type or "save_dir" not in options:
        return " ".join(network.key)
    return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:SHORT]


Names = Mapping[NetworkKey, NamedNetwork]  # of all networks, as reports name them


def kind_of_pair(front: NamedNetwork, end: NamedNetwork) -> str:
    """Return the kind of a pair of networks, such as `PAIRS`."""
    if end.is_untrained:
        return UNTRAINED_END
    if front.is_untrained:
        return UNTRAINED_FRONT
    return SAME_RUN if front.training == end.training else PAIRS


def pairs_in_words(pairs: Collection[tuple[Hashable, Hashable]], kind: str = PAIRS) -> str:
    """Format the number of distinct ordered pairs of networks."""
    is_of_networks = kind == PAIRS
    if is_of_networks and len(pairs) == 2 and len(set(map(frozenset, pairs))) == 1:
        return "both directions of 2 networks"
    if is_of_networks and len(pairs) == 1:
        return "1 pair of networks"
    return f"{len(pairs):,} {kind}"


def named_by_list(
    networks: Iterable[NamedNetwork], table: str | Path | None
) -> dict[NetworkKey, NamedNetwork]:
    """Return the networks of results by key, named as in the list and in its order; warn of networks that the
    list lacks.

    Args:
        table: the list of networks; None: networks are named by their paths.
    """
    networks = list(networks)
    if not table:
        return named_networks(networks, {})
    in_table = read_networks(table)
    tell_groups(table, in_table)
    listed = {network.listed_as: network for network in in_table}
    missing = [network.title for network in networks if network.listed_as not in listed]
    for title in dict.fromkeys(missing):
        warn(
            f"{table} does not list {title}, or lists it with other weights; it has no name and no "
            "group, and does not count in the comparison of groups"
        )
    place = {key: number for number, key in enumerate(listed)}
    in_list = sorted(networks, key=lambda network: place.get(network.listed_as, len(place)))
    return named_networks(in_list, listed)


def named_networks(
    networks: Iterable[NamedNetwork], listed: Names
) -> dict[NetworkKey, NamedNetwork]:
    """Return the networks of results by key, named as in the list, or else by checkpoint and type.

    Args:
        listed: the networks of a list by `listed_as`; empty: there is no list.
    """
    networks = list(networks)
    titles = titles_of(networks)
    named: dict[NetworkKey, NamedNetwork] = {}
    for network in networks:
        if network.key in named:
            continue
        unlisted = UNLISTED if listed else None
        line = listed.get(network.listed_as) or replace(
            network, name=titles[network.key], group=unlisted
        )
        # One line of the list stands for randomly initialised weights of every seed.
        name = line.name
        if name in [earlier.name for earlier in named.values()]:
            name += f" (seed {network.seed})"
        named[network.key] = replace(
            network,
            name=name,
            group=line.group or network.type,
            depths=line.depths,
            training=line.training or training_of(network),
        )
    return named


def read_networks(table: str | Path, *, seed: int | None = None) -> list[NamedNetwork]:
    """Read a list of at least two networks; relative paths count from the folder of the list.

    Args:
        seed: of randomly initialised weights.

    Raises:
        UserError: the list cannot be read, lacks a column or a value, has a column of another name,
            repeats a name or the weights of a network, has a name that is no file name, or names a missing
            checkpoint.
    """
    records = read_table(table, LIST)
    if len(records) < 2:
        raise UserError(f"{table} lists fewer than two networks; give at least two, a line each")
    lines = {}
    for line, record in enumerate(records, start=FIRST_LINE):
        for column in record.keys() - columns(LIST):
            raise UserError(f"{table}: {unknown_name('column', column, columns(LIST))}")
        network = NamedNetwork(**record | {"group": (record["group"] or "").strip() or None})
        if network.is_untrained:
            network = replace(network, seed=seed or 0)
        lines[f"{table}, line {line}"] = network
    _check_names(table, lines)
    networks = [_with_path_from(Path(table).parent, row, place) for place, row in lines.items()]
    _refuse_equal_weights(table, networks)
    _warn_of_depths(table, networks)
    return networks


def _warn_of_depths(table: str | Path, networks: Sequence[NamedNetwork]) -> None:
    """Warn of relative depths that decrease from layer to layer, or differ between networks of one type."""
    first: dict[
        tuple[str, str], tuple[str, float]
    ] = {}  # a network and its depth, by type and layer
    for network in networks:
        depths = network.relative_depths
        for (layer, depth), (behind, depth_behind) in itertools.pairwise(depths.items()):
            if depth > depth_behind:
                warn_once(
                    f"{table}: the depths of {network.name} fall from {layer}={depth:g} to {behind}={depth_behind:g}; "
                    "list layers in the order in which they are computed, and deeper ones with larger depths"
                )
        for layer, depth in depths.items():
            other, depth_of_other = first.setdefault((network.type, layer), (network.name, depth))
            if depth != depth_of_other and not network.is_features:
                warn_once(
                    f"{table}: {layer} has the depth {depth_of_other:g} in {other} and {depth:g} in {network.name}, "
                    f"which are both {network.type}; give networks of one type equal depths"
                )


def _refuse_equal_weights(table: str | Path, networks: Sequence[NamedNetwork]) -> None:
    """Raise a UserError if two networks of a list have the same type and equal weights."""
    first_of: dict[NetworkKey, NamedNetwork] = {}
    for network in networks:
        first = first_of.setdefault(network.listed_as, network)
        if first is not network:
            raise UserError(
                f"{table}: {first.name} and {network.name} have equal weights ({first.path} and {network.path}, "
                f"{title_of(network.type)}) and are one network; list it once"
            )


def _check_names(table: str | Path, lines: Mapping[str, NamedNetwork]) -> None:
    """Raise a UserError if names of networks, or of their pairs, are not file names or not unique.

    Args:
        lines: the networks by their lines.
    """
    place_of: dict[str, str] = {}  # the first line by name
    for place, network in lines.items():
        if not NAME.fullmatch(network.name):
            raise UserError(
                f"{place}: the name {network.name!r} cannot be that of a folder; leave out / and \\, blanks at the "
                "ends, and . or - at the beginning"
            )
        first = place_of.setdefault(network.name, place)
        if first != place:
            raise UserError(
                f"{place}: {first}, has the name {network.name} as well; give each network its own"
            )
    for title in (pair_name, stitches_name):
        pairs = Counter(title(*pair) for pair in itertools.permutations(lines.values(), 2))
        pair, n = pairs.most_common(1)[0]
        if n > 1:
            raise UserError(
                f"{table}: two pairs have the name {pair}; give names without - and to in them"
            )


def tell_groups(table: str | Path, networks: Sequence[NamedNetwork]) -> None:
    """Warn if only some networks have a group, if groups have almost the same name, or networks of several
    types."""
    in_groups = [network for network in networks if network.group]
    without = [network.name for network in networks if not network.group]
    of_groups = grouped(in_groups, lambda network: network.group or "")
    if in_groups and without:
        warn_once(
            f"{table}: no group is given for {listed(without)}, so that the type is the group there; give all networks "
            "a group, or none"
        )
    letters = {group: re.sub(r"[\W_]", "", group).lower() for group in of_groups}
    for groups in grouped(letters, letters.__getitem__).values():
        if len(groups) > 1:
            warn_once(
                f"{table}: the groups {' and '.join(map(repr, groups))} count as different groups; write them alike if "
                "they are one"
            )
    for group, members in of_groups.items():
        types = dict.fromkeys(network.type for network in members)
        if len(types) > 1:
            warn_once(
                f"{table}: the group {group} has networks of different types ({listed(map(title_of, types))}), "
                "so differences from other groups may be due to types"
            )
    _warn_of_shared_seeds(table, in_groups)


def _warn_of_shared_seeds(table: str | Path, networks: Sequence[NamedNetwork]) -> None:
    """Warn of networks of several groups that were trained from one seed."""
    seed_of = {network: options_beside(network.path).get("seed") for network in networks}
    seeded = [network for network in networks if seed_of[network] is not None]
    of_seeds = grouped(seeded, lambda network: (network.type, seed_of[network]))
    for members in of_seeds.values():
        if len({network.group for network in members}) > 1:
            names = listed(network.name for network in members)
            warn_once(
                f"{table}: {names} are of several groups and were trained from one seed, so they began with the same "
                "weights and may be more alike than others; train each network with a seed of its own"
            )
            return


def pair_name(first: NamedNetwork, second: NamedNetwork) -> str:
    """Return the name of the folder or table of two networks, such as "a-b"."""
    return f"{first.name}-{second.name}"


def stitches_name(front: NamedNetwork, end: NamedNetwork) -> str:
    """Return the name of the folder of stitches from one network into another."""
    return f"{front.name} to {end.name}"


def _with_path_from(folder: Path, network: NamedNetwork, place: str) -> NamedNetwork:
    """Return a network of a list with its paths made relative to the working folder.

    Args:
        folder: of the list.
        place: the line.

    Raises:
        UserError: the checkpoint is missing, or the depths are no depths.
    """
    try:
        network.relative_depths  # noqa: B018
    except UserError as error:
        raise UserError(f"{place}: {error}") from None
    network = replace(network, type=absolute(network.type, folder))
    if not network.is_file:
        return network
    path = os.path.normpath(folder / Path(network.path).expanduser())
    if not os.path.isfile(path):
        raise UserError(
            f"{place}: there is no checkpoint {path}; correct the path, which is relative to {folder}, the folder of "
            "the list"
        )
    return replace(network, path=path)
