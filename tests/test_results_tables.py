"""Tables: the columns of every one, rows read back as they were written, refused files; the table of
quantities."""

import math
from typing import Any, NamedTuple, get_args, get_origin

import pandas as pd
import pytest

from src.core.errors import UserError
from src.figures.maps import Map, draw_layers
from src.results.quantities import EVALUATIONS, PROBES, QUANTITIES, SIMILARITIES
from src.results.spec import FurtherOptions
from src.results.stitches import StitchRow
from src.results.tables import (
    FURTHER,
    Layout,
    columns,
    fields,
    from_record,
    read_table,
    to_record,
    write_table,
)
from src.values import Metrics
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
COLUMNS = {  # that all tables of a type have
    StitchRow: (
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
    "evaluations": EVALUATIONS,
    "probes": PROBES,
    "similarities": SIMILARITIES,
}  # of rows that are records
SAMPLES = {
    str: 'm, n/é "last"',
    int: 3,
    float: 0.1 + 0.2,
    bool: False,
    FurtherOptions: FurtherOptions('{"a": [1, "é"]}'),
}


def row_of(kind: type | Layout, *, full: bool) -> Any:
    """A row with a value for every column, or without those that may be missing and with numbers
    that are none."""
    samples = SAMPLES if full else SAMPLES | {float: math.nan, bool: True}
    values = {}
    for name, (hint, _) in fields(kind).items():
        kinds = get_args(hint) or (hint,)
        values[name] = None if not full and type(None) in kinds else samples.get(kinds[0])
        if get_origin(hint) is dict:
            values[name] = {"cka": 1 / 3, "pwcca": 1e-300, "procrustes": math.inf} if full else {}
    if isinstance(kind, Layout):
        return values | values.pop(FURTHER)
    return kind(**values)


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("kind", COLUMNS)
def test_rows_are_read_as_they_were_written(tmp_path, kind, full):
    names = COLUMNS[kind]
    kind = LAYOUTS.get(kind, kind)
    row = row_of(kind, full=full)
    write_table(tmp_path / "t.csv", kind, [row, row])
    assert (tmp_path / "t.csv").read_text().startswith(names)
    found = [*read_table(tmp_path / "t.csv", kind), from_record(kind, to_record(row))]
    assert [repr(one) for one in found] == [repr(row)] * 3  # NaN differs from itself
    assert columns(kind) == names.split(",")


class House(NamedTuple):
    """A row."""

    street: str
    height: float | None
    name: str = "none"
    n_baselines: int = 1
    others: dict[str, float] = {}


def test_a_table_has_the_further_columns_of_all_its_rows(tmp_path):
    rows = [
        House("A", 2.0),
        House("B", None, others={"hall": 1.0}),
        House("C", 1.0, others={"attic": math.inf}),
    ]
    write_table(tmp_path / "t.csv", House, rows)
    assert (tmp_path / "t.csv").read_text().splitlines() == [
        "street,height,name,n_baselines,hall,attic",
        "A,2.0,none,1,,",
        "B,,none,1,1.0,",
        "C,1.0,none,1,,inf",
    ]
    assert read_table(tmp_path / "t.csv", House) == rows


def test_what_is_missing_or_empty_is_the_default_or_none():
    for empty in ({}, {"name": "", "n_baselines": ""}, {"name": None, "n_baselines": None}):
        assert from_record(House, {"street": "A"} | empty) == House("A", None, "none", 1, {})
    metrics = from_record(Metrics, {"accuracy": 0.5, "front_accuracy": None})
    assert (
        repr(metrics) == repr(Metrics(accuracy=0.5))
        and metrics.matching_error is None
        and math.isnan(metrics.kappa)
    )
    with pytest.raises(ValueError, match="^street$"):
        from_record(House, {"street": "", "height": 1})


def test_damaged_values_name_column_file_and_line(tmp_path):
    for row, column, values in (
        (stitch_row(), "accuracy", ["high", None, "", [0.5]]),
        (stitch_row(), "seed", ["0.5", "x", [1]]),
        (stitch_row(), "init", ["", None]),
        (stitch_row(), "further_options", ["{", "[1]", "x"]),
        (similarity_row(), "cka", ["high"]),
        (similarity_row(), "layer1", ["", None]),
    ):
        kind = SIMILARITIES if isinstance(row, dict) else type(row)
        for value in values:
            with pytest.raises(ValueError, match=f"^{column}$"):
                from_record(kind, to_record(row) | {column: value})
    path = tmp_path / "grid.csv"
    write_table(path, StitchRow, [stitch_row(), stitch_row(accuracy=0.25)])
    path.write_text(path.read_text().replace(",0.25,", ",high,"))
    with pytest.raises(
        UserError, match=r"grid\.csv, line 3: accuracy is missing or damaged; correct it$"
    ):
        read_table(path, StitchRow)


def test_a_table_is_read_as_what_it_is_and_no_other(tmp_path):
    path, rows = tmp_path / "t.csv", [stitch_row(), evaluation_row(), probe_row(), similarity_row()]
    kinds = [StitchRow, EVALUATIONS, PROBES, SIMILARITIES]
    for kind, row in zip(kinds, rows, strict=True):
        write_table(path, kind, [row])
        (found,) = read_table(path, *kinds)
        assert repr(to_record(found)) == repr(to_record(row))  # NaN differs from itself
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
        read_table(tmp_path / "empty.csv", PROBES, StitchRow)


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
