"""The demo: its steps, its words, and, in slow tests, from its first to its last line."""

import re
import shlex
import signal
import sys
import time
from pathlib import Path

import pytest

import exec_probe
from misc import demo
from src import cli
from src.ground.console import note
from src.ground.errors import UserError
from src.verdict import ACCURATE_ONLY, NOT_MATCHED, SIMILAR, UNDECIDED
from tests.commands import (
    PNG,
    ROOT,
    error_line,
    names_in,
    parser_of,
    read_csv,
    read_json,
    run_process,
    says,
    start,
    start_code,
)


def parser() -> cli.Parser:
    """The parser of the planted steps."""
    options = cli.Parser("Write the name of a file, and what its sources hold, into the file.")
    options.add_argument("sources", nargs="*")
    options.add_argument("-o", "--output")
    return options


def write(args) -> None:
    """Writes a file; fails to write `fails` where there is a file `fail`."""
    if args.output == "fails" and Path("fail").exists():
        raise UserError("there is a file `fail`; remove it")
    note(f"writes {args.output}")
    texts = [Path(source).read_text() for source in args.sources]
    Path(args.output).write_text(f"{args.output}({' '.join(texts)})")
    note(f"wrote {args.output}")


def meet(args) -> None:
    """Ends as soon as another step like it runs."""
    Path(args.output).touch()
    deadline = time.monotonic() + 60
    while len(list(Path().glob("meets*"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def hang(args) -> None:
    """Hangs; renames its file when it is interrupted."""
    try:
        Path(args.output).touch()
        time.sleep(600)
    finally:
        Path(args.output).rename(f"{args.output}.cleaned")


def planted(sources: str, output: str, function=write) -> demo.Step:
    return demo.Step(f"Write {output}", function, f"{sources} -o {output}".strip(), output)


PLANTED = [
    planted("", "a"),
    planted("", "b"),
    planted("a", "c"),
    planted("a b", "d"),
    planted("c d", "e"),
    planted("b", "fails"),
    planted("e fails", "g"),
]
HANGING = [planted("", "hangs1", hang), planted("", "hangs2", hang), planted("hangs1", "last")]


@pytest.fixture(params=[1, 2])
def n_cores(request, monkeypatch):
    """One core, on which steps run one after another, and two."""
    monkeypatch.setattr(demo, "n_cores", lambda: request.param)
    return request.param


def test_steps_write_the_same_one_after_another_and_side_by_side(n_cores, in_tmp_path, capsys):
    demo.take(PLANTED)
    assert Path("g").read_text() == "g(e(c(a()) d(a() b())) fails(b()))"
    commands = Path("steps.txt").read_text().splitlines()
    assert sorted(commands) == sorted(step.command for step in PLANTED)

    printed = capsys.readouterr().err
    assert [line for line in printed.splitlines() if line in commands] == commands
    assert "writes" not in printed
    _, *blocks = re.split("^# ", Path("log.txt").read_text(), flags=re.MULTILINE)
    for block, command in zip(blocks, commands, strict=True):
        title, first_line, begin, end = block.split("\n", 4)[:4]
        output = title.split()[-1]
        assert (first_line, begin, end) == (command, f"writes {output}", f"wrote {output}")


def test_it_goes_on_where_a_step_failed(n_cores, in_tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(demo, "steps", lambda: PLANTED)
    Path("steps.txt").touch()  # it was begun before
    Path("fail").touch()
    with pytest.raises(SystemExit) as stop:
        demo.main(["."])
    assert stop.value.code == 2
    printed = capsys.readouterr().err
    errors = [line for line in printed.splitlines() if "error" in line]
    assert len(errors) == 1 and "there is a file `fail`; remove it" in errors[0]
    assert printed.endswith("To go on, give the command of the demo again\n")
    finished = Path("steps.txt").read_text().splitlines()
    assert not Path("g").exists()

    Path("fail").unlink()
    demo.take(PLANTED)
    printed = capsys.readouterr().err.splitlines()
    assert Path("g").exists() and not {*finished} & {*printed}
    demo.take(PLANTED)
    assert "# " not in capsys.readouterr().err


on_two_cores = pytest.mark.skipif(sys.platform != "linux", reason="steps run one after another")


@on_two_cores
def test_steps_that_do_not_need_each_other_run_at_the_same_time(in_tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "n_cores", lambda: 2)
    demo.take([planted("", "meets1", meet), planted("", "meets2", meet)])


@on_two_cores
@pytest.mark.parametrize(
    ("signum", "status", "ending"),
    [
        (signal.SIGINT, 130, ".cleaned"),
        (signal.SIGTERM, 143, ".cleaned"),
        (signal.SIGKILL, -signal.SIGKILL, ""),
    ],
)
def test_its_end_is_the_end_of_all_steps(signum, status, ending, in_tmp_path):
    code = (
        "import os, sys\n"
        "from src import cli\n"
        "from misc import demo\n"
        "from tests import test_demo\n"
        "os.chdir(sys.argv[1])\n"
        "demo.n_cores = lambda: 2\n"
        "sys.exit(cli.run(demo.parser(), lambda args: demo.take(test_demo.HANGING), []))\n"
    )
    process = start_code(code, in_tmp_path)
    hanging = [Path(step.output) for step in HANGING if step.function is hang]
    while not all(path.exists() for path in hanging):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signum)
    process.communicate(timeout=60)  # waits until all processes that have its pipes are gone
    assert process.returncode == status
    assert names_in(in_tmp_path) == {f"{path}{ending}" for path in hanging}


def test_it_writes_to_no_folder_with_other_files(tmp_path):
    (tmp_path / "report.md").write_text("mine")
    assert str(tmp_path) in error_line("misc/demo.py", tmp_path)
    assert names_in(tmp_path) == {"report.md"}


def test_a_step_is_its_command(in_tmp_path, capsys):
    """It records the command, and fails as it does; only the demo itself prints results."""
    options = "- small_cnn -l pool4 -d digits -gpu -1 -e 0 -o probes.csv"
    step = demo.Step("Probe", exec_probe.probe, options, "probes.csv")
    assert demo.run_step(step) == 0
    assert read_csv("probes.csv")
    assert f"python {read_json('probes.run.json')['command']}" == step.command
    failing = step._replace(options=options.replace("pool4", "pool5"))
    assert demo.run_step(failing) == 2
    printed = capsys.readouterr()
    assert not printed.out and "exec_probe.py: error: " in printed.err


def test_all_options_of_the_steps_are_allowed():
    for step in demo.steps():
        _, script, *options = shlex.split(step.command)
        parser_of(str(Path(script).relative_to(ROOT))).parse_args(options)


def test_commands_of_the_report_are_typed_in_its_folder(tmp_path):
    for step in demo.steps():
        _, script, *options = shlex.split(step.command_in(tmp_path))
        assert not Path(script).is_absolute() and options == shlex.split(step.options)
        assert (tmp_path / script).resolve() == Path(shlex.split(step.command)[1])


def test_the_last_lines_are_of_the_tables():
    def row(method: str, front: str, end: str, **values: object) -> demo.Row:
        return {"method": method, "front_layer": front, "end_layer": end, **values}

    kept = {"accuracy": "0.95", "skill": "0.9", "verdict": SIMILAR}
    rows = []
    for method, accuracy, skill in (("direct matching", "0.25", "-1.5"), ("repair", "0.9", "0.8")):
        backwards = {"accuracy": accuracy, "skill": skill, "verdict": NOT_MATCHED}
        rows += [row(method, "a", layer, **kept) for layer in ("a", "b")]
        rows += [row(method, "b", "a", **backwards), row(method, "b", "b", **kept)]
    backwards, similar = demo.in_short(rows)
    assert says(backwards, "direct matching", "25%", "skill of -1.50") and "repair" not in backwards
    assert says(similar, "Of 4 pairs", "3 by direct matching, 3 by repair", ": 3 by one or more.")


def test_the_rule_says_once_what_is_said_of_methods(tmp_path):
    path = tmp_path / "verdict.md"
    lines = [f"Not matched is said of the method: {name} may do better." for name in "xy"]
    path.write_text("\n".join(["# Verdict", "", "A pair is", *lines, "Given by", "Command: c", ""]))
    assert demo.rule(path) == ["A pair is", lines[0], "Given by"]


def test_a_step_waits_for_all_that_writes_its_sources():
    """No step names a file or folder, except its own, that is written later."""
    todo = list(demo.steps())
    for number, step in enumerate(todo):
        later = {other.output for other in todo[number + 1 :]} - {step.output}
        sources = {word for word in shlex.split(step.options) if "/" in word or "." in word}
        assert not [word for word in sources for output in later if word.startswith(output)]


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
    """After it was killed when a training had ended."""
    log = tmp_path / "demo" / "steps.txt"
    with start("misc/demo.py", log.parent, cwd=tmp_path, stdout=None, stderr=None) as killed:
        while not (log.exists() and log.read_text()):
            assert killed.poll() is None
            time.sleep(0.1)
        killed.kill()
    printed = run_process("misc/demo.py", log.parent, cwd=tmp_path, timeout=1200)
    *_, last = steps = list(demo.steps())
    commands = [step.command for step in steps]
    assert sorted(log.read_text().splitlines()) == sorted(commands)

    report = tmp_path / "demo" / "report.md"
    picture = tmp_path / "demo" / "paper.png"
    page = tmp_path / "demo" / "page.html"
    assert printed.out.splitlines()[-1] == f"Open {picture}, {report} or {page}"
    assert f"The first picture is {picture}\n" in printed.err
    text = report.read_text()
    figures = re.findall(r"\]\((.*\.png)\)", text)
    assert figures == [
        *("paper.png", "verdict.png"),
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
    accurate_only = {row["method"] for row in rows if row["verdict"] == ACCURATE_ONLY}
    assert "task loss matching" in accurate_only
    assert re.search(r"linear CKA \d of 8 times", text)
    assert "PWCCA rises" in text
    assert text.rstrip().endswith(f"{last.command_in(report.parent)}\n```")
    rows = read_csv(tmp_path / "demo" / "statistics.csv")
    measures = {"cka", "pwcca", "procrustes", "stitching accuracy"}
    for test in ("sensitivity", "specificity"):
        assert measures <= {row["measure"] for row in rows if row["test"] == test}
