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
import fnmatch
import hashlib
import itertools
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from src.core.activations import TokenLayout, guessed_layout, layout_of
from src.core.cache import Cache
from src.core.console import note, note_once, warn, warn_once
from src.core.errors import UserError, unknown_name
from src.core.images import ImageSpec, shape_text
from src.core.ownership import in_own_memory
from src.core.runtime import as_inputs
from src.core.tensors import bytes_of
from src.models.axis_order import is_channels_last
from src.models.calls import OUTPUT
from src.models.outputs import logits_of
from src.models.passes import TIME_FIRST, Passes
from src.models.tokens import image_size_of
from src.values import STOCHASTIC

ASSUMED_SIZES = (32, 224)


class Network:
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
        module: the module itself. The view has the methods of the module that switch, move, save
            and load it.
        nondeterminism: "random" or "batch" for a network that `src.models.determinism` found to be
            stochastic or batch-dependent; "" if it is deterministic, or was not looked at.
        cache: keeps the activations of images that pass again; None: nothing is kept.
        identity: of the module and its weights, in the keys of the cache.
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
        self.cache: Cache | None = None
        self.identity: Hashable = None
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
        self._channels_last: frozenset[str] = (
            frozenset()
        )  # layers whose axes `channels_first` moves
        self._modules = list(module.modules())  # a list, as modules() is too slow for every batch
        _check_views(self._modules)
        self._passes_by_mode: dict[tuple, Passes] = {}  # by shape and mode: `_passes_of`

    def __getstate__(self) -> dict[str, object]:
        """Leave passes and the cache out of copies and pickles: they belong to this module."""
        return vars(self) | {"_passes_by_mode": {}, "cache": None, "identity": None}

    def __getattr__(self, name: str) -> Any:
        """Raise the AttributeError, which says where the module has the attribute."""
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
        self.module.double()
        self._blank = self._blank.double()
        return self

    def requires_grad_(self, requires_grad: bool = True) -> "Network":
        """Let gradients of the parameters be computed, or not; return this view."""
        self.module.requires_grad_(requires_grad)
        return self

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters of the module."""
        return self.module.parameters()

    def buffers(self) -> Iterator[Tensor]:
        """Yield the buffers of the module, such as BatchNorm statistics."""
        return self.module.buffers()

    def modules(self) -> Iterator[nn.Module]:
        """Yield the module and all modules in it."""
        return self.module.modules()

    def get_submodule(self, name: str) -> nn.Module:
        """Return the module of a layer."""
        return self.module.get_submodule(name)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the parameters and buffers of the module, by name."""
        return self.module.state_dict()

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Copy parameters and buffers into the module; a RuntimeError if names or shapes differ."""
        self.module.load_state_dict(state)

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

    @property
    def block_names(self) -> tuple[str, ...]:
        """The layers that `all` stands for, in order; may be empty."""
        declared_names = getattr(self.module, "block_names", ())
        if declared_names:
            return tuple(declared_names)
        return self._passes().blocks

    @property
    def layer_names(self) -> tuple[str, ...]:
        """The names of all layers but `output`, in the order in which they are computed."""
        return tuple(self._passes().calls.positions)

    def depth(self, layer: str) -> int:
        """Return the index of a layer in `layer_names`, or their number for `output`; else a UserError."""
        passes = self._passes()
        return [*passes.calls.positions, OUTPUT].index(self._existing(layer, passes))

    def relative_depths(self, layers: Iterable[str]) -> dict[str, float]:
        """Return by layer the share of the blocks that a pass to it computes, from 0 to 1.

        Between two blocks it grows evenly, value by value; behind the last block it is 1. Layers with
        one value, such as a container and its last module, have one depth. In a network without
        blocks all layers count as blocks. Blocks that are never called, such as an
        auxiliary head, do not count.

        Raises:
            UserError: there is no such layer.
        """
        passes = self._passes()
        positions = passes.calls.positions
        blocks = [name for name in self.block_names if name in positions] or positions
        ends = [-1, *sorted({positions[block] for block in blocks})]
        shares = np.linspace(0, 1, len(ends))
        depths = {}
        for layer in layers:
            # The output comes last
            position = positions.get(self._existing(layer, passes), len(positions))
            depths[layer] = float(np.interp(position, ends, shares))
        return depths

    @property
    def cut_names(self) -> tuple[str, ...]:
        """The layers that no path from images to output avoids; all, if torch computes no gradients."""
        calls = self._passes().calls
        return tuple(name for name in calls.positions if calls.is_bottleneck(name))

    @property
    def output_name(self) -> str:
        """The first layer with the output as its activation, unchanged; `output` without such."""
        return self._passes().calls.output_name

    def behind(self, layer: str) -> list[str]:
        """Return the blocks that are computed from a layer, in order; a UserError if there is no such layer."""
        passes = self._passes()
        self._existing(layer, passes)
        return passes.calls.behind(layer, self.block_names)

    def token_layout(self, layer: str) -> TokenLayout | None:
        """Return the order of the tokens (T, D) of a layer; None for a layer without tokens.

        Steps of a recurrent layer, and tokens computed from them, are a sequence. Other tokens are
        patches, with prefix tokens in front. The number of prefix tokens is the attribute
        `n_prefix_tokens` of the module or of a module in it, or `num_prefix_tokens`, as in timm.
        Without these attributes a pass over two random images decides: a CLS token is equal for both
        where it enters. Layers in front of that place have none; their tokens are fewer by that
        number. The first prefix token is a CLS token, unless an attribute `has_class_token` is
        False. If no token is equal for both images, `guessed_layout` decides; where it guesses a
        CLS token, a note says so. Behind inputs that are no images, tokens are a sequence; of whole
        numbers, prefix tokens are those of the attributes.

        Raises:
            UserError: there is no such layer.
        """
        passes = self._passes()
        calls = passes.calls
        shape = calls.shapes.get(self._existing(layer, passes), ())
        if len(shape) != 2:
            return None
        if calls.is_sequence(layer):
            return TokenLayout()
        n_tokens, _ = shape
        n_prefix = self._declared("n_prefix_tokens", "num_prefix_tokens")
        image_size = image_size_of(passes.inputs)
        if n_prefix is None and passes.n_prefix_tokens == 0 and image_size is not None:
            guess = guessed_layout(n_tokens, image_size)
            if guess.has_cls:
                note_once(
                    f"layer {layer!r} of {type(self.module).__name__}: {n_tokens} tokens are taken "
                    f"for {guess}; if they are not, give the module an attribute n_prefix_tokens"
                )
            return guess
        if n_prefix is None:
            n_prefix = passes.n_prefix_tokens
        token_counts = {shape[0] for shape in calls.shapes.values() if len(shape) == 2}
        if n_tokens <= n_prefix or n_tokens + n_prefix in token_counts:
            n_prefix = 0
        has_cls = self._declared("has_class_token") is not False
        return layout_of(n_tokens, n_prefix, image_size, has_cls=has_cls)

    def _declared(self, *names: str) -> Any:
        """Return the value of the first attribute of these names in the module; None without it."""
        for part in self._modules:
            for name in names:
                value = getattr(part, name, None)
                if value is not None:
                    return value
        return None

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each layer's activation without the batch axis, by name, in order.

        Left out are `output`, and layers whose first axis is not that of the images.
        """
        shapes = dict(self._passes().calls.shapes)
        del shapes[OUTPUT]
        return shapes

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
        for name in self._channels_last.intersection(names):
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
            if self._existing(name, passes) not in calls.shapes:
                reason = "no tensor with the images as first axis; choose another one"
                if name in calls.time_first:
                    reason = TIME_FIRST
                raise UserError(f"layer {name!r} gives {reason}")
        return {name: calls.shapes[name] for name in names}

    def layers(self, text: str, *, of_end: bool = False) -> list[str]:
        """List the layers that an option names, each once, in the order of the option.

        The option has names (`output` is one), shell patterns and `all`, between commas. A pattern
        is compared part by part between the dots: `layer*.1` does not match `layer1.0.conv1`.

        Args:
            of_end: the network continues behind the layers.
        Raises:
            UserError: a layer does not exist, `all` stands for no blocks, or nothing follows an end
                layer.
        """
        parts = [part.strip() for part in text.split(",")]
        if "all" in parts and not self.block_names:
            raise UserError(
                "this network has no blocks that `all` stands for; "
                "name layers (misc/list_layers.py, or Network(module).layer_names)"
            )
        passes = self._passes()
        layers: dict[str, None] = {}  # a set in order
        for name in parts:
            if name == "all":
                layers |= dict.fromkeys(self.block_names)
            else:
                matching = matching_names(self.layer_names, name) or [name]
                for existing in matching:
                    layers[self._existing(existing, passes)] = None
        if of_end and OUTPUT in layers:
            raise UserError(
                f"end layer {text}: nothing follows the output of the network; "
                "choose a layer in front of it"
            )
        return list(layers)

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

        # Layers whose axes are to be moved
        moved = []
        unclear = []
        for name in names:
            if len(shapes[name]) != 3:
                continue
            is_last = self._is_channels_last(name, passes)
            if is_last or (is_last is None and channels_last):
                moved.append(name)
            elif is_last is None:
                unclear.append(name)

        # Messages
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

        # The view
        view = self._view()
        view._channels_last = self._channels_last.union(moved)
        return view

    def keeping(self, cache: Cache, identity: Hashable = None) -> "Network":
        """Return a view on this module that keeps the activations of images that pass again.

        The module must not change from then on.

        Args:
            identity: equal for networks with equal weights and equal code; default: the module.
        """
        view = self._view()
        view.cache = cache
        view.identity = identity or self.module
        return view

    def _view(self) -> "Network":
        """Return a further view on this module."""
        view = copy.copy(self)
        vars(view).update(vars(self))  # copy.copy leaves some out: see __getstate__
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
        Raises:
            UserError: a layer does not exist, its activation is no tensor with the batch as first
                axis, or the logits do not depend on `after`.
            ValueError: a layer does not lie behind `after`, or `images` are needed and missing.
        """
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
            self._existing(name, passes)
        if after is not None:
            self._existing(after, passes)
        if after in self._channels_last:
            x = x.movedim(1, -1)  # (B, C, H, W) -> (B, H, W, C)
        values = passes.run(x, names, after, images)
        for name in self._channels_last.intersection(names):
            values[name] = values[name].movedim(-1, 1)  # (B, H, W, C) -> (B, C, H, W)
        return {name: values[name] for name in names}

    def kept_activations(self, images: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """Return the activations of images that pass again, from the cache if there is one.

        Those of a network that draws random numbers differ from pass to pass, and are not kept.
        """
        if self.cache is None or self.nondeterminism == STOCHASTIC:
            return self.activations(images, names)
        precision = (
            torch.is_autocast_enabled(images.device.type),
            torch.get_float32_matmul_precision(),
        )
        content = hashlib.sha256(bytes_of(images)).digest()
        batch = (self.identity, content, precision)
        keys = {name: (batch, name, name in self._channels_last) for name in names}
        activations = {name: self.cache.get(key) for name, key in keys.items()}
        missing = [name for name, values in activations.items() if values is None]
        if missing:
            computed = self.activations(images, missing)
            for name, values in computed.items():
                activations[name] = in_own_memory(values)
                self.cache.keep(keys[name], activations[name], values.nbytes)
        return activations

    def _existing(self, name: str, passes: Passes) -> str:
        """Return the name of a layer; a UserError if there is none, or it gives no tensor."""
        positions = passes.calls.positions
        if name in positions or name == OUTPUT:
            return name
        if name and name in dict(self.module.named_modules()):
            raise UserError(
                f"layer {name!r} is never called by this network, or gives no tensor; "
                "choose another one"
            )
        if not positions:
            raise UserError(
                f"layer {name!r}: this network calls no submodules, so that its only layer is "
                f"{OUTPUT!r}; make its parts submodules"
            )
        where = "for all layers: python misc/list_layers.py MODEL, or Network(module).layer_names"
        if self.block_names:
            where = f"known: {', '.join(self.block_names)}; {where}"
        if "*" in name:
            deeper = f"{name.rstrip('*.')}.*"
            hint = f"; give {deeper}" if matching_names(self.layer_names, deeper) else ""
            raise UserError(f"no layer matches {name!r}, where * stops at a dot{hint}; {where}")
        raise unknown_name("layer", name, positions, where=where)

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
        if not self.image_shape:
            self.image_shape = tuple(image_shape)

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


def inputs_of(data: ImageSpec) -> Tensor | None:
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
    activations_of_front = front.kept_activations if keep else front.activations
    activations_of_end = end.kept_activations if keep else end.activations
    if front is not end:
        return activations_of_front(images, front_names), activations_of_end(images, end_names)
    names = dict.fromkeys([*front_names, *end_names])
    activations = activations_of_end(images, list(names))
    front_activations = {name: activations[name] for name in front_names}
    end_activations = {name: activations[name] for name in end_names}
    return front_activations, end_activations


def matching_names(names: Sequence[str], pattern: str) -> list[str]:
    """Return the names that match a shell pattern, part by part between the dots."""
    pattern_parts = pattern.split(".")
    matching = []
    for name in names:
        parts = name.split(".")
        if len(parts) == len(pattern_parts) and all(map(fnmatch.fnmatchcase, parts, pattern_parts)):
            matching.append(name)
    return matching
