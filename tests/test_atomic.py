"""A disk that fills up, a folder that is closed, a kill between write and rename: what was whole stays whole."""

import os
import signal

import pytest

from src.errors import UserError
from src.files import write_bytes
from tests.commands import MODEL, ON_DIGITS, PAIR, module_of, run, start_code
from tests.run_content import content

COMMANDS = {
    "exec_train": [MODEL, *ON_DIGITS, "-e", "2", "-sf", "1", "-epoch-size", "64", "-dir", "m"],
    "exec_stitch": [*PAIR, "layer4.0", "layer4.0,layer4.1", "rc2c_pre", *ON_DIGITS, "-e", "0", "-i", "pinv",
                    "-dir", "grid"],
    "exec_probe": ["f.pt", MODEL, "-l", "layer1.0", *ON_DIGITS, "-b", "512", "-e", "1", "-o", "p.csv"],
    "exec_train_representation_classifier": [
        "g.pt", MODEL, "layer4.1", "-m", "repr_cls_resnet18", *ON_DIGITS, "-b", "256", "-e", "1", "-fe", "1", "-ftidd",
        "digits", "-ftoodd", "photo_patches", "-dir", "d", "-fdir", "store"],
}  # fmt: skip
LONG = ("exec_stitch", "exec_train", "exec_train_representation_classifier")
SLOW = [pytest.param(script, marks=pytest.mark.slow) for script in LONG]


@pytest.mark.parametrize("script", ["exec_probe", *SLOW])
def test_a_disk_that_fills_up_at_any_write(script, network_folder, monkeypatch, capfd):
    """Run with room for no file, for one more, for two more ..., always going on, until all of them are written."""
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
        assert status == 0 or (status == 2 and len(errors) == 1 and "No space left on device" in errors[0]), errors
        assert not list(broken.rglob("*.part"))
        room += 1
    assert room > 3
    assert content(broken) == content(broken.parent / "whole")


def test_a_kill_between_write_and_rename_leaves_the_old_file(tmp_path):
    code = (
        "import os, pathlib, signal; from src.files import write_bytes\n"
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"write_bytes(pathlib.Path({str(tmp_path)!r}) / 'meta.json', b'new')\n"
    )
    (tmp_path / "meta.json").write_bytes(b"old")
    assert start_code(code).wait(60) == -signal.SIGKILL
    assert (tmp_path / "meta.json").read_bytes() == b"old"
    (left,) = set(os.listdir(tmp_path)) - {"meta.json"}
    assert left.startswith(".") and left.endswith(".part")  # no reader takes it for a result
    assert (tmp_path / left).read_bytes() == b"new"


def test_what_may_not_be_written_is_named(tmp_path):
    (tmp_path / "table.csv").mkdir()
    with pytest.raises(UserError, match=r"cannot write .*table\.csv: Is a directory"):
        write_bytes(tmp_path / "table.csv", b"new")
    assert os.listdir(tmp_path) == ["table.csv"]
