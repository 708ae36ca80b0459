"""Captions of figures: networks, data, method and number of images."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from src.choices import STARTS
from src.collected.groups import Names
from src.collected.measured import NetworkPair
from src.ground.console import listed
from src.ground.grouping import grouped
from src.tables.experiments import Experiment
from src.tables.network_names import short

MAX_NAMES = 6  # networks that a caption names; of more it has the number and the groups


def caption(**facts: object) -> str:
    """Return the text below a figure, such as "Networks: a.pt → b.pt. Images: 100.".

    Args:
        facts: by name. None and "" are left out.
    """
    texts = [
        f"{name.capitalize()}: {fact}." for name, fact in facts.items() if fact not in (None, "")
    ]
    return " ".join(texts)


def common(rows: Iterable[object], field: str) -> str:
    """Return the value of a field that all rows share, as a text; "" if their values differ or are
    None."""
    values = {getattr(row, field) for row in rows}
    if len(values) != 1 or values == {None}:
        return ""
    return str(values.pop())


def network(path: str, kind: str) -> str:
    """Return the title of a network: its checkpoint and type, or one of the two if one is ""."""
    return _title_of(short(path), short(kind))


def _title_of(path: str, kind: str) -> str:
    return f"{path} ({kind})" if path and kind else path or kind


def pair_of_networks(paths: Sequence[str], kinds: Sequence[str], *, sign: str = "→") -> str:
    """Return the title of two networks, such as "a.pt (resnet18) → b.pt (resnet18)".

    Args:
        paths: of both checkpoints; "" where it is not known.
        kinds: the types, likewise.

    Returns:
        "" if a network has neither.
    """
    short_paths = list(map(short, without_shared_folders(paths)))
    short_kinds = list(map(short, kinds))
    titles = list(map(_title_of, short_paths, short_kinds))
    return f" {sign} ".join(titles) if all(titles) else ""


def without_shared_folders(paths: Sequence[str]) -> list[str]:
    """Return paths without their common leading folders.

    A path keeps at least the folder that its file is in: models/0/a.pt and models/1/a.pt become
    0/a.pt and 1/a.pt.
    """
    shared = os.path.commonprefix([Path(path).parent.parent.parts for path in paths])
    if shared in ((), ("/",)):
        return list(paths)
    return [str(Path(*Path(path).parts[len(shared) :])) for path in paths]


def pairs_of_named(pairs: Sequence[NetworkPair]) -> str:
    """Return a text on the networks of stitches.

    It is "a → b" for one pair, and "a, b, c (6 pairs)" for few networks. For more it has the
    groups: "132 pairs of 12 networks (4 clean, 8 noisy)".

    Args:
        pairs: the front and the end network of each stitch.
    """
    n_pairs = len({(front.name, end.name) for front, end in pairs})
    group_of = {network.name: short(network.group) for pair in pairs for network in pair}
    if n_pairs == 1:
        front, end = pairs[0]
        return f"{front.name} → {end.name}"
    if len(group_of) <= MAX_NAMES:
        return f"{', '.join(sorted(group_of))} ({n_pairs} pairs)"
    n_of_group = Counter(group_of[name] for name in sorted(group_of))
    groups = listed(f"{n} {group}" for group, n in n_of_group.items())
    return f"{n_pairs} pairs of {len(group_of)} networks ({groups})"


def describe_stitches(*groups: Sequence[Experiment], names: Names | None = None) -> str:
    """Return a caption: the methods of each group of stitches, and the facts that all rows share.

    Args:
        names: of the networks; None: they are named by checkpoint and type.
    """
    rows = [row for group in groups for row in group]
    methods: dict[str, None] = {}
    for group in groups:
        of_method = grouped(group, lambda row: row.method).values()
        methods |= dict.fromkeys(map(describe_method, of_method))
    return caption(
        networks=stitched_networks(rows, names),
        data=short(common(rows, "dataset")),
        method="; ".join(filter(None, methods)),
        images=common(rows, "n_images"),
    )


def stitched_networks(rows: Sequence[Experiment], names: Names | None = None) -> str:
    """Return the title of the front and the end network.

    Where rows differ, it has what they share, which may be "". With names it has the names or the
    groups, see `pairs_of_named`.
    """
    if names is not None:
        keys = dict.fromkeys(row.network_keys for row in rows)
        return pairs_of_named([(names[front], names[end]) for front, end in keys])
    return pair_of_networks(
        [common(rows, "front_model_path"), common(rows, "end_model_path")],
        [common(rows, "front_model_type"), common(rows, "end_model_type")],
    )


def describe_method(rows: Sequence[Experiment]) -> str:
    """Return the method and its shared details, such as "DM (rc2c_pre, matched on 5000 images)".

    Returns:
        "" if the rows differ in their method.
    """
    method = common(rows, "method")
    if not method:
        return ""

    details = [common(rows, "stitching_type")]
    if all(row.class_control for row in rows):
        details.append("from the class beside an untrained network")
    n_epochs = common(rows, "n_epochs")
    if n_epochs == "1":
        details.append("1 epoch")
    elif n_epochs not in ("", "0"):
        details.append(f"{n_epochs} epochs")

    init = common(rows, "init")
    if init and n_epochs != "0":
        details.append(f"init {init}")

    # A closed form is solved on images
    if init and init not in STARTS:
        n_matched = common(rows, "n_pinv_init_samples")
        cutoff = common(rows, "pinv_cutoff")
        if n_matched == "auto":
            details.append("matched on as many images as each pair needs")
        elif n_matched:
            details.append(f"matched on {n_matched} images")
        if cutoff not in ("", "paper"):
            details.append(f"cutoff {cutoff}")
    return f"{method} ({', '.join(filter(None, details))})"
