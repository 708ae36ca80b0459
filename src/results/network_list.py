"""Lists of networks: a CSV with the columns name, path, type, and optionally group, layers,
depths and training."""

import itertools
import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from src.choices.similarity import SIMILARITY
from src.core.console import listed, warn_once
from src.core.errors import UserError, unknown_name
from src.core.grouping import grouped
from src.core.user_code import absolute, title_of
from src.results.network_names import FEATURES, NetworkKey, NetworkName
from src.results.public import options_beside
from src.results.tables import FIRST_LINE, columns, read_table

# Of a network: of any script, but no path, no hidden file and no option
NAME = re.compile(r"[^\s./\\-]([^/\\\x00-\x1f]*[^\s/\\])?")

# Folders of tables, beside the folders of stitching methods
PROBES = "probes"
TABLES = (SIMILARITY, PROBES)


@dataclass(frozen=True)
class ListedNetwork:
    """A network of a list."""

    contents: ClassVar[str] = "networks"
    written_by: ClassVar[str] = (
        "with the columns name, path, type, and optionally group, layers, depths and training"
    )

    name: str  # in the names of folders and files
    path: str  # of the checkpoint, as on the command line
    type: str  # as on the command line; FEATURES: the path is an .npz file of activations
    group: str | None = None  # networks of a group were made alike
    layers: str | None = None  # names and patterns with commas between them; None: as for all
    # Relative depths to take in place of the recorded ones, such as "pool1=0.2, pool2=1"
    depths: str | None = None
    training: str | None = None  # equal for one network at several epochs; None: as was recorded
    further: dict[str, str] = field(default_factory=dict, hash=False)  # columns of other names

    @property
    def is_features(self) -> bool:
        """Whether a file of activations stands in the place of a network."""
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
                    f"depths of {self.name}: {part.strip()!r} is no relative depth of a layer; give "
                    "LAYER=DEPTH with commas between them, and depths from 0 to 1"
                )
            if layer in depths:
                raise UserError(
                    f"depths of {self.name}: {layer} stands there twice or more; give each layer one depth"
                )
            depths[layer] = depth
        return depths

    def named(self, *, seed: int | None = None) -> NetworkName:
        """Return checkpoint and type as the name of a network.

        Args:
            seed: of the run, for randomly initialised weights.
        """
        return NetworkName.of(self.path, self.type, seed=seed)


def read_networks(table: str | Path) -> list[ListedNetwork]:
    """Read a list of at least two networks; relative paths count from the folder of the list.

    Raises:
        UserError: the list cannot be read, lacks a column or a value, has a column of another name,
            repeats a name or the weights of a network, has a name that is no file name, or names a missing
            checkpoint.
    """
    networks: list[ListedNetwork] = [
        replace(network, group=(network.group or "").strip() or None)
        for network in read_table(table, ListedNetwork)
    ]
    if len(networks) < 2:
        raise UserError(f"{table} lists fewer than two networks; give at least two, a line each")
    for column in itertools.chain.from_iterable(network.further for network in networks):
        raise UserError(f"{table}: {unknown_name('column', column, columns(ListedNetwork))}")
    lines = {f"{table}, line {line}": row for line, row in enumerate(networks, start=FIRST_LINE)}
    _check_names(table, lines)
    networks = [_with_path_from(Path(table).parent, row, place) for place, row in lines.items()]
    _refuse_equal_weights(table, networks)
    _warn_of_depths(table, networks)
    return networks


def _warn_of_depths(table: str | Path, networks: Sequence[ListedNetwork]) -> None:
    """Warn of depths that fall from layer to layer, and of layers that have several in networks of one type."""
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


def _refuse_equal_weights(table: str | Path, networks: Sequence[ListedNetwork]) -> None:
    """Raise a UserError if two networks of a list are one: of one type and of equal weights."""
    first_of: dict[NetworkKey, ListedNetwork] = {}
    for network in networks:
        first = first_of.setdefault(network.named().listed_as, network)
        if first is not network:
            raise UserError(
                f"{table}: {first.name} and {network.name} have equal weights ({first.path} and {network.path}, "
                f"{title_of(network.type)}) and are one network; list it once"
            )


def _check_names(table: str | Path, lines: Mapping[str, ListedNetwork]) -> None:
    """Raise a UserError if names of networks, or of their pairs, are no file names or repeat.

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


def tell_groups(table: str | Path, networks: Sequence[ListedNetwork]) -> None:
    """Warn of networks without a group where some have one, of groups with almost the same name, and of groups with
    networks of several types."""
    in_groups = [network for network in networks if network.group]
    without = [network.name for network in networks if not network.group]
    if in_groups and without:
        warn_once(
            f"{table}: no group is given for {listed(without)}, so that the type is the group there; give all networks "
            "a group, or none"
        )
    for groups in grouped(dict.fromkeys(network.group for network in in_groups), _plain).values():
        if len(groups) > 1:
            warn_once(
                f"{table}: the groups {' and '.join(map(repr, groups))} count as different groups; write them alike if "
                "they are one"
            )
    for group, members in grouped(in_groups, lambda network: network.group).items():
        types = dict.fromkeys(network.type for network in members)
        if len(types) > 1:
            warn_once(
                f"{table}: the group {group} has networks of unlike types ({listed(map(title_of, types))}), so "
                "differences from other groups may be those of types"
            )
    _warn_of_shared_seeds(table, in_groups)


def _plain(group: str | None) -> str:
    """Return the letters and digits of the name of a group, in lower case."""
    return re.sub(r"[\W_]", "", group or "").lower()


def _warn_of_shared_seeds(table: str | Path, networks: Sequence[ListedNetwork]) -> None:
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


def as_listed(networks: Sequence[ListedNetwork]) -> dict[NetworkKey, ListedNetwork]:
    """Return networks by `listed_as`, the key of a network in rows of tables."""
    return {network.named().listed_as: network for network in networks}


def pair_name(first: ListedNetwork, second: ListedNetwork) -> str:
    """Return the name of the folder or table of two networks, such as "a-b"."""
    return f"{first.name}-{second.name}"


def stitches_name(front: ListedNetwork, end: ListedNetwork) -> str:
    """Return the name of the folder of stitches from one network into another."""
    return f"{front.name} to {end.name}"


def _with_path_from(folder: Path, network: ListedNetwork, place: str) -> ListedNetwork:
    """Return a network of a list with paths that count from the working folder.

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
    kind = absolute(network.type, folder)
    if not NetworkName(network.path, kind).is_file:
        return replace(network, type=kind)
    path = os.path.normpath(folder / Path(network.path).expanduser())
    if not os.path.isfile(path):
        raise UserError(
            f"{place}: there is no checkpoint {path}; correct the path, which is relative to {folder}, the folder of "
            "the list"
        )
    return replace(network, path=path, type=kind)
