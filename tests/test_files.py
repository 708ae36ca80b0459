"""Layout and rights of files, and locks between processes."""

import errno
import fcntl
import os

from src import files
from src.files import write_json, write_text
from tests.commands import start_code


def test_folders_are_created_and_files_get_ordinary_rights(tmp_path):
    path = tmp_path / "a" / "b.txt"
    write_text(path, "é")
    assert path.read_text(encoding="utf-8") == "é"
    plain = tmp_path / "plain"
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode


def test_json_has_the_layout_of_the_public_code(tmp_path):
    write_json(tmp_path / "config.txt", {"a": None, "b": [1]})
    assert (tmp_path / "config.txt").read_text() == '{\n    "a": null,\n    "b": [\n        1\n    ]\n}'


def test_a_file_system_without_locks_is_no_obstacle(tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with files.locked(tmp_path / "lock"):
        assert "let one process at a time write to" in capsys.readouterr().err


def test_a_lock_keeps_processes_apart(tmp_path):
    code = (
        "import sys, pathlib; from src.files import locked\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "for _ in range(50):\n"
        "    with locked(path.with_name('.lock')): path.write_text(str(int(path.read_text()) + 1))\n"
    )
    counter = tmp_path / "counter"
    counter.write_text("0")
    processes = [start_code(code, counter) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    assert counter.read_text() == "200"
