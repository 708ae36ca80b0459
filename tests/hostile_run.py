"""Reads damaged files, one after the other, within bounds of time and memory; says in JSON what came of it.

Run as a process of its own, so that a crash of the interpreter is no crash of the tests:
python -m tests.hostile_run FOLDER MUTATIONS SEED [READER]
"""

import faulthandler
import json
import math
import random
import resource
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from src.errors import UserError
from src.report import silenced
from tests.hostile_readers import READERS
from tests.hostile_traps import traps
from tests.mutations import mutate

SECONDS, BYTES = 10, 2**31  # for one read; for the whole process, beside what it has when it begins
MAX_FAILURES = 10


def limit_memory() -> None:
    """Let whatever asks for more than `BYTES` fail."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


class Outcome(NamedTuple):
    """How a read ended."""

    refusal: str  # the line of the UserError; empty: none
    wrong: str  # what must not happen; empty: all is well


def attempt(name: str, folder: Path) -> Outcome:
    """Read a folder."""
    start, refusal = time.monotonic(), ""
    faulthandler.dump_traceback_later(3 * SECONDS, exit=True)
    try:
        with silenced(), warnings.catch_warnings():
            warnings.simplefilter("error")
            READERS[name].read(folder)
    except UserError as error:
        refusal, whole = str(error), f"{error} {error.__cause__!r}"
        if "\n" in refusal or any(word in whole for word in ("memory", "MemoryError", "allocate")):
            return Outcome(refusal, f"more than one line, or more memory than there may be: {whole}")
    except BaseException:
        return Outcome(refusal, traceback.format_exc())
    finally:
        faulthandler.cancel_dump_traceback_later()
    seconds = time.monotonic() - start
    return Outcome(refusal, f"took {seconds:.0f} seconds" if seconds > SECONDS else "")


def damaged(name: str, folder: Path, n: int, seed: int, others: list[bytes]) -> Iterator[str]:
    """Damage a file of a folder, n times, and put it back; yields how, while the file is damaged."""
    reader, rng = READERS[name], random.Random(f"{seed} {name}")
    valid = {path: path.read_bytes() for path in folder.glob("**/*") if path.is_file()}
    targets = sorted(path for path in folder.glob(reader.files) if path.is_file())
    for i in range(n):
        path = rng.choice(targets)
        how, content = mutate(valid[path], rng, others, reader.ways)
        path.write_bytes(content)
        yield f"{name}, {path.name}, number {i}: {how}"
        path.write_bytes(valid[path])
        for extra in {path for path in folder.glob("**/*") if path.is_file()} - set(valid):
            extra.unlink()


def prepare(folder: Path) -> None:
    """Write valid files of each format, and make sure that they are read."""
    for name, reader in READERS.items():
        (folder / name).mkdir(parents=True)
        reader.write(folder / name)
        assert attempt(name, folder / name) == Outcome("", ""), f"{name}: {attempt(name, folder / name)}"


def read_damaged(folder: Path, n_mutations: int, seed: int, names: Sequence[str]) -> dict[str, Any]:
    """Read damaged files of each format; returns numbers and failures."""
    others = [next(path for path in sorted(folder.glob(f"{name}/{READERS[name].files}")) if path.is_file()).read_bytes()
              for name in READERS]  # fmt: skip
    failures, slowest = [], {}
    n = n_refused = 0
    for name in names:
        share = READERS[name].share / sum(READERS[other].share for other in names)
        for how in damaged(name, folder / name, math.ceil(share * n_mutations), seed, others):
            start = time.monotonic()
            outcome = attempt(name, folder / name)
            n, n_refused = n + 1, n_refused + bool(outcome.refusal)
            slowest[name] = max(slowest.get(name, 0), time.monotonic() - start)
            failures += [f"{how}\n{outcome.wrong}"] if outcome.wrong and len(failures) < MAX_FAILURES else []
    return {"n": n, "refused": n_refused, "failures": failures, "slowest": slowest}


def read_traps(folder: Path) -> dict[str, Outcome]:
    """Read files that were made to do harm."""
    outcomes = {}
    for name, trap in traps(folder).items():
        path = folder / trap.reader / trap.file
        valid = path.read_bytes()
        path.write_bytes(trap.content)
        outcomes[name] = attempt(trap.reader, folder / trap.reader)
        path.write_bytes(valid)
    return outcomes


def peak() -> int:
    """The most memory that this process had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    faulthandler.enable()
    at, n_mutations, seed, *only = sys.argv[1:]
    prepare(Path(at))
    limit_memory()
    before = peak()
    done = read_damaged(Path(at), int(n_mutations), int(seed), only or list(READERS))
    done["traps"] = {} if only else read_traps(Path(at))
    print(json.dumps(done | {"grown": peak() - before}))
