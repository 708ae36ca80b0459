"""A network is a sequence of named steps: the idea that carries the suite.

h      = front(images, until="layer2.0")        # nothing behind layer2.0 is computed
logits = end(transform(h), after="layer3.1")    # nothing in front of layer3.1 is computed
acts   = front.activations(images, names)       # several layers from one pass that ends at the last of them
"""

import copy
import fnmatch
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from src.console import note, warn
from src.errors import UserError, unknown_name
from src.models import layouts
from src.models.engines import Engines
from src.models.folding import fold_norms
from src.models.heads import LinearProbe, pool
from src.models.hooked import Hooked, steady
from src.models.parts import OUTPUT
from src.models.values import is_activation, logits_of

FORWARDED = ("training", "parameters", "named_parameters", "buffers", "modules", "named_modules", "state_dict",
             "load_state_dict", "get_submodule")  # fmt: skip
CHAINED = ("train", "eval", "to", "double", "requires_grad_")  # these return the view


class Network:
    """A view on any module from images to logits, or of an encoder to features, which can be cut at its layers.

    A layer is the output of a module, under the module's name: a tensor whose first axis is the batch, or the first
    such tensor of a tuple, list, dict or dataclass. A module that is called several times stands for its last call, a
    container that gives no tensor, or is not called, for its last child; `output` is what the network itself returns.

    A cut is defined by a hook that replaces the layer's output. Where torch.fx can trace the module, and its parts
    give what the hooks give for two random images, the parts are used: they leave out what is not needed.

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
        self._engines = Engines(module, image_shape)
        self._turned: frozenset[str] = frozenset()

    def __getattr__(self, name: str) -> Any:
        if name not in (*FORWARDED, *CHAINED):
            raise AttributeError(f"a Network has no attribute {name!r}; its module may have: network.module.{name}")
        method = getattr(self.module, name)

        def chained(*args: Any, **options: Any) -> "Network":
            method(*args, **options)
            return self

        return chained if name in CHAINED else method

    @property
    def image_shape(self) -> tuple[int, ...] | None:
        """The shape (C, H, W) of the images, as far as it is known."""
        return self._engines.image_shape

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape of the output for one image: (n_classes,), or that of an encoder's features."""
        return self._engines.output_shape

    @property
    def is_encoder(self) -> bool:
        """Whether the network gives features instead of `n_classes` logits."""
        return self.n_classes is not None and self.output_shape != (self.n_classes,)

    def with_head(self) -> "Network":
        """Return a classifier of this encoder's module, which gets a fresh LinearProbe as its child `linear_probe`."""
        width = pool(torch.empty(1, *self.output_shape, device="meta")).shape[1]
        self.module.add_module(LinearProbe.NAME, LinearProbe(width, self.n_classes).to(next(self.parameters())))
        return Network(self.module, image_shape=self.image_shape, n_classes=self.n_classes)

    @property
    def block_names(self) -> tuple[str, ...]:
        """The layers at which the network is meant to be cut, in order: what `all` stands for."""
        return tuple(getattr(self.module, "block_names", ()) or self._engines.blocks(is_encoder=self.is_encoder))

    @property
    def layer_names(self) -> tuple[str, ...]:
        """The names of all layers, in the order in which they are computed."""
        return tuple(self._engines.current().layers)

    @property
    def cut_names(self) -> tuple[str, ...]:
        """The layers through which alone everything behind them depends on the images."""
        engine = self._engines.current()
        return tuple(filter(engine.is_cut, engine.layers))

    @property
    def output_name(self) -> str:
        """The name of the layer whose activation is the output."""
        return self._engines.current().output_name

    def behind(self, layer: str) -> list[str]:
        """Return the blocks that depend on a layer, in order, itself left out."""
        engine = self._engines.current()
        behind = engine.behind(self._found(layer), self.block_names)
        return [name for name in behind if engine.layers[name] != engine.layers.get(layer)]

    def needs_images(self, after: str) -> bool:
        """Return whether what follows a layer needs the images too: for the rest of its block, a shape or hooks."""
        engine = self._engines.checked([self.output_name], self._found(after))
        return engine.needs_images(after)

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
        self._engines.image_shape = self.image_shape or tuple(image_shape)
        images = self._engines.images()
        with steady(self.module, images), torch.no_grad():
            shapes = {name: act.shape[1:] for name, act in self.activations(images, names).items()}
        declared = getattr(self.module, "channels_last", None)
        turned, unclear = layouts.find_channels_last(shapes, declared=declared, assumed=channels_last)
        if turned:
            note(f"activations (height, width, channels) are turned at {', '.join(turned)}")
        if unclear:
            given = "×".join(map(str, shapes[unclear[0]]))
            warn(f"{', '.join(unclear)}: {given} is taken for channels×height×width; otherwise give --channels-last")
        view = copy.copy(self)
        view._turned = self._turned.union(turned)
        return view

    def _found(self, name: str) -> str:
        """Return the name of a layer that there is.

        Raises:
            UserError: there is no such layer, it is never called, or it gives no tensor.
        """
        engine = self._engines.current()
        if name in engine.layers or name == OUTPUT:
            return name
        if name and name in dict(self.module.named_modules()):
            raise UserError(
                f"layer {name!r} is never called by this network, gives no tensor, or lies inside a layer that is "
                "taken as a whole; choose another one"
            )
        where = f"known: {', '.join(self.block_names)}; for all others: python misc/list_layers.py MODEL"
        raise unknown_name("layer", name, engine.layers, where=where)

    def for_inference(self, names: Sequence[str]) -> "Network":
        """Make the fastest network that gives the same logits and activations at `names` in evaluation mode.

        That is a frozen copy in which each BatchNorm has become part of the convolution in front of it, where no
        other reader of the convolution's output is left; the network itself where there is none.
        """
        if isinstance(self._engines.current(), Hooked):
            return self
        network = copy.deepcopy(self).eval()
        engine = network._engines.checked(names)
        if isinstance(engine, Hooked) or not fold_norms(network.module, engine, kept=names):
            return self
        network._engines = Engines(network.module, self.image_shape)
        return network.requires_grad_(False)

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
            self._engines.image_shape = self.image_shape or tuple(x.shape[1:])
            return logits_of(self.module, self.module(x))
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
            images: needed only where `needs_images(after)`: the images from which the rest of that block, such as
                its residual branch, is computed.
        Returns:
            The activations by name, in the order of `names`.
        Raises:
            UserError: a layer does not exist, is no tensor with the batch as first axis, or the logits do not depend
                on `after`.
            ValueError: a layer does not lie behind `after`, or `images` are needed and missing.
        """
        images = x if after is None else images
        if self.image_shape is None and images is not None:
            self._engines.image_shape = tuple(images.shape[1:])
        for name in [*names, *([] if after is None else [after])]:
            self._found(name)
        engine = self._engines.checked(names, after)
        if images is None and engine.needs_images(after):
            place = "is cut by hooks" if isinstance(engine, Hooked) else "lies inside a block"
            raise ValueError(f"{after} {place}: what follows it needs the images")
        values = engine.run(x.movedim(1, -1) if after in self._turned else x, names, after, images)
        acts = {name: _checked(value, name, len(x)) for name, value in values.items()}
        return {name: act.movedim(-1, 1) if name in self._turned else act for name, act in acts.items()}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of one activation of each layer, in order; of what is no tensor of the images, none."""
        self._engines.checked(self.layer_names)
        return self._engines.shapes(self.layer_names)


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
