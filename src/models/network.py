"""`Network` cuts any module at its layers: a forward pass ends at a layer, or continues behind one.

h      = front(images, until="layer2.0")      # nothing behind layer2.0 is computed
logits = end(transform(h), after="layer3.1")  # modules in front are skipped where that is possible
acts   = front.activations(images, names)     # one pass, which ends at the last of the layers

A pass behind a layer is defined by a hook: the module runs, and the hook replaces the output of the
layer. `src.models.passes` computes that; where it can, it skips the modules in front of the layer,
and else it needs the images.
"""

import contextlib
import copy
import itertools
from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from src.core.cache import Cache
from src.core.console import note, warn, warn_once
from src.core.device import as_inputs
from src.core.errors import UserError
from src.core.inputs import InputSpec, shape_text
from src.core.values import STOCHASTIC
from src.models.axes import image_size_of, is_channels_last
from src.models.cached import CachedActivations
from src.models.layers import NamedLayers
from src.models.outputs import logits_of
from src.models.passes import TIME_FIRST, Passes

ASSUMED_SIZES = (32, 224)
# Methods of a module that a network has too, so that either can be trained, saved and loaded
OF_MODULE = ("parameters", "buffers", "modules", "get_submodule", "state_dict", "load_state_dict")


class Network(NamedLayers):
    """A wrapper of a module that maps images to logits or features, which can be cut at its layers.

    A layer has the name of a submodule. Its activation is the output of the submodule's last call
    in a pass: a tensor whose first axis is the batch. Of a tuple, list, dict or dataclass it is the
    first tensor. The layer `output` is the output of the whole module.

    The first question about layers, in each shape and mode, runs the module on random images, or on
    `inputs`.

    Args:
        module: takes images (B, C, H, W). A further module, such as nn.Sequential, takes this
            module in place of the view: `.module`. Its attribute `block_names` names the layers that `all`
            stands for. Without that attribute `find_blocks` infers the layers.
        image_shape: (C, H, W) of the images (default: the shape of the first images). Questions
            before the first images assume 32×32, or 224×224 where the module refuses these.
        inputs: three inputs (3, …) of any type and shape, for modules that take no images, such as
            integers (3, T). Floats are cast to the type of the module, integers are not.
        n_classes: a module with an output of another shape than (B, n_classes) is an encoder. With
            None it is no encoder, whatever the shape.

    Raises:
        UserError: an attribute of the module is a `Network` in place of its module, or there are
            fewer than three `inputs`.

    Attributes:
        module: the module itself, with its parameters, state dict and submodules.
        nondeterminism: "random" or "batch" for a network that `src.models.determinism` found to be
            stochastic or batch-dependent; "" if it is deterministic, or was not looked at.
        cached: the activations of images that pass again; None: none are kept.
        moved_layers: layers whose axes `channels_first` moves.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        image_shape: Sequence[int] | None = None,
        n_classes: int | None = None,
        inputs: Tensor | None = None,
    ):
        self.module = module
        self.n_classes = n_classes
        self.nondeterminism = ""
        self.cached: CachedActivations | None = None
        self.inputs: Tensor | None = None
        self.image_shape: tuple[int, ...] | None = None
        if image_shape is not None:
            self.image_shape = tuple(image_shape)
        if inputs is not None:
            if len(inputs) < 3:
                raise UserError(f"inputs: {len(inputs)} are given; give three inputs of the module")
            self.inputs = inputs[:3]
            self.image_shape = tuple(inputs.shape[1:])
        self._mode_is_chosen = False  # by a call of train() or eval()
        self._blank = torch.empty(0)  # see `example`
        self.moved_layers: frozenset[str] = frozenset()
        self._modules = list(module.modules())  # a list, as modules() is too slow for every batch
        _check_views(self._modules)
        self._passes_by_mode: dict[tuple, Passes] = {}  # by shape and mode: `_passes_of`

    def __getstate__(self) -> dict[str, object]:
        """Leave passes and the cache out of copies and pickles: they belong to this module."""
        return vars(self) | {"_passes_by_mode": {}, "cached": None}

    def __getattr__(self, name: str) -> Any:
        """Return a method of the module, if it is one of `OF_MODULE`; else raise an AttributeError."""
        if name in OF_MODULE:
            return getattr(self.module, name)
        hint = ""
        if "module" in vars(self) and hasattr(self.module, name):
            hint = f"; the module has: .module.{name}"
        raise AttributeError(f"a Network has no attribute {name!r}{hint}", name=name, obj=self)

    def train(self, mode: bool = True) -> "Network":
        """Switch the module to training mode, or to evaluation mode; return this view."""
        self._mode_is_chosen = True
        self.module.train(mode)
        return self

    def eval(self) -> "Network":
        """Switch the module to evaluation mode; return this view."""
        return self.train(False)

    def to(
        self, *args: Any, memory_format: torch.memory_format | None = None, **options: Any
    ) -> "Network":
        """Move or cast the module in place, as `torch.nn.Module.to` does; return this view.

        Args:
            memory_format: of the weights; a module with weights of five axes keeps its own, as torch
                has no channels_last for these.
        """
        self._blank = self._blank.to(*args, **options)
        tensors = itertools.chain(self.module.parameters(), self.module.buffers())
        if memory_format is not None and all(tensor.ndim < 5 for tensor in tensors):
            options["memory_format"] = memory_format
        self.module.to(*args, **options)
        return self

    def double(self) -> "Network":
        """Cast the module to float64 in place; return this view."""
        return self.to(torch.float64)

    def requires_grad_(self, requires_grad: bool = True) -> "Network":
        """Let gradients of the parameters be computed, or not; return this view."""
        self.module.requires_grad_(requires_grad)
        return self

    @property
    def example(self) -> Tensor:
        """A tensor of the type and on the device of the module.

        Of a module without parameters and buffers, it is where this view was moved to.
        """
        tensors = itertools.chain(self.module.parameters(), self.module.buffers())
        of_floats = (tensor for tensor in tensors if tensor.is_floating_point())
        return next(of_floats, self._blank)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape of the output for one image: (n_classes,), or that of an encoder's features."""
        return self._passes().calls.output_shape

    @property
    def is_encoder(self) -> bool:
        """Whether the network gives features instead of `n_classes` logits."""
        return self._passes().is_encoder

    def activation_shapes(
        self, names: Sequence[str], image_shape: Sequence[int]
    ) -> dict[str, tuple[int, ...]]:
        """Return the shape of each activation for one image, (C, H, W), (T, D) or (D,), by layer.

        Args:
            image_shape: (C, H, W) of the images.
        Raises:
            UserError: a layer does not exist, or its activation has not the batch as first axis.
        """
        shapes = self._shapes_of_values(names, image_shape)
        for name in self.moved_layers.intersection(names):
            height, width, channels = shapes[name]
            shapes[name] = (channels, height, width)
        return shapes

    def _shapes_of_values(
        self, names: Sequence[str], image_shape: Sequence[int]
    ) -> dict[str, tuple[int, ...]]:
        """Return the shapes that the module gives; arguments as for `activation_shapes`."""
        self._see(image_shape)
        passes = self._passes_of(tuple(image_shape))
        calls = passes.calls
        for name in names:
            if self.existing(name, passes) not in calls.shapes:
                reason = "no tensor with the inputs as first axis; choose another one"
                if name in calls.time_first:
                    reason = TIME_FIRST
                raise UserError(f"layer {name!r} gives {reason}")
        return {name: calls.shapes[name] for name in names}

    def channels_first(
        self, names: Sequence[str], *, image_shape: Sequence[int], channels_last: bool = False
    ) -> "Network":
        """Return a view on this module with activations (B, C, H, W) in place of (B, H, W, C).

        Layers with activations (B, H, W, C) are found by the attribute `channels_last` of the
        module, or by `is_channels_last`. Their axes are moved in activations
        that the view returns, and moved back in activations that it takes. A plain call
        `view(images)` returns the output as the module does.

        Args:
            names: the layers to look at.
            image_shape: (C, H, W) of the images.
            channels_last: take (B, H, W, C) where nothing tells. If false,
                (B, C, H, W) is assumed there, with a warning.
        Raises:
            UserError: a layer does not exist, or its activation has not the batch as first axis.
        """
        shapes = self._shapes_of_values(names, image_shape)
        passes = self._passes_of(tuple(image_shape))

        is_last = {
            name: self._is_channels_last(name, passes) for name in names if len(shapes[name]) == 3
        }
        unclear = [name for name, last in is_last.items() if last is None and not channels_last]
        moved = [
            name for name, last in is_last.items() if last is not False and name not in unclear
        ]
        if moved:
            note(
                f"activations (height, width, channels) become channels first at {', '.join(moved)}"
            )
        if unclear:
            shape = shape_text(shapes[unclear[0]])
            warn_once(
                f"{', '.join(unclear)}: {shape} is taken for channels×height×width; "
                "if it is height×width×channels, give --channels-last or, in Python, set channels_last = True on "
                "the module"
            )

        return self._view(moved_layers=self.moved_layers.union(moved))

    def keeping(self, cache: Cache, identity: Hashable = None, code: Hashable = None) -> "Network":
        """Return a view on this module that keeps the activations of images that pass again.

        The module must not change from then on.

        Args:
            identity: equal for networks with equal weights and equal code; default: the module.
            code: equal for networks with equal code, whatever their weights, which share untrained features
                (`src.skill.fitting`); None: not known.
        """
        cached = CachedActivations(cache, identity or self.module, code)
        return self._view(cached=cached)

    def _view(self, **changes: Any) -> "Network":
        """Return a further view on this module, with other attributes."""
        view = copy.copy(self)
        vars(view).update(vars(self) | changes)  # copy.copy leaves some out: see __getstate__
        return view

    def _is_channels_last(self, layer: str, passes: Passes) -> bool | None:
        """Return whether a layer has activations (H, W, C); None if nothing tells."""
        declared = getattr(self.module, "channels_last", None)
        if declared is not None:
            return declared
        return is_channels_last(layer, passes.calls, image_size_of(passes.inputs))

    def __call__(
        self,
        x: Tensor,
        *,
        until: str | None = None,
        after: str | None = None,
        images: Tensor | None = None,
    ) -> Tensor:
        """Return the output of the network, or with `until` the activation of that layer.

        The output is logits (B, n_classes), or the features of an encoder.

        Args:
            x: images (B, C, H, W), or with `after` the activation of that layer.
            until: the layer at which the pass ends.
            after: the layer behind which the pass continues.
            images: as in `activations`.
        Raises:
            UserError: as in `activations`.
            ValueError: as in `activations`.
        """
        if until is None and after is None:
            self._warn_of_training_mode()
            self._see(x.shape[1:])
            return logits_of(self.module(x))
        name = self.output_name if until is None else until
        return self.activations(x, [name], after=after, images=images)[name]

    def activations(
        self,
        x: Tensor,
        names: Sequence[str],
        *,
        after: str | None = None,
        images: Tensor | None = None,
        keep: bool = False,
    ) -> dict[str, Tensor]:
        """Return the activations of layers by name, from one pass that ends at the last named
        layer.

        Args:
            x: images (B, C, H, W), or with `after` the activation of that layer.
            names: the layers, in any order. `output_name` gives the logits.
            after: the layer behind which the pass continues. The named layers lie behind it, or are
                this layer.
            images: the images of x. Needed only if the modules in front of `after` cannot be skipped,
                as where they reach later layers by another path, such as a residual branch around
                `after`. Without them, images of the first size are assumed. x may hold k
                activations for each image: it is k batches long, one batch behind the other.
            keep: the images pass again: their activations come from the cache, if there is one. Those
                of a network that draws random numbers differ from pass to pass, and are not kept.
        Raises:
            UserError: a layer does not exist, its activation is no tensor with the batch as first
                axis, or the logits do not depend on `after`.
            ValueError: a layer does not lie behind `after`, or `images` are needed and missing.
        """
        if keep and self.cached is not None and self.nondeterminism != STOCHASTIC:
            return self.cached.of(
                x, names, compute=self.activations, moved_layers=self.moved_layers
            )
        self._warn_of_training_mode()
        if after is None:
            self._see(x.shape[1:])
            passes = self._passes()
        elif images is None:
            passes = self._passes()
        else:  # what is recorded for a pass behind a layer has the size of its images
            self._see(images.shape[1:])
            passes = self._passes_of(tuple(images.shape[1:]))
        for name in names:
            self.existing(name, passes)
        if after is not None:
            self.existing(after, passes)
        if after in self.moved_layers:
            x = x.movedim(1, -1)  # (B, C, H, W) -> (B, H, W, C)
        values = passes.run(x, names, after, images)
        for name in self.moved_layers.intersection(names):
            values[name] = values[name].movedim(-1, 1)  # (B, H, W, C) -> (B, C, H, W)
        return {name: values[name] for name in names}

    def _warn_of_training_mode(self) -> None:
        """Warn once if the module is in training mode without being switched to it."""
        if self.module.training and not self._mode_is_chosen:
            self._mode_is_chosen = True
            warn(
                "the network is in training mode: each pass moves the statistics of BatchNorm, and "
                "drops out at random; call .eval() on it, or .train() if that is meant"
            )

    def _see(self, image_shape: Sequence[int]) -> None:
        """Keep the shape (C, H, W) of the first images."""
        self.image_shape = self.image_shape or tuple(image_shape)

    def _passes(self) -> Passes:
        """Return the `Passes` of the module in its current mode, for the first size of images."""
        if self.image_shape:
            return self._passes_of(self.image_shape)
        widths = (module.in_channels for module in self._modules if isinstance(module, nn.Conv2d))
        n_channels = next(widths, 3)
        for size in ASSUMED_SIZES:
            with contextlib.suppress(Exception):  # raised by the module's forward
                return self._passes_of((n_channels, size, size))
        raise UserError(
            "the shape of the inputs is unknown; give it, as in Network(module, image_shape=(C, H, W))"
        )

    def _passes_of(self, shape: tuple[int, ...]) -> Passes:
        """Return the `Passes` for a shape (C, H, W), one for each type, device and mode."""
        example = self.example
        modes = (module.training for module in self._modules)
        key = (shape, self.n_classes, example.dtype, example.device, *modes)
        if key not in self._passes_by_mode:
            with torch.inference_mode(False):  # it serves passes with gradients too
                inputs = as_inputs(self._inputs_of(shape), example).clone()
                passes = Passes(self.module, inputs, n_classes=self.n_classes)
                self._passes_by_mode[key] = passes
        return self._passes_by_mode[key]

    def _inputs_of(self, shape: tuple[int, ...]) -> Tensor:
        """Return three inputs of a shape; values of `inputs` at random if these have another one."""
        draws = torch.Generator().manual_seed(0)
        if self.inputs is None:
            return torch.rand(3, *shape, generator=draws)
        if self.inputs.shape[1:] == shape:
            return self.inputs
        places = torch.randint(self.inputs.numel(), (3, *shape), generator=draws)
        return self.inputs.flatten()[places.to(self.inputs.device)]


def inputs_of(data: InputSpec) -> Tensor | None:
    """Return three inputs of data that are no images; None for images."""
    if not data.inputs:
        return None
    return torch.tensor(data.inputs)


def _check_views(modules: Sequence[nn.Module]) -> None:
    """Raise a UserError if a module holds a view on a module outside its submodules."""
    for module in modules:
        for name, value in vars(module).items():
            if isinstance(value, Network) and value.module not in modules:
                raise UserError(
                    f"{type(module).__name__}.{name} is a Network, whose layers and weights are hidden there; "
                    f"give its module: self.{name} = network.module"
                )


def activations_of_both(
    front: Network,
    front_names: Sequence[str],
    end: Network,
    end_names: Sequence[str],
    images: Tensor,
    *,
    keep: bool = False,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the activations of the front network by layer, and of the end network by layer.

    Each network runs once. A network that is stitched to itself runs once for both.

    Args:
        images: (B, C, H, W).
        keep: the images pass again, so that networks may keep their activations.
    """
    if front is not end:
        front_activations = front.activations(images, front_names, keep=keep)
        return front_activations, end.activations(images, end_names, keep=keep)
    names = dict.fromkeys([*front_names, *end_names])
    activations = end.activations(images, list(names), keep=keep)
    front_activations = {name: activations[name] for name in front_names}
    end_activations = {name: activations[name] for name in end_names}
    return front_activations, end_activations
