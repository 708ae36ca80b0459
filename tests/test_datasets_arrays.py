"""Data sets in arrays: the public files, a user's .npz, and vectors and tokens in place of images."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import datasets as tv

from src.core.activations import TokenLayout
from src.core.errors import UserError
from src.core.inputs import InputSpec, Normalisation
from src.core.user_code import load
from src.datasets import dataset_info, load_dataset
from src.datasets.augmentation import CropFlip
from src.datasets.base import ImageSet, PlainInputs
from src.datasets.mapped import MappedImages
from src.judge import judge
from src.models import Network, build_model, inputs_of
from src.models.determinism import nondeterminism_of
from src.results.checkpoints import warn_of_other_images
from tests.commands import read_csv, run, says, start_code, stitch_rows
from tests.tiny_datasets import (
    collect,
    random_images,
    write_cifar5m,
    write_cifar10,
    write_mnist,
    write_svhn,
)

SIZES = [5, 4, 3, 6, 2, 7]  # of the six parts of CIFAR-5M
SAVE = {"stored": np.savez, "compressed": np.savez_compressed}


def everything(dataset) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (N, H, W, C) and labels (N,) of all batches."""
    images, labels = collect(dataset.batches(4))
    assert labels.dtype == torch.int64
    return (images * 255).round().byte().permute(0, 2, 3, 1).numpy(), labels.numpy()


def test_images_on_disk_give_the_batches_of_images_in_memory(tmp_path):
    for i, n in enumerate((300, 1, 200)):
        np.save(tmp_path / f"{i}.npy", random_images(n, 32, 32, 3, seed=i))
    parts = [np.load(tmp_path / f"{i}.npy", mmap_mode="r") for i in range(3)]
    options = {"labels": torch.arange(501), "augmentation": CropFlip(4), "epoch_size": 400}
    in_memory = ImageSet(torch.from_numpy(np.concatenate(parts)).permute(0, 3, 1, 2), **options)
    on_disk = ImageSet(MappedImages(parts), **options)
    assert len(on_disk) == 501 and on_disk.image_shape == (3, 32, 32)
    some = torch.tensor([300, 500, 0, 0, 301])
    for go_through in (
        lambda dataset: dataset.epoch(350, seed=0, epoch=2),
        lambda dataset: dataset.batches(3, indices=some),
    ):
        assert all(map(torch.equal, *(collect(go_through(each)) for each in (in_memory, on_disk))))


def test_random_images_are_one_split_augmented_for_training_only(tmp_path):
    path, images = tmp_path / "oe" / "300K_random_images.npy", random_images(20, 32, 32, 3)
    path.parent.mkdir()
    np.save(path, images[..., :2])
    reason = r"uint8 \(20, 32, 32, 2\), expected uint8 \(N, 32, 32, 3\)"
    with pytest.raises(UserError, match=rf"cannot read {path}: .*{reason}"):
        load_dataset("outlier_exposure", tmp_path, train=True)
    np.save(path, images)
    for train, root in ((False, tmp_path), (True, tmp_path / "oe")):
        dataset = load_dataset("outlier_exposure", root, train=train)
        assert np.array_equal(everything(dataset)[0], images)
        assert (dataset.n_classes, dataset.image_shape) == (0, (3, 32, 32))
        assert (dataset.augmentation is None) == (not train)
        assert isinstance(dataset.images.parts[0], np.memmap)


# CIFAR-5M


@pytest.mark.parametrize("save", SAVE.values(), ids=SAVE)
def test_parts_are_mapped_in_place_or_unpacked_once_and_said(save, tmp_path, capsys):
    images, labels = write_cifar5m(tmp_path / "cifar5m", SIZES, save=save)
    said = []
    for root in (tmp_path, tmp_path / "cifar5m"):
        dataset = load_dataset("cifar5m", root, train=True)
        assert (len(dataset), dataset.n_classes, dataset.epoch_size, dataset.augmentation) == (
            27,
            10,
            50_000,
            None,
        )
        assert dataset.labels.dtype == torch.int8 and all(
            map(np.array_equal, everything(dataset), (images, labels))
        )
        said.append(capsys.readouterr().err.count(f"of {tmp_path}/cifar5m/cifar5m_part"))
    is_compressed = save is np.savez_compressed
    assert said == [6 * is_compressed, 0]
    assert all(isinstance(mapped, np.memmap) for mapped in dataset.images.parts)
    assert len(list((tmp_path / "cifar5m").iterdir())) == 6 + 6 * is_compressed

    images[0] ^= 1
    path = tmp_path / "cifar5m" / "cifar5m_part0.npz"
    save(path, X=images[:5], Y=labels[:5])  # another archive, even an older one
    os.utime(path, (0, 0))
    assert np.array_equal(everything(load_dataset("cifar5m", tmp_path, train=True))[0], images)
    assert len(list(path.parent.iterdir())) == 6 + 6 * is_compressed  # without earlier contents


def test_missing_and_damaged_parts_are_named_and_leave_nothing_behind(tmp_path):
    path = tmp_path / "cifar5m" / "cifar5m_part0.npz"

    def refuse(reason):
        line = f"cannot read {path}: .*{reason}.*fetch all 6 parts from https://github.com/preetum/cifar5m"
        with pytest.raises(UserError, match=line):
            load_dataset("cifar5m", tmp_path, train=True)

    refuse("No such file")
    images, labels = write_cifar5m(path.parent, SIZES, save=np.savez_compressed)
    whole = path.read_bytes()
    path.write_bytes(whole[:9000] + bytes([whole[9000] ^ 255]) + whole[9001:])
    refuse("Bad CRC-32|invalid|incorrect")
    assert len(list(path.parent.iterdir())) == 6
    for content, reason in (
        (
            {"X": images, "Y": labels[:-1]},
            r"Y is int64 \(26,\), expected 27 integers from 0",
        ),
        ({"X": images, "Y": [300, *labels[1:]]}, "labels up to 300, expected at most 9"),
    ):
        np.savez(path, **content)
        refuse(reason)


# A user's .npz


def write_npz(path: Path, *, save=np.savez, **changes) -> dict[str, np.ndarray]:
    images = {"x_train": random_images(9, 12, 10, 3), "x_test": random_images(4, 12, 10, 3, seed=1)}
    arrays = images | {"y_train": np.arange(9) % 3, "y_test": np.arange(4) % 4} | changes
    arrays = {name: array for name, array in arrays.items() if array is not None}
    save(path, **arrays)
    return arrays


@pytest.mark.parametrize("save", SAVE.values(), ids=SAVE)
def test_a_file_of_a_users_own(save, tmp_path, capsys):
    path = tmp_path / "own.npz"
    arrays = write_npz(path, save=save)
    info = dataset_info(str(path), labelled=True)
    assert info.spec == InputSpec(4, (3, 12, 10)) and info.augmentation is None
    for split, train in (("train", True), ("test", False)):
        dataset = load_dataset(str(path), "nowhere", train=train)
        images, labels = everything(dataset)
        assert np.array_equal(images, arrays[f"x_{split}"])
        assert np.array_equal(labels, arrays[f"y_{split}"]) and dataset.spec == info.spec
        assert isinstance(dataset.images.parts[0], np.memmap)
    unpacked = [path.name.split(".")[0] for path in tmp_path.glob("own_*")]
    assert sorted(unpacked) == ["own_x_test", "own_x_train"] * (save is np.savez_compressed)
    assert says(capsys.readouterr().err, "no training input has label 3", "4 classes")
    write_npz(path, save=save, means=np.array([0.5] * 3))
    dataset_info(str(path))
    assert says(capsys.readouterr().err, "means is not read; read are x_train", "mean")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=r"own\.npz: it is no .npz archive"):
        dataset_info(str(path))


def test_grey_unlabelled_images_and_how_to_normalise(tmp_path, capsys):
    grey = {"x_train": random_images(5, 8, 8), "x_test": random_images(3, 8, 8)}
    scale = {"mean": np.array(0.5), "std": np.array([0.25], np.float32)}
    write_npz(tmp_path / "own.npz", **grey, **scale, y_train=None, y_test=None)
    dataset = load_dataset(str(tmp_path / "own.npz"), "", train=True)
    assert not capsys.readouterr().err
    assert (dataset.n_classes, dataset.image_shape) == (0, (1, 8, 8))
    assert dataset.normalisation == Normalisation((0.5,), (0.25,))
    images, labels = collect(dataset.batches(3))
    torch.testing.assert_close(images[:, 0], (torch.from_numpy(grey["x_train"]) / 255 - 0.5) / 0.25)
    assert (labels == -1).all()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"x_test": None},
            "no array x_test .*; save it with numpy.savez: x_train and x_test images uint8",
        ),
        ({"y_test": None}, "has labels for one split only"),
        (
            {"x_train": random_images(9, 12, 10, 3) / 255},
            r"float64 .*expected uint8.*\(x \* 255 / x.max\(\)\).round\(\).astype",
        ),
        ({"x_train": random_images(9, 10, 12, 3)}, "x_train and x_test have unequal shapes"),
        (
            {"x_train": random_images(9, 3, 32, 32), "x_test": random_images(4, 3, 32, 32)},
            "channels come last",
        ),
        ({"y_train": np.arange(9) - 1}, "y_train has label -1"),
        ({"x_train": np.array([{}, print], dtype=object)}, "Python objects"),
        ({"mean": 0.5, "std": 0.5}, r"mean is \[0.5\]; a number for each of 3 channels"),
        ({"mean": [0.5] * 3, "std": [1, 0, 1]}, r"std is \[1.0, 0.0, 1.0\]"),
        ({"mean": [127] * 3, "std": [1] * 3}, r"mean is \[127.0, .*levels divided by 255"),
        ({"mean": [0.5] * 3, "std": [64] * 3}, r"std is \[64.0, .*a std above 0 up to 1"),
    ],
    ids=str,
)
def test_what_a_users_file_must_not_be(changes, reason, tmp_path):
    write_npz(tmp_path / "own.npz", **changes)
    with pytest.raises(UserError, match=rf"own\.npz.*{reason}"):
        dataset_info(str(tmp_path / "own.npz"))


WRITERS = {
    "cifar10": write_cifar10,
    "svhn": write_svhn,
    "mnist": write_mnist,
    "cifar10_large": write_cifar10,
}
TRAIN_FILE = {
    "cifar10": "cifar-10-batches-py/data_batch_1",
    "svhn": "train_32x32.mat",
    "mnist": "MNIST/raw/train-images-idx3-ubyte",
}


@pytest.mark.parametrize("name", WRITERS)
def test_both_splits_are_torchvisions(name, tmp_path, unofficial_files):
    """cifar100 and fashion have the formats of cifar10 and mnist."""
    WRITERS[name](tmp_path)
    info = dataset_info(name)
    for train, split in ((True, "train"), (False, "test")):
        chosen = {"split": split} if name == "svhn" else {"train": train}
        theirs = getattr(tv, info.source)(tmp_path, **chosen)
        ours = load_dataset(name, tmp_path, train=train)
        assert len(ours) == len(theirs) and ours.spec == info.spec
        for i in (0, 9, 19):
            image, label = theirs[i]
            array = np.asarray(image).reshape(*image.size[::-1], -1).transpose(2, 0, 1)
            assert np.array_equal(ours.images[i].numpy(), array) and int(ours.labels[i]) == label
    if name == "cifar10":  # whose test images are those of CIFAR-5M
        other = load_dataset("cifar5m", tmp_path, train=False)
        assert torch.equal(other.images, ours.images) and torch.equal(other.labels, ours.labels)


@pytest.mark.parametrize("name", TRAIN_FILE)
def test_damaged_files_are_the_users_to_mend(name, tmp_path, unofficial_files, no_network):
    WRITERS[name](tmp_path)
    file = tmp_path / TRAIN_FILE[name]
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 7 // 10])
    with pytest.raises(UserError, match=f"cannot read {tmp_path}: .*remove damaged files"):
        load_dataset(name, tmp_path, train=True)


def test_what_is_missing_is_downloaded_once_for_both_splits_and_all_processes(
    tmp_path, monkeypatch, unofficial_files, capfd
):
    root = tmp_path / "new" / "data"
    lock = f"from src.core.files import locked; locked({str(root / '.cifar10.lock')!r}, wait=False)"

    def download(self):
        assert start_code(lock).wait(60) == 1  # no other process downloads meanwhile
        write_cifar10(self.root)
        print("Extracting")

    monkeypatch.setattr(
        tv.CIFAR10, "_check_integrity", lambda self: (root / self.base_folder).is_dir()
    )
    monkeypatch.setattr(tv.CIFAR10, "download", download)
    for train, n in ((True, 50), (False, 20)):
        assert len(load_dataset("cifar10", root, train=train)) == n
    assert {path.name for path in root.iterdir()} == {".cifar10.lock", "cifar-10-batches-py"}
    assert capfd.readouterr() == ("", "Extracting\n")  # results alone go to stdout


@pytest.mark.parametrize(
    ("name", "n_train", "n_test"), [("digits", 1437, 360), ("photo_patches", 3000, 1000)]
)
def test_embedded_sets_need_no_folder(name, n_train, n_test):
    for train, n in ((True, n_train), (False, n_test)):
        dataset = load_dataset(name, "/nowhere", train=train)
        images, labels = next(dataset.batches(32))
        assert len(dataset) == n and dataset.spec == dataset_info(name).spec
        assert images.shape == (32, 1, 8, 8) and images.min() >= 0 and 0.5 < images.max() <= 1
        assert labels.dtype == torch.int64 and (name == "digits" or (dataset.labels == -1).all())


def test_a_mean_of_0_and_a_std_of_1_count_as_given(tmp_path, capsys):
    images = random_images(2, 8, 8, 1)
    arrays = {"x_train": images, "x_test": images, "y_train": [0, 1], "y_test": [0, 1]}
    for name, constants in (("without", {}), ("with", {"mean": [0.0], "std": [1.0]})):
        np.savez(tmp_path / f"{name}.npz", **arrays, **constants)
        dataset_info(str(tmp_path / f"{name}.npz"))
        assert ("has no mean and std" in capsys.readouterr().err) == (not constants)


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


def write_tokens(path: Path, **changes) -> dict[str, np.ndarray]:
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
    write_tokens(path / "tokens.npz")
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
    arrays = write_tokens(tmp_path / "a.npz")
    labels = {f"y_{split}": names[arrays[f"y_{split}"] + 1] for split in ("train", "test")}
    cases = (
        (("2", "Bee", "ant"), {}),
        (("Bee", "2", "10", "ant"), {"classes": np.array(["Bee", "2", "10", "ant"])}),
    )
    for classes, order in cases:
        write_tokens(tmp_path / "a.npz", **labels, **order)
        dataset = load_dataset(str(tmp_path / "a.npz"), "", train=True)
        assert dataset.classes == classes and dataset.n_classes == len(classes)
        assert [classes[label] for label in dataset.labels] == labels["y_train"].tolist()
    write_tokens(tmp_path / "a.npz", **labels, classes=np.array(["ant", "2"]))
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
    write_tokens(tmp_path / "own.npz", **changes)
    with pytest.raises(UserError, match=rf"own\.npz.*{reason}"):
        load_dataset(str(tmp_path / "own.npz"), "", train=True)


def test_interventions_on_images_are_refused_and_labels_change(tmp_path):
    write_tokens(tmp_path / "own.npz")

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
