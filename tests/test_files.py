"""Files: layout, rights and locks; a full disk, a closed folder, a kill between write and rename, and
kills of scripts at random moments spoil nothing."""

import errno
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest

from src import cli
from src.core.errors import Busy, UserError
from src.core.files import (
    durable_together,
    locked,
    locks_released,
    new_file,
    write_bytes,
    write_json,
)
from tests.commands import MODEL, ON_DIGITS, PAIR, module_of, names_in, run, start_code
from tests.conftest import few_images
from tests.run_content import content

ON_LAYERS = [
    *PAIR,
    "layer3.0,layer4.0",
    "layer4.0,layer4.1",
    "rc2c_pre",
    *ON_DIGITS,
    "-dir",
    "grid",
]
TRAINED = ["exec_stitch.py", *ON_LAYERS, "-e", "2", "-b", "256"]
COMMANDS = {
    "probe": ["exec_probe.py", "f.pt", MODEL, "-l", "layer1.0", *ON_DIGITS, "-b", "512", "-e", "1", "-o", "p.csv"],
    "train": ["exec_train.py", MODEL, *ON_DIGITS, "-b", "128", "-e", "2", "-sf", "1", "-dir", "m"],
    "detector": ["exec_train_representation_classifier.py", "f.pt", MODEL, "layer4.0", "-m", "repr_cls_resnet18",
                 *ON_DIGITS, "-b", "256", "-e", "1", "-fe", "2", "-ftidd", "digits", "-ftoodd", "photo_patches",
                 "-dir", "m", "-fdir", "store"],
    "tlm": [*TRAINED, "--mod-only-stitch"],
    "whole": TRAINED,
    "dm": ["exec_stitch.py", *ON_LAYERS, "-e", "0", "-i", "pinv"],
}  # fmt: skip
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in COMMANDS if name != "probe"]


@pytest.fixture
def few():
    """Embedded data sets have few images in this process."""
    with few_images(128, n_test=64):
        yield


@pytest.mark.parametrize("name", ["probe", *SLOW])
def test_a_disk_that_fills_up_at_any_write(name, few, network_folder, monkeypatch, capfd):
    """Run with room for no file, for one more, for two more ..., always going on, until all of them
    are written."""
    script, *words = COMMANDS[name]
    module = module_of(script)
    command = [*words, "--resume"]
    run(script, *command, cwd=network_folder("whole"))
    broken = network_folder("broken")
    monkeypatch.chdir(broken)
    capfd.readouterr()
    replace, room, status = os.replace, 0, 2
    while status:
        left = iter(range(room))

        def replace_while_there_is_room(source, target, left=left):
            if next(left, None) is None:
                raise OSError(28, "No space left on device")
            replace(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", replace_while_there_is_room)
            status = cli.run(module.parser(), module.main, command)
        errors = [line for line in capfd.readouterr().err.splitlines() if "error" in line]
        assert status == 0 or (
            status == 2 and len(errors) == 1 and "No space left on device" in errors[0]
        ), errors
        assert not list(broken.rglob("*.part"))
        room += 1
    assert room > 3
    assert content(broken) == content(broken.parent / "whole")


@pytest.fixture(scope="module")
def processes():
    """Start processes that have imported torch already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "torchvision", "scipy.stats", "matplotlib"])
    return context


def kill_often(processes, command: list[str], folder: Path, within: float) -> int:
    """Start a command six times and kill it within so many seconds, later each time; returns how
    many kills met a running one."""
    moments, met = random.Random(len(command)), 0
    for share in (0.1, 0.2, 0.4, 0.6, 0.8, 1):
        process = processes.Process(target=run, args=(*command, "--resume"), kwargs={"cwd": folder})
        process.start()
        process.join(timeout=moments.uniform(0.5, 1) * share * within)
        met += process.is_alive()
        process.kill()
        process.join()
    return met


@pytest.mark.parametrize("name", SLOW)
def test_a_script_that_was_killed_often_leaves_what_it_leaves_undisturbed(
    name, network_folder, processes, rendered
):
    """Figures are rendered here as well, as a process may be killed after it has drawn them."""
    command = COMMANDS[name]
    whole = network_folder("whole")
    killed = network_folder("killed")
    began = time.monotonic()
    run(*command, cwd=whole)
    seconds = time.monotonic() - began
    assert kill_often(processes, command, killed, within=1 + seconds * 0.5) >= 2
    run(*command, "--resume", cwd=killed)
    expected = content(whole)
    left = content(killed)
    assert expected.keys() == left.keys()
    assert [name for name in expected if expected[name] != left[name]] == []
    assert "finished" in run(*command, "--resume", cwd=killed).err and content(killed) == left


def test_a_kill_between_write_and_rename_leaves_the_old_file(tmp_path):
    code = (
        "import os, pathlib, signal; from src.core.files import write_bytes\n"
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"write_bytes(pathlib.Path({str(tmp_path)!r}) / 'meta.json', b'new')\n"
    )
    (tmp_path / "meta.json").write_bytes(b"old")
    assert start_code(code).wait(60) == -signal.SIGKILL
    assert (tmp_path / "meta.json").read_bytes() == b"old"
    (left,) = set(os.listdir(tmp_path)) - {"meta.json"}
    assert left.startswith(".") and left.endswith(".part")  # no reader takes it for a result
    assert (tmp_path / left).read_bytes() == b"new"


def test_a_file_that_could_not_be_written_is_no_part_of_its_block(tmp_path):
    with durable_together():
        write_bytes(tmp_path / "one", b"1")
        assert not (tmp_path / "one").exists()
        with pytest.raises(UserError, match="cannot write .*two: No space left"):
            with new_file(tmp_path / "two") as file:
                file.write(b"half")
                raise OSError(errno.ENOSPC, "No space left on device")
    assert names_in(tmp_path) == {"one"}


def test_files_of_a_block_are_flushed_before_they_get_their_names_and_then_the_names_are(
    tmp_path, monkeypatch
):
    steps, replace = [], os.replace
    monkeypatch.setattr(os, "fsync", lambda number: steps.append(os.path.isdir(number)))
    monkeypatch.setattr(os, "replace", lambda *paths: steps.append("rename") or replace(*paths))
    with durable_together():
        for name in ("one", "two"):
            write_bytes(tmp_path / name, b"")
    assert steps == [False, False, "rename", "rename", True]


def test_folders_are_created_and_files_get_ordinary_rights_and_the_layout_of_the_public_code(
    tmp_path,
):
    path, plain = tmp_path / "a" / "config.txt", tmp_path / "plain"
    write_json(path, {"a": None, "b": ["é"]})
    assert path.read_text() == '{\n    "a": null,\n    "b": [\n        "\\u00e9"\n    ]\n}'
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode


def test_a_lock_is_held_once_in_a_process(tmp_path):
    """An attempt to lock again does not open the lock to others."""
    path = tmp_path / ".lock"
    code = "import sys; from src.core.files import locked; locked(sys.argv[1], wait=False)"
    with locked(path):
        for wait in (False, True):
            with pytest.raises(Busy, match="another run is writing"):
                locked(path, wait=wait)
        other = start_code(code, path)
        assert other.wait() == 1
    with locked(path, wait=False):
        pass


def test_locks_of_a_failed_block_are_released(tmp_path):
    with locked(tmp_path / "outer"):
        with pytest.raises(ValueError, match="mistake"), locks_released():
            left = locked(tmp_path / "inner")
            raise ValueError("mistake")
        assert left.closed and [path.name for path in tmp_path.iterdir()] == ["outer"]
        locked(tmp_path / "inner", wait=False).close()
        with pytest.raises(Busy):
            locked(tmp_path / "outer")


def test_a_lock_keeps_processes_apart(tmp_path):
    code = (
        "import sys, pathlib; from src.core.files import locked\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "for _ in range(50):\n"
        "    with locked(path.with_name('.lock')): path.write_text(str(int(path.read_text()) + 1))\n"
    )
    counter = tmp_path / "counter"
    counter.write_text("0")
    processes = [start_code(code, counter) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    assert counter.read_text() == "200"
