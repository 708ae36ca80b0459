"""Every reader of the suite: how a valid file of its format is written, and how the suite reads it."""

import contextlib
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.io import savemat

import exec_stitch
import exec_train
from src.checkpoints import load_model, load_state, save_state
from src.datasets import load_dataset
from src.datasets.in_memory import ImageSet
from src.errors import UserError
from src.measurements import over_ranks, read_tables
from src.models import build_model
from src.models.registry import MODELS, Entry
from src.ood.detectors import DetectorStore, source_of
from src.resuming import StateFile
from src.stitching.results import accuracy_matrix, newest_of_each_pair, read_run, read_runs
from src.stitching.unfinished import find_state
from src.training import Classification, Settings, train
from tests import tiny_datasets as tiny
from tests.mutations import BINARY, TEXT, TORCH, Mutation

OPTIONS = {
    "model_type": "small_cnn", "front_layer": "pool1", "end_layer": "pool2", "stitching_type": "rc2c_pre",
    "init": "rand", "front_stitch_rank": None, "front_pinv_rank": 3, "seed": 0, "learning_rate": 0.01,
    "reduce_lr_epochs": [3, 5], "dataset": "digits", "n_epochs": 1,
}  # fmt: skip
SHAPE = (1, 8, 8)
LAYER = "pool1"
DETECTOR = "repr_cls_vit_minute"  # smaller than those of the zoo
MODELS[DETECTOR] = Entry(
    "representation_classifiers",
    "RepresentationTransformer",
    {"width": 4, "depth": 1, "heads": 1},
    ("representation_shape",),
)


class Reader(NamedTuple):
    """A format: files are written into an empty folder and read from there."""

    write: Callable[[Path], None]
    read: Callable[[Path], object]
    files: str = "**/*"  # those that are damaged
    ways: Sequence[Mutation] = BINARY
    share: float = 1.0  # of the mutations that the others get: less for what takes long


def network(n_classes: int = 10) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_model("small_cnn", n_classes=n_classes, n_channels=SHAPE[0])


def write_checkpoint(folder: Path, *, zipped: bool = True, wrapped: bool = False) -> None:
    state = network().state_dict()
    content = {"epoch": 3, "state_dict": state} if wrapped else state
    torch.save(content, folder / "m.pt", _use_new_zipfile_serialization=zipped)


def read_checkpoint(folder: Path) -> None:
    load_model(folder / "m.pt", "small_cnn", n_classes=10, image_shape=SHAPE)


def train_from(state: StateFile) -> None:
    """Go on with a training that is at its end already."""
    images = ImageSet(torch.zeros(4, *SHAPE, dtype=torch.uint8), torch.arange(4), n_classes=10)
    settings = Settings(n_epochs=1, batch_size=4, reduce_lr_epochs=[1])
    list(train(Classification(network()), images, images, settings, state=state))


def write_state(folder: Path) -> None:
    train_from(StateFile(folder / "a.resume.pt", OPTIONS, resume=False))


def read_state(folder: Path) -> None:
    train_from(StateFile(folder / "a.resume.pt", OPTIONS, resume=True))


def write_yaml(folder: Path) -> None:
    lines = ("model_type: resnet34", "save_dir: a", "learning_rate: 1e-2", "reduce_lr_epochs: [3, 5]", "n_epochs: 7",
             "dataset: &d cifar10", "optimizer: sgd", "grad_clip: null", "resume_from: 'x'", "tf32: true")  # fmt: skip
    (folder / "options").write_text("\n".join(lines[:8] + lines[9:]) + "\n")


def write_options_json(folder: Path) -> None:
    argv = ["f.pt", "g.pt", "resnet18", "resnet18", "layer1.0", "all", "rc2c_pre", "-rlre", "2", "3"]
    options = vars(exec_stitch.parser().parse_args(argv))
    (folder / "options").write_text(json.dumps({k: v for k, v in options.items() if k not in ("config", "resume")}))


def read_options(script: object) -> Callable[[Path], None]:
    """What a script's parser makes of a file; an error of its counts as a UserError."""

    def read(folder: Path) -> None:
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                script.parser().parse_args(["--config", str(folder / "options")])
        except SystemExit as stop:
            assert stop.code == 2 and len(said.getvalue().splitlines()) == 1, said.getvalue()
            raise UserError(said.getvalue().removesuffix("\n")) from stop

    return read


def write_runs(folder: Path) -> None:
    run = folder / "2024-01-01"
    run.mkdir()
    (run / "config.txt").write_text(json.dumps(OPTIONS, indent=4))
    (run / "summary.txt").write_text(
        "Stitching summary\nClean accuracy: 0.5\nNormalized PINV difference: 0.25\n"
        "Normalized representation difference: 0.125\n"
    )
    (run / "metrics.json").write_text(json.dumps({"accuracy": 0.5, "front_accuracy": 0.75, "end_accuracy": 0.5}))


def read_the_runs(folder: Path) -> None:
    runs, _ = read_runs(folder)
    if runs:
        newest_of_each_pair(runs)
        accuracy_matrix([run.row for run in runs])
    read_run(folder / "2024-01-01")


def write_tables(folder: Path) -> None:
    (folder / "grid.csv").write_text(
        "front_layer,end_layer,stitching_type,init,front_stitch_rank,accuracy\npool1,pool2,rc2c,rand,,0.5\n"
        "pool1,pool2,rc2c,rand,3,0.25\n"
    )
    (folder / "similarity.csv").write_text(
        "model1,model2,layer1,layer2,rank1,rank2,cka,procrustes\na.pt,b.pt,l1,l2,1,2,0.5,0.25\na.pt,b.pt,l1,l2,2,2,1,\n"
    )
    (folder / "probes.csv").write_text("model,layer,rank,accuracy,loss\na.pt,l1,1,0.5,0.25\na.pt,l1,,0.75,0.125\n")


def read_the_tables(folder: Path) -> None:
    tables = read_tables(sorted(folder.glob("*.csv")))
    for values in tables.values.values():
        list(over_ranks(values, 0))


def write_store(folder: Path) -> None:
    save_state(folder / "source.pt", {"weight": torch.zeros(2)})
    source = source_of(folder / "source.pt")
    detector = build_model(DETECTOR, n_classes=2, representation_shape=(4, 3))
    entry = {
        "model_type": DETECTOR, "source_model_type": "small_cnn", "source_model_path": "source.pt",
        "source_layer": LAYER, "id_dataset": "digits", "orig_input_shape": SHAPE, "required_input_shape": [4, 3],
        "training_loc": "d", "source_sha256": source.sha256,
    }  # fmt: skip
    DetectorStore(folder / "store").add(detector.state_dict(), entry, name="a.pt")


def read_store(folder: Path) -> None:
    store, source = DetectorStore(folder / "store"), source_of(folder / "source.pt")
    network = {"n_classes": 2, "image_shape": SHAPE, "device": torch.device("cpu")}
    store.load_all(source, [LAYER, "pool2"], **network)
    store.load(source, LAYER, **network)


def write_plain_svhn(folder: Path) -> None:
    images, labels = tiny.random_images(4, 3, 32, 32).transpose(2, 3, 1, 0), np.array([[1.0], [10], [3], [4]])
    savemat(folder / "train_32x32.mat", {"X": images, "y": labels}, do_compression=False)


def write_cifar5m(save: Callable) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for i in range(6):
            arrays = {"X": tiny.random_images(3, 32, 32, 3, seed=i), "Y": np.arange(3)}
            save(folder / f"cifar5m_part{i}.npz", **arrays)

    return write


def write_random_images(folder: Path) -> None:
    np.save(folder / "300K_random_images.npy", tiny.random_images(4, 32, 32, 3))


def write_imagenet(folder: Path) -> None:
    tiny.write_imagenet(folder, 6, 6)


def dataset(name: str, *, train: bool = True) -> Callable[[Path], None]:
    """Load a split and look at all of its images."""

    def read(folder: Path) -> None:
        images = load_dataset(name, folder, train=train)
        list(images.batches(8))
        if train:
            list(images.epoch(8, seed=0, epoch=1))

    return read


READERS = {
    "checkpoint, zip": Reader(write_checkpoint, read_checkpoint, ways=TORCH),
    "checkpoint, legacy": Reader(lambda folder: write_checkpoint(folder, zipped=False), read_checkpoint, ways=TORCH),
    "checkpoint, wrapped": Reader(
        lambda folder: write_checkpoint(folder, wrapped=True), lambda folder: load_state(folder / "m.pt"), ways=TORCH
    ),
    "state": Reader(write_state, read_state, ways=TORCH, share=2),
    "states found": Reader(write_state, lambda folder: find_state(folder, OPTIONS), ways=TORCH),
    "options in YAML": Reader(write_yaml, read_options(exec_train), ways=TEXT),
    "options in JSON": Reader(write_options_json, read_options(exec_stitch), ways=TEXT),
    "run folders": Reader(write_runs, read_the_runs, ways=TEXT),
    "tables": Reader(write_tables, read_the_tables, ways=TEXT),
    "detector table": Reader(write_store, read_store, "store/meta.json", ways=TEXT),
    "detector": Reader(write_store, read_store, "store/a.pt", TORCH),
    "cifar10": Reader(lambda folder: tiny.write_cifar10(folder, 10, 5), dataset("cifar10"), "*/data_batch_*"),
    "cifar100": Reader(lambda folder: tiny.write_cifar100(folder, 5, 5), dataset("cifar100"), "*/train"),
    "svhn": Reader(lambda folder: tiny.write_svhn(folder, 5, 5), dataset("svhn"), "train*"),
    "svhn, not compressed": Reader(write_plain_svhn, dataset("svhn")),
    "mnist": Reader(lambda folder: tiny.write_mnist(folder, 5, 5), dataset("mnist"), "MNIST/raw/train*"),
    "cifar5m": Reader(write_cifar5m(np.savez), dataset("cifar5m"), "*.npz"),
    "cifar5m, compressed": Reader(write_cifar5m(np.savez_compressed), dataset("cifar5m"), "*.npz"),
    "300K images": Reader(write_random_images, dataset("outlier_exposure")),
    "imagenet": Reader(write_imagenet, dataset("imagenet", train=False), "v*/**/*.*", share=0.5),
    "imagenet_mem": Reader(write_imagenet, dataset("imagenet_mem", train=False), "v*/**/*.*", share=0.5),
}  # fmt: skip
