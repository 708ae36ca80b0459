"""Training of one network by several processes, each on its share of every batch."""

import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from src.distributed import Processes, add_up, copy_from_first
from src.report import note
from src.runtime import seed_of
from src.training import Classification, Part, part_of

warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")  # of little consequence


class DataParallelClassification(Classification):
    """The task of training one network in several processes, or in one.

    Gradients are those of the mean over the whole batch, however unequal the shares: but for rounding, and for
    BatchNorm, which sees the images of one process at a time, the network becomes what one process would make of it.

    Args:
        model: on the device of this process, with equal weights in all of them.
        amp: compute in bfloat16 while training, where torch thinks it safe; validation is in float32.
        note_every: batches after which to note how training goes; 0: never.
    """

    def __init__(self, model: nn.Module, processes: Processes = Processes(), *, amp: bool = False, note_every: int = 0):  # noqa: B008
        super().__init__(model)
        self.processes, self.amp, self.note_every, self.step = processes, amp, note_every, 0
        # `heads` keeps the network itself, whose state dict knows nothing of this wrapper
        self.network = DistributedDataParallel(model) if processes.size > 1 else model

    def train(self, mode: bool) -> None:
        self.network.train(mode)
        self.step = 0
        if not mode:  # each process has statistics of its own; those of the first are saved
            copy_from_first(self.heads[0].buffers())
        elif self.processes.rank:  # so that dropout is not the same in all of them
            torch.manual_seed(seed_of(torch.initial_seed(), self.processes.rank))

    def parts(self, images: Tensor, labels: Tensor, *, training: bool) -> Iterator[Part]:
        if not training:
            yield from super().parts(images, labels, training=False)
            return
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.amp):
            logits = self.network(images).float()
        part = part_of([0], logits[None], labels)
        if self.processes.size > 1:  # the wrapper takes the mean over processes, whatever their shares
            weight = part.n_samples * self.processes.size / add_up(part.n_samples.clone())
            logits.register_hook(lambda gradient: gradient * weight)
        self.step += 1
        if self.note_every and self.step % self.note_every == 0:
            correct = part.n_correct.item() / max(1, part.n_samples.item())
            note(f"batch {self.step}: loss {part.losses.item():.4f}, accuracy {correct:.2%}")
        yield part
