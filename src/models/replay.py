"""Passes of a module that end at a layer, or go on behind one with another value of it.

The law is `Replay._hooked`: a cut means that the module runs, and a hook replaces the output of the
layer. It holds for every module, and needs the images.

`Replay._replayed` is the fast way, for layers through which alone everything behind them depends on
the images. It needs no images: calls that end in front of the layer return what they returned in a
pass over two random images. Both ways are compared once for each layer, on random images; where
they differ, the hook stays."""

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from src.console import note
from src.errors import UserError
from src.models.calls import OUTPUT, Call, Calls, buffers_kept, steady
from src.models.outputs import first_tensor, logits_of, map_tensors, with_first

Values = dict[str, Tensor | None]  # by layer
Outputs = dict[Call | None, Any]  # by call; None stands for the module itself


class Replay:
    """Runs a module in its current mode, by hooks or by replays.

    Args:
        images: (3, C, H, W), random.
    """

    def __init__(self, module: nn.Module, images: Tensor):
        self.module = module
        self.images = images
        self.calls = Calls(module, images[:2])
        self.blocks: tuple[str, ...] | None = None  # that `all` stands for, once they are asked for
        self._is_training = any(part.training for part in module.modules())
        self._records: dict[str, Outputs] = {}  # by layer
        self._replays: dict[
            tuple[str, ...], bool
        ] = {}  # by a layer and those behind it: whether a replay gives them
        self._has_noted = False  # that a layer is cut by hooks

    def _hooked(
        self,
        images: Tensor,
        targets: Collection[Call | None],
        *,
        replaced: Call | None = None,
        value: Tensor | None = None,
        n_ended: Counter[nn.Module] | None = None,
    ) -> Outputs:
        """Run the module with the output of one call replaced; return the outputs of the target
        calls.

        The pass stops as soon as it has them.

        Args:
            replaced: `value` takes the place of the first tensor in the output of this call.
            n_ended: how many calls of each module have ended; a replay also counts those that it skips.
        Raises:
            UserError: a call is not made.
        """
        outputs: Outputs = {}
        n_ended = Counter() if n_ended is None else n_ended
        missing = {*targets, replaced} if replaced else set(targets)
        in_front = contextlib.ExitStack()

        def leave(module: nn.Module, inputs: tuple, output: Any) -> Any:
            call = module, n_ended[module]
            n_ended[module] += 1
            if call == replaced:
                in_front.close()
                output = self._safe(call, with_first(output, value))
            if call in targets:
                outputs[call] = self._safe(call, output)
            missing.discard(call)
            if not missing:
                raise _Stop
            return output

        with in_front, contextlib.ExitStack() as hooks:
            for module in {call[0] for call in missing if call}:
                hooks.callback(module.register_forward_hook(leave).remove)
            if (
                replaced and self._is_training
            ):  # BatchNorm statistics in front of the layer do not move
                in_front.enter_context(buffers_kept(self.module))
            with contextlib.suppress(_Stop):
                outputs[None] = self.module(self._safe(None, images))
        missing.discard(None)
        if missing:
            name = next(name for name, call in self.calls.owners.items() if call in missing)
            raise UserError(
                f"layer {name!r} is not called equally often for all images; choose another one"
            )
        return outputs

    def _replayed(self, x: Tensor, names: Sequence[str], after: str) -> Values:
        """Return the values of layers behind `after`, computed from its value x without the calls
        in front of it."""
        record = self._record(after)
        n_begun: Counter[nn.Module] = Counter()
        n_ended: Counter[nn.Module] = Counter()

        def answering(module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
            def answer(*args: Any, **kwargs: Any) -> Any:
                call = module, n_begun[module]
                n_begun[module] += 1
                if call not in record:
                    return forward(*args, **kwargs)
                n_begun.update(self.calls.inside[call])
                n_ended.update(self.calls.inside[call])
                return self._safe(call, record[call])

            return answer

        with contextlib.ExitStack() as undo:
            for module in {call[0] for call in record}:
                undo.enter_context(_forward_is(module, answering(module, module.forward)))
            outputs = self._hooked(
                self.images[:2],
                self._calls_of(names),
                replaced=self.calls.owners[after],
                value=x,
                n_ended=n_ended,
            )
        return self._values(outputs, names)

    @torch.no_grad()
    def _record(self, after: str) -> Outputs:
        """Return the outputs of the call of a layer and of all calls in front of it, for two random
        images."""
        if after not in self._records:
            recorded_calls = {self.calls.owners[after], *self.calls.in_front(after)}
            with steady(self.module, self.images):
                self._records[after] = self._hooked(self.images[:2], recorded_calls)
        return self._records[after]

    def run(
        self,
        x: Tensor,
        names: Sequence[str],
        after: str | None = None,
        images: Tensor | None = None,
    ) -> Values:
        """Return the values of layers, computed from images x, or with `after` from the value x of
        that layer.

        Args:
            images: needed unless values behind `after` depend on images through it alone. x may have several rows for
                each image, one batch behind the other.
        Raises:
            UserError: the logits do not depend on `after`, or the module does not call a layer as often as before.
            ValueError: a layer does not lie behind `after`, or `images` are needed and missing.
        """
        if not names:
            return {}
        if after is None:
            return self._values(self._hooked(x, self._calls_of(names)), names)
        position = self.calls.layers[after]
        values: Values = {name: x for name in names if self.calls.layers.get(name) == position}
        behind = [name for name in names if name not in values]
        if not behind:
            return values
        if self._is_replayed(after, behind):
            return values | self._replayed(x, behind, after)
        if images is None:
            raise ValueError(f"{after} lies inside a block: what follows it needs the images")
        return values | self._replaced(x, behind, after, images)

    def _replaced(self, x: Tensor, names: Sequence[str], after: str, images: Tensor) -> Values:
        """Return the values of layers behind `after` by the hook; images are repeated for all rows
        of x."""
        n_repeats = len(x) // len(images)
        if n_repeats > 1:
            images = torch.cat([images] * n_repeats)
        outputs = self._hooked(
            images, self._calls_of(names), replaced=self.calls.owners[after], value=x
        )
        return self._values(outputs, names)

    def _is_replayed(self, after: str, names: Sequence[str]) -> bool:
        """Return whether a replay gives the values of layers behind another one; raises what `run`
        raises."""
        key = (after, *names)
        if key not in self._replays:
            is_bottleneck = all(self.calls.is_bottleneck(after, name) for name in names)
            self._replays[key] = self._try(after, names, is_bottleneck=is_bottleneck)
            if (
                is_bottleneck
                and not self._replays[key]
                and not self._is_training
                and not self._has_noted
            ):
                self._has_noted = True
                note(
                    f"{type(self.module).__name__} is cut by hooks at {after}, as a replay gives other values: results "
                    "are the same, but each group of stitches takes a whole pass of the end network"
                )
        return self._replays[key]

    def _try(self, after: str, names: Sequence[str], *, is_bottleneck: bool) -> bool:
        """Go on behind a layer with values of other images, by the hook and by a replay; return
        whether they agree.

        Raises:
            UserError, ValueError: as for `run`, if the hook changes nothing.
        """
        # The values of each random image, and the layer's value of another one
        with steady(self.module, self.images), torch.no_grad():
            plain = self._values(
                self._hooked(self.images, self._calls_of([after, *names])), [after, *names]
            )
        x = plain[after].roll(1, 0)

        # What the hook gives
        try:
            with steady(self.module, self.images), torch.enable_grad():
                expected = self._replaced(
                    x.requires_grad_(x.is_floating_point()), names, after, self.images
                )
        except RuntimeError:  # as in Calls
            with steady(self.module, self.images), torch.no_grad():
                expected = self._replaced(x, names, after, self.images)

        # Layers that the hook does not change
        unchanged = [
            name
            for name in names
            if close(expected[name], plain[name]) and not _has_gradient(expected[name], x)
        ]
        if {OUTPUT, self.calls.output_name}.intersection(unchanged):
            raise UserError(
                f"the logits do not depend on layer {after!r} (the first of its outputs); choose another"
            )
        if unchanged:
            raise ValueError(f"{', '.join(unchanged)} does not lie behind {after}")
        return is_bottleneck and self._replay_agrees(expected, x, after)

    @torch.no_grad()
    def _replay_agrees(self, expected: Values, x: Tensor, after: str) -> bool:
        try:
            with steady(self.module, self.images):
                replayed = self._replayed(x, list(expected), after)
        except Exception:  # whatever the module does with values of other images
            return False
        return all(close(replayed[name], expected[name]) for name in expected)

    def _calls_of(self, names: Sequence[str]) -> list[Call | None]:
        """Return the calls whose outputs are the values of layers; None for the output of the
        module."""
        return [self.calls.owners.get(name) for name in names]

    def _values(self, outputs: Outputs, names: Sequence[str]) -> Values:
        """Return the values of layers among the outputs of calls."""
        values: Values = {}
        for name, call in zip(names, self._calls_of(names), strict=True):
            values[name] = logits_of(outputs[None]) if call is None else first_tensor(outputs[call])
        return values

    def _safe(self, call: Call | None, output: Any) -> Any:
        """Return the output of a call (None: the images), copied if the module later changes it in
        place."""
        return map_tensors(output, Tensor.clone) if call in self.calls.changed else output


class _Stop(BaseException):
    """Ends a pass; no `except Exception` of the module catches it."""


@contextlib.contextmanager
def _forward_is(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Give a module another `forward` while the block runs."""
    attributes = {key: value for key, value in vars(module).items() if key == "forward"}
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        vars(module).update(attributes)


def close(value: Tensor | None, expected: Tensor | None) -> bool:
    """Return whether two values differ by no more than rounding."""
    if (
        value is None
        or expected is None
        or value.shape != expected.shape
        or value.dtype != expected.dtype
    ):
        return False
    if not value.is_floating_point():
        return torch.equal(value, expected)
    tolerance = (
        torch.finfo(value.dtype).eps ** 0.5 * expected.nan_to_num(0, 0, 0).abs().amax().item()
    )
    return torch.allclose(value, expected, rtol=0, atol=tolerance, equal_nan=True)


@torch.enable_grad()
def _has_gradient(value: Tensor, source: Tensor) -> bool:
    if not (value.requires_grad and source.requires_grad):
        return False
    (gradient,) = torch.autograd.grad(value.sum(), source, allow_unused=True, retain_graph=True)
    return gradient is not None
