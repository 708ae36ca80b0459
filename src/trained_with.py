"""The network and the images that a checkpoint was trained with, by the `config.txt` beside it."""

import contextlib
import json
from pathlib import Path
from typing import Any

from src.choices.datasets import dataset_label
from src.console import listed, warn_once
from src.datasets import dataset_info
from src.errors import Misfit, UserError
from src.images import ImageSpec, describe_values
from src.network_names import NetworkName


def options_beside(checkpoint: str | Path) -> dict[str, Any]:
    """Return the options of the training in `config.txt` beside a checkpoint; none if there is no
    such file."""
    if Path(checkpoint).is_file():  # DEFAULT is none
        with contextlib.suppress(OSError, ValueError, TypeError):
            return dict(json.loads((Path(checkpoint).parent / "config.txt").read_text()))
    return {}


def training_images(checkpoint: str | Path) -> tuple[str, ImageSpec]:
    """Return the name and the images of the data set that a checkpoint was trained on.

    Raises:
        UserError: nothing beside the checkpoint names the data set, or it is gone.
    """
    dataset = options_beside(checkpoint).get("dataset")
    if not isinstance(dataset, str):
        raise UserError(f"nothing beside {checkpoint} names the data set that it was trained on")
    return dataset_label(dataset), dataset_info(dataset).spec


def explained(misfit: Misfit, name: NetworkName, images: ImageSpec) -> Misfit:
    """Return the misfit of a checkpoint and its network; it says so where the training was on
    images of another shape.

    Or on another number of classes. A checkpoint of a network of another type has the misfit that
    is given.

    Args:
        images: that the network is to take.
    """
    with contextlib.suppress(UserError):
        dataset, trained = training_images(name.path)
        is_of_type = options_beside(name.path).get("model_type", name.type) == name.type
        if is_of_type and (trained.shape, trained.n_classes) != (images.shape, images.n_classes):
            return Misfit(
                f"checkpoint {name.path} was trained on {dataset} ({trained.describe()}); {Misfit.IMAGES} "
                f"({images.describe()}): {misfit.clause}"
            )
    return misfit


def warn_of_other_images(checkpoint: str, images: ImageSpec) -> None:
    """Warn if a checkpoint was trained on images of another size, on other classes or values than
    the ones at hand."""
    with contextlib.suppress(UserError):
        dataset, trained = training_images(checkpoint)
        pairs = []
        if trained.shape != images.shape:
            pairs.append(
                [f"images of {'×'.join(map(str, spec.shape))}" for spec in (trained, images)]
            )
        if trained.classes and images.classes and trained.classes != images.classes:
            pairs.append([f"classes {listed(spec.classes, n=3)}" for spec in (trained, images)])
        if trained.normalisation != images.normalisation:
            pairs.append([describe_values(spec.normalisation) for spec in (trained, images)])
        if pairs:
            before, now = ("; ".join(texts) for texts in zip(*pairs, strict=True))
            warn_once(
                f"checkpoint {checkpoint} was trained on {dataset}: {before}. The images at hand: {now}"
            )
