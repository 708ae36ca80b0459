"""The weights and the code of networks that results were made with, against those of now.

This module does not import torch.
"""

import contextlib
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from src.choices import Options
from src.ground.console import listed, warn_once
from src.ground.errors import UserError
from src.ground.files import read_json
from src.ground.user_code import source_of
from src.results.network_names import NetworkName, content_of, networks_named_by

CODE = "_type_sha256"  # ends the options that hold the SHA-256 of the file of a user's network
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


def code_of(options: Options) -> dict[str, str]:
    """Return the recorded SHA-256 of the files of a user's networks, by the name of the code."""
    digests = {name: digest for name, digest in options.items() if name.endswith(CODE)}
    return {str(options.get(name.removesuffix("_sha256"))): digests[name] for name in digests}


def changed_code(before: Options, now: Options) -> list[str]:
    """Return the files of networks in `before` that have changed since; arguments as for `changed`."""
    code_now = code_of(now)
    recorded = code_of(before).items()
    return [
        str(source_of(code)) for code, digest in recorded if code_now.get(code, digest) != digest
    ]


def warn_of_earlier_code(records: Iterable[Options], *, kind: str) -> None:
    """Warn of results with code of networks that has changed since. The code does not run.

    Args:
        records: the options of each result.
        kind: the noun for a result, such as "run".
    """
    n_earlier: Counter[str] = Counter()
    for options in records:
        files = {_file_if_changed(*recorded) for recorded in code_of(options).items()}
        n_earlier.update(files - {""})
    for file, n in n_earlier.items():
        warn_once(f"{counted(n, kind)} of earlier code of {file}")


def _file_if_changed(code: str, digest: str) -> str:
    """Return the file of user code if it holds other code than recorded; "" otherwise, or if it is gone."""
    try:
        file = source_of(code)
        return str(file) if content_of(file) != digest else ""
    except UserError:
        return ""


def options_beside_tables(tables: Iterable[str | Path]) -> list[Options]:
    """Return the options of the tables that have them in a `.config.txt` beside them."""
    return readable_records(Path(table).with_suffix(".config.txt") for table in tables)


def readable_records(configs: Iterable[Path]) -> list[Options]:
    """Return the options in files `config.txt`, without files that are missing or damaged."""
    records = []
    for config in configs:
        with contextlib.suppress(UserError):
            records.append(read_json(config))
    return [options for options in records if isinstance(options, dict)]


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
