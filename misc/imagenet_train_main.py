#!/usr/bin/env python3
"""Train a network on ImageNet, in one process or, under torchrun, in several."""

import contextlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src import cli

TORCHRUN = "several processes are started by torchrun --nproc_per_node N"
INSTEAD = {  # options of PyTorch's example: what holds instead
    "--world-size": TORCHRUN,
    "--rank": TORCHRUN,
    "--dist-url": TORCHRUN,
    "--dist-backend": TORCHRUN,
    "--multiprocessing-distributed": TORCHRUN,
    "--start-epoch": "an interrupted run goes on where it was with --resume",
    "--pretrained": "nothing is downloaded; give a file of torchvision's weights as --weights",
}
SWITCHES = ("--multiprocessing-distributed", "--pretrained")


def parser() -> cli.Parser:
    options = cli.Parser(
        "Train a network on ImageNet; writes model_<epoch>.pt, training_logs.csv and config.txt."
    )
    add, whole, real = options.add_argument, cli.whole_number, cli.real_number
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
        dest="n_workers",
        type=whole(0),
        default=4,
        help="processes that decode images, of each GPU",
    )
    add(
        "--epochs",
        dest="n_epochs",
        type=whole(0),
        default=90,
        help="epochs; the learning rate drops after every 30",
    )
    add(
        "-b",
        "--batch-size",
        type=whole(1),
        default=256,
        help="images in a batch, of all GPUs together",
    )
    add(
        "--lr",
        "--learning-rate",
        dest="learning_rate",
        type=real(above=0),
        default=0.1,
        help="initial learning rate",
    )
    add("--momentum", type=real(at_least=0), default=0.9, help="momentum of SGD")
    add(
        "--wd",
        "--weight-decay",
        dest="weight_decay",
        type=real(at_least=0),
        default=1e-4,
        help="weight decay",
    )
    add(
        "-p",
        "--print-freq",
        type=whole(0),
        default=10,
        help="batches from one line of progress to the next; 0: none",
    )
    again = options.add_mutually_exclusive_group().add_argument
    again("--resume", metavar="FILE", nargs="?", const=True, default=False,
        help="go on with an interrupted run of the same options; with a FILE: --weights")  # fmt: skip
    again(
        "--overwrite",
        action="store_true",
        help="write over a finished run of other options in -dir",
    )
    add("--weights", metavar="FILE", help="checkpoint to start from, or with -e to evaluate")
    add(
        "-e",
        "--evaluate",
        action="store_true",
        help="measure the accuracy of --weights, and train nothing",
    )
    add("--seed", type=whole(0), default=0, help="random seed: weights, order, augmentation")
    add(
        "--gpu",
        "-gpu",
        type=whole(-1),
        default=None,
        help="GPU, -1: CPU; else 0, or that of torchrun's local rank",
    )
    add("--amp", dest="bf16", action="store_true", help="compute in bfloat16 where that is safe")
    add("--dummy", action="store_true", help="random images in the place of data, to measure speed")
    add(
        "--dummy-size",
        type=whole(1),
        default=1281167,
        help="how many of them; for validation a 25th",
    )
    add("-dir", "--save-dir", help="folder to write to; else models/imagenet/<arch>_<seed>")
    add(
        "-sf",
        "--save-frequency",
        type=whole(0),
        default=1,
        help="save every so many epochs, and the last one",
    )
    for name, instead in INSTEAD.items():
        kind = {"action": "store_true"} if name in SWITCHES else {}
        add(name, help=f"not taken: {instead}", **kind)
    return options


def check(args, processes) -> None:
    """Answer options that are not taken, and options that contradict each other, before anything is
    loaded."""
    from src.errors import UserError

    for name, instead in INSTEAD.items():
        if getattr(args, name.strip("-").replace("-", "_")):
            raise UserError(f"{name}: {instead}")
    if isinstance(args.resume, str):  # as in PyTorch's example
        args.weights, args.resume = args.resume, False
    if args.evaluate and not args.weights:
        raise UserError("-e measures the accuracy of a checkpoint; give it as --weights FILE")
    if args.batch_size < processes.world_size:
        raise UserError(
            f"-b {args.batch_size} are the images of all {processes.world_size} processes; give more"
        )
    if args.gpu not in (None, -1) and processes.local_world_size > 1:
        raise UserError(f"--gpu {args.gpu}: {processes.local_world_size} processes cannot share one GPU; leave it out, "
                        "each takes that of its local rank (CUDA_VISIBLE_DEVICES chooses among them)")  # fmt: skip


def load_images(args, info, device, processes, *, train: bool):
    """Load a split, or make random images in its place; each process takes its share of every
    batch."""
    from src.datasets import Loading, load_dataset
    from src.datasets.base import Shard
    from src.datasets.dummy import DummyImageSet

    if args.dummy:
        n = args.dummy_size if train else max(1, args.dummy_size // 25)
        shape = {"n_classes": info.n_classes, "image_shape": info.image_shape}
        images = DummyImageSet(n, **shape, seed=int(train), device=device)
    else:
        loading = Loading(args.n_workers, prefetch_factor=2)
        images = load_dataset("imagenet", args.data, train=train, device=device, loading=loading)
    images.shard = Shard(processes.rank, processes.world_size)
    return images


def train(args) -> None:
    from src import training
    from src.checkpoints import load_weights
    from src.console import progress, result, silenced
    from src.datasets import dataset_info
    from src.models import build_model
    from src.results.run import Run
    from src.runtime import device_of, precision, seeded
    from src.training.distributed import DataParallelClassification, joined, launched
    from src.training.recorded import train_network

    processes, info = launched(), dataset_info("imagenet")
    check(args, processes)
    args.gpu = processes.local_rank if args.gpu is None else args.gpu
    args.save_dir = args.save_dir or f"models/imagenet/{args.arch.rpartition('/')[2]}_{args.seed}"
    run = Run.in_folder(args.save_dir, vars(args))
    if not args.evaluate and run.skip_if_finished(resume=args.resume, overwrite=args.overwrite):
        return
    device = device_of(args.gpu)
    with seeded(args.seed):
        model = build_model(args.arch, n_classes=info.n_classes, image_shape=info.image_shape).to(
            device
        )
    if args.weights:
        load_weights(model, args.weights, expected=f"{args.arch} with {info.n_classes} classes")

    with contextlib.ExitStack() as during:
        if processes.rank > 0:  # one process speaks
            during.enter_context(silenced())
        val_set = load_images(args, info, device, processes, train=False)
        train_set = (
            None if args.evaluate else load_images(args, info, device, processes, train=True)
        )
        during.enter_context(joined(processes, device))
        during.enter_context(
            precision(gpu=args.gpu, amp="bf16" if args.bf16 else "none", tf32=False)
        )
        task = DataParallelClassification(model, processes, note_every=args.print_freq)
        if args.evaluate:
            batches = progress(
                val_set.batches(args.batch_size), "evaluating", val_set.n_batches(args.batch_size)
            )
            (score,) = training.evaluate(task, batches)
            result(f"Clean accuracy: {score.accuracy:.2%}")
            return
        settings = training.Settings(
            args.n_epochs, args.batch_size, "sgd", args.learning_rate, args.weight_decay, momentum=args.momentum,
            reduce_lr_epochs=range(30, args.n_epochs, 30), seed=args.seed,
        )  # fmt: skip
        if processes.rank == 0:
            run.claim(resume=args.resume)
            train_network(
                run, task, train_set, val_set, settings, save_frequency=args.save_frequency
            )
            run.finish()
        else:  # the same work; the first process saves it
            state = run.saved_state().get("loop") if args.resume else None
            for _ in training.train(task, train_set, val_set, settings, state=state):
                pass


def main(argv=None) -> int:
    return cli.run(parser(), train, argv)


if __name__ == "__main__":
    sys.exit(main())
