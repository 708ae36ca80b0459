"""The width of a front layer: the rank of the covariance of the activations that the stitching layer maps."""

import torch
from torch import Tensor

from src.core.activations import positions_of
from src.statistics.moments import Moments, Rows

ROUNDING = 100 * torch.finfo(torch.float32).eps ** 2  # of the variance of activations
N_ROWS = 20_000  # in all; of large maps only some positions are taken
ROWS_PER_CHANNEL = 20


class RunningWidth:
    """Accumulates the covariance of activations over batches, and computes its rank.

    It is the numerical rank, since an affine map can use any direction that is not rounding. So
    channels that are constant, repeated or mixed do not count, and faint ones do. An effective rank
    would hang on the scale of directions, which an affine map changes.

    Args:
        n_inputs: of all batches together.
    """

    def __init__(self, n_inputs: int):
        self.n_inputs = n_inputs
        self._moments = Moments()

    def add(self, activations: Tensor) -> None:
        """Add activations (B, C, H, W), (B, T, C) or (B, C) of a batch."""
        positions = positions_of(activations)
        n_positions, n_channels = positions.shape[1:]
        n_rows = max(N_ROWS, ROWS_PER_CHANNEL * n_channels)
        step = max(1, n_positions * self.n_inputs // n_rows)
        self._moments = self._moments.pooled(Rows.of(positions[:, ::step]).moments())

    @property
    def rank(self) -> int:
        """The numerical rank of the covariance, at least 1.

        It is the number of channels that vary where rows are too few to tell, and that of all
        channels where these are not finite.
        """
        variances = self._moments.covariance.diagonal()
        n_channels = len(variances)
        squares = variances + self._moments.mean.square()
        if not squares.isfinite().all():
            return n_channels
        # A channel has a mean square of 1, so that the rounding of all is alike, whatever their units
        scales = squares.clamp(min=torch.finfo(torch.float64).tiny).rsqrt()
        scaled = torch.linalg.eigvalsh(self._moments.covariance * scales * scales[:, None])
        rounding = ROUNDING + n_channels * torch.finfo(torch.float64).eps * scaled[-1]
        rank = int((scaled > rounding).sum())
        if rank >= self._moments.n_rows - 1:
            return int((variances > ROUNDING * squares).sum())
        return max(1, rank)
