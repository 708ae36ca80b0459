"""Names of a user's code: their forms, where the code lies, and how it fails."""

import sys

import pytest

from src.core.errors import UserError
from src.core.user_code import absolute, is_user_code, load, title_of

NAMES = ["loss.py:cosine", "/a:b/loss.py:cosine"]
NO_NAMES = ["cka", "loss.py", "loss.py:", "task:10", "/tmp/loss:cosine", "a.b:f", "loss.py:f:10"]


def test_forms_of_names():
    assert all(map(is_user_code, NAMES)) and not any(map(is_user_code, NO_NAMES))
    assert {title_of(name) for name in NAMES} == {"cosine"}
    assert [title_of(name) for name in NO_NAMES] == NO_NAMES


def test_paths_become_absolute(in_tmp_path):
    assert absolute("loss.py:cosine") == f"{in_tmp_path}/loss.py:cosine"
    assert absolute("loss.py:cosine", in_tmp_path / "x") == f"{in_tmp_path}/x/loss.py:cosine"
    unchanged = ["/a/loss.py:cosine", "cka"]
    assert [absolute(name) for name in unchanged] == unchanged


def test_a_file_runs_once_and_may_import_its_neighbours(in_tmp_path):
    before = list(sys.path)
    (in_tmp_path / "neighbour_of_mine.py").write_text("N = 3\n")
    (in_tmp_path / "mine.py").write_text(
        "from neighbour_of_mine import N\ncalls = []\ndef count():\n    calls.append(N)\n    return calls\n"
    )
    assert load("mine.py:count")() == [3]
    assert load(f"{in_tmp_path}/mine.py:count")() == [3, 3]
    assert sys.path == before


@pytest.mark.parametrize(
    ("name", "line"),
    [
        (
            "no.py:f",
            r"cannot run .*/no\.py: FileNotFoundError.*; correct it, or give the right FILE",
        ),
        ("bad.py:f", r"cannot run .*/bad\.py, line 2: ZeroDivisionError: division by zero"),
        ("good.py:ff", r"unknown function in good\.py 'ff'; did you mean f\? known: f"),
    ],
)
def test_errors_are_one_line(name, line, in_tmp_path):
    (in_tmp_path / "bad.py").write_text("\n1 / 0\n")
    (in_tmp_path / "good.py").write_text("def f():\n    pass\n")
    with pytest.raises(UserError, match=line):
        load(name)
