"""The training of a checkpoint, by the `config.txt` beside it: its options, and its images.

Only questions about the images import torch.
"""

from collections.abc import Sequence
from pathlib import Path

from src.choices.datasets import dataset_label
from src.core.console import listed, warn_once
from src.core.errors import Misfit, UserError
from src.core.images import ImageSpec, are_images, describe_values, shape_text
from src.core.user_code import digest_of, is_user_code, title_of
from src.results.network_names import SHORT, NetworkName, options_beside

IMAGES = "image_spec"  # the entry of a `config.txt` with the `ImageSpec.record` of the training
REMEDY = "Name the data set of the training by -d, unless other inputs are meant"
AS_TRAINED = "give mean, std and the order of classes as in the training, in dataset.yaml or in the .npz file"


def training_images(checkpoint: str | Path) -> tuple[str, ImageSpec]:
    """Return the name of the data set that a checkpoint was trained on, and its images.

    They are as they were recorded. Without a record they are those of the data set as it is now.

    Raises:
        UserError: nothing beside the checkpoint names the data set, or it has no record and the data set
            is gone.
    """
    from src.datasets import dataset_info

    options = options_beside(checkpoint)
    dataset = options.get("dataset")
    if not isinstance(dataset, str):
        raise UserError(f"nothing beside {checkpoint} names the data set that it was trained on")
    if IMAGES in options:
        return dataset_label(dataset), ImageSpec.of_record(options[IMAGES])
    return dataset_label(dataset), dataset_info(dataset).spec


def explained(misfit: Misfit, name: NetworkName, images: ImageSpec) -> Misfit:
    """Explain a misfit by the training, if its images had another shape or number of classes.

    Args:
        misfit: between the network `name` and its checkpoint.
        images: the images that the network was built for.
    Returns:
        A misfit that describes both kinds of images. `misfit` itself if they are equal, if the
        images of the training are unknown, or if the checkpoint is of a network of another type.
    """
    try:
        dataset, trained = training_images(name.path)
    except UserError:
        return misfit
    type_of_training = str(options_beside(name.path).get("model_type", name.type))
    is_of_type = title_of(type_of_training) == title_of(name.type)
    fits = trained.shape == images.shape and trained.n_classes == images.n_classes
    if fits or not is_of_type:
        return misfit
    return Misfit(
        f"checkpoint {name.path} was trained on {dataset} ({trained.describe()}); "
        f"{Misfit.IMAGES} ({images.describe()}): {misfit.clause}"
    )


def warn_of_other_type(network: NetworkName) -> None:
    """Warn if a checkpoint was trained as a network of another type, or by code that has changed since."""
    options = options_beside(network.path)
    trained = options.get("model_type")
    if not isinstance(trained, str):
        return
    if title_of(trained) != title_of(network.type):
        warn_once(
            f"checkpoint {network.path} was trained as {title_of(trained)}, and is loaded as {title_of(network.type)}; "
            "give the type of the training, unless another one is meant"
        )
        return
    before = options.get("model_type_sha256")
    now = digest_of(network.type) if is_user_code(network.type) else None
    if before != now:
        code = [digest[:SHORT] if digest else "of the suite" for digest in (before, now)]
        warn_once(
            f"checkpoint {network.path} was trained by other code of {title_of(trained)} (was {code[0]}, now "
            f"{code[1]}); bring it back, or train again"
        )


def warn_of_other_images(checkpoint: str, images: ImageSpec) -> None:
    """Warn if a checkpoint was trained on images of a different size, classes or range of values.

    Args:
        images: the images at hand.
    """
    try:
        dataset, trained = training_images(checkpoint)
    except UserError:
        return
    differences = _differences(trained, images)
    if differences:
        before, now = ("; ".join(texts) for texts in zip(*differences, strict=True))
        warn_once(
            f"checkpoint {checkpoint} was trained on {dataset}: {before}. The images at hand: {now}. {REMEDY}; or "
            f"{AS_TRAINED}"
        )


def _differences(trained: ImageSpec, images: ImageSpec) -> list[tuple[str, str]]:
    """Return pairs of texts, of the training and at hand, where size, classes or values differ.

    Classes are compared where both data sets have names of classes.
    """
    differences = []
    if trained.shape != images.shape:
        differences.append((_size(trained), _size(images)))
    if trained.classes and images.classes and trained.classes != images.classes:
        first = _first_difference(trained.classes, images.classes)
        differences.append((_classes(trained, first), _classes(images, first)))
    if trained.normalisation != images.normalisation:
        before = describe_values(trained.normalisation)
        differences.append((before, describe_values(images.normalisation)))
    return differences


def _size(images: ImageSpec) -> str:
    noun = "images" if are_images(images.shape) else "inputs"
    return f"{noun} of {shape_text(images.shape)}"


def _first_difference(classes: Sequence[str], others: Sequence[str]) -> int:
    """Return the first output that stands for another class."""
    pairs = zip(classes, others, strict=False)
    different = (place for place, (name, name_at_hand) in enumerate(pairs) if name != name_at_hand)
    return next(different, min(len(classes), len(others)))


def _classes(images: ImageSpec, first: int) -> str:
    """Return the names of the classes from an output on."""
    return f"classes {listed(images.classes[first:], n=3)} from output {first} on"
