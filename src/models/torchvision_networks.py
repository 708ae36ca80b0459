"""The classification networks of torchvision, and their published weights."""

import warnings
from typing import Any

import torchvision
from torch import Tensor, hub, nn

from src.core.errors import UserError, unknown_name

PREFIX = "tv_"


def torchvision_network(
    name: str, *, n_classes: int, n_channels: int, image_shape: tuple[int, ...] | None
) -> nn.Module:
    """Build `tv_NAME` with randomly initialised weights: images (B, C, H, W) -> logits (B, n_classes).

    Where C is not 3, the first convolution is replaced.

    Args:
        n_channels: C.
        image_shape: (C, H, W); ViT and MaxViT are built for one size.
    Raises:
        UserError: torchvision has no such network, or cannot build it with these options.
    """
    torchvision_name = name.removeprefix(PREFIX)
    if torchvision_name not in classifiers():
        names = [f"{PREFIX}{classifier}" for classifier in classifiers()]
        where = "torchvision.models.list_models() lists all, without tv_"
        raise unknown_name("model", name, names, where=where)
    options: dict[str, int | tuple[int, ...]] = {}
    if image_shape is not None:
        if torchvision_name.startswith("vit_"):
            options["image_size"] = image_shape[1]
        if torchvision_name.startswith("maxvit_"):
            options["input_size"] = image_shape[1:]
    try:
        with warnings.catch_warnings():
            # torchvision announces changes of an initialisation
            warnings.simplefilter("ignore", FutureWarning)
            network = torchvision.models.get_model(
                torchvision_name, weights=None, num_classes=n_classes, **options
            )
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"{name} cannot be built: {error}; choose another network or another data set"
        ) from error
    if n_channels != 3:
        _replace_first_convolution(network, n_channels)
    return network


def _replace_first_convolution(network: nn.Module, n_channels: int) -> None:
    """Replace the first convolution of a network by one that takes `n_channels` channels."""
    name, old = next(
        (name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d)
    )
    geometry: dict[str, Any] = {
        key: getattr(old, key) for key in ("kernel_size", "stride", "padding", "dilation")
    }
    has_bias = old.bias is not None
    new = nn.Conv2d(n_channels, old.out_channels, bias=has_bias, **geometry)
    network.set_submodule(name, new)


def classifiers() -> list[str]:
    """Return the names of torchvision's classification networks, without `tv_`."""
    return torchvision.models.list_models(module=torchvision.models)


def torchvision_weights(
    name: str, entry: str, *, n_classes: int | None
) -> tuple[dict[str, Tensor], int]:
    """Return the state dict of published weights for `tv_NAME`, and their number of classes.

    The weights come from torch.hub's cache, or are downloaded.

    Args:
        entry: DEFAULT, or the name of an entry such as IMAGENET1K_V2.
        n_classes: the number of classes that is needed; None: any.
    Raises:
        UserError: there are no such weights, they have another number of classes, or they cannot be
            downloaded.
    """
    torchvision_name = name.removeprefix(PREFIX)
    if not name.startswith(PREFIX) or torchvision_name not in classifiers():
        raise UserError(
            f"{entry}: {name} comes with no such weights, as tv_NAME of torchvision does, and "
            "FILE.py:FUNCTION with DEFAULT; give a checkpoint, or - for randomly initialised weights"
        )
    entries = torchvision.models.get_model_weights(torchvision_name)
    if entry not in entries.__members__:
        names = ["DEFAULT", *(weights.name for weights in entries)]
        raise unknown_name(f"weights of {name}", entry, names)
    weights = entries[entry]
    n_published = len(weights.meta["categories"])
    if n_classes not in (None, n_published):
        raise UserError(
            f"{entry} of {name} has {n_published} classes, the dataset {n_classes}; "
            "give a checkpoint of your own"
        )
    try:
        return weights.get_state_dict(progress=True, check_hash=True), n_published
    except OSError as error:  # URLError is one
        raise UserError(
            f"cannot download {weights.url} ({error}); "
            f"put the file into {hub.get_dir()}/checkpoints, or set TORCH_HOME"
        ) from error
