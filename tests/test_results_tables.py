"""Tables: columns by hand for every one, rows read back as they were written, and refused files."""

import math
from typing import NamedTuple

import pytest

from src.errors import UserError
from src.ground_truth.rows import DepthRow, DotsRow, TruthRow
from src.ood.finetuning import FinetuningRow
from src.ood.rows import EvaluationRow
from src.probing.rows import ProbeRow
from src.results.tables import columns, from_record, read_table, to_record, write_table
from src.sensitivity.rank_tests import RankTestRow
from src.similarity.rows import Null, SimilarityRow
from src.stitching.rows import ComparisonRow, Metrics, StitchRow
from src.training.recorded import EpochRow
from src.verdict.rows import VerdictRow
from src.verdict.tidy import MeasurementRow
from tests.result_rows import evaluation_row, probe_row, similarity_row, stitch_row

MEANS = (
    "accuracy,accuracy_low,accuracy_high,penalty,penalty_low,penalty_high,"
    "seed_spread,end_accuracy,agreement,kappa,representation_difference"
)
COLUMNS = {  # that all tables of a type have
    StitchRow: (
        "front_layer,end_layer,stitching_type,init,front_stitch_rank,front_pinv_rank,seed,accuracy,front_accuracy,"
        "end_accuracy,matching_error,representation_difference,folder,front_model_path,end_model_path,"
        "front_model_type,end_model_type,dataset,objective,n_epochs,n_pinv_init_samples,agreement,kappa,n_images,"
        "pinv_cutoff,n_matched,matching_rank,r2_matched,r2_test,control,shortcut,front_depth,end_depth"
    ),
    EvaluationRow: (
        "front_layer,end_layer,accuracy,auroc,aupr,fpr95,mean_energy,mean_id_energy,folder,detector,detector_id_data,"
        "detector_ood_data,id_dataset,sanity_dataset,sanity_auroc,dataset,front_model_path,end_model_path,"
        "front_model_type,end_model_type,stitching_type,init,objective,n_epochs,n_pinv_init_samples,front_stitch_rank,"
        "front_pinv_rank,seed,pinv_cutoff,auroc_low,auroc_high,density,recall,frechet,density_own,recall_own,"
        "frechet_own,noise_dose,shrinkage_dose,control,shortcut,front_depth,end_depth"
    ),
    ProbeRow: "model,layer,rank,accuracy,train_accuracy,loss,seed,epochs,model_type,dataset,n_images,shortcut",
    SimilarityRow: (
        "model1,model2,layer1,layer2,rank1,rank2,alignment,n_samples,model1_type,model2_type,dataset,"
        "alignment_option,n_permutations,seed,shortcut"
    ),
    MeasurementRow: (
        "method,measure,front_network,front_group,end_network,end_group,front_layer,front_depth,end_layer,end_depth,"
        "front_rank,end_rank,pinv_rank,dataset,seed,control,value"
    ),
    VerdictRow: (
        f"method,networks,front_layer,end_layer,verdict,reason,control,n_runs,n_networks,{MEANS},p_below,p_above,rho,"
        "rho_low,rho_high,beta,beta_low,beta_high,side,noise_dose,shrinkage_dose,density,recall,frechet,density_own,"
        "recall_own,frechet_own,front_depth,end_depth"
    ),
    ComparisonRow: "front_layer,end_layer,accuracy_1,accuracy_2,difference",
    RankTestRow: "test,measure,setting,layer1,layer2,varied,n,spearman,spearman_p,kendall,kendall_p,place,note",
    TruthRow: (
        "test,score,measure,layer,value,low,high,chance,p,is_above_chance,is_above_baselines,is_baseline,n_networks,"
        "both_directions"
    ),
    DotsRow: "network,group,true,absent,drawn",
    DepthRow: "quantity,line,layer,value,low,high,n_networks,n_pairs,networks",
    EpochRow: "train_acc,train_loss,val_acc,val_loss",
    FinetuningRow: "ft_loss,ce_loss,train_acc,val_ce_loss,val_acc",
}  # fmt: skip
LAYERS = ("layer1.0", 'fc, "last"')
KNOWN = (3, 2, 0.1 + 0.2, 1e-300, 1 / 3, 0.0, -0.125, None, 0.5, 0.9, 0.8, -0.1, 2.0)
UNKNOWN = (1, 1, 0.5, *[None] * 10)
ROWS = [
    stitch_row(front_stitch_rank=8, matching_error=0.1, init="pinv", kappa=-0.25, accuracy=1 / 3, n_images=360,
               front_depth=3),
    stitch_row(objective="fula", front_model_path="m, n/é.pt", seed=None, dataset=None, n_epochs=None),
    evaluation_row(detector_ood_data="svhn", sanity_dataset="mnist", sanity_auroc=0.75, front_pinv_rank=4),
    evaluation_row(detector="knn", accuracy=math.nan, auroc_low=0.25, auroc_high=0.75, density=0.1, recall=1 / 3,
                   frechet=1e-300, density_own=1.0, recall_own=0.9, frechet_own=0.0, noise_dose=0.01,
                   shrinkage_dose=0.3),
    probe_row(rank=4),
    probe_row(train_accuracy=None, seed=None, epochs=None, n_images=None, loss=math.inf),
    similarity_row(rank1=8, values={"cka": 0.5, "pwcca": math.nan}, nulls={"cka": Null(0.005, 0.25, 1 / 7)}),
    similarity_row(rank2=4, n_permutations=200, alignment="none", seed=3),
    MeasurementRow("direct matching", "accuracy", "a", "wide", "b", "narrow", "x", 0, "y", None, 4, None, 4, "digits",
                   0, "labels", 1 / 3),
    MeasurementRow("similarity", "cka", "a", "wide", "b", "wide", "x", 0, "y", 1, None, 2, None, None, None, None, 0.1),
    VerdictRow("m", "n", *LAYERS, "similar", "because", "self", *KNOWN, 0.01, 0.99, 1.5, 1.25, math.inf, 0.5, -0.5,
               1.0, "in distribution", 0.01, 0.02, 0.1, 1 / 3, 1e-300, 1.0, 0.9, 0.0, 3, 4,
               {"auroc_knn": 0.9, "cka": 0.5}),
    VerdictRow("m", "n", *LAYERS, "undecided", "because", None, *UNKNOWN, *[None] * 19, {}),
    ComparisonRow(*LAYERS, 0.5, math.nan, math.nan),
    RankTestRow("sensitivity", "cka", "a -- b", "x", "y", "layer1", 4, 0.8, 0.2, 2 / 3, 1 / 3),
    RankTestRow("specificity", "cka", "a -- b", "x", "x", "layer2", 8, place=2.0, note="its note"),
    TruthRow("label_noise", "auprc", "cka", "x", 0.5, 0.4, 0.6, 0.3, 0.005, True, False, False, 15, True),
    DotsRow("n0", "shortcut:1", 1.0, 0.5, 0.25),
    DepthRow("accuracy", "direct matching", "x", 0.5, math.nan, math.nan, 3, 6),
    EpochRow(None, 1.5, 0.5, math.nan),
    FinetuningRow(1.0, 0.5, 0.25, 0.125, 0.1),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: type(row).__name__)
def test_rows_are_read_as_they_were_written(tmp_path, row):
    write_table(tmp_path / "t.csv", type(row), [row, row])
    assert (tmp_path / "t.csv").read_text().startswith(COLUMNS[type(row)])
    found = [*read_table(tmp_path / "t.csv", type(row)), from_record(type(row), to_record(row))]
    assert [repr(one) for one in found] == [repr(row)] * 3  # NaN differs from itself
    assert columns(type(row)) == COLUMNS[type(row)].split(",")


class House(NamedTuple):
    """A row."""

    street: str
    height: float | None
    name: str = "none"
    n_floors: int = 1
    others: dict[str, float] = {}


def test_a_table_has_the_further_columns_of_all_its_rows(tmp_path):
    rows = [House("A", 2.0), House("B", None, others={"hall": 1.0}), House("C", 1.0, others={"attic": math.inf})]
    write_table(tmp_path / "t.csv", House, rows)
    assert (tmp_path / "t.csv").read_text().splitlines() == [
        "street,height,name,n_floors,hall,attic", "A,2.0,none,1,,", "B,,none,1,1.0,", "C,1.0,none,1,,inf",
    ]  # fmt: skip
    assert read_table(tmp_path / "t.csv", House) == rows


def test_what_is_missing_or_empty_is_the_default_or_none():
    for empty in ({}, {"name": "", "n_floors": ""}, {"name": None, "n_floors": None}):
        assert from_record(House, {"street": "A"} | empty) == House("A", None, "none", 1, {})
    metrics = from_record(Metrics, {"accuracy": 0.5, "front_accuracy": None})
    assert repr(metrics) == repr(Metrics(accuracy=0.5)) and metrics.matching_error is None and math.isnan(metrics.kappa)
    with pytest.raises(ValueError, match="^street$"):
        from_record(House, {"street": "", "height": 1})


def test_damaged_values_name_the_column():
    for row, column, values in (
        (ROWS[0], "accuracy", ["high", None, "", True, [0.5]]),
        (ROWS[0], "seed", ["0.5", 0.5, "x", True, [1]]),
        (ROWS[0], "init", [3, "", None, ["pinv"], "a\nb"]),
        (ROWS[6], "cka", ["high"]),
    ):
        for value in values:
            with pytest.raises(ValueError, match=f"^{column}$"):
                from_record(type(row), to_record(row) | {column: value})


def test_a_damaged_table_names_the_file_and_the_line(tmp_path):
    path = tmp_path / "grid.csv"
    write_table(path, StitchRow, [stitch_row(), stitch_row(accuracy=0.25)])
    path.write_text(path.read_text().replace(",0.25,", ",high,"))
    with pytest.raises(UserError, match=r"grid\.csv, line 3 is damaged \(accuracy\); write the table again$"):
        read_table(path, StitchRow)


TABLES = {StitchRow: ROWS[0], EvaluationRow: ROWS[2], ProbeRow: ROWS[4], SimilarityRow: ROWS[6]}


def test_a_table_is_read_as_what_it_is_and_no_other(tmp_path):
    path = tmp_path / "t.csv"
    for kind, row in TABLES.items():
        write_table(path, kind, [row])
        assert [type(found) for found in read_table(path, *TABLES)] == [kind]
        for other in TABLES.keys() - {kind}:
            with pytest.raises(UserError) as raised:
                read_table(path, other)
            line = f"{path} is no table of {other.contents} ({other.written_by}); give one that this version wrote"
            assert str(raised.value) == line
    with pytest.raises(UserError, match=r"is no table of probing \(exec_probe\.py -o\) or stitching \(exec_stitch\.py"):
        (tmp_path / "empty.csv").touch()
        read_table(tmp_path / "empty.csv", ProbeRow, StitchRow)
