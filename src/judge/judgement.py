"""The result of `judge`: rows, with methods for tables, matrices, a figure and files."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from src.core.choices import WITH_POSITIONS, Options, on_lost_positions
from src.core.choices.stitching import Method
from src.core.console import aligned, listed, note, points
from src.core.errors import UserError, unknown_name
from src.core.files import write_text
from src.core.values import IntervalEstimate, MeasuredStitch, Pair
from src.verdict import INCONCLUSIVE, Limits

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


class Record(NamedTuple):
    """How rows were made: limits, networks, options and stitches."""

    limits: Limits
    n_images: int  # of the test
    names: tuple[str, str]  # of both networks
    methods: Mapping[str, Method]  # by name
    options: Mapping[str, Options]  # of `exec_stitch.py`, by method
    stitches: Mapping[tuple[str, Pair], MeasuredStitch]  # by method and layers


class Judgement(Sequence[Any]):
    """The result of `judge`: a row for each method and pair of layers, which prints as a table.

    A row has the columns of the frame as attributes, such as `row.skill`; `misc/docs/files.md` describes them.
    Accuracies, accuracy drops, shares and R² are no percentages: 0.05 is five points.

    Attributes:
        frame: the rows as a pandas DataFrame, with the columns of `src.results.frame.read`; NaN: not measured, or
            not defined.
        record: how they were made.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]], record: Record):
        from src.results.frame import frame_of_judged

        self.frame: DataFrame = frame_of_judged(rows, record)
        self.record = record

    def __len__(self) -> int:
        return len(self.frame)

    def __iter__(self) -> Iterator[Any]:
        return self.frame.itertuples(index=False, name="JudgedStitch")

    def __getitem__(self, index: Any) -> Any:
        """Return a row, or a list of rows for a slice."""
        return list(self)[index]

    @property
    def names(self) -> tuple[str, str]:
        """The names of the front and of the end network."""
        return self.record.names

    @property
    def forms(self) -> tuple[str, ...]:
        """The names of the methods of stitching, in the order of the rows."""
        return tuple(self.frame.method.unique())

    def __repr__(self) -> str:
        return f"<{self._counts()}; print() shows the table>"

    def _counts(self) -> str:
        """Return how many stitches have each verdict."""
        counts = self.frame.verdict.value_counts(sort=False)
        words = ", ".join(f"{n} {verdict}" for verdict, n in counts.items())
        return f"{len(self)} judged stitches: {words}"

    def __str__(self) -> str:
        header = ["method"]
        for name, prefix in zip(self.names, self._prefixes(), strict=True):
            header.append(f"{name} ({prefix})".removesuffix(" ()"))
        header += ["accuracy", f"of {self.names[1]}", "accuracy drop", "skill", "at end layer"]
        lines = [[*header, "verdict"]]
        for row in self._with_short_layers().itertuples():
            ends = (points(row.accuracy_drop_low), points(row.accuracy_drop_high))
            accuracy_drop = f"{points(row.accuracy_drop)} [{ends[0]}, {ends[1]}]"
            skill = IntervalEstimate(row.skill, row.skill_low, row.skill_high)
            at_end = IntervalEstimate(row.skill_at_end, row.skill_at_end_low, row.skill_at_end_high)
            accuracies = (f"{row.accuracy:.4f}", f"{row.end_accuracy:.4f}")
            numbers = (*accuracies, accuracy_drop, str(skill), str(at_end))
            lines.append([row.method, row.front_layer, row.end_layer, *numbers, row.verdict])
        return "\n".join([aligned(lines), *self._remarks(), f"{self._counts()}."])

    def _remarks(self) -> list[str]:
        """Return the sentences below the printed table: why pairs are inconclusive, and which lose spatial
        positions."""
        rows = self._with_short_layers()
        inconclusive = rows[rows.verdict == INCONCLUSIVE]
        kinds = inconclusive.reason.str.replace(r" \(.*?\)", "", regex=True)
        pairs = (
            inconclusive.method + " " + inconclusive.front_layer + " -> " + inconclusive.end_layer
        )
        remarks = []
        for reason, of_reason in pairs.groupby(kinds, sort=False):
            remarks.append(f"{INCONCLUSIVE}: {reason} ({listed(of_reason)})")
        positions = on_lost_positions(rows.stitching_type)
        if positions:
            remarks.append(f"{positions} {WITH_POSITIONS}")
        return remarks

    def _prefixes(self) -> list[str]:
        """Return the common prefix of the names of all front layers, and of all end layers; see `prefix_of`."""
        return [prefix_of(self.frame[name]) for name in Pair._fields]

    def _with_short_layers(self) -> "DataFrame":
        """Return the frame with the common prefixes removed from the names of layers."""
        layers = {}
        for name, prefix in zip(Pair._fields, self._prefixes(), strict=True):
            layers[name] = self.frame[name].str.removeprefix(prefix)
        return self.frame.assign(**layers)

    def matrix(self, quantity: str, *, form: str | None = None) -> "DataFrame":
        """Return the matrix of a quantity by front layer (rows) and end layer (columns).

        Args:
            quantity: a column of the frame, such as "skill" or "verdict".
            form: the method of the stitches; None: the only one.
        Raises:
            UserError: there is no such quantity or method, or several methods and no `form`.
        """
        if quantity not in self.frame:
            names = list(self.frame)
            raise unknown_name("quantity", quantity, names, where=f"they are {', '.join(names)}")
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

    def records(self) -> list[dict[str, Any]]:
        """Return a dict for each row, by column."""
        return self.frame.to_dict("records")

    def to_csv(self, path: str | Path) -> None:
        """Write the frame as a CSV; undefined values are empty cells.

        Raises:
            UserError: the file cannot be written.
        """
        write_text(Path(path), self.frame.to_csv(index=False, lineterminator="\n"))

    def save(self, folder: str | Path, *, dataset: str = "an unnamed set") -> None:
        """Write the stitches as runs, one for each method, that `misc/verdict.py` and
        `misc/collect_results.py` read.

        The networks go by their names, and a method that is a function goes by its `__name__`: save a
        changed function under another name, or elsewhere, or it counts as a repetition. Stitching
        layers are not saved.

        Args:
            folder: of the folders of runs, such as "results/mine".
            dataset: the name of the inputs in tables.
        Raises:
            UserError: a file cannot be written.
        """
        from src.results.stitch_runs import write_judged_run

        for form, rows in self.frame.groupby("method", sort=False):
            pairs = [Pair(*pair) for pair in rows[list(Pair._fields)].itertuples(index=False)]
            stitches = {pair: self.record.stitches[form, pair] for pair in pairs}
            options = {
                **self.record.options[form],
                "dataset": dataset,
                "front_layer": ",".join(rows.front_layer.unique()),
                "end_layer": ",".join(rows.end_layer.unique()),
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
        frame = self._with_short_layers().assign(networks=" → ".join(self.names))
        frame["method"] = frame.method.map(dict(zip(shown, titles, strict=True)))
        frame = frame.dropna(subset="method")
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
