"""misc/collect_results.py --curves: means over pairs of networks at each layer, with intervals over networks."""

import itertools
import math
import shutil

import numpy as np
import pytest

from tests.commands import PNG, error_line, read_csv, run
from tests.tables import SIMILARITY, write_table
from tests.written_runs import VALID, write_evaluation, write_run

SCRIPT = "misc/collect_results.py"
NETWORKS = "abcdef"
QUALITY = dict(zip(NETWORKS, (100, 120, 150, 190, 240, 300), strict=True))


def stitch(folder, front, end, layer="blocks.1", other=None, number=0):
    """A stitch that is right on as many images as both networks are good."""
    options = {"front_model_path": f"{front}.pt", "end_model_path": f"{end}.pt"}
    options |= {"front_layer": layer, "end_layer": other or layer}
    write_run(folder / f"{front}-{end}", f"{number}", n_right=QUALITY[front] + QUALITY[end], **options)


@pytest.fixture
def folder(tmp_path):
    """All pairs of six networks at two layers; their similarity is the product of their qualities."""
    (tmp_path / "all" / "similarity").mkdir(parents=True)
    pairs = list(itertools.permutations(NETWORKS, 2))
    for front, end in pairs:
        for number, layer in enumerate(("blocks.10", "blocks.2")):
            stitch(tmp_path / "all", front, end, layer, number=number)
        stitch(tmp_path / "all", front, end, "blocks.2", "blocks.10", number=2)  # off the diagonal
        write_evaluation(tmp_path / "all" / f"{front}-{end}", {"0": 0.5, "1": 0.5})
        if front < end:
            rows = [{"model1": f"{front}.pt", "model2": f"{end}.pt", "layer1": "blocks.2", "layer2": layer,
                     "rank1": rank, "cka": QUALITY[front] * QUALITY[end] if not rank else 0, "procrustes": 1}
                    for layer in ("blocks.2", "blocks.10") for rank in ("", 4)]  # fmt: skip
            write_table(tmp_path / "all" / "similarity" / f"{front}-{end}.csv", SIMILARITY, *rows)
    stitch(tmp_path / "all", "a", "a")  # a control
    return tmp_path


def test_curves_are_means_over_pairs_with_intervals_over_networks(folder):
    run(SCRIPT, "all", "--curves", cwd=folder)
    rows = {(row["quantity"], row["line"], row["layer"]): row for row in read_csv(folder / "all" / "curves.csv")}
    layers = ("blocks.2", "blocks.10")
    assert list(rows) == [
        *((quantity, "direct matching", layer)
          for quantity in ("accuracy", "density ratio", "recall ratio") for layer in layers),
        ("similarity", "cka", "blocks.2"), ("distance", "procrustes", "blocks.2"),
    ]  # fmt: skip
    accuracy, cka = rows["accuracy", "direct matching", "blocks.2"], rows["similarity", "cka", "blocks.2"]
    pairs = list(itertools.combinations(QUALITY.values(), 2))
    assert float(accuracy["value"]) == pytest.approx(np.mean([sum(pair) for pair in pairs]) / 1000)
    assert float(cka["value"]) == pytest.approx(np.mean([math.prod(pair) for pair in pairs]))
    assert (accuracy["n_networks"], accuracy["n_pairs"], cka["n_pairs"]) == ("6", "30", "15")
    ratio = float(rows["density ratio", "direct matching", "blocks.10"]["value"])
    assert ratio == pytest.approx(VALID.density_ratio)
    # Draw networks, and leave pairs of one with itself out
    rng, means = np.random.default_rng(7), []
    for _ in range(2000):
        drawn = rng.choice(list(QUALITY.values()), size=6)
        products = [one * other for one, other in itertools.combinations(drawn, 2) if one != other]
        means.append(np.mean(products) if products else np.nan)
    expected = np.nanquantile(means, [0.025, 0.975])
    assert [float(cka[end]) for end in ("low", "high")] == pytest.approx(expected, rel=0.05)
    assert (folder / "all" / "curves.png").read_bytes().startswith(PNG)


def test_tables_of_similarity_suffice(folder):
    (folder / "tables").mkdir()
    shutil.copytree(folder / "all" / "similarity", folder / "tables" / "below" / "similarity")
    run(SCRIPT, "tables", "--curves", cwd=folder)
    assert {row["quantity"] for row in read_csv(folder / "tables" / "curves.csv")} == {"similarity", "distance"}


def test_two_networks_have_no_interval(folder):
    run(SCRIPT, "all/a-b", "--curves", "-o", "two.pdf", cwd=folder)
    rows = read_csv(folder / "two.csv")
    assert {row["n_pairs"] for row in rows} == {"1"} and {row["low"] for row in rows} == {"nan"}
    assert (folder / "two.pdf").read_bytes().startswith(b"%PDF")


def test_groups_of_a_list_have_a_line_each(folder, drawn_figures):
    for name in NETWORKS:
        (folder / f"{name}.pt").write_text(name)
    lines = [f"{name},{name}.pt,resnet18,{'wide' if name < 'd' else 'narrow'}" for name in NETWORKS]
    (folder / "list.csv").write_text("\n".join(["name,path,type,group", *lines]))
    run(SCRIPT, "all", "--curves", "--networks", "list.csv", cwd=folder)
    rows = read_csv(folder / "all" / "curves.csv")
    assert {row["networks"] for row in rows if row["quantity"] == "accuracy"} == {
        f"{one} → {other}" for one in ("wide", "narrow") for other in ("wide", "narrow")
    }
    (row,) = (row for row in rows if (row["line"], row["networks"]) == ("cka", "wide → wide"))
    assert float(row["value"]) == pytest.approx(np.mean([100 * 120, 100 * 150, 120 * 150])) and row["n_networks"] == "3"
    titles = [axes.get_title() for axes in drawn_figures["curves.png"].axes]
    assert titles[:2] == ["accuracy: direct matching", "density ratio: direct matching"] and len(titles) == 5


def test_refusals(folder, tmp_path):
    assert "takes one folder" in error_line(SCRIPT, "all/a-b", "all/b-a", "--curves", cwd=folder)
    stitch(tmp_path / "other", "a", "b", "blocks.1", "blocks.2")
    assert "has neither a stitch of a layer to the same layer" in error_line(SCRIPT, "other", "--curves", cwd=tmp_path)
