"""Direct matching of two activations, and the images that a pair of layers is matched on; see `closed_forms`."""

from collections.abc import Iterable

from torch import Tensor

from src.choices.stitching import FORMS
from src.console import warn
from src.datasets.base import BaseImageSet
from src.errors import UserError
from src.stitching.closed_forms import Cutoff, Matching, closed_form
from src.stitching.moments import SourceMoments, Target

__all__ = ["Matching", "direct_matching", "matching_batches", "n_fitted", "split_last_fifth"]


def direct_matching(source: Tensor, target: Tensor, *, form: str = "pinv", cutoff: Cutoff = "paper") -> Matching:
    """Match two activations of the same samples and positions.

    Args:
        source: (B, C1, H, W), (B, T, C1) or (B, C1).
        target: (B, C2, H, W), (B, T, C2) or (B, C2), with the positions of `source`.
        form: `pinv` (least squares), `repair`, `covariance`, `ortho` or `ridge`, whose penalty the last fifth of the
            samples judges.
        cutoff: of the singular values of [X 1] for `pinv` and `repair`: `paper`, `exact`, or a number relative to the
            largest one; see `relative_cutoff`.
    Raises:
        ValueError: the positions differ, an activation is not finite, or there is no such form or cutoff.
    """
    if form not in FORMS:
        raise ValueError(f"there is no form {form}; choose one of {', '.join(FORMS)}")

    def moments_of(samples: slice) -> SourceMoments:
        batch = Target.of(target[samples], full=FORMS[form].target_scatter)
        return SourceMoments.of(source[samples], {"target": batch})

    n = n_fitted(len(source)) if FORMS[form].held_out else len(source)
    held_out = moments_of(slice(n, None)) if FORMS[form].held_out else None
    return closed_form(form, moments_of(slice(n)), held_out, cutoff=cutoff)["target"]


def n_fitted(n: int) -> int:
    """Return how many of n samples the penalties of ridge are tried on: all but the last fifth, which judges them."""
    return n - max(1, n // 5)


def split_last_fifth(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Split samples (n,) into those that the penalties of ridge are tried on and the last fifth, which judges them.

    Raises:
        UserError: there are fewer than two.
    """
    if len(samples) < 2:
        raise UserError(f"-i ridge needs at least two samples, not {len(samples)}; raise -pinv-samples")
    return samples[: n_fitted(len(samples))], samples[n_fitted(len(samples)) :]


def matching_batches(
    train_set: BaseImageSet, n: int, batch_size: int, *, seed: int, hold_out: bool = False
) -> list[Iterable[tuple[Tensor, Tensor]]]:
    """Batches of the n training images to match on, not augmented: the first n of one shuffled pass.

    Args:
        hold_out: return those of the last fifth apart.
    Raises:
        UserError: as for `split_last_fifth`.
    """
    samples = train_set.permutation(seed)[:n]
    if len(samples) < n:
        warn(f"-pinv-samples {n}: there are only {len(samples)} training images")
    parts = split_last_fifth(samples) if hold_out else [samples]
    return [train_set.batches(batch_size, indices=part) for part in parts]
