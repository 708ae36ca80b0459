"""A training under way: its optimiser, its history, and everything else that changes in its course."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from src.distributed import add_up, is_first, lowest
from src.errors import UserError
from src.runtime import random_state, set_random_state
from src.training.task import EpochLog, Part, Score, Sums, Task


class Settings(NamedTuple):
    """How to train; the names are those of the options."""

    n_epochs: int
    batch_size: int
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    scheduler: str = "none"
    reduce_lr_epochs: Sequence[int] = ()
    grad_clip: float | None = None
    seed: int = 0
    momentum: float = 0.0  # of sgd
    reduce_lr_each: str = "epochs"  # what `reduce_lr_epochs` counts: `epochs` or `updates`


class NonFiniteLoss(UserError):
    """A loss is NaN or infinite; what was trained so far is of no use."""


class Course:
    """A training under way: all that changes in its course."""

    def __init__(self, task: Task, settings: Settings, device: torch.device):
        self.task, self.settings, self.device = task, settings, device
        self.optimizer = _optimizer([parameter for head in task.heads for parameter in head.parameters()], settings)
        self.scheduler = _scheduler(self.optimizer, settings)
        self.history: list[list[EpochLog]] = []
        self.random: Mapping[str, Tensor] | None = None
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        self.step = 0  # batches of this epoch that are done
        self.sums = Sums(len(self.task.heads), self.device)
        self.first_bad = torch.full((len(self.task.heads),), 2**62, device=self.device)  # step of a head's first NaN

    def finish_epoch(self, validated: Sequence[Score]) -> None:
        """Take in what the validation gave, and get ready for the next epoch."""
        if self.settings.reduce_lr_each == "epochs":
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Detected call of")  # steps may lie in an earlier process
                self.scheduler.step()
        logs = [EpochLog(*scores) for scores in zip(self.sums.scores(), validated, strict=True)]
        self.history = [*self.history, logs]
        self._begin_epoch()

    def watch(self, part: Part) -> None:
        """Note the step at which a loss was not finite for the first time, without waiting for the device."""
        heads, finite = list(part.heads), part.losses.detach().isfinite()
        first = self.first_bad[heads]
        self.first_bad[heads] = torch.where(finite, first, first.clamp(max=self.step + 1))

    def check_losses(self, epoch: int) -> None:
        """Raise NonFiniteLoss if a loss was not finite in this epoch, here or in another process."""
        step, head = lowest(self.first_bad.clone()).min(0)
        if step.item() <= self.step:
            raise NonFiniteLoss(
                f"epoch {epoch}, step {step.item()}: the loss of {self.task.names[head.item()]} is not finite; "
                "lower -lr, or limit gradients with --grad-clip where there is one"
            )

    def state(self) -> dict[str, Any]:
        """All of it as tensors and plain values; taken after a step, by all processes at once."""
        return {
            "modules": [module.state_dict() for module in self.task.modules],
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "history": [[[list(score) for score in log] for log in logs] for logs in self.history],
            "step": self.step,
            "sums": add_up(self.sums.sums.clone()),
            "random": random_state(self.device),
        }

    def load(self, state: Mapping[str, Any], *, where: Any) -> None:
        """Go back to a state; raises UserError where it does not fit the task."""
        try:
            self._check(state)
            for module, content in zip(self.task.modules, state["modules"], strict=True):
                module.load_state_dict(content)
            self.optimizer.load_state_dict(state["optimizer"])
            self.scheduler.load_state_dict(state["scheduler"])
            self.history = [
                [EpochLog(*(Score(*map(float, score)) for score in log)) for log in logs] for logs in state["history"]
            ]
            self.step = state["step"]
            if is_first():  # the sums are of all processes; what others draw is of their own
                self.random = state["random"]
                self.sums.sums.copy_(state["sums"])
        except Exception as error:  # depends on what is missing or of another kind
            raise UserError(f"{where} does not fit this run; remove it and start anew") from error

    def _check(self, state: Mapping[str, Any]) -> None:
        """Raise ValueError, or whatever it raises, where a state would be taken and fail later."""
        own, given = self.optimizer.state_dict(), state["optimizer"]
        kept = (self.scheduler.state_dict(), *own["param_groups"])
        pairs = zip(kept, (state["scheduler"], *given["param_groups"]), strict=True)
        if not all(_kinds(one) == _kinds(other) for one, other in pairs) or not 0 <= state["step"] < 2**62:
            raise ValueError("values of other kinds")
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        for i, moments in given["state"].items():
            if any(value.shape not in (parameters[i].shape, torch.Size()) for value in moments.values()):
                raise ValueError("values of other shapes")
        if any(len(logs) != len(self.task.heads) for logs in state["history"]):
            raise ValueError("logs of other heads")
        torch.Generator().set_state(state["random"]["cpu"])

    def restore_random_state(self) -> None:
        """Within an epoch that was interrupted, draw on from where it was."""
        if self.step and self.random is not None:
            set_random_state(self.random, self.device)


def _kinds(values: Mapping[str, Any]) -> dict[str, str]:
    """What each value is: a number, or its type."""
    return {key: "number" if type(value) in (int, float) else type(value).__name__ for key, value in values.items()}


def _optimizer(parameters: list[nn.Parameter], settings: Settings) -> torch.optim.Optimizer:
    optimizer = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[settings.optimizer]
    momentum = {"momentum": settings.momentum} if settings.optimizer == "sgd" else {}
    return optimizer(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, **momentum)


def _scheduler(optimizer: torch.optim.Optimizer, settings: Settings) -> torch.optim.lr_scheduler.LRScheduler:
    if settings.scheduler == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, settings.n_epochs))
    return torch.optim.lr_scheduler.MultiStepLR(optimizer, sorted(settings.reduce_lr_epochs), gamma=0.1)
