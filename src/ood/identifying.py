"""Two-way identification: does a stitched activation show the image that the stitch was given?

An activation that shows another image can be accurate and in distribution. Identification notices.
Each test image x gets a *foil*: among 300 other test images drawn at random, the image whose
end-network logits are nearest to the logits of x. The stitched activation of x is identified if it
is nearer to the end network's activation of x than to the end network's activation of the foil.

The share of identified images is 1 if every image is recognised. It is about ½ if the stitch knows
no more of an image than its logits. Two-way identification is how decoding from brain activity is
judged (Mitchell et al. 2008), with random foils; here the foil is a hard one."""

import math

import torch
from torch import Tensor

from src.ood.cells import cells
from src.results.tables import IntervalEstimate
from src.runtime import generator

N_CANDIDATES = 300  # images that a foil is chosen among
ROUNDING = 1e-5  # relative difference below which two activations count as equal
DEVIATIONS = 1.96  # standard deviations in half of an interval of 95 %


def identification(
    stitched: Tensor, own: Tensor, logits: Tensor, *, is_sequence: bool = False
) -> Tensor:
    """Identify the image of each stitched activation; return 1, 0, or ½ for a tie, (n,).

    Args:
        stitched: activations of the stitch, (n, C, H, W), (n, T, D) or (n, D).
        own: the end network's own activations of the same images, of the same shape.
        logits: the end network's logits of the same images, (n, classes).
        is_sequence: the tokens are the steps of a recurrent layer (see `cells`).
    """
    stitched_cells = cells(stitched, is_sequence=is_sequence).flatten(1)
    end_cells = cells(own, is_sequence=is_sequence).flatten(1)
    return identify(stitched_cells, end_cells, choose_foils(logits))


def choose_foils(logits: Tensor) -> Tensor:
    """Choose the foil of each image; return the indices of the foils, (n,).

    The foil of image x is the image with the nearest logits among 300 images, drawn without
    replacement from the n − 1 images other than x. With n ≤ 301, all n − 1 images are candidates.
    The same n images always get the same candidates. A single image is its own foil.

    Args:
        logits: (n, classes). Memory grows with n²: give a few thousand images at most.
    """
    n_images = len(logits)
    if n_images < 2:
        return torch.zeros(n_images, dtype=torch.long, device=logits.device)

    # Candidates (n, n_candidates): image i has i + step as candidates, never i itself
    if n_images - 1 <= N_CANDIDATES:
        steps = torch.arange(1, n_images).expand(n_images, -1)
    else:
        order = torch.rand(n_images, n_images - 1, generator=generator(0))
        steps = 1 + order.topk(N_CANDIDATES, dim=1).indices
    images = torch.arange(n_images)[:, None]
    candidates = ((images + steps) % n_images).to(logits.device)

    # The candidate with the nearest logits
    logits = logits.detach().double()
    distances = torch.cdist(logits, logits).gather(1, candidates)
    nearest = distances.argmin(1, keepdim=True)
    return candidates.gather(1, nearest)[:, 0]


def identify(stitched: Tensor, end: Tensor, foils: Tensor) -> Tensor:
    """Compare stitched activations with their image and its foil; return 1, 0, or ½, (n,).

    A stitched activation that is nearer to the end network's activation of its image has 1; one
    that is nearer to the end network's activation of the foil has 0. Equal distances are a tie and
    have ½. So is an image whose foil has the same activation in the end network, such as a copy.

    Args:
        stitched: cells of the stitched activations, (n, D).
        end: cells of the end network's activations of the same images, (n, D).
        foils: the foil of each image, (n,); see `choose_foils`.
    """
    end = end.double()
    stitched = stitched.double()
    end_of_foil = end[foils]
    distance = (stitched - end).square().sum(1)
    distance_to_foil = (stitched - end_of_foil).square().sum(1)
    is_tie = (end_of_foil - end).square().sum(1) <= ROUNDING**2 * end.square().sum(1)
    is_tie |= distance == distance_to_foil
    is_nearer = (distance < distance_to_foil).double()
    return torch.where(is_tie, 0.5, is_nearer)


def share_of(identified: Tensor) -> IntervalEstimate:
    """Return the mean of values (n,) of 1, 0 and ½, with Wilson's (1927) interval of 95 %."""
    share = identified.mean().item()
    z_squared = DEVIATIONS**2 / len(identified)
    centre = (share + z_squared / 2) / (1 + z_squared)
    spread = math.sqrt(z_squared * (share * (1 - share) + z_squared / 4))
    half_width = spread / (1 + z_squared)
    return IntervalEstimate(share, max(0.0, centre - half_width), min(1.0, centre + half_width))
