"""Tables: the columns of every one, rows read back as they were written, refused files; the table of
quantities."""

import math
from typing import Any, get_args

import pandas as pd
import pytest

from src.core.errors import UserError
from src.figures.maps import Map, draw_layers
from src.results.stitches import GRID, METRICS, with_empty
from src.results.tables import (
    EVALUATIONS,
    PROBES,
    QUANTITIES,
    SIMILARITIES,
    Layout,
    columns,
    from_record,
    json_object,
    read_table,
    write_table,
)
from tests.result_rows import evaluation_row, probe_row, similarity_row, stitch_row

MEANS = (
    "accuracy,accuracy_low,accuracy_high,accuracy_drop,accuracy_drop_low,accuracy_drop_high,"
    "seed_spread,front_accuracy,end_accuracy"
)
STITCH = (
    "front_model_path,end_model_path,front_model_type,end_model_type,dataset,stitching_type,init,n_pinv_init_samples,"
    "front_pinv_rank,front_stitch_rank,objective,n_epochs,pinv_cutoff,seed,shortcut,front_weights,end_weights,"
    "train_images,test_images,stitching_option,further_options,front_layer,end_layer,folder"
)
COLUMNS = {  # that all tables of a layout have
    "grid": (
        f"{STITCH},accuracy,front_accuracy,end_accuracy,matching_error,representation_difference,agreement,kappa,"
        "n_images,n_fitting_samples,matching_rank,r2_fit,r2_test,truncated,front_depth,end_depth,"
        "front_relative_depth,end_relative_depth,end_is_cut,front_nondeterminism,end_nondeterminism"
    ),
    "evaluations": (
        "folder,front_layer,end_layer,dataset,shortcut,train_images,test_images,id_dataset,sanity_dataset,accuracy,"
        "correlation,baseline,skill,skill_low,skill_high,correlation_at_end,baseline_at_end,skill_at_end,"
        "skill_at_end_low,skill_at_end_high,n_images,n_classes,width,n_copies,rows_per_channel"
    ),
    "probes": (
        "model,layer,rank,accuracy,train_accuracy,loss,seed,epochs,model_type,dataset,n_images,shortcut,model_weights,"
        "train_images,test_images,further_options"
    ),
    "similarities": (
        "model1,model2,layer1,layer2,rank1,rank2,alignment,n_samples,model1_type,model2_type,dataset,"
        "alignment_option,n_permutations,seed,shortcut,model1_weights,model2_weights,test_images,"
        "relative_depth1,relative_depth2,further_options"
    ),
}
LAYOUTS = {
    "grid": GRID,
    "evaluations": EVALUATIONS,
    "probes": PROBES,
    "similarities": SIMILARITIES,
}
SAMPLES = {
    str: 'm, n/é "last"',
    int: 3,
    float: 0.1 + 0.2,
    bool: False,
    json_object: '{"a": [1, "é"]}',
}


def record_of(layout: Layout, *, full: bool) -> dict[str, Any]:
    """A record with a value for every column, or without those that may be missing and with numbers
    that are none."""
    samples = SAMPLES if full else SAMPLES | {float: math.nan, bool: True}
    values: dict[str, Any] = {}
    for name, hint in layout.types.items():
        kinds = get_args(hint) or (hint,)
        values[name] = None if not full and type(None) in kinds else samples.get(kinds[0])
    if full:
        values |= {"cka": 1 / 3, "pwcca": 1e-300, "procrustes": math.inf}
    return values


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("kind", COLUMNS)
def test_records_are_read_as_they_were_written(tmp_path, kind, full):
    names = COLUMNS[kind]
    layout = LAYOUTS[kind]
    record = record_of(layout, full=full)
    write_table(tmp_path / "t.csv", layout, [record, record])
    assert (tmp_path / "t.csv").read_text().startswith(names)
    found = [*read_table(tmp_path / "t.csv", layout), from_record(layout, record)]
    assert [repr(one) for one in found] == [repr(record)] * 3  # NaN differs from itself
    assert columns(layout) == names.split(",")


@pytest.mark.parametrize("further", [{}, {"sparsity_0": 0.5}])
def test_empty_columns_of_a_stitch_have_their_usual_values(further):
    record = record_of(GRID, full=True) | further
    assert with_empty(record) == record
    empty = with_empty(record | {"objective": None, "kappa": None, "seed": None})
    assert empty["objective"] == "task" and math.isnan(empty["kappa"]) and empty["seed"] is None
    assert {*METRICS} < {*columns(GRID)}


HOUSES = Layout(
    "houses",
    "nobody",
    {"street": str, "height": float | None, "name": str, "n_baselines": int},
    optional=("name", "n_baselines"),
)


def test_a_table_has_the_further_columns_of_all_its_records(tmp_path):
    records = [
        {"street": "A", "height": 2.0, "name": "none", "n_baselines": 1},
        {"street": "B", "height": None, "name": None, "n_baselines": 1, "hall": 1.0},
        {"street": "C", "height": 1.0, "name": None, "n_baselines": None, "attic": math.inf},
    ]
    write_table(tmp_path / "t.csv", HOUSES, records)
    assert (tmp_path / "t.csv").read_text().splitlines() == [
        "street,height,name,n_baselines,hall,attic",
        "A,2.0,none,1,,",
        "B,,,1,1.0,",
        "C,1.0,,,,inf",
    ]
    assert read_table(tmp_path / "t.csv", HOUSES) == records


def test_what_is_missing_or_empty_is_none():
    record = {"street": "A", "height": None, "name": None, "n_baselines": None}
    for empty in ({}, {"name": "", "n_baselines": ""}, {"name": None, "n_baselines": None}):
        assert from_record(HOUSES, {"street": "A"} | empty) == record
    with pytest.raises(ValueError, match="^street$"):
        from_record(HOUSES, {"street": "", "height": 1})


def test_damaged_values_name_column_file_and_line(tmp_path):
    for row, column, values in (
        (stitch_row(), "accuracy", ["high", None, "", [0.5]]),
        (stitch_row(), "seed", ["0.5", "x", [1]]),
        (stitch_row(), "init", ["", None]),
        (stitch_row(), "further_options", ["{", "[1]", "x"]),
        (similarity_row(), "cka", ["high"]),
        (similarity_row(), "layer1", ["", None]),
    ):
        layout = SIMILARITIES if "layer1" in row else GRID
        for value in values:
            with pytest.raises(ValueError, match=f"^{column}$"):
                from_record(layout, row | {column: value})
    path = tmp_path / "grid.csv"
    rows = [stitch_row(), stitch_row(accuracy=0.25)]
    write_table(path, GRID, rows)
    path.write_text(path.read_text().replace(",0.25,", ",high,"))
    with pytest.raises(
        UserError, match=r"grid\.csv, line 3: accuracy is missing or damaged; correct it$"
    ):
        read_table(path, GRID)


def test_a_table_is_read_as_what_it_is_and_no_other(tmp_path):
    path = tmp_path / "t.csv"
    stitch = stitch_row()
    rows = [from_record(GRID, stitch), evaluation_row(), probe_row(), similarity_row()]
    kinds = [GRID, EVALUATIONS, PROBES, SIMILARITIES]
    for kind, row in zip(kinds, rows, strict=True):
        write_table(path, kind, [row])
        (found,) = read_table(path, *kinds)
        assert repr(found) == repr(row)  # NaN differs from itself
        for other in kinds:
            if other is kind:
                continue
            with pytest.raises(UserError) as raised:
                read_table(path, other)
            line = f"{path} is no table of {other.contents} ({other.written_by})"
            assert str(raised.value).startswith(f"{line}: it lacks ")
    with pytest.raises(
        UserError,
        match=r"is no table of probing \(exec_probe\.py -o\) or stitching \(exec_stitch\.py",
    ):
        (tmp_path / "empty.csv").touch()
        read_table(tmp_path / "empty.csv", PROBES, GRID)


EXAMPLES = [  # (quantity, value of a similar stitch, value of a different one)
    ("accuracy", 0.9, 0.1),
    ("accuracy_drop", 0.0, 0.4),
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


@pytest.mark.parametrize(("name", "similar", "different"), EXAMPLES)
def test_dark_is_similar(name, similar, different, tmp_path, drawn_figures):
    matrix = pd.DataFrame([[similar, different]], ["x"], ["a", "b"])
    draw_layers(tmp_path / "f.png", [Map(name, matrix)])
    image = drawn_figures["f.png"].axes[0].images[0]
    dark, bright = (sum(image.to_rgba(value)[:3]) for value in (similar, different))
    assert dark < bright
    assert QUANTITIES[name].similarity(similar) > QUANTITIES[name].similarity(different)
