"""exec_probe.py as a user runs it."""

import re

import pytest

from src import training
from tests.commands import MODEL, ON_DIGITS, parse_probes, read_csv, run, says
from tests.conftest import few_images
from tests.goldens import DATA

pytestmark = pytest.mark.usefixtures("in_tmp_path")


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


def test_prints_and_writes_all_layers_and_ranks(probe, digit_networks, drawn_figures):
    """Rank 0 is the full rank, of 64."""
    options = ["-e", "1", "-ranks", "2", "0", "8", "2", "-o", "t/probes.csv"]
    found = parse_probes(probe("-l", "layer2.0", "layer4.1,fc", *options))
    assert list(found) == ["layer2.0", "layer4.1", "fc"]
    assert all(list(ranks) == ["None", "8", "2"] for ranks in found.values())
    rows = read_csv("t/probes.csv")
    columns = "model layer rank accuracy train_accuracy loss seed epochs"
    assert list(rows[0])[:8] == columns.split() and len(rows) == 9
    for row in rows:
        assert float(row["accuracy"]) == found[row["layer"]][row["rank"] or "None"]
        assert 0 < float(row["train_accuracy"]) < 1 and float(row["loss"]) > 0
        assert (row["model"], row["seed"], row["epochs"]) == (str(digit_networks[0]), "0", "1")
        assert (row["model_type"], row["dataset"], row["n_images"]) == (MODEL, "digits", "120")
    (axes, *_) = drawn_figures["probes.png"].axes
    assert sorted(axes.lines[0].get_xdata()) == [2, 8, 64]


def test_training_is_what_the_options_say(monkeypatch, probe):
    seen, real = [], training.train

    def recording(task, train_set, val_set, settings, **options):
        seen.append(settings)
        assert train_set.augmentation and not val_set.augmentation
        return real(task, val_set, val_set, settings._replace(n_epochs=1), **options)

    monkeypatch.setattr(training, "train", recording)
    probe("-l", "layer4.1")
    probe("-l", "layer4.1", *"-e 5 -b 32 -lr 0.1 -wd 0 -s 9 -ranks 8".split())
    default = training.Settings(10, 64, learning_rate=1e-3, weight_decay=1e-5, reduce_lr_epochs=[5])
    given = training.Settings(5, 32, learning_rate=0.1, weight_decay=0, reduce_lr_epochs=[], seed=9)
    assert seen == [default, given]


def test_ranks_above_the_width_and_probes_without_training_are_said(in_tmp_path):
    on = ["-", "small_cnn", "-d", "digits", "-gpu", "-1", "-l", "pool2"]
    with few_images(64, n_test=64):
        err = run("exec_probe.py", *on, "-e", "0", "-ranks", "32", "33").err
        assert says(err, "-ranks 33 is above the width of pool2 (32)")
        assert says(err, "-e 0: these are the accuracies of randomly initialised probes")
        printed = run("exec_probe.py", *on, "-e", "1", "-ranks", "32")
        assert "-ranks" not in printed.err and "not trained" not in printed.err
        (accuracy,) = parse_probes(printed.out)["pool2"].values()
        assert printed.err.endswith(f"of 1 probe: {float(accuracy):.2%} (pool2, rank 32)\n")
