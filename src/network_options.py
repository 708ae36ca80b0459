"""How networks are named on the command line, and what is recorded of them beside their names."""

import argparse
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from src.errors import UserError
from src.models import MODEL_NAMES
from src.models.own import is_own, sha256_of, split_own

if TYPE_CHECKING:
    from src.models import Network

NETWORKS = (
    f"one of {', '.join(MODEL_NAMES)}; tv_NAME, any classification network of torchvision (tv_convnext_tiny); or "
    "FILE.py:FUNCTION, one of your own"
)
CHECKPOINT = "a state dict; for tv_NAME also DEFAULT or the name of torchvision's weights; - for fresh weights"
FRESH = "-"


def network(text: str) -> str:
    """Check the name of a network: the type of an option; the file of one's own becomes an absolute path."""
    if not is_own(text):
        return text
    file, function = split_own(text)
    return f"{file.expanduser().absolute()}:{function}"


def checkpoint(text: str) -> str:
    """Check the name of the weights of a network: the type of an option."""
    return text


def complete(parser: argparse.ArgumentParser, args: argparse.Namespace, words: Sequence[str]) -> None:
    """Add to the options the SHA-256 of files that they name networks of, and the seeds of fresh weights.

    Args:
        words: the command line itself, without what a file of options says.
    Raises:
        UserError: a file of options alone names code, which is not run then, or a file cannot be read.
    """
    given = {network(word) for word in words for word in (word, word.partition("=")[2]) if is_own(word)}
    for action in parser._actions:
        value = getattr(args, action.dest, None)
        if action.type is network and value and is_own(value):
            if value not in given:
                raise UserError(
                    f"{action.dest} {value} stands in the file of --config alone, and a file of options does not run "
                    "code; name it on the command line as well"
                )
            setattr(args, f"{action.dest}_sha256", sha256_of(value))
        elif action.type is checkpoint and value == FRESH:
            key = f"{getattr(args, 'seed', 0)} {action.dest}"
            setattr(args, f"{action.dest}_seed", int.from_bytes(hashlib.sha256(key.encode()).digest()[:6], "big"))


def add_channels_last(parser: argparse.ArgumentParser, *sides: str) -> None:
    """Add `--channels-last`, for one network or for the given sides."""
    what = "activations of three axes are height, width, channels where their shape does not tell"
    if sides:
        parser.add_argument("--channels-last", choices=(*sides, "both"), default=None, help=f"whose {what}")
    else:
        parser.add_argument("--channels-last", action="store_true", help=what)


def choose(
    network: "Network", text: str, args: argparse.Namespace, side: str = "both", *, image_shape: Sequence[int]
) -> tuple["Network", list[str]]:
    """Return the layers that an option names, and a view with `--channels-last` as the options have it; see
    Network.channels_first."""
    layers, last = network.layers(text), args.channels_last in (True, side, "both")
    return network.channels_first(layers, image_shape=image_shape, channels_last=last), layers


def named(args: argparse.Namespace, side: str) -> dict[str, Any]:
    """Collect the options of a network for `load_model`: the network `front_model` is named by
    `front_model_path` and `front_model_type`."""
    options = vars(args)
    return {"path": options[f"{side}_path"], "name": options[f"{side}_type"], "seed": options.get(f"{side}_path_seed")}
