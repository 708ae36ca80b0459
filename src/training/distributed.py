"""Training of one network in several processes, started by torchrun."""

import contextlib
import os
import time
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from src.core.console import note
from src.core.seeds import seed_of
from src.models import Network
from src.models.outputs import logits_of
from src.training.task import Classification, Head, HeadLosses, classification_losses

PAUSE = 0.5  # seconds, before processes part


class Processes(NamedTuple):
    """The rank of this process, and the number of processes that train together."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0  # on this machine
    local_world_size: int = 1  # processes on this machine


def launched() -> Processes:
    """Read the ranks of this process from torchrun's environment variables."""
    defaults = Processes._field_defaults.items()
    return Processes(**{name: int(os.environ.get(name.upper()) or n) for name, n in defaults})


@contextlib.contextmanager
def joined(processes: Processes, device: torch.device) -> Iterator[None]:
    """Join torchrun's process group while the block runs; a single process joins no group."""
    if processes.world_size == 1:
        yield
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend)
    try:
        yield
    finally:
        # Threads of gloo need Python's lock to free the last tensors. If the group, or Python,
        # ended before they got the lock, the process would hang or abort.
        time.sleep(PAUSE)
    # Not after an error: other processes may be waiting in another operation
    dist.destroy_process_group()


def add_up(values: Tensor) -> Tensor:
    """Add up values over all processes, in place, and return the sums.

    Every process gets the sums. A single process keeps its values.
    """
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(values)
    return values


class DataParallelClassification(Classification):
    """The task of training one network in one process or in several.

    Gradients are the gradients of the mean over the whole batch, however unequal the shares of the
    processes are. The network becomes what one process would make of it, except for rounding and
    for BatchNorm: BatchNorm sees the images of one process at a time.

    Args:
        model: on the device of this process, with equal weights in all processes.
        note_every: note loss and accuracy after so many batches; 0: never.
    """

    def __init__(self, model: Head, processes: Processes, *, note_every: int = 0):
        super().__init__(model)  # `head` is the network without the wrapper, and so are files
        self.processes = processes
        self.note_every = note_every
        self.step = 0
        self.module: nn.Module = model.module if isinstance(model, Network) else model
        self.network: Head = model
        if processes.world_size > 1:
            self.network = DistributedDataParallel(self.module)

    def train(self, mode: bool) -> None:
        """Switch the network between training and evaluation mode.

        For evaluation all processes take over the buffers of the first process, which are saved:
        the statistics of BatchNorm differ between processes.
        """
        self.network.train(mode)
        self.step = 0
        if not mode and self.processes.world_size > 1:
            for buffer in self.head.buffers():
                dist.broadcast(buffer, 0)
        elif self.processes.rank > 0:  # dropout must not be the same in all processes
            torch.manual_seed(seed_of(torch.initial_seed(), self.processes.rank))

    def losses(self, images: Tensor, labels: Tensor, *, training: bool) -> Iterator[HeadLosses]:
        """Yield the loss on the images of this process; arguments as in `Task.losses`.

        The mean of the gradients over processes is the gradient of the whole batch.
        """
        if not training:
            yield from super().losses(images, labels, training=False)
            return
        logits = logits_of(self.network(images))
        head_losses = classification_losses(logits[None], labels)
        n_processes = self.processes.world_size
        if n_processes > 1:  # the wrapper takes the mean over processes, whatever their shares
            n_together = add_up(head_losses.n_samples.clone())
            weight = head_losses.n_samples * n_processes / n_together
            logits.register_hook(lambda gradient: gradient * weight)
        self.step += 1
        if self.note_every and self.step % self.note_every == 0:
            hits, loss, _, n_samples = head_losses.sums()[:, 0].tolist()  # waits once for the GPU
            n = max(1, n_samples)
            note(f"batch {self.step}: loss {loss / n:.4f}, accuracy {hits / n:.2%}")
        yield head_losses
