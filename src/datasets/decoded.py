"""Images that are decoded batch by batch, by worker processes."""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.context import BaseContext
from typing import Any

import torch
import torchvision.transforms.functional as TF
from PIL import Image  # torchvision's own dependency
from torch import Tensor
from torch.utils.data import DataLoader

from src.datasets.base import BaseImageSet, Change, Loading, Pass, apply_changes
from src.errors import UserError
from src.files import readable
from src.runtime import seed_of

SIGNALS = (signal.SIGINT, signal.SIGTERM)
Transform = Callable[[Image.Image], Tensor]  # to uint8 (C, H, W), all of one shape


class DecodedImageSet(BaseImageSet):
    """Images in encoded files, delivered in batches of float32 (B, C, H, W), normalised, and int64
    (B,).

    The augmentation of an image depends on (seed, epoch, index) alone, not on the workers.

    Args:
        paths: files of one image each.
        labels: whole numbers (N,).
        transform: applied to each image by `batches`.
        augmentation: applied to each image by `epoch`, with random numbers from torch; None: `transform` is.
        loading: number of workers, and of batches that each prepares ahead.
        options: as in BaseImageSet; `image_shape` is that after `transform` or `augmentation`.
    """

    def __init__(
        self,
        paths: Sequence[str],
        labels: Tensor,
        *,
        transform: Transform,
        augmentation: Transform | None = None,
        loading: Loading,
        **options: Any,
    ):
        super().__init__(labels, **options)
        self.paths = paths
        self.transform, self.augmentation, self.loading = transform, augmentation, loading

    def levels(self, plan: Pass) -> Iterator[Tensor]:
        """Decode the images of each batch of a pass in turn: yields uint8 (B, C, H, W) on the
        CPU."""
        try:
            for images in self._started(
                plan
            ):  # no variable: a traceback would keep it, and with it the workers
                if isinstance(images, UserError):
                    raise images
                yield images
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise UserError(
                f"a process that decodes images was killed ({error}); "
                "there may be too little memory: give fewer workers, or a container more /dev/shm"
            ) from error

    def _make(self, plan: Pass) -> Iterator[Tensor]:
        for levels in self.levels(plan):  # workers send bytes, a quarter of the size of floats
            yield self._scaled_(levels.to(self.device, non_blocking=True).float())

    def _started(self, plan: Pass) -> Iterator[Tensor | UserError]:
        """Start the workers of a pass."""
        with _signals_wait():  # an interrupted start would leave workers behind
            return iter(self._loader(plan))

    def _loader(self, plan: Pass) -> DataLoader:
        n_workers = min(self.loading.n_workers, len(plan.batches))
        of_workers = {
            "num_workers": n_workers,
            "prefetch_factor": self.loading.prefetch_factor,
            "multiprocessing_context": _context(),
            "worker_init_fn": _leave_signals,
        }
        mode = "RGB" if self.image_shape[0] == 3 else "L"
        of_all = (plan.epoch, plan.seed) if self.augmentation and plan.generator else (plan.epoch,)
        return DataLoader(
            _Decoder(mode, self.changes, self.transform, self.augmentation),
            batch_size=None,  # each sample is a batch already
            sampler=(
                [(self.paths[i], i, *of_all) for i in plan.indices[rows].tolist()]
                for rows in plan.batches
            ),
            pin_memory=self.device.type == "cuda",
            # for seeds that workers do not use: the global generator must not advance
            generator=torch.Generator(),
            **(of_workers if n_workers else {}),
        )


def _context() -> BaseContext:
    """Choose how workers start: from a fork server, or by `spawn` where that is Python's choice
    (macOS) or the user's.

    Never as forks of this process: a fork copies the locks that its threads hold, and may wait for
    them forever."""
    if multiprocessing.get_start_method() == "spawn":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torchvision"])  # imported once and not in each worker
    return context


@contextlib.contextmanager
def _signals_wait() -> Iterator[None]:
    """Let signals wait while the block runs. Processes that start in it never see SIGINT."""
    resource_tracker.ensure_running()  # when it starts it unblocks SIGINT
    held: list[int] = []
    handlers = {
        signum: signal.signal(signum, lambda number, _: held.append(number)) for signum in SIGNALS
    }
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # processes inherit it
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
        for signum in held:
            signal.raise_signal(signum)


@dataclass
class _Decoder:
    """The data set that each worker has: decodes, changes and transforms images."""

    mode: str
    changes: Sequence[Change]
    transform: Transform
    augmentation: Transform | None

    def __getitem__(self, keys: Sequence[tuple[str | int, ...]]) -> Tensor | UserError:
        """Return the images uint8 (B, C, H, W), or an error; the loader would wrap a raised one in
        a traceback.

        Args:
            keys: of each image the path, the index, the epoch and, where it is augmented, the seed.
        """
        try:
            return torch.stack([self._image(*key) for key in keys])
        except UserError as error:
            return error

    def _image(self, path: str, i: int, epoch: int, seed: int | None = None) -> Tensor:
        with readable(path, "restore or remove it"), Image.open(path) as file:
            if file.mode.startswith(("I", "F")):  # PIL would clip their values at 255
                raise ValueError(f"its pixels have more than 8 bits, mode {file.mode}; convert it")
            image = file.convert(self.mode)
        if self.changes:
            levels = apply_changes(
                self.changes, TF.pil_to_tensor(image)[None], torch.tensor([i]), epoch=epoch
            )
            image = TF.to_pil_image(levels[0])
        if seed is None:
            return self.transform(image)
        with torch.random.fork_rng(
            devices=[]
        ):  # torchvision's transforms draw from torch's generator of the CPU
            torch.default_generator.manual_seed(
                seed_of(seed, epoch, i, 0)
            )  # no other key has four parts
            return self.augmentation(image)


def _leave_signals(worker: int) -> None:
    """Leave signals that reach a worker too to the main process; end without an error where it ends
    its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
