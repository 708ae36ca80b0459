"""Compares stitches with their controls: do stitches identify more images than the class does?"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from src.statistics.significance import mcnemar_p


class Compared(NamedTuple):
    """Stitches beside their controls."""

    identification: float  # of the controls: the smallest share along the way, in [0, 1]
    # Small: the stitches identify more images, at every layer, than the controls at one
    p_value: float


def compare_with_controls(
    stitches: Sequence[np.ndarray], controls: Sequence[np.ndarray]
) -> Compared:
    """Compare the images that stitches identify with the images that their controls identify.

    The layer where the controls identify fewest images stands for the controls. Stitches have to
    identify more images there at each layer of their own way. All these tests have to agree, so that
    each has the whole level (an intersection–union test, Berger 1982): the largest p-value counts,
    over layers and stitches. It is multiplied by the number of layers of the control, as the layer
    that stands for it was chosen among these.

    Args:
        stitches, controls: for each stitch and for its control, the images that are identified at
            each layer of the way, (layers, n): 1, 0, or ½ for a tie. Both of a pair are of the same
            images with the same foils, see `src.ood.identifying`.
    """
    pairs = list(zip(stitches, controls, strict=True))
    shares = np.mean([control.mean(1) for control in controls], axis=0)  # (layers,)
    weakest = shares.argmin()
    p_values = [
        mcnemar_p(at_layer, control[weakest]) for stitch, control in pairs for at_layer in stitch
    ]
    p_value = min(1.0, len(shares) * max(p_values))
    return Compared(float(shares[weakest]), p_value)
