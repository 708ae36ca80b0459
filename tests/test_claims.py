"""Every script claims what it writes, and writes its options after the results: two processes do not
write one table, and results of a killed one are beside no options."""

import contextlib
import shutil
from pathlib import Path

import pytest

from src.core.files import write_json
from src.core.seeds import seeded
from src.core.tensors import save_state
from src.models import build_model
from src.results.run import Run, options_of_table
from tests.commands import ON_DIGITS, error_line, run, start_code
from tests.conftest import few_images

SMALL = ["f.pt", "g.pt", "small_cnn", "small_cnn"]
STITCH = ["exec_stitch.py", *SMALL, "pool4", "pool4", "rc2c_pre", *ON_DIGITS, "-e", 0, "-i", "pinv",
          "--mod-only-stitch", "-dir", "r"]  # fmt: skip
SCRIPTS = {  # by the table that it writes: a command, and an option that changes the table
    "sim.csv": (
        ["exec_compute_low_rank_sim_metrics.py", *SMALL, "pool4", "pool4", *ON_DIGITS, "-n", 60],
        ["--metrics", "cka"],
    ),
    "probes.csv": (
        ["exec_probe.py", "f.pt", "small_cnn", "-l", "pool4", *ON_DIGITS, "-e", 1],
        ["-lr", 0.1],
    ),
    "results/r/evaluation.csv": (
        ["exec_eval_stitcher_ood.py", "results/r", *ON_DIGITS, "--detector", "mahalanobis"],
        ["-idd", "mnist5k"],
    ),
    "verdict.csv": (["misc/verdict.py", "results/r"], ["--tolerance", 0]),
}
CLAIM = (  # without torch, whose import would take most of the time
    "import sys; from src.core.files import locked\n"
    "lock = locked(sys.argv[1], wait=False)\n"
    "print('claimed', flush=True); input()\n"
)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A folder with two networks, and stitches of them."""
    folder = tmp_path_factory.mktemp("template")
    with few_images(160, n_test=60):
        for seed, name in enumerate("fg"):
            with seeded(seed):
                network = build_model("small_cnn", n_channels=1, image_shape=(1, 8, 8))
            save_state(folder / f"{name}.pt", network.state_dict())
        run(*STITCH, cwd=folder)
        yield folder


@pytest.fixture(autouse=True)
def networks(template, in_tmp_path):
    """The working folder is a copy of it."""
    shutil.copytree(template, in_tmp_path, dirs_exist_ok=True)


def command_of(table: str) -> list:
    command, _ = SCRIPTS[table]
    return command if "eval" in table else [*command, "-o", table]


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}


class Killed(BaseException):
    """Ends a script where it is, without a word."""


@pytest.mark.parametrize("table", SCRIPTS)
def test_a_process_killed_behind_its_results_leaves_no_word_that_it_finished(table, monkeypatch):
    path = Path(table)
    if table == "verdict.csv":
        path = path.with_suffix(
            ".md"
        )  # has the limits; the table of an end network at chance has none
    run(*command_of(table))
    before = path.read_bytes()
    assert options_of_table(table)

    def die_at_the_end(path, content):
        if "options" in content:
            raise Killed
        write_json(path, content)

    with monkeypatch.context() as patch:
        patch.setattr("src.results.run.write_json", die_at_the_end)
        with pytest.raises(Killed):
            run(*command_of(table), *SCRIPTS[table][1])
    assert path.read_bytes() != before and not options_of_table(table)
    run(*command_of(table))
    assert path.read_bytes() == before and options_of_table(table)


@contextlib.contextmanager
def claimed(table: Path):
    """A process of its own claims a table while the block runs."""
    with start_code(CLAIM, Run.beside(table.absolute(), {})._lock_file) as process:
        assert process.stdout.readline() == "claimed\n"
        yield
        process.kill()


@pytest.mark.parametrize("table", SCRIPTS)
def test_a_table_that_another_process_writes_is_refused(table):
    folder = Path(table).parent
    other = [*command_of(table), *SCRIPTS[table][1]]
    run(*command_of(table))
    files = files_of(folder)
    with claimed(Path(table)):
        assert f"is writing to {folder};" in error_line(*other)
        left = files_of(folder)
        assert {path: left[path] for path in files} == files
    run(*other)
    assert not list(folder.glob(".*.lock"))
