"""Builds networks by name."""

from src.choices import resolve
from src.choices.models import MODEL_NAMES, MODELS
from src.errors import Misfit, UserError, unknown_name
from src.models.network import Network
from src.models.torchvision_networks import torchvision_network
from src.models.user_file import user_network
from src.network_names import is_user_network


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
    options = {"n_channels": n_channels, "image_shape": image_shape, "representation_shape": representation_shape}
    images = image_shape
    if name in MODELS:
        builder, arguments, names = MODELS[name]
        given = {key: options[key] for key in names}
        images = given.get("representation_shape", image_shape)
        module = resolve(__package__, builder)(**arguments, **given, n_classes=n_classes)
    elif is_user_network(name):
        module = user_network(name, n_channels=n_channels, image_shape=image_shape, n_classes=n_classes)
    elif name.startswith("tv_"):
        module = torchvision_network(name, n_channels=n_channels, image_shape=image_shape, n_classes=n_classes)
    elif name.endswith(".py"):
        raise UserError(f"model {name!r} is a file; name the function in it that makes the network: {name}:FUNCTION")
    else:
        raise unknown_name("model", name, (*MODEL_NAMES, "tv_NAME of torchvision", "FILE.py:FUNCTION"))
    network = Network(module, image_shape=images, n_classes=n_classes)
    if image_shape is not None and (name not in MODELS or name == "small_cnn"):  # which small images are too small for
        _check(network, name, encoder=encoder)
    return network


def _check(network: Network, name: str, *, encoder: bool) -> None:
    """Raise a UserError if a network does not take the images, or is an encoder where none is wanted."""
    try:
        shape, is_encoder = network.eval().output_shape, network.is_encoder
    except UserError:
        raise
    except Exception as error:  # whatever its forward raises
        reason, images = str(error)[:300], "×".join(map(str, network.image_shape))
        raise Misfit(f"{name} cannot take images of {images} ({reason}); choose another one or a dataset") from error
    network.train()
    if is_encoder and not encoder:
        raise UserError(
            f"{name} gives {'×'.join(map(str, shape))} for an image, not the logits of {network.n_classes} classes; "
            "let it take n_classes, or give this encoder a head: exec_probe.py CHECKPOINT TYPE -l output -d DATASET "
            "--with-head DIR, and name DIR/model_EPOCH.pt as its checkpoint"
        )
