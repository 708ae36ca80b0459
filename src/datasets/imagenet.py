"""ImageNet (ILSVRC 2012): folders of encoded images, a folder for each class; read when needed or held in memory."""

from pathlib import Path

import torch
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import find_classes
from torchvision.transforms import CenterCrop, Compose, PILToTensor, RandomHorizontalFlip, RandomResizedCrop, Resize

from src.datasets.decoded import DecodedImageSet
from src.datasets.encoded import EncodedFiles, HeldFiles
from src.datasets.registry import Loading, dataset_info
from src.errors import UserError

TRAINING, VALIDATION = "training_data", "validation_data"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TRANSFORM = Compose([Resize(256), CenterCrop(224), PILToTensor()])
AUGMENTATION = Compose([RandomResizedCrop(224), RandomHorizontalFlip(), PILToTensor()])


def load(name: str, root: Path, *, train: bool, device: torch.device | str, loading: Loading) -> DecodedImageSet:
    """Load a split: `imagenet` reads files when they are needed, `imagenet_mem` holds them; their samples are equal.

    A label is the position of its folder among those of the training data, in sorted order.

    Raises:
        UserError: folders are missing or empty or there are too many, or what is to be held does not fit in memory.
    """
    info = dataset_info(name)
    found = _scan(name, root / (TRAINING if train else VALIDATION))
    labels = _labels(name, root, found, n_classes=info.n_classes)
    paths = [path for path, _ in found.samples]
    if name == "imagenet_mem":
        files = HeldFiles(paths, name=name, n_threads=max(1, loading.n_workers))
    else:
        files = EncodedFiles(paths)
    return DecodedImageSet(
        files,
        labels,
        n_classes=info.n_classes,
        image_shape=info.image_shape,
        transform=TRANSFORM,
        augmentation=AUGMENTATION if train else None,
        mean=MEAN,
        std=STD,
        loading=loading,
        device=device,
    )


def _scan(name: str, folder: Path) -> ImageFolder:
    remedy = f"give the folder that holds {TRAINING} and {VALIDATION}, with a folder of images for each class in both"
    if not folder.is_dir():
        there = sorted(path.name for path in folder.parent.iterdir()) if folder.parent.is_dir() else []
        holds = f"there is {', '.join(there[:5])}{' …' if len(there) > 5 else ''}" if there else "there is nothing"
        raise UserError(
            f"dataset {name}: no folder {folder.name} in {folder.parent} ({holds}); {remedy}: fetch ILSVRC 2012 from "
            "https://image-net.org/download and rename its folders"
        )
    try:
        return ImageFolder(folder)
    except OSError as error:  # a class, or all of them, without images
        raise UserError(f"dataset {name}: {' '.join(str(error).split()).rstrip('.')}; {remedy}") from error


def _labels(name: str, root: Path, found: ImageFolder, *, n_classes: int) -> torch.Tensor:
    """Labels int64 (N,). Splits of unequal folders would have unequal labels, were each to count its own."""
    classes = find_classes(root / TRAINING)[0] if (root / TRAINING).is_dir() else found.classes
    strangers = sorted(set(found.classes) - set(classes))
    if strangers:
        raise UserError(
            f"dataset {name}: {found.root} has class folders that {TRAINING} has not ({', '.join(strangers[:3])}"
            f"{' …' if len(strangers) > 3 else ''}); both must have the same"
        )
    if len(classes) > n_classes:
        raise UserError(f"dataset {name}: {len(classes)} class folders in {root}, at most {n_classes} are possible")
    numbers = torch.tensor([classes.index(own) for own in found.classes])
    return numbers[torch.tensor(found.targets)]
