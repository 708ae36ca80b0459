"""The table of quantities: each is read from a row, bright is similar, and the page of columns
repeats it."""

import re

import pytest

from misc.columns import PAGE, written
from src.figures.maps import draw_layers
from src.figures.shown import of_matrix
from src.results import between_groups, rank_tests
from src.results.evaluation_rows import EvaluationRow, SkillRow
from src.results.matrices import Matrix
from src.results.measurements import COLUMNS
from src.results.network_means import MeanRow
from src.results.probe_rows import ProbeRow
from src.results.quantities import (
    DETECTOR,
    QUANTITIES,
    SKILL,
    STITCHING,
    VERDICT,
)
from src.results.similarity_rows import SimilarityRow
from src.results.stitch_rows import StitchRow
from src.results.tables import columns
from src.results.training_rows import EpochRow
from src.results.truth_rows import TruthRow
from src.results.verdict_rows import VerdictRow

TABLES = (
    EpochRow,
    EvaluationRow,
    MeanRow,
    ProbeRow,
    SimilarityRow,
    StitchRow,
    SkillRow,
    TruthRow,
    VerdictRow,
)
RECORDS = (  # the columns of tables that are only written
    "method,dataset,measure,side,network,group,type,layer,relative_depth,other_network,other_group,other_type,"
    "best_layer,best_relative_depth,value,corresponding,corresponding_value,place,n_layers",
    ",".join(between_groups.COLUMNS),
    ",".join(rank_tests.COLUMNS),
    "network,group,true,absent,drawn",
    "front_layer,end_layer,accuracy_1,accuracy_2,difference",
    "ft_loss,ce_loss,train_acc,val_ce_loss,val_acc",
)
ROWS = {  # the row that keeps or computes a quantity, by what measures it
    STITCHING: StitchRow,
    SKILL: SkillRow,
    DETECTOR: EvaluationRow,
    VERDICT: VerdictRow,
}
EXAMPLES = [  # (quantity, value of a similar stitch, value of a different one)
    ("accuracy", 0.9, 0.1),
    ("penalty", 0.0, 0.4),
    ("representation_difference", 0.1, 0.9),
    ("skill", 0.9, 0.2),
    ("skill_at_end", 0.9, -0.2),
    ("correlation", 0.9, 0.5),
    ("correlation_at_end", 0.9, 0.1),
    ("auroc", 0.5, 0.9),
    ("auroc", 0.5, 0.2),
    ("aupr", 0.5, 0.9),
    ("fpr95", 0.95, 0.2),
    ("agreement", 0.9, 0.5),
    ("r2_test", 0.8, 0.1),
]


def without_ends(names) -> set[str]:
    """Columns without the ends of intervals."""
    return {name for name in names if not name.endswith(("_low", "_high"))}


@pytest.mark.parametrize("name", QUANTITIES)
def test_a_quantity_is_read_from_its_row(name):
    quantity = QUANTITIES[name]
    row = ROWS[quantity.measured_by]
    assert name in columns(row) or isinstance(getattr(row, name), property)
    assert quantity.is_derived == (name not in columns(row))


@pytest.mark.parametrize(("name", "similar", "different"), EXAMPLES)
def test_dark_is_similar(name, similar, different, tmp_path, drawn_figures):
    unit = 100 if name == "penalty" else 1  # points of accuracy
    matrix = Matrix(["x"], ["a", "b"], [[unit * similar, unit * different]])
    draw_layers(tmp_path / "f.png", list(of_matrix(matrix, name)))
    image = drawn_figures["f.png"].axes[0].images[0]
    dark, bright = (sum(image.to_rgba(unit * value)[:3]) for value in (similar, different))
    assert dark < bright
    assert QUANTITIES[name].similarity(similar) > QUANTITIES[name].similarity(different)


def test_similarity_is_the_value_its_negative_or_its_distance_from_the_middle():
    assert QUANTITIES["accuracy"].similarity(0.9) == 0.9
    assert QUANTITIES["penalty"].similarity(0.1) == -0.1
    assert QUANTITIES["auroc"].similarity(0.25) == -0.25
    with pytest.raises(ValueError, match="floor"):
        QUANTITIES["floor"].similarity(1.0)


def test_the_page_of_columns_is_as_misc_columns_writes_it():
    assert written() in PAGE.read_text(), "run misc/columns.py"


@pytest.mark.parametrize(
    "names", [*map(columns, TABLES), COLUMNS, *(names.split(",") for names in RECORDS)]
)
def test_the_page_of_columns_names_the_columns_of_every_table(names):
    section = PAGE.read_text().split("\n## Columns\n")[1]
    named = {*re.findall(r"`(\w+)`", section), "form"}  # a column of judge's rows alone
    assert without_ends(names) - named == set()
