"""Construction of networks by name: of the suite, of torchvision, or by a user's function."""

import inspect
import pkgutil
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from src.core.choices.models import MODEL_NAMES, MODELS
from src.core.console import listed
from src.core.errors import Misfit, UserError, unknown_name
from src.core.inputs import are_images, shape_text
from src.core.user_code import CODE, failing_as_user_error, is_user_code, load
from src.models.network import Network


def build_model(
    name: str,
    *,
    n_classes: int = 10,
    n_channels: int = 3,
    representation_shape: tuple[int, ...] | None = None,
    image_shape: tuple[int, ...] | None = None,
    encoder: bool = False,
    inputs: Tensor | None = None,
) -> Network:
    """Build a network with randomly initialised weights, drawn from torch's global generator.

    Args:
        name: one of `MODEL_NAMES`; `tv_NAME` for any classification network of torchvision; or
            FILE.py:FUNCTION, whose code is run.
        n_classes: number of logits.
        n_channels: channels of the images.
        representation_shape: (C, H, W) or (tokens, width) of an activation; only for `repr_cls_*`.
        image_shape: (C, H, W) of the images; of other inputs (T,) or (D,). `vit_*` derive their number
            of tokens from it, `repr_cls_resnet*` resize activations to its H×W.
        encoder: accept a network that gives features instead of logits.
        inputs: three inputs, where the network takes no images; see `Network`.
    Raises:
        UserError: there is no such network, or it does not fit the images or classes.
    """
    if representation_shape is None and image_shape is not None:
        _check_takes(name, image_shape)
    if name in MODELS:
        row = MODELS[name]
        options: dict[str, Any] = {
            "n_channels": n_channels,
            "image_shape": image_shape,
            "representation_shape": representation_shape,
        }
        chosen = {key: options[key] for key in row.options}
        module = pkgutil.resolve_name(row.build)(**row.arguments, **chosen, n_classes=n_classes)
        input_shape = chosen.get("representation_shape", image_shape)
        return Network(module, image_shape=input_shape, n_classes=n_classes)

    if is_user_code(name):
        module = _user_network(
            name, n_channels=n_channels, image_shape=image_shape, n_classes=n_classes
        )
    elif name.startswith("tv_"):
        from src.models.torchvision_networks import torchvision_network

        module = torchvision_network(
            name, n_channels=n_channels, image_shape=image_shape, n_classes=n_classes
        )
    elif name.endswith(".py"):
        raise UserError(
            f"model {name!r} is a file; give the function in it that makes the network: "
            f"{name}:FUNCTION"
        )
    else:
        names = [*MODEL_NAMES, "tv_NAME of torchvision", CODE]
        raise unknown_name("model", name, names, where="exec_train.py --help lists all")
    network = Network(module, image_shape=image_shape, n_classes=n_classes, inputs=inputs)
    if image_shape is not None:
        _check(network, name, image_shape, encoder=encoder)
    return network


def _check_takes(name: str, image_shape: tuple[int, ...]) -> None:
    """Raise a UserError if a network of images is to take tokens or vectors."""
    if not are_images(image_shape) and (name in MODELS or name.startswith("tv_")):
        raise UserError(
            f"{name} takes images, and the inputs are {shape_text(image_shape)} numbers each; give a network of your "
            f"own: {CODE}"
        )


def advice_on_positions(output_shape: Sequence[int]) -> str:
    """Return the remedy for an output with a row for each position; "" for outputs without
    positions."""
    if len(output_shape) != 2:
        return ""
    return "to select a position, wrap the module so that forward returns, say, logits[:, -1]; "


def _check(network: Network, name: str, image_shape: tuple[int, ...], *, encoder: bool) -> None:
    """Raise an error if a network cannot take the images, or is an encoder and must not be."""
    try:
        output_shape = network.eval().output_shape
    except UserError:
        raise
    except Exception as error:  # raised by the network's forward
        reason = str(error)[:300]
        size = shape_text(image_shape)
        raise Misfit(
            f"{name} cannot take images of {size} ({reason}); choose another network or another data set"
        ) from error
    is_encoder = network.is_encoder
    network.train()
    if is_encoder and not encoder:
        raise UserError(
            f"{name} gives {'×'.join(map(str, output_shape))} for an input, not the logits of "
            f"{network.n_classes} classes; {advice_on_positions(output_shape)}let it take n_classes, "
            "or wrap this encoder and a head in one module"
        )


def unwrapped(module: nn.Module) -> nn.Module:
    """Return the network inside of DataParallel and of torch.compile, which hide its layers."""
    if isinstance(module, (nn.DataParallel, DistributedDataParallel)):
        return unwrapped(module.module)
    return getattr(module, "_orig_mod", module)


def _user_network(name: str, **options: object) -> nn.Module:
    """Call a user's function with the options that it takes by name; return its module."""
    remedy = (
        f"correct it, or give the right {CODE} (of n_classes, n_channels and image_shape it "
        "gets those that it takes by name)"
    )
    make = load(name, remedy=remedy)
    with failing_as_user_error(name, remedy=remedy):
        parameters = inspect.signature(make).parameters
        module = make(**{key: value for key, value in options.items() if key in parameters})
    if isinstance(module, Network):
        module = module.module
    if not isinstance(module, nn.Module):
        raise UserError(f"{name} returns a {type(module).__name__}; let it return an nn.Module")
    module = unwrapped(module)
    dtypes = {parameter.dtype for parameter in module.parameters()} - {torch.float32}
    if any(dtype.is_floating_point for dtype in dtypes):
        raise UserError(
            f"{name} has parameters of {listed(dtypes)}, and inputs are float32; let it return module.float(), "
            "and give --amp bf16 where it is to compute in bfloat16"
        )
    return module
