"""Inputs that are no images, tokens and vectors: data sets give them unchanged, and judge and scripts
take them as they take images."""

from pathlib import Path

import numpy as np
import pytest
import torch

from src.choices.stitching import Method
from src.datasets import dataset_info, load_dataset
from src.datasets.base import CastImages
from src.datasets.inputs import InputSet
from src.ground.errors import UserError
from src.ground.user_code import load
from src.judge import judge
from src.models import build_model
from tests.commands import read_csv, run, says, stitch_rows
from tests.tiny_datasets import collect

READERS = """
import torch
from torch import nn

class Reader(nn.Module):
    '''Classifies 6 tokens by a transformer, behind a CLS token.'''

    def __init__(self, n_classes):
        super().__init__()
        self.embedding = nn.Embedding(5, 16)
        self.places = nn.Parameter(torch.randn(7, 16))
        self.cls = nn.Parameter(torch.randn(16))
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(16, n_classes)

    def tokens(self, x):
        embedded = self.embedding(x)
        cls = self.cls.expand(len(x), 1, -1)
        return self.encoder(torch.cat([cls, embedded], 1) + self.places)

    def forward(self, x):
        return self.head(self.tokens(x)[:, 0])

class AtEachPlace(Reader):
    def forward(self, x):
        return self.head(self.tokens(x))

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
            options = ["-e", "8", "-b", "32", "-lr", "0.005", "-s", number, "-dir", seed]
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
def test_whole_numbers_are_tokens_and_other_numbers_are_vectors(dtype, given, tmp_path):
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
        (batch, _), *_ = CastImages(InputSet(inputs), like).batches(2)
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
        ({"x_test": np.ones((N_TEST, 5), int)}, "of unequal shapes"),
        ({"x_test": np.ones((N_TEST, 6))}, "x_train is int64, and x_test float64"),
        ({"x_train": np.full((400, 6), np.nan), "x_test": np.ones((N_TEST, 6))}, "not finite"),
        ({"x_train": np.ones((400, 6), bool)}, "expected uint8"),
        ({"mean": 0.5, "std": 0.5}, "mean and std are of images"),
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
    own = str(tmp_path / "own.npz")
    with pytest.raises(UserError, match="--image-noise changes images"):
        load_dataset(own, "", train=True, interventions={"image_noise": 0.5})
    noisy = load_dataset(own, "", train=True, interventions={"label_noise": 1.0})
    plain = load_dataset(own, "", train=True)
    assert not torch.equal(noisy.labels, plain.labels)
    assert noisy.fingerprint != plain.fingerprint


# Networks


@pytest.mark.parametrize("name", ["small_cnn", "vit_tiny_patch4_32", "tv_resnet18"])
def test_networks_of_the_zoo_take_images_alone(name):
    with pytest.raises(UserError, match=rf"{name} takes images, and the inputs are 6 numbers"):
        build_model(name, n_classes=3, n_channels=6, image_shape=(6,))


def test_logits_of_several_positions_are_refused(in_folder):
    err = run("exec_train.py", "readers.py:at_each_place", *ON_TOKENS, "-dir", "x", status=2).err
    assert says(err, "gives 7×3", "choose one of the positions", "wrap the module")
    network = load("readers.py:at_each_place", remedy="")(3).eval()
    batches = [(torch.zeros(4, 6).long(), torch.arange(4) % 3)] * 3
    with pytest.raises(UserError, match="the end network gives 7×3 .*wrap the module"):
        judge(network, network, batches, batches)


# Scripts, and the call from Python


def test_judge_equals_the_scripts(in_folder):
    """Accuracies up to one input, whose logits may be nearly equal."""
    lines = [f"{name},{name}/model_8.pt,{READER}" for name in "ab"]
    Path("list.csv").write_text("\n".join(["name,path,type", *lines]) + "\n")
    own = ["--own-types", READER, *ON_TOKENS, "--ends", "b", "--no-similarity", "--no-verdict"]
    run("misc/all_pairs.py", "list.csv", "-dir", "all", *own, "--methods", "pinv", "covariance")
    run("misc/verdict.py", "results/all", "--networks", "list.csv", "-o", "verdict.csv")
    networks = []
    for name in "ab":
        network = load(READER, remedy="")(3)
        network.load_state_dict(torch.load(f"{name}/model_8.pt"))
        networks.append(network.eval())
    arrays, batches = np.load("tokens.npz"), []
    for split in ("train", "test"):
        parts = [torch.from_numpy(arrays[f"{key}_{split}"]).split(64) for key in "xy"]
        batches.append(list(zip(*parts, strict=True)))
    judged = judge(*networks, *batches, forms=["pinv", "covariance"])
    rows = {(Method.of(row.form).words, *row.pair): row for row in judged}
    written = read_csv("verdict.csv")
    assert len(rows) == len(written) == 8
    for line in written:
        row = rows[line["method"], line["front_layer"], line["end_layer"]]
        assert row.verdict == line["verdict"]
        assert row.accuracy == pytest.approx(float(line["accuracy"]), abs=1.5 / N_TEST)
        for name in ("skill", "skill_at_end", "floor"):
            assert getattr(row, name) == pytest.approx(float(line[name]), abs=1e-2)


def test_further_scripts_take_tokens(in_folder):
    network = ["a/model_8.pt", READER]
    accuracy = run("exec_eval.py", *network, *ON_TOKENS).out.split()[-1]
    assert accuracy == f"{float(read_csv('a/training_logs.csv')[-1]['val_acc']):.2%}"
    assert says(run("misc/list_layers.py", READER, "-d", "tokens.npz").out, "layers.0", "7×16")
    run("exec_probe.py", *network, "-l", "all", *ON_TOKENS, "-e", "1", "-o", "probes.csv")
    assert len(read_csv("probes.csv")) == 2
    run("misc/save_features.py", *network, "all", *ON_TOKENS, "-n", "50", "-o", "saved.npz")
    assert np.load("saved.npz")["encoder.layers.1"].shape == (50, 7, 16)
    pair = ["a/model_8.pt", "b/model_8.pt", READER, READER, "all", "all"]
    trained = ["auto", *ON_TOKENS, "-e", "1", "--mod-only-stitch", "--amp", "bf16", "-dir", "s"]
    run("exec_stitch.py", *pair, *trained)
    assert len(stitch_rows("results/s")) == 4
