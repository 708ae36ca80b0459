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
from src.models import layouts
from src.models.blocks import find_blocks
from src.models.calls import OUTPUT, Calls
from src.models.heads import LinearProbe, pool
from src.models.outputs import is_activation, logits_of
from src.models.replay import Recorded, Replay

FORWARDED = ("training", "parameters", "named_parameters", "buffers", "modules", "named_modules", "state_dict",
             "load_state_dict", "get_submodule")  # fmt: skip
ASSUMED_SIZES = (32, 224)
CHAINED = ("train", "eval", "to", "double", "requires_grad_")  # these return the view


class Network:
    """A view on any module from images to logits, or of an encoder to features, which can be cut at its layers.

    A layer is the output of a module, under the module's name: a tensor whose first axis is the batch, or the first
    such tensor of a tuple, list, dict or dataclass. A module that is called several times stands for its last call, a
    container that gives no tensor, or is not called, for its last child; `output` is what the network itself returns.

    A cut is defined by a hook that replaces the layer's output; how it is made fast, replay.py says.

    Args:
        module: takes images (B, C, H, W). Its attribute `block_names`, if it has one, names the layers that `all`
            stands for; otherwise they are inferred (see block_names.find_blocks).
        image_shape: (C, H, W) of the images; if it is not given, that of the first images.
        n_classes: a module that gives no so many numbers is an encoder; if it is not given, none is.

    Attributes:
        module: the module itself, for training and checkpoints. The view has those of its methods that are named in
            FORWARDED and CHAINED.
    """

    def __init__(self, module: nn.Module, *, image_shape: Sequence[int] | None = None, n_classes: int | None = None):
        self.module, self.n_classes = module, n_classes
        self.image_shape = None if image_shape is None else tuple(image_shape)
        self._assumed_shape: tuple[int, ...] | None = None
        self._turned: frozenset[str] = frozenset()
        self._modules = list(module.modules())  # walking through them for each batch takes too long
        self._replays: dict[tuple, Replay] = {}
        self._blocks: dict[Calls, tuple[str, ...]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_replays": {}, "_blocks": {}}

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
        width = pool(torch.empty(1, *self.output_shape, device="meta")).shape[1]
        head = LinearProbe(width, self.n_classes, is_sequence=self.is_sequence(OUTPUT))
        self.module.add_module(LinearProbe.NAME, head.to(next(self.parameters())))
        return Network(self.module, image_shape=self.image_shape, n_classes=self.n_classes)

    @property
    def block_names(self) -> tuple[str, ...]:
        """The layers at which the network is meant to be cut, in order: what `all` stands for."""
        if declared := getattr(self.module, "block_names", ()):
            return tuple(declared)
        calls = self._replay().calls
        if calls not in self._blocks:
            self._blocks[calls] = find_blocks(calls, is_encoder=self.is_encoder)
        return self._blocks[calls]

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

    def needs_images(self, after: str) -> bool:
        """Return whether what follows a layer needs the images too, as for the rest of its block."""
        return self._replay().needs_images(self._found(after))

    def is_sequence(self, layer: str) -> bool:
        """Return whether the tokens of a layer are steps of a recurrent one: in a row, without a CLS token."""
        return self._replay().calls.is_sequence(self._found(layer))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of one activation of each layer, in order; of what is no tensor of the images, none."""
        return dict(self._replay().calls.shapes)

    def layers(self, text: str) -> list[str]:
        """List the layers that an option names: names and shell patterns between commas, or `all` (the blocks).

        A pattern is compared name by name between the dots: `layer*.1` is not `layer1.0.conv1`.

        Raises:
            UserError: one of them does not exist, none is named, `all` is one of several, or there are no blocks.
        """
        if text == "all":
            if not self.block_names:
                raise UserError("this network has no blocks that `all` stands for; name layers (misc/list_layers.py)")
            return list(self.block_names)
        names = [name.strip() for name in text.split(",")]
        if "all" in names:
            raise UserError(f"{text!r}: `all` stands for all blocks and is not combined; give it alone, or name layers")
        layers = [layer for name in names for layer in _matching(self.layer_names, name)]
        return list(dict.fromkeys(map(self._found, layers)))

    def channels_first(
        self, names: Sequence[str], *, image_shape: Sequence[int], channels_last: bool = False
    ) -> "Network":
        """Return a view on the same module with activations (B, C, H, W) where it has (B, H, W, C), both ways.

        Maps are square as a rule: what has two equal axes in front of another one is taken to be (H, W, C), which a
        note says. Where the shape does not tell and the module has no attribute `channels_last`, (C, H, W) is assumed
        with a warning, or `channels_last` decides.

        Args:
            names: the layers that count.
            image_shape: (C, H, W) of the images.
        Raises:
            UserError: a layer is no tensor with the batch as first axis.
        """
        self.image_shape = self.image_shape or tuple(image_shape)
        calls = self._replay().calls
        known = calls.shapes | {OUTPUT: calls.output_shape}
        for name in names:
            if self._found(name) not in known:
                raise UserError(f"layer {name!r} gives no tensor with the images as first axis; choose another one")
        shapes = {name: known[name] for name in names}
        declared = getattr(self.module, "channels_last", None)
        turned, unclear = layouts.find_channels_last(shapes, declared=declared, assumed=channels_last)
        if turned:
            note(f"activations (height, width, channels) are turned at {', '.join(turned)}")
        if unclear:
            given = "×".join(map(str, shapes[unclear[0]]))
            warn(f"{', '.join(unclear)}: {given} is taken for channels×height×width; otherwise give --channels-last")
        view = copy.copy(self)
        view._turned = self._turned.union(turned)
        view._replays, view._blocks = self._replays, self._blocks
        return view

    def _found(self, name: str) -> str:
        """Return the name of a layer that there is.

        Raises:
            UserError: there is no such layer, it is never called, or it gives no tensor.
        """
        layers = self._replay().calls.layers
        if name in layers or name == OUTPUT:
            return name
        if name and name in dict(self.module.named_modules()):
            raise UserError(
                f"layer {name!r} is never called by this network, or gives no tensor; choose another one"
            )
        where = f"known: {', '.join(self.block_names)}; for all others: python misc/list_layers.py MODEL"
        raise unknown_name("layer", name, layers, where=where)

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
            self.image_shape = self.image_shape or tuple(x.shape[1:])
            return logits_of(self.module, self.module(x))
        name = self.output_name if until is None else until
        return self.activations(x, [name], after=after, images=images)[name]

    def activations(
        self, x: Tensor, names: Sequence[str], *, after: str | None = None, images: Tensor | Recorded | None = None
    ) -> dict[str, Tensor]:
        """Return the activations of several layers from one pass, which ends at the last of them.

        Args:
            x: images (B, C, H, W), or with `after` the activation of that layer.
            names: layers in any order; `output_name` gives the logits.
            after: a layer that all of the named ones lie behind.
            images: needed only where `needs_images(after)`: the images from which the rest of that block, such as
                its residual branch, is computed. With their record (see `record`), x may hold several activations
                for each image, one batch behind the other.
        Returns:
            The activations by name, in the order of `names`.
        Raises:
            UserError: a layer does not exist, is no tensor with the batch as first axis, or the logits do not depend
                on `after`.
            ValueError: a layer does not lie behind `after`, or `images` are needed and missing.
        """
        if self.image_shape is None and (after is None or images is not None):
            given = x if after is None else images
            self.image_shape = tuple((given.images if isinstance(given, Recorded) else given).shape[1:])
        for name in [*names, *([] if after is None else [after])]:
            self._found(name)
        values = self._replay().run(x.movedim(1, -1) if after in self._turned else x, names, after, images)
        return self._activations(values, names, len(x))

    def record(
        self, images: Tensor, names: Sequence[str], *, after: Sequence[str]
    ) -> tuple[dict[str, Tensor], Recorded]:
        """Return activations from one pass over images, and what goes on behind some layers needs of that pass.

        Args:
            images, names: as for `activations`.
            after: the layers behind which `activations` is to go on, with this record as its `images`.
        """
        self.image_shape = self.image_shape or tuple(images.shape[1:])
        for name in [*names, *after]:
            self._found(name)
        values, recorded = self._replay().record(images, names, after)
        return self._activations(values, names, len(images)), recorded

    def _activations(self, values: Mapping[str, Any], names: Sequence[str], n: int) -> dict[str, Tensor]:
        acts = {name: _checked(values[name], name, n) for name in names}
        return {name: act.movedim(-1, 1) if name in self._turned else act for name, act in acts.items()}

    def _replay(self) -> Replay:
        """Return the passes of the module in its current mode."""
        tensors = itertools.chain(self.module.parameters(), self.module.buffers())
        like = next((each for each in tensors if each.is_floating_point()), torch.empty(0))
        shape = self.image_shape or self._assumed_shape
        mode = (shape, like.dtype, like.device, *(module.training for module in self._modules))
        if shape is not None and mode not in self._replays:
            images = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0)).to(like)
            self._replays[mode] = Replay(self.module, images)
        return self._replays[mode] if shape is not None else self._assume_a_shape()

    def _assume_a_shape(self) -> Replay:
        """Look for images that the module takes, where nothing is known of these."""
        first = next((each for each in self._modules if isinstance(each, nn.Conv2d)), None)
        for size in ASSUMED_SIZES:
            self._assumed_shape = (first.in_channels if first else 3, size, size)
            with contextlib.suppress(Exception):  # whatever its forward raises
                return self._replay()
        self._assumed_shape = None
        raise UserError("what images does it take? Say so: Network(module, image_shape=(C, H, W))")


def _matching(names: Sequence[str], pattern: str) -> list[str]:
    """Return the names that a shell pattern matches, compared name by name between the dots; itself where none does."""
    wanted = pattern.split(".")
    as_deep = [name for name in names if name.count(".") == pattern.count(".")]
    return [name for name in as_deep if all(map(fnmatch.fnmatchcase, name.split("."), wanted))] or [pattern]


def _checked(value: Any, name: str, n: int) -> Tensor:
    if is_activation(value, n):
        return value
    given = "×".join(map(str, value.shape)) if isinstance(value, Tensor) else "no tensor"
    raise UserError(f"layer {name!r} gives {given}, not one tensor of {n} images; choose another one")
