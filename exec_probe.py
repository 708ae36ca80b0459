#!/usr/bin/env python3
"""Train linear probes on layers of a network, at full rank or on principal components."""

import sys
from argparse import Namespace
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src import cli, figures, results
from src.core.choices.datasets import dataset_label
from src.core.console import counted, note, result, warn, warn_once
from src.core.errors import UserError
from src.results.run import Run
from src.results.spec import ABSENT_IN_TABLES, further_options, short_images

if TYPE_CHECKING:
    from src.datasets.base import InputSet
    from src.training import EpochLog, HeadResult
    from src.training.probes import LayerAndRank, Probes

    Results = Mapping[LayerAndRank, HeadResult]

# The options with a column of the table
IN_COLUMNS = (
    "model_path",
    "model_type",
    "layer_names",
    "ranks",
    "n_epochs",
    "dataset",
    "shortcut",
    "seed",
)


def parser() -> cli.Parser:
    options = cli.Parser(
        "Train linear probes on layers of a network, one for each layer and rank; prints their test accuracies. "
        "With more than five epochs, the last five have a tenth of the learning rate."
    )
    add = options.add_argument
    add("model_path", help=cli.CHECKPOINT)
    add("model_type", type=cli.network, help=cli.NETWORKS)
    add(
        "-l",
        "--layers",
        dest="layer_names",
        nargs="+",
        required=True,
        help="layers to probe, separated by blanks or commas; or all",
    )
    add(
        "-ranks",
        "--ranks",
        type=cli.integer_from_0,
        nargs="*",
        default=[],
        help="numbers of principal components of a batch to keep; a probe is trained for each number. 0, and the "
        "default: all components",
    )
    cli.add_gpu(options)
    cli.add_data(options, batch_size=64)
    cli.add_interventions(options, of_tests=True)
    cli.add_channels_last(options)
    cli.add_training(options, n_epochs=10, has_steps=False)
    add(
        "--verbose",
        action="store_true",
        help="print the accuracies on training and test inputs after every epoch",
    )
    add(
        "-o",
        "--output",
        type=cli.csv_file,
        help="CSV to write; a figure of accuracy over rank is drawn beside it",
    )
    cli.add_resume(options)
    return options


def main(args: Namespace, session: "results.checkpoints.Session | None" = None) -> None:
    """Train the probes, print their accuracies, and write the table.

    Args:
        session: shares networks and inputs between experiments.
    """
    from src.training.probes import Probes

    check_options(args)

    # The network, and a probe for each layer and rank
    session, device, spec = cli.begin(args, session)
    (model,) = cli.load_networks(args, cli.PROBED, images=spec, session=session, device=device)
    task = Probes(model.network, model.layers, cli.descending(args.ranks), spec, seed=args.seed)
    warn_of_ranks(args, task)

    # The inputs
    train_set = cli.load_split(args, session, device, train=True)
    test_set = cli.load_split(args, session, device, train=False)
    session.warn_at_chance(model.name, model.network, test_set)

    # The training, unless the run is finished, maybe by another process in the meantime
    run = Run.beside(args.output, vars(args), script=__file__) if args.output else None
    if run:
        if args.resume and run.skip_if_finished(resume=True):
            return
        cli.claim(run, args)
        if args.resume and run.skip_if_finished(resume=True):
            return
    print_start()
    trained: Results = {}
    if args.n_epochs == 0:
        tested = evaluate_probes(args, task, test_set)
    else:
        trained, tested = train_probes(args, task, train_set, test_set, run)

    # The results
    print_accuracies(args, task, tested)
    if run:
        weights = model.name.identity
        rows = rows_of(args, task, trained, tested, weights=weights, n_images=len(test_set))
        write_table(args, run, task, rows)
    if trained:
        note(answer(tested))


def check_options(args: Namespace) -> None:
    """Raise a UserError for options that contradict each other."""
    if args.output and args.n_epochs == 0:
        raise UserError(
            "-e 0 trains no probe, and a table would have accuracies of randomly initialised probes; leave out -o, or "
            "give -e 1 or more"
        )
    if args.resume and not args.output:
        raise UserError("--resume continues from files beside the table of -o; give -o as well")


def warn_of_ranks(args: Namespace, task: "Probes") -> None:
    """Warn of ranks above the width of a layer."""
    for rank, layer in product(args.ranks, task.layers):
        if rank > task.widths[layer]:
            warn(
                f"-ranks {rank} is above the width of {layer} ({task.widths[layer]}): all components are kept"
            )


def print_start() -> None:
    """Print the command as the public code does, and a note on the output."""
    note(
        "the output has the format of the paper's code: a line with the list of arguments; then, for each layer, the "
        "test accuracy of the probe of each rank (None: full rank), and the same accuracies without ranks"
    )
    result(str(sys.argv))


def train_probes(
    args: Namespace,
    task: "Probes",
    train_set: "InputSet",
    test_set: "InputSet",
    run: Run | None,
) -> "tuple[Results, Results]":
    """Train all probes; return the results of the last epoch on training and on test inputs."""
    from src.training import Settings, train
    from src.training.probes import decay_epochs

    settings = Settings(
        args.n_epochs,
        args.batch_size,
        learning_rate=args.learning_rate,
        seed=args.seed,
        weight_decay=args.weight_decay,
        reduce_lr_epochs=decay_epochs(args.n_epochs),
    )
    start = run.state.get("loop") if run else None
    for history, state in train(task, train_set, test_set, settings, state=start):
        if run:
            run.save(loop=state)
        if args.verbose:
            print_epoch(len(history), history[-1])
    trained = {key: log.train for key, log in history[-1].items()}
    tested = {key: log.val for key, log in history[-1].items()}
    return trained, tested


def evaluate_probes(args: Namespace, task: "Probes", test_set: "InputSet") -> "Results":
    """Return the results of probes that were not trained, on test inputs."""
    from src.training import evaluate

    warn("-e 0: these are the accuracies of randomly initialised probes, which were not trained")
    return evaluate(task, cli.batches_of(test_set, args.batch_size))


def print_epoch(epoch: int, logs: "Mapping[LayerAndRank, EpochLog]") -> None:
    """Print the accuracies of an epoch, by layer and rank if there are several probes."""
    for (layer, rank), log in logs.items():
        name = f"{layer} -- rank {rank} -- " if len(logs) > 1 else ""
        result(f"{name}Epoch #{epoch} train acc: {log.train.accuracy}")
        result(f"{name}Epoch #{epoch} val acc: {log.val.accuracy}")


def print_accuracies(args: Namespace, task: "Probes", tested: "Results") -> None:
    """Print the test accuracies of each layer the way the public code does."""
    for layer in task.layers:
        accuracies = {rank: tested[layer, rank].accuracy for rank in task.ranks}
        result(f"{args.model_path} -- {layer}")
        result("".join(f"Rank {rank}: {accuracy}\n" for rank, accuracy in accuracies.items()))
        result("\n".join(map(str, accuracies.values())))
    result("\n\n")


def answer(tested: "Results") -> str:
    """Return the sentence that ends the output: the highest test accuracy with its layer and rank."""
    layer, rank = max(tested, key=lambda probe: tested[probe].accuracy)
    of_rank = "full rank" if rank is None else f"rank {rank}"
    accuracy = tested[layer, rank].accuracy
    return f"highest accuracy of {counted(len(tested), 'probe', 'probes')}: {accuracy:.2%} ({layer}, {of_rank})"


def rows_of(
    args: Namespace,
    task: "Probes",
    trained: "Results",
    tested: "Results",
    *,
    weights: str,
    n_images: int,
) -> list[dict[str, Any]]:
    """Return the row of each layer and rank; of ranks that keep the same components, the first."""
    from src.training.probes import used_rank

    rows: dict[LayerAndRank, dict[str, Any]] = {}
    for (layer, rank), on_test in tested.items():
        n_samples = min(args.batch_size, n_images) * task.n_positions[layer]
        used = used_rank(rank, task.widths[layer], n_samples)
        if used != rank:
            warn_once(
                f"-ranks {rank}: activations of {layer} have {used} components; the table has rank {used}"
            )
        row = {
            "model": args.model_path,
            "layer": layer,
            "rank": used,
            "accuracy": on_test.accuracy,
            "train_accuracy": trained[layer, rank].accuracy,
            "loss": on_test.loss,
            "seed": args.seed,
            "epochs": args.n_epochs,
            "model_type": args.model_type,
            "dataset": dataset_label(args.dataset),
            "n_images": n_images,
            "shortcut": args.shortcut,
            "model_weights": weights,
            **short_images(vars(args)),
            "further_options": further_options(vars(args), IN_COLUMNS, ABSENT_IN_TABLES),
        }
        rows.setdefault((layer, used or task.widths[layer]), row)
    return list(rows.values())


def write_table(args: Namespace, run: Run, task: "Probes", rows: list[dict[str, Any]]) -> None:
    """Write the table and its figure, and finish the run."""
    path = Path(args.output)
    accuracies: dict[str, dict[int | None, float]] = {}  # ranks end at the width of the layer
    for row in rows:
        rank = row["rank"] or task.widths[row["layer"]]
        accuracies.setdefault(row["layer"], {})[rank] = row["accuracy"]
    with run.replacing():
        results.tables.write_table(path, results.tables.PROBES, rows)
        source = figures.pages.on_data("1 network", {(args.dataset, rows[0]["n_images"])})
        drawing = path.with_suffix(".png")
        figures.curves.draw_ranks(
            drawing, {"": accuracies}, y_title="accuracy of probes", source=source
        )
    note(f"wrote {args.output}")


if __name__ == "__main__":
    sys.exit(cli.run(parser(), main))
