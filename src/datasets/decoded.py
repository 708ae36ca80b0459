"""Images that are decoded batch by batch, by worker processes."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.context import BaseContext
from typing import Any, NamedTuple

import torch
import torchvision.transforms.functional as TF
from PIL import Image  # torchvision's own dependency
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from src.datasets.base import BaseImageSet, Change, Loading, Pass
from src.ground.errors import UserError
from src.ground.files import readable
from src.ground.runtime import seed_of

SIGNALS = (signal.SIGINT, signal.SIGTERM)
Transform = Callable[[Image.Image], Tensor]  # to uint8 (C, H, W), of one shape for all images


class _Key(NamedTuple):
    """An image to decode."""

    path: str
    position: int  # in the set
    epoch: int
    seed: int | None  # of the augmentation; None: no augmentation


class DecodedImageSet(BaseImageSet):
    """Encoded images, delivered in batches of float32 (B, C, H, W), normalised, and int64 (B,).

    The augmentation of an image depends on (seed, epoch, index) alone, not on the workers.

    Args:
        paths: files of one image each.
        labels: whole numbers (N,).
        transform: applied to each image by `batches`.
        augmentation: applied to each image by `epoch`, with random numbers from torch; None:
            `epoch` applies `transform`.
        loading: number of workers, and of batches that a worker prepares ahead.
        options: as in BaseImageSet; `image_shape` is the shape after `transform` or
            `augmentation`.
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
        self.transform = transform
        self.augmentation = augmentation
        self.loading = loading
        self._kept: dict[int, Tensor] = {}  # decoded images without augmentation, by position

    def __getstate__(self) -> dict[str, object]:
        """Leave decoded images out of copies: interventions change the images of a copy."""
        return super().__getstate__() | {"_kept": {}}

    def levels(self, plan: Pass) -> Iterator[Tensor]:
        """Decode the images of a pass: yields uint8 (B, C, H, W) for each batch, on the CPU.

        Images that are no epoch are kept for further passes, up to `max_bytes_kept`.

        Raises:
            UserError: an image cannot be read, or a worker was killed.
        """
        batches = [plan.indices[rows].tolist() for rows in plan.batches]
        is_epoch = plan.epoch > 0
        if not is_epoch and all(self._kept.keys() >= set(positions) for positions in batches):
            for positions in batches:
                yield torch.stack([self._kept[position] for position in positions])
            return
        for positions, images in zip(batches, self._newly_decoded(plan), strict=True):
            if not is_epoch:
                self._keep(positions, images)
            yield images

    def _keep(self, positions: Sequence[int], images: Tensor) -> None:
        """Keep a batch of decoded images if there is room."""
        n_bytes = len(self._kept) * images[0].nbytes
        if n_bytes + images.nbytes <= self.max_bytes_kept:
            # A copy: the images of a worker lie in shared memory, with an open file for each batch
            self._kept |= dict(zip(positions, images.clone(), strict=True))

    def _newly_decoded(self, plan: Pass) -> Iterator[Tensor]:
        """Yield the images of each batch of a pass, uint8 (B, C, H, W), on the CPU."""
        try:
            # No variable for the loader: a traceback would keep it, and with it the workers
            for images in self._started(plan):
                if isinstance(images, UserError):
                    raise images
                yield images
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise UserError(
                f"a process that decodes images was killed ({error}); there may be too little "
                "memory: give fewer workers, or a container more /dev/shm"
            ) from error

    def levels_of(self, indices: Tensor) -> Tensor:
        decoder = self._decoder()
        keys = [_Key(self.paths[i], i, epoch=0, seed=None) for i in indices.tolist()]
        return torch.stack([decoder.decode(key) for key in keys])

    def _make(self, plan: Pass) -> Iterator[Tensor]:
        for levels in self.levels(plan):  # workers send bytes, a quarter of the size of floats
            yield self._scaled_(levels.to(self.device, non_blocking=True).float())

    def _started(self, plan: Pass) -> Iterator[Tensor | UserError]:
        """Start the workers of a pass; yields its batches."""
        loader = self._loader(plan)
        if loader.num_workers == 0:
            return iter(loader)
        with _signals_wait():  # an interrupted start would leave workers behind
            return iter(loader)

    def _loader(self, plan: Pass) -> DataLoader:
        """Return the loader of a pass; its data set has a whole batch as a sample."""
        options: dict[str, Any] = {}
        n_workers = min(self.loading.n_workers, len(plan.batches))
        if n_workers > 0:
            options = {
                "num_workers": n_workers,
                "prefetch_factor": self.loading.prefetch_factor,
                "multiprocessing_context": _context(),
                "worker_init_fn": _leave_signals,
            }
        return DataLoader(
            self._decoder(),
            batch_size=None,
            sampler=self._keys(plan),
            pin_memory=self.device.type == "cuda",
            # For seeds that workers do not use: the global generator must not advance
            generator=torch.Generator(),
            **options,
        )

    def _decoder(self) -> "_Decoder":
        """Return the part of this set that workers need."""
        mode = "RGB" if self.image_shape[0] == 3 else "L"
        return _Decoder(mode, self.changes, self.transform, self.augmentation)

    def _keys(self, plan: Pass) -> Iterator[list[_Key]]:
        """Yield the keys of the images of each batch of a pass."""
        seed = None
        if self.augmentation is not None and plan.generator is not None:
            seed = plan.seed
        for rows in plan.batches:
            indices = plan.indices[rows].tolist()
            yield [_Key(self.paths[i], i, plan.epoch, seed) for i in indices]


def _context() -> BaseContext:
    """Return the context to start workers in: a fork server, or `spawn` if Python prefers `spawn`.

    Python's preference is `spawn` on macOS, or where the user chose it. Workers are never forks of
    this process: a fork copies the locks that threads hold, and may wait for a lock forever.
    """
    if multiprocessing.get_start_method() == "spawn":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torchvision"])  # imported once, not in each worker
    return context


@contextlib.contextmanager
def _signals_wait() -> Iterator[None]:
    """Let signals wait while the block runs. Processes that start in the block never see SIGINT.

    Python handles signals in the main thread only: they interrupt no other thread.
    """
    resource_tracker.ensure_running()  # when it starts it unblocks SIGINT
    waiting: list[int] = []
    handlers = {}
    interrupting = SIGNALS if threading.current_thread() is threading.main_thread() else ()
    for number in interrupting:
        handlers[number] = signal.signal(number, lambda received, _: waiting.append(received))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # processes inherit it
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for received in waiting:
            signal.raise_signal(received)


@dataclass
class _Decoder(Dataset):
    """The data set of a worker: decodes, changes and transforms images."""

    mode: str  # PIL's name of the colours
    changes: Sequence[Change]
    transform: Transform
    augmentation: Transform | None

    def __getitem__(self, keys: Sequence[_Key]) -> Tensor | UserError:
        """Return images uint8 (B, C, H, W), or an error.

        The loader would wrap an error that is raised here in a traceback.
        """
        try:
            return torch.stack([self.decode(key) for key in keys])
        except UserError as error:
            return error

    def decode(self, key: _Key) -> Tensor:
        """Return an image uint8 (C, H, W)."""
        with readable(key.path, "restore or remove it"), Image.open(key.path) as file:
            if file.mode.startswith(("I", "F")):  # PIL would clip their values at 255
                raise ValueError(f"its pixels have more than 8 bits, mode {file.mode}; convert it")
            image = file.convert(self.mode)
        if self.changes:
            levels = TF.pil_to_tensor(image)[None]
            position = torch.tensor([key.position])
            for change in self.changes:
                levels = change(levels, position, epoch=key.epoch)
            image = TF.to_pil_image(levels[0])
        if key.seed is None or self.augmentation is None:
            return self.transform(image)

        # torchvision's transforms draw from torch's generator of the CPU
        with torch.random.fork_rng(devices=[]):
            # Keys of four numbers are used here only
            torch.default_generator.manual_seed(seed_of(key.seed, key.epoch, key.position, 0))
            return self.augmentation(image)


def _leave_signals(worker: int) -> None:
    """Leave SIGINT to the main process, and end at its SIGTERM without an error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
