"""Inputs that are no images, tokens and vectors: data sets give them unchanged, and judge and scripts
take them as they take images."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from src.core.activations import TokenLayout
from src.core.errors import UserError
from src.core.inputs import InputSpec
from src.core.user_code import load
from src.datasets import dataset_info, load_dataset
from src.datasets.base import PlainInputs
from src.judge import judge
from src.models import Network, build_model, inputs_of
from src.models.determinism import nondeterminism_of
from src.results.checkpoints import warn_of_other_images
from tests.commands import read_csv, run, says, stitch_rows
from tests.tiny_datasets import collect

READERS = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))

    def forward(self, tokens):
        tokens = tokens + self.attention(tokens, tokens, tokens)[0]
        return tokens + self.mlp(tokens)

class Reader(nn.Module):
    '''Classifies tokens by a transformer, behind a CLS token.'''

    def __init__(self, n_classes):
        super().__init__()
        self.embedding = nn.Embedding(5, 16)
        self.places = nn.Parameter(torch.randn(10, 16))
        self.cls = nn.Parameter(torch.randn(16))
        self.blocks = nn.Sequential(Block(), Block())
        self.head = nn.Linear(16, n_classes)

    def embed(self, x):
        assert x.dtype == torch.int64
        return self.embedding(x)

    def tokens(self, x):
        tokens = torch.cat([self.cls.expand(len(x), 1, -1), self.embed(x)], 1)
        return self.blocks(tokens + self.places[:tokens.shape[1]])

    def forward(self, x):
        return self.head(self.tokens(x)[:, 0])

class AtEachPlace(Reader):
    def forward(self, x):
        return self.head(self.tokens(x))

class Steps(Reader):
    def embed(self, x):
        return self.embedding(torch.zeros(x.shape, dtype=torch.int64)) * x[..., None]

class Drawn(Reader):
    def forward(self, x):
        return super().forward(x) + torch.randn(3)

class OfBatch(Reader):
    def forward(self, x):
        logits = super().forward(x)
        return (logits - logits.mean(0)) / logits.std(0)

def reader(n_classes):
    return Reader(n_classes)

def at_each_place(n_classes):
    return AtEachPlace(n_classes)
"""
ON_TOKENS = ["-d", "tokens.npz", "-gpu", "-1"]
READER = "readers.py:reader"
N_TEST = 240


def write_npz(path: Path, **changes) -> dict[str, np.ndarray]:
    """Write rows of 6 tokens, whose class is how often 3 occurs; return the arrays."""
    draws = np.random.default_rng(0)
    arrays = {}
    for split, n in (("train", 400), ("test", N_TEST)):
        tokens = draws.integers(0, 5, (n, 6))
        arrays |= {f"x_{split}": tokens, f"y_{split}": (tokens == 3).sum(1).clip(max=2)}
    arrays |= changes
    np.savez(path, **arrays)
    return arrays


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the tokens, and two networks that the script trained on them."""
    path = tmp_path_factory.mktemp("readers")
    write_npz(path / "tokens.npz")
    (path / "readers.py").write_text(READERS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        for seed in "ab":
            number = str("ab".index(seed))
            options = ["-e", "3", "-b", "32", "-lr", "0.005", "-s", number, "-dir", seed]
            run("exec_train.py", READER, *ON_TOKENS, *options)
    return path


@pytest.fixture
def in_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return folder


# Data sets


@pytest.mark.parametrize(
    ("dtype", "given"),
    [("uint8", torch.int64), ("int16", torch.int64), ("int64", torch.int64)]
    + [("float16", torch.float32), ("float64", torch.float32)],
)
def test_integer_froms_are_tokens_and_other_numbers_are_vectors(dtype, given, tmp_path):
    x = np.random.default_rng(0).integers(0, 100, (20, 7)).astype(dtype)
    y = np.arange(20) % 4
    np.savez(tmp_path / "own.npz", x_train=x, y_train=y, x_test=x[:9], y_test=y[:9])
    spec = dataset_info(str(tmp_path / "own.npz")).spec
    assert (spec.n_classes, spec.shape, spec.normalisation) == (4, (7,), None)
    assert torch.tensor(spec.inputs).dtype == given and len(set(spec.inputs)) == 3
    for train in (True, False):
        dataset = load_dataset(str(tmp_path / "own.npz"), "", train=train)
        assert dataset.spec == spec
        inputs, labels = collect(dataset.batches(4))
        assert inputs.dtype == given and np.array_equal(inputs, x[: len(dataset)])
        assert np.array_equal(labels, y[: len(dataset)])
        inputs, labels = collect(dataset.epoch(4, seed=0, epoch=1))
        assert sorted(inputs.tolist()) == sorted(x[: len(dataset)].tolist())


def test_tokens_keep_their_type_beside_networks_of_any_type():
    like = torch.empty(0, dtype=torch.bfloat16)
    for inputs, expected in (
        (torch.ones(3, 2).long(), torch.int64),
        (torch.ones(3, 2), like.dtype),
    ):
        (batch, _), *_ = PlainInputs(inputs).copied(like=like).batches(2)
        assert batch.dtype == expected


def test_names_are_labels_in_the_order_of_words_or_of_the_file(tmp_path):
    names = np.array(["10", "2", "ant", "Bee"])
    arrays = write_npz(tmp_path / "a.npz")
    labels = {f"y_{split}": names[arrays[f"y_{split}"] + 1] for split in ("train", "test")}
    cases = (
        (("2", "Bee", "ant"), {}),
        (("Bee", "2", "10", "ant"), {"classes": np.array(["Bee", "2", "10", "ant"])}),
    )
    for classes, order in cases:
        write_npz(tmp_path / "a.npz", **labels, **order)
        dataset = load_dataset(str(tmp_path / "a.npz"), "", train=True)
        assert dataset.classes == classes and dataset.n_classes == len(classes)
        assert [classes[label] for label in dataset.labels] == labels["y_train"].tolist()
    write_npz(tmp_path / "a.npz", **labels, classes=np.array(["ant", "2"]))
    with pytest.raises(UserError, match="y_train has 'Bee', which is not in the array classes"):
        dataset_info(str(tmp_path / "a.npz"))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"x_test": np.ones((N_TEST, 5), int)}, "unequal shapes"),
        ({"x_test": np.ones((N_TEST, 6))}, "x_train is int64, and x_test float64"),
        ({"x_train": np.full((400, 6), np.nan), "x_test": np.ones((N_TEST, 6))}, "not finite"),
        ({"x_train": np.ones((400, 6), bool)}, "expected uint8"),
        ({"mean": 0.5, "std": 0.5}, "mean and std apply to images"),
        ({"classes": np.array(["a", "b"])}, "label 2, and there are 2 classes"),
    ],
    ids=str,
)
def test_what_such_a_file_must_not_be(changes, reason, tmp_path):
    write_npz(tmp_path / "own.npz", **changes)
    with pytest.raises(UserError, match=rf"own\.npz.*{reason}"):
        load_dataset(str(tmp_path / "own.npz"), "", train=True)


def test_interventions_on_images_are_refused_and_labels_change(tmp_path):
    write_npz(tmp_path / "own.npz")

    def labels_of(**strengths):
        options = {"train": True, "interventions": strengths}
        return load_dataset(str(tmp_path / "own.npz"), "", **options).labels

    with pytest.raises(UserError, match="--shortcut changes images"):
        labels_of(shortcut=0.5)
    assert not torch.equal(labels_of(label_noise=1.0), labels_of())


# Networks


def tokens(n: int, length: int = 6, seed: int = 1) -> torch.Tensor:
    return torch.randint(5, (n, length), generator=torch.Generator().manual_seed(seed))


def view_of(kind: str = "Reader", inputs=None) -> Network:
    """A reader, as a network of tokens that its inputs tell about."""
    torch.manual_seed(0)
    module = load(f"readers.py:{kind}", remedy="")(3).eval().requires_grad_(False)
    return Network(module, inputs=tokens(3) if inputs is None else inputs, n_classes=3)


@pytest.mark.parametrize("length", [6, 4])
def test_a_pass_behind_a_layer_of_tokens_is_the_hooks(length, in_folder):
    view, (front, end) = view_of(), tokens(10, length).split(5)
    activation = view(front, until="blocks.0")
    with view.get_submodule("blocks.0").register_forward_hook(lambda *_: activation):
        expected = view.module(end)
    torch.testing.assert_close(view(activation, after="blocks.0"), expected, rtol=0, atol=0)
    torch.testing.assert_close(view.module(front), expected, rtol=0, atol=0)


def test_layers_of_tokens_are_found(in_folder):
    view = view_of()
    assert view.block_names == ("blocks.0", "blocks.1") and view.output_shape == (3,)
    assert "blocks.0.mlp" not in view.cut_names  # the sum leads around it
    assert view.shapes()["embedding"] == (6, 16)
    assert view.activation_shapes(["blocks.0"], (4,)) == {"blocks.0": (5, 16)}
    view.module.n_prefix_tokens = 1
    assert view.token_layout("blocks.0") == TokenLayout(1, None, True)
    assert view.token_layout("embedding") == TokenLayout()
    floats = view_of("Steps", torch.rand(3, 6))
    assert floats.token_layout("blocks.0") == TokenLayout(1, None, True)
    with pytest.raises(UserError, match="inputs: 2"):
        view_of(inputs=tokens(2))


@pytest.mark.parametrize(
    ("kind", "found"), [("Reader", ""), ("Drawn", "random"), ("OfBatch", "batch")]
)
def test_nondeterministic_networks_of_tokens_are_found(kind, found, in_folder):
    data = InputSpec(3, (6,), inputs=tuple(map(tuple, tokens(3).tolist())))
    assert nondeterminism_of(view_of(kind, inputs_of(data)), data) == found


@pytest.mark.parametrize("name", ["small_cnn", "tv_resnet18"])
def test_networks_of_the_zoo_take_images_alone(name):
    with pytest.raises(UserError, match=rf"{name} takes images, and the inputs are 6 numbers"):
        build_model(name, n_classes=3, n_channels=6, image_shape=(6,))


def test_logits_of_several_positions_are_refused(in_folder):
    err = run("exec_train.py", "readers.py:at_each_place", *ON_TOKENS, "-dir", "x", status=2).err
    assert says(err, "gives 7×3", "to select a position", "wrap the module")
    network = load("readers.py:at_each_place", remedy="")(3).eval()
    batches = [(torch.zeros(4, 6).long(), torch.arange(4) % 3)] * 3
    with pytest.raises(UserError, match="the end network gives 7×3 .*wrap the module"):
        judge(network, network, batches, batches)


# Scripts, and the call from Python


def test_judge_takes_tokens_as_the_scripts_do(in_folder):
    """Accuracies up to one input, whose logits may be nearly equal."""
    pair = ["a/model_3.pt", "b/model_3.pt", READER, READER, "blocks.1", "blocks.1"]
    run("exec_stitch.py", *pair, "auto", *ON_TOKENS, "-e", 0, "-i", "pinv", "-dir", "judged")
    networks = []
    for name in "ab":
        network = load(READER, remedy="")(3)
        network.load_state_dict(torch.load(f"{name}/model_3.pt"))
        networks.append(network.eval())
    arrays, batches = np.load("tokens.npz"), []
    for split in ("train", "test"):
        parts = [torch.from_numpy(arrays[f"{key}_{split}"]).split(64) for key in "xy"]
        batches.append(list(zip(*parts, strict=True)))
    (row,) = judge(*networks, *batches, layers="blocks.1", forms="pinv")
    (line,) = stitch_rows("results/judged")
    for name in ("accuracy", "end_accuracy", "r2_test"):
        assert getattr(row, name) == pytest.approx(float(line[name]), abs=1.5 / N_TEST)
    assert row.skill <= 1


def test_further_scripts_take_tokens(in_folder):
    network = ["a/model_3.pt", READER]
    accuracy = run("exec_eval.py", *network, *ON_TOKENS).out.split()[-1]
    assert accuracy == f"{float(read_csv('a/training_logs.csv')[-1]['val_acc']):.2%}"
    assert says(run("misc/list_layers.py", READER, "-d", "tokens.npz").out, "blocks.0", "7×16")
    run("exec_probe.py", *network, "-l", "all", *ON_TOKENS, "-e", "1", "-o", "probes.csv")
    assert len(read_csv("probes.csv")) == 2
    run("misc/save_features.py", *network, "all", *ON_TOKENS, "-n", "50", "-o", "saved.npz")
    assert np.load("saved.npz")["blocks.1"].shape == (50, 7, 16)
    pair = ["a/model_3.pt", "b/model_3.pt", READER, READER, "all", "all"]
    trained = ["auto", *ON_TOKENS, "-e", "1", "--mod-only-stitch", "--amp", "bf16", "-dir", "s"]
    run("exec_stitch.py", *pair, *trained)
    assert len(stitch_rows("results/s")) == 4


def test_vectors_are_no_images_in_a_warning(tmp_path, capsys):
    trained = InputSpec(10, (64,)).record()
    (tmp_path / "config.txt").write_text(json.dumps({"dataset": "digits", "image_spec": trained}))
    (tmp_path / "m.pt").touch()
    warn_of_other_images(str(tmp_path / "m.pt"), InputSpec(10, (10,)))
    assert says(capsys.readouterr().err, "inputs of 64", "inputs of 10")
