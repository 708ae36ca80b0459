#!/usr/bin/env python3
"""Train linear probes on layers of a network, at full rank or on their first principal
components."""

import sys

from src import cli


def parser() -> cli.Parser:
    options = cli.Parser(
        "Train linear probes at all given layers and ranks together; prints their test accuracies."
    )
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
    add(
        "-e",
        "--epochs",
        dest="n_epochs",
        type=cli.whole_number(0),
        default=10,
        help="number of epochs",
    )
    add("-lr", "--learning-rate", type=cli.real_number(above=0), default=1e-3,
        help="learning rate; of more than five epochs, the last five have a tenth of it")  # fmt: skip
    add(
        "-wd",
        "--weight_decay",
        "--weight-decay",
        type=cli.real_number(at_least=0),
        default=1e-5,
        help="weight decay",
    )
    add("-s", "--seed", type=cli.whole_number(0), default=0, help="random seed")
    add("--verbose", action="store_true", help="print both accuracies after every epoch")
    add(
        "-o",
        "--output",
        type=cli.csv_file,
        help="CSV to write; a figure, accuracy over rank, goes beside it",
    )
    cli.add_figure(options)
    add("--with-head", metavar="DIR",
        help="with -l output: write DIR/model_<epoch>.pt, the network with the probe as its head, for an encoder that "
        "is to be an end network")  # fmt: skip
    cli.add_resume(options)
    return options


def probe(args, session=None) -> None:
    """Run the experiment. All experiments of one `session` share its networks and images."""
    from src.console import progress
    from src.datasets import dataset_info
    from src.errors import UserError
    from src.low_rank import descending
    from src.probing import Probes
    from src.results.run import Run
    from src.runtime import device_of
    from src.session import Session
    from src.training import evaluate

    if args.resume and not args.output:
        raise UserError("--resume goes on from files beside the table of -o; give -o as well")

    # A network, and one probe for each of its layers and each rank.
    session = session or Session()
    device = device_of(args.gpu)
    spec = dataset_info(args.dataset, labelled=True).spec
    model = cli.load_network(args, cli.PROBED, spec, session=session, device=device)
    run = Run.beside(args.output, vars(args)) if args.output else None
    if args.resume and run.skip_if_finished(resume=True):
        return
    task = Probes(model.network, model.layers, descending(args.ranks), spec, seed=args.seed)
    if args.with_head:
        check_head(args, task, spec)

    # The images.
    loading = cli.load_options(args, device)
    train_set = session.dataset(args.dataset, args.dataset_root, train=True, **loading)
    test_set = session.dataset(args.dataset, args.dataset_root, train=False, **loading)

    # All probes train together; without epochs they stay as they were drawn.
    if run:
        run.claim(resume=args.resume)
        if args.resume and run.skip_if_finished(resume=True):  # by another process, in the meantime
            return
    print_start()
    if args.n_epochs:
        trained, tested = train_probes(args, task, train_set, test_set, run)
    else:
        batches = progress(
            test_set.batches(args.batch_size), "evaluating", test_set.n_batches(args.batch_size)
        )
        trained, tested = {}, dict(zip(task.probes, evaluate(task, batches), strict=True))

    # Their accuracies.
    print_accuracies(args, task, tested)
    if args.with_head:
        save_with_head(args, task)
    if run:
        write_table(
            args, run, task, trained, tested, weights=model.name.identity, n_images=len(test_set)
        )


def check_head(args, task, spec) -> None:
    """Raise a UserError unless the only probe can become the head of an encoder."""
    from src.errors import UserError

    if task.layers not in (["output"], [task.network.output_name]) or task.ranks != [None]:
        raise UserError(
            "--with-head takes one probe, of the output at full rank: give -l output and no -ranks"
        )
    if not task.network.is_encoder:
        raise UserError(
            f"--with-head is for encoders; {args.model_type} gives {spec.n_classes} logits already"
        )
    if args.model_type.startswith("tv_"):
        raise UserError(
            f"--with-head is for encoders; {args.model_type} has a head for the classes of its weights: give a "
            "FILE.py:FUNCTION that leaves the head out"
        )


def print_start() -> None:
    """Print the command as the public code does, and a note on what follows it."""
    from src.console import note, result

    note(
        "Printed, as by the paper's code: the command, and of each layer the test accuracy of the probe at each rank "
        "(None: full), then these accuracies alone"
    )
    result(str(sys.argv))


def train_probes(args, task, train_set, test_set, run):
    """Train all probes; return by layer and rank the results on training and on test images of the
    last epoch."""
    from src.console import result
    from src.probing import decay_epochs
    from src.training import Settings, train

    settings = Settings(
        args.n_epochs,
        args.batch_size,
        learning_rate=args.learning_rate,
        seed=args.seed,
        weight_decay=args.weight_decay,
        reduce_lr_epochs=decay_epochs(args.n_epochs),
    )
    begun = run.state.get("loop") if run else None
    for history, state in train(task, train_set, test_set, settings, state=begun):
        if run:
            run.save(loop=state)
        logs = dict(zip(task.probes, history[-1], strict=True))
        for (layer, rank), log in logs.items() if args.verbose else ():
            whose = f"{layer} -- rank {rank} -- " if len(logs) > 1 else ""
            result(f"{whose}Epoch #{len(history)} train acc: {log.train.accuracy}")
            result(f"{whose}Epoch #{len(history)} val acc: {log.val.accuracy}")
    trained = {key: log.train for key, log in logs.items()}
    tested = {key: log.val for key, log in logs.items()}
    return trained, tested


def print_accuracies(args, task, tested) -> None:
    """Print the test accuracies of each layer the way the public code does."""
    from src.console import result

    for layer in task.layers:
        accuracies = {rank: tested[layer, rank].accuracy for rank in task.ranks}
        result(f"{args.model_path} -- {layer}")
        result("".join(f"Rank {rank}: {accuracy}\n" for rank, accuracy in accuracies.items()))
        result("\n".join(map(str, accuracies.values())))
    result("\n\n")


def save_with_head(args, task) -> None:
    """Save the network with the only probe as its head."""
    from pathlib import Path

    from src.checkpoints import save_state
    from src.console import note
    from src.results.options import write_options

    (head,) = task.heads
    path = Path(args.with_head, f"model_{args.n_epochs}.pt")
    state_of_head = {f"linear_probe.{key}": value for key, value in head.state_dict().items()}
    save_state(path, task.network.state_dict() | state_of_head)
    write_options(
        path.with_suffix(".config.txt"), vars(args)
    )  # so that fresh weights are known as such
    note(f"wrote {path}")


def write_table(args, run, task, trained, tested, *, weights, n_images) -> None:
    """Write the table and its figure, and finish the run."""
    from pathlib import Path

    from src.console import note
    from src.probing.probe_rows import ProbeRow, write_files

    rows = []
    for (layer, rank), on_test in tested.items():
        on_training = trained.get((layer, rank))
        rows.append(
            ProbeRow(
                args.model_path,
                layer,
                rank,
                accuracy=on_test.accuracy,
                train_accuracy=on_training.accuracy if on_training else None,
                loss=on_test.loss,
                seed=args.seed,
                epochs=args.n_epochs,
                model_type=args.model_type,
                dataset=args.dataset,
                n_images=n_images,
                shortcut=args.shortcut,
                model_weights=weights,
            )
        )
    write_files(Path(args.output), rows, task.widths, **cli.figure_options(args))
    run.finish()
    note(f"wrote {args.output}")


def main(argv=None) -> int:
    return cli.run(parser(), probe, argv)


if __name__ == "__main__":
    sys.exit(main())
