"""The control of a front network, the class beside an untrained network: what it is made of, how it
is stitched and rebuilt, and how the verdict compares stitches with it."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from src.collected import sections
from src.collected.between_groups import values_of_verdicts
from src.collected.grid_matrices import mean_matrices
from src.collected.measurements import layer_values, measurement_rows
from src.collected.named_networks import named_networks
from src.collected.verdicts import judge_runs
from src.ground.errors import UserError
from src.ground.files import write_text
from src.models import Network, activations_of_both, build_model
from src.models.control import ClassControl, set_statistics, with_class
from src.reports import verdict_report
from src.runs.checkpoints import load_control, load_model, load_state
from src.statistics.significance import mcnemar_p
from src.tables.evaluation_rows import way_file
from src.tables.network_names import NetworkName
from src.verdict import Limits
from tests.commands import (
    MODEL,
    ON_DIGITS,
    digit_images,
    digit_network,
    error_line,
    read_csv,
    read_json,
    read_metrics,
    run,
    says,
    stitch,
)
from tests.conftest import few_images
from tests.written_runs import runs_of, write_evaluation, write_run

N_TRAINING = 256
EXACT = [*ON_DIGITS, "--mod-only-stitch", "-i", "covariance", "-e", "0", "-pinv-samples", "256"]


@pytest.fixture(scope="module", autouse=True)
def few():
    """Scripts take few images."""
    with few_images(N_TRAINING, n_test=120):
        yield


# What the control is made of


@pytest.mark.parametrize(("shape", "axis"), [((3, 4, 4), 1), ((5, 7), 2), ((6,), 1)])
def test_the_class_is_beside_the_activations_at_all_positions(shape, axis):
    activations = {"layer": torch.rand(4, *shape)}
    logits = torch.eye(4)[[2, 0, 3, 3]]
    widened = with_class(activations, logits)["layer"]
    own, classes = widened.split([activations["layer"].shape[axis], 4], axis)
    assert torch.equal(own, activations["layer"])
    of_positions = classes.movedim(axis, -1).reshape(4, -1, 4)
    assert (of_positions == logits[:, None]).all()


class Net(nn.Module):
    """Has BatchNorms and dropout."""

    def __init__(self, shift: float = 0.0):
        super().__init__()
        self.norm = nn.BatchNorm2d(2)
        self.conv = nn.Conv2d(2, 3, 3, padding=1)
        self.second = nn.BatchNorm2d(3)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(3, 4)
        self.shift = shift

    def forward(self, images):
        positions = self.dropout(self.second(self.conv(self.norm(images))))
        return self.head(positions.mean((2, 3))) + self.shift * torch.arange(4)


def test_statistics_are_those_of_a_batch():
    net = Net()
    images = 3 + 2 * torch.randn(40, 2, 5, 5)
    set_statistics(net, images)
    assert torch.allclose(net.norm.running_mean, images.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(net.norm.running_var, images.transpose(0, 1).flatten(1).var(1), rtol=1e-4)
    assert net.norm.momentum == 0.1 and not net.norm.training
    with torch.no_grad():
        second = net.second(net.conv(net.norm(images)))
    assert second.mean((0, 2, 3)).abs().max() < 1e-4
    assert (second.var((0, 2, 3)) - 1).abs().max() < 1e-2


def test_a_control_has_the_layers_of_the_untrained_network_and_the_answer_of_the_trained_one():
    torch.manual_seed(0)
    trained, untrained = (Network(Net(shift).eval(), n_classes=4) for shift in (0.01, 0.0))
    control = ClassControl(trained, untrained)
    images = torch.randn(6, 2, 5, 5)
    classes = trained(images).argmax(1)
    with torch.no_grad():
        found = control.activations(images, ["head", "conv", control.output_name])
        assert torch.equal(found[control.output_name], trained(images))
        assert torch.equal(control(images), trained(images))
        assert torch.equal(found["conv"][:, :3], untrained(images, until="conv"))
        assert torch.equal(found["conv"][:, 3:].argmax(1)[:, 2, 3], classes)
        assert torch.equal(found["head"][:, :4], untrained(images))
        assert torch.equal(found["head"][:, 4:].argmax(1), classes)
        part = control(images[2:4], until="conv")
    torch.testing.assert_close(part, found["conv"][2:4])
    assert [control.depth(name) for name in ("conv", "head")] == [1, 4]
    assert not control.is_encoder
    trained.unsteadiness = "random"
    assert ClassControl(trained, untrained).unsteadiness == "random"
    with pytest.raises(ValueError, match="front network"):
        control(found["conv"], after="conv")


def test_a_stitch_is_trained_and_evaluated_with_the_class():
    trained, untrained = (Network(Net(shift).eval(), n_classes=4) for shift in (0.01, 0.0))
    control = ClassControl(trained, untrained)
    images = torch.randn(6, 2, 5, 5)
    with torch.no_grad():
        expected = control.activations(images, ["conv"])["conv"]
        for keep in (False, True):
            found, _ = activations_of_both(control, ["conv"], trained, [], images, keep=keep)
            assert torch.equal(found["conv"], expected)


def test_a_control_switches_and_moves_both_networks():
    trained, untrained = (Network(Net(shift), n_classes=4) for shift in (0.01, 0.0))
    control = ClassControl(trained, untrained)
    assert all(module.training for module in control.modules())
    control.eval().to(torch.float64)
    for network in (trained, untrained):
        assert not any(module.training for module in network.modules())
        assert all(weights.dtype == torch.float64 for weights in network.parameters())


def test_channels_that_come_last_get_the_class_beside_them():
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = nn.Identity()
            self.head = nn.Linear(2, 4)

        def forward(self, images):
            return self.head(self.block(images.movedim(1, -1)).mean((1, 2)))

    views = [
        Network(Last(), n_classes=4).channels_first(["block"], image_shape=(2, 5, 5)) for _ in "ab"
    ]
    assert ClassControl(*views)(torch.rand(3, 2, 5, 5), until="block").shape == (3, 6, 5, 5)


def test_the_untrained_network_is_always_the_same(digit_networks):
    front = digit_network(digit_networks[0])
    train_set = digit_images(train=True)
    ((images, _),) = digit_images(train=False).batches(120)
    torch.manual_seed(3)
    first, second = (load_control(front, MODEL, train_set)(images, until="layer2.0") for _ in "ab")
    assert torch.equal(first, second)

    # Its weights are those of the seed 0, and its channels are normalised by its training images
    fresh = load_model(NetworkName("-", MODEL, seed=0), train_set.spec)
    ((of_training, _),) = train_set.batches(N_TRAINING)
    set_statistics(fresh.module, of_training)
    assert torch.equal(first[:, :64], fresh(images, until="layer2.0"))


def test_networks_without_a_control(digit_networks):
    train_set = digit_images(train=True)
    fresh = load_model(NetworkName("-", MODEL, seed=0), train_set.spec)
    with pytest.raises(UserError, match="has the weights of the front network"):
        load_control(fresh, MODEL, train_set)
    encoder = build_model(MODEL, n_classes=10, n_channels=1, image_shape=(1, 8, 8)).eval()
    encoder.n_classes = 11
    with pytest.raises(UserError, match="predicts no class"):
        load_control(encoder, MODEL, train_set)


# As a user stitches it


@pytest.fixture(scope="module")
def stitched(digit_networks, tmp_path_factory):
    """A folder with stitches, and with their controls, both evaluated."""
    folder = tmp_path_factory.mktemp("controls")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, options in {"plain": [], "control": ["--class-control"]}.items():
            layers = "layer2.0,layer3.0", "layer3.0,layer4.0"
            stitch(*layers, *EXACT, "-dir", name, *options, networks=digit_networks)
            evaluate(name)
    return folder


def evaluate(name: str) -> None:
    arguments = [f"results/{name}", *ON_DIGITS, "--detector", "mahalanobis", "-b", "50"]
    run("exec_eval_stitcher_ood.py", *arguments)


def test_stitches_from_a_control(stitched, digit_networks):
    plain, control = (
        {row["front_layer"] + row["end_layer"]: row for row in read_csv(stitched / path)}
        for path in ("results/plain/grid.csv", "results/control/grid.csv")
    )
    assert {row["class_control"] for row in plain.values()} == {"False"}
    for pair, row in control.items():
        assert row["class_control"] == "True"
        for column in ("front_accuracy", "end_accuracy", "front_depth", "front_weights"):
            assert row[column] == plain[pair][column]
        folder = stitched / "results" / "control" / row["folder"]
        assert load_state(folder / "final_model.pt")["transform.weight"].shape[1] == 64 + 10
        assert read_json(folder / "config.txt")["class_control"] is True


def test_the_evaluation_rebuilds_the_control(stitched):
    """The accuracies of the evaluation, in other batches, are those of the stitching."""
    rows = read_csv(stitched / "results/control/ood_evaluation_mahalanobis.csv")
    assert len(rows) == 4 and {row["class_control"] for row in rows} == {"True"}
    for row in rows:
        metrics = read_metrics(stitched / "results" / "control" / row["folder"])
        assert float(row["accuracy"]) == metrics["accuracy"]


def test_the_verdict_finds_the_control_of_each_stitch(stitched, monkeypatch):
    monkeypatch.chdir(stitched)
    both = ["results/plain", "results/control"]
    out = run("misc/verdict.py", *both, "-o", "both.csv", "--tolerance", "90").out
    run("misc/verdict.py", both[0], "-o", "alone.csv", "--tolerance", "90")
    rows = read_csv("both.csv")
    stitches = {(row["front_layer"], row["end_layer"]): row for row in rows if not row["control"]}
    controls = {(row["front_layer"], row["end_layer"]): row for row in rows if row["control"]}
    assert stitches.keys() == controls.keys() and len(stitches) == 4
    for pair, row in stitches.items():
        assert row["control_identification"] == controls[pair]["identification"]
        assert 0 < float(row["p_control"]) <= 1
        assert row["method"] == controls[pair]["method"] == "covariance matching"
        assert controls[pair]["control"] == "class"
        assert controls[pair]["p_control"] == controls[pair]["both_ways"] == ""
    assert says(out, "Control: of 4 stitches", "class", "untrained network")

    # Stitches are judged as they are without controls
    for row in read_csv("alone.csv"):
        same = stitches[row["front_layer"], row["end_layer"]]
        assert row.pop("control_identification") == row.pop("p_control") == ""
        assert {name: same[name] for name in row} == row


def test_a_folder_of_stitches_and_controls_is_not_evaluated(stitched, digit_networks, monkeypatch):
    monkeypatch.chdir(stitched)
    for options in ([], ["--class-control"]):
        words = ["layer2.0", "layer3.0", *EXACT, "-dir", "mixed"]
        stitch(*words, *options, networks=digit_networks)
    line = error_line("exec_eval_stitcher_ood.py", "results/mixed", *ON_DIGITS)
    assert says(line, "class_control: ", "False, True")

    # `--resume` finds the run of each kind
    words = ["layer2.0", "layer3.0", *EXACT, "-dir", "mixed", "--resume"]
    stitch(*words, "--class-control", networks=digit_networks)
    assert len(list(Path("results/mixed").glob("2*"))) == 2


def test_other_data_have_no_control(stitched, monkeypatch):
    monkeypatch.chdir(stitched)
    words = ["results/control", "-d", "mnist5k", "-gpu", "-1", "--other-data"]
    line = error_line("exec_eval_stitcher_ood.py", *words, "--detector", "mahalanobis")
    assert says(line, "control", "training images", "their data")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["layer2.0", "layer3.0", "rc2c_pre", "-e", "1"], "give --mod-only-stitch as well"),
        (["output", "layer3.0", "auto", "-e", "0"], "the layer output of the control"),
    ],
)
def test_controls_that_are_refused(words, text, digit_networks, in_tmp_path):
    arguments = [*digit_networks, MODEL, MODEL, *words, *ON_DIGITS, "--class-control"]
    assert text in error_line("exec_stitch.py", *arguments)


# The comparison


@pytest.mark.parametrize(("more", "fewer"), [(0, 0), (0, 4), (5, 0), (12, 3), (40, 41), (300, 2)])
def test_mcnemars_test(more, fewer):
    """Images on which both agree do not count."""
    first = np.array([1.0] * more + [0.0] * fewer + [1.0] * 50 + [0.5] * 7)
    second = np.array([0.0] * more + [1.0] * fewer + [1.0] * 50 + [0.5] * 7)
    expected = 1.0
    if more + fewer:
        expected = stats.binomtest(more, more + fewer, alternative="greater").pvalue
    assert mcnemar_p(first, second) == pytest.approx(expected)


def test_a_tie_tells_nothing():
    assert mcnemar_p([1, 1, 0.5], [0, 0, 0]) == mcnemar_p([1, 1], [0, 0]) == pytest.approx(0.25)
    assert mcnemar_p([0.5, 1, 0.5], [0, 1, 1]) == 1


LAYERS = ("y", "z", "output")
CONTROL = {"class_control": True}


def write_identified(folder: Path, of_run: dict[str, np.ndarray], *, first: int = 0) -> None:
    """The evaluation of runs, and the images (3, n) that they identify.

    Args:
        first: the index of the first identified image.
    """
    write_evaluation(folder, dict.fromkeys(of_run, 0.5))
    n_images = next(iter(of_run.values())).shape[1]
    images = np.arange(first, first + n_images)
    arrays = {f"2025-01-01_00-00-00.{name}": values for name, values in of_run.items()}
    path = way_file(folder).with_suffix(".npz")
    np.savez_compressed(path, images=images, foils=images[::-1], **arrays)


def drawn(rng, *shares: float, n: int = 400) -> np.ndarray:
    """Which images are identified at each layer, at random."""
    return np.array([rng.random(n) < share for share in shares]).astype(np.float16)


def compared(folder: Path, **options) -> list[tuple[float | None, float | None]]:
    """The two columns of each ordinary stitch."""
    runs = [*runs_of(folder / "plain"), *runs_of(folder / "control")]
    rows = [row for row in judge_runs(runs, **options) if row.control is None]
    return [(row.control_identification, row.p_control) for row in rows]


@pytest.mark.parametrize(
    ("of_control", "first"),
    [
        ({"front_layer": "w"}, 0),
        ({"front_model_path": "h.pt"}, 0),
        ({"init": "repair"}, 0),
        ({"n_pinv_init_samples": 7}, 0),
        ({"seed": 1}, 0),
        ({}, 5),
    ],
)
def test_a_control_is_of_the_same_networks_layers_method_and_images(
    tmp_path, rng, of_control, first, capsys
):
    """A control that identified other images is named; a stitch without a control is not."""
    write_run(tmp_path / "plain", "1", n_right=945)
    write_run(tmp_path / "control", "2", n_right=945, **CONTROL | of_control)
    write_identified(tmp_path / "plain", {"1": drawn(rng, 0.9, 0.9, 0.9)})
    write_identified(tmp_path / "control", {"2": drawn(rng, 0.6, 0.6, 0.6)}, first=first)
    assert compared(tmp_path) == [(None, None)]
    said = capsys.readouterr().err
    assert ("other images or foils" in said) == (first > 0)


def test_activations_that_are_not_finite_are_not_compared(tmp_path, rng, capsys):
    write_run(tmp_path / "plain", "1", n_right=945)
    write_run(tmp_path / "control", "2", n_right=945, **CONTROL)
    write_identified(tmp_path / "plain", {"1": drawn(rng, 0.9, 0.9, 0.9)})
    write_identified(tmp_path / "control", {"2": np.full((3, 400), math.nan)})
    assert compared(tmp_path) == [(None, None)]
    assert says(capsys.readouterr().err, "activations", "not finite")


def test_of_several_seeds_the_largest_p_value_counts(tmp_path, rng):
    """Where a seed has no control, nothing is compared."""
    shares = {"1": (0.9, 0.9, 0.9), "2": (0.9, 0.9, 0.64)}
    for name in shares:
        write_run(tmp_path / "plain", name, n_right=945, seed=int(name))
        write_run(tmp_path / "control", name, n_right=945, seed=int(name), **CONTROL)
    values = {name: drawn(rng, *of_name) for name, of_name in shares.items()}
    controls = {name: drawn(rng, 0.9, 0.9, 0.6) for name in shares}
    write_identified(tmp_path / "plain", values)
    write_identified(tmp_path / "control", controls)
    ((identification, p_value),) = compared(tmp_path)
    assert identification == pytest.approx(
        np.mean([control[2] for control in controls.values()], dtype=np.float64)
    )
    assert p_value == pytest.approx(3 * mcnemar_p(values["2"][2], controls["2"][2]))
    assert p_value > 3 * mcnemar_p(values["1"][2], controls["1"][2])
    write_identified(tmp_path / "control", {"1": controls["1"]})
    assert compared(tmp_path) == [(None, None)]


def test_controls_are_reported_apart(tmp_path, rng):
    """In a family, a section and a sentence of their own; groups of networks are without them."""
    for name, front in {"1": "f.pt", "2": "h.pt"}.items():
        write_run(tmp_path / "plain", name, n_right=945, front_model_path=front)
        control = {"front_model_path": front, **CONTROL}
        write_run(tmp_path / "control", name, n_right=900, **control)
    write_identified(tmp_path / "plain", dict.fromkeys("12", drawn(rng, 0.9, 0.9, 0.9)))
    write_identified(tmp_path / "control", dict.fromkeys("12", drawn(rng, 0.6, 0.6, 0.6)))
    runs = [*runs_of(tmp_path / "plain"), *runs_of(tmp_path / "control")]
    together = judge_runs(runs)
    alone = judge_runs(runs_of(tmp_path / "plain"))
    p_values = {row.networks: (row.p_below, row.p_above) for row in together}
    assert {row.networks: (row.p_below, row.p_above) for row in alone}.items() <= p_values.items()
    assert {row.control for row in together} == {None, "class"}
    of_methods = sections.sections_of(together)
    of_pairs, of_controls = (section.title for section in of_methods)
    assert says(of_pairs, "direct matching", "2 pairs of networks")
    assert says(of_controls, "direct matching", "2 pairs", "the class of a front", "untrained")
    names = named_networks([network for run in runs for network in run.row.networks], {})
    values = list(values_of_verdicts(together, names.values()))
    assert {value.front.network.name for value in values} == {"f.pt", "h.pt"}
    assert values == list(values_of_verdicts(alone, names.values()))
    text = "\n".join(verdict_report.sentences(together, of_methods, Limits()))
    assert says(text, "2 similar pairs", "control 2 identify more")
    assert text.count("with a control") == 1
    verdict_report.draw(tmp_path / "v.csv", sections.parts_of(of_methods), Limits())

    # Neither do tables of measurements compare them, nor means of accuracies mix them
    rows = list(measurement_rows(runs, [], names))
    assert {row.class_control for row in rows} == {False, True}
    assert {row.method for row in rows} == {"direct matching"}
    plain = [run for run in runs if not run.row.class_control]
    values = list(layer_values(runs, [], names))
    assert values and values == list(layer_values(plain, [], names))
    matrices = mean_matrices([run.row for run in runs])
    assert [matrix.values for matrix in matrices.values()] == [[[0.945]], [[0.9]]]


def test_controls_are_pooled_among_themselves(tmp_path, rng):
    for name in "12":
        paths = {"front_model_path": f"f{name}.pt", "end_model_path": f"g{name}.pt"}
        write_run(tmp_path / "plain", name, n_right=945, **paths)
        write_run(tmp_path / "control", name, n_right=945, **paths, **CONTROL)
    write_identified(tmp_path / "plain", dict.fromkeys("12", drawn(rng, 0.9, 0.9, 0.9)))
    write_identified(tmp_path / "control", dict.fromkeys("12", drawn(rng, 0.9, 0.9, 0.6)))
    ((identification, p_value),) = compared(tmp_path, pool=True)
    assert identification < 0.7 and p_value < 1e-6
    runs = [*runs_of(tmp_path / "plain"), *runs_of(tmp_path / "control")]
    pooled = {row.control: row for row in judge_runs(runs, pool=True)}
    assert {control: row.n_networks for control, row in pooled.items()} == {None: 2, "class": 2}
    assert pooled["class"].networks.startswith(pooled[None].networks)
    assert "control" in pooled["class"].networks


def test_a_damaged_file_of_identified_images_is_left_out(tmp_path, rng, capsys):
    write_run(tmp_path / "plain", "1", n_right=945)
    write_run(tmp_path / "control", "2", n_right=945, **CONTROL)
    write_identified(tmp_path / "plain", {"1": drawn(rng, 0.9, 0.9, 0.9)})
    write_identified(tmp_path / "control", {"2": drawn(rng, 0.9, 0.9, 0.9)})
    write_text(way_file(tmp_path / "control").with_suffix(".npz"), "nonsense")
    assert compared(tmp_path) == [(None, None)]
    said = capsys.readouterr().err
    assert says(said, "identification.npz", "damaged", "evaluate", "again")
    assert says(said, "not both", "identified images")


def test_rows_of_earlier_versions_are_no_controls(tmp_path):
    write_run(tmp_path, "1", n_right=945)
    (found,) = runs_of(tmp_path)
    assert found.row.class_control is False
    control = dataclasses.replace(found.row, class_control=True)
    assert control.key != found.row.key and control.method == found.row.method
