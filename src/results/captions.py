"""Captions of figures: networks, data, method and number of images."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from src.choices import STARTS


def caption(**facts: Any) -> str:
    """Return the text below a figure, such as "Networks: a.pt → b.pt. Images: 100.".

    Args:
        facts: by name. None and "" are left out.
    """
    texts = [
        f"{name.capitalize()}: {fact}." for name, fact in facts.items() if fact not in (None, "")
    ]
    return " ".join(texts)


def common(rows: Iterable[Any], field: str) -> Any:
    """Return the value of a field that all rows share; "" if their values differ or are None."""
    values = {getattr(row, field) for row in rows}
    if len(values) != 1:
        return ""
    value = values.pop()
    return "" if value is None else value


def network(path: str, kind: str) -> str:
    """Return the title of a network: its checkpoint and type, or one of the two if one is ""."""
    if path and kind:
        return f"{short(path)} ({short(kind)})"
    return short(path or kind)


def short(name: str) -> str:
    """Return the last two parts of an absolute path; return a relative name unchanged."""
    path = Path(name)
    return "/".join(path.parts[-2:]) if path.is_absolute() else name


def pair_of_networks(names: Sequence[str], *, sign: str = "→") -> str:
    """Return the title of two networks, such as "a.pt → b.pt"; "" if a name is ""."""
    return f" {sign} ".join(names) if all(names) else ""


def describe_stitches(*groups: Sequence[Any]) -> str:
    """Return a caption: the method of each group of stitches, and the facts that all rows share."""
    rows = [row for group in groups for row in group]
    methods = dict.fromkeys(describe_method(group) for group in groups)
    return caption(
        networks=stitched_networks(rows),
        data=short(common(rows, "dataset")),
        method="; ".join(filter(None, methods)),
        images=common(rows, "n_images"),
    )


def stitched_networks(rows: Sequence[Any]) -> str:
    """Return the title of the front and the end network; "" if they differ between rows."""
    front = network(common(rows, "front_model_path"), common(rows, "front_model_type"))
    end = network(common(rows, "end_model_path"), common(rows, "end_model_type"))
    return pair_of_networks([front, end])


def describe_method(rows: Sequence[Any]) -> str:
    """Return the method and its shared details, such as "DM (rc2c_pre, matched on 5000 images)".

    Returns:
        "" if the rows differ in their method.
    """
    method = common(rows, "method")
    if not method:
        return ""

    details = [common(rows, "stitching_type")]
    n_epochs = common(rows, "n_epochs")
    if n_epochs == 1:
        details.append("1 epoch")
    elif n_epochs:
        details.append(f"{n_epochs} epochs")

    init = common(rows, "init")
    if init and n_epochs != 0:
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
