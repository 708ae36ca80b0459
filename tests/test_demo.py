"""The demo from its first to its last line, which is slow, and after an interruption."""

import re
import shlex
import subprocess

import pytest

from misc import demo
from tests.commands import PNG, read_csv, run_process, says


def test_it_goes_on_where_it_was_interrupted(tmp_path, monkeypatch):
    todo, ran, interruptions = list(demo.steps()), [], [3]

    def run(words, **options):
        if len(ran) in interruptions:
            interruptions.clear()
            raise InterruptedError
        ran.append(words[1:])
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(demo.subprocess, "run", run)
    with pytest.raises(InterruptedError):
        demo.take(todo, tmp_path)
    demo.take(todo, tmp_path)
    expected = [[str(demo.ROOT / step.script), *shlex.split(step.options)] for step in todo]
    assert ran == expected
    demo.take(todo, tmp_path)
    assert len(ran) == len(todo)
    printed = [shlex.split(line) for line in (tmp_path / "steps.txt").read_text().splitlines()]
    assert printed == [["python", *words] for words in ran]


@pytest.mark.slow
def test_demo_writes_its_report(tmp_path):
    out = run_process("misc/demo.py", tmp_path / "demo", cwd=tmp_path, timeout=1200).out
    report = tmp_path / "demo" / "report.md"
    assert out.splitlines()[-1] == str(report)
    text = report.read_text()
    figures = re.findall(r"\]\((.*\.png)\)", text)
    assert figures == ["verdict.png", "backwards.png", "similarity.png", "sensitivity.png"]
    assert all((tmp_path / "demo" / figure).read_bytes().startswith(PNG) for figure in figures)
    accuracies = [float(word.rstrip("%")) for word in text.split() if word.endswith("%")][:2]
    assert min(accuracies) >= 90
    rows = read_csv(tmp_path / "demo" / "verdict.csv")
    undecided = [row for row in rows if row["verdict"] == "undecided"]
    # Several shares lie near the limit of 75 %
    assert len(rows) == 4 * 16 and len(undecided) <= len(rows) / 3
    assert says(
        text, "of 4 layers stitched to themselves 4", "of 16 stitches", " 0 are (none may be)"
    )
    n_similar = sum(row["verdict"] == "similar" for row in rows if "task loss" in row["method"])
    assert re.search(rf"Of 16 pairs .*; by task loss matching \d+ .* {n_similar} similar", text)
    lost = {row["method"] for row in rows if row["verdict"] == "the image is lost"}
    assert "task loss matching" in lost
    assert re.search(r"linear CKA \d of 8 times", text)
    rows = read_csv(tmp_path / "demo" / "statistics.csv")
    measures = {"cka", "pwcca", "procrustes", "stitching accuracy"}
    for test in ("sensitivity", "specificity"):
        assert measures <= {row["measure"] for row in rows if row["test"] == test}
