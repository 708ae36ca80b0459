"""Captions of figures: networks, data, method and number of images."""

from collections.abc import Iterable, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

from src.choices import STARTS


def caption(**facts: Any) -> str:
    """Build the text below a figure, such as "Networks: a.pt → b.pt.", from the facts that are not
    empty."""
    return " ".join(
        f"{name.capitalize()}: {fact}." for name, fact in facts.items() if fact not in (None, "")
    )


def common(rows: Iterable[Any], field: str) -> Any:
    """Return the value of a field, such as "seed", that all rows share; "" where they differ, or of
    None."""
    values = set(map(attrgetter(field), rows))
    value = values.pop() if len(values) == 1 else ""
    return "" if value is None else value


def network(path: str, kind: str) -> str:
    """Name a network by checkpoint and type, or by the one that is given."""
    return f"{short(path)} ({short(kind)})" if path and kind else short(path or kind)


def short(name: str) -> str:
    """Shorten an absolute path, of a checkpoint, a data set or a file of networks, to its last two
    parts."""
    return "/".join(Path(name).parts[-2:]) if Path(name).is_absolute() else name


def pair_of_networks(names: Sequence[str], *, sign: str = "→") -> str:
    """Name two networks; "" where one of them is unknown."""
    return f" {sign} ".join(names) if all(names) else ""


def describe_stitches(*groups: Sequence[Any]) -> str:
    """Describe what all rows of stitches share, and the method of each group of them, for a
    caption."""
    rows = [row for group in groups for row in group]
    return caption(
        networks=stitched_networks(rows),
        data=short(common(rows, "dataset")),
        method="; ".join(dict.fromkeys(filter(None, map(describe_method, groups)))),
        images=common(rows, "n_images"),
    )


def stitched_networks(rows: Sequence[Any]) -> str:
    """Name the front and the end network that all rows share; "" where they differ."""
    sides = [[f"{side}_model_{part}" for part in ("path", "type")] for side in ("front", "end")]
    return pair_of_networks(
        [network(*(common(rows, field) for field in fields)) for fields in sides]
    )


def describe_method(rows: Sequence[Any]) -> str:
    """Return the way of stitching that all rows share, with its details; "" where they differ."""
    name, n_epochs, init, n_samples, kind, cutoff = (
        common(rows, field)
        for field in (
            "method",
            "n_epochs",
            "init",
            "n_pinv_init_samples",
            "stitching_type",
            "pinv_cutoff",
        )
    )
    if not name:
        return ""
    details = [kind, f"{n_epochs} epoch{'s' if n_epochs > 1 else ''}" if n_epochs else ""]
    if init:
        details += [] if n_epochs == 0 else [f"init {init}"]
        number = (
            "as many images as each pair needs" if n_samples == "auto" else f"{n_samples} images"
        )
        details += [f"matched on {number}"] if init not in STARTS and n_samples else []
        details += (
            [f"cutoff {cutoff}"] if init not in STARTS and cutoff not in ("", "paper") else []
        )
    return f"{name} ({', '.join(filter(None, details))})"
