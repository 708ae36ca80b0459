#!/usr/bin/env python3
"""Measure the single networks of the study, and write the lists of networks that are compared.

The study is misc/docs/study.md. No two networks are compared here."""

import math
import sys
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from misc.all_pairs import check_types
from src import cli

ROBUST = "robust"
STANDARD = "standard"
TWIN = "untrained_"  # begins the name and the group of a network that was never trained
N_PARTS = 3  # of the depth, with a layer each
N_STEPS = 10  # of an attack
EPSILONS = {"accuracy_2": 2 / 255, "accuracy_8": 8 / 255}  # by column


@dataclass(frozen=True)
class SingleRow:
    """A single network: a row of `singles.csv`."""

    contents: ClassVar[str] = "single networks"
    written_by: ClassVar[str] = "misc/paper/study_singles.py"

    name: str
    group: str
    type: str
    n_parameters: int
    n_blocks: int
    layers: str  # one for each part of the depth, with commas between them
    accuracy: float
    accuracy_2: float  # under attack, with ε = 2/255
    accuracy_8: float  # with ε = 8/255
    weights: str  # the SHA-256 of the file
    excluded: str = ""  # why the network is left out


@dataclass(frozen=True)
class PublishedFile:
    """The file of a published network, as a list of networks may name it."""

    contents: ClassVar[str] = "networks"
    written_by: ClassVar[str] = "with the columns name and sha256"

    name: str
    sha256: str


def parser() -> cli.Parser:
    options = cli.Parser(
        "Measure the accuracy of each network, also under attack; choose a layer of each third of its depth; save its "
        "predictions; make an untrained twin of it; and write the lists of networks for misc/all_pairs.py."
    )
    add = options.add_argument
    add(
        "networks",
        help=f"CSV with the columns name, path, type and group, which is {ROBUST} or {STANDARD}; with a column sha256 "
        "files are checked",
    )
    add(
        "-dir",
        "--save-dir",
        required=True,
        help="folder to write singles.csv, predictions.csv, images.npz, twins/, and the lists networks.csv, twins.csv "
        "and all.csv",
    )
    cli.add_own_types(options)
    add(
        "--least-accuracy",
        type=cli.real_number(at_least=0, at_most=100),
        default=30.0,
        help="networks that classify fewer test images correctly, in percent, are left out",
    )
    add(
        "--attacked",
        type=cli.whole_from_1,
        default=500,
        help="number of test images, the first ones, that are attacked",
    )
    add(
        "--compared",
        type=cli.whole_number(30),
        default=1000,
        help="number of test images, the first ones, that networks are compared on: with all training images they are "
        "written to images.npz",
    )
    cli.add_gpu(options)
    cli.add_data(options, batch_size=250)
    return options


def measure(args) -> None:
    from src.datasets import dataset_info
    from src.ground.console import note, progress
    from src.ground.files import write_csv
    from src.ground.runtime import device_of
    from src.runs.session import Session
    from src.tables.network_list import read_networks
    from src.tables.tables import write_table

    networks = read_networks(args.networks)
    check_types(args.networks, networks, args.own_types)
    check_groups(args, networks)
    write_images(args)
    session = Session()
    device = device_of(args.gpu)
    spec = dataset_info(args.dataset, labelled=True).spec
    test_set = cli.load_split(args, session, device, train=False)
    train_set = cli.load_split(args, session, device, train=True)

    # Each network: accuracies, predictions, layers; and its twin.
    rows = []
    predictions = {"label": labels_of(test_set, args.batch_size).tolist()}
    twins = []
    for listed in progress(networks, "measuring", len(networks)):
        network = session.network(listed.named(seed=0), spec, device=device)
        classes = predicted(network.module, test_set, args.batch_size)
        row = single_row(args, listed, network, test_set, classes, earlier=rows)
        rows.append(row)
        predictions[listed.name] = classes.tolist()
        twins.append(twin_of(listed, spec, train_set, folder=Path(args.save_dir, "twins")))

    # The lists of the networks that are compared
    folder = Path(args.save_dir)
    write_table(folder / "singles.csv", SingleRow, rows)
    images = [
        dict(zip(predictions, values, strict=True))
        for values in zip(*predictions.values(), strict=True)
    ]
    write_csv(folder / "predictions.csv", list(predictions), images)
    write_lists(folder, rows, networks, twins)
    note(f"wrote {folder / 'singles.csv'}, and lists of networks beside it")


def check_groups(args, networks) -> None:
    """Raise a UserError unless both groups have two networks or more; warn of unexpected files."""
    from src.ground.console import warn
    from src.ground.errors import UserError
    from src.tables.network_names import content_of
    from src.tables.tables import read_table

    groups = [network.group for network in networks]
    both = {ROBUST, STANDARD}
    if set(groups) != both or min(groups.count(group) for group in both) < 2:
        raise UserError(
            f"{args.networks}: the groups have to be {ROBUST} and {STANDARD}, each of two networks or more"
        )
    header = Path(args.networks).read_text(encoding="utf-8").partition("\n")[0]
    if "sha256" not in header.split(","):
        return
    expected = {row.name: row.sha256 for row in read_table(args.networks, PublishedFile)}
    for network in networks:
        if content_of(network.path) != expected[network.name]:
            warn(f"{network.path} is not the file of the study: its SHA-256 differs from the list")


def write_images(args) -> None:
    """Write all training images and the first test images of an .npz file to an .npz file."""
    import numpy as np

    from src.ground.errors import UserError
    from src.ground.files import readable, write_arrays

    if not args.dataset.endswith(".npz"):
        raise UserError(f"-d {args.dataset}: give images in an .npz file")
    with readable(args.dataset, "give another -d"), np.load(args.dataset) as arrays:
        content = dict(arrays)
    if "mean" in content or "std" in content:
        raise UserError(
            f"{args.dataset} has mean and std, and images are attacked in [0, 1]; leave both out, and let networks "
            "normalise their images"
        )
    for name in ("x_test", "y_test"):
        content[name] = content[name][: args.compared]
    write_arrays(Path(args.save_dir, "images.npz"), content, is_compressed=False)


def single_row(args, listed, network, test_set, classes, *, earlier) -> SingleRow:
    """Measure a single network.

    Args:
        classes: that the network predicts for the test images, (n,).
        earlier: rows of networks before it in the list.
    """
    from src.tables.network_names import content_of

    labels = labels_of(test_set, args.batch_size)
    accuracy = (classes == labels).double().mean().item()
    weights = content_of(listed.path)
    excluded = ""
    if accuracy < args.least_accuracy / 100:
        excluded = f"classifies fewer than {args.least_accuracy:g} % correctly"
    for row in earlier:
        if row.weights == weights:
            excluded = f"has the weights of {row.name}"
    under_attack = {
        column: accuracy_under_attack(network.module, test_set, epsilon, args)
        for column, epsilon in EPSILONS.items()
    }
    return SingleRow(
        name=listed.name,
        group=listed.group,
        type=listed.type,
        n_parameters=sum(parameter.numel() for parameter in network.module.parameters()),
        n_blocks=len(network.block_names),
        layers=",".join(layers_of_parts(network.block_names)),
        accuracy=accuracy,
        weights=weights,
        excluded=excluded,
        **under_attack,
    )


def layers_of_parts(blocks) -> list[str]:
    """Return the block in which the middle of each part of the depth lies."""
    middles = [(2 * part + 1) * len(blocks) / (2 * N_PARTS) for part in range(N_PARTS)]
    return [blocks[math.ceil(middle) - 1] for middle in middles]


def labels_of(images, batch_size):
    """Return the labels (n,) of images."""
    import torch

    return torch.cat([labels for _, labels in images.batches(batch_size)])


def predicted(module, images, batch_size):
    """Return the classes (n,) that a module predicts."""
    import torch

    with torch.no_grad():
        return torch.cat([module(batch).argmax(1) for batch, _ in images.batches(batch_size)])


def accuracy_under_attack(module, images, epsilon, args) -> float:
    """Return the accuracy on the first test images after an attack on each."""
    import torch

    n_images = min(args.attacked, len(images))
    n_correct = 0
    start = 0
    for batch, labels in images.batches(args.batch_size, indices=torch.arange(n_images)):
        attacked = projected_gradient(module, batch, labels, epsilon, seed=start)
        with torch.no_grad():
            n_correct += int((module(attacked).argmax(1) == labels).sum())
        start += len(labels)
    return n_correct / n_images


def projected_gradient(module, images, labels, epsilon, *, seed):
    """Return images (B, C, H, W) in [0, 1], changed by at most ε so that the loss rises.

    Projected gradient in the maximum norm (Madry et al. 2018), with steps of ε/4 from one random
    start.
    """
    import torch
    from torch.nn import functional

    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(images.shape, generator=generator).to(images) * 2 - 1
    low = (images - epsilon).clamp(0, 1)
    high = (images + epsilon).clamp(0, 1)
    attacked = torch.clamp(images + epsilon * noise, low, high)
    for _ in range(N_STEPS):
        attacked.requires_grad_(True)
        loss = functional.cross_entropy(module(attacked), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, attacked)
        attacked = torch.clamp(attacked.detach() + epsilon / 4 * gradient.sign(), low, high)
    return attacked


def twin_of(listed, spec, train_set, *, folder: Path):
    """Save an untrained network of the same type; return its line of a list.

    Its weights are drawn by a seed of its own, from the name of the network. BatchNorms have the
    statistics of the first training images, as in the suite's class control.
    """
    import torch

    from src.models.control import set_statistics
    from src.runs.checkpoints import N_OF_STATISTICS, load_model, save_state
    from src.tables.network_names import FRESH, NetworkName

    seed = zlib.crc32(listed.name.encode())
    twin = load_model(NetworkName(FRESH, listed.type, seed=seed), spec, device=train_set.device)
    n_images = min(N_OF_STATISTICS, len(train_set))
    ((images, _),) = train_set.batches(n_images, indices=torch.arange(n_images))
    with torch.no_grad():
        set_statistics(twin.module, images)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{listed.name}.pt"
    save_state(path, twin.module.state_dict())
    name = f"{TWIN}{listed.name}"
    return replace(listed, name=name, path=str(path), group=f"{TWIN}{listed.group}")


def write_lists(folder: Path, rows, networks, twins) -> None:
    """Write the lists of the networks that are not excluded, of their twins, and of both."""
    from src.ground.console import warn
    from src.tables.network_list import ListedNetwork
    from src.tables.tables import write_table

    kept = []
    twins_of_kept = []
    for row, listed, twin in zip(rows, networks, twins, strict=True):
        if row.excluded:
            warn(f"{row.name} is left out: it {row.excluded}")
            continue
        for network, lines in ((listed, kept), (twin, twins_of_kept)):
            path = str(Path(network.path).resolve())
            layers = ",".join(dict.fromkeys(row.layers.split(",")))  # each once
            lines.append(replace(network, path=path, layers=layers))
    write_table(folder / "networks.csv", ListedNetwork, kept)
    write_table(folder / "twins.csv", ListedNetwork, twins_of_kept)
    write_table(folder / "all.csv", ListedNetwork, [*kept, *twins_of_kept])


def main(argv=None) -> int:
    return cli.run(parser(), measure, argv)


if __name__ == "__main__":
    sys.exit(main())
