"""State dicts on disk, and networks built from them."""

import hashlib
import io
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from src.console import warn, warn_once
from src.errors import Misfit, UserError
from src.files import readable, write_bytes
from src.images import ImageSpec
from src.models import Network, build_model
from src.models.heads import LinearProbe
from src.models.torchvision_networks import torchvision_weights
from src.network_names import DEFAULT, NetworkName, fresh_seed, is_user_network
from src.runtime import seeded
from src.trained_with import explained, options_beside, warn_of_other_images

State = dict[str, Tensor]
SHAPES = re.compile(  # in torch's message on a state dict that does not fit
    r"copying a param with shape torch.Size\((.*?)\) from checkpoint, the shape in current model is "
    r"torch.Size\((.*?)\)\."
)


def save_state(path: Path, state: Mapping[str, Tensor]) -> None:
    """Save a state dict in torch's zip format, atomically; equal states make equal bytes."""
    save_tensors(path, {key: value.detach().cpu().contiguous() for key, value in state.items()})


def save_tensors(path: Path, content: Any) -> None:
    """Save tensors and plain values, nested at will, in torch's zip format, atomically."""
    buffer = (
        io.BytesIO()
    )  # written to directly, torch.save would store the file's name inside of it
    torch.save(content, buffer)
    write_bytes(path, buffer.getvalue())


def load_state(path: str | Path) -> State:
    """Load a state dict, in torch's zip or legacy format.

    Takes it out of `state_dict` or `model` where it is wrapped, and strips the prefixes `module.`
    (DataParallel) and `_orig_mod.` (torch.compile).

    Raises:
        UserError: as load_tensors; or the file holds something else.
    """
    state = load_tensors(path)
    for wrapper in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not all(
        isinstance(value, Tensor) for value in state.values()
    ):
        raise UserError(
            f"checkpoint {path} is no state dict; save one with torch.save(model.state_dict(), path)"
        )
    state = dict(state)
    for prefix in ("module.", "_orig_mod.", "module."):  # either may be the outer one
        nn.modules.utils.consume_prefix_in_state_dict_if_present(state, prefix)
    return state


def load_tensors(path: str | Path) -> Any:
    """Load what torch saved, if it is tensors and plain values, onto the CPU; no code in it runs.

    Raises:
        UserError: the file is missing, damaged, or holds code instead of tensors.
    """
    remedy = "save a plain state dict: torch.save(model.state_dict(), path)"
    reads = (
        f"it is damaged or no checkpoint: {remedy}" if Path(path).is_file() else "check the path"
    )
    with readable(f"checkpoint {path}", reads), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of files that are no checkpoints
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:  # torch's sentence advises to run the code
            raise UserError(
                f"checkpoint {path} holds more than tensors, or is damaged; {remedy}"
            ) from error


def load_model(
    name: NetworkName,
    images: ImageSpec,
    *,
    device: torch.device | str = "cpu",
    encoder: bool = False,
) -> Network:
    """Build a network with the weights that its name says, frozen and in eval mode.

    A checkpoint with `linear_probe.weight` and `linear_probe.bias` beside the keys of an encoder
    makes it a classifier.

    Args:
        images: that it is to take.
        encoder: take a network that gives features instead of logits as well, or logits of other classes in the place
            of features, as torchvision's weights do.
    Raises:
        UserError: as load_state or build_model; a Misfit: the checkpoint does not fit the network, names one key.
    """

    def build(
        has_head: bool = False, *, n_classes: int = images.n_classes, seed: int = 0
    ) -> Network:
        shape = {"n_channels": images.shape[0], "image_shape": tuple(images.shape)}
        with seeded(seed):
            network = build_model(
                name.type, n_classes=n_classes, **shape, encoder=encoder or has_head
            )
        network.n_classes = images.n_classes
        return network.with_head() if has_head and network.is_encoder else network

    if name.is_fresh or name.is_given and name.path == DEFAULT and is_user_network(name.type):
        network = build(seed=fresh_seed(name.seed))
        if name.is_fresh and is_user_network(name.type):
            _warn_if_given(name.type, network, build(seed=fresh_seed(name.seed) + 1))
        return freeze(network, device)
    if name.is_file:
        state, n_classes = load_state(name.path), images.n_classes
    else:
        state, n_classes = torchvision_weights(
            name.type, name.path, n_classes=None if encoder else images.n_classes
        )
    try:
        model = build(f"{LinearProbe.NAME}.weight" in state, n_classes=n_classes)
        load_weights(model, name.path, wanted=f"{name.type} with {n_classes} classes", state=state)
    except Misfit as misfit:
        raise explained(misfit, name, images) from misfit
    if name.is_file:
        warn_of_other_images(name.path, images)
    if not name.is_file and hasattr(
        model.module, "transform_input"
    ):  # GoogLeNet's and Inception's other statistics
        model.module.transform_input = True
    return freeze(model, device)


def weights_of(name: NetworkName, network: Network) -> str:
    """Return the SHA-256 of the weights of a loaded network; of given weights, that of its state
    dict."""
    return content_of_state(network.state_dict()) if name.is_given else name.content


def content_of_state(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of the names, types, shapes and values of a state dict."""
    digest = hashlib.sha256()
    for key, value in sorted(state.items()):
        if not isinstance(value, Tensor):  # extra state of a module
            continue
        values = value.detach().cpu().contiguous()
        digest.update(f"{key} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _warn_if_given(kind: str, network: Network, other: Network) -> None:
    """Warn if a user's function gives two seeds the same weights: they are not fresh, but what
    comes with it."""
    if content_of_state(network.state_dict()) == content_of_state(other.state_dict()):
        warn_once(
            f"{kind} gives the same weights whatever the seed, and - says that they are fresh and untrained; give "
            f"{DEFAULT} in the place of the checkpoint if they are trained"
        )


def load_weights(
    model: Network, path: str | Path, *, wanted: str, state: State | None = None
) -> Network:
    """Load a checkpoint into a network, and return it.

    Args:
        wanted: how the network is called in the error.
        state: of the checkpoint, if it is loaded already.
    Raises:
        UserError: as load_state; a Misfit: the checkpoint does not fit, names one key.
    """
    state, expected = load_state(path) if state is None else state, model.state_dict()
    if state.keys().isdisjoint(expected) and all(key.startswith("module.") for key in expected):
        state = {
            f"module.{key}": value for key, value in state.items()
        }  # the network has a child of that name
    kind = options_beside(path).get("model_type")
    given = f"checkpoint {path}" + (f", by its config.txt {kind}," if kind else "")
    fill(model, state, given=given, wanted=wanted)
    if not all(value.isfinite().all() for value in state.values()):
        warn(f"checkpoint {path} has weights that are not finite")
    return model


def fill(module: Network | nn.Module, state: State, *, given: str, wanted: str) -> None:
    """Load a state dict into a network or a layer.

    Raises:
        Misfit: their keys or shapes differ; the line names what is given, what is wanted, and one key.
    """
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        lines = str(error).splitlines()  # torch's first line names the network
        clause = _one_key(lines[min(1, len(lines) - 1)].strip())
        raise Misfit(
            f"{given} does not fit {wanted}: {clause}; name the model and data it was made with",
            clause=clause,
        ) from error


def _one_key(clause: str) -> str:
    """Shorten a clause of torch's message about a state dict; of several keys it names the
    first."""
    first, *others = clause.split('", "')
    if others:
        return f'{first}" and {len(others)} more'
    return SHAPES.sub(r"\1 in the checkpoint, \2 in the network", clause)


def freeze(model: Network, device: torch.device | str) -> Network:
    """Move a network to its device, in evaluation mode, without gradients, and in the faster
    layout."""
    # The layout of the weights decides that of the activations; this one is the faster for
    # convolutions.
    return model.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)
