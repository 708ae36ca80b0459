"""The weights that results were made with, against the weights that their checkpoints hold now.

This module does not import torch.
"""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from src.choices import Options
from src.ground.console import listed, warn_once
from src.tables.network_names import NetworkName, networks_named_by

FinishedRun = tuple[Path, Iterable[NetworkName]]  # the `config.txt` of a run, and its networks


def changed(before: Options, now: Options) -> list[str]:
    """Return the titles of the networks in `before` with weights that have changed since.

    Args:
        before: the options of a run in files.
        now: the options of this process. They may name the recorded weights under another path.
    """
    networks_now = networks_named_by(now)
    weights_at = {network.place: network.weights for network in networks_now.values()}
    titles = []
    for name, network in networks_named_by(before).items():
        if not network.weights:
            continue
        is_unchanged = name in networks_now and networks_now[name].weights == network.weights
        weights_now = weights_at.get(network.place, "")
        if weights_now and weights_now != network.weights and not is_unchanged:
            titles.append(network.title)
    return titles


def warn_of_earlier(results: Iterable[Iterable[NetworkName]], *, kind: str) -> None:
    """Warn of results with weights of checkpoints that have changed since.

    Args:
        results: the networks of each result.
        kind: the noun for a result, such as "run".
    """
    n_earlier: Counter[str] = Counter()
    has_changed: dict[NetworkName, bool] = {}
    for networks in results:
        for network in set(networks):
            if network not in has_changed:
                has_changed[network] = network.has_changed
            if has_changed[network]:
                n_earlier[network.title] += 1
    for title, n in n_earlier.items():
        warn_once(f"{counted(n, kind)} of earlier weights of {title}")


def warn_of_newer(runs: Iterable[FinishedRun]) -> None:
    """Warn of runs without recorded weights that are older than a checkpoint of their networks."""
    n_older: Counter[str] = Counter()
    for config, networks in runs:
        for network in set(networks):
            if _is_newer(network, config):
                n_older[network.title] += 1
    for title, n in n_older.items():
        warn_once(
            f"{counted(n, 'run')} without a record of weights, and {title} is newer: they may be of"
            " its earlier weights"
        )


def counted(n: int, kind: str) -> str:
    """Return a number of things with its verb, such as "1 run is" or "2 runs are"."""
    if n == 1:
        return f"1 {kind} is"
    return f"{n} {kind}s are"


def names_of(titles: Iterable[str]) -> str:
    """Return the distinct titles of networks as a text for an error."""
    return listed(dict.fromkeys(titles))


def _is_newer(network: NetworkName, config: Path) -> bool:
    """Return whether the weights are not recorded and the checkpoint is newer than a file."""
    if network.weights or not network.is_file or not os.path.isfile(network.path):
        return False
    return os.stat(network.path).st_mtime_ns > config.stat().st_mtime_ns
