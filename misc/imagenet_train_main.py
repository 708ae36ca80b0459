#!/usr/bin/env python3
"""Train a network on ImageNet, in one process or, under torchrun, in several."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src import cli

INSTEAD = {  # options of PyTorch's example that are refused, and what to do instead
    "start_epoch": "an interrupted run goes on where it was with --resume",
    "pretrained": "nothing is downloaded here; fetch https://download.pytorch.org/models/resnet18-f37072fd.pth (for "
    "tv_resnet18; torchvision.models lists the others) and give it as --weights FILE",  # fmt: skip
    "multiprocessing_distributed": "start the processes with torchrun --nproc_per_node N",
}


def parser() -> cli.Parser:
    options = cli.Parser("Train a network on ImageNet; writes model_<epoch>.pt, training_logs.csv and config.txt.")
    add, whole, real = options.add_argument, cli.whole_number, cli.real_number
    add("data", nargs="?", default="imagenet", help="folder that holds training_data and validation_data")
    add("-a", "--arch", default="tv_resnet18", type=cli.network, help=cli.NETWORKS)
    add("-j", "--workers", dest="n_workers", type=whole(0), default=4, help="processes that decode images, of each GPU")
    add("--epochs", dest="n_epochs", type=whole(0), default=90, help="epochs; the learning rate drops after every 30")
    add("-b", "--batch-size", type=whole(1), default=256, help="images in a batch, of all GPUs together")
    add("--lr", "--learning-rate", dest="learning_rate", type=real(above=0), default=0.1, help="initial learning rate")
    add("--momentum", type=real(at_least=0), default=0.9, help="momentum of SGD")
    add("--wd", "--weight-decay", dest="weight_decay", type=real(at_least=0), default=1e-4, help="weight decay")
    add("-p", "--print-freq", type=whole(0), default=10, help="batches from one line of progress to the next; 0: none")
    again = options.add_mutually_exclusive_group().add_argument
    again("--resume", metavar="FILE", nargs="?", const=True, default=False,
        help="go on with an interrupted run of the same options; with a FILE: --weights")  # fmt: skip
    again("--overwrite", action="store_true", help="write over a finished run of other options in -dir")
    add("--weights", metavar="FILE", help="checkpoint to start from, or with -e to evaluate")
    add("-e", "--evaluate", action="store_true", help="measure the accuracy of --weights, and train nothing")
    add("--seed", type=whole(0), default=0, help="random seed: weights, order, augmentation")
    add("--gpu", "-gpu", type=whole(-1), default=None, help="GPU, -1: CPU; else 0, or that of torchrun's local rank")
    add(
        "--amp",
        dest="bf16",
        action="store_true",
        help="train in bfloat16 where that is safe; validation stays in float32",
    )
    add("--dummy", action="store_true", help="random images in the place of data, to measure speed")
    add("--dummy-size", type=whole(1), default=1281167, help="how many of them; for validation a 25th")
    add("-dir", "--save-dir", help="folder to write to; else models/imagenet/<arch>_<seed>")
    add("-sf", "--save-frequency", type=whole(0), default=1, help="save every so many epochs, and the last one")
    add("--world-size", type=whole(1), default=None, help="processes, if they are started by hand instead of torchrun")
    add("--rank", type=whole(0), default=None, help="number of this one among them")
    add("--dist-url", default="env://", help="where they meet: tcp://HOST:PORT, or as torchrun says")
    add("--dist-backend", choices=("nccl", "gloo"), help="else nccl between GPUs, gloo between CPUs")
    add("--start-epoch", help="not honoured")
    add("--pretrained", action="store_true", help="not honoured: fetch the weights, give --weights")
    add("--multiprocessing-distributed", action="store_true", help="not honoured: use torchrun --nproc_per_node N")
    return options


def check(args, n_processes: int) -> None:
    """Refuse options that contradict each other or are not supported, before anything is loaded."""
    from src.errors import UserError

    for name, remedy in INSTEAD.items():
        if getattr(args, name):
            raise UserError(f"--{name.replace('_', '-')}: {remedy}")
    if isinstance(args.resume, str):  # as in PyTorch's example
        args.weights, args.resume = args.resume, False
    if args.evaluate and not args.weights:
        raise UserError("-e measures the accuracy of a checkpoint; give it as --weights FILE")
    if args.batch_size < n_processes:
        raise UserError(f"-b {args.batch_size} are the images of all {n_processes} processes together; give more")


def train(args) -> None:
    from src import training
    from src.checkpoints import load_weights
    from src.console import progress, result, silenced
    from src.datasets import Loading, dataset_info, load_dataset
    from src.datasets.base import Shard
    from src.datasets.dummy import DummyImageSet
    from src.models import build_model
    from src.results.run import Run
    from src.runtime import device_of, seeded
    from src.training.distributed import DataParallelClassification, device_number, joined, launched
    from src.training.recorded import train_network

    processes, info = launched(rank=args.rank, size=args.world_size), dataset_info("imagenet")
    check(args, processes.size)
    args.gpu = device_number(args.gpu, processes)
    args.save_dir = args.save_dir or f"models/imagenet/{args.arch.rpartition('/')[2]}_{args.seed}"
    run = Run.in_folder(args.save_dir, vars(args))
    if not args.evaluate and run.skip_if_finished(resume=args.resume, overwrite=args.overwrite):
        return
    device, image = device_of(args.gpu), {"n_classes": info.n_classes, "image_shape": info.image_shape}
    with seeded(args.seed):
        model = build_model(args.arch, **image)
    if args.weights:
        load_weights(model, args.weights, wanted=f"{args.arch} with {info.n_classes} classes")

    def images(train: bool):
        n = args.dummy_size if train else max(1, args.dummy_size // 25)
        loading = Loading(args.n_workers, prefetch_factor=2)
        return (DummyImageSet(n, **image, seed=int(train), device=device) if args.dummy else
                load_dataset("imagenet", args.data, train=train, device=device, loading=loading))  # fmt: skip

    with silenced(processes.rank > 0):
        sets = [images(train) for train in ((False,) if args.evaluate else (False, True))]
    for one in sets:
        one.shard = Shard(processes.rank, processes.size)
    with joined(processes, device, backend=args.dist_backend, url=args.dist_url), silenced(processes.rank > 0):
        task = DataParallelClassification(model.to(device), processes, amp=args.bf16, note_every=args.print_freq)
        if args.evaluate:
            batches = progress(sets[0].batches(args.batch_size), "evaluating", sets[0].n_batches(args.batch_size))
            (score,) = training.evaluate(task, batches)
            result(f"Clean accuracy: {score.accuracy:.2%}")
            return
        settings = training.Settings(
            args.n_epochs, args.batch_size, "sgd", args.learning_rate, args.weight_decay, momentum=args.momentum,
            reduce_lr_epochs=range(30, args.n_epochs, 30), seed=args.seed,
        )  # fmt: skip
        if processes.rank == 0:
            run.claim(resume=args.resume)
            train_network(run, task, sets[1], sets[0], settings, save_frequency=args.save_frequency)
            run.finish()
        else:  # the same work; the first process saves it
            state = run.saved().get("loop") if args.resume else None
            for _ in training.train(task, sets[1], sets[0], settings, state=state):
                pass


def main(argv=None) -> int:
    return cli.run(parser(), train, argv)


if __name__ == "__main__":
    sys.exit(main())
