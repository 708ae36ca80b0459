"""Two-way identification: does a stitched activation show its own image, or another one with the
same logits?

Activations that show another image can be accurate and in distribution. So each test image x meets
a foil: of 300 other test images drawn at random, the one whose end-network logits are nearest to
those of x. The stitched activation of x is identified if it is nearer to the end network's
activation of x than to that of the foil. The share of identified images is 1 where every image is
recognised, and ½ where a stitch knows what the logits know. Two-way identification is how decoding
from brain activity is judged (Mitchell et al. 2008); here the foil is the hardest one."""

import math

import torch
from torch import Tensor

from src.ood.cells import cells
from src.results.tables import IntervalEstimate
from src.runtime import generator

N_CANDIDATES = 300  # other images that a foil is chosen among
SAME = 1e-5  # relative difference of activations that are equal but for rounding
DEVIATIONS = 1.96  # half of an interval of 95 %


def identification(
    stitched: Tensor, own: Tensor, logits: Tensor, *, is_sequence: bool = False
) -> Tensor:
    """Return for each image whether its stitched activation is nearest to its own image: (n,) of 1,
    0, or ½ for a tie.

    Args:
        stitched, own: activations of the stitch and of the end network, (n, C, H, W), (n, T, D) or (n, D).
        logits: of the end network, (n, classes).
        is_sequence: the tokens are the steps of a recurrent layer (see `cells`).
    """
    stitched_cells = cells(stitched, is_sequence=is_sequence).flatten(1)
    own_cells = cells(own, is_sequence=is_sequence).flatten(1)
    return identified(stitched_cells, own_cells, choose_foils(logits))


def choose_foils(logits: Tensor) -> Tensor:
    """Return the foil of each image, (n,): of 300 others, always the same ones, the one with the
    nearest logits.

    Args:
        logits: (n, classes), of a few thousand images at most, as memory grows with n². With at most 301 images all
            others are candidates. A single image is its own foil.
    """
    n = len(logits)
    if n < 2:
        return torch.zeros(n, dtype=torch.long, device=logits.device)
    if n - 1 <= N_CANDIDATES:
        steps = torch.arange(1, n).expand(n, -1)
    else:
        steps = 1 + torch.rand(n, n - 1, generator=generator(0)).topk(N_CANDIDATES, dim=1).indices
    candidates = ((torch.arange(n)[:, None] + steps) % n).to(
        logits.device
    )  # (n, candidates), none the image itself
    logits = logits.detach().double()
    distances = torch.cdist(logits, logits).gather(1, candidates)
    nearest = distances.argmin(1, keepdim=True)
    return candidates.gather(1, nearest)[:, 0]


def identified(stitched: Tensor, own: Tensor, foils: Tensor) -> Tensor:
    """Return 1, 0, or ½ for a tie, (n,): is the stitched activation nearer to its own image than to
    the foil?

    A foil whose activation is the image's own, as of a repeated image, is a tie.

    Args:
        stitched, own: cells of activations, (n, D).
        foils: the foil of each image, (n,).
    """
    own = own.double()
    stitched = stitched.double()
    foil = own[foils]
    distance = (stitched - own).square().sum(1)
    distance_to_foil = (stitched - foil).square().sum(1)
    is_tie = (foil - own).square().sum(1) <= SAME**2 * own.square().sum(1)
    is_tie |= distance == distance_to_foil
    nearer = (distance < distance_to_foil).double()
    return torch.where(is_tie, 0.5, nearer)


def share_of(values: Tensor) -> IntervalEstimate:
    """Return the mean of values (n,) of 1, 0 and ½ with Wilson's (1927) interval of 95 %."""
    n = len(values)
    share = values.mean().item()
    z_squared = DEVIATIONS**2 / n
    centre = (share + z_squared / 2) / (1 + z_squared)
    half_width = math.sqrt(z_squared * (share * (1 - share) + z_squared / 4)) / (1 + z_squared)
    return IntervalEstimate(share, max(0.0, centre - half_width), min(1.0, centre + half_width))
