"""exec_compute_low_rank_sim_metrics.py as a user runs it: the public code's run again, tables, CSV, figures, errors."""

import csv
import json
import math
import pickle
import re

import numpy as np
import pytest
import torch

import exec_compute_low_rank_sim_metrics as script
from src.checkpoints import load_state, save_state
from src.models import build_model
from tests.golden_weights import golden_state_dict
from tests.goldens import DATA

NAME = "exec_compute_low_rank_sim_metrics.py"
MODEL = "resnet18_samewidth"
DIGITS = ["-d", "digits", "-gpu", "-1", "-n", "80"]
HEADINGS = {"CKA": "cka", "CCA": "pwcca", "Orth. Procr": "procrustes", "CCA (Morcos)": "pwcca_morcos"}


def parse(printed: str, *, rounding: float = 0) -> dict[tuple[str, ...], float]:
    """(layer1, layer2, measure, rank1, rank2) -> value; the values alone must repeat those of the table."""
    found = {}
    for block in printed.split("\n\n\n\n")[:-1]:
        _, layers, tables = block.split("\n", 2)
        for part in re.split(r"\n\n(?=\D)", tables):
            heading, first, *lines = part.split("\n")
            rows = [line for line in lines if line.startswith("\t")]
            alone = [float(line) for line in lines[len(rows) + 1 :]]
            assert lines[len(rows)] == ""
            assert [float(row.split(": ")[1]) for row in rows] == pytest.approx(alone, rel=rounding, abs=0)
            rank1 = re.fullmatch(r"Model1 rank (\w+):", first).group(1)
            for row in rows:
                rank2, value = re.fullmatch(r"\tModel2 rank (\w+): (.*)", row).groups()
                key = (*layers.split(" -- "), HEADINGS[heading.removesuffix(":")], rank1, rank2)
                assert key not in found
                found[key] = float(value)
    return found


def read(path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def from_csv(rows) -> dict[tuple[str, ...], float]:
    """The same form as `parse`."""
    return {
        (row["layer1"], row["layer2"], metric, row["rank1"] or "None", row["rank2"] or "None"): float(row[metric])
        for row in rows
        for metric in HEADINGS.values()
        if row[metric]
    }


@pytest.fixture(scope="module")
def public_run(tmp_path_factory):
    """The networks and the images of the public code's run."""
    folder = tmp_path_factory.mktemp("public")
    for i, base in enumerate((0, 10000)):
        save_state(folder / "models" / f"det{i}.pt", golden_state_dict(build_model("resnet18"), base))
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
def test_repeats_the_run_of_the_public_code(public_run, unofficial_files, monkeypatch, capsys, name, layers, ranks):
    monkeypatch.chdir(public_run)
    networks = ["models/det0.pt", "models/det1.pt", "resnet18", "resnet18"]
    assert script.main([*networks, *layers, "-gpu", "-1", "-data", "data", *ranks]) == 0
    printed, warnings = capsys.readouterr()
    assert "-n 1000: there are only 100 validation images" in warnings
    golden = (DATA / "similarity" / f"{name}.stdout").read_text()
    number = r"\d+\.\d+(?=\n)"
    assert re.sub(number, "#", printed) == re.sub(number, "#", golden)

    found, expected = parse(printed), parse(golden, rounding=1e-6)
    noise = json.loads((DATA / "similarity" / "sim_noise.json").read_text())
    for (*_, metric, rank1, rank2), value in found.items():
        known = noise[f"det {layers[0]} - {layers[1]} r1={rank1} r2={rank2}"]
        cutoff = known["pwcca float64 with eigenvalues below 1e-10*max dropped (own formula)"]
        if metric != "pwcca":
            # The public code's single precision is good for 5e-6; from double precision it agrees much better.
            assert value == pytest.approx(expected[(*layers, metric, rank1, rank2)], abs=5e-6)
            exact = dict(zip(("cka", "pwcca", "procrustes"), known["float64 input"], strict=True))
            assert value == pytest.approx(exact[metric], rel=1e-6)
        elif rank1 == "None" or int(rank1) <= int(rank2):  # otherwise that formula depends on a basis
            assert value == pytest.approx(cutoff, rel=1e-5)


@pytest.fixture(scope="module")
def trained(digit_networks):
    return [str(path) for path in digit_networks]


def test_ranks_as_a_process(run_script, trained, tmp_path):
    arguments = [
        *trained,
        MODEL,
        MODEL,
        "layer4.1",
        "layer3.0",
        *DIGITS,
        "-m1r",
        "8",
        "64",
        "200",
        "8",
        "-m2r",
        "32",
        "4",
    ]
    printed = parse(run_script(NAME, *arguments, "-o", "out/ranks.csv", "--metrics", *HEADINGS.values()))
    assert {(key[3], key[4]) for key in printed} == {(a, b) for a in ("200", "64", "8") for b in ("32", "4")}
    assert [key[3] for key in printed][0] == "200" and [key[4] for key in printed][:2] == ["32", "4"]
    rows = read(tmp_path / "out" / "ranks.csv")
    assert from_csv(rows) == printed
    assert len(rows) == 6 and {row["alignment"] for row in rows} == {"average pool"}
    assert rows[0]["model1"] == trained[0] and rows[0]["model2"] == trained[1] and rows[0]["n_samples"] == "80"
    for metric in HEADINGS.values():  # 64 channels: a rank above the width is full rank
        assert all(
            printed["layer4.1", "layer3.0", metric, "200", rank] == printed["layer4.1", "layer3.0", metric, "64", rank]
            for rank in ("32", "4")
        )
    assert (tmp_path / "out" / "ranks.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "ranks.csv",
        "ranks.png",
        "ranks.config.txt",
        "ranks.run.json",
    }


def test_all_layers_equal_single_pairs(trained, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert script.main([*trained, MODEL, MODEL, "all", "all", *DIGITS, "-o", "all.csv"]) == 0
    whole = parse(capsys.readouterr().out)
    rows = read("all.csv")
    assert len(rows) == 64 and {row["alignment"] for row in rows} == {"positions", "average pool"}
    assert {key[2] for key in whole} == {"cka", "pwcca", "procrustes"}  # the tables of the public code, no more
    assert all(row["pwcca_morcos"] and row["rank1"] == row["rank2"] == "" for row in rows)
    assert whole == {key: value for key, value in from_csv(rows).items() if key[2] != "pwcca_morcos"}
    for layers in (["layer1.0", "layer2.1"], ["layer3.0", "layer3.1"]):
        assert script.main([*trained, MODEL, MODEL, *layers, *DIGITS, "-b", "17"]) == 0
        for key, value in parse(capsys.readouterr().out).items():
            assert whole[key] == pytest.approx(value, abs=1e-5)  # batches of other sizes round differently


def test_a_network_against_itself(trained, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    layers = ["layer1.0,layer3.0,layer1.0.conv1", "layer3.0,layer4.0"]
    assert script.main([trained[0], trained[0], MODEL, MODEL, *layers, *DIGITS, "--verbose"]) == 0
    printed, said = capsys.readouterr()
    found = parse(printed)
    assert found["layer3.0", "layer3.0", "cka", "None", "None"] == pytest.approx(1, abs=1e-12)
    assert found["layer3.0", "layer3.0", "procrustes", "None", "None"] == pytest.approx(0, abs=1e-12)
    assert found["layer3.0", "layer3.0", "pwcca", "None", "None"] == pytest.approx(0, abs=1e-9)
    assert re.search(r"layer1\.0 of model 1: 64×8×8, numerical rank \d+ of 64", said)
    assert "layer1.0 -- layer3.0: samples of CCA and Procrustes: average pool" in said


def test_networks_of_different_kinds(trained, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    vit = build_model("vit_tiny_patch4_32", n_channels=1, image_shape=(1, 8, 8))
    save_state(tmp_path / "vit.pt", vit.state_dict())
    networks = [trained[0], "vit.pt", MODEL, "vit_tiny_patch4_32"]
    assert script.main([*networks, "layer3.0", "blocks.0", *DIGITS, "-o", "kinds.csv", "-m1r", "16", "2"]) == 0
    rows = read("kinds.csv")
    assert [row["rank1"] for row in rows] == ["16", "2"] and [row["rank2"] for row in rows] == ["", ""]
    assert {row["alignment"] for row in rows} == {"average pool / token mean"}
    assert all(math.isfinite(value) for value in from_csv(rows).values())
    assert "PWCCA of 1 pairs is 0 for want of images" in capsys.readouterr().err  # 80 images, 192 features


def test_debiased_and_calibrated_values_of_pooled_layers(trained, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    metrics = ["--metrics", "cka", "cka_debiased", "mutual_knn", "procrustes"]
    options = [*DIGITS, *metrics, "--permutations", "19", "--alignment", "pool", "-o", "p.csv"]
    assert script.main([*trained, MODEL, MODEL, "layer3.0", "layer3.0,layer4.1", *options]) == 0
    printed, said = capsys.readouterr()
    assert "warning" not in said
    assert re.search(r"Mutual kNN:\nModel1 rank None:\n\tModel2 rank None: 0\.\d+ \(p 0\.05, null 0\.\d+, cal", printed)
    rows = read("p.csv")
    assert [row["alignment"] for row in rows] == ["average pool"] * 2 and rows[0]["n_permutations"] == "19"
    assert rows[0]["model1_type"] == rows[0]["model2_type"] == MODEL and rows[0]["dataset"] == "digits"
    for name in metrics[1:]:
        assert float(rows[0][f"{name}_p_value"]) == 1 / 20
        assert 0 < float(rows[0][f"{name}_calibrated"]) <= 1 and rows[0][f"{name}_null_95"]
    assert 0 < float(rows[0]["cka_debiased"]) < float(rows[0]["cka"])
    assert rows[0]["pwcca"] == rows[0]["pwcca_p_value"] == ""


def test_warnings_on_bias_and_positions(trained, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert script.main([*trained, MODEL, MODEL, "layer1.0,layer4.1", "layer1.0", *DIGITS, "-n", "20"]) == 0
    said = capsys.readouterr().err
    assert said.count("warning: CKA of 3 layers is biased upwards") == said.count(" biased") == 1
    assert script.main([*trained, MODEL, MODEL, "layer1.0", "layer1.0", *DIGITS, "--permutations", "19"]) == 0
    said = capsys.readouterr().err
    assert " biased" not in said
    assert "pwcca, procrustes, pwcca_morcos of 1 pairs have no p-values: their samples are positions" in said


def test_what_has_no_value_is_nan_with_a_warning(trained, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    state = load_state(trained[0])
    for key in ("layer2.0.bn2.weight", "layer2.0.bn2.bias", "layer2.0.conv1.weight", "layer1.1.bn2.weight"):
        state[key] = torch.zeros_like(state[key])
    state = {key: torch.zeros_like(value) if "layer1" in key and "bn" in key else value for key, value in state.items()}
    state["conv1.weight"] = torch.zeros_like(state["conv1.weight"])  # all images look alike
    save_state(tmp_path / "dead.pt", state)
    networks = ["dead.pt", trained[1], MODEL, MODEL]
    assert script.main([*networks, "layer1.0", "layer3.0", *DIGITS, "-o", "dead.csv"]) == 0
    (row,) = read("dead.csv")
    assert [row[metric] for metric in HEADINGS.values()] == ["nan"] * 4
    warnings = capsys.readouterr().err
    assert "warning: pwcca, procrustes, pwcca_morcos nan: layer1.0 of model 1 is constant over the samples" in warnings
    assert "warning: cka nan: layer1.0 of model 1 is the same for all images" in warnings


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["layer5.0", "layer1.0"], "unknown layer 'layer5.0'; did you mean"),
        (["layer1.0", "layer1.0", "-m1r", "-1"], "argument -m1r/--model1-ranks: '-1' is not a whole number from 0 on"),
        (["layer1.0", "layer1.0", "-m2r", "half"], "'half' is not a whole number from 0 on"),
        (["layer1.0", "layer1.0", "-n", "1"], "argument -n/--n-samples: '1' is not a whole number from 2 on"),
        (["layer1.0", "layer1.0", "--metrics", "svcca"], "invalid choice: 'svcca'"),
        (["layer1.0", "layer1.0", "--alignment", "max"], "invalid choice: 'max'"),
        (["layer1.0", "layer1.0", "--permutations", "18"], "'18' is not a whole number from 19 on"),
        (
            ["layer1.0", "layer1.0", "-o", "out.png"],
            "argument -o/--output: out.png must be a CSV; give it a name",
        ),
        (["layer1.0", "layer1.0", "-d", "photo_patches"], "'photo_patches' has no labels"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_errors(trained, monkeypatch, tmp_path, capsys, arguments, line):
    monkeypatch.chdir(tmp_path)
    try:
        status = script.main([*trained, MODEL, MODEL, arguments[0], arguments[1], *DIGITS, *arguments[2:]])
    except SystemExit as stop:
        status = stop.code
    lines = capsys.readouterr().err.strip().splitlines()
    assert status == 2 and len(lines) == 1 and line in lines[0]
    assert not list(tmp_path.iterdir())


def test_error_of_the_process(run_here, trained):
    said = run_here(NAME, "nowhere.pt", trained[1], MODEL, MODEL, "all", "all", *DIGITS, status=2)
    assert said.startswith(f"{NAME}: error: ") and "nowhere.pt" in said
