"""Images on disk: the same batches as from memory, in little memory."""

import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from src.datasets.augmentation import CropFlip
from src.datasets.in_memory import ImageSet
from src.datasets.mapped import MappedImages
from tests.commands import start_code
from tests.test_datasets_arrays import part
from tests.tiny_datasets import labels_of, random_images


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU"))])  # fmt: skip
@pytest.mark.parametrize("augmentation", [None, CropFlip(4)], ids=str)
def test_images_on_disk_give_the_batches_of_images_in_memory(augmentation, device, tmp_path):
    for i, n in enumerate((300, 1, 200)):  # more than are worked on at once
        np.save(tmp_path / f"{i}.npy", random_images(n, 32, 32, 3, seed=i))
    parts = [np.load(tmp_path / f"{i}.npy", mmap_mode="r") for i in range(3)]
    options = {"labels": torch.arange(501), "augmentation": augmentation, "epoch_size": 400}
    in_memory = ImageSet(torch.from_numpy(np.concatenate(parts)).permute(0, 3, 1, 2), **options)
    on_disk = ImageSet(MappedImages(parts), **options, device=device)
    assert len(on_disk) == 501 and on_disk.image_shape == (3, 32, 32) and on_disk.n_batches(64) == 7
    assert torch.equal(on_disk.permutation(1), in_memory.permutation(1))
    for go_through in (
        lambda dataset: dataset.epoch(350, seed=0, epoch=2),
        lambda dataset: dataset.batches(100),
        lambda dataset: dataset.batches(3, indices=torch.tensor([300, 500, 0, 0, 301])),
    ):
        for (images, labels), (mapped, mapped_labels) in zip(go_through(in_memory), go_through(on_disk), strict=True):
            assert torch.equal(images, mapped.cpu()) and torch.equal(labels, mapped_labels.cpu())


def npy_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def write_sparse_npz(path: Path, n: int) -> None:
    """A stored archive of n black images, which takes hardly any room: what is not written reads as zeros."""
    labels = npy_header("|u1", (n,)) + bytes(n)
    contents = b""
    with open(path, "wb") as file:
        for name, beginning, size in (
            (b"X.npy", npy_header("|u1", (n, 32, 32, 3)), 128 + n * 3072),
            (b"Y.npy", labels, len(labels)),
        ):
            offset = file.tell()
            common = struct.pack("<HHHHHIIIHH", 20, 0, 0, 0, 33, zlib.crc32(beginning), size, size, len(name), 0)
            file.write(b"PK\3\4" + common + name + beginning)
            file.truncate(offset + 30 + len(name) + size)
            file.seek(0, os.SEEK_END)
            contents += b"PK\1\2" + struct.pack("<H", 20) + common + struct.pack("<HHHII", 0, 0, 0, 0, offset) + name
        end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 2, 2, len(contents), file.tell(), 0)
        file.write(contents + end)


def peak_growth(root: Path) -> tuple[int, int]:
    """How many images a fresh process finds in the training split, and by how many KiB it grows at most."""
    code = (
        "import sys, torch, src.datasets.arrays; from src.datasets import load_dataset\n"
        "def peak(): return next(int(l.split()[1]) for l in open('/proc/self/status') if l.startswith('VmHWM'))\n"
        "before = peak(); dataset = load_dataset('cifar5m', sys.argv[1], train=True)\n"
        "opened = peak(); images, _ = next(dataset.epoch(64, seed=0, epoch=1))\n"
        "print(len(dataset), opened - before, images.shape[0])"
    )  # VmHWM instead of ru_maxrss, in which a process starts with the peak of its parent
    out, err = start_code(code, root).communicate(timeout=100)
    assert out, err
    n, growth, batch = map(int, out.split())
    assert batch == 64
    return n, growth


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux' /proc")
def test_unpacking_and_opening_take_little_memory_however_large_the_parts_are(tmp_path):
    n, n_stored = 70_000, 400_000  # 205 MiB, 1.14 GiB
    (tmp_path / "cifar5m").mkdir()
    for i in range(1, 6):
        write_sparse_npz(part(tmp_path, i), n_stored)
        assert part(tmp_path, i).stat().st_size > 2**30 > 2**27 > part(tmp_path, i).stat().st_blocks * 512
    with zipfile.ZipFile(part(tmp_path, 0), "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("X.npy", "w") as stream:
            stream.write(npy_header("|u1", (n, 32, 32, 3)))
            for _ in range(n // 1000):
                stream.write(bytes(3072 * 1000))
        archive.writestr("Y.npy", npy_header("|u1", (n,)) + bytes(labels_of(n, 10)))
    n_found, growth = peak_growth(tmp_path)
    assert n_found == n + 5 * n_stored and growth < 100 * 1024
