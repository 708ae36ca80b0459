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
from collections.abc import Iterator
from pathlib import Path

from src.errors import UserError
from src.report import silenced
from tests.hostile_readers import READERS
from tests.mutations import mutate

SECONDS, BYTES = 10, 2**31  # for one read; for the whole process, beside what it has when it begins
MAX_FAILURES = 10


def limit_memory() -> None:
    """Let whatever asks for more than `BYTES` fail."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def attempt(name: str, folder: Path) -> str:
    """Read a folder; returns what is wrong with how that ended, nothing if all is well."""
    start = time.monotonic()
    faulthandler.dump_traceback_later(3 * SECONDS, exit=True)
    try:
        with silenced(), warnings.catch_warnings():
            warnings.simplefilter("error")
            READERS[name].read(folder)
    except UserError as error:
        if "\n" in str(error):
            return f"more than one line: {error}"
        if isinstance(error.__cause__, MemoryError) or "memory" in str(error):
            return f"asked for more memory than there may be: {error}"
    except BaseException:
        return traceback.format_exc()
    finally:
        faulthandler.cancel_dump_traceback_later()
    seconds = time.monotonic() - start
    return f"took {seconds:.0f} seconds" if seconds > SECONDS else ""


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


def main(folder: Path, n_mutations: int, seed: int, names: list[str]) -> dict:
    """Read damaged files of each format, equally many; returns numbers and failures."""
    for name, reader in READERS.items():
        (folder / name).mkdir(parents=True)
        reader.write(folder / name)
        assert not attempt(name, folder / name), f"{name}: the valid files are refused: {attempt(name, folder / name)}"
    others = [min(folder.glob(f"{name}/{READERS[name].files}"), key=lambda path: path.is_dir()).read_bytes()
              for name in READERS]  # fmt: skip
    limit_memory()
    before, failures, n, slowest = peak(), [], 0, {}
    for name in names:
        share = READERS[name].share / sum(READERS[other].share for other in names)
        for how in damaged(name, folder / name, math.ceil(share * n_mutations), seed, others):
            start = time.monotonic()
            wrong = attempt(name, folder / name)
            n, slowest[name] = n + 1, max(slowest.get(name, 0), time.monotonic() - start)
            if wrong:
                failures.append(f"{how}\n{wrong}")
                if len(failures) == MAX_FAILURES:
                    break
    return {"n": n, "failures": failures, "grown": peak() - before, "slowest": slowest}


def peak() -> int:
    """The most memory that this process had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    faulthandler.enable()
    at, n_mutations, seed, *only = sys.argv[1:]
    print(json.dumps(main(Path(at), int(n_mutations), int(seed), only or list(READERS))))
