"""The experiment that a stitch belongs to: its layers, its settings, and the name of its method.

Results of one experiment may be taken together. Of repeated results the newest counts.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import chain, combinations
from typing import Any, ClassVar, NamedTuple, TypeVar

from src.choices import STARTS, Options
from src.choices.datasets import dataset_label
from src.choices.stitching import Method
from src.core.console import listed, warn
from src.core.grouping import grouped
from src.results.network_names import SHORT, OfTwoNetworks
from src.results.public import chosen_options
from src.results.spec import (
    CHECKPOINTS,
    COLUMNS_OF_WEIGHTS,
    OPTIONS,
    RECORDS,
    SPLITS,
    WEIGHTS,
    FurtherOptions,
    RunOptions,
    Spec,
    further_options,
    key_of,
    short_images,
    spec_of,
    told_apart,
)
from src.results.tables import from_record
from src.values import Pair

FURTHER = "further_options"  # the column of the options without a column of their own


@dataclasses.dataclass(frozen=True)
class Experiment(OfTwoNetworks):
    """The settings of a stitch, apart from its layers.

    The names of the settings are the names of options of `exec_stitch.py`, of entries of
    `config.txt`, and of columns of tables. None stands for an unrecorded setting.
    """

    network_columns: ClassVar = (
        ("front_model_path", "front_model_type", "front_weights"),
        ("end_model_path", "end_model_type", "end_weights"),
    )

    front_model_path: str | None
    end_model_path: str | None
    front_model_type: str | None
    end_model_type: str | None
    dataset: str | None
    stitching_type: str
    init: str
    n_pinv_init_samples: int | str | None = None  # "auto": as many as each pair needs
    front_pinv_rank: int | None = None
    front_stitch_rank: int | None = None
    # The public code has only this objective, and does not record it.
    objective: str = "task"
    n_epochs: int | None = None
    pinv_cutoff: str = "paper"  # the only cutoff of the public code
    seed: int | None = None
    # With dots on all images: the probability that the dots tell the class
    shortcut: float | None = None
    # The first digits of the SHA-256 of the weights
    front_weights: str | None = None
    end_weights: str | None = None
    # The first digits of the fingerprints of the images
    train_images: str | None = None
    test_images: str | None = None
    stitching_option: str | None = None  # "auto": the type was chosen for the pair of layers
    # The further options that tell experiments apart, as JSON; those with their usual value are left out
    further_options: FurtherOptions = FurtherOptions()  # noqa: RUF009 - immutable
    # All options of the run; no column
    options: RunOptions = dataclasses.field(default_factory=RunOptions, compare=False, repr=False)
    # By pair of layers, the options that `auto` chose; no column
    chosen: Mapping[Pair, Options] = dataclasses.field(
        default_factory=dict, compare=False, repr=False
    )

    @classmethod
    def of(cls, options: Options) -> "Experiment":
        """Return the experiment of a run with these options.

        Raises:
            ValueError: an option is missing or of a wrong type. The message is its name.
        """
        experiment = from_record(Experiment, with_columns(options))
        return dataclasses.replace(experiment, options=RunOptions(options))

    def config(self, pair: Pair) -> Options:
        """Return the content of `config.txt` for a pair of layers: all options of its run."""
        return chosen_options({**self.options, **pair._asdict()}, self.chosen.get(pair, {}))

    def settings_of(self, pair: Pair) -> Options:
        """Return the settings of a pair of layers, and the names of the layers."""
        chosen = self.chosen.get(pair, {})
        settings = {name: chosen.get(name, value) for name, value in self.settings.items()}
        return settings | pair._asdict()

    @cached_property
    def settings(self) -> Options:
        """The settings by name, without layers, folder and measurements of a row."""
        return {name: getattr(self, name) for name in SETTINGS}

    @cached_property
    def spec(self) -> Spec:
        """The spec, see `spec_of`; of a row that was read without its run, as far as columns tell."""
        if self.options:
            return self.options.spec
        options = dict(self.settings)
        further = json.loads(str(options.pop(FURTHER)))
        for column, path_option in zip(COLUMNS_OF_WEIGHTS, CHECKPOINTS, strict=True):
            options[f"{path_option}_sha256"] = options.pop(column)
        for split, record in RECORDS.items():
            options[record] = options.pop(split)
        return spec_of(options | further)

    @cached_property
    def distinctions(self) -> Options:
        """The entries of the spec, as hashable values, with the name of the data set in place of the
        fingerprints; `told_apart` gives different images different names."""
        entries: dict[str, Any] = {}
        for name in [*OPTIONS, *self.spec]:
            value = self.spec.get(name)
            if name in self.spec and name not in SPLITS:
                entries[name] = tuple(value) if isinstance(value, list) else value
        return entries | {"dataset": self.dataset}

    @cached_property
    def method(self) -> str:
        """The name of the method, such as "task loss matching"."""
        if self.n_epochs != 0:
            return Method(self.objective).words
        if self.init in STARTS:
            return f"init {self.init}"
        return Method(self.init).words

    @cached_property
    def named_spec(self) -> Spec:
        """The spec, with the place of a network whose weights are not known."""
        spec = dict(self.spec)
        for name, network in zip(WEIGHTS, self.networks, strict=True):
            spec[name] = spec[name] or network.identity
        return spec

    @cached_property
    def key(self) -> str:
        """The key of `named_spec`."""
        return key_of(self.named_spec)


# The names of the settings
SETTINGS = [field.name for field in dataclasses.fields(Experiment) if field.compare]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StitchResult(Experiment):
    """A row of a table of stitches: the experiment, the layers and the folder.

    Subclasses add measurements.
    """

    front_layer: str
    end_layer: str
    folder: str  # the name of the run's folder

    @cached_property
    def pair(self) -> Pair:
        """The layers."""
        return Pair(self.front_layer, self.end_layer)

    @cached_property
    def place(self) -> "Place":
        """The folder and the layers, by which tables name a stitch."""
        return Place(self.folder, self.pair)


class Place(NamedTuple):
    """Names a stitch in a folder of runs."""

    folder: str  # the name of the run's folder
    pair: Pair


Result = TypeVar("Result")
Row = TypeVar("Row", bound=Experiment)


def pair_of(options: Options) -> Pair:
    """Return the pair of layers in the options of a run."""
    return Pair(options.get("front_layer", ""), options.get("end_layer", ""))


def short_weights(options: Options) -> dict[str, str]:
    """Return the first digits of the SHA-256 of both networks' weights by column.

    Args:
        options: of a run. A missing SHA-256 becomes "".
    """
    weights = {}
    for column, path_option in zip(COLUMNS_OF_WEIGHTS, CHECKPOINTS, strict=True):
        sha256 = options.get(f"{path_option}_sha256") or ""
        weights[column] = sha256[:SHORT]
    return weights


def with_columns(options: Options) -> Options:
    """Return the options of a run, and the columns made of options."""
    dataset = options.get("dataset")
    return {
        **options,
        "dataset": dataset and dataset_label(dataset),
        **short_weights(options),
        **short_images(options),
        FURTHER: further_options(options, columns=SETTINGS),
    }


def by_experiment(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Group rows of stitches by experiment; different images are different experiments.

    Returns:
        The rows by a title of the settings that tell the experiments apart, such as "init=pinv".
        The title of a single experiment is "". Equal titles are numbered.
    """
    rows = list(rows)
    keyed = list(zip(keys_of(rows), told_apart(rows), rows, strict=True))
    groups = grouped(keyed, lambda item: item[0]).values()
    settings = [titled.distinctions for (_, titled, _), *_ in groups]
    rows_of_groups = [[row for _, _, row in group] for group in groups]
    return dict(zip(_numbered(_details(settings)), rows_of_groups, strict=True))


def keys_of(experiments: Sequence[Experiment]) -> list[str]:
    """Return the key of each experiment. Inputs that one did not record are those of all experiments
    that agree with it otherwise, if these are on the same inputs."""
    of_runs = {_run_of(experiment): experiment.named_spec for experiment in experiments}
    known: dict[
        str, dict[str, set[str]]
    ] = {}  # fingerprints by the key without inputs, and by split
    without_inputs = {}
    for run, spec in of_runs.items():
        without_inputs[run] = key_of(spec | dict.fromkeys(SPLITS))
        for split in SPLITS:
            fingerprints = known.setdefault(without_inputs[run], {}).setdefault(split, set())
            fingerprints |= {spec[split]} - {None}
    keys = {}
    for run, spec in of_runs.items():
        settled = dict(spec)
        for split, fingerprints in known[without_inputs[run]].items():
            if len(fingerprints) == 1:
                (settled[split],) = fingerprints
        keys[run] = key_of(settled)
    return [keys[_run_of(experiment)] for experiment in experiments]


def _run_of(experiment: Experiment) -> int:
    """Return a number that the stitches of one run share, as they share its options."""
    return id(experiment.options or experiment)


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


def method_names(experiments: Sequence[Experiment], *, apart_from: Collection[str]) -> list[str]:
    """Return the name of the method of each experiment.

    Methods with one name are told apart by no more settings than needed, such as
    "task loss matching (-e 5)".

    Args:
        apart_from: settings to ignore.
    """
    # A method is a tuple of its settings
    methods: list[tuple[tuple[str, Hashable], ...]] = []
    for experiment in told_apart(experiments):
        settings = experiment.distinctions.items()
        methods.append(tuple(item for item in settings if item[0] not in apart_from))

    plain_names = {
        method: experiment.method for method, experiment in zip(methods, experiments, strict=True)
    }
    full_names = {}
    for group in grouped(plain_names, plain_names.__getitem__).values():
        details = _details([dict(method) for method in group], typed)
        for method, text in zip(group, _numbered(details), strict=True):
            name = plain_names[method]
            if text:
                name += f" ({text})"
            full_names[method] = name
    return [full_names[method] for method in methods]


def typed(name: str, value: object) -> str:
    """Return a setting as on the command line, such as "-e 5"; one without a flag as "dataset=digits"."""
    if name in OPTIONS and OPTIONS[name].flag:
        return f"{OPTIONS[name].flag} {_text(name, value)}"
    return _named(name, value)


def _named(name: str, value: object) -> str:
    """Return a setting by its name, such as "n_epochs=5"."""
    return f"{name}={_text(name, value)}"


def _details(
    settings: Sequence[Options], text_of: Callable[[str, object], str] = _named
) -> list[str]:
    """Describe each of several settings by the entries in which they differ.

    Of options, it takes one or two that tell the settings apart, the first ones if there is a choice.
    Where two do not suffice, the last ones are left out as far as they are not needed.

    Args:
        text_of: gives the text of an entry.
    """

    def texts(names: Sequence[str]) -> list[str]:
        return [", ".join(text_of(name, values.get(name)) for name in names) for values in settings]

    names = dict.fromkeys(chain.from_iterable(settings))
    shown = [name for name in names if len({values.get(name) for values in settings}) > 1]
    options = [name for name in shown if name in OPTIONS]
    values_shown = [name for name in shown if name not in OPTIONS]
    few = chain.from_iterable(combinations(options, size) for size in range(3))
    for chosen in few:
        if len(set(texts([*values_shown, *chosen]))) == len(settings):
            return texts([*values_shown, *chosen])
    for name in reversed(options):
        fewer = [option for option in options if option != name]
        if len(set(texts([*values_shown, *fewer]))) == len(settings):
            options = fewer
    return texts([*values_shown, *options])


def _numbered(titles: Iterable[str]) -> list[str]:
    """Append a number to titles from their second occurrence on, such as "dataset=none (2)".

    Values that differ may have one text: None and "" are both "none".
    """
    n_seen: Counter[str] = Counter()
    numbered = []
    for title in titles:
        n_seen[title] += 1
        number = ""
        if n_seen[title] > 1:
            number = f" ({n_seen[title]})"
        numbered.append(f"{title}{number}".strip())
    return numbered


def _text(name: str, value: object) -> object:
    """Return the value of a setting as a part of a title."""
    if isinstance(value, tuple):
        value = " ".join(map(str, value))
    if value not in (None, ""):
        return value
    return "full" if name.endswith("_rank") else "none"
