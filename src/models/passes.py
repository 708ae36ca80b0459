"""Forward passes of a module that end at a layer, or continue behind a layer with another value of that layer.

A pass that continues behind a layer is defined by a hook: the module runs on the images, and the hook
replaces the output of the layer. This is the whole pass. It works for every module, and needs the
images. What is said of images goes for inputs of any shape and type.

The short pass is the same on two inputs of the module in place of the images. Where later values
depend on the images only through the layer, its result is the same. Most modules in front of the
layer do not even run: they return again what they returned for the two inputs before.

Before the first pass from a layer to certain later layers, the two are compared on three images, of
the first batch where there are images. What reaches later layers around the layer has two rows in the
short pass and three in the whole one, so the comparison fails. Then all passes between these layers
are whole. A number of the whole batch that chooses a branch (such as the largest pixel) is seen only
if it differs for these images. Forward hooks of a user in front of the layer see the two inputs.
"""

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from src.core.console import note_once
from src.core.errors import UserError
from src.core.inputs import shape_text
from src.models.axes import count_prefix_tokens, image_size_of
from src.models.blocks import find_blocks
from src.models.calls import OUTPUT, Calls
from src.models.outputs import first_tensor, logits_of, map_tensors, with_first
from src.models.restored import attributes_restored, buffers_restored, repeatable

Values = dict[str, Tensor]  # by layer
TIME_FIRST = (
    "time steps in front of the images; make its module with batch_first=True, or choose another "
    "layer"
)


class Passes:
    """Computes values of layers of a module, in the module's current mode.

    The value of a layer is the first tensor that the last call of its module returns.

    Args:
        inputs: three inputs (3, …) of the module. Layers are found on the first two.
        n_classes: as in `Network`.

    Attributes:
        calls: the calls of modules in a pass.
    """

    def __init__(self, module: nn.Module, inputs: Tensor, *, n_classes: int | None = None):
        self.module = module
        self.inputs = inputs
        self.calls = Calls(module, inputs)
        self.is_encoder = n_classes is not None and self.calls.output_shape != (n_classes,)
        self._is_training = any(part.training for part in module.modules())
        # Whether a short pass behind the first layer of a key gives the values of the further layers
        self._exact_short: dict[tuple[object, ...], bool] = {}
        self._skippable_of: dict[str, dict[nn.Module, Tensor]] = {}  # by layer: `_skippable`

    @functools.cached_property
    def blocks(self) -> tuple[str, ...]:
        """The layers that `all` stands for in a module without declared blocks."""
        return find_blocks(self.calls, is_encoder=self.is_encoder)

    @functools.cached_property
    def n_prefix_tokens(self) -> int:
        """The number of tokens in front of the patches, counted in a pass over two images.

        0 for integers: the first of them may be equal by chance.
        """
        if not self.inputs.is_floating_point():
            return 0
        return count_prefix_tokens(self.module, self.inputs[:2])

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
            after: the pass continues behind this layer, whose value is x.
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
            return self._values(self._outputs(x, names), len(x))

        # Layers that return the value of `after` unchanged; the output of the module has no position
        position = self.calls.positions.get(after)
        values = {name: x for name in names if self.calls.positions.get(name) == position}

        # All further layers, which have to lie behind `after`
        behind = [name for name in names if name not in values]
        if not behind:
            return values
        if position is None:
            raise ValueError(f"{', '.join(behind)} does not lie behind {after}")
        if self._is_short_exact(behind, after, images):
            return values | self._short_pass(behind, after, x)
        if images is None:
            raise ValueError(
                f"the modules in front of {after} cannot be skipped: later layers need the inputs "
                "too; give images="
            )
        return values | self._whole_pass(images, behind, after, x)

    def _whole_pass(self, images: Tensor, names: Sequence[str], after: str, x: Tensor) -> Values:
        """Return later values from a pass over images."""
        n_repeats = len(x) // len(images)
        if n_repeats > 1:
            images = torch.cat([images] * n_repeats)
        return self._values(self._outputs(images, names, after, x), len(x))

    def _short_pass(self, names: Sequence[str], after: str, x: Tensor) -> Values:
        """Return later values from a pass over two inputs, without modules in front."""
        with self._skipping(after):
            outputs = self._outputs(self.inputs[:2], names, after, x)
        return self._values(outputs, len(x))

    def _outputs(
        self,
        images: Tensor,
        names: Sequence[str],
        after: str | None = None,
        x: Tensor | None = None,
    ) -> dict[str, object]:
        """Run the module until all layers have their values; return their outputs by layer.

        Args:
            after: a layer that has the value x.
        """
        module_of = {name: self.calls.module_of[name] for name in names}
        outputs: dict[nn.Module, object] = {}
        hooked = set(module_of.values())
        replaced = self.calls.module_of.get(after or "")
        if replaced is not None:
            hooked.add(replaced)
        n_missing = {module: self.calls.n_calls[module] for module in hooked}
        # Keeps the buffers until the layer's value is replaced: BatchNorm statistics in front stay
        still_buffers = contextlib.ExitStack()

        def leave(module: nn.Module, inputs: tuple, output: object) -> object:
            n_missing[module] -= 1
            if n_missing[module] != 0:  # the last call counts
                return output
            if x is not None and module is replaced:
                still_buffers.close()
                output = self._safe(module, with_first(output, x))
            outputs[module] = self._safe(module, output)
            if max(n_missing.values()) <= 0:
                raise _Stop
            return output

        if self.calls.changes_inputs:
            images = images.clone()
        with still_buffers, contextlib.ExitStack() as hooks:
            for module in hooked:
                hooks.callback(module.register_forward_hook(leave).remove)
            if x is not None and self._is_training:
                still_buffers.enter_context(buffers_restored(self.module))
            with contextlib.suppress(_Stop):
                self.module(images)
        for name, module in self.calls.module_of.items():
            if n_missing.get(module, 0) > 0:
                raise UserError(
                    f"layer {name!r} is not called equally often for all inputs; choose another one"
                )
        return {name: outputs[module] for name, module in module_of.items()}

    def _safe(self, module: nn.Module, output: object) -> object:
        """Return the output of a module, copied if it is changed in place later."""
        if module in self.calls.changed:
            return map_tensors(output, Tensor.clone)
        return output

    def _values(self, outputs: Mapping[str, object], n_rows: int) -> Values:
        """Return the values of layers for a batch, from the outputs of their modules."""
        values: Values = {}
        for name, output in outputs.items():
            if name in self.calls.time_first:
                raise UserError(f"layer {name!r} gives {TIME_FIRST}")
            value = first_tensor(output)
            if name == OUTPUT:
                value = logits_of(output)
            if value is None:
                raise UserError(f"layer {name!r} gives no tensor; choose another one")
            if value.ndim < 2 or len(value) != n_rows:
                shape = shape_text(value.shape)
                raise UserError(
                    f"layer {name!r} gives {shape}, not one tensor of {n_rows} inputs; "
                    "choose another one"
                )
            values[name] = value
        return values

    # Modules in front of a layer

    @contextlib.contextmanager
    def _skipping(self, layer: str) -> Iterator[None]:
        """Let a layer and modules in front of it return at once their outputs for two inputs."""
        skippable = self._skippable(layer)
        for module, output in skippable.items():
            module.forward = functools.partial(self._answer, module, output)
        try:
            yield
        finally:
            for module in skippable:
                del module.forward  # behind it is the `forward` of the class

    def _answer(
        self, module: nn.Module, output: Tensor, *inputs: object, **options: object
    ) -> object:
        """Take the place of the `forward` of a skipped module."""
        return self._safe(module, output)

    @torch.inference_mode(False)
    @torch.no_grad()
    def _skippable(self, layer: str) -> dict[nn.Module, Tensor]:
        """Return outputs for two inputs, of the outermost modules in front of a layer."""
        if layer not in self._skippable_of:
            calls = self.calls
            names = [layer]
            for name in calls.positions:
                is_in_front = calls.positions[name] < calls.positions[layer]
                contains_layer = calls.module_of[layer] in calls.module_of[name].modules()
                if is_in_front and not contains_layer and name in calls.shapes:
                    names.append(name)
            once = [name for name in names if calls.n_calls[calls.module_of[name]] == 1]
            with repeatable(self.module, self.inputs):
                outputs = self._outputs(self.inputs[:2], once)
            tensors = {
                calls.module_of[name]: output
                for name, output in outputs.items()
                if isinstance(output, Tensor) and "forward" not in vars(calls.module_of[name])
            }
            inner = {part for module in tensors for part in list(module.modules())[1:]}
            self._skippable_of[layer] = {
                module: output for module, output in tensors.items() if module not in inner
            }
        return self._skippable_of[layer]

    # The choice between the two

    def _is_short_exact(self, names: Sequence[str], after: str, images: Tensor | None) -> bool:
        """Return whether a short pass gives the values of layers behind `after`."""
        key = (images is None, after, *names)
        if key not in self._exact_short:
            with torch.inference_mode(False), torch.no_grad():
                inputs = self.inputs
                if images is not None and len(images) >= len(inputs):
                    inputs = images[: len(inputs)].clone()
                x, expected = self._true_values(inputs, names, after)
                is_bottleneck = all(self.calls.is_bottleneck(after, name) for name in names)
                is_exact = is_bottleneck and self._short_pass_gives(expected, after, x)
            self._exact_short[key] = is_exact
            if is_bottleneck and not is_exact and not self._is_training:
                note_once(
                    f"{type(self.module).__name__} takes whole passes behind some layers, because skipping the modules "
                    "in front of these would change the result; this is slower"
                )
        return self._exact_short[key]

    def _true_values(
        self, inputs: Tensor, names: Sequence[str], after: str
    ) -> tuple[Tensor, Values]:
        """Return a new value of `after` for three inputs, and the later values it gives."""
        with repeatable(self.module, inputs):
            unhooked = self._values(self._outputs(inputs, [after, *names]), len(inputs))
        x = unhooked[after].roll(1, 0)  # each input gets the value of another
        x.requires_grad_(x.is_floating_point())
        try:
            with repeatable(self.module, inputs), torch.enable_grad():
                values = self._whole_pass(inputs, names, after, x)
        except RuntimeError:  # as in Calls, torch refuses gradients
            with repeatable(self.module, inputs):
                values = self._whole_pass(inputs, names, after, x)
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

    def _short_pass_gives(self, expected: Values, after: str, x: Tensor) -> bool:
        """Return whether a short pass gives the expected values."""
        try:
            self._skippable(after)  # by a pass of its own, before
            with attributes_restored(self.module):
                self._change_attributes()
                with repeatable(self.module, self.inputs):
                    values = self._short_pass([*expected], after, x)
        except torch.OutOfMemoryError:
            raise
        except Exception:  # the module may refuse values of different images
            return False
        return all(_is_close(values[name], expected[name]) for name in expected)

    def _change_attributes(self) -> None:
        """Pass inputs of another size, so that attributes which modules set differ."""
        # A module may keep the size of its map. Skipped modules set nothing: a short pass that reads
        # such an attribute then gives other values, and is not taken.
        images = self.inputs[:2]
        smaller = images[:, ::2]
        larger = images.repeat_interleave(2, 1)
        if image_size_of(images):
            smaller = functional.interpolate(images, scale_factor=0.5)
            larger = functional.interpolate(images, scale_factor=2)
        for resized in (smaller, larger, images):  # the module may refuse a size
            with contextlib.suppress(Exception), repeatable(self.module, self.inputs):
                self.module(resized)
                return


class _Stop(BaseException):
    """Ends a pass; no `except Exception` of the module catches it."""


def _is_close(value: Tensor, expected: Tensor) -> bool:
    """Return whether two values differ by no more than √eps of the largest value."""
    if value.shape != expected.shape or value.dtype != expected.dtype:
        return False
    if not value.is_floating_point():
        return torch.equal(value, expected)
    # So much may come from another order of sums
    size = expected.nan_to_num(0, 0, 0).abs().amax().item()
    tolerance = torch.finfo(value.dtype).eps ** 0.5 * size
    return torch.allclose(value, expected, rtol=0, atol=tolerance, equal_nan=True)


@torch.enable_grad()
def _has_gradient(value: Tensor, source: Tensor) -> bool:
    """Return whether a value is computed from a source, as far as gradients show."""
    if not (value.requires_grad and source.requires_grad):
        return False
    (gradient,) = torch.autograd.grad(value.sum(), source, allow_unused=True, retain_graph=True)
    return gradient is not None
