"""Tables of all pairs as arrays: both ways of measures that are not symmetric, and images with
dots."""

from pathlib import Path

import pytest

from src.ground.errors import UserError
from src.ground_truth.truth_tables import read_tables
from src.results.network_list import ListedNetwork
from src.results.similarity_rows import SimilarityRow
from src.values import ALL_IMAGES, WITHIN_CLASSES, ComparedLayers, Null, Similarity
from tests.tables import PROBE, SIMILARITY, STITCH, write_table

SOURCE = {
    "model1": "a.pt", "model2": "b.pt", "model1_type": "small_cnn", "model2_type": "small_cnn", "dataset": "digits",
    "n_samples": 10, "alignment_option": "auto", "n_permutations": 20, "seed": None,
}  # fmt: skip
NETWORKS = [ListedNetwork(name, f"{name}.pt", "resnet18") for name in "ab"]


def place(folder: Path, kind: str, name: str, usual: dict, *rows: dict) -> None:
    (folder / kind).mkdir(parents=True, exist_ok=True)
    write_table(folder / kind / name, usual | {key: "" for row in rows for key in row}, *rows)


def test_what_is_not_symmetric_has_a_value_each_way(tmp_path, capsys):
    """Whatever the order of the list; a table of an earlier version has one way only, and that is
    said."""
    calibrated = {f"pwcca{part}": 0.1 for part in ("_p_value", "_null_95", "_calibrated")}
    calibrated |= {f"pwcca_reversed{part}": 0.2 for part in ("_p_value", "_null_95", "_calibrated")}
    row = {
        "layer1": "x",
        "layer2": "y",
        "cka": 0.5,
        "pwcca": 0.3,
        "pwcca_reversed": 0.7,
        **calibrated,
    }
    place(tmp_path, "similarity", "a-b.csv", SIMILARITY, row)
    for networks, (a, b) in ((NETWORKS, (0, 1)), (NETWORKS[::-1], (1, 0))):
        tables = read_tables(tmp_path, networks)
        x, y = map(tables.layers.index, "xy")
        values = {name: (of[a, b, x, y], of[b, a, y, x]) for name, of in tables.values.items()}
        assert values == {"cka": (0.5, 0.5), "pwcca": (-0.3, -0.7), "pwcca calibrated": (0.1, 0.2)}
    assert capsys.readouterr().err == ""


def test_a_row_keeps_what_was_compared():
    nulls = {ALL_IMAGES: Null(0.05, 0.1, 0.2), WITHIN_CLASSES: Null(0.5, 0.3, 0.0)}
    back = {"pwcca": Similarity(0.5, {ALL_IMAGES: Null(0.25, 0.75, 0.125)})}
    values = {
        "cka": Similarity(0.5, nulls),
        "pwcca": Similarity(0.25),
        "own_distance": Similarity(2.0),
    }
    compared = ComparedLayers("x", "y", 4, None, "positions", values, back)
    row = SimilarityRow.of(compared, SOURCE)
    assert list(row.values)[:4] == ["cka", "pwcca", "own_distance", "pwcca_reversed"]
    assert row.values["cka_null_95_within"] == 0.3
    assert row.values["pwcca_reversed_p_value"] == 0.25
    assert row.measures == ["cka", "pwcca", "own_distance"] and len(row.values) == 4 + 3 * 3


@pytest.mark.parametrize(
    ("kind", "name", "usual"),
    [("similarity", "a-b.csv", SIMILARITY | {"cka": 0.5}), ("probes", "a.csv", PROBE)],
)
def test_tables_without_stitches_say_that_images_had_dots(kind, name, usual, tmp_path):
    place(tmp_path, kind, name, usual, {"shortcut": 0.0})
    place(tmp_path, "probes", "b.csv", PROBE, {"model": "b.pt", "shortcut": 0.0})
    assert read_tables(tmp_path, NETWORKS).shortcut == 0
    place(tmp_path, "a to b/pinv/t", "grid.csv", STITCH, {"shortcut": ""})
    (tmp_path / "a to b/pinv/t/config.txt").write_text('{"stitching_type": "rc2c_pre"}')
    with pytest.raises(UserError, match="with dots .--shortcut. and tables of images without"):
        read_tables(tmp_path, NETWORKS)
