"""A network is a sequence of named steps: the idea that carries the suite.

h      = front(images, until="layer2.0")        # nothing behind layer2.0 is computed
logits = end(transform(h), after="layer3.1")    # nothing in front of layer3.1 is computed
acts   = front.activations(images, names)       # several layers from one pass that ends at the last of them
"""

import contextlib
import copy
import fnmatch
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from src.console import note, warn
from src.errors import UserError, unknown_name
from src.models.blocks import find_blocks
from src.models.calls import OUTPUT
from src.models.heads import add_head
from src.models.outputs import is_activation, logits_of
from src.models.replay import Replay

ASSUMED_SIZES = (32, 224)


class Network:
    """A view on any module from images to logits, or of an encoder to features, which can be cut at
    its layers.

    A layer is the output of a module, under the module's name: a tensor whose first axis is the
    batch, or the first such tensor of a tuple, list, dict or dataclass. A module that is called
    several times stands for its last call; `output` is what the network itself returns. A cut is
    defined by a hook that replaces the layer's output.

    Args:
        module: takes images (B, C, H, W). Its attribute `block_names`, if it has one, names the layers that `all`
            stands for; otherwise `find_blocks` infers them.
        image_shape: (C, H, W) of the images; if it is not given, that of the first images.
        n_classes: a module that gives no so many numbers is an encoder; if it is not given, none is.

    Attributes:
        module: the module itself. The view has those of its methods that switch, move, save and load it.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        image_shape: Sequence[int] | None = None,
        n_classes: int | None = None,
    ):
        self.module = module
        self.n_classes = n_classes
        self.image_shape = None if image_shape is None else tuple(image_shape)
        self._turned: frozenset[str] = frozenset()
        self._modules = list(module.modules())  # walking through them for each batch takes too long
        self._replays: dict[tuple, Replay] = {}

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_replays": {}}

    def train(self, mode: bool = True) -> "Network":
        """Switch the module to training mode, or to evaluation mode; return this view."""
        self.module.train(mode)
        return self

    def eval(self) -> "Network":
        """Switch the module to evaluation mode; return this view."""
        self.module.eval()
        return self

    def to(self, *args: Any, **options: Any) -> "Network":
        """Move or cast the module in place, as `torch.nn.Module.to` does; return this view."""
        self.module.to(*args, **options)
        return self

    def double(self) -> "Network":
        """Cast the module to float64 in place; return this view."""
        self.module.double()
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

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over parameters and buffers; raises a RuntimeError if names or shapes differ."""
        self.module.load_state_dict(state)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape of the output for one image: (n_classes,), or that of an encoder's features."""
        return self._replay().calls.output_shape

    @property
    def is_encoder(self) -> bool:
        """Whether the network gives features instead of `n_classes` logits."""
        return self.n_classes is not None and self.output_shape != (self.n_classes,)

    def with_head(self) -> "Network":
        """Return a classifier of this encoder's module, which gets a fresh LinearProbe as its child
        `linear_probe`."""
        add_head(
            self.module, self.output_shape, self.n_classes, is_sequence=self.is_sequence(OUTPUT)
        )
        return Network(self.module, image_shape=self.image_shape, n_classes=self.n_classes)

    @property
    def block_names(self) -> tuple[str, ...]:
        """The layers at which the network is meant to be cut, in order: what `all` stands for."""
        declared_names = getattr(self.module, "block_names", ())
        if declared_names:
            return tuple(declared_names)
        replay = self._replay()
        if replay.blocks is None:
            replay.blocks = find_blocks(replay.calls, is_encoder=self.is_encoder)
        return replay.blocks

    @property
    def layer_names(self) -> tuple[str, ...]:
        """The names of all layers, in the order in which they are computed."""
        return tuple(self._replay().calls.layers)

    def depth(self, layer: str) -> int:
        """Return the place of a layer among all layers, in the order in which they are computed."""
        return [*self.layer_names, OUTPUT].index(self._existing(layer))

    @property
    def cut_names(self) -> tuple[str, ...]:
        """The true cuts: layers such that everything behind them depends on the images through the
        layer alone."""
        return tuple(filter(self._replay().calls.is_bottleneck, self.layer_names))

    @property
    def output_name(self) -> str:
        """The name of the layer whose activation is the output."""
        return self._replay().calls.output_name

    def behind(self, layer: str) -> list[str]:
        """Return the blocks that are computed from a layer, in order, without the layer."""
        calls = self._replay().calls
        names = [name for name in self.block_names if calls.depends(name, self._existing(layer))]
        return [name for name in names if calls.layers[name] != calls.layers.get(layer)]

    def is_sequence(self, layer: str) -> bool:
        """Return whether the tokens of a layer are steps of a recurrent one: in a row, without a
        CLS token."""
        return self._replay().calls.is_sequence(self._existing(layer))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of one activation of each layer, in order, of those with a row for each
        image."""
        return dict(self._replay().calls.shapes)

    def layers(self, text: str) -> list[str]:
        """List the layers that an option names: names, shell patterns and `all` (the blocks),
        between commas.

        A pattern is compared name by name between the dots: `layer*.1` is not `layer1.0.conv1`.

        Raises:
            UserError: one of them does not exist, or `all` is named and there are no blocks.
        """
        if "all" in text.split(",") and not self.block_names:
            raise UserError(
                "this network has no blocks that `all` stands for; name layers (misc/list_layers.py)"
            )
        layers: dict[str, None] = {}
        for name in map(str.strip, text.split(",")):
            if name == "all":
                layers |= dict.fromkeys(self.block_names)
            else:
                layers |= dict.fromkeys(map(self._existing, _matching(self.layer_names, name)))
        return list(layers)

    def channels_first(
        self, names: Sequence[str], *, image_shape: Sequence[int], channels_last: bool = False
    ) -> "Network":
        """Return a view on the same module with activations (B, C, H, W) where it has (B, H, W, C),
        both ways.

        The attribute `channels_last` of the module tells, or the shape: maps are square as a rule.

        Args:
            names: the layers that count.
            image_shape: (C, H, W) of the images.
            channels_last: decides where the shape does not tell; without it (C, H, W) is assumed with a warning.
        Raises:
            UserError: a layer is no tensor with the batch as first axis.
        """
        self._see(image_shape)
        calls = self._replay().calls
        shapes = calls.shapes | {OUTPUT: calls.output_shape}
        for name in names:
            if self._existing(name) not in shapes:
                raise UserError(
                    f"layer {name!r} gives no tensor with the images as first axis; choose another one"
                )
        turned = []
        unclear = []
        for name in names:
            if len(shapes[name]) != 3:
                continue
            is_last = self._is_channels_last(shapes[name])
            if is_last or (is_last is None and channels_last):
                turned.append(name)
            elif is_last is None:
                unclear.append(name)
        if turned:
            note(f"activations (height, width, channels) are turned at {', '.join(turned)}")
        if unclear:
            shape = "×".join(map(str, shapes[unclear[0]]))
            warn(
                f"{', '.join(unclear)}: {shape} is taken for channels×height×width; otherwise give --channels-last"
            )
        view = copy.copy(self)
        view._turned = self._turned.union(turned)
        view._replays = self._replays  # which __getstate__ leaves out
        return view

    def _is_channels_last(self, shape: tuple[int, int, int]) -> bool | None:
        """Return whether a shape is (H, W, C), None where neither the module nor the shape
        tells."""
        is_last = getattr(self.module, "channels_last", None)
        first_two_are_equal = shape[0] == shape[1]
        last_two_are_equal = shape[1] == shape[2]
        if is_last is None and first_two_are_equal != last_two_are_equal:
            return first_two_are_equal
        return is_last

    def __call__(
        self,
        x: Tensor,
        *,
        until: str | None = None,
        after: str | None = None,
        images: Tensor | None = None,
    ) -> Tensor:
        """Compute what lies between two layers.

        Args:
            x: images (B, C, H, W) as the module takes them, or with `after` the activation of that layer.
            until: the layer to stop at; its activation is returned instead of the logits (B, n_classes).
            after, images: as in `activations`, which also says what is raised.
        """
        if until is None and after is None:
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
        """Return the activations of several layers from one pass, which ends at the last of them.

        Args:
            x: images (B, C, H, W), or with `after` the activation of that layer.
            names: layers in any order; `output_name` gives the logits.
            after: a layer that all of the named ones lie behind.
            images: from which the rest of the block that `after` lies inside of, such as its residual branch, is
                computed, in a whole pass of the network; not needed elsewhere. x may hold several activations for each
                image, one batch behind the other.
        Returns:
            The activations by name, in the order of `names`.
        Raises:
            UserError: a layer does not exist, is no tensor with the batch as first axis, or the logits do not depend
                on `after`.
            ValueError: a layer does not lie behind `after`, or `images` are needed and missing.
        """
        seen = x if after is None else images
        if seen is not None:
            self._see(seen.shape[1:])
        for name in names:
            self._existing(name)
        if after is not None:
            self._existing(after)
        n_activations = len(x)
        if after in self._turned:
            x = x.movedim(1, -1)
        values = self._replay().run(x, names, after, images)
        return self._activations(values, names, n_activations)

    def _activations(
        self, values: Mapping[str, Any], names: Sequence[str], n: int
    ) -> dict[str, Tensor]:
        activations = {}
        for name in names:
            value = values[name]
            if not is_activation(value, n):
                shape = (
                    "×".join(map(str, value.shape)) if isinstance(value, Tensor) else "no tensor"
                )
                raise UserError(
                    f"layer {name!r} gives {shape}, not one tensor of {n} images; choose another one"
                )
            activations[name] = value.movedim(-1, 1) if name in self._turned else value
        return activations

    def _existing(self, name: str) -> str:
        """Return the name of a layer; raises a UserError if it does not exist, is never called, or
        gives no tensor."""
        layers = self._replay().calls.layers
        if name in layers or name == OUTPUT:
            return name
        if name and name in dict(self.module.named_modules()):
            raise UserError(
                f"layer {name!r} is never called by this network, or gives no tensor; choose another one"
            )
        where = f"known: {', '.join(self.block_names)}; for all others: python misc/list_layers.py MODEL"
        raise unknown_name("layer", name, layers, where=where)

    def _see(self, image_shape: Sequence[int]) -> None:
        """Take over the shape (C, H, W) of the first images."""
        self.image_shape = self.image_shape or tuple(image_shape)

    def _replay(self) -> Replay:
        """Return the passes of the module in its current mode; images of some size are assumed if
        none were seen."""
        if self.image_shape:
            return self._replay_of(self.image_shape)
        n_channels = next(
            (module.in_channels for module in self._modules if isinstance(module, nn.Conv2d)), 3
        )
        for size in ASSUMED_SIZES:
            with contextlib.suppress(Exception):  # whatever its forward raises
                return self._replay_of((n_channels, size, size))
        raise UserError("what images does it take? Say so: Network(module, image_shape=(C, H, W))")

    def _replay_of(self, shape: tuple[int, ...]) -> Replay:
        tensors = itertools.chain(self.module.parameters(), self.module.buffers())
        example = next((tensor for tensor in tensors if tensor.is_floating_point()), torch.empty(0))
        mode = (
            shape,
            example.dtype,
            example.device,
            *(module.training for module in self._modules),
        )
        if mode not in self._replays:
            images = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0)).to(example)
            self._replays[mode] = Replay(self.module, images)
        return self._replays[mode]


def _matching(names: Sequence[str], pattern: str) -> list[str]:
    """Return the names that a shell pattern matches, part by part between the dots; the pattern
    itself if none does."""
    parts = pattern.split(".")
    as_deep = [name for name in names if name.count(".") == pattern.count(".")]
    matching = [name for name in as_deep if all(map(fnmatch.fnmatchcase, name.split("."), parts))]
    return matching or [pattern]
