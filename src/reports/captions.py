"""Sentences of captions: of which networks and images a figure is."""

from collections import Counter
from collections.abc import Iterable, Sequence

from src.choices.datasets import DATASETS, dataset_label
from src.collected.groups import Names
from src.collected.measured import NetworkPair
from src.ground.console import listed
from src.ground.user_code import title_of
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
    *groups: Sequence[Experiment], names: Names | None = None, n_images: int | None = None
) -> str:
    """Return a sentence on the networks, methods and images of stitches, as far as all share them.

    Args:
        names: of the networks; None: they are named by checkpoint and type.
        n_images: of the test set; None: rows have it.
    """
    rows = [row for group in groups for row in group]
    methods = dict.fromkeys(row.method for row in rows)
    subject = f"Stitches {stitched_networks(rows, names)}".strip()
    if len(methods) <= MAX_METHODS:
        subject += f" by {' and '.join(methods)}"
    return headline(
        subject, data=common(rows, "dataset"), n_images=n_images or common(rows, "n_images")
    )


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
