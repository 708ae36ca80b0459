"""A network is a sequence of named steps: the idea that carries the suite.

h      = front(images, until="layer2.0")        # nothing behind layer2.0 is computed
logits = end(transform(h), after="layer3.1")    # nothing in front of layer3.1 is computed
acts   = front.activations(images, names)       # several layers from one pass that ends at the last of them
"""

import copy
from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from src.activations import captured, replaced
from src.errors import UserError, unknown_name


class Cut(NamedTuple):
    """Where a layer name points to: the output of a step, or of a module inside of it."""

    step: int
    inner: nn.Module | None


class Network(nn.Module):
    """Base of every network of the zoo.

    A subclass sets `block_names`, the names at which it is meant to be cut, and gives its `steps`. All other
    modules can be named as well: a container (`layer2`) means its last step, a module inside a step
    (`layer1.0.conv2`) is reached through a temporary hook.
    """

    block_names: tuple[str, ...]

    def steps(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """The steps in order, from images to logits, under the names of their modules."""
        raise NotImplementedError

    @property
    def output_name(self) -> str:
        """The name of the last step, whose output are the logits."""
        return list(self.steps())[-1]

    def cut(self, name: str) -> Cut:
        """Find the layer `name`.

        Raises:
            UserError: there is no such layer; lists `block_names` and suggests close ones.
        """
        steps = list(self.steps())
        if name in steps:
            return Cut(steps.index(name), None)
        module = dict(self.named_modules()).get(name) if name else None
        if module is not None:
            for i, step in enumerate(steps):
                if name.startswith(f"{step}."):
                    return Cut(i, module)
            inside = [i for i, step in enumerate(steps) if step.startswith(f"{name}.")]
            if inside:
                return Cut(inside[-1], None)
        raise unknown_name("layer", name, self.block_names)

    def norms_behind_convolutions(self) -> dict[str, str]:
        """The names of convolutions whose output goes to a BatchNorm and nowhere else, and the names of these."""
        return {}

    def for_inference(self, names: Sequence[str]) -> "Network":
        """The fastest form of this network that gives the same logits and activations at `names` in evaluation mode.

        Where only blocks are named, that is a copy in which each BatchNorm has become part of the convolution in
        front of it; otherwise the network itself.
        """
        norms, steps = self.norms_behind_convolutions(), list(self.steps())
        cuts = [self.cut(name) for name in names]
        if not norms or any(cut.inner is not None or steps[cut.step] not in self.block_names for cut in cuts):
            return self
        network = copy.deepcopy(self).eval()
        for convolution, norm in norms.items():
            folded = fuse_conv_bn_eval(network.get_submodule(convolution), network.get_submodule(norm))
            for name, module in ((convolution, folded), (norm, nn.Identity())):
                parent, _, leaf = name.rpartition(".")
                setattr(network.get_submodule(parent), leaf, module)
        return network.requires_grad_(False)

    def layers(self, text: str) -> list[str]:
        """The layers that an option names: one, several with commas between them, or `all` (the blocks).

        Raises:
            UserError: one of them does not exist, none is named, or `all` is one of several.
        """
        names = list(self.block_names) if text == "all" else [name.strip() for name in text.split(",")]
        if len(names) > 1 and "all" in names:
            raise UserError(f"{text!r} names more than all layers; give all, or names of layers with commas between")
        for name in names:
            self.cut(name)
        return list(dict.fromkeys(names))

    def forward(
        self, x: Tensor, *, until: str | None = None, after: str | None = None, images: Tensor | None = None
    ) -> Tensor:
        """Run the steps behind `after` up to `until`.

        Args:
            x: images (B, C, H, W) in [0, 1], or with `after` the activation of that layer.
            until: the layer to stop at; its activation is returned instead of the logits (B, n_classes).
            after: the layer whose activation `x` is.
            images: needed only when `after` lies inside a step: the images from which the rest of that step,
                such as its residual branch, is computed.
        Raises:
            UserError: a layer does not exist.
            ValueError: `until` does not lie behind `after`, or `images` are needed and missing.
        """
        name = self.output_name if until is None else until
        return self.activations(x, [name], after=after, images=images)[name]

    def activations(
        self, x: Tensor, names: Sequence[str], *, after: str | None = None, images: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The activations of several layers from one pass, which ends at the last of them.

        Args:
            x: images (B, C, H, W), or with `after` the activation of that layer.
            names: layers in any order; `output_name` gives the logits.
            after: as in `forward`; the names lie behind it.
            images: as in `forward`.
        Returns:
            The activations by name, in the order of `names`.
        Raises:
            UserError, ValueError: as in `forward`.
        """
        cuts, steps = {name: self.cut(name) for name in names}, list(self.steps().values())
        start, replacement = 0, None
        if after is not None:
            start, replacement = self.cut(after)
            if replacement is None:
                start += 1
            elif images is None:
                raise ValueError(f"{after} lies inside a block: the rest of that block needs the images")
        for name, cut in cuts.items():
            if cut.step < start and (cut.step < start - 1 or cut.inner is not None):
                raise ValueError(f"{name} does not lie behind {after}")

        outputs: dict[int, Tensor] = {start - 1: x}
        wanted = {cut.step for cut in cuts.values() if cut.inner is None}
        stop = 1 + max((cut.step for cut in cuts.values()), default=-1)
        with captured({name: cut.inner for name, cut in cuts.items() if cut.inner is not None}) as inner:
            for i in range(start, stop):
                if replacement is not None and i == start:
                    with replaced(replacement, x):
                        x = steps[i](self._run(steps[:start], images))
                else:
                    x = steps[i](x)
                if i in wanted:
                    outputs[i] = x
        return {name: outputs[cut.step] if cut.inner is None else _output(inner, name) for name, cut in cuts.items()}

    def behind(self, name: str) -> list[str]:
        """The blocks behind a layer, in order; behind a layer inside a block, that block is the first of them."""
        cut = self.cut(name)
        first = cut.step if cut.inner is not None else cut.step + 1
        return [block for block in self.block_names if self.cut(block).step >= first]

    @staticmethod
    def _run(steps: Sequence[Callable[[Tensor], Tensor]], x: Tensor) -> Tensor:
        for step in steps:
            x = step(x)
        return x


def _output(outputs: dict[str, Tensor], name: str) -> Tensor:
    if name not in outputs:
        raise UserError(f"layer {name!r} is never called by this network; choose another one")
    return outputs[name]
