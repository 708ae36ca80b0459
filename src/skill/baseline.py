"""The baseline of skill: the within-class correlation that untrained features reach when given the
class.

It is the largest correlation of stitches whose front is the class that the end network predicts,
beside features that learned nothing and are no wider than the front: *untrained copies* of
the end network at the same layer, in any number up to the one whose channels are as many as the front
is wide, and as many *random features* of the input. The width of a front is the rank of its
covariance (`src.skill.widths`). So a baseline belongs to an end network, a layer, a width, a closed
form and the images; stitches share it.

Each number of copies and each kind of random features is drawn five times. The best draw is chosen on some of
the test images, and measured on all images that stitches are measured on.

    _draws     the untrained features over which a baseline is the maximum
    _fitted    from features and predicted class to the end network's activations, in closed form
    _products  r of these stitches on test images: of all on some images, of the best on all

Untrained features depend on images and draws alone, and not on trained weights. So end networks of one type
that have a cache in common share features and their moments (`Network.keeping`).

Stitches by a form that keeps the variance of the target are compared with a baseline by `covariance`,
and all others with one by least squares (`pinv`). The latter is higher: `covariance` adds the variance
that features do not explain.
"""

import contextlib
import math
from collections.abc import Container, Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, chain, product
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from src.core.activations import ActivationShape, positions_of
from src.core.cache import Cache
from src.core.choices.stitching import KEEP_VARIANCE
from src.core.console import progress
from src.core.grouping import grouped
from src.core.seeds import generator
from src.datasets.base import InputSet
from src.models import Network
from src.skill.running import AtPlaces, Following, one_hot_of
from src.skill.skills import Baseline
from src.skill.untrained import (
    Block,
    Draw,
    UntrainedFeatures,
    beside_class,
    splits_of,
)
from src.skill.within_class import WithinClass
from src.statistics.moments import CrossMoments, Moments, Rows
from src.stitching.closed_forms import Matching, Source, Target, solve, solver_of

N_DRAWS = 5  # of untrained weights; the largest correlation counts
FEW = 5_000  # training images: all are fitted to
N_FITTED = 300  # of more training images, at least
MOST_OF_CLASS = 10  # of them for each class, if that is more, up to `FEW`
FITTED_ROWS = 20  # a channel, of more training images: more images are taken for fewer positions
MOST_ROWS = 50  # fitted a channel: of large maps only some positions are taken
N_ROWS = 20_000  # fitted in any case, where there are so many
N_CHOOSING = 200  # test images that the best draw is chosen on, at least
CHOOSING_OF_CLASS = 2  # of them for each class, if that is more
N_STATISTICS = 200  # training images that BatchNorms, and random features, take statistics of
BATCH_SIZE = 50  # at most, of large activations: those of all draws are held at once
LARGEST_BATCH = 250  # of small ones
MOST_VALUES = 2**25  # of the activations of a larger batch than `BATCH_SIZE`
PER_INPUT = 256  # numbers of an activation and of features, at most about, for each of an input
KEPT_ROWS = 50_000  # at most, of features that are kept for further networks
ROWS_TOGETHER = 1_000  # that the end network goes on from at once
MOST_COPIES = 16  # side by side: more hardly raise a baseline, see methods.md
PINV = "pinv"
COVARIANCE = "covariance"


class BaselineKey(NamedTuple):
    """Identifies a baseline: its end layer, its sizes and its solver."""

    layer: str
    n_copies: int  # at most
    width: int  # of random features
    form: str  # by which the baseline is fitted


class _Stitch(NamedTuple):
    """A stitching layer from untrained features to the end layer, and its solver."""

    draw: Draw
    form: str


class _Sample(NamedTuple):
    """The images and positions of a layer that features are fitted to."""

    layer: str
    n_images: int
    n_positions: int

    def rows(self, activations: Tensor, n_before: int) -> Tensor:
        """Return the activations (B, P, C) of a batch at the images and positions of the sample.

        Positions take turns from image to image: maps differ at their edges.

        Args:
            n_before: images of the batches before.
        """
        first = slice(self.n_images - n_before)  # of the last batch, as many as are left
        positions = positions_of(activations)[first]
        n_images, n_positions = positions.shape[:2]
        if self.n_positions == n_positions:
            return positions
        images = torch.arange(n_images)[:, None]
        turns = (n_before + images) * self.n_positions + torch.arange(self.n_positions)
        order = torch.randperm(n_positions, generator=generator(0))
        places = order[turns % n_positions].to(positions.device)
        return positions.gather(1, places[:, :, None].expand(-1, -1, positions.shape[2]))


class _Batch(NamedTuple):
    """A batch of a pass over images."""

    images: Tensor  # (B, C, H, W)
    n_before: int  # images of the batches before
    identity: Hashable  # of the images


class _Sums:
    """The moments of a sample: of untrained features, of the predicted class and of the end network's
    activations.

    The features of a draw are one block of columns, or several that are next to each other. Moments of two
    blocks are computed only if a draw has both, and once for all draws that have both.

    Args:
        draws: of untrained features, fitted to the sample.
        widths: of the blocks of these draws, the numbers of their features.
        n_classes: of the predicted class.
    """

    def __init__(self, draws: Sequence[Draw], widths: Mapping[Block, int], *, n_classes: int):
        self.widths = widths
        self.n_classes = n_classes
        self.of_blocks: dict[Block, CrossMoments] = {}  # each with itself and those behind it
        self.kept: dict[Block, Tensor] = {}  # scatters of blocks, known from an earlier pass
        self._of_ends = CrossMoments()  # of all columns with class and end activations
        self._starts = dict(zip(widths, accumulate(widths.values(), initial=0), strict=False))
        self._n_features = sum(widths.values())
        self._stops: dict[Block, int] = {}
        for draw in draws:
            last = draw.blocks[-1]
            for block in draw.blocks:
                stop = max(self._starts[last] + widths[last], self._stops.get(block, 0))
                self._stops[block] = stop

    def partners(self, block: Block) -> list[Block]:
        """Return a block and the blocks behind it that share a draw with it."""
        span = range(self._starts[block], self._stops[block])
        return [partner for partner, start in self._starts.items() if start in span]

    def add(self, rows: Mapping[Block, Tensor], classes: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            rows: of each block, (B, P, width) or wider.
            classes: the predicted class, one-hot, (B, K).
            target: the end network's activations, (B, P, C).
        """
        features = [rows[block][..., :width] for block, width in self.widths.items()]
        mean, centred = Rows.of(torch.cat([beside_class(features, classes), target], 2))

        def columns(first: int, stop: int | None) -> Rows:
            return Rows(mean[first:stop], centred[:, first:stop])

        of_ends = columns(0, None).cross(columns(self._n_features, None))
        self._of_ends = self._of_ends.pooled(of_ends)
        for block in self.widths.keys() - self.kept.keys():
            start = self._starts[block]
            own = columns(start, start + self.widths[block])
            of_block = own.cross(columns(start, self._stops[block]))
            self.of_blocks[block] = self.of_blocks.get(block, CrossMoments()).pooled(of_block)

    def scatter(self, block: Block) -> Tensor:
        """Return the products of a block with itself and the blocks behind it, (C, C1)."""
        if block in self.kept:
            return self.kept[block]
        return self.of_blocks[block].scatter

    @property
    def target(self) -> Moments:
        """The moments of the end network's activations."""
        n_rows, _, mean, scatter = self._of_ends
        k = self.n_classes
        return Moments(n_rows, mean[k:], scatter[self._n_features + k :, k:])

    def source(self, draw: Draw, width: int) -> tuple[Moments, Tensor]:
        """Return the moments of a draw beside the class, and their cross moments (C1, C2) with the target.

        Args:
            width: the number of features of the draw.
        """
        n_rows, mean, _, scatter = self._of_ends
        k = self.n_classes
        n_of_block = width // len(draw.blocks)
        starts = [self._starts[block] for block in draw.blocks]
        places = [torch.arange(start, start + n_of_block) for start in starts]
        places.append(torch.arange(self._n_features, self._n_features + k))
        columns = torch.cat(places).to(scatter.device)
        of_ends = scatter[columns]  # (width + K, K + C2)
        square = scatter.new_empty(width + k, width + k)
        for first, block in zip(range(0, width, n_of_block), draw.blocks, strict=True):
            scatter = self.scatter(block)[:n_of_block, : width - first]
            square[first : first + n_of_block, first:width] = scatter
            square[first:width, first : first + n_of_block] = scatter.T
        square[:, width:] = of_ends[:, :k]
        square[width:, :width] = of_ends[:width, :k].T
        return Moments(n_rows, mean[columns], square), of_ends[:, k:]


def n_copies_for(width: int, end_width: int) -> int:
    """Return the number of untrained copies that have at least as many channels as the front; at most
    `MOST_COPIES`."""
    return min(MOST_COPIES, math.ceil(width / end_width))


def rounded_width(width: int) -> int:
    """Return the width rounded by up to 10 %, so that front layers of similar width share a baseline."""
    return round(2 ** (round(4 * math.log2(width)) / 4))


def form_for(form: str) -> str:
    """Return the solver of the baseline for stitches by a solver of `FORMS`; "" stands for trained stitches."""
    return COVARIANCE if form in KEEP_VARIANCE else PINV


def numbers_up_to(most: int) -> list[int]:
    """Return the numbers of untrained copies to try: the powers of two up to `most`, and `most`."""
    powers = [2**power for power in range(most.bit_length())]
    return sorted({*powers, most})


class Baselines:
    """Computes the baselines of an end network, each when it is first used.

    Args:
        end: the end network, in evaluation mode.
        train: images to fit to.
        test: images to measure on.
        images: indices of the test images that stitches are measured on, (n,), in the order of their
            passes.
        batch_size: images of a pass.
    """

    def __init__(
        self,
        end: Network,
        train: InputSet,
        test: InputSet,
        images: Tensor,
        *,
        batch_size: int,
    ):
        self.are_kept = end.cached is not None and end.cached.code is not end.module
        self.cache = Cache.of_device(test.device)
        if end.cached is None:  # all draws compare with the end network's activations
            end = end.keeping(self.cache)
        else:
            self.cache = end.cached.cache
        self.end = end
        self.train = train
        self.test = test
        # The same in all calls, so that features of a batch can be kept
        n_fitting = MOST_VALUES // (PER_INPUT * math.prod(test.image_shape))
        self.batch_size = max(min(batch_size, BATCH_SIZE), min(LARGEST_BATCH, n_fitting))
        (self.n_classes,) = end.output_shape
        self.images = images
        drawn = torch.randperm(len(images), generator=generator(0))
        n_choosing = max(N_CHOOSING, CHOOSING_OF_CLASS * self.n_classes)
        self.choosing = images[drawn[:n_choosing].sort().values]
        self.order = train.permutation(0)
        first, _ = next(iter(train.batches(N_STATISTICS, indices=self.order[:N_STATISTICS])))
        self.first = first  # of which BatchNorms and random features take statistics
        self._baselines: dict[BaselineKey, Baseline] = {}
        self._shapes: dict[str, ActivationShape] = {}

    def key(self, layer: str, width: int, form: str = PINV) -> BaselineKey:
        """Return the key of the baseline of stitches into a layer.

        Args:
            width: of the front.
            form: of the stitches, of `FORMS`; "": they were trained.
        """
        width = max(1, width)  # 0: of a constant front
        end_width = self.shape(layer).n_channels
        n_copies = n_copies_for(width, end_width)
        width = rounded_width(min(width, n_copies * end_width))
        return BaselineKey(layer, n_copies, width, form_for(form))

    def shape(self, layer: str) -> ActivationShape:
        """Return the shape of the activations of a layer: map, tokens or vector."""
        if layer not in self._shapes:
            shapes = self.end.activation_shapes([layer], self.test.image_shape)
            self._shapes[layer] = ActivationShape.of(shapes[layer], self.end.token_layout(layer))
        return self._shapes[layer]

    @torch.no_grad()
    def measured(self, keys: Iterable[BaselineKey]) -> Mapping[BaselineKey, Baseline]:
        """Return the baselines of these keys and of all earlier calls, and compute missing ones."""
        missing = sorted({key for key in keys if key not in self._baselines})
        if missing:
            self._measure(missing)
        return self._baselines

    def _measure(self, keys: Sequence[BaselineKey]) -> None:
        """Compute the baselines of keys."""
        stitches = {key: [_Stitch(draw, key.form) for draw in self._draws(key)] for key in keys}
        features = UntrainedFeatures(self.end, self.first, self._shapes)
        maps = self._fitted(features, chain.from_iterable(stitches.values()))
        of_sample = self._products(features, maps, self.choosing)
        best = {key: _best_of(of_sample, stitches[key]) for key in keys}
        chosen = {stitch: maps[stitch] for stitch in chain.from_iterable(best.values())}
        at_output = {of_key[-1] for of_key in best.values() if of_key}
        final = self._products(features, chosen, self.images, at_output=at_output)
        for key in keys:
            products = [final[stitch][place] for place, stitch in enumerate(best[key])]
            self._baselines[key] = Baseline(
                AtPlaces(*products or 2 * [self._undefined()]),
                self.n_classes,
                key.width,
                key.n_copies,
                self._rows_per_channel(key),
            )

    def _draws(self, key: BaselineKey) -> list[Draw]:
        """Return the untrained features over which a baseline is the maximum."""
        are_tokens = not self.first.is_floating_point()
        splits = splits_of(self.shape(key.layer), self.test.image_shape, are_tokens=are_tokens)
        numbers = range(N_DRAWS)
        copies = product([None], numbers_up_to(key.n_copies), numbers)
        random = product(splits, [key.width], numbers)
        return [Draw(key.layer, *of_draw) for of_draw in chain(copies, random)]

    def n_channels(self, draw: Draw) -> int:
        """Return the number of channels of features, the predicted class included."""
        n_features = draw.size
        if draw.splits is None:
            n_features *= self.shape(draw.layer).n_channels
        return n_features + self.n_classes

    def sample(self, draw: Draw) -> _Sample:
        """Return the images and positions to fit features to."""
        n_channels = self.n_channels(draw)
        n_positions = self.shape(draw.layer).n_positions
        n_images = len(self.order)
        if n_images > FEW:
            n_needed = max(
                N_FITTED,
                min(MOST_OF_CLASS * self.n_classes, FEW),
                math.ceil(FITTED_ROWS * n_channels / n_positions),
            )
            n_images = min(n_images, n_needed)
        n_rows = max(N_ROWS, MOST_ROWS * n_channels)
        return _Sample(draw.layer, n_images, min(n_positions, math.ceil(n_rows / n_images)))

    def _rows_per_channel(self, key: BaselineKey) -> float:
        """Return the number of fitting rows per channel, for the widest features of a baseline."""
        widest = max(self._draws(key), key=self.n_channels)
        n_rows = self.sample(widest).n_images * self.shape(key.layer).n_positions
        return n_rows / self.n_channels(widest)

    def _undefined(self) -> WithinClass:
        """Return within-class products of NaN."""
        nothing = np.full(len(self.images), math.nan)
        return WithinClass(nothing, nothing, nothing, np.ones(len(self.images)))

    # ---- Fit

    def _fitted(
        self, features: UntrainedFeatures, stitches: Iterable[_Stitch]
    ) -> dict[_Stitch, Matching]:
        """Fit the predicted class and untrained features to the end network's activations.

        Left out are features that are not finite.
        """
        stitches = list(dict.fromkeys(stitches))
        sums = self._sums(features, _draws_of(stitches))
        targets = {sample: Target(of_sample.target) for sample, of_sample in sums.items()}
        maps = {}
        for draw, of_draw in grouped(stitches, lambda stitch: stitch.draw).items():
            sample = self.sample(draw)
            of_source, cross = sums[sample].source(draw, features.width(draw))
            with contextlib.suppress(ValueError):  # not finite
                source = Source(of_source, sample.n_images, cutoff="exact")
                for stitch in of_draw:
                    form = solver_of(stitch.form)
                    maps[stitch] = solve(form, source, targets[sample], cross)
        return maps

    def _sums(self, features: UntrainedFeatures, draws: Sequence[Draw]) -> dict[_Sample, _Sums]:
        """Compute the moments that the fits of draws need, from a pass over training images.

        Features, and their moments, are kept for further networks of equal code: they depend on no weights
        that were trained.
        """
        sums = {}
        keys = {}
        for sample, of_sample in grouped(draws, self.sample).items():
            widths = features.widths(of_sample)
            sums[sample] = _Sums(of_sample, widths, n_classes=self.n_classes)
            for block, width in widths.items():
                partners = [features.identity(other) for other in sums[sample].partners(block)]
                keys[sample, block] = (self.train, sample, *partners)
                scatter = self._kept(keys[sample, block], width)
                if scatter is not None:
                    sums[sample].kept[block] = scatter
        order = self.order[: max(sample.n_images for sample in sums)]
        for batch in self._batches(self.train, order, "baseline: fits"):
            images, n_before, _ = batch
            needed = [sample for sample in sums if n_before < sample.n_images]
            layers = list(dict.fromkeys(sample.layer for sample in needed))
            end_acts = self.end.activations(images, [*layers, self.end.output_name], keep=True)
            classes = one_hot_of(end_acts[self.end.output_name])
            widths_of = {sample: sums[sample].widths for sample in needed}
            rows = self._rows(features, batch, widths_of)
            for sample in needed:
                target = sample.rows(end_acts[sample.layer], n_before)
                sums[sample].add(rows[sample], classes[: len(target)], target)
        for (sample, block), key in keys.items():
            self._keep(key, sums[sample].scatter(block))
        return sums

    def _rows(
        self,
        features: UntrainedFeatures,
        batch: _Batch,
        widths: Mapping[_Sample, Mapping[Block, int]],
    ) -> dict[_Sample, dict[Block, Tensor]]:
        """Return the features (B, P, C) of a batch of images at the positions of samples, by block.

        Args:
            widths: the numbers of features that are needed, or fewer than those that are returned.
        """
        rows: dict[_Sample, dict[Block, Tensor]] = {sample: {} for sample in widths}
        missing: dict[Block, int] = {}
        keys = {}
        for sample, of_sample in widths.items():
            for block, width in of_sample.items():
                identity = features.identity(block)
                keys[sample, block] = (self.train, *batch[1:], sample, identity)
                kept = self._kept(keys[sample, block], width)
                if kept is None:
                    missing[block] = max(width, missing.get(block, 0))
                else:
                    rows[sample][block] = kept
        made = features.of(batch.images, missing)
        for (sample, block), key in keys.items():
            if block not in rows[sample]:
                rows[sample][block] = sample.rows(made[block], batch.n_before).contiguous()
                if sample.n_images * sample.n_positions <= KEPT_ROWS:
                    self._keep(key, rows[sample][block])
        return rows

    def _kept(self, key: Hashable, width: int) -> Tensor | None:
        """Return features, or their products, of at least this width; None if none are kept."""
        kept = self.cache.get(key)
        if kept is None or kept.shape[-1] < width:
            return None
        return kept

    def _keep(self, key: Hashable, values: Tensor) -> None:
        """Keep features, or their products, if further networks have equal ones."""
        if self.are_kept:
            self.cache.keep(key, values, values.nbytes)

    # ---- Measurement

    def _products(
        self,
        features: UntrainedFeatures,
        maps: Mapping[_Stitch, Matching],
        indices: Tensor,
        *,
        at_output: Container[_Stitch] | None = None,
    ) -> dict[_Stitch, AtPlaces]:
        """Compute the within-class products of stitches on test images.

        Args:
            at_output: the stitches that are measured at the output as well; None: all are.
        """
        draws = _draws_of(maps)
        layers = list(dict.fromkeys(draw.layer for draw in draws))
        samples = {
            layer: _Sample(layer, len(indices), self.shape(layer).n_positions) for layer in layers
        }
        widths = {
            samples[layer]: features.widths(of_layer)
            for layer, of_layer in grouped(draws, lambda draw: draw.layer).items()
        }
        groups = grouped(
            maps, lambda stitch: (stitch.draw.layer, at_output is None or stitch in at_output)
        )
        following = Following(self.end, layers, image_shape=self.test.image_shape)
        for batch in self._batches(self.test, indices, "baseline: measures"):
            images = batch.images
            end_acts = self.end.activations(images, [*layers, self.end.output_name], keep=True)
            following.add_end(end_acts)
            end_logits = end_acts[self.end.output_name]
            classes = one_hot_of(end_logits)
            rows = self._rows(features, batch, widths)
            n_together = max(1, ROWS_TOGETHER // len(images))
            for (layer, is_at_output), stitches in groups.items():
                for first in range(0, len(stitches), n_together):
                    some = stitches[first : first + n_together]
                    of_layer = rows[samples[layer]]
                    stitched = torch.cat(
                        [self._stitched(stitch, of_layer, classes, maps[stitch]) for stitch in some]
                    )
                    logits = end_logits.expand(len(some), -1, -1)  # where they are not asked for
                    if is_at_output:
                        logits = self.end(stitched, after=layer, images=images)
                        logits = logits.unflatten(0, (len(some), -1))
                    stitched = stitched.unflatten(0, (len(some), -1))
                    following.add_stitches(some, layer, stitched, logits)
        return {stitch: following.products(stitch) for stitch in maps}

    def _stitched(
        self, stitch: _Stitch, rows: Mapping[Block, Tensor], classes: Tensor, fitted: Matching
    ) -> Tensor:
        """Return the activations of a stitch at the end layer, (B, …)."""
        blocks = stitch.draw.blocks
        width = (fitted.weight.shape[1] - self.n_classes) // len(blocks)
        source = beside_class([rows[block][..., :width] for block in blocks], classes)
        weight, bias = (values.to(source) for values in fitted[:2])
        return self.shape(stitch.draw.layer).native(F.linear(source, weight, bias))

    def _batches(self, data: InputSet, indices: Tensor, title: str) -> Iterator[_Batch]:
        """Yield batches of images at indices, with a progress bar."""
        batches = data.batches(self.batch_size, indices=indices)
        parts = indices.split(self.batch_size)
        n_before = 0
        for part, (images, _) in zip(parts, progress(batches, title, len(parts)), strict=True):
            yield _Batch(images, n_before, (data, tuple(part.tolist())))
            n_before += len(images)


def _draws_of(stitches: Iterable[_Stitch]) -> list[Draw]:
    """Return the untrained features of stitches, each once."""
    return list(dict.fromkeys(stitch.draw for stitch in stitches))


def _best_of(products: Mapping[_Stitch, AtPlaces], stitches: Sequence[_Stitch]) -> list[_Stitch]:
    """Return the stitches with the largest within-class correlation at the end layer and at the output.

    Stitches whose activations are not finite do not count. [] if no copies, or no random features, are
    finite: then nothing can be said.
    """
    best = []
    for place in range(len(AtPlaces._fields)):
        values = {
            stitch: products[stitch][place].correlation for stitch in stitches if stitch in products
        }
        finite = {stitch: value for stitch, value in values.items() if math.isfinite(value)}
        if len({stitch.draw.splits is None for stitch in finite}) < 2:
            return []
        best.append(max(finite, key=lambda stitch: finite[stitch]))
    return best
