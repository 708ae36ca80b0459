#!/usr/bin/env python3
"""Do measures of similarity see how a network computes? The study of misc/docs/mechanisms.md: networks
that multiply in a group are stitched, compared, and set against the truth in their weights."""

import os
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from misc import all_pairs, collect_results
from misc.pairs import options_of
from src import cli

TYPE = f"{Path(__file__).resolve().parent / 'multiplier'}.py:network"
METHODS = ["pinv", "covariance", "task:20"]
SIMILARITIES = ["cka_debiased", "mutual_knn", "pwcca", "procrustes"]
MATCHED = 5 / 12  # share of all pairs of elements
TESTING = 5 / 24  # likewise
IN_MAPS = ("task accuracy", "pinv accuracy", "pinv skill", "cka_debiased")
ACCURATE = ("similar", "accurate only")  # words of stitches that keep their accuracy
TITLES = {
    "direct matching": "pinv",
    "covariance matching": "covariance",
    "task loss matching": "task",
}


def parser() -> cli.Parser:
    options = cli.Parser(
        "Stitch and compare networks that multiply in a group, and compare every measure with the truth in their "
        "weights. After an interruption, the same command resumes."
    )
    add = options.add_argument
    add("networks", nargs="+", metavar="FILE", help="state dicts of the networks, of one group")
    add(
        "-o",
        "--output",
        required=True,
        help="NAME of all outputs: NAME.md, NAME.csv and others, and the folder results/NAME",
    )
    add("--layer", default="hidden", help="layer that is stitched and compared")
    add("--methods", nargs="+", default=METHODS, type=all_pairs.method, help="of stitching")
    cli.add_gpu(options)
    return options


def study(args) -> None:
    from misc.mechanism_statistics import products_of, read_network, tests_of, truths_of
    from src.core.files import write_csv

    folder = Path("results", args.output)
    names = [Path(path).stem for path in args.networks]
    networks = [read_network(path) for path in args.networks]
    products = products_of(networks)
    truths = truths_of(networks, products)
    write_inputs(folder / "pairs.npz", products)
    rows = [
        {"name": name, "path": str(Path(path).resolve()), "type": TYPE}
        for name, path in zip(names, args.networks, strict=True)
    ]
    write_csv(folder / "networks.csv", list(rows[0]), rows)

    # Stitches, similarities and verdicts, and one table of all measurements
    pairs = options_of(
        all_pairs,
        args,
        networks=str(folder / "networks.csv"),
        layers=args.layer,
        stitching_type="auto",
        save_dir=args.output,
        methods=args.methods,
        own_types=[TYPE],
        dataset=str(folder / "pairs.npz"),
        batch_size=250,
        learning_rate=0.003,
        metrics=SIMILARITIES,
        alignment="pool",
    )
    verdict = f"{args.output}_verdict.csv"
    all_pairs.work_and_judge(pairs, verdict, f"{args.output}.html")
    table = ["-r", "--networks", pairs.networks, "-o", f"{args.output}_grid.csv"]
    collect_results.collect(collect_results.parser().parse_args([str(folder), *table]))

    measures = read_measures(f"{args.output}_grid_measurements.csv", verdict, names)
    write_truths(Path(f"{args.output}_truths.csv"), truths, names)
    write_tests(Path(args.output), tests_of(measures, truths))
    draw_maps(Path(f"{args.output}_maps.png"), measures, truths, names)


def write_inputs(path: Path, products) -> None:
    """Write pairs of elements and their products as a data set: pairs to match on, and pairs to test on.

    Args:
        products: (n, n) of a group of n elements.
    """
    import numpy as np

    from src.core.files import new_file

    n_pairs = products.size
    order = np.random.default_rng(0).permutation(n_pairs)
    first = round(MATCHED * n_pairs)
    last = round((MATCHED + TESTING) * n_pairs)
    arrays = {}
    for split, chosen in (("train", order[:first]), ("test", order[first:last])):
        arrays[f"x_{split}"] = np.stack(np.divmod(chosen, len(products)), axis=1)
        arrays[f"y_{split}"] = products.ravel()[chosen]
    with new_file(path) as file:
        np.savez(file, **arrays)


def read_measures(table: str, verdict: str, names: Sequence[str]) -> dict:
    """Return the measures of two networks, (n, n) of front and end, from both tables; NaN: not measured."""
    import numpy as np

    from misc.mechanism_statistics import COMPARED, IS_ACCURATE, MEASURES, WORD
    from src.core.files import read_csv

    n = len(names)
    measures = {name: np.full((n, n), np.nan) for name in (*COMPARED, IS_ACCURATE)}
    column_of = {(method, column): name for name, (method, column, _) in MEASURES.items()}
    for row in read_csv(table):
        method = TITLES.get(row["method"], row["method"])
        name = column_of.get((method, row["measure"]))
        if name:
            place = names.index(row["front_network"]), names.index(row["end_network"])
            measures[name][place] = MEASURES[name][2] * float(row["value"])
    for row in read_csv(verdict):
        if TITLES.get(row["method"]) == "pinv":
            place = names.index(row["front_network"]), names.index(row["end_network"])
            measures[WORD][place] = row["verdict"] == ACCURATE[0]
            measures[IS_ACCURATE][place] = row["verdict"] in ACCURATE
    return measures


def write_truths(path: Path, truths, names: Sequence[str]) -> None:
    """Write the truths as a table: a row a pair of networks, a column a truth."""
    from src.core.files import write_csv

    rows = []
    for (front, front_name), (end, end_name) in product(enumerate(names), repeat=2):
        shared = {name: truth[front, end] for name, truth in truths.items()}
        rows.append({"front": front_name, "end": end_name, **shared})
    write_csv(path, list(rows[0]), rows)


def write_tests(path: Path, tests) -> None:
    """Write all numbers (.csv), the table and the outcomes of hypotheses (.md), and the figure of correlations."""
    from misc.mechanism_statistics import LEVEL, TRUTHS, Test, outcomes, table_of
    from src.core.console import result
    from src.core.files import write_csv, write_text
    from src.figures.dots import draw_check
    from src.figures.shown import ABOVE_CHANCE, Shown

    write_csv(path.with_suffix(".csv"), Test._fields, [test._asdict() for test in tests])
    adjusted = [test for test in tests if test.adjusted_p is not None]
    of_measures = [test for test in adjusted if not test.hypothesis]
    of_measures.sort(key=lambda test: (TRUTHS.index(test.truth), -test.value))
    text = "\n".join([*table_of(of_measures), "", *outcomes(adjusted)])
    write_text(path.with_suffix(".md"), text)
    result(text)

    dots = []
    for test in of_measures:
        word = ABOVE_CHANCE if test.adjusted_p < LEVEL else ""
        interval = (test.low, test.high)
        dots.append(Shown(test.truth, test.value, *interval, method=test.measure, verdict=word))
    draw_check(path.with_suffix(".png"), dots)


def draw_maps(path: Path, measures, truths, names: Sequence[str]) -> None:
    """Draw measures of all pairs of networks; networks that share most come last."""
    import numpy as np

    from misc.mechanism_statistics import MEASURES
    from src.figures.maps import draw_layers
    from src.figures.shown import of_matrix
    from src.results.matrices import Matrix

    order = np.argsort(truths["representations"].mean(0))
    n_alike = len(os.path.commonprefix(list(names)))
    labels = [names[place][n_alike:] for place in order]
    maps = []
    for name in IN_MAPS:
        values = measures[name][np.ix_(order, order)]
        maps += of_matrix(Matrix(labels, labels, values.tolist()), MEASURES[name][1], name)
    draw_layers(path, maps, axes=("front network", "end network"))


def main(argv=None) -> int:
    return cli.run(parser(), study, argv)


if __name__ == "__main__":
    sys.exit(main())
