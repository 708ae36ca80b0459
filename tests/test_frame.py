"""The frame of results: its rows and columns, from runs and tables on disk and from a call of `judge`."""

import math

import pytest

from src.core.errors import UserError
from src.results import read
from src.results.frame import measures_in
from src.results.network_names import SHORT
from src.results.tables import COLUMNS
from tests.result_rows import SIMILARITY, write_table
from tests.written_runs import (
    skill,
    write_evaluation,
    write_list,
    write_pairs,
    write_run,
    write_skill,
)

TYPES = {"a": "cnn", "b": "cnn", "c": "mlp"}
LAYERS = {"cnn": {"x": 0.5, "y": 1.0}, "mlp": {"u": 0.25, "v": 1.0}}
PAIRS = ["a-b", "a-c", "b-a", "b-c", "c-a", "c-b"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Stitches of all pairs of three networks, skill and a detector of one pair, and similarities of another."""
    path = tmp_path_factory.mktemp("frame")
    assert write_pairs(path / "results", TYPES, LAYERS, lambda *names: 940) == PAIRS
    write_evaluation(path / "results" / "a-b", {"0": 0.25, "3": 0.75})
    write_skill(path / "results" / "a-b", {"0": skill(0.5, 0.25)})
    write_list(path / "nets.csv", TYPES, group={"a": "one", "b": "one", "c": "two"})
    table = path / "results" / "similarity" / "a-c.csv"
    table.parent.mkdir()
    usual = SIMILARITY | {"model1": "a.pt", "model2": "c.pt", "pwcca_reversed": ""}
    usual |= {"model1_type": "cnn", "model2_type": "mlp", "layer1": "x", "layer2": "u"}
    values = {"cka": 0.5, "pwcca": 0.25, "pwcca_reversed": 0.125}
    write_table(table, usual, values, {**values, "rank1": 2})
    return path


@pytest.fixture
def frame(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return read("results", networks="nets.csv")


def test_a_stitched_pair_of_layers_has_a_row(frame):
    stitched = frame[frame.method != "similarity"].set_index(COLUMNS[1:3] + COLUMNS[7:9])
    assert list(frame.columns[: len(COLUMNS)]) == COLUMNS and len(stitched) == 24
    row = stitched.loc[("a", "b", "x", "x")]
    assert (row.method, row.front_group, row.end_type) == ("direct matching", "one", "cnn")
    assert (row.front_relative_depth, row.end_relative_depth) == (0.5, 0.5)
    assert (row.accuracy, row.accuracy_drop) == pytest.approx((0.94, 0.01))
    assert row.accuracy_low < 0.94 < row.accuracy_high
    assert (row.skill, row.skill_low, row.skill_at_end) == pytest.approx(
        (0.5, 0.45, 0.25), rel=1e-4
    )
    assert (row.verdict, row.auroc_energy, row.dataset, row.init) == (
        "similar",
        0.25,
        "digits",
        "pinv",
    )
    assert (row.n_images, row.n_epochs, row.front_depth) == (1000, 0, 0)
    other = stitched.loc[("a", "c", "x", "u")]
    assert (other.end_group, other.end_type, other.verdict) == ("two", "mlp", "inconclusive")
    assert (
        math.isnan(other.skill)
        and math.isnan(other.auroc_energy)
        and "not measured" in other.reason
    )


def test_a_row_has_the_weights_of_its_networks(tmp_path):
    write_run(tmp_path, "0", n_right=940, front_model_path_sha256="ab" * 32)
    (row,) = read(tmp_path).itertuples()
    assert row.front_weights == ("ab" * 32)[:SHORT] and row.end_weights is None


def test_a_measure_with_a_direction_has_a_row_for_each(frame):
    compared = frame[frame.method == "similarity"]
    assert measures_in(frame) == ["cka", "pwcca"]
    values = compared[["front_network", "end_network", "front_rank", "cka", "pwcca"]]
    expected = [["a", "c", None, 0.5, 0.25], ["c", "a", None, None, 0.125]]
    expected += [["a", "c", 2, 0.5, 0.25], ["c", "a", None, None, 0.125]]
    assert values.astype(object).where(values.notna(), None).values.tolist() == expected
    assert compared.end_rank.tolist()[3] == 2 and set(compared.n_images) == {10}


def test_stitches_have_the_similarity_of_their_layers(frame):
    stitched = frame[(frame.method != "similarity") & frame.cka.notna()]
    pairs = stitched[["front_network", "end_network", "front_layer", "cka"]].values.tolist()
    assert pairs == [["a", "c", "x", 0.5], ["c", "a", "u", 0.5]]


def test_a_depth_of_zero_and_depths_of_a_list(folder, monkeypatch):
    """A list gives them by layer; 0 is a depth."""
    monkeypatch.chdir(folder)
    depths = {"a": "x=0,y=0.5", "b": "x=0,y=0.5", "c": "u=0,v=1"}
    write_list(folder / "depths.csv", TYPES, depths=depths)
    frame = read("results", networks="depths.csv").set_index("front_layer")
    assert set(frame.front_relative_depth.loc["x"]) == {0} and set(frame.end_relative_depth) == {
        0,
        0.5,
        1,
    }


def test_a_folder_without_results_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no finished stitching run"):
        read(tmp_path)
