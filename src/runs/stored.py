"""Features in a user's .npz file, which stand for a network."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from src.ground.errors import UserError, unknown_name
from src.ground.files import readable
from src.similarity.passes import StoredActivations
from src.tables.network_names import FEATURES, NetworkName

IDS = "ids"  # the array that names the images of a file
REMEDY = "give an .npz file with an array (N, ...) for each layer, and ids (N,)"


class FeatureFile(NamedTuple):
    """The features in an .npz file, and the layers that an option names of it."""

    network: StoredActivations
    layers: list[str]
    name: NetworkName  # with the SHA-256 of the file
    ids: np.ndarray  # (N,), of the images


def read_features(path: str, layers: str, *, device: torch.device | str) -> FeatureFile:
    """Return the features of layers in an .npz file.

    Args:
        layers: names of arrays with commas between them, or all.
    Raises:
        UserError: the file cannot be read, lacks a layer or the ids, or has other shapes.
    """
    with readable(path, REMEDY), np.load(path, allow_pickle=False) as arrays:
        names = [name for name in arrays.files if name != IDS]
        if IDS not in arrays.files:
            raise UserError(f"{path} has no array {IDS}; {REMEDY}")
        ids = arrays[IDS]
        _check_ids_of(path, ids)
        chosen = _layers_of(path, layers, names)
        values = {
            name: _as_tensor(path, name, arrays[name], n_images=len(ids)).to(device)
            for name in chosen
        }
    name = NetworkName(path, FEATURES)
    name = name._replace(weights=name.content)
    return FeatureFile(StoredActivations(values), chosen, name, ids)


def _check_ids_of(path: str, ids: np.ndarray) -> None:
    """Raise a UserError unless there is one id for each image, and no id for two images."""
    if ids.ndim != 1:
        raise UserError(f"{path}: ids has shape {ids.shape}; give one id for each image, (N,)")
    values, counts = np.unique(ids, return_counts=True)
    if np.any(counts > 1):
        repeated = values[counts > 1][0]
        raise UserError(
            f"{path}: the id {repeated} stands there twice or more; give every image another id"
        )


def _layers_of(path: str, text: str, names: Sequence[str]) -> list[str]:
    """Return the arrays that an option names."""
    layers: dict[str, None] = {}
    for name in map(str.strip, text.split(",")):
        if name == "all":
            layers |= dict.fromkeys(names)
        elif name in names:
            layers[name] = None
        else:
            raise unknown_name(f"layer of {path}", name, names)
    return list(layers)


def _as_tensor(path: str, name: str, array: np.ndarray, *, n_images: int) -> Tensor:
    """Return an array (N, ...) of numbers as a tensor, in single precision unless it is double."""
    if array.dtype.kind not in "fiu":
        raise UserError(f"{path}: {name} holds no numbers, but {array.dtype}; {REMEDY}")
    if len(array) != n_images:
        raise UserError(
            f"{path}: {name} has shape {array.shape}, and there are {n_images} ids; {REMEDY}"
        )
    if not 2 <= array.ndim <= 4:
        raise UserError(
            f"{path}: {name} has shape {array.shape}; give (N, C, H, W), (N, T, D) or (N, D)"
        )
    if array.dtype != np.float64:
        array = array.astype(np.float32)
    return torch.from_numpy(array)


def check_ids(first: FeatureFile, second: FeatureFile | None = None, *, n_images: int) -> None:
    """Raise a UserError if the features on both sides are of different images.

    Args:
        second: default: a network, whose ids are the places of the test images.
        n_images: how many images are compared.
    """
    ids = first.ids[:n_images]
    if second is None:
        if not np.array_equal(ids, np.arange(n_images)):
            raise UserError(
                f"{first.name.path}: the ids are not 0, 1, 2, …, the places of the test images, "
                "that a network is compared on; store the features of these images"
            )
    elif not np.array_equal(ids, second.ids[:n_images]):
        raise UserError(
            f"{first.name.path} and {second.name.path} have other ids; store the features of the "
            "same images in the same order"
        )
