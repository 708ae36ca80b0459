"""The experiment that a result belongs to: which results may be taken together, and which one of
them counts."""

import dataclasses
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from src.choices import STARTS
from src.console import warn
from src.grouping import grouped
from src.network_names import SHORT, NetworkKey, NetworkName
from src.results.tables import columns, from_record

Result = TypeVar("Result")
CHECKPOINTS = ("front_model_path", "end_model_path")
WEIGHTS = ("front_weights", "end_weights")
NETWORKS = (*CHECKPOINTS, "front_model_type", "end_model_type", *WEIGHTS)
RANKS = ("front_stitch_rank", "front_pinv_rank")


class Pair(NamedTuple):
    """The two layers that a stitch connects."""

    front_layer: str
    end_layer: str

    def __str__(self) -> str:
        return f"{self.front_layer} -> {self.end_layer}"


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The settings that tell a stitch from others between the same layers.

    They are options of `exec_stitch.py`, entries of `config.txt` and columns of tables by the same
    names; None where a run does not say."""

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
    objective: str = "task"  # the only one of the public code, which does not name it
    n_epochs: int | None = None
    pinv_cutoff: str = "paper"  # the only one of the public code
    seed: int | None = None
    shortcut: float | None = (
        None  # all images had dots, which told their class with this probability
    )
    front_weights: str | None = (
        None  # the first digits of their SHA-256; None: the run did not record it
    )
    end_weights: str | None = None
    options: Mapping[str, Any] = dataclasses.field(
        default_factory=dict, compare=False, repr=False
    )  # all; no column

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "Experiment":
        """Return the experiment of a run with these options.

        Raises:
            ValueError: an option is missing or of another type; names it.
        """
        return dataclasses.replace(
            from_record(Experiment, {**options, **short_weights(options)}), options=options
        )

    def config(self, pair: Pair) -> dict[str, Any]:
        """Return what the `config.txt` of a pair of layers holds."""
        return {**self.options, **pair._asdict()}

    @property
    def settings(self) -> dict[str, Any]:
        """The settings by name, of a row as well."""
        return {name: getattr(self, name) for name in columns(Experiment)}

    @property
    def method(self) -> str:
        """The name of the way of stitching, such as task loss matching."""
        if self.n_epochs == 0:
            names = {"pinv": "direct matching", **{start: f"init {start}" for start in STARTS}}
            return names.get(self.init, f"{self.init} matching")
        return "task loss matching" if self.objective == "task" else f"{self.objective} matching"

    @property
    def networks(self) -> tuple[NetworkName, NetworkName]:
        """The front and the end network."""
        front = NetworkName.of(
            self.front_model_path, self.front_model_type, seed=self.seed, weights=self.front_weights
        )
        end = NetworkName.of(
            self.end_model_path, self.end_model_type, seed=self.seed, weights=self.end_weights
        )
        return front, end

    @property
    def network_keys(self) -> tuple[NetworkKey, NetworkKey]:
        """The keys of the front and the end network."""
        front, end = self.networks
        return front.key, end.key

    @property
    def key(self) -> tuple[Hashable, ...]:
        """A value that two experiments share if they are the same one, under whatever names of
        their networks."""
        return self.network_keys, *(
            value for name, value in self.settings.items() if name not in NETWORKS
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class StitchResult(Experiment):
    """A row of a table of stitches: the experiment and the layers, to which a table adds what it
    measures."""

    front_layer: str
    end_layer: str
    folder: str  # the name of the run's folder

    @property
    def pair(self) -> Pair:
        """The layers."""
        return Pair(self.front_layer, self.end_layer)


def pair_of(options: Mapping[str, Any]) -> Pair:
    """Return the pair of layers of a run with these options."""
    return Pair(options.get("front_layer"), options.get("end_layer"))


def short_weights(options: Mapping[str, Any]) -> dict[str, str]:
    """Return the first digits of the SHA-256 of both networks' weights, by column, as the options
    of a run have it."""
    records = ("front_model_path_sha256", "end_model_path_sha256")
    return {
        name: (options.get(record) or "")[:SHORT]
        for name, record in zip(WEIGHTS, records, strict=True)
    }


def by_experiment(rows: Iterable[Result]) -> dict[str, list[Result]]:
    """Group rows of stitches by experiment, under titles that name what tells one from another; ""
    for a single one."""
    groups = grouped(rows, lambda row: row.key)
    settings = [same[0].settings for same in groups.values()]
    titles = _details(
        [
            {name: value for name, value in values.items() if name not in WEIGHTS}
            for values in settings
        ]
    )
    if len(set(titles)) < len(titles):  # networks that were trained again
        titles = _details(settings)
    return dict(zip(titles, groups.values(), strict=True))


def newest(items: Iterable[Result], key: Callable[[Result], Hashable]) -> list[Result]:
    """Return of repeated results, which share a key, the last one; warn where there are any.

    Args:
        items: the oldest first.
    """
    groups = grouped(items, key)
    n_repeated = sum(len(same) - 1 for same in groups.values())
    if n_repeated:
        results = (
            "1 result repeats another" if n_repeated == 1 else f"{n_repeated} results repeat others"
        )
        warn(f"{results} of the same experiment; the newest of each counts")
    return [same[-1] for same in groups.values()]


def newest_runs(runs: Iterable[Result]) -> list[Result]:
    """Return the newest of the runs (`folder`, `row`) that stitch the same layers in the same
    experiment; see `newest`.

    Their order stays, whatever it is; the names of their folders are times, which tell the newest.
    """
    runs = list(runs)
    counted = newest(
        sorted(runs, key=lambda run: run.folder.name), lambda run: (run.row.pair, run.row.key)
    )
    chosen = set(map(id, counted))
    return [run for run in runs if id(run) in chosen]


def method_names(experiments: Sequence[Experiment], *, apart_from: Collection[str]) -> list[str]:
    """Name the method of each experiment; where methods share a name, add the settings that tell
    them apart.

    Args:
        apart_from: columns to ignore.
    """
    methods = [
        tuple((name, value) for name, value in each.settings.items() if name not in apart_from)
        for each in experiments
    ]
    plain = dict(zip(methods, (each.method for each in experiments), strict=True))
    names = {}
    for name, alike in grouped(plain, plain.__getitem__).items():
        for method, details in zip(
            alike, _details([dict(method) for method in alike]), strict=True
        ):
            names[method] = f"{name} ({details})" if details else name
    return [names[method] for method in methods]


def _details(alike: Sequence[Mapping[str, Any]]) -> list[str]:
    """Describe each of several settings by the values that differ among them."""
    differing = (
        [name for name in alike[0] if len({values[name] for values in alike}) > 1] if alike else []
    )
    return [
        ", ".join(f"{name}={_text(name, values[name])}" for name in differing) for values in alike
    ]


def _text(name: str, value: Any) -> Any:
    if value in (None, ""):
        return "full" if name.endswith("_rank") else "none"
    return value
