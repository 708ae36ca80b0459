"""Many small files, as encoded images are: read one at a time, or held in memory all together."""

import os
from collections.abc import Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np

from src.errors import UserError
from src.report import progress

AT_ONCE = 256  # files that a thread is given together
CGROUPS = Path("/sys/fs/cgroup")


class EncodedFiles:
    """Files by their number, each read when it is asked for.

    Their names lie in one block, which worker processes share; of a list, each would get a copy of its own as soon
    as it counts references to the entries.
    """

    def __init__(self, paths: Sequence[str]):
        names = [os.fsencode(path) for path in paths]
        self._names = b"".join(names)
        self._ends = np.cumsum([0, *map(len, names)])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def path(self, i: int) -> str:
        """The path of file i."""
        return os.fsdecode(self._names[self._ends[i] : self._ends[i + 1]])

    def read(self, i: int) -> bytes:
        """The content of file i.

        Raises:
            UserError: it cannot be read.
        """
        try:
            return Path(self.path(i)).read_bytes()
        except OSError as error:
            raise UserError(f"cannot read {self.path(i)}: {error.strerror or error}") from error


class HeldFiles(EncodedFiles):
    """Files whose contents lie in memory, one behind the other in a block that worker processes share.

    Args:
        name: of the data set, for errors.
        n_threads: how many files are read at the same time.
    Raises:
        UserError: they do not fit into the memory, or one cannot be read.
    """

    def __init__(self, paths: Sequence[str], *, name: str, n_threads: int):
        super().__init__(paths)
        with ThreadPool(n_threads) as pool:
            sizes = pool.map(self._size, range(len(self)), chunksize=AT_ONCE)
            self._starts = np.cumsum([0, *sizes])
            self._block = self._room(name)
            done = pool.imap_unordered(self._fill, range(len(self)), chunksize=AT_ONCE)
            for _ in progress(done, f"reading {name}", len(self), unit="file"):
                pass

    def read(self, i: int) -> bytes:
        """The content of file i."""
        return self._place(i).tobytes()

    def _place(self, i: int) -> np.ndarray:
        return self._block[self._starts[i] : self._starts[i + 1]]

    def _room(self, name: str) -> np.ndarray:
        needed, free = int(self._starts[-1]), available_memory()
        too_much = UserError(
            f"dataset {name}: its files have {needed / 2**30:,.2f} GiB, and {free / 2**30:,.2f} GiB of memory are "
            "free; use -d imagenet, which reads them when they are needed, or a machine with more memory"
        )
        if needed > free:
            raise too_much
        try:
            return np.empty(needed, dtype=np.uint8)
        except MemoryError as error:  # a limit of this process alone
            raise too_much from error

    def _size(self, i: int) -> int:
        try:
            return os.stat(self.path(i)).st_size
        except OSError as error:
            raise UserError(f"cannot read {self.path(i)}: {error.strerror or error}") from error

    def _fill(self, i: int) -> None:
        content, place = super().read(i), self._place(i)
        if len(content) != len(place):
            raise UserError(f"{self.path(i)} changed while it was read; run again when it stays as it is")
        place[:] = np.frombuffer(content, dtype=np.uint8)


def available_memory() -> int:
    """Bytes that this process can still use: free on the machine, and in its container (of cgroups of version 2)."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):  # not Linux
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        own = next(line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return free
    group = CGROUPS / own.strip("/")
    return min([free, *(_left_in(folder) for folder in (group, *group.parents) if folder.is_relative_to(CGROUPS))])


def _left_in(group: Path) -> float:
    """What a control group may still use; what the system keeps of files read earlier counts as free."""
    try:
        limit, used = (group / "memory.max").read_text().strip(), int((group / "memory.current").read_text())
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return float("inf")
    return float("inf") if limit == "max" else max(0, int(limit) - used + int(statistics["inactive_file"]))
