"""Loads checkpoints of networks and of trained detectors, and reads the training options beside them.
A session keeps loaded networks and data sets for all experiments of a process.

A store is a folder with a checkpoint for each detector. Its `meta.json` has the network, the layer and
the data of each detector.
"""

import itertools
import re
import uuid
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from src.core.cache import Cache
from src.core.choices.datasets import dataset_label
from src.core.choices.models import MODEL_NAMES
from src.core.choices.scores import SCORES
from src.core.console import listed, note_once, recorded_warnings, warn, warn_once
from src.core.errors import Misfit, UserError, unknown_name
from src.core.files import locked, readable
from src.core.inputs import InputSpec, are_images, describe_values, shape_text
from src.core.seeds import seeded
from src.core.tensors import content_of_state, load_tensors, save_state
from src.core.user_code import digest_of, is_user_code, title_of
from src.core.values import BATCH_DEPENDENT, STOCHASTIC
from src.datasets import dataset_info, load_dataset
from src.datasets.base import InputSet
from src.datasets.overlap import share_among
from src.models import Network, build_model, inputs_of
from src.models.determinism import nondeterminism_of, warn_of_probabilities
from src.ood.detectors import Detector, EnergyDetector
from src.ood.reference import ByScore, EndReference, EvaluationOptions
from src.results.network_names import (
    DEFAULT,
    FEATURES,
    SHORT,
    NamedNetwork,
    options_beside,
    seed_of_untrained,
)
from src.results.public import META, read_meta, write_meta
from src.training.doubts import warn_at_chance

StateDict = dict[str, Tensor]
# The ends of warnings
NONDETERMINISTIC = {
    STOCHASTIC: "is stochastic in evaluation mode, as with dropout that ignores `training`: "
    "accuracies and similarities are of one draw, and the verdict is inconclusive",
    BATCH_DEPENDENT: "gives logits that depend on the other inputs of a batch, as with BatchNorm "
    "without running statistics: accuracies and similarities depend on the batches, and the verdict is "
    "inconclusive",
}
# The two shapes in torch's message about a state dict that does not fit
SHAPES = re.compile(
    r"copying a param with shape torch.Size\((.*?)\) from checkpoint, "
    r"the shape in current model is torch.Size\((.*?)\)\."
)


def load_state(path: str | Path) -> StateDict:
    """Load a state dict, in torch's zip or legacy format, onto the CPU.

    A state dict in the entry `state_dict` or `model` of the file is taken out of it. The prefixes
    `module.` (DataParallel) and `_orig_mod.` (torch.compile) of keys are removed.

    Raises:
        UserError: as `load_tensors`; or the file holds no state dict.
    """
    content = load_tensors(path)
    for wrapper in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            _note_other_states(path, content, taken=wrapper)
            content = content[wrapper]
    if not _is_state(content):
        raise UserError(
            f"checkpoint {path} is not a state dict; "
            "save one with torch.save(model.state_dict(), path)"
        )
    state = dict(content)
    for prefix in ("module.", "_orig_mod.", "module."):  # the two stand in either order
        nn.modules.utils.consume_prefix_in_state_dict_if_present(state, prefix)
    return state


def _is_state(content: object) -> bool:
    """Return whether the content of a file is a state dict, a mapping of names to tensors."""
    return isinstance(content, Mapping) and all(
        isinstance(value, Tensor) for value in content.values()
    )


def _note_other_states(path: str | Path, content: Mapping, *, taken: str) -> None:
    """Print a note if a checkpoint has more state dicts of a network than the one that is loaded.

    Args:
        taken: the entry of the state dict that is taken.
    """
    names = content[taken].keys()
    for entry, state in content.items():
        is_alike = _is_state(state) and len(state) > 0 and _bare(state) & _bare(names)
        if entry != taken and is_alike:
            note_once(
                f"checkpoint {path} has the weights {taken} and {entry}, and {taken} is taken; to take the others, "
                f"save torch.load(path)[{entry!r}] as a checkpoint of its own"
            )


def _bare(keys: Iterable[str]) -> set[str]:
    """Return the names of tensors without the prefixes of wrappers, cut to their last two parts."""
    return {".".join(str(key).split(".")[-2:]) for key in keys}


def load_model(
    name: NamedNetwork,
    images: InputSpec,
    *,
    device: torch.device | str = "cpu",
    encoder: bool = False,
) -> Network:
    """Load a network with its weights, frozen and in evaluation mode.

    Warns of a network that is random, depends on the batch or gives probabilities, see
    `src.models.determinism`.

    Args:
        images: the images that the network takes.
        encoder: accept a network that gives features instead of logits. Weights of torchvision may
            then have any number of classes: their logits stand for features.
    Raises:
        UserError: as `load_state` or `build_model`.
        Misfit: the checkpoint does not fit the network. The message names one key.
    """
    network = freeze(_loaded(name, images, encoder=encoder), device)
    network.nondeterminism = nondeterminism_of(network, images)
    warn_of_probabilities(network, images, title=name.title)
    if network.nondeterminism:
        warn_once(f"{name.title} {NONDETERMINISTIC[network.nondeterminism]}")
    return network


def _loaded(name: NamedNetwork, images: InputSpec, *, encoder: bool) -> Network:
    """Load a network with its weights; arguments and errors as for `load_model`."""
    if name.type == FEATURES:
        raise UserError(
            f"{name.path} holds features, and this needs a network; give a checkpoint and its type"
        )
    if name.is_untrained:
        return _untrained_network(
            name.type, images, encoder=encoder, seed=seed_of_untrained(name.seed)
        )
    if name.is_given and name.path == DEFAULT and is_user_code(name.type):
        seed = seed_of_untrained(None)
        return _build(name.type, images, n_classes=images.n_classes, encoder=encoder, seed=seed)

    if name.is_file:
        state = load_state(name.path)
        n_classes = images.n_classes
    else:
        from src.models.torchvision_networks import torchvision_weights

        n_required = None if encoder else images.n_classes
        state, n_classes = torchvision_weights(name.type, name.path, n_classes=n_required)
    try:
        network = _build(name.type, images, n_classes=n_classes, encoder=encoder)
        expected = f"{name.type} with {n_classes} classes"
        load_weights(network, name.path, expected=expected, state=state)
    except Misfit as misfit:
        raise explained(misfit, name, images) from misfit

    if name.is_file:
        warn_of_other_type(name)
        warn_of_other_images(name.path, images)
    elif hasattr(network.module, "transform_input"):
        # Published weights of GoogLeNet and Inception expect images that the module normalises
        network.module.transform_input = True  # type: ignore[assignment]
    return network


def _untrained_network(kind: str, images: InputSpec, *, encoder: bool, seed: int) -> Network:
    """Build a network that is randomly initialised from a seed.

    Warns of a user's function whose weights do not depend on the seed.
    """
    network = _build(kind, images, n_classes=images.n_classes, encoder=encoder, seed=seed)
    if kind not in MODEL_NAMES and is_user_code(kind):
        second = _build(kind, images, n_classes=images.n_classes, encoder=encoder, seed=seed + 1)
        if content_of_state(network.state_dict()) == content_of_state(second.state_dict()):
            warn_once(
                f"{kind} gives the same weights whatever the seed, and - says that they are randomly initialised and "
                f"untrained; give {DEFAULT} in the place of the checkpoint if they are trained"
            )
    return network


def _build(
    kind: str,
    images: InputSpec,
    *,
    n_classes: int,
    encoder: bool,
    seed: int = 0,
) -> Network:
    """Build a network with randomly initialised weights.

    Args:
        n_classes: number of logits of the module.
        encoder: accept a network that gives features instead of logits.
    """
    with seeded(seed):
        network = build_model(
            kind,
            n_classes=n_classes,
            n_channels=images.shape[0],
            image_shape=images.shape,
            encoder=encoder,
            inputs=inputs_of(images),
        )
    network.n_classes = images.n_classes
    return network


def weights_of(name: NamedNetwork, network: Network) -> str:
    """Compute the SHA-256 of the weights of a loaded network.

    For weights that come with a type (DEFAULT) it is computed from the state dict, otherwise it is
    `name.content`.
    """
    if name.is_given:
        return content_of_state(network.state_dict())
    return name.content


def load_weights(
    model: Network, path: str | Path, *, expected: str, state: StateDict | None = None
) -> Network:
    """Load a checkpoint into a network, and return the network.

    Args:
        expected: describes the network in error messages.
        state: the state dict of the checkpoint (default: it is loaded from `path`).
    Raises:
        UserError: as `load_state`.
        Misfit: the checkpoint does not fit the network. The message names one key.
    """
    if state is None:
        state = load_state(path)
    keys = model.state_dict().keys()
    if state.keys().isdisjoint(keys) and all(key.startswith("module.") for key in keys):
        # The network has a child named `module`: load_state took its name for a prefix
        state = {f"module.{key}": value for key, value in state.items()}
    kind = options_beside(path).get("model_type")
    source = f"checkpoint {path}"
    if kind:
        source += f", by its config.txt {kind},"
    fill(model, state, source=source, expected=expected)
    if not all(value.isfinite().all() for value in state.values()):
        warn(f"checkpoint {path} has weights that are not finite")
    return model


def fill(module: Network | nn.Module, state: StateDict, *, source: str, expected: str) -> None:
    """Load a state dict into a network or a layer.

    Args:
        source: describes the state dict in the error message.
        expected: describes the network or layer in the error message.
    Raises:
        Misfit: keys or shapes differ. The message names one key.
    """
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        lines = str(error).splitlines()  # the first line of torch's message names the class
        clause = _shortened(lines[min(1, len(lines) - 1)].strip())
        if len(lines) > 2 and "Unexpected key" in lines[2]:  # those of the file
            clause += f"; {_shortened(lines[2].strip())}"
        raise Misfit(
            f"{source} does not fit {expected}: {clause}; name the model and data it was made with",
            clause=clause,
        ) from error


def _shortened(clause: str) -> str:
    """Shorten a clause of torch's message on mismatched keys of a state dict to its first key."""
    first, *further = clause.split('", "')
    if further:
        return f'{first}" and {len(further)} more'
    return SHAPES.sub(r"\1 in the checkpoint, \2 in the network", clause)


def freeze(model: Network, device: torch.device | str) -> Network:
    """Move a network to a device, and return it frozen: in evaluation mode, without gradients."""
    # The layout of the weights decides that of the activations; channels_last convolves faster
    return model.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)


IMAGES = "image_spec"  # the entry of a `config.txt` with the `InputSpec.record` of the training
REMEDY = "Give the data set of the training run by -d, unless other inputs are intended"
AS_TRAINED = (
    "give mean, std and the order of classes as in training, in dataset.yaml or in the .npz file"
)


def training_images(checkpoint: str | Path) -> tuple[str, InputSpec]:
    """Return the name of the data set that a checkpoint was trained on, and its images.

    They are as they were recorded. Without a record they are those of the data set as it is now.

    Raises:
        UserError: nothing beside the checkpoint names the data set, or it has no record and the data set
            is gone.
    """
    options = options_beside(checkpoint)
    dataset = options.get("dataset")
    if not isinstance(dataset, str):
        raise UserError(f"nothing beside {checkpoint} names the data set that it was trained on")
    if IMAGES in options:
        return dataset_label(dataset), InputSpec.of_record(options[IMAGES])
    return dataset_label(dataset), dataset_info(dataset).spec


def explained(misfit: Misfit, name: NamedNetwork, images: InputSpec) -> Misfit:
    """Extend the error of a checkpoint that does not fit by the images of its training run, if these differ.

    Args:
        misfit: between the network `name` and its checkpoint.
        images: the images that the network was built for.
    Returns:
        A misfit that describes both kinds of images. `misfit` itself if they are equal, if the
        images of the training are unknown, or if the checkpoint is of a network of another type.
    """
    try:
        dataset, trained = training_images(name.path)
    except UserError:
        return misfit
    type_of_training = str(options_beside(name.path).get("model_type", name.type))
    is_of_type = title_of(type_of_training) == title_of(name.type)
    fits = trained.shape == images.shape and trained.n_classes == images.n_classes
    if fits or not is_of_type:
        return misfit
    return Misfit(
        f"checkpoint {name.path} was trained on {dataset} ({trained.describe()}); "
        f"{Misfit.IMAGES} ({images.describe()}): {misfit.clause}"
    )


def warn_of_other_type(network: NamedNetwork) -> None:
    """Warn if a checkpoint was trained as a network of another type, or with code that has changed since."""
    options = options_beside(network.path)
    trained = options.get("model_type")
    if not isinstance(trained, str):
        return
    if title_of(trained) != title_of(network.type):
        warn_once(
            f"checkpoint {network.path} was trained as {title_of(trained)}, and is loaded as {title_of(network.type)}; "
            "give the type that it was trained as, unless the other one is intended"
        )
        return
    before = options.get("model_type_sha256")
    now = digest_of(network.type) if is_user_code(network.type) else None
    if before != now:
        code = [digest[:SHORT] if digest else "of the suite" for digest in (before, now)]
        warn_once(
            f"checkpoint {network.path} was trained with other code of {title_of(trained)} (was {code[0]}, now "
            f"{code[1]}); restore that code, or train again"
        )


def warn_of_other_images(checkpoint: str, images: InputSpec) -> None:
    """Warn if a checkpoint was trained on images of a different size, classes or range of values.

    Args:
        images: the images at hand.
    """
    try:
        dataset, trained = training_images(checkpoint)
    except UserError:
        return
    differences = _differences(trained, images)
    if differences:
        before, now = ("; ".join(texts) for texts in zip(*differences, strict=True))
        warn_once(
            f"checkpoint {checkpoint} was trained on {dataset}: {before}. The images at hand: {now}. {REMEDY}; or "
            f"{AS_TRAINED}"
        )


def _differences(trained: InputSpec, images: InputSpec) -> list[tuple[str, str]]:
    """Return how images differ in size, classes or values, as pairs of texts: of the training run, and now.

    Classes are compared where both data sets have names of classes.
    """
    differences = []
    if trained.shape != images.shape:
        differences.append((_size(trained), _size(images)))
    if trained.classes and images.classes and trained.classes != images.classes:
        names = itertools.zip_longest(trained.classes, images.classes)
        first = [name == name_at_hand for name, name_at_hand in names].index(False)
        differences.append((_classes(trained, first), _classes(images, first)))
    if trained.normalisation != images.normalisation:
        before = describe_values(trained.normalisation)
        differences.append((before, describe_values(images.normalisation)))
    return differences


def _size(images: InputSpec) -> str:
    noun = "images" if are_images(images.shape) else "inputs"
    return f"{noun} of {shape_text(images.shape)}"


def _classes(images: InputSpec, first: int) -> str:
    """Return the names of a few classes as a text, beginning with one output."""
    return f"classes {listed(images.classes[first:], n=3)} from output {first} on"


class Session:
    """Loads networks and data sets, each once.

    Experiments share the loaded networks: they take views and copies and change nothing.

    Args:
        cache: keeps decoded images, and what is computed of networks, for further experiments; None:
            nothing is kept.

    Attributes:
        warnings: of the experiments that leave them to the session, with their numbers.
        warnings_of: the warnings about a loaded network.
    """

    def __init__(self, cache: Cache | None = None):
        self.cache = cache
        self._networks: dict[Hashable, Network] = {}
        self._weights: dict[NamedNetwork, str] = {}  # SHA-256 of the loaded weights
        self._datasets: dict[Hashable, InputSet] = {}
        self._splits: dict[tuple[str, str], dict[bool, InputSet]] = {}  # the last ones loaded
        self._shares: dict[tuple[str, str], float] = {}
        self.warnings: Counter[str] = Counter()
        self.warnings_of: dict[NamedNetwork, list[str]] = {}  # when the network was loaded
        self._beside_chance: set[NamedNetwork] = set()  # networks that were set against chance
        self._reference: tuple[tuple, EndReference] | None = None  # behind what it was made of

    def network(
        self,
        name: NamedNetwork,
        images: InputSpec,
        *,
        device: torch.device | str,
        encoder: bool = False,
    ) -> Network:
        """Return a network, loaded by `load_model`; equal arguments return the same object.

        Raises:
            UserError: as `load_model`; or the checkpoint was changed while it was read.
        """
        key = (name, images, str(device))
        if key not in self._networks:
            self._load(key, name, images, device=device, encoder=encoder)
        network = self._networks[key]
        if not encoder and network.is_encoder:
            return load_model(name, images, device=device)  # raises the error about encoders
        return network

    def _load(
        self,
        key: Hashable,
        name: NamedNetwork,
        images: InputSpec,
        *,
        device: torch.device | str,
        encoder: bool,
    ) -> None:
        content_before = None
        if Path(name.path).is_file():
            content_before = name.content
        with recorded_warnings() as texts:
            network = load_model(name, images, device=device, encoder=encoder)
        self.warnings_of[name] = texts
        content = weights_of(name, network)
        if self.cache is not None:
            code = (name.type, images, str(device))
            network = network.keeping(self.cache, (content, *code), code)
        self._networks[key] = network
        self._weights[name] = content
        if content_before not in (None, content):
            raise UserError(f"{name.path} was written while it was read; give the command again")

    def weights(self, name: NamedNetwork, images: InputSpec, *, device: torch.device | str) -> str:
        """Return the SHA-256 of the weights of a network.

        Weights that come with a type (DEFAULT) are loaded for it; a checkpoint is not.
        """
        if name not in self._weights and name.is_given:
            self.network(name, images, device=device, encoder=True)
        if name in self._weights:
            return self._weights[name]
        return name.content

    def warn_at_chance(
        self, name: NamedNetwork, network: Network, images: InputSet, *, is_end: bool = False
    ) -> None:
        """Warn once if a trained classifier is close to chance accuracy on labelled test images."""
        is_classifier = not (name.is_untrained or network.is_encoder)
        if is_classifier and name not in self._beside_chance and (images.labels >= 0).any():
            self._beside_chance.add(name)
            warn_at_chance(network, images, name.title, is_end=is_end)

    def dataset(self, name: str, root: str | Path, **options: Any) -> InputSet:
        """Return a split of a data set, loaded by `load_dataset` with these options.

        Equal arguments return the same object.
        """
        interventions = options.get("interventions") or {}
        hashable = options | {"interventions": tuple(interventions.items())}
        key = (name, str(root), *sorted(hashable.items()))
        if key not in self._datasets:
            images = load_dataset(name, root, **options)
            images.cache = self.cache
            self._datasets[key] = images
        self._splits.setdefault((name, str(root)), {})[options["train"]] = self._datasets[key]
        return self._datasets[key]

    def shared_inputs(self, name: str, root: str | Path) -> float:
        """Return the share of a data set's test inputs that equal training inputs; 0 unless both splits are
        loaded. The inputs are compared once."""
        splits = self._splits.get((name, str(root)), {})
        if len(splits) < 2 or splits[True].image_shape != splits[False].image_shape:
            return 0.0
        key = (name, str(root))
        if key not in self._shares:
            self._shares[key] = share_among(splits[False], splits[True])
        return self._shares[key]

    def reference(
        self,
        end: NamedNetwork,
        store: Path,
        options: EvaluationOptions,
        make: Callable[[], EndReference],
    ) -> EndReference:
        """Return the reference of an evaluation; the last one is reused for equal arguments.

        Args:
            end: the end network.
            store: the folder of the trained detectors.
            make: makes a reference with these options.
        """
        key = (end, store, options)
        if self._reference is None or self._reference[0] != key:
            self._reference = None  # frees its memory before the new one is made
            self._reference = (key, make())
        return self._reference[1]


DetectorEntry = dict[str, Any]


def new_name() -> str:
    """Return a new, unique file name for a detector."""
    return f"{uuid.uuid4().hex}.pt"


class DetectorStore:
    """A folder of trained detectors, to which several processes may write at the same time."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.meta = self.folder / META

    def entries(self) -> dict[str, DetectorEntry]:
        """Read the entries of `meta.json` by file name, oldest first; empty without that file."""
        return read_meta(self.folder)

    def add(self, name: str, state: Mapping[str, Tensor], entry: DetectorEntry) -> None:
        """Save a detector, and write its entry into `meta.json`.

        Args:
            name: from `new_name`. Adding a detector again under its name changes nothing.
            state: the state dict of its network.
        """
        save_state(self.folder / name, state)
        with locked(self.folder / ".meta.lock"):
            write_meta(self.folder, self.entries() | {name: entry})

    def names_by_layer(self, source: NamedNetwork) -> dict[str, list[str]]:
        """Return the file names of a network's detectors by layer, oldest first.

        A detector belongs to the network if the contents of its checkpoint were recorded and are
        equal. Entries of the public code record no contents: there the paths must be equal.

        Raises:
            UserError: there is no `meta.json`.
        """
        if not self.meta.exists():
            raise UserError(
                f"no detectors in {self.folder}: there is no meta.json; train some, give "
                "-detectors, or --detector mahalanobis, which needs no training"
            )
        source_path = Path(source.path).resolve()
        names: dict[str, list[str]] = {}
        for name, entry in self.entries().items():
            sha256 = entry.get("source_sha256")
            if sha256:
                is_of_source = sha256[:SHORT] == source.identity
            else:
                path = Path(str(entry.get("source_model_path")))
                is_of_source = path.resolve() == source_path
            if is_of_source:
                names.setdefault(str(entry.get("source_layer")), []).append(name)
        return names

    def lacks(self, layers: Iterable[str], source: NamedNetwork) -> str:
        """Return the message that there are no detectors for layers of a network, with the layers that have one."""
        message = f"no detector for {listed(layers)} of {source.path} in {self.folder}"
        stored = self.names_by_layer(source)
        if stored:
            message += f"; the store has detectors for {listed(stored)}"
        return message

    def load(
        self, source: NamedNetwork, layer: str, images: InputSpec, *, device: torch.device
    ) -> EnergyDetector:
        """Load the newest detector for a layer of a network, frozen and in evaluation mode.

        Args:
            images: the images that the network takes.
        Raises:
            UserError: there is no detector for the layer, the detector is for images of another
                shape, or its checkpoint does not fit.
        """
        name = self._newest_name(source, layer)
        entry = self.entries()[name]
        with readable(f"{self.meta}, entry {name}", "restore or remove it"):
            kind = entry["model_type"]
            image_shape = tuple(map(int, entry["orig_input_shape"]))
            representation_shape = tuple(map(int, entry["required_input_shape"]))
        if kind not in MODEL_NAMES:  # a store never names a file whose code would be run
            raise unknown_name(f"detector in {self.meta}", kind, MODEL_NAMES)
        if image_shape != images.shape:
            trained_on = shape_text(image_shape)
            expected = shape_text(images.shape)
            raise UserError(
                f"detector {name} for {layer} is for images of {trained_on} pixels, not {expected}"
            )
        network = build_model(
            kind,
            n_classes=images.n_classes,
            representation_shape=representation_shape,
            image_shape=images.shape,
        )
        load_weights(network, self.folder / name, expected=f"the detector {kind} for {layer}")
        detector = EnergyDetector(freeze(network, device))
        id_dataset = entry.get("id_dataset", "")
        detector.id_data = str(entry.get("finetune_id_dataset", id_dataset))
        detector.ood_data = str(entry.get("finetune_ood_dataset", ""))
        return detector

    def _newest_name(self, source: NamedNetwork, layer: str) -> str:
        """Return the file name of the newest detector for a layer; warn if there are several."""
        names_by_layer = self.names_by_layer(source)
        if layer not in names_by_layer:
            raise UserError(self.lacks([layer], source))
        names = names_by_layer[layer]
        if len(names) > 1:
            warn(
                f"{len(names)} detectors for {layer} of {source.path}; "
                f"the newest is used, {names[-1]}"
            )
        return names[-1]


def load_trained(
    store: DetectorStore, network: Network, name: NamedNetwork, options: EvaluationOptions
) -> tuple[ByScore[Detector], list[str]]:
    """Load the trained detectors of an evaluation; also return the reason why a detector is missing.

    They are those of the end layers. With sanity-check data, they are those of all layers in the
    store.

    Args:
        network: the end network.
        name: of the end network.

    Raises:
        UserError: there is no store.
    """
    detectors: ByScore[Detector] = {}
    missing = []
    for score in options.scores:
        if not SCORES[score].is_trained:
            continue
        layers = list(options.layers)
        stored = store.names_by_layer(name)
        if options.sanity_data is not None:
            layers += sorted(set(stored).difference(layers), key=network.depth)
        lacking = [layer for layer in layers if layer not in stored]
        if lacking:
            missing.append(store.lacks(lacking, name))
        for layer in layers:
            if layer in lacking:
                continue
            try:
                detector = store.load(name, layer, options.test.spec, device=options.test.device)
            except UserError as error:
                missing.append(str(error))
            else:
                detectors.setdefault(score, {})[layer] = detector
    return detectors, missing
