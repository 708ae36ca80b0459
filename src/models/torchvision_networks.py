"""The classification networks of torchvision, and their published weights."""

import warnings

import torchvision
from torch import Tensor, hub, nn

from src.errors import UserError, unknown_name

PREFIX = "tv_"


def torchvision_network(
    name: str, *, n_classes: int, n_channels: int, image_shape: tuple[int, int, int] | None
) -> nn.Module:
    """Build `tv_NAME` with fresh weights, for images (C, H, W); where C is not 3, the first
    convolution is replaced."""
    given, options = name.removeprefix(PREFIX), {}
    if given not in classifiers():
        names = [f"{PREFIX}{other}" for other in classifiers()]
        raise unknown_name(
            "model", name, names, where="torchvision.models.list_models() lists all, without tv_"
        )
    if image_shape is not None and given.startswith("vit_"):
        options["image_size"] = image_shape[1]
    if image_shape is not None and given.startswith("maxvit_"):
        options["input_size"] = image_shape[1:]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", FutureWarning
            )  # about a later change of the initialisation
            network = torchvision.models.get_model(
                given, weights=None, num_classes=n_classes, **options
            )
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"{name} cannot be built: {error}; choose another network or dataset"
        ) from error
    if n_channels != 3:
        name, first = next(
            (name, each) for name, each in network.named_modules() if isinstance(each, nn.Conv2d)
        )
        options = {
            key: getattr(first, key) for key in ("kernel_size", "stride", "padding", "dilation")
        }
        fresh = nn.Conv2d(n_channels, first.out_channels, bias=first.bias is not None, **options)
        network.set_submodule(name, fresh)
    return network


def classifiers() -> list[str]:
    """Return the names of torchvision's classification networks."""
    return torchvision.models.list_models(module=torchvision.models)


def torchvision_weights(
    name: str, entry: str, *, n_classes: int | None
) -> tuple[dict[str, Tensor], int]:
    """Return the state dict of torchvision's weights for `tv_NAME`, and their number of classes.

    They are from torch.hub's cache, or downloaded.

    Args:
        entry: DEFAULT, or the name of an entry such as IMAGENET1K_V2.
        n_classes: that they are to have; None: any.
    """
    given = name.removeprefix(PREFIX)
    if not name.startswith(PREFIX) or given not in classifiers():
        raise UserError(
            f"{entry}: {name} comes with no such weights, as tv_NAME of torchvision does, and FILE.py:FUNCTION with "
            "DEFAULT; give a checkpoint, or - for fresh weights"
        )
    table = torchvision.models.get_model_weights(given)
    if entry not in table.__members__:
        raise unknown_name(f"weights of {name}", entry, ["DEFAULT", *(each.name for each in table)])
    weights = table[entry]
    n_given = len(weights.meta["categories"])
    if n_classes not in (None, n_given):
        raise UserError(
            f"{entry} of {name} has {n_given} classes, the dataset {n_classes}; give a checkpoint of your own"
        )
    try:
        return weights.get_state_dict(progress=True, check_hash=True), n_given
    except OSError as error:  # URLError among them
        raise UserError(
            f"cannot download {weights.url} ({error}); put the file into {hub.get_dir()}/checkpoints, or set TORCH_HOME"
        ) from error
