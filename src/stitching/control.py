"""The label-only control: a stitch that was made on front activations of other images of the same class.

It knows the class alone. What it reaches, a stitch reaches by the label.
"""

import torch
from torch import Tensor

from src.datasets.base import BaseImageSet


def class_partners(labels: Tensor, order: Tensor) -> Tensor:
    """Return for each image another one of its class (N,): the next in an order, and for the last the first.

    An image that is alone in its class is its own partner.

    Args:
        labels: (N,).
        order: all indices (N,), shuffled.
    """
    labels, partners = labels.cpu(), torch.empty_like(order)
    for label in labels.unique():
        of_class = order[labels[order] == label]
        partners[of_class] = of_class.roll(-1)
    return partners


def label_only(images: BaseImageSet, *, seed: int) -> BaseImageSet:
    """Return a training set whose images are pairs: for the front network another image of the class, and the image."""
    return images.paired(class_partners(images.labels, images.permutation(seed)))
