"""The demo, two networks in one command, and the benchmark; what takes minutes is slow."""

import shlex
import time
from pathlib import Path

import pytest
import torch

from misc import compare, demo
from src.results.network_names import NamedNetwork, short_names
from src.verdict import ACCURATE_ONLY, NOT_MATCHED, SIMILAR
from tests.commands import (
    MODEL,
    ON_DIGITS,
    PNG,
    error_line,
    names_in,
    read_csv,
    run,
    run_process,
    says,
    start,
)
from tests.conftest import few_images


def test_all_options_of_the_steps_are_allowed():
    for _, script, options in demo.STEPS:
        script.parser().parse_args(shlex.split(options))


@pytest.mark.slow
def test_demo_ends_with_its_answer(tmp_path):
    """After it was killed when a training run had ended."""
    log = tmp_path / "demo" / demo.LOG
    with start("misc/demo.py", log.parent, cwd=tmp_path, stdout=None, stderr=None) as killed:
        while not (log.exists() and log.read_text()):
            assert killed.poll() is None
            time.sleep(0.1)
        killed.kill()
    printed = run_process("misc/demo.py", log.parent, cwd=tmp_path, timeout=1200)
    assert "finished" in log.read_text()  # the first training, the second time
    direct, task, answer = printed.out.splitlines()
    (to_open,) = [line for line in printed.err.splitlines() if line.startswith("Open ")]
    page, *images = map(Path, to_open.removeprefix("Open ").split(", "))
    assert all(image.read_bytes().startswith(PNG) for image in images)
    rows = read_csv(tmp_path / "demo" / "verdict.csv")
    assert len(rows) == 2 * 16
    words = [row["verdict"] for row in rows if row["method"] == "direct matching"]
    n_similar = words.count(SIMILAR)
    assert n_similar >= 1
    assert says(answer, f"similar: {n_similar}", "similar: 0")
    assert says(direct, "direct matching: 2", NOT_MATCHED)
    assert says(task, "task loss matching: 9", ACCURATE_ONLY)
    assert answer.partition("? ")[2] in page.read_text()


SCRIPT = "misc/compare.py"


def test_two_networks_in_both_directions_to_a_page(in_tmp_path, figures):
    settings = ["small_cnn", *ON_DIGITS, "-n", 60, "-o", "both", "--layers", "pool[34]"]
    networks = ["f/model_5.pt", "g/model_5.pt"]
    with few_images(256, n_test=240):
        for seed, name in enumerate("fg"):
            train = ["-e", 5, "-b", 32, "-lr", "3e-3", "-s", seed, "-dir", name]
            run("exec_train.py", "small_cnn", *ON_DIGITS, *train)
        said = run(SCRIPT, *networks, *settings).err
        rows = read_csv("both.csv")
        assert "0 of 5 units" in run(SCRIPT, *networks, *settings).err
        assert "other networks" in error_line(SCRIPT, *networks[::-1], *settings)
    assert "close to chance" not in said
    directions = {(row["front_network"], row["end_network"]) for row in rows}
    assert directions == {("f", "g"), ("g", "f")}
    assert len(rows) == 2 * 2 * 4  # methods, directions, pairs of layers
    assert {"both.csv", "both.png", "both.html"} <= names_in(in_tmp_path)
    written = [*Path().glob("both*"), *Path("results").rglob("*")]
    assert len([path for path in written if path.is_file()]) <= 44


def test_a_call_that_failed_leaves_its_name_to_the_corrected_one(in_tmp_path, digit_networks):
    first, second = digit_networks
    rest = [*ON_DIGITS, "-n", 60, "-o", "mended.csv", "--methods", "none"]
    wrong = [
        [Path(first).parent / "absent.pt", second, MODEL],
        [Path(first).parent, second, MODEL],
        [first, first, MODEL],
        [first, second, "absent"],
        [first, second, "small_cnn"],
        [first, second, MODEL, "-l", "absent"],
    ]
    with few_images(256, n_test=240):
        for arguments in wrong:
            error_line(SCRIPT, *arguments, *rest)
        tables = Path("results", "mended", "similarity")
        tables.mkdir()
        torch.save(
            {"options": {"dataset": "cifar10"}}, tables / "network 0-network 1.resume.pt"
        )  # interrupted
        run(SCRIPT, first, second, MODEL, *rest, "-l", "layer4.1")
        assert (tables / "network 0-network 1.csv").exists()
        error_line(SCRIPT, first, "-", MODEL, *rest)


@pytest.mark.parametrize("text", ["a", "a.csv", "a.html", "a.png"])
def test_the_name_of_what_is_written_may_be_that_of_one_of_its_files(text):
    assert compare.output_name(text) == "a"


def test_networks_are_called_by_their_files_without_any_ending():
    networks = [NamedNetwork(path, "small_cnn") for path in ("x/net.pth.tar", "x/ema.pth.tar")]
    assert compare.names_of(*networks) == ["net", "ema"]
    assert short_names([network.path for network in networks]) == ["net", "ema"]


TINY = ["-m", "small_cnn", "-n", "20"]


@pytest.mark.slow
def test_both_ways_agree(in_tmp_path):
    head, *races, baselines = run("misc/benchmark.py", *TINY).out.splitlines()
    assert head.split() == ["small_cnn,", "20", "images", "one", "by", "one", "here"]
    assert [race[:30].rstrip() for race in races] == ["direct matching", "CKA"]
    assert all(race.endswith("x") for race in races)
    *title, of_baselines, _, rest, _, share = baselines.split()
    assert title == ["baselines", "beside", "evaluation"]
    assert float(of_baselines) / float(rest) == pytest.approx(float(share), abs=0.1)
