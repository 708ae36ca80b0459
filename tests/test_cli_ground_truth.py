"""misc/ground_truth.py: a measure that is the truth, one that is random, and a map of a known configuration."""

import itertools

import numpy as np
import pytest

from src.ground_truth.measures import log_distance
from src.ground_truth.scaling import classical_scaling
from src.stitching.folders import write_predictions
from tests.commands import PNG, error_line, read_csv, run
from tests.tables import PROBE, SIMILARITY, STITCH, write_table

SCRIPT = "misc/ground_truth.py"
TESTS = ("label_noise", "shortcut", "image_noise")
OFFSETS = (0, 1, 4, 9)  # of seeds; all differences differ
LAYERS = ("x1", "x2", "x3")
N_IMAGES = 1000


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """All pairs of networks on a line, where groups are far apart; predictions differ by their distance.

    CKA, and the agreement of stitches as the mean over both directions, are the truth; mutual kNN is random.
    """
    folder, rng = tmp_path_factory.mktemp("planted"), np.random.default_rng(0)
    for kind in ("similarity", "probes"):
        (folder / "all" / kind).mkdir(parents=True)
    places = {f"{test}{g}_{s}": (test, 300 * g + offset + 100) for test in TESTS for g in (0, 1)
              for s, offset in enumerate(OFFSETS)}  # fmt: skip
    lines = [f"{name},-,small_cnn,{test}:{place // 300}" for name, (test, place) in places.items()]
    (folder / "networks.csv").write_text("\n".join(["name,path,type,group", *lines]) + "\n")
    for name, (_, place) in places.items():
        rows = [{"layer": layer, "accuracy": place / N_IMAGES + i / 8} for i, layer in enumerate(LAYERS)]
        write_table(folder / "all" / "probes" / f"{name}.csv", PROBE, *rows)
    for (a, (test, p)), (b, (other, q)) in itertools.permutations(places.items(), 2):
        if test == other:
            write_stitch(folder / "all" / "pinv" / f"{a}-{b}", p, q)
            if a < b:
                rows = [
                    {"layer1": one, "layer2": two, "cka": 1 - abs(p - q) / N_IMAGES - abs(i - j) / 10,
                     "mutual_knn": rng.random()}
                    for (i, one), (j, two) in itertools.product(enumerate(LAYERS), repeat=2)
                ]  # fmt: skip
                write_table(folder / "all" / "similarity" / f"{a}-{b}.csv", SIMILARITY, *rows)
    run(SCRIPT, "all", "networks.csv", "-gpu", "-1", "--resamples", "50", "--map", "cka", cwd=folder)
    return folder


def write_stitch(folder, front: int, end: int) -> None:
    """Write a stitch whose agreement is wrong by as much as that of the other direction, but to the other side."""
    (folder / "t").mkdir(parents=True)
    agreement = 1 - abs(front - end) / N_IMAGES + (0.2 if front < end else -0.2)
    row = {"front_layer": "x1", "end_layer": "x1", "agreement": agreement, "n_images": N_IMAGES}
    write_table(folder / "grid.csv", STITCH, row)
    ones = np.ones(N_IMAGES, dtype=int)
    classes = {side: (np.arange(N_IMAGES) < place).astype(int) for side, place in (("front", front), ("end", end))}
    write_predictions(folder / "t" / "predictions.npz", classes | {"stitched": ones, "labels": ones})


def rows_of(folder, measure: str) -> dict[tuple[str, str], dict[str, str]]:
    return {(r["test"], r["layer"]): r for r in read_csv(folder / "scores.csv") if r["measure"] == measure}


def test_the_truth_scores_1_in_all_tests(planted):
    cka, agreement, probe = (rows_of(planted, name) for name in ("cka", "pinv disagreement", "probe"))
    outputs = ("accuracy", "disagreement")
    assert {test for test, _ in cka} == {*TESTS, *outputs, "layers"}
    assert {layer for test, layer in cka if test in TESTS} == {"", *LAYERS}
    for rows in (cka, agreement, probe):
        for (test, _), row in rows.items():
            names = ("auprc", "conformity") if test in TESTS else ("spearman",)
            for name in ("conformity",) if rows is probe and test == "layers" else names:  # rounding breaks ties
                assert float(row[f"{name}_value"]) == pytest.approx(1), (test, name)
                assert float(row[f"{name}_low"]) == pytest.approx(1)
    assert float(cka["layers", ""]["conformity_value"]) == 1
    assert {row["both_directions"] for row in agreement.values()} == {"True"}
    assert {row["both_directions"] for row in cka.values()} == {"False"}
    assert {row["n_networks"] for (test, _), row in cka.items() if test in TESTS} == {"8"}


def test_a_random_measure_scores_about_chance(planted):
    rows = rows_of(planted, "mutual_knn")
    for name, tests in {"auprc": TESTS, "spearman": ("accuracy", "disagreement", "layers")}.items():
        found = [float(row[f"{name}_value"]) for (test, layer), row in rows.items() if test in tests and not layer]
        chance = float(rows[tests[0], ""][f"{name}_chance"])
        assert np.mean(found) == pytest.approx(chance, abs=0.2)


def test_figures_and_sentences(planted):
    said = run(SCRIPT, "all", "networks.csv", "--resamples", "50", "-o", "again.csv", cwd=planted).out
    assert (planted / "again.csv").read_bytes() == (planted / "scores.csv").read_bytes()
    believed, doubted = said.splitlines()
    assert "in the test of shortcut" in believed and " cka," in believed and " mutual_knn" in doubted
    for name in ("scores", *(f"scores_map_{test}" for test in TESTS)):
        assert (planted / f"{name}.png").read_bytes().startswith(PNG)


def test_groups_of_two_networks_are_too_few(planted):
    lines = (planted / "networks.csv").read_text().splitlines()
    few = [line for line in lines if line.split(",")[0][-2:] in ("_0", "_1", "me")]
    (planted / "few.csv").write_text("\n".join(few) + "\n")
    said = run(SCRIPT, "all", "few.csv", "--resamples", "50", "-o", "few_scores.csv", cwd=planted).out
    believed, doubted, unknown = said.splitlines()
    assert unknown.startswith("Has no interval")
    assert [test for test in TESTS if test in believed + doubted] == [] and all(test in unknown for test in TESTS)


def test_user_errors(planted):
    options = ["all", "networks.csv", "--resamples", "10"]
    assert "choose by --map and --map-layer" in error_line(SCRIPT, *options, "--map", "nothing", cwd=planted)
    assert "is no folder" in error_line(SCRIPT, "none", "networks.csv", cwd=planted)


def test_a_map_reproduces_the_distances_of_a_plane():
    points = np.random.default_rng(0).normal(size=(7, 2)) * (3, 1)
    distances = np.linalg.norm(points[:, None] - points, axis=-1)
    placed = classical_scaling(distances)
    np.testing.assert_allclose(np.linalg.norm(placed[:, None] - placed, axis=-1), distances, atol=1e-7)
    assert np.abs(placed.mean(0)).max() < 1e-7 and placed[:, 0].var() > placed[:, 1].var()
    with pytest.raises(ValueError, match="finite"):
        classical_scaling([[0, np.nan], [np.nan, 0]])


def test_half_and_twice_the_own_density_are_equally_far():
    assert log_distance(0.5) == pytest.approx(log_distance(2)) == pytest.approx(1 / 3)
    assert (log_distance(1), log_distance(0)) == (0, 1)
