"""Changes since results were made: in the weights and the code of their networks, and in their images.

This module does not import torch.
"""

import contextlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from src.choices import Options
from src.ground.console import warn_once
from src.ground.errors import UserError
from src.ground.files import read_json
from src.ground.user_code import source_of
from src.results.image_records import changed_images, title_of_data
from src.results.network_names import NetworkName, content_of, networks_named_by

CODE = "_type_sha256"  # ends the options that hold the SHA-256 of the file of a user's network


def changed_since(before: Options, now: Options) -> list[str]:
    """Return the changes since a result was made, such as "weights of a.pt".

    Args:
        before: the options of the result in files.
        now: the options of this process. They may name the recorded weights under another path.
    """
    changed = [f"weights of {title}" for title in _changed_weights(before, now)]
    code_now = _code_of(now)
    for code, digest in _code_of(before).items():
        if code_now.get(code, digest) != digest:
            changed.append(f"code of {source_of(code)}")
    images = changed_images(before, now)
    if images:
        changed.append(f"{' and '.join(images)} of {title_of_data(before, now)}")
    return changed


def changes(records: Iterable[Options], now: Options) -> tuple[int, list[str]]:
    """Return how many results have changed, and all changes; arguments as for `changed_since`."""
    changed = [changed_since(before, now) for before in records]
    everything = dict.fromkeys(title for of_record in changed for title in of_record)
    return sum(map(bool, changed)), list(everything)


def _changed_weights(before: Options, now: Options) -> list[str]:
    """Return the titles of the networks in `before` with weights that have changed since."""
    networks_now = networks_named_by(now)
    weights_at = {network.place: network.weights for network in networks_now.values()}
    titles = []
    for name, network in networks_named_by(before).items():
        is_unchanged = name in networks_now and networks_now[name].weights == network.weights
        weights_now = weights_at.get(network.place, "")
        if network.weights and weights_now not in ("", network.weights) and not is_unchanged:
            titles.append(network.title)
    return titles


def _code_of(options: Options) -> dict[str, str]:
    """Return the recorded SHA-256 of the files of a user's networks, by the name of the code."""
    digests = {name: digest for name, digest in options.items() if name.endswith(CODE)}
    return {str(options.get(name.removesuffix("_sha256"))): digests[name] for name in digests}


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
    n_results = Counter(network for networks in results for network in set(networks))
    n_earlier: Counter[str] = Counter()
    for network, n in n_results.items():
        if network.has_changed:
            n_earlier[f"weights of {network.title}"] += n
    _warn(n_earlier, kind)


def warn_of_earlier_code(records: Iterable[Options], *, kind: str) -> None:
    """Warn of results with code of networks that has changed since. The code does not run.

    Args:
        records: the options of each result.
        kind: the noun for a result, such as "run".
    """
    n_earlier: Counter[str] = Counter()
    for options in records:
        files = set()
        for code, digest in _code_of(options).items():
            with contextlib.suppress(UserError):  # the file is gone
                if content_of(source_of(code)) != digest:
                    files.add(source_of(code))
        n_earlier.update(f"code of {file}" for file in files)
    _warn(n_earlier, kind)


def _warn(n_earlier: Counter[str], kind: str) -> None:
    """Warn of numbers of results that are of something earlier."""
    for title, n in n_earlier.items():
        warn_once(f"{counted(n, kind)} of earlier {title}")


def counted(n: int, kind: str) -> str:
    """Return a number of things with its verb, such as "1 run is" or "2 runs are"."""
    if n == 1:
        return f"1 {kind} is"
    return f"{n} {kind}s are"
