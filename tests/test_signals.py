"""Signals end a run in order, or at once."""

import signal
import subprocess
import sys

import pytest

from src import signals


def test_the_first_signal_is_raised_where_nothing_is_deferred():
    with signals.handled(), pytest.raises(signals.Interrupted, match="SIGTERM") as raised:
        signal.raise_signal(signal.SIGTERM)
    assert raised.value.signum == signal.SIGTERM


def test_a_deferred_signal_waits_for_the_step():
    steps = []
    with signals.handled(), pytest.raises(signals.Interrupted), signals.deferred():
        for step in range(5):
            if step == 2:
                signal.raise_signal(signal.SIGINT)
            steps.append(step)
            signals.raise_pending()
    assert steps == [0, 1, 2]


def test_a_deferred_signal_is_not_lost_at_the_end_of_the_block():
    with signals.handled(), pytest.raises(signals.Interrupted), signals.deferred():
        signal.raise_signal(signal.SIGINT)


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGINT)
    with signals.handled():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_signal_ends_at_once():
    code = (
        "import signal, time\nfrom src import signals\n"
        "with signals.handled(), signals.deferred():\n"
        "    signal.raise_signal(signal.SIGTERM); print('first', flush=True)\n"
        "    signal.raise_signal(signal.SIGTERM); print('the same', flush=True)\n"
        "    time.sleep(1.1); signal.raise_signal(signal.SIGTERM); print('second', flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "first\nthe same\n" and done.returncode == -signal.SIGTERM
