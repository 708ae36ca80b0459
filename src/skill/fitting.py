"""Untrained features as rows, and the moments from which they are fitted to activations.

Features whose parameters are all reset depend on no trained weights. So networks of the same code share
the rows and the moments of features (`Network.keeping`). Their key is the initial state of a copy, the
training images (whose statistics copies and random features take), and the images of the batch.
Moments with the predicted class and with activations belong to one network.
"""

from collections.abc import Hashable, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from src.core.activations import positions_of
from src.core.cache import Cache
from src.core.seeds import generator
from src.datasets.base import InputSet
from src.skill.untrained import Block, Draw, UntrainedFeatures
from src.statistics.moments import CrossMoments, Moments, Rows

KEPT_ROWS = 50_000  # at most, of features that are kept for further networks


class Batch(NamedTuple):
    """A batch of a pass over images."""

    images: Tensor  # (B, C, H, W)
    n_before: int  # images of the batches before
    identity: Hashable  # of the images


class Sample(NamedTuple):
    """The images and positions at which activations of a layer are rows of a fit or a measurement."""

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


class FeatureRows:
    """Computes untrained features at the images and positions of samples.

    Args:
        features: of a network.
        train: the images that the features take statistics of.
        shared: keeps rows and moments for further networks of the same code; None: nothing is kept.
    """

    def __init__(self, features: UntrainedFeatures, train: InputSet, shared: Cache | None):
        self.features = features
        self.train = train
        self.shared = shared

    def of(
        self, batch: Batch, widths: Mapping[Sample, Mapping[Block, int]]
    ) -> dict[Sample, dict[Block, Tensor]]:
        """Return the features (B, P, C) of a batch by sample and block.

        Args:
            widths: the numbers of features that are needed; the returned rows may be wider.
        """
        rows: dict[Sample, dict[Block, Tensor]] = {sample: {} for sample in widths}
        missing: dict[Block, int] = {}
        keys = {}
        for sample, of_sample in widths.items():
            for block, width in of_sample.items():
                keys[sample, block] = (batch[1:], sample, self.features.identity(block))
                kept = self.kept(keys[sample, block], width)
                if kept is None:
                    missing[block] = max(width, missing.get(block, 0))
                else:
                    rows[sample][block] = kept
        computed = self.features.of(batch.images, missing)
        for (sample, block), key in keys.items():
            if block not in rows[sample]:
                rows[sample][block] = sample.rows(computed[block], batch.n_before).contiguous()
                if sample.n_images * sample.n_positions <= KEPT_ROWS:
                    self.keep(key, rows[sample][block])
        return rows

    def kept(self, key: Hashable, width: int) -> Tensor | None:
        """Return kept values of at least this width; None if there are none."""
        if self.shared is None:
            return None
        values = self.shared.get((self.train, key))
        if values is None or values.shape[-1] < width:
            return None
        return values

    def keep(self, key: Hashable, values: Tensor) -> None:
        """Keep values for further networks."""
        if self.shared is not None:
            self.shared.keep((self.train, key), values, values.nbytes)


class DrawMoments:
    """The moments of untrained features, of the predicted class and of the end network's activations.

    The columns are the blocks of features, the class and the activations. The features of a draw are one block,
    or several that are next to each other. Products of two blocks are computed only if a draw has both, and
    once for all draws that have both.

    Args:
        draws: of untrained features, which are fitted to the sample.
        sample: of the rows.
        rows: of the features.
        n_classes: of the predicted class.
    """

    def __init__(self, draws: Sequence[Draw], sample: Sample, rows: FeatureRows, *, n_classes: int):
        self.rows = rows
        self.n_classes = n_classes
        self.widths = rows.features.widths(draws)  # of the blocks
        self._n_features = sum(self.widths.values())
        starts = accumulate(self.widths.values(), initial=0)
        self._starts = dict(zip(self.widths, starts, strict=False))
        self._stops: dict[Block, int] = {}  # behind the last block that shares a draw with a block
        for draw in draws:
            last = draw.blocks[-1]
            for block in draw.blocks:
                stop = max(self._starts[last] + self.widths[last], self._stops.get(block, 0))
                self._stops[block] = stop

        # Of all columns, with class and activations
        self._of_ends = CrossMoments()
        # Of each block, with itself and the blocks behind it that share a draw with it
        self._of_blocks: dict[Block, CrossMoments] = {}
        self._keys = {block: (sample, *self._identities(block)) for block in self.widths}
        kept = {block: rows.kept(key, self.widths[block]) for block, key in self._keys.items()}
        self._kept = {block: scatter for block, scatter in kept.items() if scatter is not None}

    def _identities(self, block: Block) -> list[Hashable]:
        """Return the identities of a block and of the blocks behind it that share a draw with it."""
        span = range(self._starts[block], self._stops[block])
        partners = [partner for partner, start in self._starts.items() if start in span]
        return [self.rows.features.identity(partner) for partner in partners]

    def add(self, features: Mapping[Block, Tensor], classes: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            features: of each block, (B, P, width) or wider.
            classes: the predicted class, one-hot, (B, K).
            target: the end network's activations, (B, P, C).
        """
        narrowed = [features[block][..., :width] for block, width in self.widths.items()]
        mean, centred = Rows.of(torch.cat([beside_class(narrowed, classes), target], 2))

        def columns(first: int, stop: int | None) -> Rows:
            return Rows(mean[first:stop], centred[:, first:stop])

        of_ends = columns(0, None).cross(columns(self._n_features, None))
        self._of_ends = self._of_ends.pooled(of_ends)
        for block in self.widths.keys() - self._kept.keys():
            start = self._starts[block]
            of_block = columns(start, start + self.widths[block])
            products = of_block.cross(columns(start, self._stops[block]))
            self._of_blocks[block] = self._of_blocks.get(block, CrossMoments()).pooled(products)

    def keep(self) -> None:
        """Keep the products of features for further networks."""
        for block, key in self._keys.items():
            self.rows.keep(key, self._scatter(block))

    def _scatter(self, block: Block) -> Tensor:
        """Return the products of a block with itself and the blocks behind it, (C, C1)."""
        if block in self._kept:
            return self._kept[block]
        return self._of_blocks[block].scatter

    @property
    def target(self) -> Moments:
        """The moments of the end network's activations."""
        n_rows, _, mean, scatter = self._of_ends
        k = self.n_classes
        return Moments(n_rows, mean[k:], scatter[self._n_features + k :, k:])

    def source(self, draw: Draw) -> tuple[Moments, Tensor]:
        """Return the moments of a draw beside the class, and their cross moments (C1, C2) with the target."""
        n_rows, mean, _, with_ends = self._of_ends
        k = self.n_classes
        width = self.rows.features.width(draw)
        n_of_block = width // len(draw.blocks)
        starts = [self._starts[block] for block in draw.blocks]
        places = [torch.arange(start, start + n_of_block) for start in starts]
        places.append(torch.arange(self._n_features, self._n_features + k))
        columns = torch.cat(places).to(with_ends.device)  # of the draw and the class
        with_ends = with_ends[columns]  # (width + K, K + C2)

        # Block by block from the diagonal to the right, and mirrored; the class is last
        scatter = with_ends.new_empty(width + k, width + k)
        for first, block in zip(range(0, width, n_of_block), draw.blocks, strict=True):
            products = self._scatter(block)[:n_of_block, : width - first]
            scatter[first : first + n_of_block, first:width] = products
            scatter[first:width, first : first + n_of_block] = products.T
        scatter[:, width:] = with_ends[:, :k]
        scatter[width:, :width] = with_ends[:width, :k].T
        return Moments(n_rows, mean[columns], scatter), with_ends[:, k:]


def beside_class(features: Sequence[Tensor], classes: Tensor) -> Tensor:
    """Concatenate features and the predicted class along channels, (B, P, channels).

    Args:
        features: each (B, P, C).
        classes: the class, one-hot, (B, n_classes).
    """
    at_positions = classes.to(features[0])[:, None].expand(-1, features[0].shape[1], -1)
    return torch.cat([*features, at_positions], 2)
