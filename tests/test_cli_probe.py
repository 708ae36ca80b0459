"""exec_probe.py as a user runs it."""

import re

import pytest

from src import probing, training
from tests.commands import MODEL, ON_DIGITS, parse_probes, read_csv, run, says
from tests.conftest import few_images
from tests.goldens import DATA

pytestmark = pytest.mark.usefixtures("in_tmp_path", "few_figures")


@pytest.fixture(autouse=True)
def small_digits():
    with few_images(256, n_test=120):
        yield


@pytest.fixture
def probe(digit_networks):
    """Probe the first network; returns what the script printed."""
    return lambda *arguments: (
        run("exec_probe.py", digit_networks[0], MODEL, *ON_DIGITS, *arguments).out
    )


def layout(text: str) -> str:
    """What is printed, without the command, the checkpoint and the digits of accuracies."""
    body = re.sub(r"\S+ -- layer", "CHECKPOINT -- layer", text.split("\n", 1)[1])
    return re.sub(r"\d\.\d+", "ACCURACY", body)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ranks", "-l layer3.0 layer4.1 -e 1 -ranks 8 64"),
        ("norank_verbose", "-l layer4.1 -e 6 --verbose -lr 0.01"),
    ],
)
def test_prints_what_the_public_code_prints(name, options, probe):
    with few_images(128, n_test=97):  # no accuracy is 1 or has few digits
        printed = probe(*options.split())
    public = (DATA / "public_stdout" / f"probe_{name}.stdout").read_text()
    assert printed.startswith("['") and "exec_probe.py'" in printed.split("\n")[0]
    assert layout(printed) == layout(public)
    if name == "norank_verbose":
        (accuracy,) = parse_probes(printed)["layer4.1"].values()
        assert f"Epoch #6 val acc: {accuracy}\n" in printed


def test_prints_and_writes_all_layers_and_ranks(probe, digit_networks):
    out = probe(
        "-l",
        "layer2.0",
        "layer4.1,fc",
        "-e",
        "1",
        "-ranks",
        "2",
        "64",
        "8",
        "2",
        "-o",
        "t/probes.csv",
    )
    found = parse_probes(out)
    assert list(found) == ["layer2.0", "layer4.1", "fc"]
    assert all(list(ranks) == ["64", "8", "2"] for ranks in found.values())
    assert f"\n{digit_networks[0]} -- layer4.1\nRank 64: " in out
    rows = read_csv("t/probes.csv")
    assert list(rows[0])[:8] == [
        "model",
        "layer",
        "rank",
        "accuracy",
        "train_accuracy",
        "loss",
        "seed",
        "epochs",
    ]
    assert len(rows) == 9
    for row in rows:
        assert float(row["accuracy"]) == found[row["layer"]][row["rank"]]
        assert 0 < float(row["train_accuracy"]) < 1 and float(row["loss"]) > 0
        assert (row["model"], row["seed"], row["epochs"]) == (str(digit_networks[0]), "0", "1")
        assert (row["model_type"], row["dataset"], row["n_images"]) == (MODEL, "digits", "120")


def test_training_is_what_the_options_say(monkeypatch, probe):
    seen, real = [], training.train

    def recording(task, train_set, val_set, settings, **options):
        seen.append(settings)
        assert (
            isinstance(task, probing.Probes) and train_set.augmentation and not val_set.augmentation
        )
        return real(task, val_set, val_set, settings._replace(n_epochs=1), **options)

    monkeypatch.setattr(training, "train", recording)
    probe("-l", "layer4.1")
    options = "-e 5 -b 32 -lr 0.1 -wd 0 -s 9 -ranks 8 --verbose".split()
    lines = probe("-l", "layer3.0", "layer4.1", *options).splitlines()
    default = training.Settings(10, 64, learning_rate=1e-3, weight_decay=1e-5, reduce_lr_epochs=[5])
    given = training.Settings(5, 32, learning_rate=0.1, weight_decay=0, reduce_lr_epochs=[], seed=9)
    assert seen == [default, given]
    # where there are several probes, each line names its own
    assert says(lines[1], "layer3.0", "rank 8", "Epoch #1 train acc: 0.")
    assert says(lines[4], "layer4.1", "rank 8", "Epoch #1 val acc: 0.")
