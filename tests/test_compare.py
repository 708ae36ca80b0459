"""Two networks in one command."""

from pathlib import Path

import pytest
import torch

from misc import compare
from tests.commands import MODEL, ON_DIGITS, error_line, names_in, read_csv, run
from tests.conftest import few_images

SCRIPT = "misc/compare.py"


@pytest.mark.usefixtures("rendered")
def test_two_networks_in_both_directions_to_a_page(in_tmp_path, digit_networks):
    command = [
        *digit_networks,
        MODEL,
        *ON_DIGITS,
        "-n",
        60,
        "-o",
        "both",
        "--layers",
        "layer[34].1",
    ]
    with few_images(256, n_test=240):
        run(SCRIPT, *command)
        rows = read_csv("both.csv")
        assert "0 of 5 units" in run(SCRIPT, *command).err
        assert "other networks" in error_line(SCRIPT, *digit_networks[::-1], *command[2:])
    directions = {(row["front_network"], row["end_network"]) for row in rows}
    assert directions == {("0", "1"), ("1", "0")}
    assert len(rows) == 2 * 2 * 4  # methods, directions, pairs of layers
    assert {"both.csv", "both.png", "both.html"} <= names_in(in_tmp_path)
    assert len([path for path in Path().rglob("*") if path.is_file()]) <= 40


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
        torch.save({"options": {"dataset": "cifar10"}}, tables / "0-1.resume.pt")  # interrupted
        run(SCRIPT, first, second, MODEL, *rest, "-l", "layer4.1")
        assert (tables / "0-1.csv").exists()
        error_line(SCRIPT, first, "-", MODEL, *rest)


@pytest.mark.parametrize("text", ["a", "a.csv", "a.html", "a.png"])
def test_the_name_of_what_is_written_may_be_that_of_one_of_its_files(text):
    assert compare.output_name(text) == "a"
