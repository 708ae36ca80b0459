"""Warnings about networks whose accuracy is close to chance."""

import torch
from torch import Tensor

from src.core.console import warn_once
from src.core.errors import not_finite
from src.datasets.base import InputSet
from src.models import Network
from src.statistics.chance import chance_of, is_close_to_chance
from src.statistics.intervals import wilson_intervals
from src.training.task import NO_CLASS, predicted_classes

N_SAMPLED = 1000  # images that show whether an end network is close to chance
BATCH_SIZE = 100  # a single batch shows that most networks are not
FAR_BELOW = 0.5  # of chance
QUESTION = (
    "was it trained long enough, and are inputs normalised and classes ordered as in training?"
)
FEWEST = 20  # images that show whether an accuracy is above chance


def beside_chance(accuracy: float, n_images: int, labels: Tensor) -> str:
    """Return words for an accuracy close to chance or far below; "" for one that is clearly above.

    Args:
        n_images: that the accuracy was measured on.
        labels: (N,) of all test images; -1 means unlabelled.
    """
    chance = chance_of(labels.cpu())
    if not is_close_to_chance(accuracy, n_images, chance):
        return ""
    if n_images < FEWEST:
        return f"not certainly above chance ({chance:.0%}), as the test inputs are so few: give {FEWEST} or more"
    (interval,) = wilson_intervals([accuracy], [n_images])
    if interval.high < FAR_BELOW * chance:
        return f"far below chance ({chance:.0%}): classes in another order than in training?"
    return f"close to chance ({chance:.0%}), the share of the most frequent class: {QUESTION}"


@torch.no_grad()
def doubt_about(network: Network, images: InputSet, title: str) -> str:
    """Return a text that a network may be close to chance on test images; "" if it is better.

    Looks at a random sample, up to the first batch that shows that the network is better.

    Args:
        title: of the network, for the error.
    Raises:
        UserError: logits are not finite.
    """
    sample = images.in_cheapest_order(images.permutation(0)[:N_SAMPLED])
    n_right = 0
    n_images = 0
    doubt = ""
    for batch, labels in images.batches(BATCH_SIZE, indices=sample):
        classes = predicted_classes(network(batch))
        if (classes == NO_CLASS).all():
            raise not_finite(title)
        n_right += int((classes == labels).sum())
        n_images += int((labels >= 0).sum())
        if not n_images:
            continue
        doubt = beside_chance(n_right / n_images, n_images, images.labels)
        if not doubt:
            return ""
    return f"correct on {n_right} of {n_images} test inputs, {doubt}"


def warn_at_chance(network: Network, images: InputSet, title: str, *, is_end: bool = False) -> None:
    """Warn if a network may be close to chance on the test images, or far below: labels may be in another
    order than in training.

    Args:
        title: of the network.
        is_end: stitches end in the network; the warning says what follows for these.
    Raises:
        UserError: logits are not finite.
    """
    doubt = doubt_about(network, images, title)
    if doubt and is_end:
        warn_once(
            f"a stitch into {title} can lose little accuracy, so that different layers may seem similar: it is {doubt}"
        )
    elif doubt:
        warn_once(f"{title} is {doubt}")
