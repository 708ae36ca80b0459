"""Passes of a module that end at a layer, or go on behind a layer with a new value of that layer.

The plain way defines the result: the module runs on the images, and a hook replaces the output of
the layer (`Replay._run_module`). This works for every module, and needs the images.

The fast way gives the same result sooner: a replay skips the modules in front of the layer. They
return outputs that were recorded before, in a pass over two random images (`Replay._replay`). A
replay needs no images. It is possible where later values depend on the images only through the
layer.

The first pass from a layer to certain later layers compares both ways on random images. Where they
differ, all passes between these layers go the plain way.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from src.ground.console import note
from src.ground.errors import UserError
from src.models.calls import OUTPUT, Call, Calls, buffers_kept, steady
from src.models.outputs import first_tensor, logits_of, map_tensors, with_first

Values = dict[str, Tensor]  # by layer
Outputs = dict[Call | None, object]  # by call; None stands for the whole module


class Replacement(NamedTuple):
    """A tensor that takes the place of the first tensor in the output of a call."""

    call: Call
    value: Tensor


class Replay:
    """Computes values of layers of a module, in the module's current mode.

    The value of a layer is the first tensor that the last call of its module returns.

    Args:
        images: (3, C, H, W), random. Layers are found and outputs recorded on the first two. The
            two ways are compared on all three: a replay must serve any number of images.

    Attributes:
        calls: the calls of modules in a pass.
        blocks: the layers that `all` stands for; None until `Network` finds them.
    """

    def __init__(self, module: nn.Module, images: Tensor):
        self.module = module
        self.images = images
        self.calls = Calls(module, images)
        self.blocks: tuple[str, ...] | None = None
        self._is_training = any(part.training for part in module.modules())
        self._records: dict[str, Outputs] = {}  # by layer
        # Whether a replay behind the first layer of a key gives the values of the further layers
        self._can_replay: dict[tuple[str, ...], bool] = {}
        self._has_noted = False  # that a layer is cut the plain way

    def run(
        self,
        x: Tensor,
        names: Sequence[str],
        after: str | None = None,
        images: Tensor | None = None,
    ) -> Values:
        """Return the values of layers by name, from one pass that ends at the last of the layers.

        Args:
            x: images (B, C, H, W), or with `after` the value of that layer.
            names: the layers; behind `after`, or `after` itself. `Network` checks that they exist.
            after: the pass goes on behind this layer, whose value is x.
            images: the images of x, which the plain way needs. x may hold k values for each image:
                x is then k batches long, one batch behind the other.
        Raises:
            UserError: the logits do not depend on `after`, or the module calls a layer less often
                than before, or a layer gives no tensor.
            ValueError: a layer does not lie behind `after`, or `images` are needed and missing.
        """
        if not names:
            return {}
        if after is None:
            return self._values(self._run_module(x, self._calls_of(names)), names)

        # Layers that return the value of `after` unchanged
        position = self.calls.positions[after]
        values = {name: x for name in names if self.calls.positions.get(name) == position}

        # Layers behind `after`
        behind = [name for name in names if name not in values]
        if not behind:
            return values
        if self._is_replayed(after, behind):
            return values | self._replay(x, behind, after)
        if images is None:
            raise ValueError(f"{after} lies inside a block: later layers need the images too")
        return values | self._replace(x, behind, after, images)

    # The plain way

    def _replace(self, x: Tensor, names: Sequence[str], after: str, images: Tensor) -> Values:
        """Run the module on images, replace the value of `after` by x, and return later values."""
        n_repeats = len(x) // len(images)
        if n_repeats > 1:
            images = torch.cat([images] * n_repeats)
        replacement = Replacement(self.calls.call_of[after], x)
        outputs = self._run_module(images, self._calls_of(names), replacement)
        return self._values(outputs, names)

    def _run_module(
        self,
        images: Tensor,
        targets: Collection[Call | None],
        replacement: Replacement | None = None,
        *,
        n_ended: Counter[nn.Module] | None = None,
    ) -> Outputs:
        """Run the module on images until all target calls have ended, and return their outputs.

        Args:
            targets: the calls; None stands for the whole module.
            replacement: changes the output of a call.
            n_ended: by module, how many calls have ended. A replay counts calls that it skips here.
        Raises:
            UserError: a call is not made.
        """
        outputs: Outputs = {}
        if n_ended is None:
            n_ended = Counter()
        missing = set(targets)
        if replacement is not None:
            missing.add(replacement.call)
        in_front = contextlib.ExitStack()  # is closed where the layer's value is replaced

        def leave(module: nn.Module, inputs: tuple, output: object) -> object:
            call = Call(module, n_ended[module])
            n_ended[module] += 1
            if replacement is not None and call == replacement.call:
                in_front.close()
                output = self._safe(call, with_first(output, replacement.value))
            if call in targets:
                outputs[call] = self._safe(call, output)
            missing.discard(call)
            if not missing:
                raise _Stop
            return output

        with in_front, contextlib.ExitStack() as hooks:
            for module in {call.module for call in missing if call is not None}:
                hooks.callback(module.register_forward_hook(leave).remove)
            if replacement is not None and self._is_training:
                # BatchNorm statistics in front of the layer do not move
                in_front.enter_context(buffers_kept(self.module))
            with contextlib.suppress(_Stop):
                outputs[None] = self.module(self._safe(None, images))
        missing.discard(None)
        if missing:
            name = next(name for name, call in self.calls.call_of.items() if call in missing)
            raise UserError(
                f"layer {name!r} is not called equally often for all images; choose another one"
            )
        return outputs

    # The fast way

    def _replay(self, x: Tensor, names: Sequence[str], after: str) -> Values:
        """Return the values of layers behind `after` from its value x; skip modules in front of it.

        Skipped calls, and the call of the layer, return their recorded outputs. Only glue between
        modules runs again, such as sums and reshapes. A hook then puts x into the layer's output.
        """
        record = self._record(after)
        n_started: Counter[nn.Module] = Counter()
        n_ended: Counter[nn.Module] = Counter()

        def answering(module: nn.Module, forward: Callable[..., object]) -> Callable[..., object]:
            def answer(*args: object, **kwargs: object) -> object:
                call = Call(module, n_started[module])
                n_started[module] += 1
                if call not in record:
                    return forward(*args, **kwargs)
                n_started.update(self.calls.n_inside[call])
                n_ended.update(self.calls.n_inside[call])
                return self._safe(call, record[call])

            return answer

        replacement = Replacement(self.calls.call_of[after], x)
        with contextlib.ExitStack() as forwards:
            for module in {call.module for call in record if call is not None}:
                answer = answering(module, module.forward)
                forwards.enter_context(_forward_replaced(module, answer))
            outputs = self._run_module(
                self.images[:2], self._calls_of(names), replacement, n_ended=n_ended
            )
        return self._values(outputs, names)

    @torch.inference_mode(False)
    @torch.no_grad()
    def _record(self, after: str) -> Outputs:
        """Return the outputs of a layer's call and of all calls in front, for two random images."""
        if after not in self._records:
            recorded_calls = {self.calls.call_of[after], *self.calls.in_front(after)}
            with steady(self.module, self.images):
                self._records[after] = self._run_module(self.images[:2], recorded_calls)
        return self._records[after]

    # The choice between the two

    def _is_replayed(self, after: str, names: Sequence[str]) -> bool:
        """Return whether a replay gives the values of layers behind `after`; raise as `run` does.

        The first call for these layers finds out; later calls remember.
        """
        key = (after, *names)
        if key not in self._can_replay:
            is_bottleneck = all(self.calls.is_bottleneck(after, name) for name in names)
            with torch.inference_mode(False):
                x, expected = self._values_with_hook(after, names)
                is_exact = is_bottleneck and self._replay_gives(expected, x, after)
            self._can_replay[key] = is_exact
            differs = is_bottleneck and not is_exact
            if differs and not self._is_training and not self._has_noted:
                self._has_noted = True
                note(
                    f"{type(self.module).__name__} is cut by hooks at {after}, as a replay gives "
                    "other values: results are the same, but each group of stitches takes a whole "
                    "pass of the end network"
                )
        return self._can_replay[key]

    def _values_with_hook(self, after: str, names: Sequence[str]) -> tuple[Tensor, Values]:
        """Return a new value of `after` for the random images, and the later values that it gives.

        Each image gets the layer's value of another image.

        Raises:
            UserError: the logits do not change with the layer.
            ValueError: the value of another layer does not change with it.
        """
        # Values without a hook
        with steady(self.module, self.images), torch.no_grad():
            outputs = self._run_module(self.images, self._calls_of([after, *names]))
            plain = self._values(outputs, [after, *names])
        x = plain[after].roll(1, 0)

        # Values with the hook
        try:
            with steady(self.module, self.images), torch.enable_grad():
                x.requires_grad_(x.is_floating_point())
                values = self._replace(x, names, after, self.images)
        except RuntimeError:  # as in Calls, torch refuses gradients
            with steady(self.module, self.images), torch.no_grad():
                values = self._replace(x, names, after, self.images)

        # Layers that the hook does not change
        unchanged = [
            name
            for name in names
            if _is_close(values[name], plain[name]) and not _has_gradient(values[name], x)
        ]
        if {OUTPUT, self.calls.output_name}.intersection(unchanged):
            raise UserError(
                f"the logits do not depend on layer {after!r} (the first of its outputs); "
                "choose another"
            )
        if unchanged:
            raise ValueError(f"{', '.join(unchanged)} does not lie behind {after}")
        return x, values

    @torch.no_grad()
    def _replay_gives(self, expected: Values, x: Tensor, after: str) -> bool:
        """Return whether a replay gives the expected values behind `after`, from its value x."""
        try:
            with steady(self.module, self.images):
                values = self._replay(x, list(expected), after)
        except Exception:  # the module may refuse values of different images
            return False
        return all(_is_close(values[name], expected[name]) for name in expected)

    # Values of layers, and outputs of calls

    def _calls_of(self, names: Sequence[str]) -> list[Call | None]:
        """Return the calls that return the values of layers; None for the whole module."""
        return [self.calls.call_of.get(name) for name in names]

    def _values(self, outputs: Outputs, names: Sequence[str]) -> Values:
        """Pick the values of layers from the outputs of their calls.

        Raises:
            UserError: an output has no tensor.
        """
        values: Values = {}
        for name, call in zip(names, self._calls_of(names), strict=True):
            if call is None:
                values[name] = logits_of(outputs[None])
                continue
            value = first_tensor(outputs[call])
            if value is None:
                raise UserError(f"layer {name!r} gives no tensor; choose another one")
            values[name] = value
        return values

    def _safe(self, call: Call | None, output: object) -> object:
        """Return the output of a call, copied if the module changes it in place later.

        For None, `output` is the images.
        """
        if call in self.calls.changed:
            return map_tensors(output, Tensor.clone)
        return output


class _Stop(BaseException):
    """Ends a pass; no `except Exception` of the module catches it."""


@contextlib.contextmanager
def _forward_replaced(module: nn.Module, forward: Callable[..., object]) -> Iterator[None]:
    """Replace the `forward` of a module while the block runs."""
    # An instance may have a `forward` of its own in place of its class's
    attributes = {key: value for key, value in vars(module).items() if key == "forward"}
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        vars(module).update(attributes)


def _is_close(value: Tensor, expected: Tensor) -> bool:
    """Return whether two values differ by no more than rounding."""
    if value.shape != expected.shape or value.dtype != expected.dtype:
        return False
    if not value.is_floating_point():
        return torch.equal(value, expected)
    size = expected.nan_to_num(0, 0, 0).abs().amax().item()
    tolerance = torch.finfo(value.dtype).eps ** 0.5 * size
    return torch.allclose(value, expected, rtol=0, atol=tolerance, equal_nan=True)


@torch.enable_grad()
def _has_gradient(value: Tensor, source: Tensor) -> bool:
    """Return whether a value is computed from a source, as far as gradients tell."""
    if not (value.requires_grad and source.requires_grad):
        return False
    (gradient,) = torch.autograd.grad(value.sum(), source, allow_unused=True, retain_graph=True)
    return gradient is not None
