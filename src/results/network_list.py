"""Reads a list of networks: a CSV with the columns name, path, type and optionally group."""

import itertools
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from src.errors import UserError
from src.network_names import NetworkKey, NetworkName, file_and_function, is_user_network
from src.results.tables import read_table

NAME = re.compile(r"\w[\w.+=-]*")
SIMILARITY, PROBES = TABLES = (
    "similarity",
    "probes",
)  # folders of tables, beside those of the methods


class ListedNetwork(NamedTuple):
    """A network of a list."""

    name: str  # in the names of folders and files
    path: str  # of its checkpoint, as on the command line
    type: str  # likewise
    group: str | None = None  # of networks that were made alike

    contents, written_by = "networks", "with the columns name, path, type and optionally group"

    def named(self, *, seed: int | None = None) -> NetworkName:
        """Return its name as that of a network; fresh weights have the seed of the run."""
        return NetworkName.of(self.path, self.type, seed=seed)


def read_networks(table: str | Path) -> list[ListedNetwork]:
    """Read a list of at least two networks; relative paths in it count from its own folder.

    Raises:
        UserError: it cannot be read, lacks a column or a value, has a name twice or one that is no file name, or names
            a checkpoint that is not there.
    """
    networks = read_table(table, ListedNetwork)
    if len(networks) < 2:
        raise UserError(f"{table} lists {len(networks)} networks; give at least two, a line each")
    names = Counter(network.name for network in networks)
    for name, n in names.items():
        if not NAME.fullmatch(name):
            raise UserError(
                f"{table}: the name {name!r} cannot be that of a file; give letters, digits, and inside _ . + = -"
            )
        if n > 1:
            raise UserError(
                f"{table} has the name {name} more than once; give each network its own"
            )
    pairs = Counter(f"{first}-{second}" for first, second in itertools.permutations(names, 2))
    repeated = [pair for pair, n in pairs.items() if n > 1]
    if repeated:
        raise UserError(
            f"{table}: two pairs have the name {repeated[0]}; give names without - in them"
        )
    return [_with_path_from(Path(table).parent, network, table) for network in networks]


def as_listed(networks: Sequence[ListedNetwork]) -> dict[NetworkKey, ListedNetwork]:
    """Return networks by what tells that a row of a table is of the same one, the `listed_as` of
    its name."""
    return {network.named().listed_as: network for network in networks}


def pair_name(first: ListedNetwork, second: ListedNetwork) -> str:
    """Return the name of the folder or table of a pair."""
    return f"{first.name}-{second.name}"


def _with_path_from(folder: Path, network: ListedNetwork, table: str | Path) -> ListedNetwork:
    """Return a network whose paths count from the working folder, once its checkpoint is known to
    be there."""
    kind = network.type
    if is_user_network(kind):
        file, function = file_and_function(kind)
        kind = f"{(folder / file.expanduser()).absolute()}:{function}"
    if not NetworkName(network.path, kind).is_file:
        return network._replace(type=kind)
    path = os.path.normpath(folder / Path(network.path).expanduser())
    if not os.path.isfile(path):
        raise UserError(
            f"{table}: there is no checkpoint {path}; correct the path, which counts from {folder}"
        )
    return network._replace(path=path, type=kind)
