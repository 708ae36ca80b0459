"""A network is a sequence of named steps: the idea that carries the suite.

h      = front(images, until="layer2.0")        # nothing behind layer2.0 is computed
logits = end(transform(h), after="layer3.1")    # nothing in front of layer3.1 is computed
acts   = front.activations(images, names)       # several layers from one pass that ends at the last of them
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from src.console import note, warn
from src.errors import UserError
from src.models import layer_names, layouts
from src.models.block_names import find_blocks
from src.models.folding import fold_norms
from src.models.parts import Parts
from src.models.tracing import Trace, logits_of

SHARED = ("_parameters", "_buffers", "_non_persistent_buffers_set", "_modules",
          "_state_dict_hooks",
          "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks")  # fmt: skip
OUTPUT = "logits"  # names the output where no module ends there


class Network(nn.Module):
    """Any module from images to logits, whose layers are found by tracing it (torch.fx).

    It has the children, parameters and buffers of the module, so its state dict is that of the module. A layer is the
    output of a module, under the module's name: a tensor whose first axis is the batch. A module that is called
    several times stands for its last call, a container that is not called for its last child.

    Args:
        module: takes images (B, C, H, W) and returns logits (B, n_classes). Its attribute `block_names`, if it has
            one, names the layers that `all` stands for; otherwise they are inferred (see block_names.find_blocks).
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        for name in SHARED:
            setattr(self, name, getattr(module, name))
        self.training = module.training
        # No children: the module's would have a prefix, and the parts have no parameters of their own.
        self.__dict__.update(_module=module, _traces={}, _turned=set())

    def train(self, mode: bool = True) -> "Network":
        """Switch the module between training and evaluation mode."""
        self._module.train(mode)
        self.training = mode
        return self

    def _apply(self, fn: Any, recurse: bool = True) -> "Network":
        self._module._apply(fn, recurse)
        self._traces.clear()  # parts keep the buffers that they were made with
        return self

    def get_submodule(self, target: str) -> nn.Module:
        """Return a module by its name, even where the network has a method of that name, such as `layers`."""
        return self._module.get_submodule(target)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_traces": {}}

    @property
    def _parts(self) -> Parts:
        """The parts for the current training or evaluation mode of all modules, which a trace freezes."""
        if not self._traces:
            self._every = list(self._module.modules())  # walking through all modules for each batch takes too long
        modes = tuple(module.training for module in self._every)
        if modes not in self._traces:
            self._traces[modes] = Parts(Trace(self._module))
        return self._traces[modes]

    @property
    def block_names(self) -> tuple[str, ...]:
        """The layers at which the network is meant to be cut, in order: what `all` stands for."""
        declared = getattr(self._module, "block_names", None)
        return tuple(declared) if declared else find_blocks(self._module, self._parts.trace)

    @property
    def layer_names(self) -> tuple[str, ...]:
        """The names of all layers, in the order in which they are computed."""
        return tuple(self._parts.trace.layers)

    @property
    def cut_names(self) -> tuple[str, ...]:
        """The layers through which alone everything behind them depends on the images."""
        trace = self._parts.trace
        cuts = set(trace.cuts())
        return tuple(name for name, node in trace.layers.items() if node in cuts)

    @property
    def output_name(self) -> str:
        """The name of the layer whose activation are the logits."""
        trace = self._parts.trace
        return next((name for name, node in trace.layers.items() if node is trace.output), OUTPUT)

    def behind(self, layer: str) -> list[str]:
        """Return the blocks that depend on a layer, in order, itself left out."""
        trace, start = self._parts.trace, self._find(layer)
        nodes = {name: self._find(name) for name in self.block_names}
        return [name for name, node in nodes.items() if node is not start and start in trace.reached([node], start)]

    def needs_images(self, after: str) -> bool:
        """Return whether what follows a layer needs the images too, for the rest of its block or for a shape."""
        parts = self._parts
        return parts.between(self._find(after), [parts.trace.output]).needs_images

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
            raise UserError(f"{text!r} names more than all layers; give all, or names of layers with commas between")
        layers = [layer for name in names for layer in layer_names.matching(self.layer_names, name)]
        for layer in layers:
            self._find(layer)
        return list(dict.fromkeys(layers))

    def channels_first(
        self, names: Sequence[str], *, image_shape: Sequence[int], channels_last: bool = False
    ) -> "Network":
        """Return a view of this network whose activations at these layers are maps (B, C, H, W), wherever it has them.

        Maps are square as a rule: an activation with two equal axes in front of another one is taken to be (H, W, C),
        which a note says. Where the shape does not tell and the module has no attribute `channels_last`, (C, H, W) is
        assumed with a warning, or `channels_last` decides.

        Args:
            image_shape: (C, H, W) of the images.
        Raises:
            UserError: a layer is no tensor with the batch as first axis.
        """
        image = next(self.parameters()).new_zeros(1, *image_shape)
        with torch.no_grad():
            shapes = {name: tuple(act.shape[1:]) for name, act in self._native(image, names).items()}
        declared = getattr(self._module, "channels_last", None)
        turned, unclear = layouts.find_channels_last(shapes, declared=declared, assumed=channels_last)
        if turned:
            note(f"activations (height, width, channels) are turned at {', '.join(turned)}")
        if unclear:
            given = "×".join(map(str, shapes[unclear[0]]))
            warn(f"{', '.join(unclear)}: {given} is taken for channels×height×width; otherwise give --channels-last")
        view = copy.copy(self)
        view.__dict__["_turned"] = self._turned | set(turned)
        return view

    def _find(self, name: str) -> fx.Node:
        """Return the node whose value a layer is.

        Raises:
            UserError: there is no such layer, it is never called, or it gives no single tensor.
        """
        trace = self._parts.trace
        if name in trace.layers:
            return trace.layers[name]
        if name == self.output_name:
            return trace.output
        if name and name in dict(self._module.named_modules()):
            raise UserError(
                f"layer {name!r} is never called by this network, gives no tensor, or lies inside a layer that is "
                "taken as a whole; choose another one"
            )
        raise layer_names.unknown(name, trace.layers, self.block_names)

    def for_inference(self, names: Sequence[str]) -> "Network":
        """Make the fastest network that gives the same logits and activations at `names` in evaluation mode.

        That is a frozen copy in which each BatchNorm has become part of the convolution in front of it, where no
        other reader of the convolution's output is left; the network itself where there is none.
        """
        network = Network(copy.deepcopy(self._module)).eval()
        nodes = {network._find(name) for name in names}
        if not fold_norms(network._module, network._parts.trace, kept=nodes):
            return self
        network._traces.clear()
        network._turned.update(self._turned)
        return network.requires_grad_(False)

    def forward(
        self, x: Tensor, *, until: str | None = None, after: str | None = None, images: Tensor | None = None
    ) -> Tensor:
        """Compute what lies between two layers.

        Args:
            x: images (B, C, H, W) as the module takes them, or with `after` the activation of that layer.
            until: the layer to stop at; its activation is returned instead of the logits (B, n_classes).
            after: the layer whose activation `x` is.
            images: needed only where `needs_images(after)`: the images from which the rest of that block, such as
                its residual branch, is computed.
        Raises:
            UserError: a layer does not exist, is no tensor with the batch as first axis, or the logits do not depend
                on `after`.
            ValueError: `until` does not lie behind `after`, or `images` are needed and missing.
        """
        if until is None and after is None:
            return logits_of(self._module(x), Tensor, self._module)
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
            images: as in `forward`.
        Returns:
            The activations by name, in the order of `names`.
        Raises:
            UserError: a layer does not exist, is no tensor with the batch as first axis, or the logits do not depend
                on `after`.
            ValueError: a layer does not lie behind `after`, or `images` are needed and missing.
        """
        acts = self._native(x.movedim(1, -1) if after in self._turned else x, names, after, images)
        return {name: act.movedim(-1, 1) if name in self._turned else act for name, act in acts.items()}

    def shapes(self, images: Tensor) -> dict[str, tuple[int, ...]]:
        """Return the shapes of one activation of each layer, in order; of what is no tensor of the images, none."""
        parts, names = self._parts, self.layer_names
        values = parts.run(parts.between(None, list(parts.trace.layers.values())), images)
        acts = dict(zip(names, values, strict=True))
        return {name: tuple(act.shape[1:]) for name, act in acts.items() if _is_activation(act, len(images))}

    def _native(
        self, x: Tensor, names: Sequence[str], after: str | None = None, images: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the activations as the module has them, not turned."""
        parts, start = self._parts, None if after is None else self._find(after)
        part = parts.between(start, [self._find(name) for name in names])
        if not part.follows:
            if list(names) == [self.output_name]:
                raise UserError(f"the logits do not depend on layer {after!r}; choose another one")
            raise ValueError(f"{', '.join(names)} does not lie behind {after}")
        if part.needs_images and images is None:
            raise ValueError(f"{after} lies inside a block: the rest of that block needs the images")
        values = parts.run(part, x, images)
        return {name: _checked(value, name, len(x)) for name, value in zip(names, values, strict=True)}


def _is_activation(value: Any, n: int) -> bool:
    return isinstance(value, Tensor) and value.ndim > 1 and len(value) == n


def _checked(value: Any, name: str, n: int) -> Tensor:
    if _is_activation(value, n):
        return value
    given = "×".join(map(str, value.shape)) if isinstance(value, Tensor) else f"a {type(value).__name__}"
    raise UserError(f"layer {name!r} gives {given}, not one tensor of {n} images; choose another one")
