"""Arithmetic on batches of uint8 images, bit for bit that of PIL and equal on every device.

Whatever moves pixels has two ways: numpy's indexing on the CPU, which copies rows of bytes 3 to 5 times faster
than torch's, and torch's elsewhere. Both give the same values.
"""

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

COEFFICIENT_BITS = 22  # PIL resizes 8-bit images with weights in units of 2^-22


def on_cpu(tensor: Tensor) -> bool:
    """Whether numpy can work on the memory of a tensor."""
    return tensor.device.type == "cpu"


def take(images: Tensor, indices: Tensor) -> Tensor:
    """The images (B, C, H, W) at `indices` (B,), a CPU tensor, of a set (N, C, H, W)."""
    if on_cpu(images):
        return torch.from_numpy(images.numpy()[indices.numpy()])
    return images[indices.to(images.device)]


def to_unit_range_(levels: Tensor) -> Tensor:
    """Divide float levels 0..255 by 255, in place; equal to torchvision's ToTensor."""
    if on_cpu(levels):
        return levels.div_(255)
    # CUDA turns a division by a number into a product with its reciprocal, which rounds differently
    return levels.div_(torch.full((), 255.0, device=levels.device))


def crop(images: Tensor, indices: Tensor, top: Tensor, left: Tensor, *, size: tuple[int, int]) -> Tensor:
    """Take images (N, C, ., .) at `indices` (B,) and cut (height, width) out of each, at its own `top` and `left` (B,).

    The three index tensors are on the CPU.
    """
    if on_cpu(images):
        near = images.numpy()[indices.numpy()]  # whole images first: single rows from all over the set are slow
        windows = sliding_window_view(near, size, axis=(2, 3))  # (B, C, tops, lefts, *size), not copied
        return torch.from_numpy(windows[np.arange(len(near)), :, top.numpy(), left.numpy()])
    windows = images.unfold(2, size[0], 1).unfold(3, size[1], 1)
    indices, top, left = (index.to(images.device) for index in (indices, top, left))
    return windows[indices, :, top, left]


def mirror_(images: Tensor, chosen: Tensor) -> Tensor:
    """Flip the chosen ones of the images (B, C, H, W), in place; `chosen` (B,) is 0 or 1, on the CPU."""
    if on_cpu(images):
        pixels, rows = images.numpy(), chosen.bool().numpy()
        pixels[rows] = pixels[rows][..., ::-1]
        return images
    chosen = chosen.bool().to(images.device)[:, None, None, None]
    return images.copy_(torch.where(chosen, images.flip(-1), images))


def enlarge(images: Tensor, size: int | None) -> Tensor:
    """Resize the images (B, C, H, W) to (B, C, size, size) bilinearly, as PIL does and torchvision's Resize with it.

    None leaves them as they are. PIL works in fixed point, first along rows, then along columns, and rounds to
    whole numbers after each.

    Raises:
        ValueError: that would shrink the images (which takes more than two pixels for one).
    """
    if size is None:
        return images
    if max(images.shape[2:]) > size:
        raise ValueError(f"cannot enlarge {tuple(images.shape[2:])} to {size}")
    return _enlarge_axis(_enlarge_axis(images, size, axis=3), size, axis=2)


def _enlarge_axis(images: Tensor, size: int, *, axis: int) -> Tensor:
    old = images.shape[axis]
    if old == size:
        return images
    centre = (torch.arange(size, dtype=torch.float64) + 0.5) * (old / size)
    first = (centre - 0.5).floor().clamp(min=0).long()
    taps = torch.stack([first, first + 1])  # (2, size): only these two have a weight
    weights = (1 - (taps + 0.5 - centre).abs()).clamp(min=0) * (taps < old)
    weights = (weights / weights.sum(0) * 2**COEFFICIENT_BITS).round().to(images.device, torch.int32)
    taps = taps.clamp(max=old - 1).to(images.device)
    shape = [1] * 4
    shape[axis] = size
    levels = images.to(torch.int32)
    total = torch.full(shape, 2 ** (COEFFICIENT_BITS - 1), dtype=torch.int32, device=images.device)  # rounds
    for tap, weight in zip(taps, weights, strict=True):
        total = levels.index_select(axis, tap).mul_(weight.view(shape)).add_(total)
    return total.bitwise_right_shift_(COEFFICIENT_BITS).to(torch.uint8)
