"""Passes of a module that end at a layer, or go on behind one with another value of it.

A cut is defined by a plain hook: the module runs, and the output of the layer is replaced. A replay gives the same
without what lies in front: calls of modules that end before the layer return what they returned in another pass. Where
all that follows depends on the images through the layer alone, that is a pass over two random images, otherwise one
over the images themselves. Whether that equals the hook is tried out once, on random images; if not, the hook stays.
"""

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from src.console import note
from src.errors import UserError
from src.models.calls import OUTPUT, Call, Calls, buffers_kept, steady
from src.models.outputs import first_tensor, logits_of, map_tensors, with_first

Values = dict[str, Tensor | None]
ANY, OWN, HOOK = "any", "own", "hook"


class Recorded(NamedTuple):
    """Images, and outputs of calls in a pass over them, with which a replay answers these calls."""

    images: Tensor
    outputs: dict[Call, Any]


class Replay:
    """Runs a module in its current mode, of which a first pass has told the calls.

    Args:
        images: (3, C, H, W), random.
    """

    def __init__(self, module: nn.Module, images: Tensor):
        self.module, self.images = module, images
        self.calls = Calls(module, images[:2])
        self.blocks: tuple[str, ...] | None = None  # that `all` stands for, once they are asked for
        self._trains = any(each.training for each in module.modules())
        self._front = functools.cache(self.calls.in_front)
        self._any: dict[str, Recorded] = {}
        self._ways: dict[tuple[str, ...], str] = {}

    def run(
        self, x: Tensor, names: Sequence[str], after: str | None = None, images: Tensor | Recorded | None = None
    ) -> Values:
        """Return the values of layers, computed from images, or with `after` from the value of that layer.

        Args:
            images: where they are needed; x may have several rows for each image of a record.
        Raises:
            UserError: the logits do not depend on `after`, or the module does not call a layer as often as before.
            ValueError: a layer does not lie behind `after`, or `images` are needed and missing.
        """
        if after is None:
            return self._observe(x, names)[0]
        same = {name: x for name in names if self.calls.layers.get(name) == self.calls.layers[after]}
        others = [name for name in names if name not in same]
        if not others:
            return same
        way = self._way(after, others)
        if way == ANY:
            return same | self._resume(x, others, after, self._record_of_any(after))
        if images is None:
            raise ValueError(f"{after} lies inside a block: what follows it needs the images")
        recorded = images if isinstance(images, Recorded) else Recorded(images, {})
        times = len(x) // len(recorded.images)
        if way == OWN and self.calls.owners[after] in recorded.outputs:
            return same | self._resume(x, others, after, recorded, times)
        return same | self._replace(x, others, after, _repeated(recorded.images, len(recorded.images), times))

    def record(self, images: Tensor, names: Sequence[str], after: Sequence[str]) -> tuple[Values, Recorded]:
        """Return the values of layers from one pass, and the record of it that replays behind others need."""
        inner = [name for name in after if self._way(name) == OWN]
        return self._record(images, names, inner) if names or inner else ({}, Recorded(images, {}))

    def _way(self, after: str, names: Sequence[str] = (OUTPUT,)) -> str:
        """Return how values behind a layer are computed: by the record of `ANY` images, of their `OWN`, or by a `HOOK`.

        Raises:
            UserError, ValueError: as for `run`.
        """
        key = (after, *names)
        if key not in self._ways:
            way = self._try_ways(after, names)
            if way == HOOK and not self._trains and HOOK not in self._ways.values():
                note(
                    f"{type(self.module).__name__} is cut by hooks at {after}, as a replay gives other values: results "
                    "are the same, but each group of stitches takes a whole pass of the end network"
                )
            self._ways[key] = way
        return self._ways[key]

    def _try_ways(self, after: str, names: Sequence[str]) -> str:
        """Give the random images, twice, values of a layer that are not theirs; compare with a plain hook."""
        is_bottleneck = all(self.calls.is_bottleneck(after, name) for name in names)
        rows = len(self.images)
        with steady(self.module, self.images), torch.no_grad():
            own, recorded = self._record(self.images, [after, *names], [after])
        x = torch.cat([own[after].roll(1, 0), own[after].roll(2, 0)])
        images, own = _repeated((self.images, own), rows, 2)
        try:
            with steady(self.module, images), torch.enable_grad():
                expected = self._replace(x.requires_grad_(x.is_floating_point()), names, after, images)
        except RuntimeError:  # as in Calls
            with steady(self.module, images), torch.no_grad():
                expected = self._replace(x, names, after, images)
        lost = [name for name in names if close(expected[name], own[name]) and not _has_gradient(expected[name], x)]
        if {OUTPUT, self.calls.output_name}.intersection(lost):
            raise UserError(f"the logits do not depend on layer {after!r} (the first of its outputs); choose another")
        if lost:
            raise ValueError(f"{', '.join(lost)} does not lie behind {after}")
        if is_bottleneck and self._gives(expected, x, after, self._record_of_any(after)):
            return ANY
        return OWN if not self._trains and self._gives(expected, x, after, recorded, 2) else HOOK

    @torch.no_grad()
    def _gives(self, expected: Values, x: Tensor, after: str, recorded: Recorded, times: int = 1) -> bool:
        try:
            with steady(self.module, self.images):
                found = self._resume(x, list(expected), after, recorded, times)
        except Exception:  # whatever the module does with values of other images
            return False
        return all(close(found[name], expected[name]) for name in expected)

    def _record(self, images: Tensor, names: Sequence[str], after: Sequence[str]) -> tuple[Values, Recorded]:
        keep = {call for name in after for call in (self.calls.owners[name], *self._front(name))}
        found, outputs = self._observe(images, names, keep=keep)
        return found, Recorded(images, outputs)

    @torch.no_grad()
    def _record_of_any(self, after: str) -> Recorded:
        if after not in self._any:
            with steady(self.module, self.images):
                _, self._any[after] = self._record(self.images[:2], [], [after])
        return self._any[after]

    def _replace(self, x: Tensor, names: Sequence[str], after: str, images: Tensor) -> Values:
        """Run the module on the images, with the output of a layer replaced: what a cut means."""
        return self._observe(images, names, behind=self.calls.owners[after], x=x)[0]

    def _resume(self, x: Tensor, names: Sequence[str], after: str, recorded: Recorded, times: int = 1) -> Values:
        """Run the module with calls answered from a record, repeated where x has several rows for each image."""
        layer, front, rows = self.calls.owners[after], self._front(after), len(recorded.images)
        begun, ended = Counter(), Counter()

        def answering(each: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
            def answer(*args: Any, **kwargs: Any) -> Any:
                call = each, begun[each]
                begun[each] += 1
                if call != layer and call not in front:
                    return forward(*args, **kwargs)
                begun.update(self.calls.inside[call])
                ended.update(self.calls.inside[call])
                output = _repeated(recorded.outputs[call], rows, times)
                return self._own(call, with_first(output, x) if call == layer else output)

            return answer

        with contextlib.ExitStack() as undo:
            for each in {call[0] for call in (layer, *front)}:
                undo.enter_context(_forward_is(each, answering(each, each.forward)))
            return self._observe(_repeated(recorded.images, rows, times), names, behind=layer, ended=ended)[0]

    def _observe(
        self,
        images: Tensor,
        names: Sequence[str],
        *,
        keep: Collection[Call] = (),
        behind: Call | None = None,
        x: Tensor | None = None,
        ended: Counter[nn.Module] | None = None,
    ) -> tuple[Values, dict[Call, Any]]:
        """Run the module up to the last of what is asked for; return the values of layers, and outputs of calls.

        Args:
            behind: a call that they lie behind; x takes the place of its first tensor, if it is not answered with it.
            ended: how many calls of each module have ended, also of those that are not made as others are answered.
        """
        found, outputs, in_front = {}, {}, contextlib.ExitStack()
        ended = Counter() if ended is None else ended
        call_of = {name: self.calls.owners[name] for name in names if name in self.calls.owners}
        missing = {*call_of.values(), *keep, *([behind] if behind else [])}

        def leave(each: nn.Module, inputs: tuple, output: Any) -> Any:
            call = each, ended[each]
            ended[each] += 1
            if call == behind and x is not None:
                in_front.close()
                output = self._own(call, with_first(output, x))
            if call in keep:
                outputs[call] = self._own(call, output)
            found.update({name: self._own(call, first_tensor(output)) for name, own in call_of.items() if own == call})
            missing.discard(call)
            if not missing and len(found) == len(names):
                raise _Stop
            return output

        with in_front, contextlib.ExitStack() as hooks:
            for each in {call[0] for call in missing}:
                hooks.callback(each.register_forward_hook(leave).remove)
            if x is not None and self._trains:  # statistics in front of a layer do not move
                in_front.enter_context(buffers_kept(self.module))
            with contextlib.suppress(_Stop):
                output = logits_of(self.module(self._own(None, images)))
                found |= {name: output for name in names if name not in call_of}
        if missing:
            name = next(name for name, call in self.calls.owners.items() if call in missing)
            raise UserError(f"layer {name!r} is not called equally often for all images; choose another one")
        return found, outputs

    def _own(self, call: Call | None, output: Any) -> Any:
        """Return the output of a call (None: the images), copied if it is changed in place later."""
        return map_tensors(output, Tensor.clone) if call in self.calls.changed else output


class _Stop(BaseException):
    """Ends a pass; no `except Exception` of the module catches it."""


@contextlib.contextmanager
def _forward_is(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    own = {key: value for key, value in vars(module).items() if key == "forward"}
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        vars(module).update(own)


def _repeated(output: Any, rows: int, times: int) -> Any:
    """Repeat the tensors that have a row for each image, one behind the other."""
    if times == 1:
        return output
    return map_tensors(output, lambda each: torch.cat([each] * times) if each.ndim and len(each) == rows else each)


def close(value: Tensor | None, expected: Tensor | None) -> bool:
    """Return whether two values differ by no more than rounding."""
    if value is None or expected is None or value.shape != expected.shape or value.dtype != expected.dtype:
        return False
    if not value.is_floating_point():
        return torch.equal(value, expected)
    tolerance = torch.finfo(value.dtype).eps ** 0.5 * expected.nan_to_num(0, 0, 0).abs().amax().item()
    return torch.allclose(value, expected, rtol=0, atol=tolerance, equal_nan=True)


@torch.enable_grad()
def _has_gradient(value: Tensor, source: Tensor) -> bool:
    if not (value.requires_grad and source.requires_grad):
        return False
    (gradient,) = torch.autograd.grad(value.sum(), source, allow_unused=True, retain_graph=True)
    return gradient is not None
