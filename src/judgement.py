"""The result of `judge`: rows, with methods for tables, matrices, a figure and files."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from src.choices import WITH_POSITIONS, Options, on_lost_positions
from src.choices.stitching import Method
from src.core.console import aligned, listed, note, points
from src.core.errors import UserError, unknown_name
from src.core.files import write_text
from src.core.grouping import grouped
from src.values import IntervalEstimate, MeasuredStitch, Pair
from src.verdict import INCONCLUSIVE, Limits

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


class JudgedStitch(NamedTuple):
    """A stitched pair of layers with its verdict and measurements; NaN: not measured, or not defined.

    The names are those of the columns of the scripts' tables, which `misc/docs/files.md` describes.
    `_low` and `_high` are the ends of intervals of 95 %. Accuracies, accuracy drops, shares and R² are
    no percentages: 0.05 is five points.
    """

    form: str  # the method: a solver, such as covariance; or an objective with its epochs
    front_layer: str
    end_layer: str
    verdict: str  # one of `src.verdict.VERDICTS`
    reason: str
    accuracy: float  # of the stitched network
    accuracy_low: float
    accuracy_high: float
    accuracy_drop: float  # end accuracy − accuracy
    accuracy_drop_low: float
    accuracy_drop_high: float
    skill: float  # at the output; 0 at the baseline, 1 for the end network itself
    skill_low: float
    skill_high: float
    correlation: float  # within classes, at the output
    baseline: float
    skill_at_end: float  # at the end layer
    skill_at_end_low: float
    skill_at_end_high: float
    correlation_at_end: float
    baseline_at_end: float
    front_accuracy: float  # NaN of an encoder
    end_accuracy: float
    r2_fit: float  # centred R² of the map on the fitting samples; NaN after a training run
    r2_test: float
    front_depth: int | None  # the places of the layers in their networks
    end_depth: int | None
    stitching_type: str  # chosen by the kinds of both activations

    @property
    def pair(self) -> Pair:
        """The layers."""
        return Pair(self.front_layer, self.end_layer)

    def __repr__(self) -> str:
        return (
            f"<{self.form}, {self.pair}: {self.verdict}; accuracy {self.accuracy:.4f}, "
            f"accuracy drop {points(self.accuracy_drop)}, skill {self.skill:.4f}>"
        )


class Record(NamedTuple):
    """How rows were made: limits, networks, options and stitches."""

    limits: Limits
    n_images: int  # of the test
    names: tuple[str, str]  # of both networks
    methods: Mapping[str, Method]  # by form
    options: Mapping[str, Options]  # of `exec_stitch.py`, by form
    stitches: Mapping[tuple[str, Pair], MeasuredStitch]  # by form and layers


class Judgement(tuple[JudgedStitch, ...]):
    """The result of `judge`: a tuple of `JudgedStitch`, which prints as a table.

    Attributes:
        record: what they were made of.
    """

    record: Record

    def __new__(cls, rows: Iterable[JudgedStitch], record: Record) -> "Judgement":
        judgement = super().__new__(cls, rows)
        judgement.record = record
        return judgement

    def __reduce__(self) -> tuple[type, tuple[tuple[JudgedStitch, ...], Record]]:
        """Support copying and pickling of the rows and the record."""
        return Judgement, (tuple(self), self.record)

    def __getitem__(self, index: Any) -> Any:
        """Return a row, or for a slice a `Judgement` of its rows."""
        if isinstance(index, slice):
            return Judgement(super().__getitem__(index), self.record)
        return super().__getitem__(index)

    @property
    def names(self) -> tuple[str, str]:
        """The names of the front and of the end network."""
        return self.record.names

    @property
    def forms(self) -> tuple[str, ...]:
        """The names of the methods of stitching, in the order of the rows."""
        return tuple(dict.fromkeys(row.form for row in self))

    def __repr__(self) -> str:
        return f"<{self._counts()}; print() shows the table>"

    def _counts(self) -> str:
        """Return how many stitches have each verdict."""
        counts = Counter(row.verdict for row in self)
        words = ", ".join(f"{n} {verdict}" for verdict, n in counts.items())
        return f"{len(self)} judged stitches: {words}"

    def __str__(self) -> str:
        header = ["form"]
        for name, prefix in zip(self.names, self._prefixes(), strict=True):
            header.append(f"{name} ({prefix})".removesuffix(" ()"))
        header += ["accuracy", f"of {self.names[1]}", "accuracy drop", "skill", "at end layer"]
        lines = [[*header, "verdict"]]
        for row in self._with_short_layers():
            ends = (points(row.accuracy_drop_low), points(row.accuracy_drop_high))
            accuracy_drop = f"{points(row.accuracy_drop)} [{ends[0]}, {ends[1]}]"
            skill = IntervalEstimate(row.skill, row.skill_low, row.skill_high)
            at_end = IntervalEstimate(row.skill_at_end, row.skill_at_end_low, row.skill_at_end_high)
            accuracies = (f"{row.accuracy:.4f}", f"{row.end_accuracy:.4f}")
            numbers = (*accuracies, accuracy_drop, str(skill), str(at_end))
            lines.append([row.form, row.front_layer, row.end_layer, *numbers, row.verdict])
        return "\n".join([aligned(lines), *self._remarks(), f"{self._counts()}."])

    def _remarks(self) -> list[str]:
        """Return the sentences below the printed table: why pairs are inconclusive, and which lose spatial
        positions."""
        inconclusive = [row for row in self._with_short_layers() if row.verdict == INCONCLUSIVE]
        by_reason = grouped(inconclusive, lambda row: re.sub(r" \(.*?\)", "", row.reason))
        remarks = []
        for reason, rows in by_reason.items():
            pairs = listed(f"{row.form} {row.pair}" for row in rows)
            remarks.append(f"{INCONCLUSIVE}: {reason} ({pairs})")
        positions = on_lost_positions(row.stitching_type for row in self)
        if positions:
            remarks.append(f"{positions} {WITH_POSITIONS}")
        return remarks

    def _prefixes(self) -> tuple[str, str]:
        """Return the common prefix of the names of all front layers, and of all end layers; see `prefix_of`."""
        return prefix_of(row.front_layer for row in self), prefix_of(row.end_layer for row in self)

    def _with_short_layers(self) -> list[JudgedStitch]:
        """Return the rows with the common prefixes removed from the names of layers."""
        front, end = self._prefixes()
        return [
            row._replace(
                front_layer=row.front_layer.removeprefix(front),
                end_layer=row.end_layer.removeprefix(end),
            )
            for row in self
        ]

    def matrix(self, quantity: str, *, form: str | None = None) -> "DataFrame":
        """Return the matrix of a quantity by front layer (rows) and end layer (columns).

        Args:
            quantity: a field of `JudgedStitch`, such as "skill" or "verdict".
            form: the method of the stitches; None: the only one.
        Raises:
            UserError: there is no such quantity or method, or several methods and no `form`.
        """
        if quantity not in JudgedStitch._fields:
            raise unknown_name(
                "quantity",
                quantity,
                JudgedStitch._fields,
                where=f"they are {', '.join(JudgedStitch._fields)}",
            )
        rows = self.frame[self.frame.method == self._form(form)]
        table = rows.pivot(index="front_layer", columns="end_layer", values=quantity)
        return table.reindex(index=rows.front_layer.unique(), columns=rows.end_layer.unique())

    def _form(self, form: str | None) -> str:
        """Return the name of a method of the stitches; None stands for the only method."""
        if form is None and len(self.forms) == 1:
            return self.forms[0]
        if form is None:
            raise UserError(
                f"there are stitches by several methods; give form=, one of {self.forms}"
            )
        if form not in self.forms:
            raise unknown_name("form", form, self.forms)
        return form

    @property
    def frame(self) -> "DataFrame":
        """The rows as a pandas DataFrame, with the columns of `src.results.frame.read`."""
        from src.results.frame import frame_of_judged

        return frame_of_judged(self)

    def records(self) -> list[dict[str, Any]]:
        """Return a dict for each row, with the fields of `JudgedStitch`."""
        return [row._asdict() for row in self]

    def to_csv(self, path: str | Path) -> None:
        """Write the frame as a CSV; undefined values are empty cells.

        Raises:
            UserError: the file cannot be written.
        """
        write_text(Path(path), self.frame.to_csv(index=False, lineterminator="\n"))

    def save(self, folder: str | Path, *, dataset: str = "an unnamed set") -> None:
        """Write the stitches as runs, one for each method, that `misc/verdict.py`, `misc/report.py` and the
        scripts of tables read.

        The networks go by their names, and a method that is a function goes by its `__name__`: save a
        changed function under another name, or elsewhere, or it counts as a repetition. Stitching
        layers are not saved.

        Args:
            folder: of the folders of runs, such as "results/mine".
            dataset: the name of the inputs in tables.
        Raises:
            UserError: a file cannot be written.
        """
        from src.results.judged_runs import write_judged_run

        for form, rows in grouped(self, lambda row: row.form).items():
            stitches = {row.pair: self.record.stitches[form, row.pair] for row in rows}
            fronts = dict.fromkeys(row.front_layer for row in rows)
            ends = dict.fromkeys(row.end_layer for row in rows)
            options = {
                **self.record.options[form],
                "dataset": dataset,
                "front_layer": ",".join(fronts),
                "end_layer": ",".join(ends),
            }
            write_judged_run(Path(folder), options, stitches)

    def figure(self, *, forms: Sequence[str] = ()) -> "Figure":
        """Return a figure with a map of the verdicts for each method.

        `rows.figure().savefig("maps.pdf")` writes a file. The attribute `caption` of the figure is
        the text for below it.

        Args:
            forms: at most two methods; empty: the first two.
        Raises:
            UserError: there is no such form.
        """
        from src.figures.verdicts import figure_of_verdicts

        if isinstance(forms, str):
            forms = [forms]
        chosen = [self._form(form) for form in forms or self.forms]
        shown = chosen[:2]
        if len(chosen) > 2:
            note(
                f"the figure has the first two methods, without {listed(chosen[2:])}; forms= names others"
            )
        words = [self.record.methods[form].words for form in shown]
        titles = [
            f"{title} ({form})" if words.count(title) > 1 else title
            for form, title in zip(shown, words, strict=True)
        ]
        frame = self.frame[lambda rows: rows.method.isin(shown)]
        frame = frame.assign(networks=" → ".join(self.names))
        frame["method"] = frame.method.map(dict(zip(shown, titles, strict=True)))
        for side, prefix in zip(("front", "end"), self._prefixes(), strict=True):
            frame[f"{side}_layer"] = frame[f"{side}_layer"].str.removeprefix(prefix)
        source = f"1 pair of networks, {self.record.n_images:,} test inputs."
        return figure_of_verdicts(frame, self.record.limits, source=source)


def prefix_of(layers: Iterable[str]) -> str:
    """Return the common prefix of the names of layers, such as "net."; "" if there is none.

    Names without it begin with a letter.
    """
    parts = [layer.split(".") for layer in layers]
    prefix = os.path.commonprefix([of_layer[:-1] for of_layer in parts])
    while prefix and any(of_layer[len(prefix)].isdecimal() for of_layer in parts):
        prefix = prefix[:-1]
    return "".join(f"{module}." for module in prefix)
