"""Images that are decoded batch by batch, by worker processes that live as long as their set."""

import contextlib
import io
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence

import torch
import torchvision.transforms.functional as TF
from PIL import Image, UnidentifiedImageError  # torchvision's own dependency
from torch import Tensor
from torch.utils.data import DataLoader

from src.datasets.base import BaseImageSet, Wanted
from src.datasets.encoded import EncodedFiles
from src.datasets.pixels import to_unit_range_
from src.datasets.registry import Loading
from src.errors import UserError
from src.runtime import seed_of

warnings.filterwarnings("ignore", "This DataLoader will create")  # more workers than cores

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF", "GIF")  # PIL knows others, for which it starts programs
MAX_RATIO = 100  # of the sides of an image
PATIENCE = 30  # seconds that a worker lives on after SIGTERM

Transform = Callable[[Image.Image], Tensor]  # to uint8 (C, H, W), all of one shape
Key = tuple[int, ...]  # the number of an image and, if it is to be augmented, seed and epoch


class DecodedImageSet(BaseImageSet):
    """Images in encoded files, delivered in batches of float32 (B, C, H, W), normalised, and int64 (B,).

    The augmentation of an image depends on (seed, epoch, its number) alone, not on the workers.

    Args:
        files: one image each.
        labels: whole numbers (N,).
        image_shape: (C, H, W) of what the transforms make.
        transform: what is done to images without augmentation.
        augmentation: what `epoch` does to them instead, with random numbers from torch; None: the same.
        mean, std: of each channel, of values in [0, 1].
        loading: processes and the batches that each prepares ahead.
        epoch_size, device: as in BaseImageSet.
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
        mean: Sequence[float],
        std: Sequence[float],
        loading: Loading,
        epoch_size: int | None = None,
        device: torch.device | str = "cpu",
    ):
        super().__init__(labels, n_classes=n_classes, epoch_size=epoch_size, device=device)
        self.files, self.loading, self.mean, self.std = files, loading, mean, std
        self.transform, self.augmentation = transform, augmentation
        self._image_shape = image_shape
        self._idle: list[DataLoader] = []  # whose workers wait for the next batches

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images in a batch."""
        return self._image_shape

    def _draws(self, order: Tensor, generator: torch.Generator, *, seed: int, epoch: int) -> Tensor | None:
        return torch.tensor([[seed, epoch]]).expand(len(order), 2) if self.augmentation else None

    def _make(self, batches: Sequence[Wanted]) -> Iterator[Tensor]:
        loader = self._idle.pop() if self._idle else self._loader()
        loader.batch_sampler.batches = batches
        try:
            for levels in loader:
                if isinstance(levels, UserError):
                    raise levels
                yield self._normalised(levels)
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
            del loader  # after a failure its workers end here, and not when the traceback has gone

    def _normalised(self, levels: Tensor) -> Tensor:
        """uint8 (B, C, H, W), normalised as torchvision's ToTensor and Normalize do it, on the device."""
        # Workers send bytes: a quarter of what floats would need on the way
        values = to_unit_range_(levels.to(self.device, non_blocking=True).float())
        return TF.normalize(values, self.mean, self.std, inplace=True)

    def _loader(self) -> DataLoader:
        n_workers, prefetch_factor = self.loading
        # Forked processes share the files that are held in memory
        options = {"multiprocessing_context": "fork", "prefetch_factor": prefetch_factor, "persistent_workers": True}
        return DataLoader(
            _Decoder(self.files, self.transform, self.augmentation),
            batch_sampler=_NextBatches(),
            collate_fn=_as_it_is,
            num_workers=n_workers,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=_prepare_worker,
            generator=torch.Generator(),  # of seeds that nothing uses; otherwise the global one would move
            **(options if n_workers else {}),
        )


class _NextBatches:
    """The sampler of a loader whose workers live on: what it gives is set before each pass."""

    batches: Sequence[Wanted] = ()

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Key]]:
        for indices, draws in self.batches:
            randomness = [()] * len(indices) if draws is None else draws.tolist()
            yield [(i, *row) for i, row in zip(indices.tolist(), randomness, strict=True)]


class _Decoder:
    """What runs in the workers: from keys to uint8 images."""

    def __init__(self, files: EncodedFiles, transform: Transform, augmentation: Transform | None):
        self.files, self.transform, self.augmentation = files, transform, augmentation

    def __getitems__(self, keys: Sequence[Key]) -> Tensor | UserError:
        """The images (B, C, H, W); an error comes as a value, which the loader does not wrap in a traceback."""
        try:
            return torch.stack([self._image(*key) for key in keys])
        except UserError as error:
            return error

    def _image(self, i: int, *seed_and_epoch: int) -> Tensor:
        content = self.files.read(i)
        try:
            image = _decoded(content)
        except Exception as error:  # a damaged file can raise anything
            reason = "no image" if isinstance(error, UnidentifiedImageError) else " ".join(str(error).split())
            raise UserError(f"{self.files.path(i)} cannot be decoded ({reason}); restore or remove it") from error
        if not seed_and_epoch:
            return self.transform(image)
        with _drawing_from(seed_of(*seed_and_epoch, i, 0)):  # four numbers: no other generator's key
            return self.augmentation(image)


def _decoded(content: bytes) -> Image.Image:
    """The RGB image in a file; raises ValueError or whatever a damaged file makes PIL raise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL's, about metadata
        warnings.simplefilter("error", Image.DecompressionBombWarning)  # of more than 89 million pixels
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        short, long = sorted(image.size)
        if long > MAX_RATIO * short:  # enlarged until its short side fits, it would fill the memory
            raise ValueError(f"{image.size[0]}×{image.size[1]} pixels, too narrow for a photograph")
        return image.convert("RGB")


@contextlib.contextmanager
def _drawing_from(seed: int) -> Iterator[None]:
    """Draw from torch's generator of the CPU, and it alone, as if freshly seeded; it is left as it was."""
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPUs as well
    try:
        yield
    finally:
        torch.set_rng_state(state)


def _as_it_is(batch: Tensor | UserError) -> Tensor | UserError:
    return batch


def _prepare_worker(worker: int) -> None:
    # A signal to the whole group interrupts the main process alone, which needs its workers until its step is done
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(PATIENCE))
