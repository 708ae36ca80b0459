"""The demo: its steps, and, in slow tests, from its first to its last line."""

import shlex
import time
from pathlib import Path

import pytest

from misc import demo
from src.verdict import SIMILAR
from tests.commands import (
    PNG,
    ROOT,
    error_line,
    names_in,
    parser_of,
    read_csv,
    run_process,
    says,
    start,
)


def test_it_writes_to_no_folder_with_other_files(tmp_path):
    (tmp_path / "report.md").write_text("mine")
    assert str(tmp_path) in error_line("misc/demo.py", tmp_path)
    assert names_in(tmp_path) == {"report.md"}


def test_all_options_of_the_steps_are_allowed():
    for step in demo.steps():
        _, script, *options = shlex.split(step.command)
        parser_of(str(Path(script).relative_to(ROOT))).parse_args(options)


@pytest.mark.slow
def test_demo_ends_with_its_results(tmp_path):
    """After it was killed when a training had ended."""
    log = tmp_path / "demo" / "steps.txt"
    with start("misc/demo.py", log.parent, cwd=tmp_path, stdout=None, stderr=None) as killed:
        while not (log.exists() and log.read_text()):
            assert killed.poll() is None
            time.sleep(0.1)
        killed.kill()
    printed = run_process("misc/demo.py", log.parent, cwd=tmp_path, timeout=1200)
    assert log.read_text().splitlines() == [step.command for step in demo.steps()]
    counted, backwards, to_open = printed.out.splitlines()
    page, *images = map(Path, to_open.removeprefix("Open ").split(", "))
    assert all(image.read_bytes().startswith(PNG) for image in images)
    rows = read_csv(tmp_path / "demo" / "verdict.csv")
    assert len(rows) == 2 * 16
    words = [row["verdict"] for row in rows if row["method"] == "direct matching"]
    assert says(counted, "Of 16 pairs", f"{words.count(SIMILAR)} by direct", "0 by task loss")
    assert words.count(SIMILAR) >= 2
    assert says(backwards, "direct matching keeps 2", "task loss matching keeps 9")
    assert counted.count(" by ") == 2 and "by direct matching" in page.read_text()
