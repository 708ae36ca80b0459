"""Images that are decoded batch by batch, by the worker processes of a `DataLoader`."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image  # torchvision's own dependency
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from src.core.errors import UserError
from src.core.files import readable
from src.core.seeds import seed_of
from src.datasets.base import Change, InputSet, Loading, Pass

Transform = Callable[[Image.Image], Tensor]  # to uint8 (C, H, W), of one shape for all images


class DecodedImageSet(InputSet):
    """Encoded images, delivered in batches of float32 (B, C, H, W), normalised, and int64 (B,).

    Args:
        paths: files of one image each.
        labels: integers (N,).
        transform: applied to each image.
        crop: takes the place of `transform` in an epoch, with random numbers from torch, which
            depend on (seed, epoch, index) alone; None: there is no such crop.
        loading: number of workers, and of batches that a worker prepares ahead.
        options: as in InputSet; `image_shape` is the shape behind the transforms.
    """

    def __init__(
        self,
        paths: Sequence[str],
        labels: Tensor,
        *,
        transform: Transform,
        crop: Transform | None = None,
        loading: Loading,
        **options: Any,
    ):
        super().__init__(labels, **options)
        self.paths = paths
        self.transform = transform
        self.crop = crop
        self.loading = loading

    def levels(self, plan: Pass) -> Iterator[Tensor]:
        """Decode the images of a pass: yields uint8 (B, C, H, W) for each batch, on the CPU.

        Images that are no epoch are kept for further passes in the cache, if there is one.

        Raises:
            UserError: an image cannot be read, or a worker was killed.
        """
        batches = [plan.indices[rows].tolist() for rows in plan.batches]
        if plan.epoch > 0 or self.cache is None:
            yield from self._newly_decoded(plan, batches)
            return
        kept = [self.cache.get((self, *positions)) for positions in batches]
        missing = [batch for batch, images in zip(batches, kept, strict=True) if images is None]
        decoded = self._newly_decoded(plan, missing)
        for positions, images in zip(batches, kept, strict=True):
            if images is None:
                # A copy: images of a worker lie in shared memory, with an open file a batch
                images = next(decoded).clone()
                self.cache.keep((self, *positions), images, images.nbytes)
            yield images

    def levels_of(self, indices: Tensor) -> Tensor:
        decoder = self._decoder(epoch=0)
        return torch.stack([decoder.decode(self.paths[i], i) for i in indices.tolist()])

    def digests(self, indices: Tensor) -> list[Hashable]:
        """Return the hash of the file of each image at indices (n,)."""
        return [hash(Path(self.paths[i]).read_bytes()) for i in indices.tolist()]

    def rough_digests(self, indices: Tensor) -> list[Hashable]:
        """Return the size of the file of each image at indices (n,)."""
        return [Path(self.paths[i]).stat().st_size for i in indices.tolist()]

    def _newly_decoded(self, plan: Pass, batches: Sequence[list[int]]) -> Iterator[Tensor]:
        """Yield the images at the positions of each batch, uint8 (B, C, H, W), on the CPU."""
        n_workers = min(self.loading.n_workers, len(batches))
        prefetch_factor = None
        if n_workers > 0:
            prefetch_factor = self.loading.prefetch_factor
        decoder = self._decoder(epoch=plan.epoch)
        if self.crop is not None and plan.generator is not None:
            decoder.transform = self.crop
            decoder.seed = plan.seed
        try:
            # No variable for the loader: a traceback would keep it, and with it the workers
            for images in DataLoader(
                decoder,
                batch_size=None,  # a whole batch is a sample
                sampler=([(self.paths[i], i) for i in positions] for positions in batches),
                num_workers=n_workers,
                pin_memory=self.device.type == "cuda",
                prefetch_factor=prefetch_factor,
                generator=torch.Generator(),  # the global generator must not advance
            ):
                if isinstance(images, UserError):
                    raise images
                yield images
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise UserError(
                f"a process that decodes images was killed ({error}); it may have run out of memory: give fewer "
                "-workers, or more /dev/shm to a container"
            ) from error

    def _decoder(self, *, epoch: int) -> "_Decoder":
        """Return the part of this set that workers need, for images without augmentation."""
        mode = "RGB" if self.image_shape[0] == 3 else "L"
        return _Decoder(mode, self.changes, self.transform, epoch)


@dataclass
class _Decoder(Dataset):
    """The data set of a worker: decodes, changes and transforms images."""

    mode: str  # PIL's name of the colours
    changes: Sequence[Change]
    transform: Transform
    epoch: int
    seed: int | None = None  # of a random transform

    def __getitem__(self, images: Sequence[tuple[str, int]]) -> Tensor | UserError:
        """Return images uint8 (B, C, H, W) by path and position, or an error as a value."""
        try:
            return torch.stack([self.decode(path, position) for path, position in images])
        except UserError as error:  # raised here, the loader would wrap it in a traceback
            return error

    def decode(self, path: str, position: int) -> Tensor:
        """Return an image uint8 (C, H, W)."""
        image = read_image(path, self.mode)
        if self.changes:
            import torchvision.transforms.functional as TF

            levels = TF.pil_to_tensor(image)[None]
            for change in self.changes:
                levels = change(levels, torch.tensor([position]))
            image = TF.to_pil_image(levels[0])
        if self.seed is None:
            return self.transform(image)
        with torch.random.fork_rng(devices=[]):  # torchvision draws from torch's generator
            # Keys of four numbers are used here only
            torch.default_generator.manual_seed(seed_of(self.seed, self.epoch, position, 0))
            return self.transform(image)


def read_image(path: str, mode: str) -> Image.Image:
    """Read the file of an image in PIL's mode of colours; a UserError if it is no image of 8 bits."""
    with readable(path, "restore or remove it"), Image.open(path) as file:
        if file.mode.startswith(("I", "F")):  # PIL would clip their values at 255
            raise ValueError(f"its pixels have more than 8 bits, mode {file.mode}; convert it")
        return file.convert(mode)
