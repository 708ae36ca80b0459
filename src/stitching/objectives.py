"""The losses that stitching layers are trained on beside the cross-entropy; `LOSSES` lists them.

Each compares the activation of the stitched network at a layer with the end network's own. Losses
work on one pair, and on P pairs at once, whose stitched tensors have one axis more, in front. No
gradient reaches the end network's activations."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import kl_div

from src.choices.stitching import AT_END, OBJECTIVES, PLACES, Objective
from src.errors import UserError
from src.runtime import at_least_single
from src.user_code import by_title, failing_as_user_error, is_user_code, load


def soft_label_loss(stitched_logits: Tensor, end_logits: Tensor) -> Tensor:
    """KL(softmax g(x) ‖ softmax h(x)), the mean over the batch (Csiszárik et al. 2021, arXiv
    2110.14633).

    Args:
        stitched_logits: (B, n_classes), or (P, B, n_classes).
        end_logits: (B, n_classes).
    Returns:
        A scalar, or (P,).
    """
    if stitched_logits.shape[-2:] != end_logits.shape:
        raise ValueError(
            f"logits {tuple(stitched_logits.shape)} cannot be compared with {tuple(end_logits.shape)}"
        )
    expected = at_least_single(end_logits.detach()).log_softmax(-1)
    given = at_least_single(stitched_logits).log_softmax(-1)
    return kl_div(given, expected, reduction="none", log_target=True).sum(-1).mean(-1)


def hint_loss(stitched: Tensor, target: Tensor) -> Tensor:
    """Return the relative distance ‖h − g‖ / ‖g‖ (not squared) over the batch; 0 where the target
    is all zeros.

    Args:
        stitched: (B, …), or (P, B, …).
        target: (B, …).
    Returns:
        A scalar, or (P,).
    """
    squares, norm = (
        _squares(stitched, target).sum(-1),
        at_least_single(target.detach()).square().sum(),
    )
    defined = (squares != 0) & (norm != 0)  # the root has no gradient at 0
    ratio = squares / torch.where(norm == 0, 1, norm)
    return torch.where(defined, torch.where(defined, ratio, 1).sqrt(), 0)


def functional_loss(stitched: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """Functional latent alignment (arXiv 2505.20142): the mean of `hint_loss` over several layers.

    Args:
        stitched: for each layer (B, …), or (P, B, …).
        targets: for each layer (B, …).
    Returns:
        A scalar, or (P,).
    """
    return torch.stack([hint_loss(*pair) for pair in zip(stitched, targets, strict=True)]).mean(0)


def feature_loss(stitched: Tensor, target: Tensor) -> Tensor:
    """Feature matching (arXiv 2603.12433): the mean squared difference over all elements; shapes as
    in `hint_loss`."""
    return _squares(stitched, target).mean(-1)


# From stitched (P, B, …) and own (B, …) activations at a layer to (P,); of several layers the mean
# counts
LOSSES = {"soft": soft_label_loss, "hint": hint_loss, "feature": feature_loss}
Loss = Callable[[Tensor, Tensor], Tensor]


def objective_of(name: str) -> Objective:
    """Return an objective by its name in `OBJECTIVES`, or as a user's function.

    Args:
        name: FILE.py:FUNCTION or package.module:function of a loss (stitched, own) -> (P,), see `LOSSES`.
            An attribute `at` of the function says where activations are compared, see `PLACES`.
    Raises:
        UserError: the code fails, the function has the name of another objective, or its `at` is wrong.
    """
    by_title([name], taken=OBJECTIVES, kind="objective")
    if not is_user_code(name):
        return OBJECTIVES[name]
    at = getattr(load(name), "at", "end")
    if at not in PLACES:
        raise UserError(f"{name}: at is {at!r}; give one of {', '.join(PLACES)}")
    place = PLACES[at]
    return Objective("a function of a user's code", name, place, place != AT_END)


def loss_of(objective: Objective) -> Loss:
    """Return the loss (stitched, own) -> (P,) of an objective that compares activations."""
    if not is_user_code(objective.loss):
        return LOSSES[objective.loss]
    function = load(objective.loss)

    def loss(stitched: Tensor, own: Tensor) -> Tensor:
        with failing_as_user_error(objective.loss):
            losses = function(at_least_single(stitched), at_least_single(own.detach()))
        shape = tuple(getattr(losses, "shape", ()))
        n_stitches = len(stitched)
        if shape != (n_stitches,):
            raise UserError(
                f"{objective.loss} returns shape {shape} for {n_stitches} stitches; let it return a "
                f"loss for each, ({n_stitches},)"
            )
        return losses

    return loss


def _squares(stitched: Tensor, target: Tensor) -> Tensor:
    """Squared differences (n,), or (P, n), in single precision at least."""
    if stitched.shape[-target.ndim :] != target.shape:
        raise ValueError(
            f"activations {tuple(stitched.shape)} cannot be compared with a target {tuple(target.shape)}"
        )
    return (
        (at_least_single(stitched) - at_least_single(target.detach()))
        .flatten(-target.ndim)
        .square()
    )
