"""A network is a sequence of named steps: the idea that carries the suite.

h      = front(images, until="layer2.0")        # nothing behind layer2.0 is computed
logits = end(transform(h), after="layer3.1")    # nothing in front of layer3.1 is computed
acts   = front.activations(images, names)       # several layers from one pass that ends at the last of them
"""

import contextlib
import copy
import fnmatch
import itertools
from collections.abc import Mapping, Sequence
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

FORWARDED = ("training", "parameters", "named_parameters", "buffers", "modules", "named_modules", "state_dict",
             "load_state_dict", "get_submodule")  # fmt: skip
CHAINED = ("train", "eval", "to", "double", "requires_grad_")  # these return the view
ASSUMED_SIZES = (32, 224)


class Network:
    """A view on any module from images to logits, or of an encoder to features, which can be cut at its layers.

    A layer is the output of a module, under the module's name: a tensor whose first axis is the batch, or the first
    such tensor of a tuple, list, dict or dataclass. A module that is called several times stands for its last call;
    `output` is what the network itself returns. A cut is defined by a hook that replaces the layer's output.

    Args:
        module: takes images (B, C, H, W). Its attribute `block_names`, if it has one, names the layers that `all`
            stands for; otherwise `find_blocks` infers them.
        image_shape: (C, H, W) of the images; if it is not given, that of the first images.
        n_classes: a module that gives no so many numbers is an encoder; if it is not given, none is.

    Attributes:
        module: the module itself. The view has those of its methods that FORWARDED and CHAINED name.
    """

    def __init__(self, module: nn.Module, *, image_shape: Sequence[int] | None = None, n_classes: int | None = None):
        self.module, self.n_classes = module, n_classes
        self.image_shape = None if image_shape is None else tuple(image_shape)
        self._turned: frozenset[str] = frozenset()
        self._modules = list(module.modules())  # walking through them for each batch takes too long
        self._replays: dict[tuple, Replay] = {}

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_replays": {}}

    def __getattr__(self, name: str) -> Any:
        if name not in (*FORWARDED, *CHAINED):
            raise AttributeError(f"a Network has no attribute {name!r}; its module may have: network.module.{name}")
        method = getattr(self.module, name)

        def chained(*args: Any, **options: Any) -> "Network":
            method(*args, **options)
            return self

        return chained if name in CHAINED else method

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape of the output for one image: (n_classes,), or that of an encoder's features."""
        return self._replay().calls.output_shape

    @property
    def is_encoder(self) -> bool:
        """Whether the network gives features instead of `n_classes` logits."""
        return self.n_classes is not None and self.output_shape != (self.n_classes,)

    def with_head(self) -> "Network":
        """Return a classifier of this encoder's module, which gets a fresh LinearProbe as its child `linear_probe`."""
        add_head(self.module, self.output_shape, self.n_classes, is_sequence=self.is_sequence(OUTPUT))
        return Network(self.module, image_shape=self.image_shape, n_classes=self.n_classes)

    @property
    def block_names(self) -> tuple[str, ...]:
        """The layers at which the network is meant to be cut, in order: what `all` stands for."""
        if declared := getattr(self.module, "block_names", ()):
            return tuple(declared)
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
        return [*self.layer_names, OUTPUT].index(self._found(layer))

    @property
    def cut_names(self) -> tuple[str, ...]:
        """The layers through which alone everything behind them depends on the images."""
        return tuple(filter(self._replay().calls.is_bottleneck, self.layer_names))

    @property
    def output_name(self) -> str:
        """The name of the layer whose activation is the output."""
        return self._replay().calls.output_name

    def behind(self, layer: str) -> list[str]:
        """Return the blocks that depend on a layer, in order, itself left out."""
        calls = self._replay().calls
        names = [name for name in self.block_names if calls.depends(name, self._found(layer))]
        return [name for name in names if calls.layers[name] != calls.layers.get(layer)]

    def is_sequence(self, layer: str) -> bool:
        """Return whether the tokens of a layer are steps of a recurrent one: in a row, without a CLS token."""
        return self._replay().calls.is_sequence(self._found(layer))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of one activation of each layer, in order; of what is no tensor of the images, none."""
        return dict(self._replay().calls.shapes)

    def layers(self, text: str) -> list[str]:
        """List the layers that an option names: names, shell patterns and `all` (the blocks), between commas.

        A pattern is compared name by name between the dots: `layer*.1` is not `layer1.0.conv1`.

        Raises:
            UserError: one of them does not exist, or `all` is named and there are no blocks.
        """
        if "all" in text.split(",") and not self.block_names:
            raise UserError("this network has no blocks that `all` stands for; name layers (misc/list_layers.py)")
        layers: dict[str, None] = {}
        for name in map(str.strip, text.split(",")):
            named = self.block_names if name == "all" else map(self._found, _matching(self.layer_names, name))
            layers |= dict.fromkeys(named)
        return list(layers)

    def channels_first(
        self, names: Sequence[str], *, image_shape: Sequence[int], channels_last: bool = False
    ) -> "Network":
        """Return a view on the same module with activations (B, C, H, W) where it has (B, H, W, C), both ways.

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
        known = calls.shapes | {OUTPUT: calls.output_shape}
        for name in names:
            if self._found(name) not in known:
                raise UserError(f"layer {name!r} gives no tensor with the images as first axis; choose another one")
        turned, unclear = [], []
        for name, shape in ((name, known[name]) for name in names if len(known[name]) == 3):
            is_last = getattr(self.module, "channels_last", None)
            if is_last is None and (shape[0] == shape[1]) != (shape[1] == shape[2]):
                is_last = shape[0] == shape[1]
            if is_last or (is_last is None and channels_last):
                turned.append(name)
            elif is_last is None:
                unclear.append(name)
        if turned:
            note(f"activations (height, width, channels) are turned at {', '.join(turned)}")
        if unclear:
            given = "×".join(map(str, known[unclear[0]]))
            warn(f"{', '.join(unclear)}: {given} is taken for channels×height×width; otherwise give --channels-last")
        view = copy.copy(self)
        view._turned, view._replays = self._turned.union(turned), self._replays
        return view

    def __call__(
        self, x: Tensor, *, until: str | None = None, after: str | None = None, images: Tensor | None = None
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
        self, x: Tensor, names: Sequence[str], *, after: str | None = None, images: Tensor | None = None
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
        for name in [*names, *([] if after is None else [after])]:
            self._found(name)
        values = self._replay().run(x.movedim(1, -1) if after in self._turned else x, names, after, images)
        return self._activations(values, names, len(x))

    def _activations(self, values: Mapping[str, Any], names: Sequence[str], n: int) -> dict[str, Tensor]:
        activations = {}
        for name in names:
            value = values[name]
            if not is_activation(value, n):
                given = "×".join(map(str, value.shape)) if isinstance(value, Tensor) else "no tensor"
                raise UserError(f"layer {name!r} gives {given}, not one tensor of {n} images; choose another one")
            activations[name] = value.movedim(-1, 1) if name in self._turned else value
        return activations

    def _found(self, name: str) -> str:
        """Return the name of a layer; raises a UserError if there is none, it is never called, or gives no tensor."""
        layers = self._replay().calls.layers
        if name in layers or name == OUTPUT:
            return name
        if name and name in dict(self.module.named_modules()):
            raise UserError(f"layer {name!r} is never called by this network, or gives no tensor; choose another one")
        where = f"known: {', '.join(self.block_names)}; for all others: python misc/list_layers.py MODEL"
        raise unknown_name("layer", name, layers, where=where)

    def _see(self, image_shape: Sequence[int]) -> None:
        """Take over the shape (C, H, W) of the first images."""
        self.image_shape = self.image_shape or tuple(image_shape)

    def _replay(self) -> Replay:
        """Return the passes of the module in its current mode; images of some size are assumed if none were seen."""
        if self.image_shape:
            return self._replay_of(self.image_shape)
        n_channels = next((each.in_channels for each in self._modules if isinstance(each, nn.Conv2d)), 3)
        for size in ASSUMED_SIZES:
            with contextlib.suppress(Exception):  # whatever its forward raises
                return self._replay_of((n_channels, size, size))
        raise UserError("what images does it take? Say so: Network(module, image_shape=(C, H, W))")

    def _replay_of(self, shape: tuple[int, ...]) -> Replay:
        tensors = itertools.chain(self.module.parameters(), self.module.buffers())
        like = next((each for each in tensors if each.is_floating_point()), torch.empty(0))
        mode = (shape, like.dtype, like.device, *(module.training for module in self._modules))
        if mode not in self._replays:
            images = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0)).to(like)
            self._replays[mode] = Replay(self.module, images)
        return self._replays[mode]


def _matching(names: Sequence[str], pattern: str) -> list[str]:
    """Return the names that a shell pattern matches, compared name by name between the dots; itself where none does."""
    wanted = pattern.split(".")
    as_deep = [name for name in names if name.count(".") == pattern.count(".")]
    return [name for name in as_deep if all(map(fnmatch.fnmatchcase, name.split("."), wanted))] or [pattern]
