"""Images that are decoded batch by batch, by worker processes."""

import io
import multiprocessing
import os
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.context import BaseContext
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torchvision.transforms.functional as TF
from PIL import Image, UnidentifiedImageError  # torchvision's own dependency
from torch import Tensor
from torch.utils.data import DataLoader

from src.console import progress
from src.datasets.base import BaseImageSet, BatchSpec, Change, apply_changes, scaled_
from src.datasets.registry import Loading
from src.errors import UserError
from src.files import readable
from src.runtime import seed_of

warnings.filterwarnings("ignore", "This DataLoader will create")  # more workers than cores

MISSING = "restore or remove it"
Transform = Callable[[Image.Image], Tensor]  # to uint8 (C, H, W), all of one shape
Key = tuple[int, ...]  # the index of an image, the epoch and, where it is augmented, the seed


class EncodedFiles:
    """Files by index, each read when it is needed.

    The paths are one array, which forked workers share. They would copy a list, as reading it changes its reference
    counts.
    """

    def __init__(self, paths: Sequence[str]):
        self._paths = np.array([os.fsencode(path) for path in paths])

    def __len__(self) -> int:
        return len(self._paths)

    def path(self, i: int) -> str:
        """Return the path of file i."""
        return os.fsdecode(self._paths[i])

    def read(self, i: int) -> bytes:
        """Return the content of file i.

        Raises:
            UserError: it cannot be read.
        """
        with readable(self.path(i), MISSING):
            return Path(self.path(i)).read_bytes()


class HeldFiles(EncodedFiles):
    """Files whose contents are held in memory, which forked workers share and others copy.

    Args:
        n_threads: number of files that are read at the same time.
    Raises:
        UserError: they do not fit into the memory, or one cannot be read.
    """

    def __init__(self, paths: Sequence[str], *, n_threads: int):
        super().__init__(paths)
        needed, memory = sum(map(os.path.getsize, paths)), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if needed > memory:
            size = needed / 2**30
            raise UserError(f"{size:.1f} GiB of images do not fit in memory; use -d imagenet, which reads them")
        with ThreadPool(n_threads) as pool:
            contents = pool.imap(super().read, range(len(paths)), chunksize=256)
            contents = progress(contents, "reading images", len(paths), unit="file")
            # as arrays: reading one leaves its pages as they are, while bytes have a reference count in front of them
            self._contents = [np.frombuffer(content, dtype=np.uint8) for content in contents]

    def read(self, i: int) -> bytes:
        """Return the content of file i."""
        return self._contents[i].tobytes()


class DecodedImageSet(BaseImageSet):
    """Images in encoded files, delivered in batches of float32 (B, C, H, W), normalised, and int64 (B,).

    The augmentation of an image depends on (seed, epoch, index) alone, not on the workers.

    Args:
        files: one image each.
        labels: whole numbers (N,).
        transform: applied to each image by `batches`.
        augmentation: applied to each image by `epoch`, with random numbers from torch; None: `transform` is.
        loading: number of workers, and of batches that each prepares ahead.
        options: as in BaseImageSet; `image_shape` is that after `transform` or `augmentation`.
    """

    def __init__(
        self,
        files: EncodedFiles,
        labels: Tensor,
        *,
        transform: Transform,
        augmentation: Transform | None = None,
        loading: Loading,
        **options: Any,
    ):
        super().__init__(labels, **options)
        self.files, self.loading = files, loading
        self.transform, self.augmentation = transform, augmentation

    def levels(self, batches: Sequence[BatchSpec]) -> Iterator[Tensor]:
        """Decode the images of each batch in turn: yields uint8 (B, C, H, W) on the CPU.

        Raises:
            UserError: an image cannot be decoded, or a worker was killed.
        """
        try:
            for images in self._loader(batches):
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

    def _random_parameters(self, order: Tensor, generator: torch.Generator, *, seed: int, epoch: int) -> Tensor | None:
        return torch.tensor([[seed]]).expand(len(order), 1) if self.augmentation else None

    def _make(self, batches: Sequence[BatchSpec]) -> Iterator[Tensor]:
        for levels in self.levels(batches):  # workers send bytes, a quarter of the size of floats
            yield scaled_(levels.to(self.device, non_blocking=True).float(), self.normalisation)

    def _loader(self, batches: Sequence[BatchSpec]) -> DataLoader:
        n_workers, prefetch_factor = self.loading
        options = {
            "num_workers": n_workers,
            "prefetch_factor": prefetch_factor,
            "multiprocessing_context": _context(),
            "worker_init_fn": _ignore_signals,
        }
        mode = "RGB" if self.image_shape[0] == 3 else "L"
        return DataLoader(
            _Decoder(self.files, mode, self.changes, self.transform, self.augmentation),
            batch_size=None,  # each sample is a batch already
            sampler=_keys(batches),
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # for seeds that workers do not use: the global generator must not advance
            **(options if n_workers else {}),
        )


def _context() -> BaseContext:
    """Choose how workers start: as forks, which share the memory of this process, or from a fork server.

    A process group runs threads of its own. A fork copies the locks that they hold, and then waits for them forever.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return multiprocessing.get_context("fork")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torchvision"])  # imported once and not in each worker
    return context


def _keys(batches: Sequence[BatchSpec]) -> Iterator[list[Key]]:
    """Yield for each batch what `_Decoder` makes it from."""
    for indices, parameters, epoch in batches:
        randomness = [()] * len(indices) if parameters is None else parameters.tolist()
        yield [(i, epoch, *row) for i, row in zip(indices.tolist(), randomness, strict=True)]


class _Decoder:
    """The data set that each worker has: decodes, changes and transforms the images of a list of keys."""

    def __init__(
        self,
        files: EncodedFiles,
        mode: str,
        changes: Sequence[Change],
        transform: Transform,
        augmentation: Transform | None,
    ):
        self.files, self.mode, self.changes = files, mode, changes
        self.transform, self.augmentation = transform, augmentation

    def __getitem__(self, keys: Sequence[Key]) -> Tensor | UserError:
        """Return the images uint8 (B, C, H, W), or an error; the loader would wrap a raised one in a traceback."""
        try:
            return torch.stack([self._image(*key) for key in keys])
        except UserError as error:
            return error

    def _image(self, i: int, epoch: int = 0, seed: int | None = None) -> Tensor:
        with readable(self.files.path(i), MISSING):
            try:
                image = Image.open(io.BytesIO(self.files.read(i)))
            except UnidentifiedImageError as error:  # its text is about the bytes in memory
                raise ValueError("not an image of a known format") from error
            if image.mode.startswith(("I", "F")):  # PIL would clip their values at 255
                raise ValueError(f"its pixels have more than 8 bits, mode {image.mode}; convert it")
            image = image.convert(self.mode)
        if self.changes:
            levels = apply_changes(self.changes, TF.pil_to_tensor(image)[None], torch.tensor([i]), epoch=epoch)
            image = TF.to_pil_image(levels[0])
        if seed is None:
            return self.transform(image)
        with torch.random.fork_rng(devices=[]):  # torchvision's transforms draw from torch's generator of the CPU
            torch.default_generator.manual_seed(seed_of(seed, epoch, i, 0))  # no other key has four parts
            return self.augmentation(image)


def _ignore_signals(worker: int) -> None:
    """Ignore signals in a worker: the main process handles them and ends its workers."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)
