"""Scripts that are killed at random moments, or that share a folder with another process, end with the tables of one
process that nothing interrupts."""

import random
import time
from pathlib import Path
from subprocess import DEVNULL

import pytest

from tests.commands import ON_DIGITS, run, run_process, start
from tests.conftest import few_images
from tests.run_content import TIME, content

N_KILLS = 20
ALL_PAIRS = [
    *("misc/all_pairs.py", "networks.csv", "pool2,pool4", *ON_DIGITS, "-n", 60, "-dir", "all"),
    *("--methods", "pinv", "task:1", "--metrics", "cka_debiased"),
]
COMMANDS = {
    "exec_stitch.py": [
        *("exec_stitch.py", "a/model_3.pt", "b/model_3.pt", "small_cnn", "small_cnn"),
        *("pool2,pool4", "pool2,pool4", "rc2c_pre", *ON_DIGITS, "-i", "pinv", "-e", 6),
        *("--mod-only-stitch", "--resume", "-dir", "stitches"),
    ],
    "misc/all_pairs.py": ALL_PAIRS,
    "misc/compare.py": [
        *("misc/compare.py", "a/model_3.pt", "b/model_3.pt", "small_cnn", *ON_DIGITS),
        *("-n", 60, "-o", "both", "--layers", "pool[24]"),
    ],
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with three networks and their list."""
    folder = tmp_path_factory.mktemp("trained")
    lines = ["name,path,type"]
    with few_images(512, n_test=240):
        for seed, name in enumerate("abc"):
            train = ["-e", 3, "-b", 32, "-lr", "3e-3", "-s", seed, "-dir", name]
            run("exec_train.py", "small_cnn", *ON_DIGITS, *train, cwd=folder)
            lines.append(f"{name},{name}/model_3.pt,small_cnn")
    (folder / "networks.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def folders(trained, tmp_path) -> list[Path]:
    """Two folders with links to the networks."""
    made = []
    for name in ("whole", "other"):
        (tmp_path / name).mkdir()
        for path in trained.iterdir():
            (tmp_path / name / path.name).symlink_to(path)
        made.append(tmp_path / name)
    return made


def tables(folder: Path) -> dict[str, bytes]:
    """The results and the tables in a folder, with sorted lines."""
    found = content(folder / "results")
    for path in folder.glob("*.csv"):
        lines = TIME.sub("TIME", path.read_text()).splitlines()  # a verdict names folders of runs
        found[path.name] = "\n".join(sorted(lines)).encode()
    return found


def differing(found: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    return [name for name in expected if found.get(name) != expected[name]]


@pytest.mark.slow
@pytest.mark.parametrize("script", COMMANDS)
def test_a_script_that_was_killed_ends_with_the_same_tables(script, folders):
    whole, killed = folders
    command = COMMANDS[script]
    began = time.monotonic()
    run_process(*command, cwd=whole, timeout=600)
    duration = time.monotonic() - began
    moments = random.Random(script)
    for _ in range(N_KILLS):
        with start(*command, cwd=killed, stdout=DEVNULL, stderr=DEVNULL) as process:
            time.sleep(duration * moments.random())
            process.kill()
    run_process(*command, cwd=killed, timeout=600)
    found, expected = tables(killed), tables(whole)
    assert found.keys() == expected.keys()
    assert differing(found, expected) == []


@pytest.mark.slow
def test_two_processes_share_the_work(folders):
    """Each unit of work is done once."""
    whole, shared = folders
    run_process(*ALL_PAIRS, cwd=whole, timeout=600)
    processes = [start(*ALL_PAIRS, cwd=shared) for _ in range(2)]
    said = [process.communicate(timeout=600)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    n_done = [text.count(" s\n") for text in said]
    assert all(n_done), said
    found, expected = tables(shared), tables(whole)
    assert found.keys() == expected.keys()
    assert differing(found, expected) == []
