"""Files of features (.npz), whose activations can be compared like those of a network.

A file has an array (N, ...) for each layer, and `ids` (N,), which name the images. It may have
`labels` (N,), and `made_with`: a record of the network and the images, as a text of JSON. Files of
misc/save_features.py have both.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from src.core.console import listed, note_once
from src.core.errors import UserError, unknown_name
from src.core.files import readable, write_arrays
from src.core.grouping import grouped
from src.core.inputs import InputSpec, are_images, describe_values, shape_text
from src.datasets.base import InputSet
from src.datasets.mapped import map_member
from src.models.layers import matching_names
from src.models.stored import StoredActivations
from src.results.network_names import FEATURES, SHORT, NamedNetwork, are_same

# Arrays of a file that are no layers
IDS = "ids"
LABELS = "labels"
MADE_WITH = "made_with"
OTHER_ARRAYS = (IDS, LABELS, MADE_WITH)
NO_LAYERS = (*OTHER_ARRAYS, "file")  # "file" is an argument of np.savez
REMEDY = "give an .npz file with an array (N, ...) for each layer, and ids (N,)"


class Images(NamedTuple):
    """The ids and labels of the images of features, or of those on which a network is compared."""

    title: str  # in messages
    ids: np.ndarray  # (N,); of a network's images, their places
    labels: np.ndarray | None = None  # (N,), numbers or names of classes
    fingerprint: str = ""  # of all test images; "": not known
    preprocessing: str = ""  # the shape of the images and the range of their values


class FeatureFile(NamedTuple):
    """The names of the layers in a file of features, and its images."""

    path: str
    names: list[str]  # of the layers
    images: Images
    made_with: Mapping[str, Any]  # {}: no record

    def layers(self, text: str) -> list[str]:
        """Return the layers that match an option: names and patterns, separated by commas, or `all`.

        Raises:
            UserError: there is no such layer.
        """
        layers: dict[str, None] = {}
        for pattern in map(str.strip, text.split(",")):
            if pattern == "all":
                layers |= dict.fromkeys(self.names)
                continue
            matching = matching_names(self.names, pattern)
            if not matching:
                raise unknown_name(f"layer of {self.path}", pattern, self.names)
            layers |= dict.fromkeys(matching)
        return list(layers)


class LoadedFeatures(NamedTuple):
    """The features from a file, by layer, and the layers that an option names."""

    network: StoredActivations
    layers: list[str]
    name: NamedNetwork  # with the SHA-256 of the file
    file: FeatureFile


def read_feature_file(path: str) -> FeatureFile:
    """Read the layers, images and record of a file, without the features.

    Raises:
        UserError: the file cannot be read, lacks ids or layers, or has fewer than two images.
    """
    with readable(path, REMEDY), np.load(path, allow_pickle=False) as arrays:
        names = [name for name in arrays.files if name not in OTHER_ARRAYS]
        if IDS not in arrays.files:
            raise UserError(f"{path} has no array {IDS}; {REMEDY}")
        ids = arrays[IDS]
        _check_ids_of(path, ids)
        labels = None
        if LABELS in arrays.files:
            labels = arrays[LABELS]
        made_with = {}
        if MADE_WITH in arrays.files:
            made_with = json.loads(str(arrays[MADE_WITH]))
    if labels is not None and labels.shape != ids.shape:
        raise UserError(f"{path}: labels has shape {labels.shape}; give one for each id, (N,)")
    if not names:
        raise UserError(f"{path} has no array of a layer; {REMEDY}")
    fingerprint = made_with.get("test_images", "")
    images = Images(path, ids, labels, fingerprint, made_with.get("preprocessing", ""))
    return FeatureFile(path, names, images, made_with)


def read_features(path: str, layers: str) -> LoadedFeatures:
    """Return the features of layers in an .npz file.

    Uncompressed arrays stay in the file until the features are compared.

    Args:
        layers: see `FeatureFile.layers`.
    Raises:
        UserError: the file cannot be read, lacks a layer or the ids, or has other shapes.
    """
    file = read_feature_file(path)
    chosen = file.layers(layers)
    with readable(path, REMEDY):
        values = {layer: map_member(Path(path), layer, unpack=False) for layer in chosen}
    for layer, array in values.items():
        _check_array(path, layer, array, n_images=len(file.images.ids))
    name = NamedNetwork(path, FEATURES)
    name = replace(name, weights=name.content)
    return LoadedFeatures(StoredActivations(values), chosen, name, file)


def _check_ids_of(path: str, ids: np.ndarray) -> None:
    """Raise a UserError unless there are two or more images, each with an id of its own."""
    if ids.ndim != 1:
        raise UserError(f"{path}: ids has shape {ids.shape}; give one id for each input, (N,)")
    if len(ids) < 2:
        raise UserError(f"{path}: ids has shape {ids.shape}; give at least two inputs")
    values, counts = np.unique(ids, return_counts=True)
    if np.any(counts > 1):
        repeated = values[counts > 1][0]
        raise UserError(f"{path}: the id {repeated} is repeated; give every input an id of its own")


def _check_array(path: str, name: str, array: np.ndarray, *, n_images: int) -> None:
    """Raise a UserError unless an array is numeric, of two to four axes, with one row for each image."""
    if array.dtype.kind not in "fiu":
        raise UserError(f"{path}: {name} holds no numbers, but {array.dtype}; {REMEDY}")
    if not 2 <= array.ndim <= 4:
        raise UserError(
            f"{path}: {name} has shape {array.shape}; give (N, C, H, W), (N, T, D) or (N, D)"
        )
    if len(array) != n_images:
        raise UserError(
            f"{path}: {name} has shape {array.shape}, and there are {n_images} ids; {REMEDY}"
        )


def check_names(layers: Sequence[str]) -> None:
    """Raise a UserError if the name of a layer is reserved for another array of the file."""
    for layer in layers:
        if layer in NO_LAYERS:
            raise UserError(
                f"a layer called {layer} cannot be saved, as {listed(NO_LAYERS)} have a meaning in an "
                ".npz file of features; rename the layer, or name other layers"
            )


def write_features(
    path: str, activations: StoredActivations, images: Images, made_with: Mapping[str, object]
) -> None:
    """Write features to an .npz file that `read_features` reads.

    Args:
        activations: of the first images; `check_names` tells which names layers may have.
        made_with: what JSON can hold.
    """
    arrays = {name: np.asarray(values) for name, values in activations.values.items()}
    n_images = len(next(iter(arrays.values())))
    arrays[IDS] = images.ids[:n_images]
    if images.labels is not None:
        arrays[LABELS] = images.labels[:n_images]
    record = {
        **made_with,
        "test_images": images.fingerprint,
        "preprocessing": images.preprocessing,
    }
    arrays[MADE_WITH] = np.array(json.dumps(record))
    write_arrays(Path(path), arrays, is_compressed=False)


def images_of(test_set: InputSet, fingerprint: str, *, dataset: str) -> Images:
    """Return the ids and labels of test images; the ids are indices into the data set."""
    return Images(
        f"the test inputs of {dataset}",
        np.arange(len(test_set)),
        test_set.labels.cpu().numpy(),
        fingerprint,
        preprocessing_of(test_set.spec),
    )


def preprocessing_of(spec: InputSpec) -> str:
    """Describe the preprocessing of images, such as "3×32×32, values in [0, 1]"."""
    if not are_images(spec.shape):
        return f"{shape_text(spec.shape)} numbers, as they are"
    return f"{shape_text(spec.shape)}, {describe_values(spec.normalisation)}"


def common_images(first: FeatureFile, second: FeatureFile) -> dict[str, Any]:
    """Return the columns of tables that record the images of two files.

    If the record is missing or differs, the data set is `FEATURES` and the other columns are None.
    """
    names = ("dataset", "shortcut", "test_images")
    records = [{name: file.made_with.get(name) for name in names} for file in (first, second)]
    if records[0] != records[1] or not records[0]["test_images"]:
        return {"dataset": FEATURES, "shortcut": None, "test_images": None}
    return records[0] | {"test_images": records[0]["test_images"][:SHORT]}


def class_numbers(labels: np.ndarray) -> np.ndarray:
    """Return labels (N,) of any type as integers: the index of the first image of the same class."""
    _, first_places, classes = np.unique(labels, return_index=True, return_inverse=True)
    return first_places[classes]


def check_same_images(reference: Images, compared: Sequence[Images], *, n_images: int) -> None:
    """Raise a UserError if files have images that differ from a reference.

    Ids and labels of the first images are compared. Where one file names classes and one numbers
    the classes, the same images have to share a class. Fingerprints are compared unless images were
    preprocessed in different ways, which changes fingerprints.

    Args:
        n_images: how many images are compared.
    """
    differences = {images.title: _difference(reference, images, n_images) for images in compared}
    differences = {title: text for title, text in differences.items() if text}
    if differences:
        texts = []
        for text, titles in grouped(differences, differences.__getitem__).items():
            texts.append(f"{listed(titles)}: {text} {reference.title}")
        raise UserError(
            f"{'; '.join(texts)}; store the features of the same inputs in the same order (the ids of a "
            "network's inputs are 0, 1, 2, …)"
        )
    for images in compared:
        if "" not in (images.preprocessing, reference.preprocessing):
            if images.preprocessing != reference.preprocessing:
                note_once(
                    f"{images.title}: given to the network as {images.preprocessing}; {reference.title}: as "
                    f"{reference.preprocessing}; that is correct if each network was trained in this way"
                )


def _difference(reference: Images, images: Images, n_images: int) -> str:
    """Describe how images differ from a reference; "" if they do not."""
    n_common = min(n_images, len(reference.ids), len(images.ids))
    ids = images.ids[:n_common]
    ids_of_reference = reference.ids[:n_common]
    if not np.array_equal(ids, ids_of_reference):
        if np.array_equal(np.sort(images.ids), np.sort(reference.ids)):
            return "the ids stand in another order than those of"
        return "other ids than"
    if images.labels is not None and reference.labels is not None:
        labels = images.labels[:n_common]
        labels_of_reference = reference.labels[:n_common]
        if (labels.dtype.kind in "US") != (labels_of_reference.dtype.kind in "US"):
            labels = class_numbers(labels)
            labels_of_reference = class_numbers(labels_of_reference)
        if not np.array_equal(labels, labels_of_reference):
            return "other labels of the same ids than"
    is_prepared_alike = images.preprocessing == reference.preprocessing
    if is_prepared_alike and not are_same(images.fingerprint, reference.fingerprint):
        return "other inputs of the same ids than"
    return ""
