"""A paragraph for the method section of a paper, made of the options of the runs that it is about."""

from collections.abc import Iterable, Mapping, Sequence

from src.choices import STARTS, STITCHING_TYPES, Options
from src.choices.scores import SCORES
from src.choices.similarity import measure_of
from src.choices.stitching import FORMS, INITS, OBJECTIVES
from src.collected.record import Command
from src.ground.console import listed
from src.ground.grouping import grouped
from src.ground.user_code import title_of
from src.reports.verdict_report import rule
from src.runs.folders import StitchingRun
from src.tables.experiments import NETWORKS, method_names
from src.tables.network_names import SHORT, short
from src.tables.similarity_rows import SimilarityRow
from src.tables.stitch_rows import StitchRow
from src.verdict import Limits

CUTOFFS = {"paper": "max(rows, columns)·eps(float32)", "exact": "columns·eps(float32)"}
N_NAMED = 6  # values of a setting that a sentence names

STITCHING = (
    "We stitched networks (Balogh and Jelasity 2025): the activation of a front network at one layer is mapped by an "
    "affine stitching layer ({types}) to the activation space of a layer of an end network, which goes on from there."
)
SKILL = (
    "Whether a stitched network follows the end network within a class was measured on {n} test images by skill: the "
    "correlation of both, less the mean of each class that the end network predicts, relative to the correlation of a "
    "stitch from the class beside untrained networks."
)
TESTS = (
    "The score test of losses of accuracy is Tango's for paired proportions{correction}; intervals of skill are "
    "jackknifed over images."
)
CORRECTION = ", with the false discovery rate of Benjamini and Hochberg"


def by_method(runs: Sequence[StitchingRun]) -> dict[str, list[StitchingRun]]:
    """Return stitches by the name of their method, as in a verdict."""
    apart_from = (*NETWORKS, "seed")
    methods = method_names([run.row for run in runs], apart_from=apart_from)
    by_name = grouped(zip(methods, runs, strict=True), lambda item: item[0])
    return {name: [run for _, run in items] for name, items in by_name.items()}


def description(
    runs_of_method: Mapping[str, Sequence[StitchingRun]],
    similarities: Sequence[SimilarityRow],
    limits: Limits,
) -> str:
    """Return the sentences on stitching, each method, the verdict and measures of similarity.

    Args:
        runs_of_method: stitches, see `by_method`.
    """
    texts = []
    if runs_of_method:
        texts += _on_stitches(runs_of_method)
        texts.append(rule(limits))
        texts += _on_evaluation(runs_of_method, limits)
    if similarities:
        texts.append(_on_similarities(similarities))
    return " ".join(texts)


def _on_stitches(runs_of_method: Mapping[str, Sequence[StitchingRun]]) -> list[str]:
    """Return the sentences on the stitched layers and networks, and on the methods."""
    runs = [run for runs in runs_of_method.values() for run in runs]
    rows = [run.row for run in runs]
    types = "; ".join(map(_in_words, dict.fromkeys(row.stitching_type for row in rows)))
    networks = {row.network_keys for row in rows}
    pairs = {(row.network_keys, row.pair) for row in rows}
    sentences = [STITCHING.format(types=types)]
    sentences.append(
        f"We took {_counted(len(pairs), 'pair')} of layers of {_counted(len(networks), 'pair')} of networks, and the "
        f"test images of {_images_of(rows)}."
    )
    for method, of_method in runs_of_method.items():
        ways = listed(dict.fromkeys(how(run.options) for run in of_method), n=N_NAMED)
        seeds = len({run.row.seed for run in of_method})
        repeated = f", with {seeds} seeds" if seeds > 1 else ""
        sentences.append(f"{method[0].upper()}{method[1:]}: {ways}{repeated}.")
    return sentences


def _in_words(stitching_type: str) -> str:
    """Return a stitching type, the kinds of activations it is between, and how it reads positions."""
    between = STITCHING_TYPES[stitching_type]
    text = f"{stitching_type}, {between.source} to {between.target}"
    if stitching_type == "t2t":
        text += ", or vector to vector"
    if between.reading:
        text += f": {between.reading}"
    return text


def how(options: Options) -> str:
    """Return how a stitching layer was made, in words.

    Args:
        options: of its run.
    """
    init = options["init"]
    start = "random weights" if init == "rand" else INITS[init]
    n_matched = options.get("n_pinv_init_samples")
    if init not in STARTS and n_matched:
        images = "as many training images as the pair of layers needs"
        if n_matched != "auto":
            images = f"{n_matched} training images"
        start += f", on {images}"
    if FORMS.get(init) and FORMS[init].cuts_off:
        cutoff = options.get("pinv_cutoff", "paper")
        start += f" (singular values below {CUTOFFS.get(cutoff, cutoff)} of the largest left out)"
    rank = options.get("front_stitch_rank")
    if rank:
        start += f", of the front activation cut to {_counted(rank, 'principal component')}"
    if not options.get("n_epochs"):
        return start
    return f"trained for {_training(options)}, from {start}"


def _training(options: Options) -> str:
    """Return the epochs, the objective and the optimizer of a training in words."""
    objective = options.get("objective", "task")
    loss = title_of(objective)
    if objective in OBJECTIVES:
        loss = OBJECTIVES[objective].description
    epochs = _counted(options["n_epochs"], "epoch")
    details = [
        f"{title} {options[name]}"
        for name, title in (
            ("learning_rate", "learning rate"),
            ("weight_decay", "weight decay"),
            ("batch_size", "batch size"),
        )
        if options.get(name) is not None
    ]
    if options.get("scheduler") == "cosine":
        details.append("cosine schedule")
    if not options.get("mod_only_stitch"):
        details.append("statistics of BatchNorms updated")
    optimizer = options.get("optimizer", "adam")
    return f"{epochs} on the {loss} by {optimizer} ({', '.join(details)})"


def _on_evaluation(
    runs_of_method: Mapping[str, Sequence[StitchingRun]], limits: Limits
) -> list[str]:
    """Return the sentences on skill, tests and detectors, as far as they were used."""
    runs = [run for runs in runs_of_method.values() for run in runs]
    sentences = []
    numbers = {run.skill.n_images for run in runs if run.skill is not None}
    if numbers:
        sentences.append(SKILL.format(n=listed(sorted(numbers), n=N_NAMED)))
    correction = "" if limits.pairwise else CORRECTION
    sentences.append(TESTS.format(correction=correction))
    detectors = dict.fromkeys(name for run in runs for name in run.evaluations)
    if detectors:
        descriptions = {name: score.description for name, score in SCORES.items()}
        titles = [descriptions.get(name, name) for name in detectors]
        sentences.append(
            f"Out-of-distribution detectors compare stitched activations with the end network's own: {listed(titles)}."
        )
    return sentences


def _on_similarities(rows: Sequence[SimilarityRow]) -> str:
    """Return the sentence on measures of similarity."""
    measures = dict.fromkeys(name for row in rows for name in row.compared.values)
    titles = listed(measure_of(name).description for name in measures)
    numbers = listed(sorted({row.n_samples for row in rows}), n=N_NAMED)
    datasets = listed(dict.fromkeys(short(row.dataset) for row in rows), n=N_NAMED)
    return f"Layers were also compared by {titles}, on {numbers} test images of {datasets}."


def on_versions(commands: Sequence[Command], own_command: Command) -> str:
    """Return the sentences on the versions and the devices of the results, and of their report.

    Args:
        commands: that made the results; empty where they recorded none.
        own_command: that makes the report.
    """
    report = f"Reported by version {_version(own_command)} of the stitching suite."
    if not commands:
        return report
    suites = dict.fromkeys(map(_version, commands))
    packages = dict.fromkeys(row.packages for row in commands)
    devices = dict.fromkeys(row.device for row in commands)
    return (
        f"Computed with version {' and '.join(suites)} of the stitching suite, {' and '.join(packages)}, on "
        f"{' and '.join(devices)}. {report}"
    )


def _version(command: Command) -> str:
    """Return the version of the suite, with its commit."""
    if not command.commit:
        return command.suite
    return f"{command.suite} (commit {command.commit[:SHORT]})"


def _images_of(rows: Iterable[StitchRow]) -> str:
    """Return the data sets of stitches, with the numbers of their images."""
    sets = dict.fromkeys((short(str(row.dataset)), row.n_images) for row in rows)
    titles = []
    for name, n_images in sets:
        if n_images:
            name += f" ({n_images} images)"
        titles.append(name)
    return listed(titles, n=N_NAMED)


def _counted(n: int, noun: str) -> str:
    """Return a number of things, such as "1 pair" or "2 pairs"."""
    return f"1 {noun}" if n == 1 else f"{n} {noun}s"
