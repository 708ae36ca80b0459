"""misc/rank_statistics.py as a user runs it, on tables made by hand."""

from pathlib import Path

import pytest

from tests.commands import read_csv, run
from tests.tables import PROBE, SIMILARITY, STITCH, write_table

pytestmark = pytest.mark.usefixtures("in_tmp_path")

SCRIPT = "misc/rank_statistics.py"
RANKS = [4, 2, 1]


def tables(folder) -> list[Path]:
    """Two layers of two networks: CKA and PWCCA follow the probes of `x` in opposite directions, stitching exactly."""
    cka = {("x", "x"): 0.9, ("x", "y"): 0.2, ("y", "x"): 0.3, ("y", "y"): 0.25}
    whole = [{"layer1": one, "layer2": two, "cka": value, "pwcca": 1 - value} for (one, two), value in cka.items()]
    cut = [{"layer2": "x", "rank1": rank, "cka": rank / 10, "pwcca": rank / 20} for rank in RANKS]
    probes = [{"rank": rank, "accuracy": rank / 8, "loss": 1 / rank} for rank in RANKS]
    stitches = [{"front_stitch_rank": rank, "accuracy": rank / 9} for rank in RANKS]
    return [
        write_table(folder / "similarity.csv", SIMILARITY, *whole, *cut),
        write_table(folder / "probes.csv", PROBE, *probes),
        write_table(folder / "grid.csv", STITCH, *stitches),
    ]


def test_prints_and_writes_both_tests(tmp_path):
    out = run(SCRIPT, *tables(tmp_path), "-o", "statistics.csv").out
    blocks = [[line.strip() for line in block.splitlines()] for block in out.split("\n\n")]
    assert blocks[0][0].startswith("Sensitivity: ") and blocks[6][0].startswith("Specificity: ")
    assert blocks[1][0] == "cka | a.pt -- b.pt"
    assert blocks[1][1].split() == ["layer1", "layer2", "varied", "ranks", "rho", "p", "tau", "p"]
    assert blocks[1][2].split(maxsplit=6) == ["x", "x", "layer1", "3", "1", "1", "fewer than 10 ranks: no p-values"]
    assert [block[3] for block in blocks[1:4]] == [
        f"mean rho {sign}1.0000, mean tau {sign}1.0000" for sign in ("", "-", "")
    ]
    assert blocks[7][-1] == "layer2: first in 1 of 2, mean place 1.50; layer1: first in 2 of 2, mean place 1.00"

    rows = read_csv("statistics.csv")
    stitch = "a.pt -- b.pt: rc2c_pre, direct matching"
    assert [(row["measure"], row["setting"], row["spearman"]) for row in rows[:5]] == [
        ("cka", "a.pt -- b.pt", "1.0"), ("pwcca", "a.pt -- b.pt", "-1.0"), ("rank itself", "a.pt -- b.pt", "1.0"),
        ("stitching accuracy", stitch, "1.0"), ("rank itself", stitch, "1.0"),
    ]  # fmt: skip
    assert [row["place"] for row in rows[5:] if row["measure"] == "pwcca"] == ["1", "1", "2", "1"]


def test_warns_of_mixed_alignments(tmp_path):
    kinds = {("x", "x"): "positions", ("x", "y"): "average pool", ("y", "y"): "positions"}
    rows = [{"layer1": one, "layer2": two, "alignment": kind, "cka": 0.5, "pwcca": 0.5}
            for (one, two), kind in kinds.items()]  # fmt: skip
    printed, said = run(SCRIPT, write_table(tmp_path / "mixed.csv", SIMILARITY, *rows))
    assert "warning: specificity of pwcca: alignments differ, so alignments are ranked rather than layers" in said
    assert "alignments differ: positions, average pool" in printed
