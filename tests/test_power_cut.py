"""Power cuts: whatever has `config.txt` is complete on the disk, and what an unfinished run left is
made again."""

import contextlib
import errno
import itertools
import math
import os
import threading
from pathlib import Path

import pytest
import torch

import exec_stitch
from src.ground.errors import UserError
from src.ground.files import durable_together, new_file, write_bytes
from src.models import build_model
from src.results import stitch_runs
from src.results.experiments import Experiment
from src.results.stitch_runs import GridRun
from src.stitching import Pair, build_layers
from src.stitching.grid import GridScore
from src.training import EpochLog, HeadResult
from src.values import Metrics
from tests.commands import ON_DIGITS, names_in, run
from tests.run_content import content

MARKS = {"config.txt", "resume.pt"}  # each says that all files written before it are complete
FILES = {
    "stitches.pt",
    "predictions.npz",
    "grid.csv",
    "run.json",
    "training_logs.csv",
    "config.txt",
}
PAIRS = [Pair("pool1", "pool1"), Pair("pool1", "pool2")]
TRAIN = [
    "exec_train.py",
    "small_cnn",
    *ON_DIGITS,
    "-e",
    "2",
    "-sf",
    "1",
    "-epoch-size",
    "64",
    "-dir",
    "m",
]


class Disk:
    """Knows what would outlast a power cut: contents of files and names in folders as they were
    flushed, no others.

    Args:
        n_steps: the power fails after so many flushes, renames and removals.
    """

    def __init__(self, patch: pytest.MonkeyPatch, n_steps: float = math.inf):
        self.n_steps = n_steps
        self.contents: dict[int, tuple[int, int]] = {}  # size and time of change of files, by inode
        self.names: dict[
            int, dict[str, int]
        ] = {}  # in folders, by inode: the inode of the file that has the name
        self.written: list[Path] = []  # but the marks
        self.marked: list[Path] = []
        self._rename, self._remove = os.replace, Path.unlink
        patch.setattr(os, "fsync", self.flush)
        patch.setattr(os, "replace", self.rename)
        patch.setattr(Path, "unlink", lambda path, missing_ok=False: self.remove(path, missing_ok))

    def step(self) -> None:
        self.n_steps -= 1
        if self.n_steps < 0:
            raise OSError(errno.EIO, "the power is cut")

    def flush(self, descriptor: int) -> None:
        self.step()
        status = os.fstat(descriptor)
        if os.path.isdir(descriptor):
            names = os.listdir(descriptor)
            self.names[status.st_ino] = {
                name: os.stat(name, dir_fd=descriptor).st_ino for name in names
            }
        else:
            self.contents[status.st_ino] = status.st_size, status.st_mtime_ns

    def rename(self, source: Path, target: Path) -> None:
        """Give a file its name; a mark only once all that was written before is on the disk under
        its name."""
        self.step()
        assert self.has_content(source)
        target = Path(target).absolute()
        if target.name in MARKS:
            assert [
                path
                for path in self.written
                if not (self.has_content(path) and self.has_name(path))
            ] == []
        self._rename(source, target)
        (self.marked if target.name in MARKS else self.written).append(target)

    def remove(self, path: Path, missing_ok: bool) -> None:
        self.step()
        self._remove(path, missing_ok=missing_ok)

    def has_content(self, path: Path) -> bool:
        status = path.stat()
        return self.contents.get(status.st_ino) == (status.st_size, status.st_mtime_ns)

    def has_name(self, path: Path) -> bool:
        return self.names.get(path.parent.stat().st_ino, {}).get(path.name) == path.stat().st_ino

    def lose_contents(self, folder: Path) -> None:
        """Empty the files that were not flushed."""
        for path in folder.rglob("*"):
            if path.is_file() and not self.has_content(path):
                path.write_bytes(b"")


def test_a_training_is_on_the_disk_before_it_is_marked_as_finished(tmp_path, monkeypatch):
    disk = Disk(monkeypatch)
    run(*TRAIN, cwd=tmp_path)
    assert [path.name for path in disk.marked] == ["resume.pt", "resume.pt", "config.txt"]


@pytest.fixture(scope="module")
def grid():
    """The stitching layers of two pairs, their experiment and their score."""
    network = build_model("small_cnn", n_channels=1, image_shape=(1, 8, 8))
    fronts, ends = zip(*PAIRS, strict=True)
    layers, _ = build_layers(
        network, network, fronts[:1], ends, "rc2c_pre", image_shape=(1, 8, 8), seed=0
    )
    words = [
        "m.pt",
        "m.pt",
        "small_cnn",
        "small_cnn",
        "all",
        "all",
        "rc2c_pre",
        "--mod-only-stitch",
        "-gpu",
        "-1",
    ]
    metrics = Metrics(accuracy=1.0, end_accuracy=0.5, representation_difference=0.5)
    classes = dict.fromkeys([*PAIRS, "front", "end", "labels"], torch.arange(3))
    experiment = Experiment.of(vars(exec_stitch.parser().parse_args(words)))
    return layers, experiment, GridScore(dict.fromkeys(PAIRS, metrics), classes)


def make(folder: Path, grid, *, resume: bool) -> None:
    """Make the runs of a grid, or those that are unfinished: a training of one epoch, and the
    results."""
    layers, experiment, score = grid
    runs = GridRun(folder, layers, experiment)
    if resume:
        stitch_runs.resume(folder, stitch_runs.earlier_runs(folder), [runs])
    if runs.layers and not runs.state:
        log = EpochLog(HeadResult(0.5, 1.0, 1.0), HeadResult(0.5, 1.0, 1.0))
        runs.log([dict.fromkeys(layers, log)], {"weight": torch.ones(1)})
    if runs.layers:
        runs.write(score, {}, whole_networks=None)
        runs.finish()


def power_fails(n_steps: int, folder: Path, grid) -> bool:
    """Make a grid whose power fails after so many steps, and lose what was not flushed; returns
    whether it failed."""
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(patch, n_steps)
        with contextlib.suppress(UserError, OSError):
            make(folder, grid, resume=False)
    disk.lose_contents(folder)
    return disk.n_steps < 0


def test_a_power_cut_at_any_point_of_a_grid(grid, tmp_path):
    """Before the first flush, rename or removal, before the second, and so on; then the grid goes
    on."""
    make(tmp_path / "whole", grid, resume=False)
    expected = content(tmp_path / "whole")
    assert len(expected) == len(FILES) - 1  # without run.json
    n_finished = []
    for n_steps in itertools.count():
        folder = tmp_path / str(n_steps)
        has_failed = power_fails(n_steps, folder, grid)
        configs = list(folder.glob("*/config.txt"))
        assert all(path.with_name(name).stat().st_size for path in configs for name in FILES)
        n_finished.append(len(configs))
        make(folder, grid, resume=True)
        assert content(folder) == expected
        assert not [
            path for config in folder.glob("*/config.txt") for path in config.parent.glob(".*.part")
        ]
        if not has_failed:
            break
    assert set(n_finished) == {0, 1} and n_finished == sorted(n_finished)


def test_a_file_that_could_not_be_written_is_no_part_of_its_block(tmp_path):
    with durable_together():
        write_bytes(tmp_path / "one", b"1")
        assert not (tmp_path / "one").exists()
        with pytest.raises(UserError, match="cannot write .*two: No space left"):
            with new_file(tmp_path / "two") as file:
                file.write(b"half")
                raise OSError(errno.ENOSPC, "No space left on device")
    assert names_in(tmp_path) == {"one"}


def test_files_of_a_block_are_flushed_at_once(tmp_path, monkeypatch):
    """Each flush waits until all have begun."""
    n_files = 4
    barrier = threading.Barrier(n_files, timeout=60)
    monkeypatch.setattr(os, "fsync", lambda descriptor: os.path.isdir(descriptor) or barrier.wait())
    with durable_together():
        for number in range(n_files):
            write_bytes(tmp_path / str(number), b"")
    assert len(names_in(tmp_path)) == n_files
