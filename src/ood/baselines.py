"""The baseline of a stitch: the within-class correlation that class, architecture and an affine map give
together.

It is the correlation of a stitch by `covariance` whose front is the class that the end network
predicts, beside *untrained copies* of the end network at the same layer: the same modules, with weights drawn
anew. As many untrained copies stand side by side as the front of the stitch needs to have no more channels than
they. So a baseline belongs to an end network, a layer, a number of untrained copies and the images; stitches share it.
"""

import contextlib
import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from src.core.activations import Form, form_of, map_positions, positions_of
from src.core.cache import Cache
from src.core.console import progress
from src.core.runtime import generator
from src.datasets.base import BaseImageSet
from src.models import Network
from src.models.calls import OUTPUT
from src.skill.running import AtPlaces, Following
from src.skill.skills import Baseline
from src.statistics.moments import Rows
from src.stitching.closed_forms import Matching, closed_form
from src.stitching.moments import SourceMoments

N_DRAWS = 5  # of the weights of untrained copies; the largest correlation counts
N_IMAGES = 300  # test images that a baseline is measured on, or an eighth of them if that is more
# Training images that a baseline is matched on, at least, and that BatchNorms take statistics of
N_FITTING_SAMPLES = 200
N_OF_CLASS = 10  # of the images of a match, for each class, up to `MOST_OF_CLASSES`
MOST_OF_CLASSES = 500
FEWEST_ROWS = 10  # matched for each channel: more images are taken for fewer positions
MOST_ROWS = 50  # matched for each channel: of large maps only some positions are taken
N_ROWS = 20_000  # matched in any case, where there are so many
# At most: of a batch, many activations are held at once. It divides `N_IMAGES` and `N_FITTING_SAMPLES`
BATCH_SIZE = 50
MOST_COPIES = 16  # side by side: more hardly raise a baseline, see methods.md
TARGET = 0  # the only target of the moments
# Networks are initialised by small seeds, and an untrained copy must be no such network
FIRST_SEED = 2**31


class BaselineKey(NamedTuple):
    """Identifies a baseline of an end network and its images."""

    layer: str
    n_copies: int


def n_copies_for(front_width: int, end_width: int) -> int:
    """Return how many untrained copies have no fewer channels than the front; at most `MOST_COPIES`."""
    return min(MOST_COPIES, math.ceil(front_width / end_width))


class Baselines:
    """The baselines of an end network, each measured at its first use.

    Args:
        end: the end network, in evaluation mode.
        train: images to match on.
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
        if end.cache is None:  # all draws compare with the end network's own activations
            end = end.keeping(Cache.of_device(test.device))
        self.end = end
        self.train = train
        self.test = test
        self.batch_size = min(batch_size, BATCH_SIZE)
        (self.n_classes,) = end.output_shape
        drawn = torch.randperm(len(images), generator=generator(0))[
            : max(N_IMAGES, len(images) // 8)
        ]
        self.places = drawn.sort().values
        self.indices = images[self.places]
        self._floors: dict[BaselineKey, Baseline] = {}

    @torch.no_grad()
    def measured(self, keys: Iterable[BaselineKey]) -> Mapping[BaselineKey, Baseline]:
        """Return the baselines of these keys, and of all that were asked for before."""
        missing = sorted({key for key in keys if key not in self._floors})
        if missing:
            best: dict[BaselineKey, AtPlaces] = {}
            for draw in progress(range(N_DRAWS), "baselines of skill", N_DRAWS):
                for key, products in self._drawn(draw, missing).items():
                    best[key] = _larger(best.get(key, products), products)
            for key, products in best.items():
                self._floors[key] = Baseline(products, self.places.numpy())
        return self._floors

    def _drawn(self, draw: int, keys: Sequence[BaselineKey]) -> dict[BaselineKey, AtPlaces]:
        """Return the products of the stitches of one draw of untrained copies."""
        copies = _Copies(self, draw, keys)
        maps = copies.matched()
        layers = list(dict.fromkeys(key.layer for key in keys))
        following = Following(self.end, layers, image_shape=self.test.image_shape)
        for images, _ in self.test.batches(self.batch_size, indices=self.indices):
            end_acts = self.end.kept_activations(images, [*layers, self.end.output_name])
            following.add_own(end_acts)
            activations = copies.activations(images, keys)
            for key in keys:
                of_copies = activations[key.layer][: key.n_copies]
                source = beside_class(of_copies, end_acts[self.end.output_name])
                weight = maps[key].weight.to(source)
                stitched = map_positions(source, weight, maps[key].bias.to(source))
                logits = self.end(stitched, after=key.layer, images=images)
                following.add_stitch(key, key.layer, stitched, logits)
        return {key: following.products(key) for key in keys}


class _Copies:
    """Untrained copies of an end network: the numbers that some baselines need, at most."""

    def __init__(self, baselines: Baselines, draw: int, keys: Sequence[BaselineKey]):
        self.baselines = baselines
        self.keys = keys
        self.order = baselines.train.permutation(0)
        first = self.order[:N_FITTING_SAMPLES]
        images, _ = next(iter(baselines.train.batches(len(first), indices=first)))
        self.networks = []
        for number in range(max(key.n_copies for key in keys)):
            layers = [key.layer for key in keys if key.n_copies > number]
            last = max(layers, key=baselines.end.depth)
            seed = FIRST_SEED + N_DRAWS * number + draw
            self.networks.append(untrained_copy_of(baselines.end, images, seed=seed, until=last))

    def activations(self, images: Tensor, keys: Iterable[BaselineKey]) -> dict[str, list[Tensor]]:
        """Return the activations of as many untrained copies as the keys need, by layer."""
        activations: dict[str, list[Tensor]] = {key.layer: [] for key in keys}
        for number, network in enumerate(self.networks):
            layers = list(dict.fromkeys(key.layer for key in keys if key.n_copies > number))
            if layers:
                for layer, values in network.activations(images, layers).items():
                    activations[layer].append(values)
        return activations

    def matched(self) -> dict[BaselineKey, Matching]:
        """Match class and untrained copies to the end network's own activations, by `covariance`."""
        end = self.baselines.end
        train = self.baselines.train
        samples = {key: self._sample(key) for key in self.keys}
        order = self.order[: max(sample.n_images for sample in samples.values())]
        moments: dict[BaselineKey, SourceMoments] = {}
        n_before = 0
        for images, _ in train.batches(self.baselines.batch_size, indices=order):
            keys = [key for key in self.keys if n_before < samples[key].n_images]
            layers = list(dict.fromkeys(key.layer for key in keys))
            end_acts = end.kept_activations(images, [*layers, end.output_name])
            activations = self.activations(images, keys)
            for key in keys:
                n_images, places = samples[key]
                first = slice(n_images - n_before)  # of the last batch, as many as are left
                of_copies = activations[key.layer][: key.n_copies]
                source = beside_class(
                    [positions_of(values[first])[:, places] for values in of_copies],
                    end_acts[end.output_name][first],
                )
                target = positions_of(end_acts[key.layer][first])[:, places]
                of_batch = _moments(source, target)
                moments[key] = moments[key].pooled(of_batch) if key in moments else of_batch
            n_before += len(images)
        return {key: closed_form("covariance", of_key)[TARGET] for key, of_key in moments.items()}

    def _sample(self, key: BaselineKey) -> "_Sample":
        """Return the images and positions to match on."""
        shapes = self.baselines.end.activation_shapes([key.layer], self.baselines.test.image_shape)
        form = Form.of(shapes[key.layer])
        n_channels = key.n_copies * form.n_channels + self.baselines.n_classes
        n_images = max(
            N_FITTING_SAMPLES,
            min(N_OF_CLASS * self.baselines.n_classes, MOST_OF_CLASSES),
            math.ceil(FEWEST_ROWS * n_channels / form.n_positions),
        )
        n_images = min(n_images, len(self.order))
        order = torch.randperm(form.n_positions, generator=generator(0)).to(
            self.baselines.test.device
        )
        n_rows = max(N_ROWS, MOST_ROWS * n_channels)
        return _Sample(n_images, order[: math.ceil(n_rows / n_images)])


class _Sample(NamedTuple):
    """The images that a baseline is matched on, and their positions in any order."""

    n_images: int
    positions: Tensor


def _moments(source: Tensor, target: Tensor) -> SourceMoments:
    """Return the moments of a batch (B, P, C)."""
    source_rows = Rows.of(source)
    target_rows = Rows.of(target)
    return SourceMoments(
        len(source),
        source_rows.moments(),
        {TARGET: target_rows.moments()},
        {TARGET: source_rows.cross(target_rows).scatter},
    )


@torch.no_grad()
def untrained_copy_of(
    network: Network, images: Tensor, *, seed: int, until: str | None = None
) -> Network:
    """Return a copy of a network with weights drawn anew, and BatchNorm statistics of the images.

    A module with a method `reset_parameters` resets itself. Parameters that none resets are drawn from
    a normal distribution with their own mean and standard deviation. It is done on the CPU: untrained copies do
    not depend on the device.

    Args:
        images: (B, C, H, W).
        until: the last layer that is needed; None: all are.
    """
    untrained = copy.deepcopy(network).to("cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        before = [parameter.clone() for parameter in untrained.parameters()]
        for module in untrained.modules():
            reset = getattr(module, "reset_parameters", None)
            if reset is not None:
                reset()
        for parameter, old in zip(untrained.parameters(), before, strict=True):
            if parameter.is_floating_point() and torch.equal(parameter, old):
                noise = torch.randn(parameter.shape).to(parameter)
                parameter.copy_(parameter.mean() + noise * parameter.std(correction=0))
    untrained.to(network.example.device)
    set_statistics(untrained.module, images, until=until)
    return untrained


def set_statistics(module: nn.Module, images: Tensor, *, until: str | None) -> None:
    """Set the statistics of the BatchNorms in front of a layer from a batch of images, and switch to
    evaluation mode."""
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    if norms:
        last = module if until in (None, OUTPUT) else module.get_submodule(str(until))
        handle = last.register_forward_hook(_stop)
        with contextlib.suppress(_Stop):
            module(images)
        handle.remove()
    module.eval()


class _Stop(Exception):
    """Ends a pass."""


def _stop(*call: object) -> None:
    raise _Stop


def beside_class(activations: Sequence[Tensor], logits: Tensor) -> Tensor:
    """Return the channels of several networks, with the predicted class as further channels.

    Args:
        activations: of each network, (B, C, H, W), (B, T, D) or (B, D).
        logits: (B, n_classes).
    """
    form = form_of(activations[0])
    one_hot = torch.zeros_like(logits).scatter(1, logits.argmax(1, keepdim=True), 1)
    classes = form.everywhere(one_hot.to(activations[0]))
    return torch.cat([*activations, classes], form.channel_axis)


def _larger(first: AtPlaces, second: AtPlaces) -> AtPlaces:
    """Return the products with the larger correlation, at either place."""
    pairs = zip(first, second, strict=True)
    return AtPlaces(*[max(pair, key=lambda products: products.correlation) for pair in pairs])
