"""The memory that caches may share: of the machine, and within the limits of a container."""

from pathlib import Path

import pytest

from src.ground import runtime
from src.ground.runtime import free_memory

GIB = 2**30
MEMINFO = (
    "MemTotal: 67108864 kB\nMemFree: 2097152 kB\nMemAvailable: 33554432 kB\nHugePages_Total: 0\n"
)


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def version_2(folder: Path, limit: int | str) -> None:
    stat = f"anon {3 * GIB}\nfile {2 * GIB}\ninactive_file {GIB}\nactive_file {GIB}\n"
    write(
        folder,
        memory__max=f"{limit}\n",
        memory__current=f"{5 * GIB}\n",
        memory__stat=stat,
    )


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A machine of 64 GiB, of which 2 are free, and 32 with pages of files that can be dropped."""
    write(tmp_path / "proc", meminfo=MEMINFO)
    monkeypatch.setattr(runtime, "SYSTEM", tmp_path)
    return tmp_path


def test_a_limit_counts_wherever_it_stands(system):
    groups = system / "sys/fs/cgroup"
    write(system / "proc/self", cgroup="0::/slurm/job/task\n")
    version_2(groups / "slurm/job/task", "max")
    assert free_memory() == 32 * GIB
    version_2(groups / "slurm/job", 8 * GIB)  # 5 used, 2 of them for files
    assert free_memory() == 5 * GIB
    version_2(groups, 4 * GIB)  # a container, which does not show the groups outside
    assert free_memory() == GIB
