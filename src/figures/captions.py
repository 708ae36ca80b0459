"""Sentences of captions: what came out, what is drawn, and of how many networks and images."""

from collections.abc import Collection, Iterable

from src.choices.datasets import dataset_label


def joined(*sentences: str) -> str:
    """Join sentences to a caption; empty ones are left out."""
    return " ".join(filter(None, sentences))


def on_data(n_pairs: int, images: Collection[tuple[str | None, int | None]]) -> str:
    """Return the sentence on the number of pairs of networks, and on the images if all share them.

    Args:
        images: the data set and the number of test images of each result; None: not recorded.
    """
    text = counted(n_pairs, "pair of networks", "pairs of networks")
    if len(set(images)) == 1:
        dataset, n_images = next(iter(images))
        text += f", {n_images:,} test images" if n_images else ", test images"
        text += f" of {dataset_label(dataset)}" if dataset else ""
    return f"{text[0].upper()}{text[1:]}."


def counted(n: int, one: str, many: str) -> str:
    """Return a number with its noun."""
    return f"{n:,} {one if n == 1 else many}"


def between(numbers: Collection[int]) -> str:
    """Return the range of numbers as a text, such as "4 to 20"."""
    ends = dict.fromkeys(f"{number:,}" for number in (min(numbers), max(numbers)))
    return " to ".join(ends)


def in_words(items: Iterable[object]) -> str:
    """Join items by commas, and the last two by *and*."""
    *first, last = map(str, items)
    return f"{', '.join(first)} and {last}" if first else last
