"""The control of a front network, the class beside an untrained network: what it is made of, how it
is stitched and rebuilt, and how the verdict compares stitches with it."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from src.checkpoints import load_control, load_model, load_state
from src.errors import UserError
from src.models import Network, build_model
from src.models.control import ClassControl, set_statistics, with_class
from src.network_names import NetworkName
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
    stitch,
)
from tests.conftest import few_images
from tests.written_runs import runs_of, write_run

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
    with pytest.raises(ValueError, match="front network"):
        control(found["conv"], after="conv")


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


def test_a_folder_of_stitches_and_controls_is_not_evaluated(stitched, digit_networks, monkeypatch):
    monkeypatch.chdir(stitched)
    for options in ([], ["--class-control"]):
        words = ["layer2.0", "layer3.0", *EXACT, "-dir", "mixed"]
        stitch(*words, *options, networks=digit_networks)
    line = error_line("exec_eval_stitcher_ood.py", "results/mixed", *ON_DIGITS)
    assert "the runs differ in class_control: False, True" in line

    # `--resume` finds the run of each kind
    words = ["layer2.0", "layer3.0", *EXACT, "-dir", "mixed", "--resume"]
    stitch(*words, "--class-control", networks=digit_networks)
    assert len(list(Path("results/mixed").glob("2*"))) == 2


def test_other_data_have_no_control(stitched, monkeypatch):
    monkeypatch.chdir(stitched)
    words = ["results/control", "-d", "mnist5k", "-gpu", "-1", "--other-data"]
    line = error_line("exec_eval_stitcher_ood.py", *words, "--detector", "mahalanobis")
    assert "made with the training images of their data" in line


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


def test_rows_of_earlier_versions_are_no_controls(tmp_path):
    write_run(tmp_path, "1", n_right=945)
    (found,) = runs_of(tmp_path)
    assert found.row.class_control is False
    control = dataclasses.replace(found.row, class_control=True)
    assert control.key != found.row.key and control.method == found.row.method
