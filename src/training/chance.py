"""Networks that are hardly better than chance: a stitch into one can lose little accuracy."""

import torch
from torch import Tensor

from src.core.console import warn_once
from src.datasets.base import BaseImageSet
from src.models import Network
from src.statistics.intervals import wilson_intervals
from src.training.task import predicted_classes

CLOSE = 0.1  # of the accuracy to chance: twice the tolerance of a verdict
N_SAMPLED = 1000  # images that show whether an end network is close to chance
BATCH_SIZE = 100  # a single batch shows that most networks are not
FAR_BELOW = 0.5  # of chance
QUESTION = "are inputs normalised and classes ordered as in training?"


def chance_of(labels: Tensor) -> float:
    """Return the share of the commonest class among labels (N,); -1 means unlabelled."""
    counts = labels[labels >= 0].long().bincount()
    return float(counts.max() / counts.sum())


def is_close_to_chance(accuracy: float, n_images: int, chance: float) -> bool:
    """Return whether an accuracy may exceed chance by no more than `CLOSE`."""
    (interval,) = wilson_intervals([accuracy], [n_images])
    return interval.low <= chance + CLOSE


def beside_chance(accuracy: float, n_images: int, chance: float) -> str:
    """Return words for an accuracy close to chance or far below."""
    (interval,) = wilson_intervals([accuracy], [n_images])
    if interval.high < FAR_BELOW * chance:
        return f"far below chance ({chance:.0%}): classes in another order than in training?"
    return f"close to chance ({chance:.0%}): {QUESTION}"


CONSEQUENCE = "a stitch into {title} can lose little, so that unlike layers seem similar: it is right about {right}"
PLAIN = "{title} is right about {right}"


def warn_of_end_at_chance(end: Network, images: BaseImageSet, title: str) -> None:
    """Warn if an end network may be close to chance on the test images, see `warn_at_chance`."""
    warn_at_chance(end, images, title, text=CONSEQUENCE)


@torch.no_grad()
def warn_at_chance(
    network: Network, images: BaseImageSet, title: str, *, text: str = PLAIN
) -> None:
    """Warn if a network may be close to chance on the test images, or far below: labels may be in another
    order than in training.

    A random sample of the images tells. It ends with the first batch that shows that the network is better.

    Args:
        network: gives a logit for each class.
        title: of the network.
        text: of the warning, with `{title}` and `{right}`.
    """
    chance = chance_of(images.labels)
    sample = images.in_cheapest_order(images.permutation(0)[:N_SAMPLED])
    n_right = 0
    n_images = 0
    for batch, labels in images.batches(BATCH_SIZE, indices=sample):
        n_right += int((predicted_classes(network(batch)) == labels).sum())
        n_images += int((labels >= 0).sum())
        if n_images and not is_close_to_chance(n_right / n_images, n_images, chance):
            return
    right = f"{n_right} of {n_images} test images, {beside_chance(n_right / n_images, n_images, chance)}"
    warn_once(text.format(title=title, right=right))
