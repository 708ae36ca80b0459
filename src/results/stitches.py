"""Reads the stitches of runs on disk, of this suite or of the public code.

A run is a folder with one stitch or many. Both codes write `summary.txt` and `config.txt` of a run of
one stitch, and `training_logs.csv`. This suite writes `grid.csv`, with a row a stitch, and
`predictions.npz`. A run of several stitches with networks of their own has a folder for each, with the
files of a run of one stitch: those that have a `config.txt` are finished.

This module does not import torch.
"""

import dataclasses
import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from src.core.choices import STARTS, Options
from src.core.choices.datasets import dataset_label
from src.core.choices.scores import ON_OTHER_DATA
from src.core.choices.stitching import Method
from src.core.console import counted, listed, warn, warn_once
from src.core.errors import UserError
from src.core.files import read_csv, read_json, readable
from src.core.grouping import grouped
from src.core.values import Metrics, Pair, Predictions, Rank, SkillEstimate, StitchSkill
from src.results.network_names import (
    SHORT,
    NamedNetwork,
    Names,
    NetworkKey,
    networks_in_words,
    networks_named_by,
)
from src.results.public import RUN_NAME, read_options, read_summary, typed_options
from src.results.run import record_of, warn_of_earlier
from src.results.spec import (
    CHECKPOINTS,
    COLUMNS_OF_WEIGHTS,
    DIGEST,
    OPTIONS,
    RECORDS,
    SPLITS,
    TYPES,
    WEIGHTS,
    Spec,
    further_options,
    is_idle,
    key_of,
    on_same_images,
    short_images,
    spec_of,
)
from src.results.tables import EVALUATIONS, Layout, from_record, json_object, read_table
from src.statistics.convergence import has_converged, learning_rates

if TYPE_CHECKING:
    from pandas import DataFrame

Key = TypeVar("Key", bound=Hashable)

STITCHES = "stitches.pt"  # the state dicts of a run with several stitches
TYPICAL_AUROC = 0.25  # below it, stitched activations are more typical than the end network's own


SETTINGS = {  # the options of a run, and the contents that it recorded; None: not recorded
    "front_model_path": str | None,
    "end_model_path": str | None,
    "front_model_type": str | None,
    "end_model_type": str | None,
    "dataset": str | None,
    "stitching_type": str,
    "init": str,
    "n_pinv_init_samples": int | str | None,  # "auto": as many as each pair needs
    "front_pinv_rank": Rank,
    "front_stitch_rank": Rank,
    "objective": str,
    "n_epochs": int | None,
    "pinv_cutoff": str,
    "seed": int | None,
    # With dots on all images: the probability that the dots tell the class
    "shortcut": float | None,
    # The first digits of the SHA-256 of the weights
    "front_weights": str | None,
    "end_weights": str | None,
    # The first digits of the fingerprints of the images
    "train_images": str | None,
    "test_images": str | None,
    "stitching_option": str | None,  # "auto": the type was chosen for the pair of layers
    # The further options that tell experiments apart; those with their usual value are left out
    "further_options": json_object,
}
METRICS = [entry.name for entry in dataclasses.fields(Metrics)]
OPTIONAL = {*SETTINGS, *METRICS}.difference(
    (*CHECKPOINTS, *TYPES, "dataset", "stitching_type", "init", "accuracy", "end_accuracy")
)
# The value of an empty cell; of other columns it is None
IF_EMPTY: Options = {
    "objective": "task",  # the only one of the public code, which does not record it
    "pinv_cutoff": "paper",  # as well
    "further_options": "{}",
    **dict.fromkeys(("front_accuracy", "representation_difference", "agreement"), math.nan),
    **dict.fromkeys(("kappa", "r2_test"), math.nan),
}
GRID = Layout(
    "stitching",
    "exec_stitch.py",
    {
        **SETTINGS,
        "front_layer": str,
        "end_layer": str,
        "folder": str,  # the name of the run's folder
        # `Metrics` describes the measurements
        "accuracy": float,
        "front_accuracy": float,
        "end_accuracy": float,
        "matching_error": float | None,
        "representation_difference": float,
        "agreement": float,
        "kappa": float,
        "n_images": int | None,
        "n_fitting_samples": int | None,
        "matching_rank": int | None,
        "r2_fit": float | None,
        "r2_test": float,
        "truncated": bool | None,
        "front_depth": int | None,
        "end_depth": int | None,
        "front_relative_depth": float | None,
        "end_relative_depth": float | None,
        "end_is_cut": bool | None,
        "front_nondeterminism": str | None,
        "end_nondeterminism": str | None,
        # and the share of the layer's weights up to each threshold, as `sparsity_<threshold>`
    },
    optional=OPTIONAL,
)


def with_empty(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a stitch with all columns of `GRID`: empty ones have the values of `IF_EMPTY`."""
    full = {**dict.fromkeys(GRID.types), **record}
    return full | {name: value for name, value in IF_EMPTY.items() if full[name] is None}


def columns_of(options: Options) -> Options:
    """Return the settings of a stitch, by column, from the options of its run."""
    values = {**options, **short_images(options)}
    for column, path_option in zip(COLUMNS_OF_WEIGHTS, CHECKPOINTS, strict=True):
        values[column] = (options.get(f"{path_option}_sha256") or "")[:SHORT] or None
    if options.get("dataset"):
        values["dataset"] = dataset_label(options["dataset"])
    values["further_options"] = further_options(options, columns=SETTINGS)
    return {name: values[name] for name in SETTINGS if name in values}


def metrics_of(record: Mapping[str, Any]) -> Metrics:
    """Return the measurements of a stitch.

    R² of the fit is left out if something else may have lowered that of the test images: training after
    the matching, or a stitching rank below the rank that was matched. With training, so is truncation.
    """
    metrics = Metrics(**{name: record[name] for name in METRICS})
    if record["n_epochs"] != 0:
        return replace(metrics, r2_fit=None, truncated=None)
    matched_rank = record["front_pinv_rank"] or math.inf
    stitched_rank = record["front_stitch_rank"] or math.inf
    if matched_rank > stitched_rank:
        return replace(metrics, r2_fit=None)
    return metrics


class RunFiles:
    """The predictions and logs of the stitches of a run, loaded lazily.

    Args:
        folder: of the files: the run's, or that of a stitch in it.
        pairs: of its stitches, in the order of the table.
    """

    def __init__(self, folder: Path, pairs: Sequence[Pair]):
        self.folder = folder
        self.pairs = pairs

    @cached_property
    def predictions(self) -> Mapping[Pair, Predictions]:
        """The predictions of each stitch; empty if none were saved, or, with a warning, if the file is
        damaged."""
        path = self.folder / "predictions.npz"
        if not path.is_file():
            return {}
        try:
            with np.load(path, allow_pickle=False) as arrays:
                stitched, *of_networks = (arrays[name] for name in Predictions._fields)
            rows = zip(self.pairs, np.atleast_2d(stitched), strict=True)
            return {pair: Predictions(of_pair, *of_networks) for pair, of_pair in rows}
        except Exception as error:  # a damaged archive can raise anything
            warn(f"{path} is damaged ({error}) and left out; stitch again")
            return {}

    @cached_property
    def epochs(self) -> Mapping[Pair, list[dict[str, str]]]:
        """The rows of `training_logs.csv` of each stitch; empty without training."""
        path = self.folder / "training_logs.csv"
        if not path.is_file():
            return {}
        rows: dict[Pair, list[dict[str, str]]] = {pair: [] for pair in self.pairs}
        with readable(path, "stitch again"):
            for row in read_csv(path):
                pair = self.pairs[0]
                if len(self.pairs) > 1:
                    pair = Pair(*(row.pop(name) for name in Pair._fields))
                rows[pair].append(row)
        return rows


@dataclass(frozen=True)
class Stitch:
    """A stitch of a finished run, with its measurements, predictions and logs."""

    folder: Path  # of the run
    options: Options  # the content of `config.txt`, with the layers of the stitch
    record: Mapping[str, Any]  # of `grid.csv`
    files: RunFiles
    spec: Spec = field(compare=False, repr=False)  # of the run
    # The record of the table of evaluations; empty: not evaluated
    evaluation: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def pair(self) -> Pair:
        """The layers."""
        return Pair(self.record["front_layer"], self.record["end_layer"])

    @property
    def place(self) -> tuple[str, Pair]:
        """The folder and the layers, which identify a stitch in tables."""
        return self.record["folder"], self.pair

    @cached_property  # asked for again and again, as are the keys
    def networks(self) -> tuple[NamedNetwork, NamedNetwork]:
        """The front and the end network."""
        record = self.record
        names = zip(CHECKPOINTS, TYPES, COLUMNS_OF_WEIGHTS, strict=True)
        front, end = (
            NamedNetwork.of(record[path], record[kind], seed=record["seed"], weights=record[column])
            for path, kind, column in names
        )
        return front, end

    @cached_property
    def network_keys(self) -> tuple[NetworkKey, NetworkKey]:
        """The keys of both networks."""
        front, end = self.networks
        return front.key, end.key

    @property
    def method(self) -> str:
        """The name of the method, such as "task loss matching"."""
        init = self.record["init"]
        if self.record["n_epochs"] != 0:
            return Method(self.record["objective"]).words
        if init in STARTS:
            return f"init {init}"
        return Method(init).words

    @property
    def accuracy_drop(self) -> float:
        """The accuracy drop: the accuracy of the end network less that of the stitch."""
        return self.record["end_accuracy"] - self.record["accuracy"]

    @property
    def predictions(self) -> Predictions | None:
        """The predicted classes and the labels of all test images; None if the run saved none."""
        return self.files.predictions.get(self.pair)

    @property
    def has_converged(self) -> bool:
        """Whether training had converged, see `values.has_converged`."""
        epochs = self.files.epochs.get(self.pair, [])
        with readable(self.files.folder / "training_logs.csv", "stitch again"):
            losses = [float(row["train_loss"]) for row in epochs]
        rates = learning_rates(
            len(losses),
            scheduler=self.options.get("scheduler", "none"),
            reduce_lr_epochs=self.options.get("reduce_lr_epochs", ()),
        )
        return has_converged(losses, rates)


def read_stitches(
    source_dir: str | Path, *, recursive: bool = False
) -> tuple[list[Stitch], list[str]]:
    """Read the stitches of all finished runs in a folder.

    A folder is a run if its name is a time, or if it has the options of a stitching run. The folder
    may be a run itself.

    Args:
        recursive: read the runs in all folders below as well.

    Returns:
        The stitches, the oldest first (by the names of the folders of runs), and one message per run
        that was skipped.
    """
    source_dir = Path(source_dir)
    if source_dir.name in ("", ".."):  # tables name the folders of runs
        source_dir = source_dir.resolve()
    if not source_dir.is_dir():
        raise UserError(
            f"{source_dir} is not a folder; give the folder that holds the folders of stitching runs"
        )
    stitches: list[Stitch] = []
    skipped = []
    for folder in _run_folders(source_dir, recursive=recursive):
        for part in parts_of(folder):
            try:
                stitches += _read_part(part, run=folder)
            except UserError as error:
                skipped.append(str(error))
    return sorted(stitches, key=lambda stitch: stitch.folder.name), skipped


def _run_folders(source_dir: Path, *, recursive: bool) -> list[Path]:
    """Return the folders of runs: a folder itself or its subfolders; with `recursive`, at any depth."""
    if is_run(source_dir):
        return [source_dir]
    paths = source_dir.iterdir()
    if recursive:
        paths = source_dir.rglob("*")
    return [
        path for path in sorted(paths) if is_run(path) and not RUN_NAME.fullmatch(path.parent.name)
    ]


def without_runs(source_dir: Path) -> UserError:
    """Return the error for a folder without finished runs; it lists the folders below that hold runs."""
    runs = _run_folders(source_dir, recursive=True)
    below = dict.fromkeys(run.parent for run in runs if source_dir in run.parent.parents)
    remedy = "the folder that holds their folders"
    if below:
        remedy = f"one of the folders below it that hold runs: {listed(below)}"
    return UserError(f"{source_dir} holds no finished stitching run; give {remedy}")


def is_run(path: Path) -> bool:
    """Return whether a path is a folder with the name or the options of a stitching run."""
    if not path.is_dir():
        return False
    if RUN_NAME.fullmatch(path.name):
        return True
    config = path / "config.txt"
    try:
        return config.is_file() and "stitching_type" in read_options(config)
    except UserError:  # a damaged file: reading the run says so
        return True


def parts_of(run: Path) -> list[Path]:
    """Return the folders with the files of a run: those of its stitches, if it has them, or its own."""
    if (run / "config.txt").is_file():
        return [run]
    return [config.parent for config in sorted(run.glob("*/config.txt"))] or [run]


def keys_of(stitches: Sequence[Stitch]) -> list[str]:
    """Return the key of each stitch's experiment: its settings, networks and images.

    The place of a network stands for weights that are not known. Inputs that a run did not record are
    those of all runs that agree with it otherwise, if these are on the same inputs.
    """
    specs: dict[int, Spec] = {}  # by run, whose stitches share the spec
    for stitch in stitches:
        if id(stitch.spec) not in specs:
            weights = zip(WEIGHTS, stitch.networks, strict=True)
            known = {name: stitch.spec[name] or network.identity for name, network in weights}
            specs[id(stitch.spec)] = stitch.spec | known
    no_inputs = dict.fromkeys(SPLITS)
    for alike in grouped(specs.values(), lambda spec: key_of(spec | no_inputs)).values():
        for split in SPLITS:
            digests = {spec[split] for spec in alike} - {None}
            if len(digests) == 1:
                for spec in alike:
                    spec[split] = min(digests)
    keys = {run: key_of(spec) for run, spec in specs.items()}
    return [keys[id(stitch.spec)] for stitch in stitches]


def names_of_data(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the name of the data set of each record; names are different if the images differ, with a warning.

    Where records of one data set have different images, the name of the data set has their
    fingerprints behind it, such as "digits [test inputs 0123456789ab]". All other names stay.
    """
    images: dict[int, list[str]] = {number: [] for number in range(len(records))}
    named = [(record["dataset"], record["shortcut"]) for record in records]
    for (dataset, _), numbers in grouped(images, named.__getitem__).items():
        for split, title in SPLITS.items():
            digests = {number: records[number].get(split) for number in numbers}
            recorded = {number: digest for number, digest in digests.items() if digest}
            different = list(dict.fromkeys(recorded.values()))
            if len(different) > 1:
                warn_once(
                    f"results of {dataset} are of different {title} ({listed(different)}), and count as results of "
                    "different data sets"
                )
                for number, digest in recorded.items():
                    images[number].append(f"{title} {digest}")
    return [
        f"{record['dataset']} [{', '.join(digests)}]" if digests else record["dataset"]
        for record, digests in zip(records, images.values(), strict=True)
    ]


def experiments_of(stitches: Sequence[Stitch]) -> list[str]:
    """Return the title of each stitch's experiment; stitches on different images belong to different
    experiments.

    A title has the settings that tell the experiments apart, such as "-i pinv". That of a single
    experiment is "".
    """
    keys = keys_of(stitches)
    datasets = names_of_data([stitch.record for stitch in stitches])
    settings: dict[str, Options] = {}
    for key, stitch, dataset in zip(keys, stitches, datasets, strict=True):
        if key not in settings:
            settings[key] = _settings(stitch.spec, dataset)
    titles = _titles(settings)
    return [titles[key] for key in keys]


def method_names(stitches: Sequence[Stitch], *, apart_from: Collection[str]) -> list[str]:
    """Return the name of the method of each stitch, such as "task loss matching (-e 5)".

    Methods with one name have the options behind it in which they differ.

    Args:
        apart_from: settings to ignore.
    """
    datasets = names_of_data([stitch.record for stitch in stitches])
    # Stitches of a run share their settings
    runs = [(id(stitch.spec), dataset) for stitch, dataset in zip(stitches, datasets, strict=True)]
    stitch_of = dict(zip(runs, stitches, strict=True))
    names = {run: stitch.method for run, stitch in stitch_of.items()}
    for of_method in grouped(names, names.__getitem__).values():
        settings = {run: _settings(stitch_of[run].spec, run[1], apart_from) for run in of_method}
        titles = _titles(settings)
        names |= {run: f"{names[run]} ({title})" for run, title in titles.items() if title}
    return [names[run] for run in runs]


def _settings(spec: Spec, dataset: str, apart_from: Collection[str] = ()) -> Options:
    """Return the settings in the spec of a stitch, with the name of the data set in place of the fingerprints of
    its images."""
    known = spec | {"dataset": dataset}
    names = dict.fromkeys([*OPTIONS, *known])
    ignored = {*SPLITS, *apart_from}
    return {name: known[name] for name in names if name in known and name not in ignored}


def typed(name: str, value: object) -> str:
    """Format a setting as on the command line, such as "-e 5"; one without a flag as "stitching_type=t2t"."""
    if isinstance(value, list):
        value = " ".join(map(str, value))
    if value in (None, ""):
        value = "full" if name.endswith("_rank") else "none"
    if name in OPTIONS:
        return f"{OPTIONS[name].flag} {value}"
    return f"{name}={value}"


def _titles(settings: Mapping[Key, Options]) -> dict[Key, str]:
    """Return titles of several experiments from the settings in which they differ, without options that have no
    effect."""
    names = dict.fromkeys(chain.from_iterable(settings.values()))
    titles: dict[Key, list[str]] = {key: [] for key in settings}
    for name in names:
        texts = {
            key: typed(name, values.get(name))
            for key, values in settings.items()
            if not is_idle(name, values)
        }
        if len(set(texts.values())) > 1:
            for key, text in texts.items():
                titles[key].append(text)
    return {key: ", ".join(texts) for key, texts in titles.items()}


def newest_stitches(stitches: Iterable[Stitch]) -> list[Stitch]:
    """Keep the newest stitch of each pair of layers in each experiment, preferring evaluated ones; warn if
    stitches were dropped.

    The stitches keep their order. The names of the folders of runs are times, which tell the newest.
    """
    stitches = list(stitches)
    keys = keys_of(stitches)
    in_order = sorted(
        range(len(stitches)),
        key=lambda number: (bool(stitches[number].evaluation), stitches[number].folder.name),
    )
    results = grouped(in_order, lambda number: (stitches[number].pair, keys[number])).values()
    n_repeated = len(stitches) - len(results)
    if n_repeated:
        repeat = counted(n_repeated, "result repeats another", "results repeat others")
        repeated = [stitches[numbers[0]] for numbers in results if len(numbers) > 1]
        titles = dict.fromkeys(networks_in_words(stitch.networks) for stitch in repeated)
        warn(
            f"{repeat} of the same experiment ({listed(titles, n=3)}); the newest (if some are evaluated, of these) "
            "of each counts"
        )
    return [stitches[number] for number in sorted(numbers[-1] for numbers in results)]


def newest_by_experiment(stitches: Iterable[Stitch]) -> dict[str, list[Stitch]]:
    """Return the newest stitch of each pair of layers, by the title of the experiment
    (`experiments_of`).

    Warns if stitches were dropped. The oldest comes first.
    """
    in_order = sorted(newest_stitches(stitches), key=lambda stitch: stitch.folder.name)
    titles = experiments_of(in_order)
    by_title: dict[str, list[Stitch]] = {}
    for title, stitch in zip(titles, in_order, strict=True):
        by_title.setdefault(title, []).append(stitch)
    return by_title


def warn_of_weights(stitches: Sequence[Stitch]) -> None:
    """Warn of stitches whose checkpoints or code have changed since, and repeat the warnings of their runs."""
    of_runs = one_of_each(stitches)
    for stitch in of_runs:
        record = stitch.files.folder / "run.json"
        made_with = read_json(record) if record.exists() else {}
        for text in made_with.get("warnings", ()):
            warn_once(f"when stitches were made: {text}")
    networks = chain.from_iterable(stitch.networks for stitch in of_runs)
    warn_of_earlier(networks, [stitch.options for stitch in of_runs])


def images_of(stitches: Iterable[Stitch]) -> dict[str, dict[str, list[str]]]:
    """Return the fingerprints of the images of stitches, by option and by data set.

    The list of a data set is empty if no stitch recorded its images.
    """
    images: dict[str, dict[str, list[str]]] = {name: {} for name in RECORDS.values()}
    for stitch in stitches:
        for name, of_datasets in images.items():
            digests = of_datasets.setdefault(str(stitch.record["dataset"]), [])
            digest = stitch.options.get(name)
            if digest and digest not in digests:
                digests.append(digest)
    return images


def weights_of(stitches: Iterable[Stitch]) -> list[str]:
    """Return the distinct weights of the networks of stitches, front and end."""
    pairs = {stitch.network_keys for stitch in stitches}
    return sorted({f"{front} → {end}" for (front, _), (end, _) in pairs})


def networks_of(
    stitches: Iterable[Stitch], similarities: "DataFrame", names: Names
) -> list[tuple[NamedNetwork, str, float | None]]:
    """Return the networks of results with each data set and the accuracy on it, in the order of `names`.

    The accuracy is None where it was not measured.

    Args:
        similarities: the frame of tables of similarity.
        names: of the networks to return; tables of similarity may have others.
    """
    measured: dict[tuple[NetworkKey, str], tuple[NamedNetwork, str, float | None]] = {}
    for stitch in stitches:
        recorded = networks_named_by(stitch.options)  # with all digits of the weights
        dataset = str(stitch.record["dataset"])
        for key, side in zip(stitch.network_keys, ("front", "end"), strict=True):
            network = replace(names[key], weights=recorded[f"{side}_model"].weights)
            accuracy = stitch.record[f"{side}_accuracy"]
            known = None if math.isnan(accuracy) else accuracy
            measured.setdefault((key, dataset), (network, dataset, known))
    for pair, dataset in zip(similarities.networks, similarities.dataset, strict=True):
        for network in pair:
            if network.key in names:
                named = replace(names[network.key], weights=network.weights)
                measured.setdefault((network.key, dataset), (named, dataset, None))
    order = list(names)
    return [measured[place] for place in sorted(measured, key=lambda place: order.index(place[0]))]


def records_behind(
    stitches: Iterable[Stitch],
    tables: Iterable[Path],
    networks: Iterable[NamedNetwork] = (),
) -> list[dict[str, Any]]:
    """Return the records of training runs, stitches, evaluations and tables, as far as they exist."""
    files = [Path(network.path).parent / "run.json" for network in networks if network.is_file]
    folders = list(dict.fromkeys(stitch.folder for stitch in stitches))
    files += [folder / "run.json" for folder in folders]
    for folder in dict.fromkeys([*(folder.parent for folder in folders), *folders]):
        files += sorted(folder.glob("evaluation*.json"))
    files += map(record_of, tables)
    return [read_json(file) for file in dict.fromkeys(files) if file.is_file()]


def one_of_each(stitches: Iterable[Stitch]) -> list[Stitch]:
    """Return one stitch of each run."""
    return list({stitch.folder: stitch for stitch in stitches}.values())


def remove_parts(directory: Path) -> None:
    """Delete the temporary `*.part` files of killed processes in a folder and below it."""
    for part in list(directory.rglob(".*.part")):
        part.unlink()


def remove_remains(directory: Path) -> None:
    """Delete `*.part` files, and unfinished runs unless a run in the folder can be resumed.

    No process may be writing to the folder.
    """
    remove_parts(directory)
    if not any(directory.glob("*/resume.pt")):
        for path in list(directory.iterdir()):
            if RUN_NAME.fullmatch(path.name) and not any(path.rglob("config.txt")):
                shutil.rmtree(path)


def _read_part(folder: Path, *, run: Path) -> list[Stitch]:
    """Read the stitches in a folder; measurements that the public code lacks are NaN or None.

    Args:
        folder: of the run, or of a stitch in it (`parts_of`).
        run: the folder of the run.

    Raises:
        UserError: the run is unfinished, or one of its files is damaged.
    """
    if not (folder / "config.txt").is_file():
        raise UserError(f"{folder} has no config.txt: the run in it did not finish")
    options = read_options(folder / "config.txt")
    typed = typed_options(options)
    if (folder / "grid.csv").is_file():
        records = read_table(folder / "grid.csv", GRID)
        if not records:
            raise UserError(f"{folder / 'grid.csv'} is damaged: it has no rows")
    else:
        records = [_record_of_summary(folder, options)]
    common: dict[str, Any] = {
        name: os.path.normpath(str(options[name])) for name in CHECKPOINTS if options.get(name)
    }
    return stitches_of_run(run, typed, [record | common for record in records], files=folder)


def stitches_of_run(
    run: Path, options: Options, records: Iterable[Mapping[str, Any]], *, files: Path | None = None
) -> list[Stitch]:
    """Return the stitches of a run.

    Args:
        run: its folder.
        options: as they were typed.
        records: of `grid.csv`; empty cells may be missing.
        files: the folder with the files; None: that of the run.
    """
    full = [with_empty({**record, "folder": run.name}) for record in records]
    layers = [{name: record[name] for name in Pair._fields} for record in full]
    shared = RunFiles(files or run, [Pair(**of_stitch) for of_stitch in layers])
    spec = spec_of(options)
    return [
        Stitch(run, {**options, **of_stitch}, record, shared, spec)
        for record, of_stitch in zip(full, layers, strict=True)
    ]


def stitch_of_record(record: Mapping[str, Any]) -> Stitch:
    """Return the stitch of a record in a table without a run, with the options that its columns give."""
    options = {name: with_empty(record)[name] for name in SETTINGS}
    options |= json.loads(options.pop("further_options"))
    contents = dict(zip(COLUMNS_OF_WEIGHTS, CHECKPOINTS, strict=True))
    for column, option in [*contents.items(), *zip(SPLITS, SPLITS, strict=True)]:
        options[f"{option}{DIGEST}"] = options.pop(column)
    (stitch,) = stitches_of_run(Path(record["folder"]), options, [record])
    return stitch


def _record_of_summary(folder: Path, options: Options) -> dict[str, Any]:
    """Return the record of a run of the public code, from `summary.txt`.

    Raises:
        UserError: the file or an option is missing or damaged.
    """
    layers = {name: options[name] for name in Pair._fields if name in options}
    measured = {"end_accuracy": math.nan, **read_summary(folder, options)}
    record = {**measured, **columns_of(options), **layers, "folder": folder.name}
    try:
        return from_record(GRID, record)
    except ValueError as error:
        raise UserError(
            f"{folder} is not the folder of a stitching run ({error} missing or damaged)"
        ) from error


# ---- Evaluations


def place_of(record: Mapping[str, Any]) -> tuple[str, Pair]:
    """Return the folder and the layers of an evaluated stitch, which identify it in tables."""
    return record["folder"], Pair(record["front_layer"], record["end_layer"])


def skill_of(record: Mapping[str, Any]) -> StitchSkill:
    """Return the skill in the record of an evaluation."""
    at_end, output = (
        SkillEstimate(*(record[name] for name in _columns_of_skill(end))) for end in ("_at_end", "")
    )
    return StitchSkill(at_end, output, *(record[name] for name in StitchSkill._fields[2:]))


def by_detector(record: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return what detectors measured, by detector and by column, such as `auroc_energy`."""
    columns = [name for name in record if name not in EVALUATIONS.types]
    by_name = grouped(columns, lambda name: name.rpartition("_")[2])
    return {detector: {name: record[name] for name in names} for detector, names in by_name.items()}


def _columns_of_skill(place: str) -> list[str]:
    """Return the names of the columns of skill and its interval, at the end layer or the output.

    Args:
        place: the end of the names: "_at_end", or "" for the output.
    """
    correlation, baseline, skill, *ends = SkillEstimate._fields
    names = [f"{name}{place}" for name in (correlation, baseline, skill)]
    return [*names, *(f"{skill}{place}_{end}" for end in ends)]


def columns_of_skill(skill: StitchSkill) -> dict[str, Any]:
    """Return the skill of a stitch by column."""
    columns: dict[str, Any] = {}
    for place, of_place in (("", skill.output), ("_at_end", skill.end_layer)):
        columns |= zip(_columns_of_skill(place), of_place, strict=True)
    return columns | {name: getattr(skill, name) for name in StitchSkill._fields[2:]}


class EvaluationFiles(NamedTuple):
    """The paths of an evaluation, in a folder of stitching runs."""

    folder: Path
    other_data: str = ""  # the data of the evaluation, if the stitches were made on other data

    @property
    def table(self) -> Path:
        """The path of the table of evaluations."""
        return self.folder / f"evaluation{self._ending}.csv"

    def scores(self, detector: str) -> Path:
        """Return the path of the scores of all images by one detector."""
        return self.folder / f"energies_{detector}{self._ending}.npz"

    def read(self) -> list[dict[str, Any]]:
        """Return the records of the table; [] without one."""
        if not self.table.exists():
            return []
        return read_table(self.table, EVALUATIONS)

    @property
    def _ending(self) -> str:
        return self.other_data and f"{ON_OTHER_DATA}{self.other_data}"


def read_evaluated_stitches(
    source_dirs: Iterable[str | Path], *, recursive: bool = False
) -> list[Stitch]:
    """Read the stitches in folders with their evaluations, the oldest of a folder first.

    A folder that holds no run stands for all folders of runs below it. A run that two folders have
    counts once. Warns of runs that are skipped, and of weights that have changed since.

    Args:
        recursive: read the runs below all folders, also below those that hold runs.
    """
    stitches: dict[tuple[Path, Pair], Stitch] = {}
    for source_dir in map(Path, source_dirs):
        is_above = not any(map(is_run, [source_dir, *source_dir.glob("*")]))
        of_folder, skipped = read_stitches(source_dir, recursive=recursive or is_above)
        for reason in skipped:
            warn(f"skipped: {reason}")
        stitches |= {(stitch.folder.resolve(), stitch.pair): stitch for stitch in of_folder}
    evaluated = with_evaluations(list(stitches.values()))
    warn_of_weights(evaluated)
    return evaluated


def with_evaluations(stitches: Sequence[Stitch]) -> list[Stitch]:
    """Return stitches with their evaluations, where these exist.

    The tables are in the folder that holds the runs, or in the folder of a run. Evaluations on other
    data than the run's are skipped, with a warning.
    """
    parents = dict.fromkeys(stitch.folder.parent for stitch in stitches)
    folders = parents | dict.fromkeys(stitch.folder for stitch in stitches)
    tables = {
        folder: {place_of(row): row for row in EvaluationFiles(folder).read()} for folder in folders
    }
    n_skipped: Counter[Path] = Counter()
    evaluated = []
    for stitch in stitches:
        for folder in (stitch.folder.parent, stitch.folder):
            row = tables[folder].get(stitch.place)
            if row and on_same_images(stitch.record, row):
                stitch = replace(stitch, evaluation=row)
            elif row:
                n_skipped[folder] += 1
        evaluated.append(stitch)
    for folder, n in n_skipped.items():
        warn(
            f"{folder}: the evaluation of {n} stitches is skipped: it is on other data (--other-data)"
        )
    return evaluated
