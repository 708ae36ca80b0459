"""The table of quantities: rows, maps and the page of columns agree with it, and bright is similar
everywhere."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from src.collected.measurements import MeasurementRow
from src.collected.rank_tests import RankTestRow
from src.reports.heat_maps import HeatMap
from src.tables.evaluation_rows import EvaluationRow, IdentificationRow
from src.tables.experiments import Experiment, StitchResult
from src.tables.matrices import Matrix
from src.tables.probe_rows import ProbeRow
from src.tables.quantities import (
    DETECTOR,
    IN_EVALUATION,
    IN_TRUTH,
    IN_VERDICT,
    QUANTITIES,
    STITCHING,
    VALIDITY,
    VERDICT,
    Quantity,
    measured_by,
    shown_in,
)
from src.tables.similarity_rows import SimilarityRow
from src.tables.stitch_rows import ComparisonRow, StitchRow
from src.tables.tables import columns
from src.tables.training_rows import EpochRow, FinetuningRow
from src.tables.truth_rows import DepthRow, DotsRow, TruthRow
from src.tables.verdict_rows import GroupRow, GroupTestRow, VerdictRow, WayRow
from src.values import Metrics, StitchValidity

PAGE = Path(__file__).parents[1] / "misc" / "docs" / "files.md"
DEPTHS = {"front_depth", "end_depth"}
DETECTOR_FIELDS = {
    "detector",
    "detector_id_data",
    "detector_ood_data",
    "id_dataset",
    "sanity_dataset",
}
STITCH = {field.name for field in fields(StitchResult)}
TABLES = (
    ComparisonRow,
    DepthRow,
    DotsRow,
    EpochRow,
    EvaluationRow,
    FinetuningRow,
    GroupRow,
    GroupTestRow,
    MeasurementRow,
    ProbeRow,
    RankTestRow,
    SimilarityRow,
    StitchRow,
    IdentificationRow,
    TruthRow,
    VerdictRow,
    WayRow,
)
HAVE_SCALES = {*shown_in(IN_EVALUATION), *shown_in(IN_VERDICT), *shown_in(IN_TRUTH)}


def kept(*sources: str) -> set[str]:
    """The columns of quantities that are measured by these, without derived ones."""
    return {name for name, quantity in measured_by(*sources).items() if not quantity.is_derived}


def without_ends(names) -> set[str]:
    """Columns without the ends of intervals."""
    return {name for name in names if not name.endswith(("_low", "_high"))}


def test_rows_have_the_quantities_of_the_table():
    unsteadiness = {"front_unsteadiness", "end_unsteadiness"}
    assert set(columns(Metrics)) == kept(STITCHING) | DEPTHS | {"truncated", *unsteadiness}
    assert set(columns(StitchRow)) == STITCH - {"options", "chosen"} | set(columns(Metrics))
    evaluated = without_ends(columns(EvaluationRow)) - STITCH - DETECTOR_FIELDS - DEPTHS
    assert evaluated == kept(VALIDITY, DETECTOR) | {"accuracy", "lost_at"}
    assert set(StitchValidity._fields) | {"identification"} == kept(VALIDITY)
    judged = without_ends(columns(VerdictRow))
    assert judged >= kept(VERDICT) | {"accuracy", "penalty", "identification"}
    for kind in (StitchRow, EvaluationRow, VerdictRow):
        assert not {name for name in columns(kind) if name.endswith(("_low", "_high"))} - {
            f"{name}_{end}" for name in QUANTITIES for end in ("low", "high")
        }
    for name, quantity in QUANTITIES.items():
        if quantity.is_derived:
            kind = StitchRow if quantity.measured_by == STITCHING else EvaluationRow
            assert isinstance(getattr(kind, name), property), name


def test_the_columns_that_tell_what_a_row_is_of_come_first():
    for kind in (StitchRow, EvaluationRow):
        identity = [*columns(Experiment), "front_layer", "end_layer", "folder"]
        assert columns(kind)[: len(identity)] == identity


@pytest.mark.parametrize("name", sorted(HAVE_SCALES))
def test_bright_is_similar(name):
    different, similar = QUANTITIES[name].scale
    values = [different, (different + similar) / 2, similar]
    axes = pytest.importorskip("matplotlib.figure").Figure().subplots()
    HeatMap.of(Matrix(["x"], ["a", "b", "c"], [values]), QUANTITIES[name]).paint(axes)
    (image,) = axes.images
    at_different, middle, at_similar = (sum(image.cmap(image.norm(value))[:3]) for value in values)
    if QUANTITIES[name].is_two_sided:
        assert middle > at_different and middle > at_similar
    else:
        assert at_different < middle < at_similar
    similarities = [QUANTITIES[name].similarity(value) for value in values]
    assert max(similarities) == similarities[1 if QUANTITIES[name].is_two_sided else 2]


def test_accuracies_are_bright_at_the_right_end():
    bright = {name: QUANTITIES[name].scale[1] for name in ("accuracy", "penalty")}
    assert bright == {"accuracy": 1, "penalty": 0}
    assert QUANTITIES["penalty"].similarity(0.1) == -0.1
    assert QUANTITIES["auroc"].similarity(0.25) == -0.25
    with pytest.raises(ValueError, match="neither high nor low values of density are similar"):
        QUANTITIES["density"].similarity(1.0)


def line_of(name: str, quantity: Quantity) -> str:
    """The line of a quantity on the page of columns."""
    source = f"{quantity.measured_by}, derived" if quantity.is_derived else quantity.measured_by
    scale = ""
    if quantity.scale:
        different, similar = quantity.scale
        scale = f"{different:g} → {similar:g}"
        if quantity.is_two_sided:
            scale = f"{different:g} → {(different + similar) / 2:g} ← {similar:g}"
    return f"| `{name}` | {source} | {scale} | {quantity.unit} | {quantity.description} |"


def test_the_page_of_columns_repeats_the_table():
    lines = PAGE.read_text().splitlines()
    start = lines.index("| column | measured by | dark → bright | unit | |") + 2
    assert lines[start : start + len(QUANTITIES)] == [line_of(*item) for item in QUANTITIES.items()]
    assert lines[start + len(QUANTITIES)] == ""


@pytest.mark.parametrize("kind", TABLES, ids=lambda kind: kind.__name__)
def test_the_page_of_columns_names_the_columns_of_every_table(kind):
    section = PAGE.read_text().split("\n## Columns\n")[1]
    assert without_ends(columns(kind)) - set(re.findall(r"`(\w+)`", section)) == set()
