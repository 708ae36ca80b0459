"""The layers of a network: their names, order and depths, and the tokens of their activations."""

import fnmatch
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from torch import nn

from src.core.activations import TokenLayout, guessed_layout, layout_of
from src.core.console import note_once
from src.core.errors import UserError, unknown_name
from src.models.axes import image_size_of
from src.models.calls import OUTPUT
from src.models.passes import Passes

RECURRENT = (nn.RNNBase, nn.RNNCellBase)


class NamedLayers:
    """The layers of a module, which have the names of its submodules; `output` is the whole module."""

    module: nn.Module

    def _passes(self) -> Passes:
        """Return the passes of the module, which know its layers."""
        raise NotImplementedError

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
        return [*passes.calls.positions, OUTPUT].index(self.existing(layer, passes))

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
            position = positions.get(self.existing(layer, passes), len(positions))
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
        calls = passes.calls
        position = calls.positions.get(self.existing(layer, passes))
        called = [name for name in self.block_names if name in calls.positions]
        computed = [name for name in called if calls.depends(name, layer)]
        return [name for name in computed if calls.positions[name] != position]

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
        shape = calls.shapes.get(self.existing(layer, passes), ())
        if len(shape) != 2:
            return None
        recurrent = [
            name for name in calls.positions if isinstance(calls.module_of[name], RECURRENT)
        ]
        if any(calls.depends(layer, name) for name in recurrent):
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
        for part in self.module.modules():
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
        names: list[str] = []
        for part in parts:
            if part == "all":
                names += self.block_names
            else:
                names += matching_names(self.layer_names, part) or [self.existing(part, passes)]
        layers = list(dict.fromkeys(names))
        if of_end and OUTPUT in layers:
            raise UserError(
                f"end layer {text}: nothing follows the output of the network; "
                "choose a layer in front of it"
            )
        return layers

    def existing(self, name: str, passes: Passes) -> str:
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


def matching_names(names: Sequence[str], pattern: str) -> list[str]:
    """Return the names that match a shell pattern, part by part between the dots."""
    pattern_parts = pattern.split(".")
    matching = []
    for name in names:
        parts = name.split(".")
        if len(parts) == len(pattern_parts) and all(map(fnmatch.fnmatchcase, parts, pattern_parts)):
            matching.append(name)
    return matching
