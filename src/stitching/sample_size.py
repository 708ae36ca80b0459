"""Direct matching on as many images as each pair of layers needs."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import reduce
from itertools import pairwise

from src.choices.stitching import FORMS
from src.console import note
from src.datasets.base import BaseImageSet
from src.models import Network
from src.results.experiments import Pair
from src.stitching.closed_forms import Cutoff, Matching
from src.stitching.grid_matching import GridMoments, Layers, grid_moments, set_layers, solve, source_of
from src.stitching.matching import n_fitted, split_last_fifth
from src.stitching.moments import SourceMoments, r2_of

FIRST = 100  # images
GAP = 0.03  # between R² on matched and on as many held-out images, at most
SETTLED = 2  # successive sizes at which the gap is that small
ROWS_PER_CHANNEL = 10  # of the source, at least

Pieces = Mapping[int, GridMoments]  # by the image behind the last one of each, ascending


def match_until_settled(
    front: Network,
    end: Network,
    layers: Layers,
    train_set: BaseImageSet,
    batch_size: int,
    *,
    seed: int,
    form: str = "pinv",
    rank: int | None = None,
    cutoff: Cutoff = "paper",
) -> dict[Pair, Matching]:
    """Set stitching layers by direct matching on training images whose number is doubled until each pair is settled.

    A pair is settled on n images where R² on them and on the next n differ by at most `GAP`, there and at n/2, and
    there are `ROWS_PER_CHANNEL` rows for each channel of the source. A pair that never is gets all images, and a note
    says so. The result of a pair does not depend on the others, and is that of `match_layers` on the first `n_samples`
    images of the same shuffled pass. Each image is computed once: the held-out images of one size are matched on in
    the next.

    Args:
        train_set: its images are taken in the order that `matching_batches` takes them, not augmented.
        front, end, layers, form, rank, cutoff: as for `match_layers`.
    Raises:
        UserError: as for `match_layers`, and for ridge as for `split_last_fifth`.
    """
    images = _Images(front, end, train_set, batch_size, seed=seed, form=form)
    options = {"form": form, "rank": rank, "cutoff": cutoff}
    left, matched, n_small_gaps = dict(layers), {}, Counter()
    n, total = min(FIRST, len(train_set)), len(train_set)
    seen = images.between(0, n, left)
    while left and 2 * n <= total:
        more = images.between(n, 2 * n, left)
        found = solve(left, *images.parts(seen, n), **options)
        whole, held_out = _pooled(seen.values()), _pooled(more.values())
        settled = {}
        for pair, matching in found.items():
            source = source_of(pair, layers[pair])
            rows = whole.sources[source], held_out.sources[source]
            matched_rows = rows[0].source
            n_small_gaps[pair] = n_small_gaps[pair] + 1 if _gap(matching, *rows, pair.end_layer, rank) <= GAP else 0
            if n_small_gaps[pair] >= SETTLED and matched_rows.n_rows >= ROWS_PER_CHANNEL * len(matched_rows.mean):
                settled[pair] = matching
        set_layers(layers, settled, whole)
        matched |= settled
        left = {pair: layer for pair, layer in left.items() if pair not in settled}
        seen, n = {**_joined(seen, n_fitted(total)), **more}, 2 * n
    if left:
        seen = {**seen, **images.between(n, total, left)} if n < total else seen
        found = solve(left, *images.parts(seen, total), **options)
        set_layers(layers, found, _pooled(seen.values()))
        matched |= found
        which = "" if len(left) == len(layers) else f", {len(left)} of {len(layers)} pairs"
        note(f"matched on all {total} training images{which}: more might still change the fit")
    return {pair: matched[pair] for pair in layers}


class _Images:
    """The training images in the order in which they are matched on."""

    def __init__(self, front: Network, end: Network, train_set: BaseImageSet, batch_size: int, *, seed: int, form: str):
        self.networks, self.train_set, self.batch_size, self.form = (front, end), train_set, batch_size, form
        self.samples = train_set.permutation(seed)
        if FORMS[form].held_out:
            split_last_fifth(self.samples)  # raises where there are too few

    def between(self, first: int, last: int, layers: Layers) -> dict[int, GridMoments]:
        """Take the moments of the images first … last−1, in pieces that `parts` can put together."""
        ends = {last}
        if FORMS[self.form].held_out:
            ends |= {n_fitted(last), n_fitted(len(self.samples))}
        bounds = [first, *sorted(end for end in ends if first < end <= last)]
        pieces = {}
        for start, end in pairwise(bounds):
            batches = self.train_set.batches(self.batch_size, indices=self.samples[start:end])
            pieces[end] = grid_moments(*self.networks, layers, batches, form=self.form)
        return pieces

    def parts(self, pieces: Pieces, n: int) -> tuple[GridMoments, GridMoments | None]:
        """Return the moments of the first n images to be matched on, and those that judge the penalties of ridge."""
        if not FORMS[self.form].held_out:
            return _pooled(pieces.values()), None
        fitted, judges = _joined(pieces, n_fitted(n)).values()
        return fitted, judges


def _pooled(pieces: Iterable[GridMoments]) -> GridMoments:
    return reduce(GridMoments.pooled, pieces)


def _joined(pieces: Pieces, bound: int) -> dict[int, GridMoments]:
    """Pool the pieces up to an image, and those behind it."""
    sides = [{end: piece for end, piece in pieces.items() if (end <= bound) == before} for before in (True, False)]
    return {max(side): _pooled(side.values()) for side in sides if side}


def _gap(matching: Matching, matched: SourceMoments, held_out: SourceMoments, target: str, rank: int | None) -> float:
    """Return by how much R² differs between matched and held-out rows; NaN where it is defined for one side only."""
    if rank is not None:
        held_out = held_out.truncated(matched.components(rank))
    r2 = r2_of(held_out.targets[target], held_out.squared_residual(target, matching.weight, matching.bias))
    return 0.0 if math.isnan(r2) and math.isnan(matching.r2) else abs(matching.r2 - r2)
