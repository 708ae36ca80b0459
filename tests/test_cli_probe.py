"""exec_probe.py as a user runs it."""

import csv
import re
import sys

import pytest
import torch

import exec_probe
from src import probing, training
from src.checkpoints import load_state, save_state
from src.models import build_model
from tests.goldens import DATA
from tests.test_cli_errors import fails

pytestmark = pytest.mark.usefixtures("few_test_images")

MODEL = "resnet18_samewidth"
DIGITS = ["-d", "digits", "-gpu", "-1"]
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(autouse=True)
def command_line(monkeypatch):
    """In this process, too, the command line that the script prints is its own."""
    monkeypatch.setattr(sys, "argv", ["exec_probe.py"])


def parse(text: str) -> dict[str, dict[str, float]]:
    """The accuracies by layer and rank; fails where the format is not the public code's."""
    lines = text.split("\n")
    assert lines[0].startswith("['") and "exec_probe.py'" in lines[0]
    while lines[1].startswith("Epoch #"):
        assert re.fullmatch(r"Epoch #\d+ (train|val) acc: \d\.\d+", lines.pop(1))
    assert lines[-4:] == [""] * 4  # three newlines behind the last number's own
    found, body = {}, lines[1:-4]
    while body:
        layer = body.pop(0).split(" -- ")[1]
        ranked = [re.fullmatch(r"Rank (\w+): (.+)", line).groups() for line in body[: body.index("")]]
        again = body[len(ranked) + 1 : 2 * len(ranked) + 1]
        assert again == [accuracy for _, accuracy in ranked] and len(ranked) > 0
        found[layer] = {rank: float(accuracy) for rank, accuracy in ranked}
        body = body[2 * len(ranked) + 1 :]
    return found


def test_the_parser_of_this_test_reads_what_the_public_code_prints():
    golden = {
        name: (DATA / "public_stdout" / f"probe_{name}.stdout").read_text() for name in ("ranks", "norank_verbose")
    }
    assert parse(golden["ranks"]) == {"layer3.0": {"64": 0.13, "8": 0.15}, "layer4.1": {"64": 0.91, "8": 0.78}}
    assert parse(golden["norank_verbose"]) == {"layer4.1": {"None": 0.89}}


def test_probes_layers_and_ranks(run_script, tmp_path, digit_networks):
    arguments = [digit_networks[0], MODEL, "-l", "layer2.0", "layer4.1,fc", *DIGITS, "-e", "2", "-lr", "0.03"]
    out = run_script("exec_probe.py", *arguments, "-ranks", "2", "64", "8", "2", "-workers", "0", "-o", "t/probes.csv")
    found = parse(out)
    assert list(found) == ["layer2.0", "layer4.1", "fc"]
    assert all(list(ranks) == ["64", "8", "2"] for ranks in found.values())
    assert found["layer4.1"]["64"] > 0.4 > found["layer4.1"]["2"]  # of a network that saw one epoch
    assert f"\n{digit_networks[0]} -- layer4.1\nRank 64: " in out

    with open(tmp_path / "t" / "probes.csv") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:8] == ["model", "layer", "rank", "accuracy", "train_accuracy", "loss", "seed", "epochs"]
    assert len(rows) == 9
    for row in rows:
        assert float(row["accuracy"]) == found[row["layer"]][row["rank"]]
        assert 0 < float(row["train_accuracy"]) < 1 and float(row["loss"]) > 0
        assert (row["model"], row["seed"], row["epochs"]) == (str(digit_networks[0]), "0", "2")
        assert (row["model_type"], row["dataset"], row["n_images"]) == (MODEL, "digits", "360")
    assert (tmp_path / "t" / "probes.png").read_bytes().startswith(PNG)


def test_the_figure_says_what_it_shows(tmp_path, digit_networks, drawn_figures, capsys):
    arguments = [digit_networks[0], MODEL, "-l", "layer4.1", *DIGITS, "-e", "0", "-ranks", "4", "1"]
    run([*arguments, "-o", tmp_path / "p.csv"], capsys)
    below = drawn_figures["p.png"].texts[0].get_text().replace("\n", "").replace(" ", "")
    assert below.endswith(f"({MODEL}).Data:digits.Method:linearprobes,0epochs.Images:120.")


def run(arguments, capsys) -> str:
    assert exec_probe.main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


def test_rank_0_is_the_full_rank(digit_networks, tmp_path, capsys):
    table = tmp_path / "p.csv"
    out = run([digit_networks[0], MODEL, "-l", "layer4.1", *DIGITS, "-e", "0", "-ranks", "4", "0", "-o", table], capsys)
    assert list(parse(out)["layer4.1"]) == ["None", "4"]
    with open(table) as file:
        assert [row["rank"] for row in csv.DictReader(file)] == ["", "4"]


def test_a_probe_gets_what_it_gets_alone(tmp_path, capsys, digit_networks):
    common = [digit_networks[0], MODEL, *DIGITS, "-e", "1", "-lr", "0.01", "-s", "3", "-o", tmp_path / "p.csv"]
    rows = {}
    for layers, ranks in ((["layer1.0", "layer4.0"], ["32", "4"]), (["layer4.0"], ["4"])):
        run([*common, "-l", *layers, "-ranks", *ranks], capsys)
        with open(tmp_path / "p.csv") as file:
            rows[len(layers)] = next(r for r in csv.DictReader(file) if (r["layer"], r["rank"]) == ("layer4.0", "4"))
    for column in ("accuracy", "train_accuracy", "loss"):
        assert float(rows[1][column]) == pytest.approx(float(rows[2][column]), abs=1e-4)
    assert rows[1]["seed"] == "3"


def test_verbose_prints_what_the_public_code_prints(run_here, digit_networks):
    arguments = [digit_networks[0], MODEL, "-l", "layer4.1", *DIGITS, "--verbose"]
    out = run_here("exec_probe.py", *arguments, "-e", "2")
    (accuracy,) = parse(out)["layer4.1"].values()
    lines = [line.rpartition(": ")[0] for line in out.splitlines()[1:5]]
    assert lines == [f"Epoch #{epoch} {split} acc" for epoch in (1, 2) for split in ("train", "val")]
    assert out.splitlines()[4] == f"Epoch #2 val acc: {accuracy}"


def test_verbose_names_the_probe_where_there_are_several(capsys, digit_networks):
    arguments = [digit_networks[0], MODEL, "-l", "layer3.0", "layer4.1", *DIGITS, "-e", "1", "--verbose"]
    lines = run([*arguments, "-ranks", "8"], capsys).splitlines()
    assert lines[1].startswith("layer3.0 -- rank 8 -- Epoch #1 train acc: 0.")
    assert lines[4].startswith("layer4.1 -- rank 8 -- Epoch #1 val acc: 0.")


def test_no_epochs_evaluate_the_probes_as_drawn(tmp_path, capsys, digit_networks):
    arguments = [digit_networks[0], MODEL, "-l", "all", *DIGITS, "-e", "0", "--verbose", "-o", tmp_path / "p.csv"]
    found = parse(run(arguments, capsys))
    assert len(found) == 8 and all(list(ranks) == ["None"] for ranks in found.values())
    with open(tmp_path / "p.csv") as file:
        rows = list(csv.DictReader(file))
    assert {(row["rank"], row["train_accuracy"], row["epochs"]) for row in rows} == {("", "", "0")}


def test_without_an_output_nothing_is_written(run_here, tmp_path, digit_networks):
    run_here("exec_probe.py", digit_networks[0], MODEL, "-l", "layer4.1", *DIGITS, "-e", "0", "-ranks")
    assert not list(tmp_path.iterdir())


def test_transformers(tmp_path, capsys):
    torch.manual_seed(0)
    network = build_model("vit_tiny_patch4_32", n_classes=10, n_channels=1, image_shape=(1, 8, 8))
    save_state(tmp_path / "vit.pt", network.state_dict())
    arguments = [tmp_path / "vit.pt", "vit_tiny_patch4_32", *DIGITS, "-e", "1", "-ranks", "192", "4", "-l"]
    found = parse(run([*arguments, "blocks.0", "norm", "head", "patch_embed"], capsys))
    assert list(found) == ["blocks.0", "norm", "head", "patch_embed"] and found["norm"]["192"] > 0.2


def test_training_is_what_the_options_say(monkeypatch, capsys, digit_networks):
    seen, real = [], training.train

    def recording(task, train_set, val_set, settings, **options):
        seen.append(settings)
        assert isinstance(task, probing.Probes) and train_set.augmentation and not val_set.augmentation
        return real(task, val_set, val_set, settings._replace(n_epochs=1), **options)

    monkeypatch.setattr(training, "train", recording)
    arguments = [digit_networks[0], MODEL, "-l", "layer4.1", *DIGITS]
    run(arguments, capsys)
    run([*arguments, "-e", "5", "-b", "32", "-lr", "0.1", "-wd", "0", "-s", "9"], capsys)
    default = training.Settings(10, 64, learning_rate=1e-3, weight_decay=1e-5, reduce_lr_epochs=[5])
    given = training.Settings(5, 32, learning_rate=0.1, weight_decay=0, reduce_lr_epochs=[], seed=9)
    assert seen == [default, given]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ([], "the following arguments are required: -l/--layers"),
        (["-l"], "argument -l/--layers: expected at least one argument"),
        (["-l", "layer4.2"], "unknown layer 'layer4.2'; did you mean layer4.1"),
        (["-l", "layer4.1", "-ranks", "4", "-1"], "argument -ranks/--ranks: '-1' is not a whole number from 0 on"),
        (
            ["-l", "layer4.1", "-o", "probes.txt"],
            "argument -o/--output: probes.txt must be a CSV; give it a name",
        ),
        (["-l", "layer4.1", "-d", "photo_patches"], "'photo_patches' has no labels"),
    ],
    ids=str,
)
def test_errors(options, line, capsys, digit_networks, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert line in fails(exec_probe.main, [digit_networks[0], MODEL, *DIGITS, *options], capsys)
    assert not list(tmp_path.iterdir())


def test_activations_that_are_not_finite(capsys, digit_networks, tmp_path):
    state = load_state(digit_networks[0])
    state["layer3.0.conv1.weight"].fill_(torch.nan)
    save_state(tmp_path / "nan.pt", state)
    arguments = [tmp_path / "nan.pt", MODEL, *DIGITS, "-e", "1", "-ranks", "4", "-l", "layer2.0", "layer3.0"]
    assert exec_probe.main([str(argument) for argument in arguments]) == 2
    assert "layer layer3.0: activations are not finite; check the checkpoint" in capsys.readouterr().err
