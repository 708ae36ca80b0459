"""Two networks in one command."""

from pathlib import Path

import pytest

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
        assert "other networks" in error_line(SCRIPT, *command[1:2], *command[1:])
    directions = {(row["front_network"], row["end_network"]) for row in rows}
    assert directions == {("0", "1"), ("1", "0")}
    assert len(rows) == 2 * 2 * 4  # methods, directions, pairs of layers
    assert {"both.csv", "both.png", "both.html"} <= names_in(in_tmp_path)
    assert len([path for path in Path().rglob("*") if path.is_file()]) <= 40
