"""The weights that results were made with, and those that their checkpoints hold now. Importing
this spares torch."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from src.console import listed, warn_once
from src.network_names import NetworkName

# ends the entry of a `config.txt` that has the SHA-256 of the weights of a network
RECORD = "_path_sha256"

FinishedRun = tuple[
    Path, Iterable[NetworkName]
]  # its `config.txt`, which was written last, and its networks


def recorded(options: Mapping[str, Any]) -> dict[str, NetworkName]:
    """Return the networks that the options of a run name, with the weights that they record, by
    side."""
    networks = {}
    for side in [name.removesuffix("_path") for name in options if name.endswith("_path")]:
        if f"{side}_type" in options:
            path, kind, weights = (
                options.get(f"{side}{ending}") for ending in ("_path", "_type", RECORD)
            )
            networks[side] = NetworkName.of(path, kind, seed=options.get("seed"), weights=weights)
    return networks


def changed(begun: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Return the titles of networks that a run was begun with, and in whose place other weights are
    given now."""
    now = recorded(given)
    weights = {network.place: network.weights for network in now.values()}
    titles = []
    for side, network in recorded(begun).items():
        is_given = side in now and now[side].weights == network.weights  # under whatever path
        if (
            network.weights
            and not is_given
            and weights.get(network.place, "") not in ("", network.weights)
        ):
            titles.append(network.title)
    return titles


def warn_of_earlier(results: Iterable[Sequence[NetworkName]], *, kind: str) -> None:
    """Warn, of each checkpoint that holds other weights now, how many results are of earlier ones.

    Args:
        results: the networks of each.
        kind: what they are, such as "run".
    """
    results = [set(networks) for networks in results]
    earlier = {network for network in set().union(*results) if network.has_changed}
    for title, n in Counter(
        name.title for networks in results for name in networks & earlier
    ).items():
        warn_once(f"{counted(n, kind)} of earlier weights of {title}")


def warn_of_newer(runs: Iterable[FinishedRun]) -> None:
    """Warn of runs that record no weights where a checkpoint is newer than they are."""
    newer: Counter[str] = Counter()
    for config, networks in runs:
        for network in set(networks):
            newer[network.title] += _is_newer(network, config)
    for title, n in (+newer).items():
        warn_once(
            f"{counted(n, 'run')} without a record of weights, and {title} is newer: they may be of its earlier weights"
        )


def counted(n: int, kind: str) -> str:
    """Return such as "1 run is" or "2 runs are"."""
    return f"1 {kind} is" if n == 1 else f"{n} {kind}s are"


def names_of(titles: Iterable[str]) -> str:
    """Name networks, each once, for an error."""
    return listed(dict.fromkeys(titles))


def _is_newer(network: NetworkName, config: Path) -> bool:
    """Return whether the checkpoint of a network without recorded weights was written after a
    file."""
    if network.weights or not network.is_file or not os.path.isfile(network.path):
        return False
    return os.stat(network.path).st_mtime_ns > config.stat().st_mtime_ns
