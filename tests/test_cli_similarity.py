"""exec_compute_low_rank_sim_metrics.py as a user runs it: the public code's run again, tables, CSV,
figures."""

import pickle
import re
from pathlib import Path

import numpy as np
import pytest

from src.core.cache import Cache
from src.core.tensors import save_state
from src.core.values import Null
from src.models import build_model
from src.results.checkpoints import Session
from tests.commands import (
    MODEL,
    ON_DIGITS,
    SIMILARITY_HEADINGS,
    Output,
    module_of,
    names_in,
    panels_of,
    parse_matrix,
    parse_similarity,
    parser_of,
    read_csv,
    read_json,
    run,
    says,
)
from tests.goldens import DATA, golden_state_dict

SCRIPT = "exec_compute_low_rank_sim_metrics.py"
MEASURES = list(SIMILARITY_HEADINGS.values())
DIGITS = [*ON_DIGITS, "-n", "80"]


def from_csv(rows) -> dict[tuple[str, ...], float]:
    """The same form as `parse_similarity`."""
    return {
        (row["layer1"], row["layer2"], name, row["rank1"] or "None", row["rank2"] or "None"): float(
            row[name]
        )
        for row in rows
        for name in MEASURES
        if row[name]
    }


@pytest.fixture
def compare(in_tmp_path, digit_networks):
    """Compare layers of the two networks, or of others, on 80 images."""

    def run_it(layer1: str, layer2: str, *arguments, networks=digit_networks) -> Output:
        return run(SCRIPT, *networks, MODEL, MODEL, layer1, layer2, *DIGITS, *arguments)

    return run_it


@pytest.fixture(scope="module")
def public_run(tmp_path_factory):
    """The networks and the images of the public code's run."""
    folder = tmp_path_factory.mktemp("public")
    for i, base in enumerate((0, 10000)):
        save_state(
            folder / "models" / f"det{i}.pt", golden_state_dict(build_model("resnet18"), base)
        )
    with np.load(DATA / "data_small.npz") as arrays:
        data = np.repeat(arrays["test_gray"][:, None], 3, axis=1).reshape(-1, 3072)
        batch = {"data": data, "labels": arrays["test_labels"].tolist()}
    (folder / "data" / "cifar-10-batches-py").mkdir(parents=True)
    for name in ("test_batch", *(f"data_batch_{i}" for i in range(1, 6))):
        (folder / "data" / "cifar-10-batches-py" / name).write_bytes(pickle.dumps(batch))
    return folder


@pytest.mark.parametrize(
    ("name", "layers", "ranks"),
    [
        ("sim_det", ["layer3.0", "layer3.1"], ["-m1r", "64", "128", "-m2r", "128", "64"]),
        ("sim_det_full", ["layer2.0", "layer2.1"], []),
    ],
)
def test_repeats_the_run_of_the_public_code(public_run, unofficial_files, name, layers, ranks):
    networks = ["models/det0.pt", "models/det1.pt", "resnet18", "resnet18"]
    printed, warnings = run(
        SCRIPT, *networks, *layers, "-gpu", "-1", "-data", "data", *ranks, cwd=public_run
    )
    assert "-n 1000" not in warnings  # the default takes smaller sets whole
    golden = (DATA / "similarity" / f"{name}.stdout").read_text()
    number = r"\d+\.\d+(?=\n)"
    assert re.sub(number, "#", printed) == re.sub(number, "#", golden)

    found, expected = parse_similarity(printed), parse_similarity(golden)
    noise = read_json(DATA / "similarity" / "sim_noise.json")
    for (*_, metric, rank1, rank2), value in found.items():
        known = noise[f"det {layers[0]} - {layers[1]} r1={rank1} r2={rank2}"]
        cutoff = known["pwcca float64 with eigenvalues below 1e-10*max dropped (own formula)"]
        if metric != "pwcca":
            # The public code's single precision is good for 5e-6; from double precision it agrees
            # much better.
            assert value == pytest.approx(expected[(*layers, metric, rank1, rank2)], abs=5e-6)
            exact = dict(zip(("cka", "pwcca", "procrustes"), known["float64 input"], strict=True))
            assert value == pytest.approx(exact[metric], rel=1e-6)
        elif rank1 == "None" or int(rank1) <= int(
            rank2
        ):  # otherwise that formula depends on a basis
            assert value == pytest.approx(cutoff, rel=1e-5)


def test_ranks(compare, digit_networks, in_tmp_path, drawn_figures):
    ranks = ["-m1r", "8", "64", "200", "8", "-m2r", "32", "4"]
    printed = parse_similarity(
        compare("layer4.1", "layer3.0", *ranks, "-o", "out/r.csv", "--metrics", *MEASURES).out
    )
    assert list(dict.fromkeys(key[3] for key in printed)) == ["200", "64", "8"]
    assert list(dict.fromkeys(key[4] for key in printed)) == ["32", "4"]
    rows = read_csv("out/r.csv")
    below = {key: value for key, value in printed.items() if key[3] != "200"}
    assert from_csv(rows) == below  # the table has the ranks that were used
    assert len(rows) == 4 and {row["alignment"] for row in rows} == {"average pool"}
    assert [rows[0]["model1"], rows[0]["model2"]] == [*map(str, digit_networks)] and rows[0][
        "n_samples"
    ] == "80"
    for (
        *key,
        rank1,
        rank2,
    ), value in printed.items():  # 64 channels: a rank above the width is full rank
        assert rank1 != "200" or value == printed[(*key, "64", rank2)]
    panels = panels_of(drawn_figures["r.png"])
    drawn = panels["linear CKA"].images[0].get_array().ravel().tolist()
    assert drawn == pytest.approx([float(row["cka"]) for row in rows])
    assert names_in(Path("out")) == {f"r.{end}" for end in ("csv", "png", "pdf", "json")}


def test_all_layers(compare):
    """Each pair of them is compared as it is alone (test_similarity_measures.py)."""
    printed, said = compare("all", "all", "-o", "all.csv", "--verbose")
    whole, rows = parse_similarity(printed), read_csv("all.csv")
    assert len(rows) == 64 and {row["alignment"] for row in rows} == {"positions", "average pool"}
    assert {key[2] for key in whole} == {
        "cka",
        "pwcca",
        "procrustes",
    }  # the tables of the public code, no more
    assert all(row["rank1"] == row["rank2"] == "" for row in rows)
    assert whole == from_csv(rows)
    matrices = compare("all", "all").out
    before, sentence, _ = printed.rpartition("Closest by linear CKA are ")
    assert "Model1 rank" not in matrices and sentence and before.endswith(matrices)
    matrix = parse_matrix(matrices, "linear CKA")
    assert matrix == {(row["layer1"], row["layer2"]): f"{float(row['cka']):.4f}" for row in rows}
    assert says(said, "layer1.0 -- layer3.0: ", "CCA and Procrustes", "average pool")
    assert says(said, "pwcca, procrustes", "biased downwards")


def test_features_that_are_kept_are_of_the_same_dots(in_tmp_path, digit_networks):
    session = Session(Cache(10**9))
    given = [
        *map(str, digit_networks),
        MODEL,
        MODEL,
        "layer1.0",
        "layer1.0",
        *DIGITS,
        "--alignment",
        "pool",
    ]
    values = []
    for table, dots in (("r.csv", []), ("dots.csv", ["--shortcut", "0"])):
        options = parser_of(SCRIPT).parse_args([*given, *dots, "--metrics", "cka", "-o", table])
        module_of(SCRIPT).main(options, session)
        values.append(read_csv(table)[0]["cka"])
    assert len(set(values)) == 2


def test_debiased_and_calibrated_values_of_pooled_layers(compare):
    metrics = ["--metrics", "cka,", "cka_debiased, mutual_knn", "procrustes"]
    options = [*metrics, "--permutations", "19", "--alignment", "pool", "-o", "p.csv"]
    printed, said = compare("layer3.0", "layer3.0,layer4.1", *options, "--verbose")
    assert all("close to chance" in line for line in said.splitlines() if "warning" in line)
    first, second = read_csv("p.csv")
    for where in ("", " within classes"):
        title = f"most similar pair{where}, against the most similar ones of permuted inputs"
        _, line, *_ = printed.split(f"{title}\n")[1].splitlines()
        cka = max((first, second), key=lambda row: float(row["cka"]))
        columns = [f"cka_{part}_largest{'_within' * bool(where)}" for part in Null._fields]
        expected = [f"{float(cka[column]):.4f}" for column in ("cka", *columns)]
        assert line.split()[-len(expected) :] == expected
    assert (first["alignment"], first["n_permutations"]) == ("average pool", "19")
    for name in ("cka", "cka_debiased", "mutual_knn", "procrustes"):
        null, within = (float(first[f"{name}_null_95{of}"]) for of in ("", "_within"))
        assert (within < null) == (name == "procrustes")  # images of one class are more similar
    assert "pwcca" not in first and "pwcca_p_value" not in first
