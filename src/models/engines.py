"""Which of its two engines a module has: its trace, if that computes the same as the hooks, or these."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from src.console import note
from src.errors import UserError
from src.models.hooked import Hooked, close, steady
from src.models.parts import OUTPUT, Traced
from src.models.tracing import Untraceable
from src.models.values import logits_of


class Engines:
    """The engine of a module for each combination of the modes of its modules, of which a trace knows one.

    Args:
        image_shape: (C, H, W) of the images that the module takes; None until that is known.
    """

    def __init__(self, module: nn.Module, image_shape: Sequence[int] | None = None):
        self.module, self.image_shape = module, image_shape
        self._made: dict[tuple, Traced | Hooked] = {}
        self._hooks: dict[tuple, Hooked] = {}
        self._checked: set[tuple] = set()
        self._every = list(module.modules())  # walking through all modules for each batch takes too long
        self._noted: set[type] = set()  # engines of which something was said

    def __reduce__(self) -> tuple:
        return Engines, (self.module, self.image_shape)

    def current(self) -> Traced | Hooked:
        """Return the engine for the current modes: the trace if there is one that was not found to differ."""
        if self._mode not in self._made:
            try:
                self._made[self._mode] = Traced(self.module)
            except Untraceable as error:
                self._give_way(str(error))
        return self._made[self._mode]

    def checked(self, names: Sequence[str], after: str | None = None) -> Traced | Hooked:
        """Return the engine after comparing its trace with the hooks: the values of layers, whole or cut.

        Raises:
            UserError: the logits do not depend on `after`.
            ValueError: a layer does not lie behind `after`.
        """
        engine, key = self.current(), (self._mode, after, *names)
        if key in self._checked:
            return engine
        others = [name for name in names if engine.layers.get(name, -1) != engine.layers.get(after)]
        if after is not None and engine.behind(after, others) != others:
            if list(names) in ([OUTPUT], [engine.output_name]):
                raise UserError(
                    f"the logits do not depend on layer {after!r} (on the first of its outputs); choose another"
                )
            raise ValueError(f"{', '.join(names)} does not lie behind {after}")
        if self._like.is_meta:
            return engine
        if self.image_shape is None:  # it is compared once there are images
            self._note(f"the trace of {type(self.module).__name__} is not compared with its own pass as long as it is "
                       "unknown what images it takes: Network(module, image_shape=(C, H, W))")  # fmt: skip
            return engine
        if isinstance(engine, Traced) and (different := self._differences(engine, names, after)):
            name = type(self.module).__name__
            self._give_way(f"{name} cannot be traced (layer {different[0]} would have other values)")
        self._checked.add(key)
        return self._made[self._mode]

    def images(self) -> Tensor:
        """Draw two random images, always the same."""
        return torch.rand(2, *self.image_shape, generator=torch.Generator().manual_seed(0)).to(self._like)

    def output_shape(self) -> tuple[int, ...]:
        """Return the shape of the output for one image."""
        images = self.images()
        with steady(self.module, images), torch.no_grad():
            return tuple(logits_of(self.module, self.module(images)).shape[1:])

    def _differences(self, traced: Traced, names: Sequence[str], after: str | None) -> list[str]:
        """Return those of the names at which the trace has other values than the hooks."""
        hooks, images, x = self._hooks_for(""), self.images(), None
        if after is not None:
            x = hooks.known([after])[after].flip(0)  # flipped: not what these images give
        expected = hooks.known(names, after, x)
        with steady(self.module, images), torch.no_grad():
            try:
                values = traced.run(images if after is None else x, names, after, images)
            except Exception:  # whatever a function of the module does with what the trace gives it
                return list(names)
        return [name for name in names if not close(values[name], expected[name])]

    def _hooks_for(self, reason: str) -> Hooked:
        """Return the hooks for the current modes; the error, if images are unknown, begins with a reason for them."""
        if self._mode not in self._hooks:
            if self.image_shape is None:
                raise UserError(
                    f"{reason}; to cut it by hooks, say what images it takes: Network(module, image_shape=(C, H, W))"
                )
            self._hooks[self._mode] = Hooked(self.module, self.images())
        return self._hooks[self._mode]

    def _give_way(self, reason: str) -> None:
        self._made[self._mode] = self._hooks_for(reason)
        self._note(f"{reason}, so the network is cut by hooks: results are the same, but each group of stitches takes "
                   "a whole pass of the end network")  # fmt: skip

    def _note(self, text: str) -> None:
        """Say something of the current engine, once for all modes."""
        kind = type(self._made[self._mode])
        if kind not in self._noted:
            note(text)
        self._noted.add(kind)

    @property
    def _like(self) -> Tensor:
        tensors = itertools.chain(self.module.parameters(), self.module.buffers())
        return next((each for each in tensors if each.is_floating_point()), torch.empty(0))

    @property
    def _mode(self) -> tuple:
        like = self._like  # parts keep the buffers that they were made with
        return like.dtype, like.device, *(module.training for module in self._every)
