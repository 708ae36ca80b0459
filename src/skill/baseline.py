"""The baseline of skill: the within-class correlation that untrained features reach when given the
class.

It is the largest correlation of stitches whose front is the class that the end network predicts,
beside features that learned nothing and are no wider than the front: *untrained copies* of
the end network at the same layer, in any number up to the one whose channels are as many as the front
is wide, and as many *random features* of the input. The width of a front is the rank of its
covariance (`src.skill.widths`). So a baseline belongs to an end network, a layer, a width, a closed
form and the images; stitches share it.

Each number of copies and each kind of random features is drawn five times. The best draw is chosen
on some of the test images, and measured on up to a thousand that stitches are measured on.

Stitches by a form that keeps the variance of the target are compared with a baseline by `covariance`,
and all others with one by least squares (`pinv`). The latter is higher: `covariance` adds the variance
that features do not explain.
"""

import contextlib
import math
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from src.choices.stitching import KEEP_VARIANCE
from src.core.activations import Form, map_positions, positions_of
from src.core.cache import Cache
from src.core.console import progress
from src.core.seeds import generator
from src.datasets.base import BaseImageSet
from src.models import Network
from src.skill.running import AtPlaces, Following
from src.skill.skills import Baseline
from src.skill.untrained import (
    FIRST_SEED,
    RandomFeatures,
    Wanted,
    beside_class,
    splits_of,
    untrained_copy,
)
from src.skill.within_class import WithinClass
from src.statistics.moments import CrossMoments, Moments, Rows
from src.stitching.closed_forms import Matching, Source, Target, solver_of

N_DRAWS = 5  # of untrained weights; the largest correlation counts
FEW = 5_000  # training images: all are fitted to
N_FITTED = 300  # of more training images, at least
MOST_OF_CLASS = 10  # of them for each class, if that is more, up to `FEW`
FITTED_ROWS = 20  # a channel, of more training images: more images are taken for fewer positions
MOST_ROWS = 50  # fitted a channel: of large maps only some positions are taken
N_ROWS = 20_000  # fitted in any case, where there are so many
N_CHOOSING = 200  # test images that the best draw is chosen on, at least
CHOOSING_OF_CLASS = 2  # of them for each class, if that is more
N_MEASURED = 1_000  # test images that it is measured on, at most
MEASURED_OF_CLASS = 5  # of them for each class, if that is more
N_STATISTICS = 200  # training images that BatchNorms, and random features, take statistics of
BATCH_SIZE = 50  # at most, of large activations: those of all draws are held at once
LARGEST_BATCH = 250  # of small ones
MOST_VALUES = 2**25  # of the activations of a larger batch than `BATCH_SIZE`
PER_INPUT = 128  # numbers in a network, at most about, for each of an input
ROWS_TOGETHER = 250  # of stitched activations in one pass
MOST_COPIES = 16  # side by side: more hardly raise a baseline, see methods.md
COPIES = "copies"
PINV = "pinv"
COVARIANCE = "covariance"


class BaselineKey(NamedTuple):
    """Identifies a baseline: its end layer, its sizes and its solver."""

    layer: str
    n_copies: int  # at most
    width: int  # of random features
    form: str  # by which the baseline is fitted


class _Kind(NamedTuple):
    """Untrained features of one layer, kind and size, which are drawn several times."""

    layer: str
    kind: str | tuple[int, ...]  # COPIES, or the splits of random features; see `splits_of`
    size: int  # the number of copies, or the width of random features


class _Draw(NamedTuple):
    """One random draw of untrained features."""

    of: _Kind
    number: int

    @property
    def copies(self) -> range:
        """The indices of the untrained copies that are concatenated; draws share copies."""
        return range(self.number, self.number + self.of.size)


class _Stitch(NamedTuple):
    """A stitching layer from untrained features to the end layer, and its solver."""

    draw: _Draw
    form: str


class _Sample(NamedTuple):
    """The number of images used for fitting, and of positions of each."""

    n_images: int
    n_positions: int


class _Target(NamedTuple):
    """The activations of the end network that untrained features are fitted to."""

    layer: str
    n_images: int
    n_positions: int


class _Group(NamedTuple):
    """Draws that share a kind, a draw number and a fitting sample; the narrower features are the first of the
    wider ones."""

    kind: str | tuple[int, ...]
    number: int
    target: _Target


class _Moments(NamedTuple):
    """First and second moments of features, of their targets, and cross moments of both."""

    sources: defaultdict[_Group, Moments]
    targets: defaultdict[_Target, Moments]
    both: defaultdict[_Group, CrossMoments]


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
        train: BaseImageSet,
        test: BaseImageSet,
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
        drawn = torch.randperm(len(images), generator=generator(0))
        n_choosing = max(N_CHOOSING, CHOOSING_OF_CLASS * self.n_classes)
        self.choosing = images[drawn[:n_choosing].sort().values]
        n_measured = max(N_MEASURED, MEASURED_OF_CLASS * self.n_classes)
        self.places = drawn[:n_measured].sort().values
        self.images = images[self.places]
        self.order = train.permutation(0)
        first, _ = next(iter(train.batches(N_STATISTICS, indices=self.order[:N_STATISTICS])))
        self.first = first  # of which BatchNorms and random features take statistics
        self.are_tokens = not first.is_floating_point()
        self._baselines: dict[BaselineKey, Baseline] = {}
        self._forms: dict[str, Form] = {}
        self._positions: dict[str, Tensor] = {}

    def key(self, layer: str, width: int, form: str = PINV) -> BaselineKey:
        """Return the key of the baseline of stitches into a layer.

        Args:
            width: of the front.
            form: of the stitches, of `FORMS`; "": they were trained.
        """
        width = max(1, width)  # 0: of a constant front
        end_width = self.form(layer).n_channels
        n_copies = n_copies_for(width, end_width)
        width = rounded_width(min(width, n_copies * end_width))
        return BaselineKey(layer, n_copies, width, form_for(form))

    @torch.no_grad()
    def measured(self, keys: Iterable[BaselineKey]) -> Mapping[BaselineKey, Baseline]:
        """Return the baselines of these keys and of all earlier calls, and compute missing ones."""
        missing = sorted({key for key in keys if key not in self._baselines})
        if missing:
            self._measure(missing)
        return self._baselines

    def _measure(self, keys: Sequence[BaselineKey]) -> None:
        """Compute the baselines of keys."""
        kinds = {key: self._kinds(key) for key in keys}
        drawn = dict.fromkeys(kind for of_key in kinds.values() for kind in of_key)
        draws = [_Draw(kind, number) for kind in drawn for number in range(N_DRAWS)]
        stitches = {
            _Stitch(draw, key.form): None
            for key, of_key in kinds.items()
            for draw in draws
            if draw.of in of_key
        }
        features = _Features(self, draws)
        maps = features.fitted(stitches)
        first = features.products(maps, self.choosing)
        best = {key: _best_of(first, of_key, key.form) for key, of_key in kinds.items()}
        chosen = list(dict.fromkeys(stitch for of_key in best.values() for stitch in of_key))
        at_output = {of_key[-1] for of_key in best.values() if of_key}
        final = features.products(
            {stitch: maps[stitch] for stitch in chosen}, self.images, at_output=at_output
        )
        for key in keys:
            products = AtPlaces(*[self._undefined()] * 2)
            if best[key]:
                products = AtPlaces(
                    *(final[stitch][place] for place, stitch in enumerate(best[key]))
                )
            self._baselines[key] = Baseline(
                products,
                self.places.numpy(),
                self.n_classes,
                key.width,
                key.n_copies,
                self._rows_per_channel(key),
            )

    def _kinds(self, key: BaselineKey) -> list[_Kind]:
        """Return the kinds of untrained features over which a baseline is the maximum."""
        kinds = [_Kind(key.layer, COPIES, number) for number in numbers_up_to(key.n_copies)]
        form = self.form(key.layer)
        splits = splits_of(form, self.test.image_shape, are_tokens=self.are_tokens)
        return [*kinds, *(_Kind(key.layer, of_kind, key.width) for of_kind in splits)]

    def form(self, layer: str) -> Form:
        """Return the form of the activations of a layer: map, tokens or vector."""
        if layer not in self._forms:
            shapes = self.end.activation_shapes([layer], self.test.image_shape)
            self._forms[layer] = Form.of(shapes[layer], self.end.token_layout(layer))
        return self._forms[layer]

    def sample(self, layer: str, n_channels: int) -> _Sample:
        """Return the numbers of images and positions to fit features of this many channels."""
        n_positions = self.form(layer).n_positions
        n_images = len(self.order)
        if n_images > FEW:
            n_needed = max(
                N_FITTED,
                min(MOST_OF_CLASS * self.n_classes, FEW),
                math.ceil(FITTED_ROWS * n_channels / n_positions),
            )
            n_images = min(n_images, n_needed)
        n_rows = max(N_ROWS, MOST_ROWS * n_channels)
        return _Sample(n_images, min(n_positions, math.ceil(n_rows / n_images)))

    def positions(self, layer: str) -> Tensor:
        """Return the positions of a layer in a random order."""
        if layer not in self._positions:
            order = torch.randperm(self.form(layer).n_positions, generator=generator(0))
            self._positions[layer] = order.to(self.test.device)
        return self._positions[layer]

    def n_channels(self, kind: _Kind) -> int:
        """Return the number of channels of a kind of features, without those of the predicted class."""
        if kind.kind == COPIES:
            return kind.size * self.form(kind.layer).n_channels
        return kind.size

    def n_features(self, kind: _Kind) -> int:
        """Return the number of features of a kind, a multiple of the number of cells of a filter."""
        if kind.kind == COPIES:
            return self.n_channels(kind)
        return self.wanted(kind).n_features

    def wanted(self, kind: _Kind) -> Wanted:
        """Return the specification of the random features of a kind."""
        assert not isinstance(kind.kind, str)
        return Wanted(self.form(kind.layer), kind.kind, kind.size)

    def _rows_per_channel(self, key: BaselineKey) -> float:
        """Return the number of fitting rows per channel, for the widest features of a baseline."""
        n_channels = self.n_classes + max(self.n_channels(kind) for kind in self._kinds(key))
        n_images = self.sample(key.layer, n_channels).n_images
        return n_images * self.form(key.layer).n_positions / n_channels

    def _undefined(self) -> WithinClass:
        """Return within-class products of NaN."""
        nothing = np.full(len(self.images), math.nan)
        return WithinClass(nothing, nothing, nothing, np.ones(len(self.images)))


def _best_of(
    products: Mapping[_Stitch, AtPlaces], kinds: Sequence[_Kind], form: str
) -> list[_Stitch]:
    """Return the stitches with the largest within-class correlation at the end layer and at the output.

    Stitches whose activations are not finite do not count. [] if no copies, or no random features, are
    finite: then nothing can be said.
    """
    best = []
    for place in range(len(AtPlaces._fields)):
        values = {
            stitch: products_of_stitch[place].correlation
            for stitch, products_of_stitch in products.items()
            if stitch.draw.of in kinds and stitch.form == form
        }
        finite = {stitch: value for stitch, value in values.items() if math.isfinite(value)}
        if len({stitch.draw.of.kind == COPIES for stitch in finite}) < 2:
            return []
        best.append(max(finite, key=lambda stitch: finite[stitch]))
    return best


class _Features:
    """Computes untrained features of an end network's layers, and fits and evaluates stitches from them."""

    def __init__(self, baselines: Baselines, draws: Sequence[_Draw]):
        self.baselines = baselines
        self.end = baselines.end
        self.draws = draws
        images = baselines.first
        of_copies = [draw for draw in draws if draw.of.kind == COPIES]
        self.copies = []
        for number in range(1 + max(draw.copies[-1] for draw in of_copies)):
            layers = [draw.of.layer for draw in of_copies if number in draw.copies]
            last = max(layers, key=self.end.depth)
            seed = FIRST_SEED + number
            self.copies.append(untrained_copy(self.end, images, seed=seed, until=last))
        self.random = [RandomFeatures(images, seed=number) for number in range(N_DRAWS)]
        self.n_values = PER_INPUT * images[0].numel()  # of an image
        for draw in draws:
            self.n_values += baselines.form(draw.of.layer).n_positions * baselines.n_channels(
                draw.of
            )

    def of(self, images: Tensor, draws: Sequence[_Draw]) -> dict[_Draw, list[Tensor]]:
        """Return the untrained features of some draws, (B, C, H, W), (B, T, D) or (B, D) each."""
        of_copies = [draw for draw in draws if draw.of.kind == COPIES]
        values: dict[tuple[int, str], Tensor] = {}
        for number, network in enumerate(self.copies):
            layers = dict.fromkeys(draw.of.layer for draw in of_copies if number in draw.copies)
            if layers:
                for layer, activation in network.activations(images, list(layers)).items():
                    values[number, layer] = activation
        features = {
            draw: [values[number, draw.of.layer] for number in draw.copies] for draw in of_copies
        }
        for number, random in enumerate(self.random):
            wanted = {
                draw: self.baselines.wanted(draw.of)
                for draw in draws
                if draw.of.kind != COPIES and draw.number == number
            }
            if wanted:
                made = random.of(images, wanted)
                features |= {draw: [made[draw].to(self.end.example)] for draw in wanted}
        return features

    def fitted(self, stitches: Iterable[_Stitch]) -> dict[_Stitch, Matching]:
        """Fit the predicted class and untrained features to the end network's activations.

        Left out are features that are not finite.
        """
        groups = {draw: self._group(draw) for draw in self.draws}
        n_features = {draw: self.baselines.n_features(draw.of) for draw in self.draws}
        rising = sorted(self.draws, key=lambda draw: n_features[draw])
        widest = {groups[draw]: draw for draw in rising}
        moments = self._moments(widest)
        maps = {}
        targets: dict[_Target, Target] = {}
        for stitch in stitches:
            group = groups[stitch.draw]
            sources, cross = _narrowed(
                moments, group, n_features[stitch.draw], n_classes=self.baselines.n_classes
            )
            with contextlib.suppress(ValueError):  # not finite
                if group.target not in targets:
                    targets[group.target] = Target(moments.targets[group.target])
                source = Source(sources, group.target.n_images, cutoff="exact")
                maps[stitch] = solver_of(stitch.form).solve(source, targets[group.target], cross)
        return maps

    def _group(self, draw: _Draw) -> _Group:
        """Return the group of a draw, whose narrower features are a subset of its wider ones."""
        layer, kind, _ = draw.of
        n_channels = self.baselines.n_classes + self.baselines.n_channels(draw.of)
        return _Group(kind, draw.number, _Target(layer, *self.baselines.sample(layer, n_channels)))

    def _moments(self, draws: Mapping[_Group, _Draw]) -> _Moments:
        """Compute the moments of the widest draw of each group, of its target, and the cross moments of
        both."""
        n_images = max(group.target.n_images for group in draws)
        order = self.baselines.order[:n_images]
        moments = _Moments(defaultdict(Moments), defaultdict(Moments), defaultdict(CrossMoments))
        n_before = 0
        for images, _ in self._batches(self.baselines.train, order, "baseline: fits"):
            needed = {
                group: draw for group, draw in draws.items() if n_before < group.target.n_images
            }
            self._add_moments(moments, images, needed, n_before)
            n_before += len(images)
        return moments

    def _add_moments(
        self, moments: _Moments, images: Tensor, draws: Mapping[_Group, _Draw], n_before: int
    ) -> None:
        """Add a batch to the moments.

        Args:
            n_before: images of the batches before.
        """
        layers = list(dict.fromkeys(group.target.layer for group in draws))
        end_acts = self.end.activations(images, [*layers, self.end.output_name], keep=True)
        target_rows: dict[_Target, Rows] = {}
        for target in dict.fromkeys(group.target for group in draws):
            rows = Rows.of(self._fitted(end_acts[target.layer], target, n_before))
            target_rows[target] = rows
            moments.targets[target] = moments.targets[target].pooled(rows.moments())
        logits = end_acts[self.end.output_name]
        features = self.of(images, list(draws.values()))
        for group, draw in draws.items():
            parts = [self._fitted(values, group.target, n_before) for values in features[draw]]
            rows = Rows.of(beside_class(parts, logits[: len(parts[0])]))
            moments.sources[group] = moments.sources[group].pooled(rows.moments())
            of_both = rows.cross(target_rows[group.target])
            moments.both[group] = moments.both[group].pooled(of_both)

    def _fitted(self, values: Tensor, target: _Target, n_before: int) -> Tensor:
        """Return the activations (B, P, C) of a batch at the positions used for fitting."""
        first = slice(target.n_images - n_before)  # of the last batch, as many as are left
        places = self.baselines.positions(target.layer)[: target.n_positions]
        return positions_of(values[first])[:, places]

    def products(
        self,
        maps: Mapping[_Stitch, Matching],
        indices: Tensor,
        *,
        at_output: Container[_Stitch] | None = None,
    ) -> dict[_Stitch, AtPlaces]:
        """Compute the within-class products of stitches on test images.

        Args:
            at_output: the stitches that are measured at the output as well; None: all are.
        """
        draws = list(dict.fromkeys(stitch.draw for stitch in maps))
        layers = list(dict.fromkeys(draw.of.layer for draw in draws))
        test = self.baselines.test
        following = Following(self.end, layers, image_shape=test.image_shape)
        for images, _ in self._batches(test, indices, "baseline: measures"):
            end_acts = self.end.activations(images, [*layers, self.end.output_name], keep=True)
            following.add_own(end_acts)
            logits = end_acts[self.end.output_name]
            sources = {
                draw: beside_class(features, logits)
                for draw, features in self.of(images, draws).items()
            }
            stitched = {stitch: _mapped(sources[stitch.draw], maps[stitch]) for stitch in maps}
            made = self._logits(
                {key: of for key, of in stitched.items() if at_output is None or key in at_output},
                images,
            )
            for stitch, at_layer in stitched.items():
                of_stitch = made.get(
                    stitch, logits
                )  # the end network's logits where they are not asked for
                following.add_stitch(stitch, stitch.draw.of.layer, at_layer, of_stitch)
        return {stitch: following.products(stitch) for stitch in maps}

    def _logits(self, stitched: Mapping[_Stitch, Tensor], images: Tensor) -> dict[_Stitch, Tensor]:
        """Compute the logits of stitches; several stitches into one layer share a forward pass."""
        n_together = max(1, ROWS_TOGETHER // len(images))
        logits: dict[_Stitch, Tensor] = {}
        for layer in dict.fromkeys(stitch.draw.of.layer for stitch in stitched):
            stitches = [stitch for stitch in stitched if stitch.draw.of.layer == layer]
            for first in range(0, len(stitches), n_together):
                group = stitches[first : first + n_together]
                joint = torch.cat([stitched[stitch] for stitch in group])
                made = self.end(joint, after=layer, images=images).split(len(images))
                logits |= dict(zip(group, made, strict=True))
        return logits

    def _batches(
        self, data: BaseImageSet, indices: Tensor, title: str
    ) -> Iterable[tuple[Tensor, Tensor]]:
        """Yield batches of images at indices, with a progress bar."""
        size = max(self.baselines.batch_size, min(LARGEST_BATCH, MOST_VALUES // self.n_values))
        return progress(data.batches(size, indices=indices), title, math.ceil(len(indices) / size))


def _mapped(source: Tensor, fitted: Matching) -> Tensor:
    """Map untrained features and the predicted class to the activations of the end layer."""
    return map_positions(source, fitted.weight.to(source), fitted.bias.to(source))


def _narrowed(
    moments: _Moments, group: _Group, n_features: int, *, n_classes: int
) -> tuple[Moments, Tensor]:
    """Select the moments of the first features and of the class from those of wider features, and their cross
    moments (C1, C2) with the target."""
    n_rows, mean, scatter = moments.sources[group]
    kept = torch.arange(len(mean), device=mean.device)
    kept = torch.cat([kept[:n_features], kept[-n_classes:]])
    return Moments(n_rows, mean[kept], scatter[kept][:, kept]), moments.both[group].scatter[kept]
