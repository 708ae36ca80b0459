"""How a script ends that did not go well: tracebacks, signals, and errors of one line (see
test_refusals.py)."""

import signal

import pytest
import torch

import exec_eval
from src import cli
from tests.commands import says, start_code


def test_a_mistake_in_the_program_shows_its_traceback(capsys):
    def broken(args):
        raise RuntimeError("oops")

    assert cli.run(exec_eval.parser(), broken, ["a", "b"]) == 1
    assert "RuntimeError: oops" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
    ],
)
def test_an_error_of_torch_that_a_user_can_mend_is_one_line(error, capsys):
    def too_many(args):
        raise error

    assert cli.run(exec_eval.parser(), too_many, ["a", "b"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says(line, "error: ", "memory of the GPU", "lower -b")


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_says_so(signum, status, capsys):
    def interrupted(args):
        signal.raise_signal(signum)

    before = signal.getsignal(signum)
    assert cli.run(exec_eval.parser(), interrupted, ["a", "b"]) == status
    assert f"interrupted by {signal.Signals(signum).name}" in capsys.readouterr().err
    assert signal.getsignal(signum) is before


def test_a_second_signal_kills():
    code = (
        "import signal\nimport exec_eval\nfrom src import cli\n"
        "def experiment(args):\n"
        "    try: signal.raise_signal(signal.SIGTERM)\n"
        "    finally: print('cleaning up', flush=True); signal.raise_signal(signal.SIGTERM); print('not reached')\n"
        "cli.run(exec_eval.parser(), experiment, ['a', 'b'])\n"
    )
    process = start_code(code)
    out, _ = process.communicate(timeout=60)
    assert (out, process.returncode) == ("cleaning up\n", -signal.SIGTERM)
