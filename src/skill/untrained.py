"""Untrained features of an input: untrained copies of a network, and random filters.

* *Untrained copies* of a network: the same modules, randomly initialised.
* *Random features* of the input: convolutions of images with random filters, random linear maps of
  vectors, random embeddings of tokens that random maps mix over neighbours; each with a ReLU.
"""

import contextlib
import copy
import inspect
import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.core.activations import ActivationShape
from src.core.grouping import grouped
from src.core.kinds import SEQUENCE
from src.core.seeds import generator
from src.core.tensors import content_of_state
from src.models import Network
from src.models.calls import OUTPUT

# Networks are initialised by small seeds, and an untrained copy must be no such network
FIRST_SEED = 2**31
N_COMPARED = 10  # inputs whose outputs tell copies of equal weights apart
KERNEL = 5  # positions along an axis that a filter sees
N_CELLS = 4  # along an axis, at least, to which random features are averaged
BIAS = 0.3  # standard deviation, beside inputs of standard deviation 1
N_EMBEDDING = 64  # numbers of a token
FILTERS_TOGETHER = 16  # that are drawn together: the first of many are those of few
IN_CELL = 4  # places of a filter along an axis of a cell, at least
IN_IMAGE = 16  # and along an axis of an image
MOST_VALUES = 2**25  # float32 numbers of features before they are averaged


# ---- Untrained copies


class UntrainedCopy:
    """A randomly initialised copy of a network; its BatchNorms take the statistics of images.

    A module with a method `reset_parameters` without arguments resets itself. Parameters that none
    resets are drawn from a normal distribution with their own mean and standard deviation. It is done
    on the CPU: copies do not depend on the device.

    Args:
        inputs: that BatchNorms take statistics of.
    """

    @torch.no_grad()
    def __init__(self, network: Network, inputs: Tensor, *, seed: int):
        untrained = copy.deepcopy(network).to("cpu")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            before = [parameter.clone() for parameter in untrained.parameters()]
            for module in untrained.modules():
                reset = getattr(module, "reset_parameters", None)
                if reset is not None and _takes_no_arguments(reset):
                    reset()
            for parameter, old in zip(untrained.parameters(), before, strict=True):
                if parameter.is_floating_point() and torch.equal(parameter, old):
                    noise = torch.randn(parameter.shape).to(parameter)
                    parameter.copy_(parameter.mean() + noise * parameter.std(correction=0))
        for norm in _batch_norms(untrained.module):
            norm.reset_running_stats()
        code: Hashable = None
        if network.cached is not None:
            code = network.cached.code
        self.network = untrained.to(network.example.device)
        # Attributes, and buffers beside the state dict, show in the output
        state = untrained.module.state_dict() | {"": untrained(inputs[:N_COMPARED])}
        # Equal for copies with equal activations, also of further networks of one code
        self.identity = code, content_of_state(state)
        self._inputs = inputs
        self._until: str | None = None  # the last layer with statistics in front of it

    def activations(self, inputs: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Return the activations of layers."""
        last = max(layers, key=self.network.depth)
        if self._until is None or self.network.depth(last) > self.network.depth(self._until):
            self._until = last
            set_statistics(self.network.module, self._inputs, until=last)
        return self.network.activations(inputs, layers)


def _takes_no_arguments(function: Callable) -> bool:
    """Return whether a function can be called without arguments."""
    try:
        inspect.signature(function).bind()
    except TypeError:
        return False
    return True


def set_statistics(module: nn.Module, images: Tensor, *, until: str | None) -> None:
    """Set the statistics of the BatchNorms before a layer from a batch of images, and switch to evaluation
    mode."""
    norms = _batch_norms(module)
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    if norms:
        last = module if until in (None, OUTPUT) else module.get_submodule(str(until))
        handle = last.register_forward_hook(_stop)
        with contextlib.suppress(_LayerReached):
            module(images)
        handle.remove()
    module.eval()


def _batch_norms(module: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Return the BatchNorms of a module."""
    return [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]


class _LayerReached(Exception):
    """Raised to stop a forward pass at a layer."""


def _stop(*call: object) -> None:
    raise _LayerReached


# ---- Random features of the input


class Averages(NamedTuple):
    """How the responses of random filters are averaged for a layer."""

    shape: ActivationShape  # of the layer's activation
    splits: tuple[int, ...]  # of a position along each axis of the input, see `splits_of`

    @property
    def n_cells(self) -> int:
        """The number of cells of a position: each filter gives one feature for each cell."""
        return math.prod(self.splits)

    def n_filters(self, width: int) -> int:
        """Return the number of filters that give this many features at a position, at least one."""
        return max(1, width // self.n_cells)

    def n_features(self, width: int) -> int:
        """Return the number of features at a position, a multiple of the number of cells."""
        return self.n_filters(width) * self.n_cells

    def narrowed(self, features: Tensor, width: int) -> Tensor:
        """Return the first features of wider ones."""
        return features.narrow(self.shape.channel_axis, 0, self.n_features(width))

    def stride(self, sizes: Sequence[int]) -> int:
        """Return the stride of the filters over inputs of these sizes.

        It is larger for larger cells: neighbouring responses are correlated, and few give the mean.
        """
        grid = _positions_along(self.shape, len(sizes))
        if len(grid) < 2:
            return 1
        strides = [
            min(size // (n * split * IN_CELL), size // IN_IMAGE)
            for size, n, split in zip(sizes, grid, self.splits, strict=True)
        ]
        return max(1, min(strides))


class RandomFeatures:
    """Random convolutional features of inputs, which are normalised by the statistics of sample inputs.

    Args:
        inputs: images (B, C, H, W), vectors (B, D), sequences of vectors (B, T, D), or tokens (B, T),
            which are integers. They give the mean and the standard deviation.
        seed: of the draw.
    """

    def __init__(self, inputs: Tensor, *, seed: int):
        self.seed = seed
        self.are_tokens = not inputs.is_floating_point()
        self._filters: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}  # by their places
        if self.are_tokens:
            n_tokens = 1 + int(inputs.max())
            self._embeddings = torch.randn(
                n_tokens, N_EMBEDDING, generator=generator(seed, n_tokens)
            ).to(inputs.device)
        else:
            values = inputs.float()
            self._mean = values.mean()
            self._std = values.std().clamp(min=torch.finfo(values.dtype).tiny)

    def of(self, inputs: Tensor, widths: Mapping[Averages, int]) -> dict[Averages, Tensor]:
        """Return features in the shape of the activations that they replace; narrower features are the first of
        wider ones.

        Args:
            widths: numbers of features at a position.
        Returns:
            (B, width, H, W), (B, T, width) or (B, width).
        """
        channels = self._normalised(inputs)  # (B, C, *sizes)
        if channels.ndim == 4:
            # Few channels are convolved and averaged in up to a seventh of the time
            channels = channels.contiguous(memory_format=torch.channels_last)
        sizes = channels.shape[2:]
        n_cells = len(channels) * math.prod(sizes)
        n_together = FILTERS_TOGETHER * max(1, MOST_VALUES // (FILTERS_TOGETHER * n_cells))
        features: dict[Averages, Tensor] = {}
        for stride, averages in grouped(widths, lambda item: item.stride(sizes)).items():
            n_filters = {item: item.n_filters(widths[item]) for item in averages}
            parts: dict[Averages, list[Tensor]] = defaultdict(list)
            for first in range(0, max(n_filters.values()), n_together):
                last = min(first + n_together, max(n_filters.values()))
                responses = _convolved(channels, *self._filters_of(first, last, channels), stride)
                responses.relu_()
                for item, n in n_filters.items():
                    if first < n:
                        parts[item].append(_averaged(responses[:, : n - first], item))
            features |= {item: torch.cat(parts[item], item.shape.channel_axis) for item in averages}
        return features

    def _normalised(self, inputs: Tensor) -> Tensor:
        """Return inputs as (B, C, *sizes)."""
        if self.are_tokens:
            tokens = inputs.flatten(1).long() % len(self._embeddings)
            return self._embeddings[tokens].mT
        values = (inputs.float() - self._mean) / self._std
        if values.ndim == 3:  # a sequence of vectors
            return values.mT
        if values.ndim > 4:
            return values.flatten(1)
        return values

    def _filters_of(self, first: int, last: int, channels: Tensor) -> tuple[Tensor, Tensor]:
        """Return random filters at the scale of He et al. (2015), and biases, from filter `first` to `last`.

        They are drawn some together, so that the filter at a place is the same in any number.
        """
        if (first, last) not in self._filters:
            n_axes = channels.ndim - 2
            shape = (channels.shape[1], *[KERNEL] * n_axes)
            scale = math.sqrt(2 / math.prod(shape))
            filters = []
            biases = []
            for part in range(first // FILTERS_TOGETHER, math.ceil(last / FILTERS_TOGETHER)):
                draws = generator(self.seed, part)
                filters.append(scale * torch.randn(FILTERS_TOGETHER, *shape, generator=draws))
                biases.append(BIAS * torch.randn(FILTERS_TOGETHER, generator=draws))
            drawn = [torch.cat(parts)[: last - first] for parts in (filters, biases)]
            self._filters[first, last] = drawn[0].to(channels), drawn[1].to(channels)
        return self._filters[first, last]


def _convolved(channels: Tensor, filters: Tensor, biases: Tensor, stride: int) -> Tensor:
    """Convolve (B, C, H, W) or (B, C, T), or map vectors (B, C) linearly."""
    if channels.ndim == 2:
        return F.linear(channels, filters, biases)
    if channels.ndim == 3:
        return F.conv1d(channels, filters, biases, padding=KERNEL // 2)
    return F.conv2d(channels, filters, biases, stride=stride, padding=KERNEL // 2)


def splits_of(
    shape: ActivationShape, input_shape: Sequence[int], *, are_tokens: bool
) -> list[tuple[int, ...]]:
    """Return how random features are averaged for a layer: over its positions, and, with fewer than `N_CELLS`
    positions along an axis, over a finer grid whose cells become channels.

    So a vector has the mean over an image, and the means over 4×4 cells.

    Args:
        input_shape: (C, H, W), (T, D) or (D,) of an input, or (T,) of tokens.
    """
    if are_tokens:
        sizes: Sequence[int] = (math.prod(input_shape),)
    elif len(input_shape) == 2:  # a sequence of vectors
        sizes = input_shape[:1]
    elif len(input_shape) == 3:
        sizes = input_shape[1:]
    else:
        sizes = ()
    grid = _positions_along(shape, len(sizes))
    if len(grid) < len(sizes):
        sizes = (math.prod(sizes),)
    several = [max(1, min(N_CELLS, size) // n) for n, size in zip(grid, sizes, strict=True)]
    return list(dict.fromkeys([(1,) * len(grid), tuple(several)]))


def _positions_along(shape: ActivationShape, n_axes: int) -> tuple[int, ...]:
    """Return the number of positions of a layer along each axis of the input; () without such axes."""
    if n_axes == 0:
        return ()
    if n_axes == 2 and shape.kind != SEQUENCE:
        return shape.map_size
    return (shape.n_patches,)


def _averaged(features: Tensor, averages: Averages) -> Tensor:
    """Average features (B, n, *sizes) over the positions of a layer, or over the cells of positions.

    Prefix tokens get the mean over all positions, and vectors are given to all positions.
    """
    shape, splits = averages
    grid = _positions_along(shape, features.ndim - 2)
    if not grid:
        return shape.everywhere(features)
    if len(grid) == 2:
        cells = grid[0] * splits[0], grid[1] * splits[1]
        pooled = features
        if features.shape[2:] != cells:
            pooled = F.adaptive_avg_pool2d(features, cells)
        if shape.is_map and averages.n_cells == 1:
            return pooled
        pooled = pooled.unflatten(3, (grid[1], splits[1])).unflatten(2, (grid[0], splits[0]))
        pooled = pooled.permute(0, 1, 3, 5, 2, 4).flatten(4).flatten(1, 3)  # (B, n·cells, P)
    else:
        pooled = F.adaptive_avg_pool1d(features.flatten(2), grid[0] * splits[0])
        pooled = pooled.unflatten(2, (grid[0], splits[0])).transpose(2, 3).flatten(1, 2)
    n_prefix = shape.n_positions - math.prod(grid)
    mean = pooled.mean(2, keepdim=True).expand(-1, -1, n_prefix)
    return shape.native(torch.cat([mean, pooled], 2).mT)


# ---- Both


class Block(NamedTuple):
    """Untrained features for a layer: of one untrained copy, or one draw of random features."""

    layer: str
    # Of random features, see `splits_of`; None: of an untrained copy
    splits: tuple[int, ...] | None
    number: int  # of the copy, or of the draw


class Draw(NamedTuple):
    """One random draw of untrained features for a layer."""

    layer: str
    splits: tuple[int, ...] | None  # as of a block
    size: int  # the number of copies, or the width of random features
    number: int

    @property
    def blocks(self) -> list[Block]:
        """The blocks that are concatenated; draws share copies."""
        numbers = range(self.number, self.number + 1)
        if self.splits is None:
            numbers = range(self.number, self.number + self.size)
        return [Block(self.layer, self.splits, number) for number in numbers]


class UntrainedFeatures:
    """Computes untrained features of inputs for layers of a network.

    Args:
        network: in evaluation mode.
        inputs: that BatchNorms, and random features, take statistics of.
        shapes: of the activations of the layers.
    """

    def __init__(self, network: Network, inputs: Tensor, shapes: Mapping[str, ActivationShape]):
        self.network = network
        self.inputs = inputs
        self.shapes = shapes
        self._copies: dict[int, UntrainedCopy] = {}
        self._random: dict[int, RandomFeatures] = {}

    def width(self, draw: Draw) -> int:
        """Return the number of features of a draw at a position, of all blocks together."""
        shape = self.shapes[draw.layer]
        if draw.splits is None:
            return draw.size * shape.n_channels
        return Averages(shape, draw.splits).n_features(draw.size)

    def widths(self, draws: Iterable[Draw]) -> dict[Block, int]:
        """Return the blocks of draws, copies first and by number, and the features that are needed of each."""
        widths: dict[Block, int] = {}
        for draw in draws:
            width = self.width(draw) // len(draw.blocks)
            for block in draw.blocks:
                widths[block] = max(width, widths.get(block, 0))
        copies_first = sorted(widths, key=lambda block: (block.splits is not None, block.number))
        return {block: widths[block] for block in copies_first}

    def copy(self, number: int) -> UntrainedCopy:
        """Return an untrained copy, made when it is first asked for."""
        if number not in self._copies:
            self._copies[number] = UntrainedCopy(
                self.network, self.inputs, seed=FIRST_SEED + number
            )
        return self._copies[number]

    def identity(self, block: Block) -> Hashable:
        """Return a value that is equal for equal features of the same inputs, also of further networks."""
        shape = self.shapes[block.layer]
        if block.splits is None:
            return self.copy(block.number).identity, block.layer, shape
        example = self.network.example
        return shape._replace(n_channels=0), block.splits, block.number, example.dtype

    def of(self, inputs: Tensor, widths: Mapping[Block, int]) -> dict[Block, Tensor]:
        """Return the features of blocks, each (B, C, H, W), (B, T, D) or (B, D).

        Args:
            widths: the numbers of features at a position; narrower random features are the first of wider
                ones.
        """
        features: dict[Block, Tensor] = {}
        copied = [block for block in widths if block.splits is None]
        for number, blocks in grouped(copied, lambda block: block.number).items():
            layers = [block.layer for block in blocks]
            activations = self.copy(number).activations(inputs, layers)
            features |= {block: activations[block.layer] for block in blocks}
        random = [block for block in widths if block.splits is not None]
        for number, blocks in grouped(random, lambda block: block.number).items():
            if number not in self._random:
                self._random[number] = RandomFeatures(self.inputs, seed=number)
            averages = {
                block: Averages(self.shapes[block.layer], block.splits or ()) for block in blocks
            }
            widest: dict[Averages, int] = {}
            for block, item in averages.items():
                widest[item] = max(widths[block], widest.get(item, 0))
            made = self._random[number].of(inputs, widest)
            for block, item in averages.items():
                values = item.narrowed(made[item], widths[block])
                features[block] = values.to(self.network.example)
        return features
