"""Captions of figures in words, ready to paste: networks, images, and how the stitching layers were
made."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from src.choices import STARTS, STITCHING_TYPES
from src.choices.datasets import DATASETS, dataset_label
from src.choices.stitching import INITS, OBJECTIVES
from src.collected.groups import Names
from src.collected.measured import NetworkPair
from src.ground.console import listed
from src.ground.grouping import grouped
from src.ground.user_code import title_of
from src.runs.folders import StitchingRun
from src.tables.experiments import Experiment
from src.tables.network_names import networks_in_words

MAX_METHODS = 2  # that the first sentence of a caption names; the figure has their names as well
MAX_NAMES = 6  # networks that a caption names; of more it has the number and the groups


def headline(subject: str, *, data: str, n_images: int | str = "") -> str:
    """Return the first sentence of a caption, such as "Stitches a → b, on 360 test images of digits."

    Args:
        data: the name of the images; "": of several.
        n_images: "": not known, or of several.
    """
    images = f"{int(n_images):,} test images" if n_images else "test images"
    if n_images or data:
        subject += f", on {images}"
    if data:
        info = DATASETS.get(data)
        source = dataset_label(data)
        if info is not None and info.loader == "torchvision":
            source = info.source
        subject += f" of {source}"
    return f"{subject}."


def joined(*captions: str, definitions: str = "") -> str:
    """Join captions to one: a paragraph for below the figure, and one that defines its terms.

    Args:
        captions: each may have both paragraphs, with an empty line between them.
        definitions: what to add to the second paragraph.
    """
    parts = [caption.partition("\n\n") for caption in captions]
    first = " ".join(filter(None, (text for text, _, _ in parts)))
    second = " ".join(filter(None, (*(text for _, _, text in parts), definitions)))
    return "\n\n".join(filter(None, (first, second)))


def common(rows: Iterable[object], field: str) -> str:
    """Return the value of a field that all rows share, as a text; "" if their values differ or are
    None."""
    values = {getattr(row, field) for row in rows}
    if len(values) != 1 or values == {None}:
        return ""
    return str(values.pop())


def pairs_of_named(pairs: Sequence[NetworkPair]) -> str:
    """Return a text on the networks of stitches.

    It is "a → b" for one pair, and "of 6 pairs of networks (a, b, c)" for few networks. For more it
    has the groups: "of 132 pairs of 12 networks (4 clean, 8 noisy)".

    Args:
        pairs: the front and the end network of each stitch.
    """
    n_pairs = len({(front.name, end.name) for front, end in pairs})
    group_of = {network.name: title_of(network.group) for pair in pairs for network in pair}
    if n_pairs == 1:
        front, end = pairs[0]
        return f"{front.name} → {end.name}"
    if len(group_of) <= MAX_NAMES:
        return f"of {n_pairs} pairs of networks ({', '.join(sorted(group_of))})"
    n_of_group = Counter(group_of[name] for name in sorted(group_of))
    groups = listed(f"{n} {group}" for group, n in n_of_group.items())
    return f"of {n_pairs} pairs of {len(group_of)} networks ({groups})"


def describe_stitches(
    *groups: Sequence[Experiment],
    names: Names | None = None,
    n_images: int | None = None,
    remark: str = "",
) -> str:
    """Return the caption of stitches: networks, methods and images. Its second paragraph has the kind of
    stitching layers, and the settings of the methods.

    Networks, images and kind are named if all rows share one; the methods are of each group.

    Args:
        names: of the networks; None: they are named by checkpoint and type.
        n_images: of the test set; None: rows have it.
        remark: a sentence behind those on networks and images.
    """
    rows = [row for group in groups for row in group]
    of_methods = [
        rows_of_method
        for group in groups
        for rows_of_method in grouped(group, lambda row: row.method).values()
    ]
    networks = stitched_networks(rows, names)
    titles = dict.fromkeys(row.method for row in rows)
    subject = f"Stitches {networks}".strip()
    if len(titles) <= MAX_METHODS:
        subject += f" by {' and '.join(titles)}"
    text = headline(
        subject, data=common(rows, "dataset"), n_images=n_images or common(rows, "n_images")
    )
    text = " ".join(filter(None, [text, _on_ends(rows, names), remark]))
    definitions = [
        _on_kinds(rows),
        _on_matched(rows),
        *dict.fromkeys(map(describe_method, of_methods)),
    ]
    return joined(text, definitions=" ".join(filter(None, definitions)))


def _on_ends(rows: Sequence[Experiment], names: Names | None) -> str:
    """Return the sentence on the accuracies of several end networks, by group; "" of a single one."""
    of_group: dict[str, list[float]] = {}
    ends = {row.network_keys[1]: getattr(row, "end_accuracy", None) for row in rows}
    for key, accuracy in ends.items():
        if accuracy is not None and not math.isnan(accuracy):
            group = title_of(names[key].group) if names else ""
            of_group.setdefault(group, []).append(accuracy)
    if sum(map(len, of_group.values())) < 2:
        return ""
    texts = []
    for group, accuracies in of_group.items():
        between = dict.fromkeys(f"{end:.2f}" for end in (min(accuracies), max(accuracies)))
        prefix = f"{group} " if len(of_group) > 1 else ""
        texts.append(prefix + " to ".join(between))
    return f"Accuracy of the end networks: {', '.join(texts)}."


def _on_kinds(rows: Sequence[Experiment]) -> str:
    """Return the sentences on the kinds of stitching layers; "" if none is known."""
    names = dict.fromkeys(row.stitching_type for row in rows)
    kinds = [STITCHING_TYPES[name] for name in names if name in STITCHING_TYPES]
    if not kinds:
        return ""
    text = f"Stitching layers: {'; '.join(dict.fromkeys(kind.words for kind in kinds))}."
    if any(kind.loses_positions for kind in kinds):
        text += " Between positions and a vector, what lies in the positions does not pass."
    return text


def _on_matched(rows: Sequence[Experiment]) -> str:
    """Return the sentence on the images that closed forms were fitted to; "" if none was."""
    matched = [row for row in rows if row.init not in STARTS]
    numbers = [str(getattr(row, "n_matched", None) or row.n_pinv_init_samples) for row in matched]
    counts = sorted(int(number) for number in numbers if number.isdecimal())
    if not counts:
        return ""
    ends = dict.fromkeys(f"{count:,}" for count in (counts[0], counts[-1]))
    text = f"Closed forms are fitted to {' to '.join(ends)} training images"
    if any(row.n_pinv_init_samples == "auto" for row in matched):
        text += " (chosen for each pair of layers)"
    return f"{text}."


def stitched_networks(rows: Sequence[Experiment], names: Names | None = None) -> str:
    """Return the title of the front and the end network.

    Where rows differ, it has what they share, which may be "". With names it has the names or the
    groups, see `pairs_of_named`.
    """
    if names is not None:
        keys = dict.fromkeys(row.network_keys for row in rows)
        return pairs_of_named([(names[front], names[end]) for front, end in keys])
    return networks_in_words(
        [common(rows, "front_model_path"), common(rows, "end_model_path")],
        [common(rows, "front_model_type"), common(rows, "end_model_type")],
    )


def on_convergence(runs: Iterable[StitchingRun]) -> str:
    """Return the sentence on trainings that had not converged; "" where there are none."""
    texts = []
    trained = [run for run in runs if run.row.n_epochs]
    if not trained:
        return ""
    for method, of_method in grouped(trained, lambda run: run.row.method).items():
        n = sum(not run.has_converged for run in of_method)
        if n:
            texts.append(f"{n:,} of {len(of_method):,} trainings by {method}")
    return f"{', '.join(texts)} had not converged." if texts else ""


def describe_method(rows: Sequence[Experiment]) -> str:
    """Return a sentence on a method and its settings, such as "Direct matching: least squares."

    Returns:
        "" if the rows differ in their method.
    """
    method = common(rows, "method")
    if not method:
        return ""

    init = common(rows, "init")
    start = f"{STARTS[init]} start" if init == "rand" else INITS.get(init, "")
    details = [start]
    n_epochs = common(rows, "n_epochs")
    if n_epochs != "0":
        objective = common(rows, "objective")
        loss = title_of(objective)
        if objective in OBJECTIVES:
            loss = OBJECTIVES[objective].description
        epochs = {"": "", "1": " for 1 epoch"}.get(n_epochs, f" for {n_epochs} epochs")
        details = [f"trained{epochs} on the {loss}".removesuffix(" on the "), f"from {start}"]
        if init == "rand":
            details[1] = f"from a {start}"
    text = ", ".join(filter(None, details))
    return f"{method[0].upper()}{method[1:]}: {text}."
