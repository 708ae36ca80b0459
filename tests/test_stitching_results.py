"""Rows of grid.csv: typed, self-describing, read back as they were written; and predictions with their agreement."""

import json
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import cohen_kappa_score

from src.errors import UserError
from src.stitching import Pair
from src.stitching.grid import GridScore, PairScore
from src.stitching.predictions import agreement, write_predictions
from src.stitching.reporting import Comparison, describe, write_grid
from src.stitching.results import read_run
from src.stitching.rows import Row, by_experiment
from tests.run_content import grid_rows

COLUMNS_OF_BEFORE = (
    "front_layer", "end_layer", "stitching_type", "init", "front_stitch_rank", "front_pinv_rank", "seed", "accuracy",
    "front_accuracy", "end_accuracy", "matching_error", "representation_difference", "folder",
)  # fmt: skip
OPTIONS = {
    "front_model_path": "a.pt", "end_model_path": "b.pt", "front_model_type": "resnet18", "end_model_type": "resnet18",
    "front_layer": "layer1.0", "end_layer": "layer2.0", "stitching_type": "rc2c_pre", "init": "rand", "seed": 0,
    "front_stitch_rank": None, "front_pinv_rank": None, "dataset": "digits", "n_epochs": 3, "n_pinv_init_samples": 100,
}  # fmt: skip
SUMMARY = (
    "Front model: a.pt \nEnd model: b.pt \nFront layer: layer1.0 \nEnd layer: layer2.0 \nClean accuracy: 0.7500 \n"
    "Normalized PINV difference: 0.0000\nNormalized representation difference: 0.2500\n"
)


def run(folder, *, metrics=None, **options):
    folder.mkdir()
    (folder / "config.txt").write_text(json.dumps(OPTIONS | options))
    (folder / "summary.txt").write_text(SUMMARY)
    if metrics is not None:
        (folder / "metrics.json").write_text(json.dumps(metrics))
    return read_run(folder)


def row(**values) -> Row:
    return Row.of(OPTIONS | {"accuracy": 0.5, "folder": "f"} | values)


def test_the_columns_of_before_come_first_and_the_new_ones_name_the_experiment():
    assert Row._fields[:13] == COLUMNS_OF_BEFORE
    assert set(OPTIONS) | {"objective"} <= set(Row._fields)


def test_rows_are_read_as_they_were_written(tmp_path):
    rows = [
        row(accuracy=1 / 3, front_stitch_rank=8, matching_error=0.1, init="pinv", kappa=-0.25),
        row(objective="fula", end_layer="layer3.0", front_model_path="m, n/a.pt"),
    ]
    write_grid(tmp_path / "grid.csv", rows)
    found = grid_rows(tmp_path)
    assert [str(one) for one in found] == [str(one) for one in rows]  # NaN differs from itself
    assert found[0].front_stitch_rank == 8 and found[1].front_stitch_rank is None and math.isnan(found[1].kappa)


def test_tables_of_before_are_read(tmp_path):
    line = "layer1.0,layer2.0,rc2c_pre,rand,,,0,0.5,nan,nan,0.0,0.2,t1\n"
    (tmp_path / "grid.csv").write_text(",".join(COLUMNS_OF_BEFORE) + "\n" + line)
    (found,) = grid_rows(tmp_path)
    assert found.accuracy == 0.5 and found.objective == "task" and found.dataset is None


def test_old_runs_matched_nothing_where_nothing_is_matched(tmp_path):
    """They say 0, the public code's in summary.txt and those of earlier versions in metrics.json as well."""
    old = {"accuracy": 0.75, "front_accuracy": 0.9, "end_accuracy": 0.8, "matching_error": 0.0,
           "representation_difference": 0.25}  # fmt: skip
    assert run(tmp_path / "a").row.matching_error is None
    assert run(tmp_path / "b", metrics=old).row.matching_error is None
    matched = run(tmp_path / "c", metrics=old | {"matching_error": 0.125}, init="pinv").row
    assert matched.matching_error == 0.125 and matched.end_accuracy == 0.8 and math.isnan(matched.agreement)
    write_grid(tmp_path / "grid.csv", [run(tmp_path / "d").row])
    assert ",,0.25," in (tmp_path / "grid.csv").read_text()


@pytest.mark.parametrize(
    "damage", [{"seed": 0.5}, {"seed": "x"}, {"init": 3}, {"front_layer": "a\nb"}, {"dataset": []}]
)
def test_damaged_runs_are_refused(tmp_path, damage):
    with pytest.raises(UserError, match=f"no folder of a stitching run \\({next(iter(damage))} missing or damaged"):
        run(tmp_path / "a", **damage)


def test_experiments_are_told_apart_by_what_differs():
    same = [row(), row(end_layer="layer3.0"), row(folder="g")]
    assert by_experiment(same) == {"": same}
    rows = [row(), row(init="pinv", n_epochs=0), row(objective="soft"), row(), row(seed=1)]
    assert {title: len(group) for title, group in by_experiment(rows).items()} == {
        "init=rand, objective=task, n_epochs=3, seed=0": 2,
        "init=pinv, objective=task, n_epochs=0, seed=0": 1,
        "init=rand, objective=soft, n_epochs=3, seed=0": 1,
        "init=rand, objective=task, n_epochs=3, seed=1": 1,
    }


def test_two_directions_of_the_same_networks_are_not_mixed(tmp_path):
    back = {"front_model_path": "b.pt", "end_model_path": "a.pt"}
    groups = by_experiment([row(accuracy=0.1), row(accuracy=0.9, **back)])
    assert [title for title in groups] == [
        "front_model_path=a.pt, end_model_path=b.pt", "front_model_path=b.pt, end_model_path=a.pt",
    ]  # fmt: skip


def test_the_caption_names_what_all_rows_share():
    assert describe([row(n_images=360), row(end_layer="layer3.0", seed=1, n_images=360)]) == (
        "Networks: a.pt (resnet18) → b.pt (resnet18). Data: digits. "
        "Method: task loss matching (rc2c_pre, 3 epochs, init rand). Images: 360."
    )
    back = row(front_model_path="b.pt", end_model_path="a.pt", init="pinv", n_epochs=0)
    assert describe([row(), back]) == "Networks: resnet18 → resnet18. Data: digits."
    assert describe([back]).endswith("Method: direct matching (rc2c_pre, matched on 100 images).")
    soft = row(objective="soft", init="pinv")
    assert describe([soft]).endswith("soft matching (rc2c_pre, 3 epochs, init pinv, matched on 100 images).")
    old = row(front_model_path=None, front_model_type=None, end_model_type=None, dataset=None, n_epochs=None)
    assert describe([old]) == "Method: task loss matching (rc2c_pre, init rand)."


def test_the_grid_has_a_panel_for_each_experiment_all_of_one_scale(tmp_path, drawn_figures):
    rows = [row(accuracy=0.5), row(accuracy=0.9, init="pinv", n_epochs=0), row(end_layer="layer3.0")]
    write_grid(tmp_path / "grid.csv", rows, figure=".pdf", title="Digits")
    ((path, figure),) = drawn_figures.items()
    panels = [axes for axes in figure.axes if axes.images]
    assert path == "grid.pdf" and figure.get_suptitle() == "Digits"
    assert [axes.get_title().split("\n")[0] for axes in panels] == ["init=rand", "init=pinv"]
    assert [axes.images[0].get_clim() for axes in panels] == [(0, 1)] * 2
    assert "Data: digits" in figure.texts[-1].get_text()
    assert panels[0].images[0].get_array().filled(-1).tolist() == [[0.5, 0.5]]
    assert panels[1].images[0].get_array().filled(-1).tolist() == [[0.9, -1]]


def matched(accuracy: float, **values) -> Row:
    return row(accuracy=accuracy, init="pinv", n_epochs=0, **values)


def test_two_experiments_are_compared_by_the_second_less_the_first(tmp_path, drawn_figures):
    first = [matched(0.5), matched(0.75, end_layer="layer3.0"), matched(1.0, end_layer="layer4.0")]
    second = [row(accuracy=0.75), row(accuracy=0.5, end_layer="layer3.0")]
    Comparison(["dm", "tlm"], [first, second]).write(tmp_path / "c.csv", figure=".png")
    assert (tmp_path / "c.csv").read_text() == (
        "front_layer,end_layer,accuracy_1,accuracy_2,difference\nlayer1.0,layer2.0,0.5,0.75,0.25\n"
        "layer1.0,layer3.0,0.75,0.5,-0.25\nlayer1.0,layer4.0,1.0,nan,nan\n"
    )
    figure = drawn_figures["c.png"]
    panels = {axes.get_title(): axes.images[0] for axes in figure.axes if axes.images}
    assert list(panels) == [
        "direct matching", "task loss matching", "task loss matching − direct matching",
    ]  # fmt: skip
    assert [image.get_clim() for image in panels.values()] == [(0, 1), (0, 1), (-0.25, 0.25)]
    assert [image.get_cmap().name for image in panels.values()] == ["viridis", "viridis", "RdBu_r"]
    caption = figure.texts[0].get_text().replace("\n", " ")
    assert "direct matching (rc2c_pre, matched on 100 images); task loss matching (" in caption


def test_methods_of_one_name_are_told_apart_by_their_folders():
    assert list(Comparison(["a", "b"], [[row()], [row(n_epochs=9)]]).panels) == ["a", "b", "b − a"]


def test_a_folder_of_several_experiments_has_no_one_matrix():
    with pytest.raises(UserError, match=r"^b holds 2 experiments \(seed=0; seed=1\); to compare two folders, give"):
        Comparison(["a", "b"], [[row()], [row(), row(seed=1)]])
    with pytest.raises(UserError, match="^a is given twice"):
        Comparison(["a", "a"], [[row()], [row()]])


@pytest.mark.parametrize("seed", range(5))
def test_agreement_is_scikit_learns_kappa(seed):
    generator = torch.Generator().manual_seed(seed)
    one, noise = (torch.randint(4, (200,), generator=generator) for _ in "12")
    other = torch.where(torch.rand(200, generator=generator) < 0.2 * seed, noise, one + 1 * (one == 2))
    found = agreement(one, other)
    assert found.agreement == (one == other).double().mean().item()
    assert found.kappa == pytest.approx(cohen_kappa_score(one, other))


def test_kappa_at_its_limits():
    one = torch.tensor([0, 1, 2, 0])
    assert agreement(one, one) == (1, 1)
    assert agreement(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])).kappa == 0  # as by chance
    assert math.isnan(agreement(0 * one, 0 * one).kappa) and agreement(0 * one, 0 * one).agreement == 1


@pytest.mark.parametrize(("n_classes", "dtype"), [(10, np.int16), (40_000, np.int32)])
def test_predictions_are_kept_in_few_bytes(tmp_path, n_classes, dtype):
    pair, classes = Pair("a", "b"), torch.arange(n_classes)
    score = GridScore({pair: PairScore(1.0, 0.5, classes)}, 0.5, 0.5, classes.flip(0), 0 * classes, classes)
    write_predictions(tmp_path / "predictions.npz", score, pair)
    with np.load(tmp_path / "predictions.npz") as arrays:
        found = dict(arrays)
    assert {name: values.dtype for name, values in found.items()} == dict.fromkeys(found, dtype)
    assert list(found) == ["stitched", "front", "end", "labels"]
    np.testing.assert_array_equal(found["front"], classes.flip(0))
