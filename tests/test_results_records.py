"""The codec of rows: columns by hand for every table, rows read back as they were written, and refused files."""

import math
from typing import Annotated, NamedTuple

import pytest

from src.errors import UserError
from src.ood.registry import SCORES
from src.results.experiments import Pair
from src.results.records import columns, from_record, read_table, to_record, write_table
from src.results.rows import (
    Auroc,
    ComparisonRow,
    EpochRow,
    Estimate,
    EvaluationRow,
    FinetuningRow,
    IntervalRow,
    Metrics,
    Null,
    ProbeRow,
    RankTestRow,
    SimilarityRow,
    StitchRow,
    StitchValidity,
    Summary,
    VerdictRow,
)
from src.similarity.registry import KEYS as SIMILARITY_KEYS
from src.verdict.judging import SIMILARITY_COLUMNS
from tests.result_rows import OPTIONS, evaluation_row, probe_row, similarity_row, stitch_row

MEANS = (
    "accuracy,accuracy_low,accuracy_high,penalty,penalty_low,penalty_high,"
    "seed_spread,end_accuracy,agreement,kappa,representation_difference"
)
COLUMNS = {  # the headers of all tables
    StitchRow: (
        "front_layer,end_layer,stitching_type,init,front_stitch_rank,front_pinv_rank,seed,accuracy,front_accuracy,"
        "end_accuracy,matching_error,representation_difference,folder,front_model_path,end_model_path,"
        "front_model_type,end_model_type,dataset,objective,n_epochs,n_pinv_init_samples,agreement,kappa,n_images,"
        "pinv_cutoff,n_matched,matching_rank,r2_matched,r2_test"
    ),
    EvaluationRow: (
        "front_layer,end_layer,accuracy,auroc,aupr,fpr95,mean_energy,mean_id_energy,folder,detector,detector_id_data,"
        "detector_ood_data,id_dataset,sanity_dataset,sanity_auroc,dataset,front_model_path,end_model_path,"
        "front_model_type,end_model_type,stitching_type,init,objective,n_epochs,n_pinv_init_samples,front_stitch_rank,"
        "front_pinv_rank,seed,pinv_cutoff,auroc_low,auroc_high,density,recall,frechet,density_own,recall_own,"
        "frechet_own,noise_dose,shrinkage_dose"
    ),
    ProbeRow: "model,layer,rank,accuracy,train_accuracy,loss,seed,epochs,model_type,dataset,n_images",
    SimilarityRow: (
        "model1,model2,layer1,layer2,rank1,rank2,alignment,n_samples,cka,pwcca,procrustes,pwcca_morcos,cka_debiased,"
        "mutual_knn,"
        + "".join(
            f"{name}_p_value{of},{name}_null_95{of},{name}_calibrated{of},"
            for of in ("", "_within", "_max", "_within_max")
            for name in ("cka", "pwcca", "procrustes", "pwcca_morcos", "cka_debiased", "mutual_knn")
        )
        + "model1_type,model2_type,dataset,"
        "alignment_option,n_permutations,seed"
    ),
    IntervalRow: f"method,networks,front_layer,end_layer,n_runs,n_networks,{MEANS}",
    VerdictRow: (
        f"method,networks,front_layer,end_layer,verdict,reason,control,n_runs,n_networks,{MEANS},p_below,p_above,side,"
        "density,recall,frechet,density_own,recall_own,frechet_own,noise_dose,shrinkage_dose,"
        + "".join(
            f"auroc_{name},auroc_low_{name},auroc_high_{name},"
            for name in ("energy", "mahalanobis", "rmd", "knn", "residual")
        )
        + "cka,cka_p_value,cka_null_95,cka_calibrated,cka_debiased,cka_debiased_p_value,cka_debiased_null_95,"
        "cka_debiased_calibrated"
    ),
    ComparisonRow: "front_layer,end_layer,accuracy_1,accuracy_2,difference",
    RankTestRow: "test,measure,setting,layer1,layer2,varied,n,spearman,spearman_p,kendall,kendall_p,place,note",
    EpochRow: "train_acc,train_loss,val_acc,val_loss",
    FinetuningRow: "ft_loss,ce_loss,train_acc,val_ce_loss,val_acc",
}
KEYS = {
    SimilarityRow: SIMILARITY_KEYS,
    VerdictRow: {"aurocs": SCORES, "similarities": SIMILARITY_COLUMNS},
}
PAIR, VALIDITY = Pair("layer1.0", 'fc, "last"'), StitchValidity(0.1, 1 / 3, 1e-300, 1.0, 0.9, 0.0, 0.01, 0.3)
ACCURACY, PENALTY = Estimate(0.1 + 0.2, 1e-300, 1 / 3), Estimate(0.0, -0.125, None)
KNOWN = Summary(3, 2, ACCURACY, PENALTY, 0.5, 0.9, 0.8, -0.1, 2.0)
UNKNOWN = Summary(1, 1, Estimate(0.5), Estimate(None), None, None, None, None, None)
ROWS = [
    stitch_row(front_stitch_rank=8, matching_error=0.1, init="pinv", kappa=-0.25, accuracy=1 / 3, n_images=360),
    stitch_row(objective="fula", front_model_path="m, n/é.pt", seed=None, dataset=None, n_epochs=None),
    evaluation_row(detector_ood_data="svhn", sanity_dataset="mnist", sanity_auroc=0.75, front_pinv_rank=4),
    evaluation_row(detector="knn", accuracy=math.nan, auroc_low=0.25, auroc_high=0.75)._replace(
        validity=VALIDITY
    ),
    probe_row(rank=4),
    probe_row(train_accuracy=None, seed=None, epochs=None, n_images=None, loss=math.inf),
    similarity_row(rank1=8, values={"cka": 0.5, "pwcca": math.nan}, nulls={"cka": Null(0.005, 0.25, 1 / 7)}),
    similarity_row(values={"cka": 0.5}, nulls={"cka": Null(0.05, 0.3, 0.2)}, nulls_within={"cka": Null(0.5, 0.6, 0.0)},
                   nulls_max={"cka": Null(0.1, 0.4, 0.1)}, nulls_within_max={"cka": Null(1.0, 0.7, 0.0)}),
    similarity_row(rank2=4, n_permutations=200, alignment="none", seed=3),
    IntervalRow("direct matching", "f.pt → g.pt", PAIR, KNOWN),
    IntervalRow("direct matching (seed=0, init=rand)", "3 pairs of networks", PAIR, UNKNOWN),
    VerdictRow("m", "n", PAIR, "similar", "because", "self", KNOWN, 0.01, 0.99, "in distribution", VALIDITY,
               {"energy": Auroc(0.5, 0.4, 0.6), "knn": Auroc(0.9, 0.8, 1.0)},
               {"cka": 0.5, "cka_debiased_null_95": 0.25}),
    VerdictRow("m", "n", PAIR, "undecided", "because", None, UNKNOWN, None, None, None, None, {}, {}),
    ComparisonRow(PAIR, 0.5, math.nan, math.nan),
    RankTestRow("sensitivity", "cka", "a -- b", "x", "y", "layer1", 4, 0.8, 0.2, 2 / 3, 1 / 3),
    RankTestRow("specificity", "cka", "a -- b", "x", "x", "layer2", 8, place=2.0, note="its note"),
    EpochRow(None, 1.5, 0.5, math.nan),
    FinetuningRow(1.0, 0.5, 0.25, 0.125, 0.1),
]  # fmt: skip


@pytest.mark.parametrize("kind", COLUMNS, ids=lambda kind: kind.__name__)
def test_the_columns_of_every_table(kind):
    assert columns(kind, **KEYS.get(kind, {})) == COLUMNS[kind].split(",")


def test_every_type_of_row_has_an_example():
    assert {type(row) for row in ROWS} == COLUMNS.keys()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: type(row).__name__)
def test_rows_are_read_as_they_were_written(tmp_path, row):
    kind, keys = type(row), KEYS.get(type(row), {})
    write_table(tmp_path / "t.csv", kind, [row, row], **keys)
    assert (tmp_path / "t.csv").read_text().startswith(COLUMNS[kind] + "\n")
    found = read_table(tmp_path / "t.csv", kind, **keys)
    assert [repr(one) for one in found] == [repr(row)] * 2  # NaN differs from itself


@pytest.mark.parametrize("row", ROWS, ids=lambda row: type(row).__name__)
def test_a_record_of_json_is_the_same_row(row):
    keys = {name: value for name, value in row._asdict().items() if isinstance(value, dict)}
    assert repr(from_record(type(row), to_record(row), **keys)) == repr(row)


class Size(NamedTuple):
    """A nested value."""

    value: float
    unit: str | None


class Place(NamedTuple):
    """A nested value whose fields keep their names."""

    street: str
    size: Size

    inline = True


class House(NamedTuple):
    """A row."""

    place: Place
    height: Size | None
    rooms: Annotated[dict[str, Size], "{part}_of_{key}"]
    doors: Annotated[dict[str, int], "n_{key}"]
    number: int
    name: str = "none"
    n_floors: int = 1

    leading = ("number",)


HOUSE = House(Place("A", Size(2.0, "m")), None, {"hall": Size(1.0, None)}, {"oak": 2}, 7)


def test_nested_values_are_columns_by_hand():
    assert to_record(HOUSE) == {
        "street": "A", "size": 2.0, "size_unit": "m", "height": None, "height_unit": None, "value_of_hall": 1.0,
        "unit_of_hall": None, "n_oak": 2, "number": 7, "name": "none", "n_floors": 1,
    }  # fmt: skip
    assert columns(House, rooms=["hall", "attic"]) == [
        "number", "street", "size", "size_unit", "height", "height_unit", "value_of_hall", "unit_of_hall",
        "value_of_attic", "unit_of_attic", "name", "n_floors",
    ]  # fmt: skip


def test_dicts_have_the_keys_that_are_given_and_measured():
    record = to_record(HOUSE)
    assert from_record(House, record, rooms=["hall", "attic"], doors=["oak", "iron"]) == HOUSE
    assert from_record(House, record, rooms=["attic"]) == HOUSE._replace(rooms={}, doors={})


def test_a_nested_value_is_there_if_one_of_its_columns_is():
    assert from_record(House, to_record(HOUSE) | {"height": "3"}).height == Size(3.0, None)
    with pytest.raises(ValueError, match="^height$"):
        from_record(House, to_record(HOUSE) | {"height_unit": "m"})


def test_what_is_missing_or_empty_is_the_default_or_none():
    for empty in ({}, {"name": "", "n_floors": ""}, {"name": None, "n_floors": None}):
        house = from_record(House, {"street": "A", "size": "2", "number": "7"} | empty)
        assert house == House(Place("A", Size(2.0, None)), None, {}, {}, 7, "none", 1)
    metrics = from_record(Metrics, {"accuracy": 0.5, "front_accuracy": None})
    assert repr(metrics) == repr(Metrics(0.5)) and metrics.matching_error is None and math.isnan(metrics.kappa)
    for name in ("street", "size", "number"):
        with pytest.raises(ValueError, match=f"^{name}$"):
            from_record(House, to_record(HOUSE) | {name: ""})


def damaged(row, **values) -> str:
    """The column that is named where a record is damaged."""
    keys = KEYS.get(type(row), {})
    with pytest.raises(ValueError) as raised:
        from_record(type(row), to_record(row) | values, **keys)
    return str(raised.value)


@pytest.mark.parametrize(
    ("row", "column", "values"),
    [
        (ROWS[0], "accuracy", ["high", None, "", True, [0.5]]),
        (ROWS[0], "seed", ["0.5", 0.5, "x", True, [1]]),
        (ROWS[0], "init", [3, "", None, ["pinv"], "a\nb"]),
        (ROWS[0], "dataset", [[], {}, 3, "a\tb"]),
        (ROWS[4], "rank", ["4.5", "full"]),
        (ROWS[6], "cka", ["high"]),
        (ROWS[6], "cka_null_95", ["", "high"]),
        (ROWS[9], "accuracy_high", ["x"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_damaged_values_name_the_column(row, column, values):
    assert {damaged(row, **{column: value}) for value in values} == {column}


def test_a_damaged_table_names_the_file_and_the_line(tmp_path):
    path = tmp_path / "grid.csv"
    write_table(path, StitchRow, [stitch_row(), stitch_row(accuracy=0.25)])
    path.write_text(path.read_text().replace(",0.25,", ",high,"))
    with pytest.raises(UserError, match=r"grid\.csv, line 3 is damaged \(accuracy\); write the table again$"):
        read_table(path, StitchRow)


TABLES = {StitchRow: ROWS[0], EvaluationRow: ROWS[2], ProbeRow: ROWS[4], SimilarityRow: ROWS[6]}


@pytest.mark.parametrize("kind", TABLES, ids=lambda kind: kind.__name__)
def test_a_table_is_read_as_what_it_is_and_no_other(tmp_path, kind):
    path = tmp_path / "t.csv"
    write_table(path, kind, [TABLES[kind]], **KEYS.get(kind, {}))
    (row,) = read_table(path, *TABLES)
    assert type(row) is kind
    for other in TABLES.keys() - {kind}:
        with pytest.raises(UserError) as raised:
            read_table(path, other)
        assert str(raised.value) == (
            f"{path} is no table of {other.contents} ({other.written_by}); give one that this version wrote"
        )
    with pytest.raises(UserError, match=r"is no table of probing \(exec_probe\.py -o\) or stitching \(exec_stitch\.py"):
        (tmp_path / "empty.csv").touch()
        read_table(tmp_path / "empty.csv", ProbeRow, StitchRow)


def test_the_options_of_a_run_are_columns_of_its_row():
    assert set(OPTIONS) | {"objective"} <= set(columns(StitchRow))
