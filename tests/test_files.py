"""Files: layout, rights and locks; a full disk, a closed folder, a kill between write and rename
spoil nothing."""

import os
import signal

import pytest

from src.ground.files import write_json
from tests.commands import MODEL, ON_DIGITS, PAIR, module_of, run, start_code
from tests.conftest import few_images
from tests.run_content import content

COMMANDS = {
    "exec_train": [MODEL, *ON_DIGITS, "-e", "2", "-sf", "1", "-epoch-size", "64", "-dir", "m"],
    "exec_stitch": [*PAIR, "layer4.0", "layer4.0,layer4.1", "rc2c_pre", *ON_DIGITS, "-e", "0", "-i", "pinv",
                    "-dir", "grid"],
    "exec_probe": ["f.pt", MODEL, "-l", "layer1.0", *ON_DIGITS, "-b", "512", "-e", "1", "-o", "p.csv"],
    "exec_train_representation_classifier": [
        "g.pt", MODEL, "layer4.1", "-m", "repr_cls_resnet18", *ON_DIGITS, "-b", "64", "-e", "1", "-fe", "1", "-ftidd",
        "digits", "-ftoodd", "photo_patches", "-dir", "d", "-fdir", "store"],
}  # fmt: skip


@pytest.fixture
def few():
    """Embedded data sets have few images in this process."""
    with few_images(128, n_test=64):
        yield


FAST = ["exec_probe"]
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in COMMANDS if name not in FAST]


@pytest.mark.parametrize("script", [*FAST, *SLOW])
def test_a_disk_that_fills_up_at_any_write(script, few, network_folder, monkeypatch, capfd):
    """Run with room for no file, for one more, for two more ..., always going on, until all of them
    are written."""
    main, command = module_of(script).main, [*COMMANDS[script], "--resume"]
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
            status = main(command)
        errors = [line for line in capfd.readouterr().err.splitlines() if "error" in line]
        assert status == 0 or (
            status == 2 and len(errors) == 1 and "No space left on device" in errors[0]
        ), errors
        assert not list(broken.rglob("*.part"))
        room += 1
    assert room > 3
    assert content(broken) == content(broken.parent / "whole")


def test_a_kill_between_write_and_rename_leaves_the_old_file(tmp_path):
    code = (
        "import os, pathlib, signal; from src.ground.files import write_bytes\n"
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"write_bytes(pathlib.Path({str(tmp_path)!r}) / 'meta.json', b'new')\n"
    )
    (tmp_path / "meta.json").write_bytes(b"old")
    assert start_code(code).wait(60) == -signal.SIGKILL
    assert (tmp_path / "meta.json").read_bytes() == b"old"
    (left,) = set(os.listdir(tmp_path)) - {"meta.json"}
    assert left.startswith(".") and left.endswith(".part")  # no reader takes it for a result
    assert (tmp_path / left).read_bytes() == b"new"


def test_folders_are_created_and_files_get_ordinary_rights_and_the_layout_of_the_public_code(
    tmp_path,
):
    path, plain = tmp_path / "a" / "config.txt", tmp_path / "plain"
    write_json(path, {"a": None, "b": ["é"]})
    assert path.read_text() == '{\n    "a": null,\n    "b": [\n        "\\u00e9"\n    ]\n}'
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode


def test_a_lock_keeps_processes_apart(tmp_path):
    code = (
        "import sys, pathlib; from src.ground.files import locked\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "for _ in range(50):\n"
        "    with locked(path.with_name('.lock')): path.write_text(str(int(path.read_text()) + 1))\n"
    )
    counter = tmp_path / "counter"
    counter.write_text("0")
    processes = [start_code(code, counter) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    assert counter.read_text() == "200"
