"""misc/paper: the commands that its scripts print, and how they run them; the experiments
themselves are slow."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from src.core.choices.datasets import DATASET_NAMES
from src.models import MODEL_NAMES
from tests.commands import ROOT, parser_of

PAPER = ROOT / "misc" / "paper"
SCRIPTS = sorted(path.name for path in PAPER.glob("[0-9]*.sh"))
TRAIN = "01_train_cifar10_svhn.sh"
IS_NEW = "((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 404))"
pytestmark = pytest.mark.skipif(
    subprocess.run(["bash", "-c", IS_NEW]).returncode != 0,
    reason="bash is older than 4.4, as macOS's own",
)


def environment(tmp_path: Path, **settings: str) -> dict[str, str]:
    """No settings from outside; results go to a folder whose name has a blank."""
    own = {
        "PATH": os.environ["PATH"],
        "MODELS": f"{tmp_path}/all models",
        "RESULTS": f"{tmp_path}/all results",
    }
    return own | settings


def run(name: str, tmp_path: Path, **settings: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", PAPER / name],
        cwd=tmp_path,
        env=environment(tmp_path, **settings),
        capture_output=True,
        text=True,
        timeout=120,
    )


def commands(name: str, tmp_path: Path, **settings: str) -> list[list[str]]:
    """The words of the commands that a script would run."""
    done = run(name, tmp_path, DRY_RUN="1", **settings)
    assert (done.returncode, done.stderr) == (0, "")
    return [shlex.split(line) for line in done.stdout.splitlines()]


def fake_python(tmp_path: Path, body: str) -> str:
    """A program to stand in the place of Python; returns its path, which has a blank. It runs in
    the repository."""
    path = tmp_path / "fake python"
    path.write_text(f'#!/usr/bin/env bash\nlog="{tmp_path}/log"\n{body}\n')
    path.chmod(0o755)
    return str(path)


# A run that ends when two of them have begun


@pytest.mark.parametrize("name", SCRIPTS)
def test_prints_commands_that_the_scripts_take(name, tmp_path):
    lines = commands(name, tmp_path)
    for python, script, *arguments in lines:
        assert python == "python"
        args = vars(parser_of(script).parse_args(arguments))
        assert args.get("gpu", 0) == 0 and args.get("resume", True)
        for option, value in args.items():
            if option.endswith("dataset") and value:
                assert value in DATASET_NAMES
            if option.endswith(("model_type", "arch")) or re.fullmatch(r"model._type", option):
                assert value in (None, *MODEL_NAMES)  # None: collected of any type
            if option.endswith(("_dir", "_path", "output")) and value:
                assert value.startswith((f"{tmp_path}/all models/", f"{tmp_path}/all results/"))
    assert len({tuple(line) for line in lines}) == len(lines)

    row = re.search(
        rf"^\| .*`{name}`.*\|$", (ROOT / "misc" / "docs" / "paper.md").read_text(), re.MULTILINE
    ).group()
    assert int(row.split("|")[3]) == len(lines), "misc/docs/paper.md counts other runs"


def test_skips_what_is_done(tmp_path):
    def finish(path: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).touch()

    finish("all models/svhn/resnet18/1/config.txt")
    finish("all models/svhn/resnet18/0/model_100.pt")  # not the mark of a finished run
    assert len(commands(TRAIN, tmp_path)) == 7
    one = {"DATASETS": "svhn", "NETWORKS": "resnet18"}
    done = run(TRAIN, tmp_path, PYTHON="/does/not/exist", SEEDS="1", **one)
    assert (done.returncode, done.stdout) == (0, "") and "nothing is left to do" in done.stderr

    before = commands("07_sensitivity.sh", tmp_path, RANKS="512 8", **one)
    run_of_rank = "layer4.1/rank8/2026-01-01 00:00:00/config.txt"
    finish(f"all results/svhn/resnet18/0-1/sensitivity/dm/{run_of_rank}")
    after = commands("07_sensitivity.sh", tmp_path, RANKS="512 8", **one)
    (gone,) = [line for line in before if line not in after]
    assert gone[-1].endswith("/dm/layer4.1/rank8") and "pinv" in gone


def test_a_failure_stops_no_other_run_and_is_named(tmp_path):
    python = fake_python(
        tmp_path, 'echo "$*" >> "$log"; [[ $* != *"-d svhn"*"-s 1"* ]] || { echo trouble; exit 3; }'
    )
    done = run(TRAIN, tmp_path, PYTHON=python, GPUS="0 1 2", NETWORKS="resnet18")
    assert done.returncode == 1
    assert len((tmp_path / "log").read_text().splitlines()) == 4
    (failed,) = done.stderr.partition("failed:\n")[2].splitlines()
    assert "-d svhn" in failed and "-s 1" in failed
    reason, log = failed.partition("   # ")[2].split("; see ")
    assert reason == "trouble" and Path(log).read_text() == "trouble\n"


@pytest.mark.parametrize(
    ("signum", "whole_group"), [(signal.SIGTERM, False), (signal.SIGINT, True)]
)
def test_a_signal_reaches_each_run_once(signum, whole_group, tmp_path):
    """Ctrl-C signals the whole process group of a terminal; a second signal would keep a run from
    saving."""
    counting = 'trap \'echo signal >> "$log"\' TERM INT; echo began >> "$log"; for i in {1..5}; do sleep 0.1; done'
    until = '\nuntil grep -q signal "$log"; do sleep 0.1; done; sleep 0.5; echo saved >> "$log"; exit 143'
    script = subprocess.Popen(
        ["bash", PAPER / TRAIN],
        text=True,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env=environment(tmp_path, PYTHON=fake_python(tmp_path, counting + until), GPUS="0 1"),
        start_new_session=True,
    )
    log, end = tmp_path / "log", time.monotonic() + 180
    while not (log.exists() and log.read_text().count("began") == 2):
        assert time.monotonic() < end
        time.sleep(0.05)
    time.sleep(
        1
    )  # by then bash waits; a signal on the way there would be answered after the first run
    (os.killpg if whole_group else os.kill)(script.pid, signum)
    _, errors = script.communicate(timeout=180)
    assert script.returncode == 128 + signum
    assert "interrupted" in errors and "failed" not in errors
    assert sorted(log.read_text().split()) == ["began"] * 2 + ["saved"] * 2 + ["signal"] * 2


# The Slurm job array


@pytest.fixture
def array_job(tmp_path):
    """Start one job of an array of five as Slurm would; what is asked of Slurm is written down in
    `slurm`."""
    for name, answer in {"sbatch": "", "scontrol": "", "squeue": f'cat "{tmp_path}/state"'}.items():
        (tmp_path / name).write_text(
            f'#!/usr/bin/env bash\necho {name} "$@" >> "{tmp_path}/slurm"\n{answer}\n'
        )
        (tmp_path / name).chmod(0o755)

    def start(task: int | None, *arguments: str, **more: str) -> subprocess.Popen:
        of_array = {"TASK_ID": task, "TASK_COUNT": 5, "JOB_ID": 7, "TASK_MIN": 1, "TASK_MAX": 5}
        job = (
            {f"SLURM_ARRAY_{name}": str(value) for name, value in of_array.items()} if task else {}
        )
        own = {"PATH": f"{tmp_path}:{os.environ['PATH']}", **job, **more}
        return subprocess.Popen(
            ["bash", PAPER / "slurm_array.sbatch", *arguments],
            cwd=tmp_path,
            text=True,
            env=own,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    return start


def test_a_job_runs_its_line(array_job, tmp_path):
    (tmp_path / "runs.txt").write_text(
        "echo one\nbash -c 'echo \"two  words\"'\nbash -c 'exit 3'\n"
    )
    for task, status, said in ((2, 0, "two  words"), (3, 3, ""), (4, 2, "runs.txt has 3 lines")):
        job = array_job(task, "runs.txt")
        assert said in job.communicate(timeout=180)[0] and job.returncode == status
    array_job(None, "runs.txt").communicate(timeout=180)  # without an array it submits one
    assert (
        tmp_path / "slurm"
    ).read_text() == "sbatch --array=1-3 misc/paper/slurm_array.sbatch runs.txt\n"


@pytest.mark.parametrize(
    ("state", "asked"), [("RUNNING", "scontrol requeue 7_1\n"), ("CANCELLED", "")]
)
def test_a_job_that_has_to_end_is_queued_again_unless_it_was_cancelled(
    state, asked, array_job, tmp_path
):
    (tmp_path / "state").write_text(f"{state}\n")
    handle = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))"
    wait = "print('began', flush=True); time.sleep(60)"
    (tmp_path / "runs.txt").write_text(shlex.join([sys.executable, "-c", f"{handle}; {wait}"]))
    job = array_job(1, "runs.txt")
    job.stdout.readline(), job.stdout.readline()  # the command, and that it began
    job.terminate()
    job.communicate(timeout=180)
    assert job.returncode == 143 and (tmp_path / "slurm").read_text().partition("\n")[2] == asked


def test_a_job_takes_a_share_of_all_pairs(array_job):
    words = ["misc/all_pairs.py", "my networks.csv", "all", "rc2c_pre", "-dir", "pairs"]
    first, _ = array_job(2, *words, PYTHON="echo").communicate(timeout=180)[0].splitlines()
    script, *arguments = shlex.split(first)[1:]
    options = parser_of(script).parse_args(arguments)
    assert options.shard == (2, 5) and options.networks == "my networks.csv"
    for job in (array_job(None, *words), array_job(3, *words, SLURM_ARRAY_TASK_MIN="3")):
        assert "give sbatch --array=1-N" in job.communicate(timeout=180)[0] and job.returncode == 2


@pytest.mark.slow
def test_every_script_on_the_digits(tmp_path):
    done = subprocess.run(
        ["bash", PAPER / "smoke.sh"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=1800,
        env=os.environ | {"PYTHON": sys.executable},
    )
    assert done.returncode == 0, done.stdout + done.stderr
