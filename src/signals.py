"""What SIGINT and SIGTERM do: the first one ends the run in order; one that comes `TOGETHER` or more later, at once.

Where nothing would be gained by waiting the first signal raises `Interrupted` on the spot; inside of `deferred` it
waits for `raise_pending`, so that a training can finish its step and save where it stands.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import NoReturn

TOGETHER = 1.0  # seconds; `timeout` and Slurm signal a process, and then its whole group
_pending: list[int] = []  # the signal that waits, if any
_since = 0.0  # when it came
_deferring = False


class Interrupted(BaseException):
    """A signal asks the run to end; a BaseException, so that no handler of errors takes it for one."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Handle both signals while the block runs (in the main thread; elsewhere Python does not let one)."""
    here = threading.current_thread() is threading.main_thread()
    signals = (signal.SIGINT, signal.SIGTERM) if here else ()
    before = {signum: signal.signal(signum, _handle) for signum in signals}
    _pending.clear()
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        _pending.clear()


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Let a signal wait for `raise_pending`, or for the end of the block."""
    global _deferring
    before, _deferring = _deferring, True
    try:
        yield
    finally:
        _deferring = before
    if not before:
        raise_pending()


def pending() -> bool:
    """Whether a signal waits."""
    return bool(_pending)


def stop() -> NoReturn:
    """Raise `Interrupted`, as the signal that waits asks for, here or in a process that this one works with."""
    raise Interrupted(_pending[0] if _pending else signal.SIGTERM)


def raise_pending() -> None:
    """Raise `Interrupted` if a signal waits."""
    if _pending:
        stop()


def _handle(signum: int, frame: object) -> None:
    global _since
    if _pending:
        if time.monotonic() - _since < TOGETHER:
            return  # the same one once more
        signal.signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)
    _pending.append(signum)
    _since = time.monotonic()
    if not _deferring:
        raise Interrupted(signum)
