"""Trains one network in the processes that torchrun started: ranks, process group, sums, and the
task."""

import contextlib
import os
import time
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from src.console import note
from src.models import Network
from src.models.outputs import logits_of
from src.runtime import seed_of
from src.training.task import Classification, HeadLosses, classification_losses

PAUSE = 0.5  # seconds, before processes part


class Processes(NamedTuple):
    """Rank of this process and number of processes that train together."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0  # among those on this machine
    local_world_size: int = 1


def launched() -> Processes:
    """Read who this process is from torchrun's environment."""
    given = {name: os.environ.get(name.upper()) for name in Processes._fields}
    return Processes(**{name: int(number) for name, number in given.items() if number})


@contextlib.contextmanager
def joined(processes: Processes, device: torch.device) -> Iterator[None]:
    """Join torchrun's process group while the block runs; a single process does nothing."""
    if processes.world_size == 1:
        yield
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        # Threads of gloo need Python's lock to free the last tensors. If the group, or Python,
        # ended before they got it, the process would hang or abort.
        time.sleep(PAUSE)
    # not after an error: other processes may be waiting in another operation
    dist.destroy_process_group()


def add_up(values: Tensor) -> Tensor:
    """Return the sum over all processes, in place and in each of them; alone, the values
    themselves."""
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(values)
    return values


class DataParallelClassification(Classification):
    """The task of training one network in several processes, or in one.

    Gradients are those of the mean over the whole batch, however unequal the shares: but for
    rounding, and for BatchNorm, which sees the images of one process at a time, the network becomes
    what one process would make of it.

    Args:
        model: on the device of this process, with equal weights in all of them.
        note_every: batches after which to note how training goes; 0: never.
    """

    def __init__(self, model: Network | nn.Module, processes: Processes, *, note_every: int = 0):
        super().__init__(
            model
        )  # `heads` keeps the network itself, whose state dict knows nothing of the wrapper
        self.processes, self.note_every, self.step = processes, note_every, 0
        self.module = model if isinstance(model, nn.Module) else model.module
        self.network = DistributedDataParallel(self.module) if processes.world_size > 1 else model

    def train(self, mode: bool) -> None:
        """Switch the network; for evaluation all processes take over the buffers of the first."""
        self.network.train(mode)
        self.step = 0
        if (
            not mode and self.processes.world_size > 1
        ):  # each has statistics of its own; those of the first are saved
            for buffer in self.heads[0].buffers():
                dist.broadcast(buffer, 0)
        elif self.processes.rank:  # so that dropout is not the same in all of them
            torch.manual_seed(seed_of(torch.initial_seed(), self.processes.rank))

    def losses(self, images: Tensor, labels: Tensor, *, training: bool) -> Iterator[HeadLosses]:
        """Yield the loss on this process's shard; gradients then add up to those of the whole
        batch."""
        if not training:
            yield from super().losses(images, labels, training=False)
            return
        logits = logits_of(self.network(images))
        group = classification_losses(logits[None], labels)
        if (
            self.processes.world_size > 1
        ):  # the wrapper takes the mean over processes, whatever their shares
            weight = group.n_samples * self.processes.world_size / add_up(group.n_samples.clone())
            logits.register_hook(lambda gradient: gradient * weight)
        self.step += 1
        if self.note_every and self.step % self.note_every == 0:
            hits, loss, _, n_samples = group.sums()[:, 0].tolist()  # waits once
            n_samples = max(1, n_samples)
            note(f"batch {self.step}: loss {loss / n_samples:.4f}, accuracy {hits / n_samples:.2%}")
        yield group
