"""The memory that caches may share."""

from src.core import device
from src.core.device import free_memory

GIB = 2**30
MEMORY = (
    "MemTotal: 67108864 kB\nMemFree: 2097152 kB\nMemAvailable: 33554432 kB\nHugePages_Total: 0\n"
)


def test_pages_of_files_count_as_free(tmp_path, monkeypatch):
    """On a machine of 64 GiB, of which 2 are free, and 32 with pages that can be dropped."""
    monkeypatch.setattr(device, "MEMINFO", tmp_path / "meminfo")
    device.MEMINFO.write_text(MEMORY)
    assert free_memory() == 32 * GIB


def test_half_of_the_memory_counts_as_free_where_the_system_does_not_tell(tmp_path, monkeypatch):
    monkeypatch.setattr(device, "MEMINFO", tmp_path / "missing")
    monkeypatch.setattr(device.os, "sysconf", {"SC_PHYS_PAGES": 2**24, "SC_PAGE_SIZE": 4096}.get)
    assert free_memory() == 32 * GIB
