"""Passes of a module that end at a layer, or go on behind a layer with a new value of that layer.

Here are also the passes over random images that show the layers of a module. What is said of images
goes for inputs of any shape and type.

A pass that goes on behind a layer starts at the images as well, and a hook replaces the output of
the layer. Modules are *in front* of the layer if they end before it in a pass, and *behind* it if
they start later. A module that contains the layer is neither: it always runs.

The whole pass defines the result: all modules run on the images (`Passes._whole_pass`). This works
for every module, and needs the images.

The short pass gives the same result sooner (`Passes._short_pass`): the modules in front, and the
layer itself, do not run. They return outputs that were recorded before, of two random images; only
the glue between modules, such as sums and reshapes, runs again. A short pass needs no images. It is
possible where later values depend on the images only through the layer, and where modules in front
draw no random numbers that modules behind would draw otherwise.

Before the first pass from a layer to certain later layers, a short pass is compared with the whole
one on three random images, if nothing tells beforehand that they differ. The record has two images:
whatever reaches later layers around the layer, image by image, has the wrong number of rows, and
shows. So does an attribute that a module in front has set, as images of another size passed last.
Where they differ, all passes between these layers are whole. A number of the whole batch that
chooses a branch (such as the largest pixel) is seen only if it differs for random images. Forward
hooks of a user on skipped modules see the recorded outputs.
"""

import contextlib
import copy
import dataclasses
import functools
import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from src.ground.console import note
from src.ground.errors import UserError
from src.ground.images import shape_text
from src.models.calls import OUTPUT, Call, Calls, Observation, Snapshot, is_activation
from src.models.tokens import image_size_of, n_leading_equal

Values = dict[str, Tensor]  # by layer
Outputs = dict[Call | None, object]  # by call; None stands for the whole module
TIME_FIRST = (
    "time steps in front of the images; make its module with batch_first=True, or choose another "
    "layer"
)


class Replacement(NamedTuple):
    """A tensor that takes the place of the first tensor in the output of a call."""

    call: Call
    value: Tensor


class _Record(NamedTuple):
    """Outputs of calls for two random images, and the weights that they were computed with."""

    outputs: Outputs
    weights: list[Tensor]  # parameters and buffers of the modules
    states: list[tuple[int, int]]  # of the weights, see `states_of`

    @classmethod
    def of(cls, outputs: Outputs) -> "_Record":
        """Record the outputs of calls."""
        modules = {call.module for call in outputs if call is not None}
        weights: list[Tensor] = []
        for module in modules:
            weights += itertools.chain(module.parameters(), module.buffers())
        return cls(outputs, weights, states_of(weights))

    @property
    def is_stale(self) -> bool:
        """Whether the weights have changed since."""
        return states_of(self.weights) != self.states


class Passes:
    """Computes values of layers of a module, in the module's current mode.

    The value of a layer is the first tensor that the last call of its module returns.

    Args:
        images: (3, C, H, W), random, or three other inputs. Layers are found and outputs recorded on
            the first two. The two ways are compared on all three: a short pass must serve any
            number of images.

    Attributes:
        calls: the calls of modules in a pass.
        blocks: the layers that `all` stands for; None until `Network` finds them.
    """

    def __init__(self, module: nn.Module, images: Tensor):
        self.module = module
        self.images = images
        self.calls = calls_in(module, images)
        self.blocks: tuple[str, ...] | None = None
        self._is_training = any(part.training for part in module.modules())
        self._records: dict[str, _Record] = {}  # by layer
        # Whether a short pass behind the first layer of a key gives the values of the further layers
        self._can_be_short: dict[tuple[str, ...], bool] = {}
        self._has_noted = False  # that passes from a layer are whole

    @functools.cached_property
    def n_prefix_tokens(self) -> int:
        """The number of tokens in front of the patches, counted in a pass over two images.

        0 for whole numbers: the first of them may be equal by chance.
        """
        if not self.images.is_floating_point():
            return 0
        return count_prefix_tokens(self.module, self.images[:2])

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
            images: the images of x, which a whole pass needs. x may hold k values for each image:
                x is then k batches long, one batch behind the other.
        Raises:
            UserError: the logits do not depend on `after`, or the module calls a layer less often
                than before, or a layer gives no tensor with the batch as first axis.
            ValueError: a layer does not lie behind `after`, or `images` are needed and missing.
        """
        if not names:
            return {}
        if after is None:
            outputs = self._run_module(x, self._calls_of(names))
            return self._values(outputs, names, len(x))

        # Layers that return the value of `after` unchanged; the output of the module has no position
        position = self.calls.positions.get(after)
        values = {name: x for name in names if self.calls.positions.get(name) == position}

        # All further layers, which have to lie behind `after`
        behind = [name for name in names if name not in values]
        if not behind:
            return values
        if position is None:
            raise ValueError(f"{', '.join(behind)} does not lie behind {after}")
        if self._can_be_short_to(behind, after):
            return values | self._short_pass(x, behind, after)
        if images is None:
            raise ValueError(
                f"the modules in front of {after} cannot be skipped: later layers need the images "
                "too; give images="
            )
        return values | self._whole_pass(x, behind, after, images)

    # The whole pass

    def _whole_pass(self, x: Tensor, names: Sequence[str], after: str, images: Tensor) -> Values:
        """Run the module on images, replace the value of `after` by x, and return later values."""
        n_repeats = len(x) // len(images)
        if n_repeats > 1:
            images = torch.cat([images] * n_repeats)
        replacement = Replacement(self.calls.call_of[after], x)
        outputs = self._run_module(images, self._calls_of(names), replacement)
        return self._values(outputs, names, len(x))

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
            n_ended: by module, how many calls have ended. A short pass adds the calls inside of those
                that it skips.
        Raises:
            UserError: a call is not made.
        """
        outputs: Outputs = {}
        if n_ended is None:
            n_ended = Counter()
        missing = set(targets)
        if replacement is not None:
            missing.add(replacement.call)
        # Keeps the buffers until the layer's value is replaced: BatchNorm statistics in front stay
        still_buffers = contextlib.ExitStack()

        def leave(module: nn.Module, inputs: tuple, output: object) -> object:
            call = Call(module, n_ended[module])
            n_ended[module] += 1
            if replacement is not None and call == replacement.call:
                still_buffers.close()
                output = self._safe(call, _with_first(output, replacement.value))
            if call in targets:
                outputs[call] = self._safe(call, output)
            missing.discard(call)
            if not missing:
                raise _Stop
            return output

        with still_buffers, contextlib.ExitStack() as hooks:
            for module in {call.module for call in missing if call is not None}:
                hooks.callback(module.register_forward_hook(leave).remove)
            if replacement is not None and self._is_training:
                still_buffers.enter_context(buffers_kept(self.module))
            with contextlib.suppress(_Stop):
                outputs[None] = self.module(self._safe(None, images))
        missing.discard(None)
        if missing:
            name = next(name for name, call in self.calls.call_of.items() if call in missing)
            raise UserError(
                f"layer {name!r} is not called equally often for all images; choose another one"
            )
        return outputs

    # The short pass

    def _short_pass(self, x: Tensor, names: Sequence[str], after: str) -> Values:
        """Return the values of layers behind `after` from its value x; skip modules in front of it.

        The module runs on the two random images. Skipped calls, and the call of the layer, return
        their recorded outputs. A hook then puts x into the layer's output.
        """
        record = self._recorded_outputs(after)
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
        return self._values(outputs, names, len(x))

    @torch.inference_mode(False)
    @torch.no_grad()
    def _recorded_outputs(self, after: str) -> Outputs:
        """Return the outputs of a layer's call and of all calls in front, for two random images."""
        record = self._records.get(after)
        if record is None or record.is_stale:
            calls_to_record = {self.calls.call_of[after], *self.calls.in_front(after)}
            with steady(self.module, self.images):
                record = _Record.of(self._run_module(self.images[:2], calls_to_record))
            self._records[after] = record
        return record.outputs

    # The choice between the two

    def _can_be_short_to(self, names: Sequence[str], after: str) -> bool:
        """Return whether a short pass gives the values of layers behind `after`.

        The first call for these layers tries both ways on the random images; later calls remember.

        Raises:
            UserError, ValueError: as `run`, if a layer does not depend on `after`.
        """
        key = (after, *names)
        if key not in self._can_be_short:
            is_bottleneck = all(self.calls.is_bottleneck(after, name) for name in names)
            with torch.inference_mode(False):
                x, expected = self._values_with_hook(after, names)
                is_exact = is_bottleneck and self._short_pass_gives(expected, x, after)
            self._can_be_short[key] = is_exact
            differs = is_bottleneck and not is_exact
            if differs and not self._is_training and not self._has_noted:
                self._has_noted = True
                note(
                    f"{type(self.module).__name__} takes whole passes behind {after}, because skipping "
                    "the modules in front of it would change the result: slower, and still right"
                )
        return self._can_be_short[key]

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
            unhooked = self._values(outputs, [after, *names], len(self.images))
        x = unhooked[after].roll(1, 0)

        # Values with the hook
        try:
            with steady(self.module, self.images), torch.enable_grad():
                x.requires_grad_(x.is_floating_point())
                values = self._whole_pass(x, names, after, self.images)
        except RuntimeError:  # as in Calls, torch refuses gradients
            with steady(self.module, self.images), torch.no_grad():
                values = self._whole_pass(x, names, after, self.images)

        # Layers that the hook does not change
        unchanged = [
            name
            for name in names
            if _is_close(values[name], unhooked[name]) and not _has_gradient(values[name], x)
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
    def _short_pass_gives(self, expected: Values, x: Tensor, after: str) -> bool:
        """Return whether a short pass gives the expected values behind `after`, from its value x."""
        try:
            self._recorded_outputs(after)  # by a pass of its own, before the seed is set
            with attributes_kept(self.module):
                self._leave_other_attributes()
                with steady(self.module, self.images):
                    values = self._short_pass(x, list(expected), after)
        except Exception:  # the module may refuse values of different images
            return False
        return all(_is_close(values[name], expected[name]) for name in expected)

    def _leave_other_attributes(self) -> None:
        """Pass images of another size and number, so that attributes which modules set differ.

        A module may keep the size of its map. Skipped modules set nothing: a short pass that reads
        such an attribute then gives other values, and is not taken.
        """
        images = self.images[:2]
        smaller = images[:, ::2]
        larger = images.repeat_interleave(2, 1)
        if image_size_of(images):
            smaller = functional.interpolate(images, scale_factor=0.5)
            larger = functional.interpolate(images, scale_factor=2)
        for other in (smaller, larger, images):  # the module may refuse a size
            with contextlib.suppress(Exception), steady(self.module, self.images):
                self.module(other)
                return

    # Values of layers, and outputs of calls

    def _calls_of(self, names: Sequence[str]) -> list[Call | None]:
        """Return the calls that return the values of layers; None for the whole module."""
        return [self.calls.call_of.get(name) for name in names]

    def _values(self, outputs: Outputs, names: Sequence[str], n_rows: int) -> Values:
        """Pick the values of layers from the outputs of their calls.

        Args:
            n_rows: the length of the batch.
        Raises:
            UserError: an output has no tensor, or the first axis of a value is not the batch.
        """
        values: Values = {}
        for name, call in zip(names, self._calls_of(names), strict=True):
            if name in self.calls.time_first:
                raise UserError(f"layer {name!r} gives {TIME_FIRST}")
            if call:
                value = first_tensor(outputs[call])
            else:
                value = logits_of(outputs[None])
            if value is None:
                raise UserError(f"layer {name!r} gives no tensor; choose another one")
            if value.ndim < 2 or len(value) != n_rows:
                shape = shape_text(value.shape)
                raise UserError(
                    f"layer {name!r} gives {shape}, not one tensor of {n_rows} images; "
                    "choose another one"
                )
            values[name] = value
        return values

    def _safe(self, call: Call | None, output: object) -> object:
        """Return the output of a call, copied if the module changes it in place later.

        For None, `output` is the images.
        """
        if call in self.calls.changed:
            return _map_tensors(output, Tensor.clone)
        return output


def calls_in(module: nn.Module, images: Tensor) -> Calls:
    """Return the calls in a pass of a module.

    Args:
        images: (3, C, H, W), random. The pass is over the first two. Two images and two time steps look
            the same; another pass, over all three, tells.
    """
    try:
        seen = _observed(module, images[:2], with_gradients=True)
    except RuntimeError:  # with gradients torch refuses NumPy and in-place changes of chunks
        seen = _observed(module, images[:2], with_gradients=False)
    calls = Calls(module, seen)
    unclear = [name for name in calls.call_of if calls.shapes.get(name, ())[:-1] == (2,)]
    modules = {name: calls.call_of[name].module for name in unclear}
    if modules:
        n_rows = _lengths(module, set(modules.values()), images)
        time_first = (name for name in unclear if n_rows[modules[name]] != len(images))
        calls.put_time_first(time_first)
    return calls


def _observed(module: nn.Module, images: Tensor, *, with_gradients: bool) -> Observation:
    """Run a module on images and return its calls.

    Whole numbers have no gradients. In their place, those of a zero tell what is computed from
    them: it is added to what a module without parts, such as an embedding, makes of whole numbers.
    """
    containers: dict[Call, tuple[Call, ...]] = {}
    snapshots: dict[Call, Snapshot] = {}
    open_calls: list[Call] = []
    n_calls: Counter[nn.Module] = Counter()

    def enter(part: nn.Module, inputs: tuple) -> None:
        open_calls.append(Call(part, n_calls[part]))
        n_calls[part] += 1

    def leave(part: nn.Module, inputs: tuple, output: object) -> object:
        call = open_calls.pop()
        containers[call] = tuple(open_calls)
        if are_numbers and with_gradients and not any(part.children()):
            output = _with_source(output, inputs, zero)
        snapshots[call] = _snapshot(output)
        return output

    are_numbers = not images.is_floating_point()
    source = images.clone()
    if are_numbers:
        source = torch.zeros((), device=images.device)
    source.requires_grad_(with_gradients)
    with steady(module, images), contextlib.ExitStack() as hooks:
        for part in list(module.modules())[1:]:
            hooks.callback(part.register_forward_pre_hook(enter).remove)
            hooks.callback(part.register_forward_hook(leave).remove)
        hooks.enter_context(torch.set_grad_enabled(with_gradients))
        zero = source.clone()
        taken_images = zero
        if are_numbers:
            taken_images = images.clone()
        image_snapshot = _snapshot(taken_images)._replace(graph_value=_snapshot(zero).graph_value)
        output = _snapshot(logits_of(module(taken_images)))
    return Observation(containers, snapshots, image_snapshot, output)


def _with_source(output: object, inputs: tuple, zero: Tensor) -> object:
    """Add a zero to the tensors that a module makes of whole numbers, one row an input."""
    numbers = [tensor for tensor in tensors_of(inputs) if not tensor.is_floating_point()]
    if not any(is_activation(tensor, 2) for tensor in numbers):
        return output
    return _map_tensors(output, lambda tensor: tensor + zero.to(tensor.dtype))


def _snapshot(output: object) -> Snapshot:
    """Take a snapshot of an output."""
    tensors = list(tensors_of(output))
    graph_value = None
    if tensors and tensors[0].grad_fn is not None:
        graph_value = (tensors[0].grad_fn, tensors[0].output_nr)
    return Snapshot([(tensor, tensor._version) for tensor in tensors], graph_value)


@torch.no_grad()
def _lengths(
    module: nn.Module, parts: Collection[nn.Module], images: Tensor
) -> dict[nn.Module, int]:
    """Return the length of the value of each part of a module in a pass over images; 0: no tensor."""
    lengths: dict[nn.Module, int] = {}

    def leave(part: nn.Module, inputs: tuple, output: object) -> None:
        value = first_tensor(output)
        lengths[part] = 0 if value is None else len(value)

    with steady(module, images), contextlib.ExitStack() as hooks:
        for part in parts:
            hooks.callback(part.register_forward_hook(leave).remove)
        module(images.clone())
    return lengths


def count_prefix_tokens(module: nn.Module, images: Tensor) -> int:
    """Count the tokens that stand in front of the patches where these tokens enter a network.

    They are equal for both images there, as a CLS token is. A number of tokens is looked at where it
    comes first in a pass: attention has not mixed the tokens.

    Args:
        images: (2, C, H, W), random.
    Returns:
        0 without such a place.
    """
    counts: dict[int, int] = {}  # of prefix tokens, by the number of tokens

    def look(value: object) -> None:
        tokens = first_tensor(value)
        if tokens is None or tokens.ndim != 3 or not is_activation(tokens, len(images)):
            return
        if tokens.shape[1] in counts or torch.equal(tokens[0], tokens[1]):  # or it sees no image
            return
        counts[tokens.shape[1]] = n_leading_equal(tokens, image_size_of(images))

    with steady(module, images), contextlib.ExitStack() as hooks:
        for part in list(module.modules())[1:]:
            before = part.register_forward_pre_hook(lambda _, inputs: look(inputs))
            behind = part.register_forward_hook(lambda _, inputs, output: look(output))
            hooks.callback(before.remove)
            hooks.callback(behind.remove)
        module(images.clone())
    return next(filter(None, counts.values()), 0)


@contextlib.contextmanager
def steady(module: nn.Module, images: Tensor, *, seed: int = 0) -> Iterator[None]:
    """Run the block with a fixed seed; afterwards restore random generators and buffers.

    Args:
        module: has the buffers, such as BatchNorm statistics.
        images: lie on the device of the module.
    """
    devices = []
    generator = torch.default_generator
    if images.is_cuda:
        devices = [images.device]
        generator = torch.cuda.default_generators[images.device.index]
    with torch.random.fork_rng(devices), buffers_kept(module):
        generator.manual_seed(seed)
        yield


@contextlib.contextmanager
def buffers_kept(module: nn.Module) -> Iterator[None]:
    """Restore the buffers of a module, such as BatchNorm statistics, after the block."""
    copies = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        for buffer, copy in copies:
            buffer.data.copy_(copy)


@contextlib.contextmanager
def attributes_kept(module: nn.Module) -> Iterator[None]:
    """Restore what the block assigns to attributes, parameters and buffers of a module's parts."""
    assigned = []
    for part in module.modules():
        for attributes in (vars(part), part._parameters, part._buffers):
            assigned.append((attributes, dict(attributes)))
    try:
        yield
    finally:
        for attributes, before in assigned:
            attributes.clear()
            attributes.update(before)


# Outputs: a tensor, or a tuple, list, dict or dataclass of outputs


def tensors_of(output: object) -> Iterator[Tensor]:
    """Yield the tensors of an output, in order."""
    if isinstance(output, Tensor):
        yield output
    for item in parts_of(output).values():
        yield from tensors_of(item)


def first_tensor(output: object) -> Tensor | None:
    """Return the first tensor of an output; None if it has no tensor."""
    return next(tensors_of(output), None)


def logits_of(output: object) -> Tensor:
    """Return the logits in the output of a network, or the features in the output of an encoder.

    This is the first tensor of `logits` in a dict or dataclass with that entry, otherwise the first
    tensor of the output.

    Raises:
        UserError: there is no tensor.
    """
    logits = first_tensor(parts_of(output).get("logits", output))
    if logits is None:
        raise UserError(
            f"the network returns a {type(output).__name__}; let its forward return the logits"
        )
    return logits


def parts_of(output: object) -> dict[Any, object]:
    """Return the parts of an output by key, index or field; {} if it has no parts."""
    if isinstance(output, Mapping):
        return dict(output)
    if isinstance(output, (tuple, list)):
        return dict(enumerate(output))
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        return {field.name: getattr(output, field.name) for field in dataclasses.fields(output)}
    return {}


def _map_tensors(output: object, change: Callable[[Tensor], Tensor]) -> object:
    """Return a copy of an output in which each tensor t is replaced by `change(t)`, in order."""
    if isinstance(output, Tensor):
        return change(output)
    items = {key: _map_tensors(item, change) for key, item in parts_of(output).items()}
    if isinstance(output, tuple):
        if hasattr(output, "_make"):  # the class of a NamedTuple takes its fields one by one
            return output._make(items.values())
        return type(output)(items.values())
    if not items:
        return output
    changed: Any = copy.copy(output)
    for key, item in items.items():
        if isinstance(output, (list, Mapping)):
            changed[key] = item
        else:
            object.__setattr__(changed, key, item)  # the dataclass may be frozen
    return changed


def _with_first(output: object, tensor: Tensor) -> object:
    """Return a copy of an output in which `tensor` takes the place of the first tensor."""
    replacements = iter([tensor])
    return _map_tensors(output, lambda old: next(replacements, old))


def states_of(tensors: Iterable[Tensor]) -> list[tuple[int, int]]:
    """Return the address and the version of tensors; an in-place change raises the version.

    A change of the same memory through `.data` is not seen.
    """
    states = []
    for tensor in tensors:
        version = 0  # tensors made in inference mode have none
        if not tensor.is_inference():
            version = tensor._version
        states.append((tensor.data_ptr(), version))
    return states


def as_inputs(values: Tensor, like: Tensor) -> Tensor:
    """Move inputs to the device of a tensor, and cast floats to its type; return a copy of theirs."""
    if values.is_floating_point():
        return values.to(like, copy=True)
    return values.to(like.device, copy=True)


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
    """Return whether two values differ by no more than √eps of the largest value.

    `eps` is that of the type of the values. So much may come from another order of sums.
    """
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
