#!/usr/bin/env python3
"""Train linear probes on layers of a network, at full rank or on their first principal components."""

import sys

from src import cli


def parser() -> cli.Parser:
    options = cli.Parser("Train linear probes at all given layers and ranks together; prints their test accuracies.")
    add = options.add_argument
    add("model_path", help=cli.CHECKPOINT)
    add("model_type", type=cli.network, help=cli.NETWORKS)
    add("-l", "--layers", dest="layer_names", nargs="+", required=True,
        help="layers to probe, with blanks or commas between them, or all")  # fmt: skip
    add("-ranks", "--ranks", type=cli.whole_number(0), nargs="*", default=[],
        help="principal components to keep, in each batch; one probe each at every layer; 0, default: all")  # fmt: skip
    cli.add_gpu(options)
    cli.add_data(options, batch_size=64)
    cli.add_interventions(options, of_tests=True)
    cli.add_channels_last(options)
    add("-e", "--epochs", dest="n_epochs", type=cli.whole_number(0), default=10, help="number of epochs")
    add("-lr", "--learning-rate", type=cli.real_number(above=0), default=1e-3,
        help="learning rate; of more than five epochs, the last five have a tenth of it")  # fmt: skip
    add("-wd", "--weight_decay", "--weight-decay", type=cli.real_number(at_least=0), default=1e-5, help="weight decay")
    add("-s", "--seed", type=cli.whole_number(0), default=0, help="random seed")
    add("--verbose", action="store_true", help="print both accuracies after every epoch")
    add("-o", "--output", type=cli.csv_file, help="CSV to write; a figure, accuracy over rank, goes beside it")
    cli.add_figure(options)
    add("--with-head", metavar="DIR",
        help="with -l output: write DIR/model_<epoch>.pt, the network with the probe as its head, for an encoder that "
        "is to be an end network")  # fmt: skip
    cli.add_resume(options)
    return options


def probe(args, session=None) -> None:
    """Run the experiment; `session` keeps the network and the images for others of this process."""
    from pathlib import Path

    from src.checkpoints import save_state
    from src.console import note, progress, result
    from src.datasets import dataset_info
    from src.errors import UserError
    from src.low_rank import descending
    from src.probing import Probes, decay_epochs
    from src.probing.rows import ProbeRow, write_files
    from src.results.options import write_options
    from src.results.run import Run
    from src.runtime import device_of
    from src.session import Session
    from src.training import EpochLog, Settings, evaluate, train

    settings = Settings(
        args.n_epochs,
        args.batch_size,
        learning_rate=args.learning_rate,
        seed=args.seed,
        weight_decay=args.weight_decay,
        reduce_lr_epochs=decay_epochs(args.n_epochs),
    )
    device, spec = device_of(args.gpu), dataset_info(args.dataset, labelled=True).spec
    if args.resume and not args.output:
        raise UserError("--resume goes on from files beside the table of -o; give -o as well")
    session = session or Session()
    model, name = cli.load_network(args, "model", spec, session=session, device=device, encoder=True)
    run = Run.beside(args.output, vars(args)) if args.output else None
    if args.resume and run.skip_if_finished(resume=True):
        return

    # One probe for each layer and rank.
    model, layers = cli.choose_layers(model, ",".join(args.layer_names), args, image_shape=spec.shape)
    ranks = descending(args.ranks)
    if args.with_head and (layers not in (["output"], [model.output_name]) or ranks != [None]):
        raise UserError("--with-head takes one probe, of the output at full rank: give -l output and no -ranks")
    if args.with_head and not model.is_encoder:
        raise UserError(f"--with-head is for encoders; {args.model_type} gives {spec.n_classes} logits already")
    task = Probes(model, layers, ranks, spec, seed=args.seed)
    loading = cli.load_options(args, device)
    train_set = session.dataset(args.dataset, args.dataset_root, train=True, **loading)
    test_set = session.dataset(args.dataset, args.dataset_root, train=False, **loading)

    # All of them train together.
    if run:
        run.claim(resume=args.resume)
        if args.resume and run.skip_if_finished(resume=True):  # by another process, in the meantime
            return
    note("Printed, as by the paper's code: the command, and of each layer the test accuracy of the probe at each rank "
         "(None: full), then these accuracies alone")  # fmt: skip
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
        logs = [EpochLog(None, score) for score in evaluate(task, batches)]

    # Their accuracies.
    last = dict(zip(task.probes, logs, strict=True))
    for layer in layers:
        accuracies = {rank: last[layer, rank].val.accuracy for rank in ranks}
        result(f"{args.model_path} -- {layer}")
        result("".join(f"Rank {rank}: {accuracy}\n" for rank, accuracy in accuracies.items()))
        result("\n".join(map(str, accuracies.values())))
    result("\n\n")
    if args.with_head:
        (head,) = task.heads
        path = Path(args.with_head, f"model_{args.n_epochs}.pt")
        own = {f"linear_probe.{key}": value for key, value in head.state_dict().items()}
        save_state(path, model.state_dict() | own)
        write_options(path.with_suffix(".config.txt"), vars(args))  # so that fresh weights are known as such
        note(f"wrote {path}")
    if run:
        made_with = (args.seed, args.n_epochs, args.model_type, args.dataset, len(test_set), args.shortcut,
                     name.identity)  # fmt: skip
        rows = []
        for (layer, rank), (trained, val) in last.items():
            scores = val.accuracy, trained and trained.accuracy, val.loss
            rows.append(ProbeRow(args.model_path, layer, rank, *scores, *made_with))
        write_files(Path(args.output), rows, task.widths, **cli.figure_options(args))
        run.finish()
        note(f"wrote {args.output}")


def main(argv=None) -> int:
    return cli.run(parser(), probe, argv)


if __name__ == "__main__":
    sys.exit(main())
