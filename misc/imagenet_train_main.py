#!/usr/bin/env python3
"""Train a network on ImageNet, in one process or, under torchrun, in several."""

import contextlib
import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import exec_train
from src import cli, results
from src.core.console import result, silenced
from src.core.errors import UserError
from src.results.run import Run

if TYPE_CHECKING:
    import torch

    from src.core.inputs import InputSpec
    from src.datasets.base import InputSet
    from src.training import Classification
    from src.training.distributed import Processes


def parser() -> cli.Parser:
    """Return the parser of the options of this script."""
    options = cli.Parser(
        "Train a network on ImageNet; writes model_<epoch>.pt, training_logs.csv and config.txt."
    )
    add = options.add_argument
    add(
        "data",
        nargs="?",
        default="imagenet",
        help="folder that holds training_data and validation_data",
    )
    add("-a", "--arch", default="tv_resnet18", type=cli.network, help=cli.NETWORKS)
    add(
        "-j",
        "--workers",
        "-workers",
        dest="n_workers",
        type=cli.integer_from_0,
        default=4,
        help="number of processes for each GPU that decode images",
    )
    add_training(options)
    add_weights(options)
    add(
        "--seed",
        "-s",
        type=cli.integer_from_0,
        default=0,
        help="random seed: weights, order, augmentation",
    )
    add_device(options)
    add(
        "-dir",
        "--save-dir",
        type=cli.folder,
        help="folder to write to; default: models/imagenet/<arch>_<seed> in the working folder, or in the repository "
        "if the working folder is misc/",
    )
    add(
        "-sf",
        "--save-frequency",
        type=cli.integer_from_0,
        default=1,
        help="number of epochs between two saved networks; the last one is saved in any case",
    )
    return options


def add_training(options: cli.Parser) -> None:
    """Add the options of training: epochs, batches and the optimizer."""
    add = options.add_argument
    add(
        "--epochs",
        dest="n_epochs",
        type=cli.integer_from_0,
        default=90,
        help="number of epochs; the learning rate is multiplied by 0.1 after every 30 epochs",
    )
    add(
        "-b",
        "--batch-size",
        type=cli.integer_from_1,
        default=256,
        help="number of images in a batch, of all GPUs together",
    )
    add(
        "--lr",
        "-lr",
        "--learning-rate",
        dest="learning_rate",
        type=cli.real_above_0,
        default=0.1,
        help="initial learning rate",
    )
    add(
        "--wd",
        "-wd",
        "--weight-decay",
        dest="weight_decay",
        type=cli.real_from_0,
        default=1e-4,
        help="weight decay",
    )
    add(
        "-p",
        "--print-freq",
        type=cli.integer_from_0,
        default=10,
        help="number of batches between two lines of progress; 0: no such lines",
    )


def add_weights(options: cli.Parser) -> None:
    """Add the options for resuming and for initial weights."""
    add = options.add_argument
    again = options.add_mutually_exclusive_group().add_argument
    again(
        "--resume",
        metavar="FILE",
        nargs="?",
        const=True,
        default=False,
        help="resume an interrupted run of the same options; --resume FILE is --weights FILE",
    )
    again(
        "--overwrite",
        action="store_true",
        help="replace a finished run in -dir, even a run of other options",
    )
    add("--weights", metavar="FILE", help="checkpoint to start from, or with -e to evaluate")
    add(
        "-e",
        "--evaluate",
        action="store_true",
        help="measure the accuracy of --weights, and train nothing",
    )


def add_device(options: cli.Parser) -> None:
    """Add the options of the GPU, of mixed precision and of speed tests."""
    add = options.add_argument
    add(
        "--gpu",
        "-gpu",
        type=cli.integer_from(-1),
        default=None,
        help="number of the GPU; -1: the CPU; default: 0, or torchrun's local rank",
    )
    add("--amp", dest="bf16", action="store_true", help="compute in bfloat16 where that is safe")
    add("--dummy", action="store_true", help="train on random images, to measure speed")
    add(
        "--dummy-size",
        type=cli.integer_from_1,
        default=1281167,
        help="number of random training images; a 25th as many for validation",
    )


def check(args: Namespace, processes: "Processes") -> None:
    """Raise a UserError for options that contradict each other or the number of processes."""
    if args.evaluate and not args.weights:
        raise UserError("-e measures the accuracy of a checkpoint; give it as --weights FILE")
    n_processes = processes.world_size
    if args.batch_size < n_processes:
        raise UserError(
            f"-b {args.batch_size} is the batch of all {n_processes} processes together; give at least {n_processes}"
        )
    if args.gpu not in (None, -1) and processes.local_world_size > 1:
        raise UserError(
            f"--gpu {args.gpu}: {processes.local_world_size} processes cannot share one GPU; leave"
            " it out, each takes that of its local rank (CUDA_VISIBLE_DEVICES chooses among them)"
        )


def default_folder(args: Namespace) -> Path:
    """Return the folder to write to without -dir: in `models/` of the working folder, or of the repository if the
    working folder is its `misc/`."""
    folder = Path("models", "imagenet", f"{args.arch.rpartition('/')[2]}_{args.seed}")
    here = Path(__file__).resolve().parent
    if Path.cwd() == here:
        return here.parent / folder
    return folder


def load_images(
    args: Namespace,
    spec: "InputSpec",
    device: "torch.device",
    processes: "Processes",
    *,
    train: bool,
) -> "InputSet":
    """Load a split, or generate random images; each process takes its share of every batch."""
    from src.datasets import Loading, load_dataset
    from src.datasets.base import Shard, random_images

    if args.dummy:
        n_images = args.dummy_size
        if not train:
            n_images = max(1, args.dummy_size // 25)
        images: InputSet = random_images(n_images, spec, seed=int(train), device=device)
    else:
        loading = Loading(args.n_workers, prefetch_factor=2)
        images = load_dataset("imagenet", args.data, train=train, device=device, loading=loading)
    images.shard = Shard(processes.rank, processes.world_size)
    return images


def main(args: Namespace) -> None:
    """Train the network, or measure its accuracy."""
    from src.core.device import device_of
    from src.core.precision import precision
    from src.datasets import dataset_info
    from src.training.distributed import DataParallelClassification, joined, launched

    # Options
    processes = launched()
    if isinstance(args.resume, str):  # --resume FILE, as in PyTorch's example
        args.weights = args.resume
        args.resume = False
    check(args, processes)
    if args.gpu is None:
        args.gpu = processes.local_rank
    if not args.save_dir:
        args.save_dir = str(default_folder(args))
    run = Run(args.save_dir, vars(args))
    if not args.evaluate and run.skip_if_finished(resume=args.resume, overwrite=args.overwrite):
        return

    # Network and images
    spec = dataset_info("imagenet").spec
    device = device_of(args.gpu)
    model = exec_train.make_network(args.arch, spec, seed=args.seed, device=device)
    if args.weights:
        results.checkpoints.load_weights(
            model, args.weights, expected=f"{args.arch} with {spec.n_classes} classes"
        )
    with contextlib.ExitStack() as during:
        if processes.rank > 0:
            during.enter_context(silenced())
        val_set = load_images(args, spec, device, processes, train=False)
        if not args.evaluate:
            train_set = load_images(args, spec, device, processes, train=True)

        # Work
        during.enter_context(joined(processes, device))
        amp = "bf16" if args.bf16 else "none"
        during.enter_context(precision(gpu=args.gpu, amp=amp))
        task = DataParallelClassification(model, processes, note_every=args.print_freq)
        if args.evaluate:
            print_accuracy(task, val_set, args.batch_size)
        else:
            train_together(args, run, task, train_set, val_set, is_first=processes.rank == 0)


def print_accuracy(task: "Classification", images: "InputSet", batch_size: int) -> None:
    """Print the accuracy of the network on all images."""
    from src import training

    (score,) = training.evaluate(task, cli.batches_of(images, batch_size)).values()
    result(f"Clean accuracy: {score.accuracy:.2%}")


def train_together(
    args: Namespace,
    run: Run,
    task: "Classification",
    train_set: "InputSet",
    val_set: "InputSet",
    *,
    is_first: bool,
) -> None:
    """Train the network in this process, with gradients shared among all processes; the first process saves the
    run."""
    from src import training

    settings = training.Settings(
        args.n_epochs,
        args.batch_size,
        "sgd",
        args.learning_rate,
        args.weight_decay,
        reduce_lr_epochs=range(30, args.n_epochs, 30),
        seed=args.seed,
    )
    if is_first:
        exec_train.train_in(run, task, train_set, val_set, settings, args=args)
        return
    state = None
    if args.resume:
        state = run.saved_state().get("loop")
    for _ in training.train(task, train_set, val_set, settings, state=state):
        pass


if __name__ == "__main__":
    sys.exit(cli.run(parser(), main))
