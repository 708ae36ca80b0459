"""Prints and draws matrices of the accuracy and evaluation of stitches over pairs of layers."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from src.core.choices.datasets import dataset_label
from src.core.console import counted, is_silent, listed, note, note_once, result, table
from src.core.values import Pair
from src.figures.maps import Map, draw_layers, framed_in, print_values
from src.figures.pages import are_left_out, on_data, remove_figure
from src.figures.scales import title_of
from src.results.network_names import pairs_in_words
from src.results.reports import matrix
from src.results.stitches import TYPICAL_AUROC, by_detector, place_of
from src.results.tables import DETECTOR, IN_EVALUATION, LAYERS, QUANTITIES, SIDES, shown_in

if TYPE_CHECKING:
    from src.results.stitches import Stitch

DEPTHS = ["front_relative_depth", "end_relative_depth"]
PLACES = [*LAYERS, "front_depth", "end_depth", *DEPTHS]
SKILLS = ("skill", "skill_at_end")
COLUMN_OF = {"accuracy": "accuracy"}  # of quantities that all detectors share
MEANS = {"energy": "mean ID energy"}  # of other detectors, the mean ID score
EXPLANATION = (
    "AUROC: area under the ROC curve of the detector, ½ if it cannot tell stitched "
    "activations from the end network's. AUPR: area under its precision-recall curve. FPR95: share "
    "of stitched activations that it accepts when it accepts 95 percent of the end network's."
)


def source_of(stitches: Sequence["Stitch"]) -> str:
    """Return the caption's sentence on the networks and the images of stitches."""
    images = {(stitch.record["dataset"], stitch.record["n_images"]) for stitch in stitches}
    return on_data(pairs_in_words({stitch.network_keys for stitch in stitches}), images)


def matrix_of(stitches: Iterable["Stitch"], name: str) -> pd.DataFrame:
    """Return a column of stitches by front and end layer, in the order of depth."""
    records = [_places(stitch) | {name: stitch.record[name]} for stitch in stitches]
    return matrix(pd.DataFrame.from_records(records), name)


def _places(stitch: "Stitch") -> dict[str, Any]:
    """Return the networks and the layers of a stitch by column, without a verdict."""
    record: dict[str, Any] = {name: stitch.record[name] for name in PLACES}
    for side in SIDES:
        record[f"{side}_network"] = stitch.record[f"{side}_model_path"]
        record[f"{side}_type"] = stitch.record[f"{side}_model_type"]
    return record | {"verdict": None}


def framed_layers(stitches: Iterable["Stitch"]) -> list[Pair]:
    """Return the sorted pairs of corresponding layers of stitches; none of networks of two types without recorded
    relative depths."""
    frame = pd.DataFrame.from_records(list(map(_places, stitches)))
    return framed_in(frame.astype(dict.fromkeys(DEPTHS, float)))


def draw_grid(path: Path, stitches: Sequence["Stitch"]) -> list[Path]:
    """Draw the accuracies of the stitches of a run as a heat map over layers. Return the written paths."""
    if are_left_out():
        return []
    accuracies = Map("accuracy", matrix_of(stitches, "accuracy"), "", framed_layers(stitches))
    return draw_layers(path, [accuracies], source=source_of(stitches))


def report(
    table_path: Path,
    stitches: Mapping[str, Sequence["Stitch"]],
    rows: Sequence[dict[str, Any]],
    *,
    own_scores: Mapping[str, Mapping[str, Any]],
    checks: Mapping[str, Mapping[str, Any]],
) -> None:
    """Print the evaluation of stitches, and draw the figures of skill and of each detector.

    Args:
        table_path: of the evaluation; figures go beside it.
        stitches: by experiment, in the order of the rows.
        own_scores: of the end network's activations, by detector and layer.
        checks: the metrics of sanity checks, by detector and layer.
    """
    of_places = {place_of(row): row for row in rows}
    records = []
    for title, of_experiment in stitches.items():
        for stitch in of_experiment:
            measured = of_places[stitch.place]
            further = {"experiment": title, "pair": stitch.pair, "measured": measured}
            records.append(measured | _places(stitch) | further)
    frame = pd.DataFrame.from_records(records).astype(dict.fromkeys(DEPTHS, float))
    networks = {stitch.network_keys for stitch in chain.from_iterable(stitches.values())}
    images = {(row["dataset"], row["n_images"]) for row in rows}
    source = on_data(pairs_in_words(networks), images)
    maps = _print_matrices(frame, {name: name for name in SKILLS})
    _draw(table_path, maps, source=source)
    scored = [name for name in own_scores if any(name in by_detector(row) for row in rows)]
    printed: set[str] = set()
    for name in scored:
        if len(scored) > 1:
            result(f"DETECTOR: {name}")
        of_detector = frame[[name in by_detector(row) for row in frame.measured]]
        columns = {
            quantity: COLUMN_OF.get(quantity, f"{quantity}_{name}")
            for quantity in shown_in(IN_EVALUATION)
        }
        maps = _print_matrices(of_detector, columns, detector=name, already=printed)
        printed = {"accuracy"}  # which all detectors share
        _print_detectors(name, rows[0]["sanity_dataset"], own_scores[name], checks.get(name, {}))
        _note_typical(name, of_detector)
        _draw(table_path.with_stem(f"{table_path.stem}_{name}"), maps, source=source)
    if scored:
        note_once(EXPLANATION)


def _note_typical(detector: str, frame: pd.DataFrame) -> None:
    """Print a note on stitches whose activations a detector finds more typical than those of the end
    network."""
    typical = frame.pair[frame[f"auroc_{detector}"] < TYPICAL_AUROC]
    if len(typical):
        note(
            f"{detector}: the AUROC of {counted(len(typical), 'stitch', 'stitches')} is below {TYPICAL_AUROC}: "
            "activations that are more typical than those of the end network, as activations of little variance are "
            f"({listed(typical)})"
        )


def _print_matrices(
    frame: pd.DataFrame,
    columns: Mapping[str, str],
    *,
    detector: str = "",
    already: Collection[str] = (),
) -> list[Map]:
    """Print the matrix of each quantity that has values, under a heading for each experiment;
    return the maps of its figure.

    Args:
        columns: by quantity.
        already: quantities that are printed.
    """
    maps: list[Map] = []
    if is_silent() and are_left_out():  # frames take as long as the stitches of small networks
        return maps
    for experiment, rows in frame.groupby("experiment", sort=False):
        if experiment:
            result(f"EXPERIMENT: {experiment}")
        framed = framed_in(rows)
        for quantity, column in columns.items():
            if rows[column].notna().any():
                values = matrix(rows, column)
                maps.append(Map(quantity, values, str(experiment), framed))
                if quantity not in already:
                    print_values(_heading(quantity, detector), values)
    return maps


def _heading(column: str, detector: str) -> str:
    """Return the title of a printed matrix; for a detector's quantities, as in the public code."""
    if QUANTITIES[column].measured_by == DETECTOR:
        return f"STITCHING OOD Detection {QUANTITIES[column].title} ({detector})"
    return f"STITCHING {title_of(column).upper()}"


def _draw(path: Path, maps: Sequence[Map], *, source: str) -> None:
    """Draw the maps of an evaluation to files beside its table, unless it is of a single stitch."""
    remove_figure(path)  # of an earlier evaluation, of more stitches
    if any(item.values.size > 1 for item in maps):
        drawn = draw_layers(path.with_suffix(".png"), maps, source=source)
        note(f"wrote {listed(drawn[:1])}")


def _print_detectors(
    name: str, sanity_dataset: str | None, own_scores: Mapping[str, Any], checks: Mapping[str, Any]
) -> None:
    """Print each detector's mean score on the end network's activations, and its sanity check."""
    columns = [MEANS.get(name, "mean ID score")]
    title = "OOD detectors"
    if sanity_dataset:
        columns += ["AUROC", "AUPR", "FPR95"]
        title = f"OOD detector sanity checks: {dataset_label(sanity_dataset)}"
    lines = [[float(scores.mean()), *checks.get(layer, ())] for layer, scores in own_scores.items()]
    table(f"{title} ({name})", list(own_scores), columns, lines)
