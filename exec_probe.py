#!/usr/bin/env python3
"""Train linear probes on layers of a network, at full rank or on their first principal components."""

import sys

from src import cli
from src.network_options import CHECKPOINT, NETWORKS, add_channels_last, checkpoint, named, network


def parser() -> cli.Parser:
    options = cli.Parser("Train linear probes at all given layers and ranks together; prints their test accuracies.")
    add = options.add_argument
    add("model_path", type=checkpoint, help=CHECKPOINT)
    add("model_type", type=network, help=NETWORKS)
    add("-l", "--layers", dest="layer_names", nargs="+", required=True,
        help="layers to probe, with blanks or commas between them, or all")  # fmt: skip
    add("-ranks", "--ranks", type=cli.whole_number(0), nargs="*", default=[],
        help="principal components to keep, in each batch; one probe each at every layer; 0, default: all")  # fmt: skip
    cli.add_gpu(options)
    cli.add_data(options, batch_size=64)
    add_channels_last(options)
    add("-e", "--epochs", dest="n_epochs", type=cli.whole_number(0), default=10, help="number of epochs")
    add("-lr", "--learning-rate", type=cli.real_number(above=0), default=1e-3,
        help="learning rate; of more than five epochs, the last five have a tenth of it")  # fmt: skip
    add("-wd", "--weight_decay", "--weight-decay", type=cli.real_number(at_least=0), default=1e-5, help="weight decay")
    cli.add_seed(options)
    add("--verbose", action="store_true", help="print both accuracies after every epoch")
    add("-o", "--output", type=cli.csv_file, help="CSV to write; a figure, accuracy over rank, goes beside it")
    cli.add_figure(options)
    cli.add_resume(options)
    return options


def probe(args) -> None:
    from src.checkpoints import load_model
    from src.console import note, progress, result
    from src.datasets import dataset_info, load_dataset
    from src.errors import UserError
    from src.low_rank import descending
    from src.probe_results import rows_of, write_table
    from src.probing import Probes, decay_epochs
    from src.runs import Run
    from src.runtime import device_of
    from src.training import EpochLog, Settings, evaluate, train

    settings = Settings(args.n_epochs, args.batch_size, learning_rate=args.learning_rate, seed=args.seed,
                        weight_decay=args.weight_decay, reduce_lr_epochs=decay_epochs(args.n_epochs))  # fmt: skip
    device, info = device_of(args.gpu), dataset_info(args.dataset, labelled=True)
    run = Run.beside(args.output, vars(args)) if args.output else None
    if args.resume and not run:
        raise UserError("--resume goes on from files beside the table of -o; give -o as well")
    if args.resume and not run.left_to_do(resume=True):
        return
    image = {"n_classes": info.n_classes, "image_shape": info.image_shape}
    model = load_model(**named(args, "model"), **image, device=device)
    layers = list(dict.fromkeys(layer for text in args.layer_names for layer in model.layers(text)))
    model = model.channels_first(layers, image_shape=info.image_shape, channels_last=args.channels_last)
    ranks = descending(args.ranks)
    task = Probes(model, layers, ranks, **image, seed=args.seed)
    data, placing = (args.dataset, args.dataset_root), cli.placing_of(args, device)
    train_set, test_set = (load_dataset(*data, train=t, **placing) for t in (True, False))

    if run:
        run.claim(resume=args.resume)
    result(str(sys.argv))
    for history, state in train(task, train_set, test_set, settings, state=run and run.state.get("loop")):
        epoch, logs = len(history), history[-1]
        if run:
            run.save(loop=state)
        for (layer, rank), log in zip(task.probes, logs, strict=True):
            if args.verbose:
                whose = f"{layer} -- rank {rank} -- " if len(logs) > 1 else ""
                result(f"{whose}Epoch #{epoch} train acc: {log.train.accuracy}")
                result(f"{whose}Epoch #{epoch} val acc: {log.val.accuracy}")
    if not settings.n_epochs:  # the probes as they were drawn
        batches = progress(test_set.batches(args.batch_size), "evaluating", test_set.n_batches(args.batch_size))
        logs = [EpochLog(None, score) for score in evaluate(task, batches, device=device)]

    last = dict(zip(task.probes, logs, strict=True))
    for layer in layers:
        accuracies = {rank: last[layer, rank].val.accuracy for rank in ranks}
        result(f"{args.model_path} -- {layer}")
        result("".join(f"Rank {rank}: {accuracy}\n" for rank, accuracy in accuracies.items()))
        result("\n".join(map(str, accuracies.values())))
    result("\n\n")
    if run:
        made = {"model": args.model_path, "seed": args.seed, "epochs": args.n_epochs}
        made |= {"model_type": args.model_type, "dataset": args.dataset, "n_images": len(test_set)}
        write_table(args.output, rows_of(last, made_with=made), task.widths, **cli.figure_of(args))
        run.finish()
        note(f"wrote {args.output}")


def main(argv=None) -> int:
    return cli.run(parser(), probe, argv)


if __name__ == "__main__":
    sys.exit(main())
