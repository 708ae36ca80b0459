"""Images that are decoded batch by batch, by worker processes that live as long as their image set."""

import io
import multiprocessing
import os
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.context import BaseContext
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image, UnidentifiedImageError  # torchvision's own dependency
from torch import Tensor
from torch.utils.data import DataLoader

from src.console import progress
from src.datasets.base import BaseImageSet, BatchSpec, Normalisation, scaled_
from src.datasets.registry import Loading
from src.errors import UserError
from src.runtime import seed_of

warnings.filterwarnings("ignore", "This DataLoader will create")  # more workers than cores

Transform = Callable[[Image.Image], Tensor]  # to uint8 (C, H, W), all of one shape
Key = tuple[int, ...]  # the index of an image and, where it is augmented, seed and epoch


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
        try:
            return Path(self.path(i)).read_bytes()
        except OSError as error:
            raise UserError(f"cannot read {self.path(i)}: {error.strerror or error}") from error


class HeldFiles(EncodedFiles):
    """Files whose contents are held in one block of memory, which forked workers share and others copy.

    Args:
        n_threads: number of files that are read at the same time.
    Raises:
        UserError: they do not fit into the memory, or one cannot be read.
    """

    def __init__(self, paths: Sequence[str], *, n_threads: int):
        super().__init__(paths)
        self._starts = np.cumsum([0, *(os.stat(path).st_size for path in paths)])
        try:
            self._block = np.empty(self._starts[-1], dtype=np.uint8)
        except MemoryError as error:
            size = self._starts[-1] / 2**30
            raise UserError(
                f"{size:.1f} GiB of images do not fit in memory; use -d imagenet, which reads them"
            ) from error
        with ThreadPool(n_threads) as pool:
            done = pool.imap_unordered(self._fill, range(len(self)), chunksize=256)
            for _ in progress(done, "reading images", len(self), unit="file"):
                pass

    def read(self, i: int) -> bytes:
        """Return the content of file i."""
        return self._place(i).tobytes()

    def _place(self, i: int) -> np.ndarray:
        return self._block[self._starts[i] : self._starts[i + 1]]

    def _fill(self, i: int) -> None:
        content = np.frombuffer(super().read(i), dtype=np.uint8)
        if len(content) != len(self._place(i)):
            raise UserError(f"{self.path(i)} changed while it was read; run again when it stays as it is")
        self._place(i)[:] = content


class DecodedImageSet(BaseImageSet):
    """Images in encoded files, delivered in batches of float32 (B, C, H, W), normalised, and int64 (B,).

    The augmentation of an image depends on (seed, epoch, index) alone, not on the workers.

    Args:
        files: one image each.
        labels: whole numbers (N,).
        image_shape: (C, H, W) of an image after `transform` or `augmentation`.
        transform: applied to each image by `batches`.
        augmentation: applied to each image by `epoch`, with random numbers from torch; None: `transform` is.
        normalisation: of values in [0, 1].
        loading: number of workers, and of batches that each prepares ahead.
        n_classes, epoch_size, device: as in BaseImageSet.
    """

    def __init__(
        self,
        files: EncodedFiles,
        labels: Tensor,
        *,
        n_classes: int,
        image_shape: tuple[int, int, int],
        transform: Transform,
        augmentation: Transform | None = None,
        normalisation: Normalisation,
        loading: Loading,
        epoch_size: int | None = None,
        device: torch.device | str = "cpu",
    ):
        super().__init__(labels, n_classes=n_classes, epoch_size=epoch_size, device=device)
        self.files, self.loading, self.normalisation = files, loading, normalisation
        self.transform, self.augmentation = transform, augmentation
        self._image_shape = image_shape
        self._idle: list[DataLoader] = []  # their workers wait for the next pass

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images in a batch."""
        return self._image_shape

    def levels(self, batches: Sequence[BatchSpec]) -> Iterator[Tensor]:
        """Decode the images of each batch in turn: yields uint8 (B, C, H, W) on the CPU.

        Raises:
            UserError: an image cannot be decoded, or a worker was killed.
        """
        loader = self._idle.pop() if self._idle else self._loader()
        loader.batch_sampler.batches = batches
        try:
            for images in loader:
                if isinstance(images, UserError):
                    raise images
                yield images
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise UserError(
                f"a process that decodes images was killed ({' '.join(str(error).split())}); "
                "there may be too little memory: give fewer workers, or a container more /dev/shm"
            ) from error
        else:
            self._idle.append(loader)
        finally:
            del loader  # after a failure, this ends its workers now and not when the traceback is freed

    def _random_parameters(self, order: Tensor, generator: torch.Generator, *, seed: int, epoch: int) -> Tensor | None:
        return torch.tensor([[seed, epoch]]).expand(len(order), 2) if self.augmentation else None

    def _make(self, batches: Sequence[BatchSpec]) -> Iterator[Tensor]:
        for levels in self.levels(batches):  # workers send bytes, a quarter of the size of floats
            yield scaled_(levels.to(self.device, non_blocking=True).float(), self.normalisation)

    def _loader(self) -> DataLoader:
        n_workers, prefetch_factor = self.loading
        options = {"prefetch_factor": prefetch_factor, "persistent_workers": True}
        mode = "RGB" if self.image_shape[0] == 3 else "L"
        return DataLoader(
            _Decoder(self.files, mode, self.transform, self.augmentation),
            batch_sampler=_NextBatches(),
            collate_fn=_as_is,
            num_workers=n_workers,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=_ignore_signals,
            generator=torch.Generator(),  # for seeds that workers do not use: the global generator must not advance
            **(options | {"multiprocessing_context": _context()} if n_workers else {}),
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


class _NextBatches:
    """The sampler of a loader whose workers live on; its batches are set before each pass."""

    batches: Sequence[BatchSpec] = ()

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Key]]:
        for indices, parameters in self.batches:
            randomness = [()] * len(indices) if parameters is None else parameters.tolist()
            yield [(i, *row) for i, row in zip(indices.tolist(), randomness, strict=True)]


class _Decoder:
    """The data set that each worker has: decodes and transforms the images of a list of keys."""

    def __init__(self, files: EncodedFiles, mode: str, transform: Transform, augmentation: Transform | None):
        self.files, self.mode, self.transform, self.augmentation = files, mode, transform, augmentation

    def __getitems__(self, keys: Sequence[Key]) -> Tensor | UserError:
        """Return the images uint8 (B, C, H, W), or an error; the loader would wrap a raised one in a traceback."""
        try:
            return torch.stack([self._image(*key) for key in keys])
        except UserError as error:
            return error

    def _image(self, i: int, *seed_and_epoch: int) -> Tensor:
        content = self.files.read(i)
        try:
            image = Image.open(io.BytesIO(content))
            if image.mode.startswith(("I", "F")):  # PIL would clip their values at 255
                raise ValueError(f"its pixels have more than 8 bits, mode {image.mode}; convert it")
            image = image.convert(self.mode)
        except Exception as error:  # a damaged file can raise anything
            reason = "no image" if isinstance(error, UnidentifiedImageError) else " ".join(str(error).split())
            raise UserError(f"{self.files.path(i)} cannot be decoded ({reason}); restore or remove it") from error
        if not seed_and_epoch:
            return self.transform(image)
        with torch.random.fork_rng(devices=[]):  # torchvision's transforms draw from torch's generator of the CPU
            torch.default_generator.manual_seed(seed_of(*seed_and_epoch, i, 0))  # no other key has four parts
            return self.augmentation(image)


def _as_is(images: Tensor | UserError) -> Tensor | UserError:
    return images


def _ignore_signals(worker: int) -> None:
    """Ignore signals in a worker: the main process handles them and ends its workers."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)
