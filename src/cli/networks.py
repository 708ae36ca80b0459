"""How networks are named on the command line."""

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from src.choices.models import MODEL_NAMES
from src.errors import UserError
from src.network_names import FRESH, NetworkName, content_of, file_and_function, fresh_seed, is_user_network

if TYPE_CHECKING:
    from src.models import Network

NETWORKS = (
    f"one of {', '.join(MODEL_NAMES)}; tv_NAME, any classification network of torchvision (tv_convnext_tiny); or "
    "FILE.py:FUNCTION, one of your own"
)
CHECKPOINT = "a state dict; for tv_NAME also DEFAULT or the name of torchvision's weights; - for fresh weights"


def network(text: str) -> str:
    """Read the name of a network: the type of an option; the path of a user's file becomes absolute."""
    if not is_user_network(text):
        return text
    file, function = file_and_function(text)
    return f"{file.expanduser().absolute()}:{function}"


def checkpoint(text: str) -> str:
    """Read the name of the weights of a network: the type of an option, which marks it for `add_derived_options`."""
    return text


def refuse_code_of_config(from_file: Mapping[str, Any], args: argparse.Namespace, words: Sequence[str]) -> None:
    """Raise a UserError if an option is code that the file of options alone names, not the words of the command."""
    given = {network(part) for word in words for part in (word, word.partition("=")[2])}
    for name in from_file:
        value = getattr(args, name)
        if isinstance(value, str) and is_user_network(value) and value not in given:
            raise UserError(
                f"{name} {value} stands in the file of --config alone, and a file of options does not run "
                "code; name it on the command line as well"
            )


def add_derived_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Add the SHA-256 of users' files that options name networks of, and the seeds of fresh weights.

    Raises:
        UserError: a file cannot be read.
    """
    for action in parser._actions:
        value = getattr(args, action.dest, None)
        if action.type is network and value and is_user_network(value):
            setattr(args, f"{action.dest}_sha256", content_of(file_and_function(value)[0]))
        elif action.type is checkpoint and value == FRESH:
            setattr(args, f"{action.dest}_seed", fresh_seed(getattr(args, "seed", 0)))


def is_derived(name: str) -> bool:
    """Return whether an entry of `config.txt` was added by `add_derived_options`."""
    return name.endswith(("_type_sha256", "arch_sha256", "_path_seed"))


def add_channels_last(parser: argparse.ArgumentParser, *sides: str) -> None:
    """Add `--channels-last`, for one network or for the given sides."""
    what = "activations of three axes are height, width, channels where their shape does not tell"
    if sides:
        parser.add_argument("--channels-last", choices=(*sides, "both"), default=None, help=f"whose {what}")
    else:
        parser.add_argument("--channels-last", action="store_true", help=what)


def named_network(args: argparse.Namespace, side: str) -> NetworkName:
    """Return the network that options name: `front_model` by `front_model_path` and `front_model_type`."""
    options = vars(args)
    return NetworkName(options[f"{side}_path"], options[f"{side}_type"], options.get(f"{side}_path_seed"))


def choose_layers(
    network: "Network", text: str, args: argparse.Namespace, *, image_shape: Sequence[int], side: str = "both"
) -> tuple["Network", list[str]]:
    """Return the layers that an option names, and the network with their activations as maps (B, C, H, W).

    Args:
        text: as `Network.layers` takes it.
        side: whose layers they are, for `--channels-last`.
    """
    layers, is_last = network.layers(text), args.channels_last in (True, side, "both")
    if side == "end" and not set(layers) <= set(network.layer_names):
        raise UserError(f"end layer {text}: nothing follows the output of the network; choose a layer in front of it")
    return network.channels_first(layers, image_shape=image_shape, channels_last=is_last), layers
