"""Groups results into experiments, drops repeated results, and names methods by their settings."""

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from src.choices import Options
from src.core.console import listed, warn, warn_once
from src.core.errors import UserError
from src.core.grouping import grouped
from src.core.user_code import digest_of, is_user_code, source_of
from src.results.network_names import NamedNetwork
from src.results.run import options_of_table
from src.results.spec import (
    DIGEST,
    OPTIONS,
    SPLITS,
    WEIGHTS,
    Spec,
    data_of,
    is_idle,
    key_of,
)

StitchRow = Any  # of `src.results.stitches`, which imports this module
Result = TypeVar("Result")
Key = TypeVar("Key", bound=Hashable)


def keys_of(rows: Sequence[StitchRow]) -> list[str]:
    """Return the key of each stitch's experiment: its settings, networks and images.

    The place of a network stands for weights that are not known. Inputs that a run did not record are
    those of all runs that agree with it otherwise, if these are on the same inputs.
    """
    specs: dict[int, Spec] = {}  # by run, whose stitches share it
    known: dict[
        str, dict[str, set[str]]
    ] = {}  # fingerprints by the key without inputs, and by split
    without_inputs = {}
    for row in rows:
        run = id(row.spec)
        if run in specs:
            continue
        places = {
            name: network.identity for name, network in zip(WEIGHTS, row.networks, strict=True)
        }
        weights = {name: row.spec[name] or places[name] for name in WEIGHTS}
        specs[run] = row.spec | weights
        without_inputs[run] = key_of(specs[run] | dict.fromkeys(SPLITS))
        for split in SPLITS:
            fingerprints = known.setdefault(without_inputs[run], {}).setdefault(split, set())
            fingerprints |= {row.spec[split]} - {None}
    keys = {}
    for run, spec in specs.items():
        of_splits = known[without_inputs[run]].items()
        settled = {split: min(digests) for split, digests in of_splits if len(digests) == 1}
        keys[run] = key_of(spec | settled)
    return [keys[id(row.spec)] for row in rows]


def newest(
    items: Iterable[Result],
    key: Callable[[Result], Hashable],
    title: Callable[[Result], str],
    *,
    which: str = "the newest",
) -> list[Result]:
    """Keep the last result of each key; warn if results were dropped.

    Args:
        items: results, the oldest first.
        title: names the networks of a result, for the warning.
        which: says which result is the last one, for the warning.
    """
    groups = grouped(items, key)
    n_repeated = sum(len(group) - 1 for group in groups.values())
    if n_repeated:
        results = "1 result repeats another"
        if n_repeated > 1:
            results = f"{n_repeated} results repeat others"
        repeated = dict.fromkeys(title(group[0]) for group in groups.values() if len(group) > 1)
        warn(f"{results} of the same experiment ({listed(repeated, n=3)}); {which} of each counts")
    return [group[-1] for group in groups.values()]


def experiments_of(rows: Sequence[StitchRow]) -> list[str]:
    """Return the title of each stitch's experiment; stitches on different images belong to different
    experiments.

    A title has the settings that tell the experiments apart, such as "init=pinv". That of a single
    experiment is "".
    """
    keys = keys_of(rows)
    first = dict(zip(reversed(keys), reversed(told_apart(rows)), strict=True))
    titles = _titles({key: settings_of(first[key]) for key in dict.fromkeys(keys)})
    return [titles[key] for key in keys]


def settings_of(row: StitchRow) -> Options:
    """Return the settings in the spec of a stitch, with the name of the data set in place of the fingerprints
    of its images."""
    known = row.spec | {"dataset": row.dataset}
    names = dict.fromkeys([*OPTIONS, *known])
    return {name: known[name] for name in names if name in known and name not in SPLITS}


def method_names(rows: Sequence[StitchRow], *, apart_from: Collection[str]) -> list[str]:
    """Return the name of the method of each stitch, such as "task loss matching (-e 5)".

    Methods with one name have the options behind it in which they differ.

    Args:
        apart_from: settings to ignore.
    """
    told = told_apart(rows)
    runs = [(id(row.spec), row.dataset) for row in told]  # stitches of a run share their settings
    settings = {run: settings_of(row) for run, row in zip(runs, told, strict=True)}
    names = {run: row.method for run, row in zip(runs, rows, strict=True)}
    for of_method in grouped(names, names.__getitem__).values():
        titles = _titles({run: _without(settings[run], apart_from) for run in of_method}, typed)
        names |= {run: f"{names[run]} ({title})" for run, title in titles.items() if title}
    return [names[run] for run in runs]


def _without(settings: Options, names: Collection[str]) -> Options:
    return {name: value for name, value in settings.items() if name not in names}


def typed(name: str, value: object) -> str:
    """Format a setting as on the command line, such as "-e 5"; one without a flag as "dataset=digits"."""
    if name in OPTIONS and OPTIONS[name].flag:
        return f"{OPTIONS[name].flag} {_text(name, value)}"
    return _named(name, value)


def _named(name: str, value: object) -> str:
    """Format a setting with its name, such as "n_epochs=5"."""
    return f"{name}={_text(name, value)}"


def _text(name: str, value: object) -> object:
    """Format the value of a setting for a title."""
    if isinstance(value, list):
        value = " ".join(map(str, value))
    if value not in (None, ""):
        return value
    return "full" if name.endswith("_rank") else "none"


def _titles(
    settings: Mapping[Key, Options], text_of: Callable[[str, object], str] = _named
) -> dict[Key, str]:
    """Return titles of several experiments from the settings in which they differ, without options that have no
    effect."""
    names = dict.fromkeys(chain.from_iterable(settings.values()))
    titles: dict[Key, list[str]] = {key: [] for key in settings}
    for name in names:
        texts = {
            key: text_of(name, values.get(name))
            for key, values in settings.items()
            if not is_idle(name, values)
        }
        if len(set(texts.values())) > 1:
            for key, text in texts.items():
                titles[key].append(text)
    return {key: ", ".join(texts) for key, texts in titles.items()}


def told_apart(rows: Sequence[StitchRow]) -> list[StitchRow]:
    """Return rows with the names of data sets that `names_of_data` gives."""
    told = []
    for row, name in zip(rows, names_of_data(rows), strict=True):
        is_named = name == row.dataset
        told.append(row if is_named else dataclasses.replace(row, dataset=name))
    return told


def names_of_data(rows: Sequence[Any]) -> list[str]:
    """Return the name of the data set of each row; names are different if the images differ.

    Where rows of one data set recorded different images, the name of the data set has their
    fingerprints behind it, such as "digits [test inputs 0123456789ab]". All other names stay.
    """
    several = _several(rows)
    return [_with_images(row, several.get(data_of(row), {})) for row in rows]


def warn_of_several(rows: Iterable[Any]) -> None:
    """Warn of data sets for which rows recorded different fingerprints of images."""
    for (dataset, _), digests_of in _several(rows).items():
        for split, digests in digests_of.items():
            warn_once(
                f"results of {dataset} are of different {SPLITS[split]} ({listed(digests)}), and count as results of "
                "different data sets"
            )


def _several(rows: Iterable[Any]) -> dict[tuple[str, float | None], dict[str, list[str]]]:
    """Return, for each data set on which rows recorded several fingerprints of images, these fingerprints by
    split."""
    several: dict[tuple[str, float | None], dict[str, list[str]]] = {}
    for data, group in grouped(rows, data_of).items():
        for split in SPLITS:
            digests = dict.fromkeys(getattr(row, split, None) for row in group)
            recorded = list(filter(None, digests))
            if len(recorded) > 1:
                several.setdefault(data, {})[split] = recorded
    return several


def _with_images(row: Any, splits: Iterable[str]) -> str:
    """Return the name of the data set of a row, with the fingerprints of its images."""
    digests = [
        f"{SPLITS[split]} {getattr(row, split)}" for split in splits if getattr(row, split, None)
    ]
    if not digests:
        return row.dataset
    return f"{row.dataset} [{', '.join(digests)}]"


def options_beside_tables(tables: Iterable[str | Path]) -> list[Options]:
    """Return the options in the records beside tables; damaged records are skipped."""
    records = []
    for table in tables:
        with contextlib.suppress(UserError):
            records.append(options_of_table(table))
    return records


def warn_of_earlier(networks: Iterable[NamedNetwork], records: Iterable[Options]) -> None:
    """Warn of results whose weights or code have changed since, without running the code.

    Args:
        networks: of all results.
        records: the options of results, as far as there are some.
    """
    for network in dict.fromkeys(networks):
        if network.has_changed:
            warn_once(f"there are results of earlier weights of {network.title}")
    for options in records:
        for code, digest in recorded_code(options).items():
            with contextlib.suppress(UserError):  # the file is gone
                if digest_of(code) != digest:
                    warn_once(f"there are results of earlier code of {source_of(code)}")


def recorded_code(options: Options) -> dict[str, str]:
    """Return the recorded SHA-256 digests of a user's code, by its name."""
    digests: dict[str, str] = {}
    for name, value in options.items():
        of_code = options.get(name.removesuffix(DIGEST))
        if isinstance(value, dict) and name.endswith(DIGEST):
            digests |= value
        elif isinstance(of_code, str) and is_user_code(of_code) and name.endswith(DIGEST):
            digests[of_code] = value
    return digests
