"""The demo: its steps, its words, and, in slow tests, from its first to its last line."""

import re
import shlex
import time

import pytest

from misc import demo
from src.runs.session import Session
from src.verdict import LOST, UNDECIDED
from tests.commands import PNG, read_csv, read_json, run_process, says, start


def test_it_goes_on_where_it_was_interrupted(in_tmp_path, monkeypatch):
    todo, ran, interruptions = list(demo.steps()), [], [3]

    def run_step(step, session):
        if len(ran) in interruptions:
            interruptions.clear()
            raise InterruptedError
        ran.append(step)
        return 0

    monkeypatch.setattr(demo, "run_step", run_step)
    with pytest.raises(InterruptedError):
        demo.take(todo)
    demo.take(todo)
    assert ran == todo
    demo.take(todo)
    assert len(ran) == len(todo)
    printed = [shlex.split(line) for line in (in_tmp_path / "steps.txt").read_text().splitlines()]
    assert printed == [
        ["python", str(demo.ROOT / step.script), *shlex.split(step.options)] for step in todo
    ]


def test_a_step_is_its_command(in_tmp_path, capsys):
    """It records the command, and fails as it does; only the demo itself prints results."""
    options = "- small_cnn -l pool4 -d digits -gpu -1 -e 0 -o probes.csv"
    step = demo.Step("Probe", "exec_probe.py", options)
    assert demo.run_step(step, Session()) == 0
    assert read_csv("probes.csv")
    assert f"python {read_json('probes.run.json')['command']}" == step.command
    failing = step._replace(options=options.replace("pool4", "pool5"))
    assert demo.run_step(failing, Session()) == 2
    printed = capsys.readouterr()
    assert not printed.out and "exec_probe.py: error: " in printed.err


def test_all_options_of_the_steps_are_allowed():
    for step in demo.steps():
        demo.SCRIPTS[step.script].module.parser().parse_args(shlex.split(step.options))


def test_measures_that_rise_where_probes_fall_are_named():
    ranks = [
        {"cka": "0.9", "pwcca": "0.3", "procrustes": "0.2"},
        {"cka": "0.8", "pwcca": "0.4", "procrustes": "0.3"},
        {"cka": "0.5", "pwcca": "0.1", "procrustes": "1.0"},
    ]
    probes = [{"accuracy": "0.95"}, {"accuracy": "0.75"}, {"accuracy": "0.25"}]
    text = demo.sensitivity(ranks, probes)
    assert "from 95.0% to 25.0%" in text
    assert says(text, "linear CKA falls", "0.90 to 0.50, PWCCA rises", "from 0.70 to 0.90")
    assert says(text, "PWCCA calls", "the more similar")
    ranks[-1]["pwcca"] = "0.8"
    assert "the more similar" not in demo.sensitivity(ranks, probes)


@pytest.mark.slow
def test_demo_writes_its_report(tmp_path):
    """After it was killed in its second training."""
    log = tmp_path / "demo" / "steps.txt"
    with start("misc/demo.py", log.parent, cwd=tmp_path, stdout=None, stderr=None) as killed:
        while not (log.exists() and log.read_text()):
            assert killed.poll() is None
            time.sleep(0.1)
        killed.kill()
    printed = run_process("misc/demo.py", log.parent, cwd=tmp_path, timeout=1200)
    commands = [step.command for step in demo.steps()]
    assert log.read_text().splitlines() == commands
    assert commands[0] not in printed.err

    report = tmp_path / "demo" / "report.md"
    assert printed.out.splitlines()[-1] == str(report)
    assert f"The first picture is {tmp_path / 'demo' / 'paper.png'}\n" in printed.err
    text = report.read_text()
    figures = re.findall(r"\]\((.*\.png)\)", text)
    assert figures == [
        *("paper.png", "backwards.png", "verdict.png"),
        *("similarity.png", "sensitivity.png"),
    ]
    assert all((tmp_path / "demo" / figure).read_bytes().startswith(PNG) for figure in figures)
    accuracies = [float(word.rstrip("%")) for word in text.split() if word.endswith("%")][:2]
    assert min(accuracies) >= 90
    rows = read_csv(tmp_path / "demo" / "verdict.csv")
    undecided = [row for row in rows if row["verdict"] == UNDECIDED]
    assert len(rows) == 4 * 16 and len(undecided) <= len(rows) / 8
    assert says(text, "of 4 layers", "to themselves 4", "of 16 stitches", " 0 are (none may be)")
    n_similar = sum(row["verdict"] == "similar" for row in rows if "task loss" in row["method"])
    assert re.search(rf"Of 16 pairs .*; by task loss matching \d+ .* {n_similar} similar", text)
    lost = {row["method"] for row in rows if row["verdict"] == LOST}
    assert "task loss matching" in lost
    assert re.search(r"linear CKA \d of 8 times", text)
    assert "PWCCA rises" in text
    assert text.rstrip().endswith(f"{commands[-1]}\n```")
    rows = read_csv(tmp_path / "demo" / "statistics.csv")
    measures = {"cka", "pwcca", "procrustes", "stitching accuracy"}
    for test in ("sensitivity", "specificity"):
        assert measures <= {row["measure"] for row in rows if row["test"] == test}
