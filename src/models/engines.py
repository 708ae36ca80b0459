"""Which of its two engines a module has: its trace, if that computes the same as the hooks, or these."""

import functools
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from src.console import note
from src.errors import UserError
from src.models.block_names import find_blocks
from src.models.hooked import Hooked, close, steady
from src.models.parts import OUTPUT, Traced
from src.models.tracing import Untraceable
from src.models.values import is_activation, logits_of


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
        self._blocks: dict[tuple, tuple[str, ...]] = {}
        self._every = list(module.modules())  # walking through all modules for each batch takes too long
        self._noted: set[type] = set()

    def __reduce__(self) -> tuple:
        return Engines, (self.module, self.image_shape)

    def current(self) -> Traced | Hooked:
        """Return the engine for the current modes: the trace if there is one that was not found to differ."""
        mode = self._mode
        if mode not in self._made:
            try:
                self._made[mode] = Traced(self.module)
            except Untraceable as error:
                self._give_way(str(error))
        return self._made[mode]

    def checked(self, names: Sequence[str], after: str | None = None) -> Traced | Hooked:
        """Return the engine after comparing its trace with the hooks: the values of layers, whole or cut.

        Raises:
            UserError: the logits do not depend on `after`.
            ValueError: a layer does not lie behind `after`.
        """
        engine = self.current()
        key = (engine, after, *names)
        if key in self._checked:
            return engine
        behind = names if after is None else engine.behind(after, names)
        others = [name for name in names if name not in behind]
        if {OUTPUT, engine.output_name}.intersection(others):
            raise UserError(
                f"the logits do not depend on layer {after!r} (on the first of its outputs); choose another"
            )
        if others:
            raise ValueError(f"{', '.join(others)} does not lie behind {after}")
        if self._like.is_meta:
            return engine
        if self.image_shape is None:  # it is compared once there are images
            self._note_once(f"the trace of {type(self.module).__name__} is not compared with its own pass as long as "
                            "it is unknown what images it takes: Network(module, image_shape=(C, H, W))")  # fmt: skip
            return engine
        if isinstance(engine, Traced) and (different := self._differences(engine, names, after)):
            name = type(self.module).__name__
            self._give_way(f"{name} cannot be traced (layer {different[0]} would have other values)")
        self._checked.add(key)
        return self.current()

    def shapes(self, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
        """Return the shapes of one activation of layers; of what is no tensor with the images as first axis, none."""
        hooks = self._hooked()
        values = hooks.known(names)
        return {name: tuple(values[name].shape[1:]) for name in names if is_activation(values[name], len(hooks.images))}

    def blocks(self, *, is_encoder: bool) -> tuple[str, ...]:
        """Infer the blocks; as soon as it is known what images the module takes, those without activations go."""
        key = self.current(), self.image_shape
        if key not in self._blocks:
            blocks = find_blocks(self.module, self.current(), is_encoder=is_encoder)
            self._blocks[key] = blocks if self.image_shape is None else tuple(self.shapes(blocks))
        return self._blocks[key]

    def images(self) -> Tensor:
        """Draw two random images, always the same."""
        return torch.rand(2, *self.image_shape, generator=torch.Generator().manual_seed(0)).to(self._like)

    @functools.cached_property
    def output_shape(self) -> tuple[int, ...]:
        """The shape of the output for one image."""
        images = self.images()
        with steady(self.module, images), torch.no_grad():
            return tuple(logits_of(self.module, self.module(images)).shape[1:])

    def _differences(self, traced: Traced, names: Sequence[str], after: str | None) -> list[str]:
        """Return those of the names at which the trace has other values than the hooks."""
        images = x = self.images()
        hooks = self._hooked()
        if after is not None:
            x = hooks.known([after])[after].flip(0)  # flipped: not what these images give
        expected = hooks.known(names, after, x)
        with steady(self.module, images), torch.no_grad():
            try:
                values = traced.run(x, names, after, images)
            except Exception:  # whatever a function of the module does with what the trace gives it
                return list(names)
        return [name for name in names if not close(values[name], expected[name])]

    def _hooked(self) -> Hooked:
        if self._mode not in self._hooks:
            self._hooks[self._mode] = Hooked(self.module, self.images())
        return self._hooks[self._mode]

    def _give_way(self, reason: str) -> None:
        """Take the hooks as the engine for the current modes."""
        if self.image_shape is None:
            raise UserError(
                f"{reason}; to cut it by hooks, say what images it takes: Network(module, image_shape=(C, H, W))"
            )
        self._made[self._mode] = self._hooked()
        self._note_once(f"{reason}, so the network is cut by hooks: results are the same, but each group of stitches "
                        "takes a whole pass of the end network")  # fmt: skip

    def _note_once(self, text: str) -> None:
        """Note something of the kind of engine that is current, once for all modes."""
        kind = type(self.current())
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
