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

Stitches by a form that keeps the variance of the target are compared with a baseline by `covariance`,
and all others with one by least squares (`pinv`). The latter is higher: `covariance` adds the variance
that features do not explain.
"""

import contextlib
import math
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from itertools import chain, product
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from src.core.activations import ActivationShape, map_positions, positions_of
from src.core.cache import Cache
from src.core.choices.stitching import KEEP_VARIANCE
from src.core.console import progress
from src.core.seeds import generator
from src.datasets.base import InputSet
from src.models import Network
from src.skill.running import AtPlaces, Following
from src.skill.skills import Baseline
from src.skill.untrained import Draw, UntrainedFeatures, beside_class, splits_of
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
PER_INPUT = 128  # numbers in a network, at most about, for each of an input
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


class _Group(NamedTuple):
    """Draws of which the narrower features are the first of the wider ones."""

    splits: tuple[int, ...] | None
    number: int
    sample: _Sample


class _Moments(NamedTuple):
    """First and second moments of features, of their targets, and cross moments of both."""

    # Of the widest features, and of the predicted class behind them
    sources: defaultdict[_Group, Moments]
    targets: defaultdict[_Sample, Moments]
    both: defaultdict[_Group, CrossMoments]

    def narrowed(self, group: _Group, n_features: int, *, n_classes: int) -> tuple[Moments, Tensor]:
        """Return the moments of the first features and of the class, and their cross moments (C1, C2) with the
        target."""
        n_rows, mean, scatter = self.sources[group]
        columns = torch.arange(len(mean), device=mean.device)
        columns = torch.cat([columns[:n_features], columns[-n_classes:]])
        source = Moments(n_rows, mean[columns], scatter[columns][:, columns])
        return source, self.both[group].scatter[columns]


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
        if end.cached is None:  # all draws compare with the end network's activations
            end = end.keeping(Cache.of_device(test.device))
        self.end = end
        self.train = train
        self.test = test
        self.batch_size = min(batch_size, BATCH_SIZE)
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
        draws = _draws_of(chain.from_iterable(stitches.values()))
        features = UntrainedFeatures(self.end, self.first, self._shapes, draws)
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
        if draw.copies:
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
        rising = sorted(_draws_of(stitches), key=lambda draw: draw.size)
        widest = {self._group(draw): draw for draw in rising}
        moments = self._moments(features, widest)
        maps = {}
        targets: dict[_Sample, Target] = {}
        for stitch in stitches:
            group = self._group(stitch.draw)
            n_features = features.n_features(stitch.draw)
            of_source, cross = moments.narrowed(group, n_features, n_classes=self.n_classes)
            with contextlib.suppress(ValueError):  # not finite
                if group.sample not in targets:
                    targets[group.sample] = Target(moments.targets[group.sample])
                source = Source(of_source, group.sample.n_images, cutoff="exact")
                form = solver_of(stitch.form)
                maps[stitch] = solve(form, source, targets[group.sample], cross)
        return maps

    def _group(self, draw: Draw) -> _Group:
        """Return the group of a draw."""
        return _Group(draw.splits, draw.number, self.sample(draw))

    def _moments(self, features: UntrainedFeatures, widest: Mapping[_Group, Draw]) -> _Moments:
        """Compute the moments of the widest features of groups and of their targets, and the cross moments of
        both."""
        order = self.order[: max(group.sample.n_images for group in widest)]
        moments = _Moments(defaultdict(Moments), defaultdict(Moments), defaultdict(CrossMoments))
        n_before = 0
        for images, _ in self._batches(self.train, order, "baseline: fits", list(widest.values())):
            needed = {
                group: draw for group, draw in widest.items() if n_before < group.sample.n_images
            }
            self._add_moments(moments, features, images, needed, n_before)
            n_before += len(images)
        return moments

    def _add_moments(
        self,
        moments: _Moments,
        features: UntrainedFeatures,
        images: Tensor,
        widest: Mapping[_Group, Draw],
        n_before: int,
    ) -> None:
        """Add a batch to the moments.

        Args:
            n_before: images of the batches before.
        """
        layers = list(dict.fromkeys(draw.layer for draw in widest.values()))
        end_acts = self.end.activations(images, [*layers, self.end.output_name], keep=True)
        logits = end_acts[self.end.output_name]
        targets = {}
        for sample in dict.fromkeys(group.sample for group in widest):
            targets[sample] = Rows.of(self._sampled(end_acts[sample.layer], sample, n_before))
            moments.targets[sample] = moments.targets[sample].pooled(targets[sample].moments())
        made = features.of(images, list(widest.values()))
        for group, draw in widest.items():
            parts = [self._sampled(part, group.sample, n_before) for part in made[draw]]
            rows = Rows.of(beside_class(parts, logits[: len(parts[0])]))
            moments.sources[group] = moments.sources[group].pooled(rows.moments())
            of_both = rows.cross(targets[group.sample])
            moments.both[group] = moments.both[group].pooled(of_both)

    def _sampled(self, activations: Tensor, sample: _Sample, n_before: int) -> Tensor:
        """Return the activations (B, P, C) of a batch at the images and positions of a sample.

        Positions take turns from image to image: maps differ at their edges.
        """
        first = slice(sample.n_images - n_before)  # of the last batch, as many as are left
        positions = positions_of(activations)[first]
        n_images, n_positions = positions.shape[:2]
        if sample.n_positions == n_positions:
            return positions
        images = torch.arange(n_images)[:, None]
        turns = (n_before + images) * sample.n_positions + torch.arange(sample.n_positions)
        order = torch.randperm(n_positions, generator=generator(0))
        places = order[turns % n_positions].to(positions.device)
        return positions.gather(1, places[:, :, None].expand(-1, -1, positions.shape[2]))

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
        following = Following(self.end, layers, image_shape=self.test.image_shape)
        for images, _ in self._batches(self.test, indices, "baseline: measures", draws):
            end_acts = self.end.activations(images, [*layers, self.end.output_name], keep=True)
            following.add_end(end_acts)
            end_logits = end_acts[self.end.output_name]
            made = features.of(images, draws)
            sources = {draw: beside_class(parts, end_logits) for draw, parts in made.items()}
            for stitch, fitted in maps.items():
                layer = stitch.draw.layer
                source = sources[stitch.draw]
                weight = fitted.weight.to(source)
                stitched = map_positions(source, weight, fitted.bias.to(source))
                logits = end_logits  # where they are not asked for
                if at_output is None or stitch in at_output:
                    logits = self.end(stitched, after=layer, images=images)
                following.add_stitch(stitch, layer, stitched, logits)
        return {stitch: following.products(stitch) for stitch in maps}

    def _batches(
        self, data: InputSet, indices: Tensor, title: str, draws: Sequence[Draw]
    ) -> Iterable[tuple[Tensor, Tensor]]:
        """Yield batches of images at indices, with a progress bar; larger ones where features are few."""
        n_values = PER_INPUT * self.first[0].numel()  # of an image
        for draw in draws:
            n_values += self.shape(draw.layer).n_positions * self.n_channels(draw)
        size = max(self.batch_size, min(LARGEST_BATCH, MOST_VALUES // n_values))
        return progress(data.batches(size, indices=indices), title, math.ceil(len(indices) / size))


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
