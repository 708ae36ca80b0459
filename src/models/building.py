"""Builds networks by name: of the zoo, of torchvision, or of a function in a user's file,
FILE.py:FUNCTION."""

import inspect
from typing import Any

from torch import nn

from src.choices.models import MODEL_NAMES, MODELS
from src.errors import Misfit, UserError, unknown_name
from src.models.network import Network
from src.models.preact_resnet import PreActResNet
from src.models.representation_classifiers import RepresentationResNet, RepresentationTransformer
from src.models.resnet import ResNet
from src.models.small_cnn import SmallCNN
from src.models.torchvision_networks import torchvision_network
from src.models.vit import VisionTransformer
from src.network_names import is_user_network
from src.user_code import failing_as_user_error, load

BUILDERS = {
    "resnet": ResNet,
    "preact_resnet": PreActResNet,
    "small_cnn": SmallCNN,
    "vit": VisionTransformer,
    "representation_resnet": RepresentationResNet,
    "representation_vit": RepresentationTransformer,
}


def build_model(
    name: str,
    *,
    n_classes: int = 10,
    n_channels: int = 3,
    representation_shape: tuple[int, ...] | None = None,
    image_shape: tuple[int, int, int] | None = None,
    encoder: bool = False,
) -> Network:
    """Build the network `name` with fresh weights, drawn from torch's global generator.

    Args:
        name: one of `MODEL_NAMES`; `tv_NAME` for any classification network of torchvision; or FILE.py:FUNCTION,
            whose file is run.
        n_classes: number of logits.
        n_channels: channels of the images.
        representation_shape: of one sample, needed by `repr_cls_*` alone: (C, H, W) or (tokens, width).
        image_shape: (C, H, W) of the data. `vit_*` derive their number of tokens from it, `repr_cls_resnet*` resize
            representations to its H×W.
        encoder: take a network that gives features instead of logits as well.
    Raises:
        UserError: no such network (the close names are listed), or it does not suit the images or classes.
    """
    options = {
        "n_channels": n_channels,
        "image_shape": image_shape,
        "representation_shape": representation_shape,
    }
    images = image_shape
    if name in MODELS:
        builder, arguments, names = MODELS[name]
        given = {key: options[key] for key in names}
        images = given.get("representation_shape", image_shape)
        module = BUILDERS[builder](**arguments, **given, n_classes=n_classes)
    elif is_user_network(name):
        module = _user_network(
            name, n_channels=n_channels, image_shape=image_shape, n_classes=n_classes
        )
    elif name.startswith("tv_"):
        module = torchvision_network(
            name, n_channels=n_channels, image_shape=image_shape, n_classes=n_classes
        )
    elif name.endswith(".py"):
        raise UserError(
            f"model {name!r} is a file; name the function in it that makes the network: {name}:FUNCTION"
        )
    else:
        names = *MODEL_NAMES, "tv_NAME of torchvision", "FILE.py:FUNCTION"
        raise unknown_name("model", name, names, where="exec_train.py --help lists all")
    network = Network(module, image_shape=images, n_classes=n_classes)
    if image_shape is not None and name not in MODELS:
        _check(network, name, encoder=encoder)
    return network


def _check(network: Network, name: str, *, encoder: bool) -> None:
    """Raise a UserError if a network does not take the images, or is an encoder where none is
    wanted."""
    try:
        shape, is_encoder = network.eval().output_shape, network.is_encoder
    except UserError:
        raise
    except Exception as error:  # whatever its forward raises
        reason, images = str(error)[:300], "×".join(map(str, network.image_shape))
        raise Misfit(
            f"{name} cannot take images of {images} ({reason}); choose another one or a dataset"
        ) from error
    network.train()
    if is_encoder and not encoder:
        raise UserError(
            f"{name} gives {'×'.join(map(str, shape))} for an image, not the logits of {network.n_classes} classes; "
            "let it take n_classes, or give this encoder a head: exec_probe.py CHECKPOINT TYPE -l output -d DATASET "
            "--with-head DIR, and name DIR/model_EPOCH.pt as its checkpoint"
        )


def _user_network(name: str, **options: Any) -> nn.Module:
    """Run the file and call its function with those of the options that it takes by name.

    Raises:
        UserError: there is no such file or function, the file fails, or the function returns no `nn.Module`.
    """
    remedy = (
        "mend it, or give the right FILE.py:FUNCTION (of n_classes, n_channels and image_shape it "
        "gets those that it takes by name)"
    )
    make = load(name, remedy=remedy)
    with failing_as_user_error(name, remedy=remedy):
        takes = inspect.signature(make).parameters
        network = make(**{key: value for key, value in options.items() if key in takes})
    network = network.module if isinstance(network, Network) else network
    if not isinstance(network, nn.Module):
        raise UserError(f"{name} returns a {type(network).__name__}; let it return an nn.Module")
    return network
