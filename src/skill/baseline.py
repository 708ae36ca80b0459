"""The baseline of skill: the within-class correlation that untrained features reach when given the
class.

It is the largest correlation of stitches whose front is the class that the end network predicts,
beside features that learned nothing: *untrained copies* of the end network at the same layer, in any
number up to the first whose channels are at least as many as the front is wide, and *random features* of
the input, as many as the front is wide. The width of a front is the rank of its
covariance (`src.skill.widths`). So a baseline belongs to an end network, a layer, a width, a closed
form and the images; stitches share it.

Each number of copies and each kind of random features is drawn five times; draws of several copies share
copies, so that few are computed. The best draw is chosen on some of
the test images, and measured on all images that stitches are measured on.

    _draws     the untrained features over which a baseline is the maximum (`src.skill.untrained`)
    _fitted    from features and predicted class to the end network's activations, in closed form, by their
               moments (`src.skill.fitting`)
    _products  r of these stitches on test images (`src.skill.running`): of all on some images, of the
               best on all

Stitches by a form that keeps the variance of the target are compared with a baseline by `covariance`,
and all others with one by least squares (`pinv`). The latter is higher: `covariance` adds the variance
that features do not explain.
"""

import contextlib
import math
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from itertools import chain, product
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from src.core.activations import ActivationShape
from src.core.cache import Cache
from src.core.choices.stitching import KEEP_VARIANCE
from src.core.console import progress
from src.core.grouping import grouped
from src.core.seeds import generator
from src.datasets.base import InputSet
from src.models import Network
from src.skill.fitting import Batch, DrawMoments, FeatureRows, Sample, beside_class
from src.skill.running import AtPlaces, Following, one_hot_of
from src.skill.skills import Baseline
from src.skill.untrained import Block, Draw, UntrainedFeatures, splits_of
from src.skill.within_class import WithinClass
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


class _Best(NamedTuple):
    """The stitches with the largest within-class correlation, which may differ between the places."""

    end_layer: _Stitch
    output: _Stitch


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
        self.shared: Cache | None = None  # keeps features for further networks of the same code
        if end.cached is None:  # all draws compare with the end network's activations
            end = end.keeping(Cache.of_device(test.device))
        elif end.cached.code is not None:
            self.shared = end.cached.cache
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
        self.statistics_images = first  # that BatchNorms and random features take statistics of
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
        """Compute the baselines of keys: draw features, fit them, choose the best stitches on some test images,
        and measure these on all."""
        features = UntrainedFeatures(self.end, self.statistics_images, self._shapes)
        rows = FeatureRows(features, self.train, self.shared)
        stitches = {key: [_Stitch(draw, key.form) for draw in self._draws(key)] for key in keys}
        maps = self._fitted(rows, chain.from_iterable(stitches.values()))
        on_some = self._products(rows, maps, self.choosing)
        best = {key: _best_of(on_some, stitches[key]) for key in keys}
        chosen = {
            stitch: maps[stitch] for stitch in chain.from_iterable(filter(None, best.values()))
        }
        at_output = {of_key.output for of_key in best.values() if of_key}
        on_all = self._products(rows, chosen, self.images, at_output=at_output)
        for key, of_key in best.items():
            products = AtPlaces(*2 * [self._undefined()])
            if of_key:
                products = AtPlaces(
                    on_all[of_key.end_layer].end_layer, on_all[of_key.output].output
                )
            self._baselines[key] = Baseline(
                products, self.n_classes, key.width, key.n_copies, self._rows_per_channel(key)
            )

    def _draws(self, key: BaselineKey) -> list[Draw]:
        """Return the untrained features over which a baseline is the maximum."""
        are_tokens = not self.statistics_images.is_floating_point()
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

    def sample(self, draw: Draw) -> Sample:
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
        return Sample(draw.layer, n_images, min(n_positions, math.ceil(n_rows / n_images)))

    def _rows_per_channel(self, key: BaselineKey) -> float:
        """Return the number of fitting rows per channel, for the widest features of a baseline."""
        widest = max(self._draws(key), key=self.n_channels)
        sample = self.sample(widest)
        return sample.n_images * sample.n_positions / self.n_channels(widest)

    def _undefined(self) -> WithinClass:
        """Return within-class products of NaN."""
        nothing = np.full(len(self.images), math.nan)
        return WithinClass(nothing, nothing, nothing, np.ones(len(self.images)))

    # ---- Fit

    def _fitted(self, rows: FeatureRows, stitches: Iterable[_Stitch]) -> dict[_Stitch, Matching]:
        """Fit untrained features and the predicted class to the end network's activations.

        Left out are features that are not finite.
        """
        stitches = list(dict.fromkeys(stitches))
        moments = {
            sample: DrawMoments(draws, sample, rows, n_classes=self.n_classes)
            for sample, draws in grouped(_draws_of(stitches), self.sample).items()
        }
        order = self.order[: max(sample.n_images for sample in moments)]
        for batch in self._batches(self.train, order, "baseline: fits"):
            needed = [sample for sample in moments if batch.n_before < sample.n_images]
            layers = list(dict.fromkeys(sample.layer for sample in needed))
            end_acts = self._end_activations(batch, layers)
            classes = one_hot_of(end_acts[self.end.output_name])
            features = rows.of(batch, {sample: moments[sample].widths for sample in needed})
            for sample in needed:
                target = sample.rows(end_acts[sample.layer], batch.n_before)
                moments[sample].add(features[sample], classes[: len(target)], target)
        for of_sample in moments.values():
            of_sample.keep()

        targets = {sample: Target(of_sample.target) for sample, of_sample in moments.items()}
        maps = {}
        for draw, of_draw in grouped(stitches, lambda stitch: stitch.draw).items():
            sample = self.sample(draw)
            of_source, cross = moments[sample].source(draw)
            with contextlib.suppress(ValueError):  # not finite
                source = Source(of_source, sample.n_images, cutoff="exact")
                for stitch in of_draw:
                    form = solver_of(stitch.form)
                    maps[stitch] = solve(form, source, targets[sample], cross)
        return maps

    # ---- Measurement

    def _products(
        self,
        rows: FeatureRows,
        maps: Mapping[_Stitch, Matching],
        indices: Tensor,
        *,
        at_output: Container[_Stitch] | None = None,
    ) -> dict[_Stitch, AtPlaces]:
        """Compute the within-class products of stitches on test images.

        Args:
            at_output: the stitches that are measured at the output as well; None: all are.
        """
        draws_into = grouped(_draws_of(maps), lambda draw: draw.layer)
        samples = {
            layer: Sample(layer, len(indices), self.shape(layer).n_positions)
            for layer in draws_into
        }
        widths = {
            samples[layer]: rows.features.widths(draws) for layer, draws in draws_into.items()
        }
        groups = grouped(
            maps, lambda stitch: (stitch.draw.layer, at_output is None or stitch in at_output)
        )
        following = Following(self.end, list(samples), image_shape=self.test.image_shape)
        for batch in self._batches(self.test, indices, "baseline: measures"):
            end_acts = self._end_activations(batch, samples)
            following.add_end(end_acts)
            end_logits = end_acts[self.end.output_name]
            classes = one_hot_of(end_logits)
            features = rows.of(batch, widths)
            n_together = max(1, ROWS_TOGETHER // len(batch.images))
            for (layer, is_at_output), stitches in groups.items():
                for first in range(0, len(stitches), n_together):
                    some = stitches[first : first + n_together]
                    stitched = torch.cat(
                        [
                            self._stitched(stitch, features[samples[layer]], classes, maps[stitch])
                            for stitch in some
                        ]
                    )
                    logits = end_logits.expand(len(some), -1, -1)  # where they are not asked for
                    if is_at_output:
                        logits = self.end(stitched, after=layer, images=batch.images)
                        logits = logits.unflatten(0, (len(some), -1))
                    stitched = stitched.unflatten(0, (len(some), -1))
                    following.add_stitches(some, layer, stitched, logits)
        return {stitch: following.products(stitch) for stitch in maps}

    def _stitched(
        self, stitch: _Stitch, features: Mapping[Block, Tensor], classes: Tensor, fitted: Matching
    ) -> Tensor:
        """Return the activations of a stitch at the end layer, (B, …)."""
        blocks = stitch.draw.blocks
        width = (fitted.weight.shape[1] - self.n_classes) // len(blocks)
        source = beside_class([features[block][..., :width] for block in blocks], classes)
        weight, bias = (values.to(source) for values in fitted[:2])
        return self.shape(stitch.draw.layer).native(F.linear(source, weight, bias))

    def _end_activations(self, batch: Batch, layers: Iterable[str]) -> dict[str, Tensor]:
        """Return the end network's activations at layers and at the output."""
        return self.end.activations(batch.images, [*layers, self.end.output_name], keep=True)

    def _batches(self, data: InputSet, indices: Tensor, title: str) -> Iterator[Batch]:
        """Yield batches of images at indices, with a progress bar."""
        batches = data.batches(self.batch_size, indices=indices)
        parts = indices.split(self.batch_size)
        n_before = 0
        for part, (images, _) in zip(parts, progress(batches, title, len(parts)), strict=True):
            yield Batch(images, n_before, (data, tuple(part.tolist())))
            n_before += len(images)


def _draws_of(stitches: Iterable[_Stitch]) -> list[Draw]:
    """Return the untrained features of stitches, each once."""
    return list(dict.fromkeys(stitch.draw for stitch in stitches))


def _best_of(products: Mapping[_Stitch, AtPlaces], stitches: Sequence[_Stitch]) -> _Best | None:
    """Return the stitches with the largest within-class correlation at the end layer and at the output.

    Stitches whose activations are not finite do not count. None if no copies, or no random features, are
    finite: then nothing can be said.
    """
    best = []
    for place in AtPlaces._fields:
        values = {
            stitch: getattr(products[stitch], place).correlation
            for stitch in stitches
            if stitch in products
        }
        finite = {stitch: value for stitch, value in values.items() if math.isfinite(value)}
        if len({stitch.draw.splits is None for stitch in finite}) < 2:
            return None
        best.append(max(finite, key=lambda stitch: finite[stitch]))
    return _Best(*best)
