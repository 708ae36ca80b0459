"""The names of data sets (their rows are in `src.datasets.registry`), and the interventions
(their functions are in `src.datasets.interventions`)."""

from pathlib import Path
from typing import NamedTuple

from src.core.errors import UserError, unknown_name

DATASET_NAMES = (
    "cifar10", "cifar100", "svhn", "mnist", "fashion", "cifar10_large", "cifar100_large", "imagenet",
    "imagenet_mem", "cifar5m", "outlier_exposure", "digits", "mnist5k", "photo_patches",
)  # fmt: skip


def dataset_name(text: str) -> str:
    """Check the name of a data set, and return it; the path of a user's images becomes absolute.

    Raises:
        UserError: there is no such data set, folder or `.npz` file.
    """
    if text in DATASET_NAMES:
        return text
    path = Path(text).expanduser()
    if path.is_dir() or (path.suffix == ".npz" and path.is_file()):
        return str(path.resolve())
    if "/" in text or path.suffix:
        fault = (
            "is neither a folder of images nor an .npz file" if path.exists() else "does not exist"
        )
        raise UserError(
            f"dataset {text!r} {fault}; give a folder of images or an .npz file, and check the path"
        )
    raise unknown_name(
        "dataset",
        text,
        DATASET_NAMES,
        where="exec_train.py --help lists all; or give a folder of images or an .npz file",
    )


def dataset_label(name: str) -> str:
    """Return a short name for files and figures: of a user's images the last part of the path."""
    if name in DATASET_NAMES:
        return name
    return Path(name).stem


class Intervention(NamedTuple):
    """An intervention: a change of a data set that makes networks differ by construction.

    The strength is a probability. The protocol follows ReSi (Klabunde et al., ICLR 2025, arXiv
    2408.00531).
    """

    description: str  # for `--help`
    changes_images: bool  # of tests too; otherwise it changes the labels of training images alone


# In the order of application: dots encode the classes before labels are replaced
INTERVENTIONS = {
    "shortcut": Intervention(
        "paint a dot on each image. The hue of the dot (on grey images: the position) encodes the label with "
        "probability P, and a random class otherwise; on test images, always a random class",
        changes_images=True,
    ),
    "label_noise": Intervention(
        "replace the label of a training image by a random class with probability P",
        changes_images=False,
    ),
}
