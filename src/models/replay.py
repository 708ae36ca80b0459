"""Passes of a module that end at a layer, or go on behind one with another value of it.

A cut is defined by a plain hook: the module runs, and the output of the layer is replaced. A replay gives the same
without what lies in front: calls of modules that ended before the layer return what they returned in another pass.
Where everything behind the layer depends on the images through it alone, that is a pass over two random images,
otherwise one over the images themselves. Whether a replay equals the hook is tried out once, on random images.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from src.console import note
from src.errors import UserError
from src.models.calls import N_IMAGES, OUTPUT, Call, Calls, buffers_kept, hooked, steady
from src.models.outputs import first_tensor, logits_of, map_tensors, with_first

Values = dict[str, Tensor | None]


class Recorded(NamedTuple):
    """Images, and outputs of calls in a pass over them: what replays answer these calls with."""

    images: Tensor
    outputs: dict[Call, Any]


class Front(NamedTuple):
    """The call of a layer, the calls in front that a replay answers, and those of each module that a replay makes."""

    layer: Call
    answered: set[Call]
    made: dict[nn.Module, list[int]]


class Replay:
    """Runs a module in its current mode, which a first pass has looked at.

    Args:
        images: (3, C, H, W), random.
    """

    def __init__(self, module: nn.Module, images: Tensor):
        self.module, self.images = module, images
        self.calls = Calls(module, images[:N_IMAGES])
        self._trains = any(each.training for each in module.modules())
        self._fronts: dict[str, Front] = {}
        self._any: dict[str, Recorded] = {}
        self._known: dict[tuple, bool] = {}
        self._has_noted = False

    def run(
        self, x: Tensor, names: Sequence[str], after: str | None = None, images: Tensor | Recorded | None = None
    ) -> Values:
        """Return the values of layers, computed from images, or with `after` from the value of that layer.

        Args:
            images: of x; those of a record may be fewer, and are then repeated.
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
        if not self.needs_images(after, others):
            return same | self._resume(x, others, after, self._record_of_any(after))
        if images is None:
            raise ValueError(f"{after} lies inside a block: what follows it needs the images")
        images, recorded = images if isinstance(images, Recorded) else (images, {})
        times = len(x) // len(images)
        if self.calls.owners[after] in recorded and self._is_replayed(after, others):
            return same | self._resume(x, others, after, Recorded(images, recorded), times)
        return same | self._replace(x, others, after, _repeated(images, len(images), times))

    def record(self, images: Tensor, names: Sequence[str], after: Sequence[str]) -> tuple[Values, Recorded]:
        """Return the values of layers from one pass, and the record of it that replays behind others need."""
        inner = [name for name in after if self.needs_images(name) and self._is_replayed(name, [OUTPUT])]
        return self._record(images, names, inner) if names or inner else ({}, Recorded(images, {}))

    def _record(self, images: Tensor, names: Sequence[str], after: Sequence[str]) -> tuple[Values, Recorded]:
        fronts = map(self._front, after)
        keep = {call for front in fronts for call in (front.layer, *front.answered)}
        found, outputs = self._observe(images, names, keep=keep)
        return found, Recorded(images, outputs)

    def is_cut(self, name: str) -> bool:
        """Return whether everything behind a layer depends on the images through it alone.

        That is told by gradients; of modules without, and of identities, by a replay.
        """
        is_told = self.calls.has_graph and name not in self.calls.repeaters
        if is_told or not self.calls.is_bottleneck(name):
            return self.calls.is_bottleneck(name)
        with contextlib.suppress(UserError):  # the logits do not depend on it
            return not self.needs_images(name)
        return False

    def needs_images(self, after: str, names: Sequence[str] = (OUTPUT,)) -> bool:
        """Return whether layers behind another one need the images besides.

        Raises:
            UserError, ValueError: as for `run`.
        """
        key = (after, *names)
        if key not in self._known:
            if self.images.is_meta:
                self._known[key] = not all(self.calls.is_bottleneck(after, name) for name in names)
            else:
                with steady(self.module, self.images):
                    self._known[key] = self._try_without_images(after, names)
        return self._known[key]

    def _try_without_images(self, after: str, names: Sequence[str]) -> bool:
        with torch.no_grad():
            own, _ = self._observe(self.images, [after, *names])
        value, images = own[after].roll(1, 0), self.images.clone()
        try:
            with torch.enable_grad():
                value.requires_grad_(value.is_floating_point())
                expected = self._replace(value, names, after, images.requires_grad_())
        except RuntimeError:  # NumPy takes no tensors that have gradients
            with torch.no_grad():
                expected = self._replace(value, names, after, self.images)
        lost = [name for name in names if close(expected[name], own[name]) and not _leads_to(value, expected[name])]
        if {OUTPUT, self.calls.output_name}.intersection(lost):
            raise UserError(f"the logits do not depend on layer {after!r} (the first of its outputs); choose another")
        if lost:
            raise ValueError(f"{', '.join(lost)} does not lie behind {after}")
        if any(_leads_to(images, expected[name]) for name in names):
            return True
        return not self._equals(expected, lambda: self._resume(value, names, after, self._record_of_any(after)))

    def _is_replayed(self, after: str, names: Sequence[str]) -> bool:
        """Return whether a replay with a record of the images gives what a hook gives; if not, a note says so once."""
        if self._trains:  # statistics move, or random numbers are drawn
            return False
        key = (after, *names, "recorded")
        if key not in self._known:
            with steady(self.module, self.images), torch.no_grad():
                own, recorded = self._record(self.images, [after], [after])
                value = torch.cat([own[after].roll(1, 0), own[after].roll(2, 0)])
                expected = self._replace(value, names, after, _repeated(self.images, len(self.images), 2))
                is_equal = self._equals(expected, lambda: self._resume(value, names, after, recorded, 2))
            self._known[key] = is_equal and not self.calls.is_random
            if not self._known[key] and not self._has_noted:
                note(
                    f"{type(self.module).__name__} is cut by hooks at {after}, as a replay gives other values: results "
                    "are the same, but each group of stitches takes a whole pass of the end network"
                )
                self._has_noted = True
        return self._known[key]

    @torch.no_grad()
    def _equals(self, expected: Values, run: Callable[[], Values]) -> bool:
        try:
            found = run()
        except Exception:  # whatever the module does with values of other images
            return False
        return all(close(found[name], expected[name]) for name in expected)

    def _front(self, layer: str) -> Front:
        if layer not in self._fronts:
            call, answered = self.calls.owners[layer], self.calls.in_front(layer)
            self._fronts[layer] = Front(call, answered, self.calls.made_beside(answered | {call}))
        return self._fronts[layer]

    def _record_of_any(self, after: str) -> Recorded:
        """Return the record of two random images, which serves where the images do not count."""
        if after not in self._any:
            images = self.images[:N_IMAGES]
            with steady(self.module, images), torch.no_grad():
                self._any[after] = self._record(images, [], [after])[1]
        return self._any[after]

    def _replace(self, x: Tensor, names: Sequence[str], after: str, images: Tensor) -> Values:
        """Run the module on the images, with the output of a layer replaced: what a cut means."""
        return self._observe(images, names, behind=self.calls.owners[after], x=x)[0]

    def _resume(self, x: Tensor, names: Sequence[str], after: str, recorded: Recorded, times: int = 1) -> Values:
        """Run the module with calls answered from a record, repeated where x has several rows for each image."""
        layer, answered, made = self._front(after)
        count, rows = _Count(made), len(recorded.images)

        def answering(each: nn.Module) -> Callable[..., Any]:
            forward = each.forward

            def answer(*args: Any, **kwargs: Any) -> Any:
                call = count(each)
                if call != layer and call not in answered:
                    return forward(*args, **kwargs)
                output = _repeated(recorded.outputs[call], rows, times)
                return self._own(call, with_first(output, x) if call == layer else output)

            return answer

        with contextlib.ExitStack() as undo:
            for each in {call[0] for call in (layer, *answered)}:
                undo.enter_context(_forward_is(each, answering(each)))
            return self._observe(_repeated(recorded.images, rows, times), names, behind=layer, made=made)[0]

    def _observe(
        self,
        images: Tensor,
        names: Sequence[str],
        *,
        keep: Collection[Call] = (),
        behind: Call | None = None,
        x: Tensor | None = None,
        made: dict[nn.Module, list[int]] | None = None,
    ) -> tuple[Values, dict[Call, Any]]:
        """Run the module up to the last of what is asked for; return the values of layers, and outputs of calls.

        Args:
            behind: a call that they lie behind; x takes the place of its first tensor, if it is not answered with it.
            made: the calls that are made of each module; None: all.
        """
        found, outputs, count, front = {}, {}, _Count(made), contextlib.ExitStack()
        call_of = {name: self.calls.owners[name] for name in names if name in self.calls.owners}
        missing = {*call_of.values(), *keep, *([behind] if behind else [])}

        def leave(each: nn.Module, inputs: tuple, output: Any) -> Any:
            call = count(each)
            if call == behind and x is not None:
                front.close()
                output = self._own(call, with_first(output, x))
            if call in keep:
                outputs[call] = self._own(call, output)
            found.update({name: self._own(call, first_tensor(output)) for name, own in call_of.items() if own == call})
            missing.discard(call)
            if not missing and len(found) == len(names):
                raise _Stop
            return output

        with front, hooked({call[0] for call in missing}, leave):
            if x is not None and self._trains:  # statistics in front of a layer do not move
                front.enter_context(buffers_kept(self.module))
            with contextlib.suppress(_Stop):
                output = logits_of(self.module, self.module(self._own(None, images)))
                found |= {name: output for name in names if name not in call_of}
        if missing:
            late = [name for name, call in call_of.items() if call in missing] or ["in front"]
            raise UserError(f"layer {late[0]!r} is not called equally often for all images; choose another one")
        return {name: found[name] for name in names}, outputs

    def _own(self, call: Call | None, output: Any) -> Any:
        """Return the output of a call (None: the images), copied if it is changed in place later."""
        return map_tensors(output, Tensor.clone) if call in self.calls.changed else output


class _Count:
    """Tells which call of a module is the next one to end, or begin.

    Args:
        made: the calls that are made of each module; None: all.
    """

    def __init__(self, made: dict[nn.Module, list[int]] | None):
        self.made, self.number = made, Counter()

    def __call__(self, module: nn.Module) -> Call:
        number = self.number[module]
        self.number[module] += 1
        if self.made is None:
            return module, number
        numbers = self.made.get(module, [])
        return module, numbers[number] if number < len(numbers) else -1


class _Stop(BaseException):
    """Ends a pass; no `except Exception` of the module catches it."""


@contextlib.contextmanager
def _forward_is(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    own = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own


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


def _leads_to(source: Tensor, value: Tensor | None) -> bool:
    """Return whether a value has a gradient with respect to a leaf."""
    if value is source:
        return True
    to_do, seen = [value.grad_fn] if value is not None and value.grad_fn is not None else [], set()
    while to_do:
        node = to_do.pop()
        if getattr(node, "variable", None) is source:
            return True
        if node not in seen:
            seen.add(node)
            to_do += [each for each, _ in node.next_functions if each is not None]
    return False
