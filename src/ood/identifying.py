"""Two-way identification: does a stitch show its image or a foil, all the way to the output?

Each test image x gets a *foil*: of at most ten other test images to which the end network gives the
same class, drawn at random, the one with the nearest logits. At a layer, the stitched network identifies
x if its activation is nearer to the end network's own activation of x than to the own activation of
the foil. First, all stitched activations are moved to the mean of the own ones, and scaled, by one
number, to their total variance. So it does not count how strongly an image is shown: least squares
shrinks what it shows.

The share of identified images is 1 if every image is identified, and ½ by chance. It is measured at
the end layer, at every block behind it, and in the output: at the end layer alone, an image may be
shown in directions that the rest of the end network ignores. The smallest of these shares counts.

Two-way identification is how decoding from brain activity is judged (Mitchell et al. 2008), with
random foils; here the foil is a hard one.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from src.ground.brief import brief
from src.ground.runtime import generator
from src.models import Network
from src.models.activations import at_least_single, cells
from src.models.tokens import TokenLayout
from src.statistics.intervals import wilson_intervals
from src.values import IntervalEstimate

N_CANDIDATES = 10  # images that a foil is chosen among
FEWEST = 30  # images with a foil: with fewer, nothing is measured
ROUNDING = 1e-5  # relative difference below which two activations count as equal


class Foils(NamedTuple):
    """The images that are identified, each with its foil."""

    images: Tensor  # (n,): indices among all N test images, rising
    foils: Tensor  # (n,): likewise, in the same order

    def __repr__(self) -> str:
        return brief(self)


def identification(
    stitched: ArrayLike | Tensor,
    own: ArrayLike | Tensor,
    logits: ArrayLike | Tensor,
    *,
    layout: TokenLayout | None = None,
) -> Tensor:
    """Identify images at one layer; return 1, 0, or ½ for a tie, (n,), and NaN without a foil.

    Two-way identification (Mitchell et al. 2008) with the foils of `choose_foils` among these n
    images; the scripts choose foils among all test images. All are NaN if a stitched activation is
    not finite.

    Args:
        stitched: activations of the stitch, (n, C, H, W), (n, T, D) or (n, D). Like the next two, a
            tensor or an array.
        own: the end network's own activations of the same images, of the same shape.
        logits: the end network's logits of the same images, (n, classes).
        layout: of tokens (see `cells`).
    """
    logits = torch.as_tensor(logits)
    foils = choose_foils(logits, torch.arange(len(logits)))
    own_cells = cells(at_least_single(own).detach(), layout).flatten(1)
    stitched_cells = cells(at_least_single(stitched).detach(), layout).flatten(1)

    own_layer = OwnLayer(layout)
    own_layer.add(own_cells[foils.images], own_cells[foils.foils])
    own_layer.fit()
    shown = Shown()
    compared = own_layer.compare(stitched_cells[None, foils.images], slice(None))
    shown.add(*compared, 0)
    n_images = len(own_cells)
    identified = torch.full((n_images,), math.nan, dtype=torch.float64, device=own_cells.device)
    identified[foils.images] = own_layer.identified(shown)
    return identified


def choose_foils(logits: Tensor, images: Tensor) -> Foils:
    """Choose the foil of each image; leave out the only image of a class.

    The foil of image x is, of at most ten other images with the class of x, the one with the nearest
    logits. The ten come first in an order of all N images that is drawn for x: this order depends
    on the index of x and on N, and on nothing else.

    Args:
        logits: the end network's logits of all N test images, (N, classes). The class of an image
            is the largest of its logits.
        images: indices of the images to identify, (n,), rising.
    """
    logits = logits.detach().double().cpu()
    classes = logits.argmax(1)
    chosen = []
    foils = []
    for image in images.tolist():
        order = torch.randperm(len(logits), generator=generator(0, image))
        is_candidate = classes[order] == classes[image]
        candidates = order[is_candidate]
        candidates = candidates[candidates != image][:N_CANDIDATES]
        if len(candidates):
            distances = (logits[candidates] - logits[image]).square().sum(1)
            chosen.append(image)
            foils.append(int(candidates[distances.argmin()]))
    return Foils(torch.tensor(chosen, dtype=torch.long), torch.tensor(foils, dtype=torch.long))


def along_the_way(
    end: Network, layer: str, stitched: ArrayLike | Tensor, images: ArrayLike | Tensor
) -> dict[str, Tensor]:
    """Identify images all the way; return values as `identification` does, (n,), by layer.

    The layers are those of `way_of`. All images take one pass, so give a few thousand at most. Values
    of images without a foil are NaN: leave them out of shares.

    Args:
        end: the end network, in evaluation mode.
        layer: the end layer.
        stitched: activations of the stitch at this layer, (n, C, H, W), (n, T, D) or (n, D), tensor
            or array.
        images: (n, C, H, W), tensor or array.
    """
    stitched = torch.as_tensor(stitched).to(end.example)
    images = torch.as_tensor(images).to(end.example)
    way = way_of(end, layer)
    own_activations = end.activations(images, way)
    shown = {layer: stitched}
    if way[1:]:
        shown |= end.activations(stitched, way[1:], after=layer, images=images)
    logits = own_activations[end.output_name]
    return {
        name: identification(
            shown[name], own_activations[name], logits, layout=end.token_layout(name)
        )
        for name in way
    }


def way_of(end: Network, layer: str) -> list[str]:
    """Return the layers at which a stitch into `layer` is judged, in order.

    They are the layer itself, the blocks behind it, and the output of the end network.
    """
    layers = [layer, *end.behind(layer), end.output_name]
    return list(dict.fromkeys(layers))


class Shown:
    """Sums over the activations of a stitch at a layer; see `OwnLayer.compare`."""

    def __init__(self) -> None:
        self._products: list[Tensor] = []  # ⟨s, o − f⟩ by batch, (B,)
        self._sum: Tensor | float = 0.0  # Σs, (D,)
        self._squares: Tensor | float = 0.0  # Σ‖s‖², a scalar

    def add(self, products: Tensor, sums: Tensor, squares: Tensor, stitch: int) -> None:
        """Take in a batch of one of P stitches: (P, B), (P, D) and (P,), from `compare`."""
        self._products.append(products[stitch])
        self._sum = self._sum + sums[stitch]
        self._squares = self._squares + squares[stitch]

    def totals(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return ⟨s, o − f⟩ of all images (n,), their mean s (D,), and Σ‖s − mean‖²."""
        products = torch.cat(self._products)
        mean = torch.as_tensor(self._sum) / len(products)
        variation = torch.as_tensor(self._squares) - len(products) * mean.square().sum()
        return products, mean, variation


class OwnLayer:
    """The end network's own activations at a layer: o of n images, and f of their foils.

    With stitched activations s, moved and scaled to s' as above, the question ‖s'−o‖ < ‖s'−f‖ is
    2⟨s', o − f⟩ > ‖o‖² − ‖f‖², where o and f are taken about the mean of o. Mean and scale of s are
    known only after the last batch, but they enter linearly. So of a stitch are kept: the product of
    each image, the mean (D,) and one sum of squares.

    Order of calls:

        own.add(cells_of_images, cells_of_foils)      for each batch
        own.fit()
        products, sums, squares = own.compare(cells)  for each batch of P stitches
        own.identified(shown)                         for the `Shown` of each stitch

    Args:
        layout: of tokens (see `cells`).
    """

    def __init__(self, layout: TokenLayout | None = None) -> None:
        self.layout = layout
        self._parts: list[tuple[Tensor, Tensor, Tensor]] = []
        self._centre = torch.empty(0)  # of the first batch, so that large means cost no digits
        self._sum: Tensor | float = 0.0
        self._squares: Tensor | float = 0.0

    def add(self, own_cells: Tensor, foil_cells: Tensor) -> None:
        """Take in the cells of a batch of images and of their foils, both (B, D)."""
        own_cells = own_cells.double()
        foil_cells = foil_cells.double()
        if not len(self._centre):
            self._centre = own_cells.mean(0)
        own_cells = own_cells - self._centre
        foil_cells = foil_cells - self._centre
        difference = own_cells - foil_cells
        squares = own_cells.square().sum(1)
        is_tie = difference.square().sum(1) <= ROUNDING**2 * squares
        squares_apart = squares - foil_cells.square().sum(1)
        self._parts.append((difference.float(), squares_apart, is_tie))
        self._sum = self._sum + own_cells.sum(0)
        self._squares = self._squares + squares.sum()

    def fit(self) -> None:
        """Finish the images."""
        differences, thresholds, ties = zip(*self._parts, strict=True)
        self._parts.clear()
        self._differences = torch.cat(differences)  # o − f, (n, D), float32
        self._is_tie = torch.cat(ties)
        n_images = len(self._is_tie)
        mean = torch.as_tensor(self._sum) / n_images
        self._variation = torch.as_tensor(self._squares) - n_images * mean.square().sum()
        # ‖o‖² − ‖f‖² about the mean of o, (n,)
        self._thresholds = torch.cat(thresholds) - 2 * self._differences.double() @ mean

    def compare(self, stitched: Tensor, images: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Return the sums of a batch of P stitches for `Shown`: (P, B), (P, D) and (P,).

        Args:
            stitched: cells of their activations, (P, B, D).
            images: the places of the batch among the n images.
        """
        differences = self._differences[images].double()
        shown = stitched.double() - self._centre
        products = (shown * differences).sum(-1)
        return products, shown.sum(1), shown.square().sum((1, 2))

    def identified(self, shown: Shown) -> Tensor:
        """Return for each of the n images 1, 0, or ½ for a tie; NaN if `shown` is not finite.

        An image whose foil has the same own activation, such as a copy, is a tie. So is an image
        at equal distances from both, as a constant stitch has them from a foil that is as far from
        the mean.
        """
        products, mean, variation = shown.totals()
        if not (products.isfinite().all() and variation.isfinite()):
            return torch.full_like(products, math.nan)
        scale = torch.zeros_like(variation)
        if variation > ROUNDING**2 * self._variation:
            scale = (self._variation / variation).sqrt()
        sides = 2 * scale * (products - self._differences.double() @ mean) - self._thresholds
        is_nearer = (sides > 0).double()
        return torch.where(self._is_tie | (sides == 0), 0.5, is_nearer)


def shares_of(identified: Mapping[str, np.ndarray]) -> dict[str, IntervalEstimate]:
    """Return the share of identified images with Wilson's interval, by layer.

    All three numbers are NaN where a value is NaN.

    Args:
        identified: values (n,) of 1, 0 and ½, by layer.
    """
    shares = [np.mean(values) for values in identified.values()]
    n_images = [len(values) for values in identified.values()]
    return dict(zip(identified, wilson_intervals(shares, n_images), strict=True))
