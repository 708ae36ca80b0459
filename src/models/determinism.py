"""Detection of stochastic and of batch-dependent networks, and of outputs that are no logits.

A network is *stochastic or batch-dependent* if it is random in evaluation mode, as with dropout that does not look at
`training`, or if the logits of an image depend on the batch that the image is in, as with BatchNorm
that has no running statistics. Then accuracies, agreement and skill of stitches are those
of one draw, or of one batch size.

Two images, or two `inputs` of the network, take a few passes: beside another image, with another
seed, beside one of large values, and alone. A deterministic network gives the same numbers, up to rounding:
over all networks of the suite, and published ones, differences were at most 1e-6. That a network
takes another way in batches of more images is not seen.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from src.core.console import warn_once
from src.core.device import as_inputs
from src.core.inputs import InputSpec
from src.core.precision import full_precision
from src.core.seeds import generator
from src.core.values import BATCH_DEPENDENT, STOCHASTIC
from src.models.network import Network
from src.models.outputs import logits_of
from src.models.restored import repeatable

# Differences of logits that count, relative to their standard deviation over the images. Those of
# natural images vary about four times as much: 0.05 changes fewer than one prediction in a hundred.
LEAST_DIFFERENCE = 0.05
ROUNDING = 1e-4  # relative to the size of the logits: constant logits do not vary
SUM_IN_BF16 = 0.02  # how far probabilities may sum to another number than 1
N_KEPT = 2  # images that are in both batches, behind a companion


@torch.no_grad()
def nondeterminism_of(network: Network, images: InputSpec) -> str:
    """Return `STOCHASTIC` or `BATCH_DEPENDENT`, or "" for a network that is neither in evaluation mode.

    Random generators and buffers are left as they were.

    Args:
        images: that the network takes.
    """
    batch = _inputs_of(network, images)
    black = batch.clone()
    black[0] = batch.amin()
    bright = batch.clone()
    if batch.is_floating_point():  # larger integers may stand for nothing
        bright[0] = 3 * batch.amax()
    without = batch[1:]
    first, with_black, with_bright, alone = _logits(
        network, (batch, black, bright, without), seeds=(0, 1, 0, 0)
    )
    if _differ(first, with_black):
        (with_other_seed,) = _logits(network, [batch], seeds=[1])
        if _differ(first, with_other_seed):
            return STOCHASTIC
        return BATCH_DEPENDENT
    if _differ(first, with_bright) or _differ(first, torch.cat([first[:1], alone])):
        return BATCH_DEPENDENT
    return ""


@torch.no_grad()
def warn_of_probabilities(network: Network, images: InputSpec, *, title: str) -> None:
    """Warn of a network that gives probabilities in place of logits.

    Args:
        images: that the network takes.
        title: of the network, for the message.
    """
    (outputs,) = _logits(network, [_inputs_of(network, images)], seeds=[0])
    sums = outputs.sum(1)
    if (outputs >= 0).all() and torch.allclose(sums, torch.ones_like(sums), atol=SUM_IN_BF16):
        warn_once(
            f"{title} gives probabilities, which sum to 1: losses and measurements at the output are of "
            "logits; leave the softmax out"
        )


def _inputs_of(network: Network, images: InputSpec) -> Tensor:
    """Return `inputs`, or images (1 + N_KEPT, C, H, W) of coarse patterns and noise; a companion is in front."""
    if network.inputs is not None:
        return network.inputs
    channels, height, width = images.shape
    draws = generator(0)
    coarse = torch.rand(1 + N_KEPT, channels, 3, 3, generator=draws)
    patterns = F.interpolate(coarse, size=(height, width), mode="bilinear")
    noise = torch.rand(patterns.shape, generator=draws)
    values = 0.8 * patterns + 0.2 * noise
    if images.normalisation is None:
        return values
    mean = torch.tensor(images.normalisation.mean)[:, None, None]
    std = torch.tensor(images.normalisation.std)[:, None, None]
    return (values - mean) / std


def _logits(network: Network, batches: Sequence[Tensor], *, seeds: Sequence[int]) -> list[Tensor]:
    """Return the outputs (B, D) of each batch in full precision, each with its own seed."""
    like = network.example
    logits = []
    with full_precision(like.device):
        for batch, seed in zip(batches, seeds, strict=True):
            images = as_inputs(batch, like).clone()  # a network may change them in place
            with repeatable(network.module, images, seed=seed):
                output = network.module(images)
            logits.append(logits_of(output).flatten(1).double())
    return logits


def _differ(first: Tensor, second: Tensor) -> bool:
    """Return whether outputs (1 + N_KEPT, D) of the images behind the companion differ."""
    difference = (first[1:] - second[1:]).square().mean().sqrt()
    deviation = (first - first.mean(0)).square().mean().sqrt()
    size = first.square().mean().sqrt()
    return bool(difference > LEAST_DIFFERENCE * deviation and difference > ROUNDING * size)
