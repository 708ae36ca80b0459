"""The objectives of training stitching layers, and their losses beside the cross-entropy.

A loss compares an activation of the stitched network with the activation of the end network at the
same layer. It takes the stitched tensor (or array) of one pair, or of P pairs with an axis of pairs
in front. No gradient reaches the end network's activations.
"""

import functools
import pkgutil
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import kl_div

from src.core.activations import at_least_single
from src.core.choices.stitching import AT_END, AT_LOGITS, FROM_END, OBJECTIVES, Objective
from src.core.errors import UserError
from src.core.ownership import call_on_copies
from src.core.user_code import by_title, failing_as_user_error, is_user_code, load, title_of


def soft_label_loss(stitched_logits: Tensor, end_logits: Tensor) -> Tensor:
    """Return KL(softmax g(x) ‖ softmax h(x)), the mean over the batch, as a scalar or (P,).

    Here h is the stitched network and g the end network (Csiszárik et al. 2021, arXiv 2110.14633).

    Args:
        stitched_logits: (B, n_classes), or (P, B, n_classes).
        end_logits: (B, n_classes).
    """
    if stitched_logits.shape[-2:] != end_logits.shape:
        raise ValueError(
            f"logits {tuple(stitched_logits.shape)} cannot be compared with {tuple(end_logits.shape)}"
        )
    end_log_probabilities = at_least_single(end_logits).detach().log_softmax(-1)
    log_probabilities = at_least_single(stitched_logits).log_softmax(-1)
    divergences = kl_div(
        log_probabilities, end_log_probabilities, reduction="none", log_target=True
    )
    return divergences.sum(-1).mean(-1)


def hint_loss(stitched: Tensor, target: Tensor) -> Tensor:
    """Return the relative distance ‖h − g‖ / ‖g‖ (not squared) over the batch, as a scalar or (P,).

    It is 0 for a target of zeros.

    Args:
        stitched: (B, …), or (P, B, …).
        target: (B, …).
    """
    squared_distance = _squares(stitched, target).sum(-1)
    squared_norm = at_least_single(target).detach().square().sum()

    # The root has no gradient at 0
    is_positive = (squared_distance != 0) & (squared_norm != 0)
    ratio = squared_distance / torch.where(squared_norm == 0, 1, squared_norm)
    return torch.where(is_positive, torch.where(is_positive, ratio, 1).sqrt(), 0)


def functional_loss(stitched: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """Return the mean of `hint_loss` over several layers, as a scalar or (P,).

    This is functional latent alignment (arXiv 2505.20142).

    Args:
        stitched: (B, …), or (P, B, …), for each layer.
        targets: (B, …) for each layer.
    """
    losses = [hint_loss(value, target) for value, target in zip(stitched, targets, strict=True)]
    return torch.stack(losses).mean(0)


def feature_loss(stitched: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared difference over all elements; shapes as in `hint_loss`.

    This is feature matching (arXiv 2603.12433).
    """
    return _squares(stitched, target).mean(-1)


# Takes the activations (P, B, …) of stitched networks and (B, …) of the end network at a layer;
# returns (P,)
Loss = Callable[[Tensor, Tensor], Tensor]

# Where a user's loss compares activations, by the attribute `at` of its function
PLACES = {"end": AT_END, "blocks": FROM_END, "logits": AT_LOGITS}


def objective_of(name: str) -> Objective:
    """Return an objective of `OBJECTIVES`, or the objective of a user's function.

    Args:
        name: a key of `OBJECTIVES`; or FILE.py:FUNCTION of a `Loss`. An
            attribute `at` of the function, a key of `PLACES`, names the layers to compare.

    Raises:
        UserError: the code fails, the function has the name of an objective, or its `at` is no
            place.
    """
    if name in OBJECTIVES:
        return OBJECTIVES[name]
    by_title([name], taken=OBJECTIVES, noun="objective")
    at = getattr(load(name), "at", "end")
    if not isinstance(at, str) or at not in PLACES:
        raise UserError(f"{name}: at is {at!r}; give one of {', '.join(PLACES)}")
    return Objective(title_of(name), name, PLACES[at], measures_accuracy=at != "end")


def loss_of(objective: Objective) -> Loss:
    """Return the loss of an objective that compares activations; of several layers, the mean counts.

    The loss of a user's code raises a UserError where the code fails, returns another shape, or
    returns a loss without a gradient.
    """
    if not is_user_code(objective.loss):
        return pkgutil.resolve_name(objective.loss)
    return functools.partial(_loss_by_user, objective.loss, load(objective.loss))


def _loss_by_user(name: str, function: Loss, stitched: Tensor, target: Tensor) -> Tensor:
    """Return the losses (P,) that a user's function gives."""
    with failing_as_user_error(name):
        losses = call_on_copies(
            function, at_least_single(stitched), at_least_single(target).detach()
        )
    shape = tuple(getattr(losses, "shape", ()))
    n_stitches = len(stitched)
    if shape != (n_stitches,):
        raise UserError(
            f"{name} returns shape {shape} for {n_stitches} stitches; let it return a loss for each, ({n_stitches},)"
        )
    if stitched.requires_grad and not losses.requires_grad:
        raise UserError(
            f"{name} returns a loss without a gradient; compute it from the stitched activations by functions of "
            "torch, without detach() and no_grad()"
        )
    return losses


def _squares(stitched: Tensor, target: Tensor) -> Tensor:
    """Return the squared differences of all elements, (n,) or (P, n), in float32 or float64."""
    if stitched.shape[-target.ndim :] != target.shape:
        raise ValueError(
            f"activations {tuple(stitched.shape)} cannot be compared with a target"
            f" {tuple(target.shape)}"
        )
    differences = at_least_single(stitched) - at_least_single(target).detach()
    return differences.flatten(-target.ndim).square()
