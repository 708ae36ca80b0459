"""A measure, a detector, an objective and a closed form of a user's own file through all scripts: the
file of guide.md."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr

from src.core.inputs import InputSpec
from src.core.tensors import save_state
from src.datasets import load_dataset
from src.models import build_model
from src.results.checkpoints import load_model
from src.results.network_names import NamedNetwork
from tests.commands import (
    ON_DIGITS,
    ROOT,
    error_line,
    panels_of,
    read_csv,
    read_json,
    run,
    says,
    stitch_rows,
)
from tests.conftest import few_images

SECTION = (ROOT / "misc/docs/guide.md").read_text().split("\n## Your own measure")[1]
FILE = SECTION.split("```python\n")[1].split("```")[0]
COMMANDS = SECTION.split("```bash\n")[1].split("```")[0].replace("\\\n", "").splitlines()
SIMILARITY = "exec_compute_low_rank_sim_metrics.py"
SHAPE = (1, 8, 8)
N = 40
MORE = """

def norm_distance(x, y):
    return abs(x.double().norm() / y.double().norm() - 1)

norm_distance.symmetric = False

def pwcca(x, y):
    return 1.0

def text(x, y):
    return "high"

def nothing(x, y):
    return float("nan")

def complex_number(x, y):
    return torch.tensor(1j)

def broken(x, y):
    return {}["key"]

def counted_p_value(x, y):
    return 1.0

def blocks(stitched, own):
    return (stitched - own).flatten(1).square().mean(1)

blocks.at = "blocks"

def everywhere(stitched, own):
    return (stitched - own).square().mean()

everywhere.at = "here"

def scalar(stitched, own):
    return (stitched - own).square().mean()

def constant(stitched, own):
    return stitched.new_ones(len(stitched))

def wide(source, target, cross):
    return cross, target.mean

def infinite(source, target, cross):
    return torch.inf * cross.T, target.mean

def no_bias(source, target, cross):
    return cross.T @ cross

def ortho(source, target, cross):
    pass

"""


@pytest.fixture(scope="module", autouse=True)
def few():
    with few_images(128, n_test=60):
        yield


def fill(folder: Path) -> None:
    """Write the file, and three networks of random weights."""
    (folder / "mine.py").write_text(FILE + MORE)
    for seed in range(3):
        torch.manual_seed(seed)
        network = build_model("small_cnn", n_classes=10, n_channels=1, image_shape=SHAPE)
        save_state(folder / f"models/digits{seed}/model_15.pt", network.state_dict())


@pytest.fixture
def folder(in_tmp_path):
    """A working folder with the file and the networks."""
    fill(in_tmp_path)
    return in_tmp_path


@pytest.fixture(scope="module")
def refusing(tmp_path_factory):
    """Such a folder for all that is refused."""
    folder = tmp_path_factory.mktemp("refused")
    fill(folder)
    return folder


NETWORKS = ["models/digits0/model_15.pt", "models/digits1/model_15.pt", "small_cnn", "small_cnn"]


def compare(layers1: str, layers2: str, *options, networks=NETWORKS):
    return run(SIMILARITY, *networks, layers1, layers2, *ON_DIGITS, "-n", N, *options)


def activations_of(seed: int, layer: str, n: int = N) -> np.ndarray:
    """The activations of the first test images."""
    name = NamedNetwork(f"models/digits{seed}/model_15.pt", "small_cnn")
    network = load_model(name, InputSpec(10, SHAPE))
    images = torch.cat([batch for batch, _ in load_dataset("digits", "", train=False).batches(60)])
    with torch.no_grad():
        return network(images[:n], until=layer).numpy()


def test_the_commands_of_the_docs(folder):
    (folder / "mine.py").write_text(FILE)
    assert len(COMMANDS) == 3 and len(FILE.splitlines()) < 36
    for command in COMMANDS:
        run(*shlex.split(command)[1:])
    assert len(read_csv("rsa.csv")) == 16


def test_a_measure_is_what_scipy_computes(folder, drawn_figures):
    metrics = ["--metrics", "cka", "mine.py:rsa"]
    said = compare("pool1,pool3", "pool2", *metrics, "--verbose", "-o", "m.csv")
    assert said.out.count("rsa:\nModel1 rank None:\n\tModel2 rank None: ") == 2
    assert "nan" not in said.out + said.err
    for row in read_csv("m.csv"):
        rdms = [
            pdist(activations_of(seed, layer).reshape(N, -1).astype(float))
            for seed, layer in enumerate((row["layer1"], row["layer2"]))
        ]
        assert float(row["rsa"]) == pytest.approx(spearmanr(*rdms).statistic, abs=1e-4)
        assert "rsa_reversed" not in row
    written = read_json("m.json")["options"]
    assert written["metrics"] == ["cka", f"{folder}/mine.py:rsa"]
    assert len(written["metrics_sha256"]) == 1
    assert list(panels_of(drawn_figures["m.png"])) == ["linear CKA", "rsa"]


def test_permutations_ranks_and_both_ways(folder):
    options = ["--permutations", "19", "-m1r", "2", "0", "-o", "m.csv"]
    said = compare("pool3", "pool3", "--metrics", "mine.py:rsa", "mine.py:norm_distance", *options)
    assert says(said.err, "rsa, norm_distance nan", "full rank only")
    full, low = read_csv("m.csv")
    assert low["rank1"] == "2" and low["rsa"] == "nan" and full["rank1"] == ""
    x, y = (activations_of(seed, "pool3") for seed in (0, 1))
    forth, back = (np.linalg.norm(a) / np.linalg.norm(b) for a, b in ((x, y), (y, x)))
    assert float(full["norm_distance"]) == pytest.approx(abs(forth - 1), rel=1e-4)
    assert float(full["norm_distance_reversed"]) == pytest.approx(abs(back - 1), rel=1e-4)
    # A norm knows no order of the images, and the order of RSA counts
    assert float(full["norm_distance_p_value"]) == 1 and float(full["rsa_p_value_within"]) < 0.2
    assert 0 < float(full["rsa_calibrated"]) < float(full["rsa"])


def test_a_measure_without_values_leaves_the_others(folder):
    said = compare(
        "pool1,pool3", "pool2,pool3", "--metrics", "cka", "mine.py:nothing", "-o", "m.csv"
    )
    assert says(said.err, "nothing nan: it is what the function gives")
    rows = read_csv("m.csv")
    assert [row["nothing"] for row in rows] == 4 * ["nan"]
    assert all(0 < float(row["cka"]) < 1 for row in rows)


STITCH = ["exec_stitch.py", *NETWORKS, "pool2", "pool2,pool3", "rc2c_pre", *ON_DIGITS, "-b", "64",
          "-e", "2", "--mod-only-stitch"]  # fmt: skip


def stitch(objective: str, *options) -> list[dict[str, str]]:
    """Train stitches on an objective; return the rows of their table."""
    folder = objective.rpartition(":")[2]
    run(*STITCH, "--objective", objective, "-dir", folder, *options)
    return stitch_rows(f"results/{folder}")


def test_an_objective_is_trained_on_and_its_stitches_are_evaluated_without_its_code(folder):
    """Squared differences of all elements, once as the suite's own and once as a function."""
    (folder / "mine.py").write_text(
        FILE
        + "def squares(stitched, own):\n    return (stitched - own).flatten(1).square().mean(1)\n"
        "def last(stitched, own):\n    return squares(stitched, own)\n"
        "last.at = 'blocks'\n"
    )
    trained = [stitch(name) for name in ("feature", "mine.py:squares", "mine.py:last")]
    for row in trained[1] + trained[2]:
        assert row["objective"].startswith(f"{folder}/mine.py:")
        config = read_json(next(folder.glob(f"results/*/{row['folder']}/config.txt")))
        assert config["objective"] == row["objective"] and len(config["objective_sha256"]) == 64
    # Of these end layers, pool3 has one block behind it, and pool2 two
    differences = [{row["representation_difference"] for row in rows} for rows in trained]
    assert not set.intersection(*differences)
    logs = read_csv(next(folder.glob("results/squares/2*/training_logs.csv")))
    assert float(logs[-1]["train_loss"]) < float(logs[0]["train_loss"])

    (folder / "mine.py").unlink()
    said = run("exec_eval_stitcher_ood.py", "results/last", *ON_DIGITS, "--detector", "none")
    assert "evaluated 2 stitches" in said.err
    assert "last matching" in run("misc/verdict.py", "results/last").out


def test_a_closed_form_is_a_map(folder):
    """By the script and by all_pairs, which leaves the cutoff out of its options."""
    matched = ["-e", 0, "-i", "mine.py:shrunk", "--mod-only-stitch", "-dir", "shrunk"]
    given = ["pool2,pool3", "rc2c_pre", *ON_DIGITS, "-pinv-samples", 100]
    run("exec_stitch.py", *NETWORKS, "pool2,pool3", *given, *matched)
    lines = [f"{name},{path},small_cnn" for name, path in zip("ab", NETWORKS[:2], strict=True)]
    (folder / "networks.csv").write_text("\n".join(["name,path,type", *lines]) + "\n")
    methods = ["--methods", "mine.py:shrunk", "--no-similarity", "--ends", "b", "-dir", "all"]
    run("misc/all_pairs.py", "networks.csv", *given, *methods)
    rows, of_list = stitch_rows("results/shrunk"), stitch_rows("results/all/a to b/shrunk")
    for row, other in zip(rows, of_list, strict=True):
        assert row["init"] == other["init"] == f"{folder}/mine.py:shrunk"
        assert row["further_options"] == other["further_options"]
        for name in ("accuracy", "r2_fit", "r2_test"):
            assert float(row[name]) == pytest.approx(float(other[name]), abs=1e-6)
    assert {row["method"] for row in read_csv("all_verdict.csv")} == {"shrunk matching"}


def test_all_pairs_depth_and_verdict(folder):
    layers = "pool2,pool3,pool4"
    given = ["networks.csv", layers, "rc2c_pre", *ON_DIGITS, "-n", N, "-b", "64"]
    lines = [f"n{seed},models/digits{seed}/model_15.pt,small_cnn" for seed in range(3)]
    (folder / "networks.csv").write_text("\n".join(["name,path,type", *lines]) + "\n")
    given += ["--metrics", "cka_debiased", "mine.py:rsa", "--methods",
              "mine.py:cosine:1", "--permutations", "19", "-dir", "all", "--no-figures"]  # fmt: skip
    run("misc/all_pairs.py", *given)
    assert "0 of 9 units" in run("misc/all_pairs.py", *given).err

    (folder / "mine.py").unlink()  # what follows reads tables
    tables = sorted((folder / "results/all/similarity").glob("*.csv"))
    run("misc/verdict.py", "results/all", "-sim", *tables)
    run("misc/collect_results.py", "results/all", "--networks", "networks.csv", "-o", "all.csv")
    assert {"rsa", "rsa_p_value_within"} <= read_csv("verdict.csv")[0].keys()
    assert "rsa" in {row["quantity"] for row in read_csv("all_means.csv")}


MEASURE = f"{SIMILARITY} {' '.join(NETWORKS)} pool3 pool3 -n {N} -o m.csv --metrics"


OBJECTIVE = (
    f"exec_stitch.py {' '.join(NETWORKS)} pool2 pool2 rc2c_pre --mod-only-stitch -e 1 --objective"
)


FORM = f"exec_stitch.py {' '.join(NETWORKS)} pool2 pool3 rc2c_pre -e 0 -i"


REFUSALS = [
    (MEASURE, "mine.py:pwcca", "pwcca is the name of a measure of the suite"),
    (MEASURE, "mine.py:counted_p_value", "_p_value"),
    (MEASURE, "mine.py:text", "mine.py:text returns a str instead of a number"),
    (MEASURE, "mine.py:complex_number", "mine.py:complex_number returns .* instead of a number"),
    (MEASURE, "mine.py:broken", r"cannot run .*mine.py, line \d+: KeyError"),
    (MEASURE, "mine.py:rs", "unknown function in .*mine.py 'rs'; did you mean rsa"),
    (MEASURE, "rsa", "unknown measure 'rsa'"),
    (OBJECTIVE, "mine.py:scalar", r"returns shape \(\) for 1 stitches"),
    (OBJECTIVE, "mine.py:constant", "returns a loss without a gradient"),
    (OBJECTIVE, "mine.py:everywhere", "at is 'here'; give one of end, blocks, logits"),
    (OBJECTIVE, "cosine", "unknown objective 'cosine'"),
    (FORM, "mine.py:cosine", "is not a closed-form solver"),
    (FORM, "mine.py:wide", r"returns a weight \(32, 64\) "),
    (FORM, "mine.py:infinite", "finite numbers"),
    (FORM, "mine.py:no_bias", "mine.py:no_bias returns a "),
    (FORM, "mine.py:ortho", "ortho is the name of a closed-form solver of the suite"),
    (FORM, "shrunk", "unknown initial layer 'shrunk'"),
]


@pytest.mark.parametrize(("command", "function", "said"), REFUSALS)
def test_functions_that_are_refused(command, function, said, refusing):
    """They leave no file."""
    before = {*refusing.rglob("*")}
    line = error_line(*shlex.split(command), function, *ON_DIGITS, cwd=refusing)
    assert re.search(said, line)
    left = {path for path in refusing.rglob("*") if "__pycache__" not in path.parts}
    assert left <= before or command == OBJECTIVE


ON_TWO = ["misc/all_pairs.py", "networks.csv", "pool2", "rc2c_pre", *ON_DIGITS, "-dir", "all"]


TWO = "name,path,type\na,models/digits0/model_15.pt,small_cnn\nb,-,small_cnn\n"


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        (FORM.split()[:-1], "init", "mine.py:shrunk"),
        (MEASURE.split()[:-1], "metrics", "[mine.py:rsa]"),
        (ON_TWO, "methods", "[mine.py:cosine:1]"),
        (ON_TWO, "own_types", "[mine.py:net]"),
    ],
)
def test_a_file_of_options_does_not_run_code(command, option, value, folder):
    (folder / "networks.csv").write_text(TWO)
    (folder / "options.yaml").write_text(f"{option}: {value}\n")
    line = error_line(*command, *ON_DIGITS, "--config", "options.yaml")
    assert says(line, option, "does not run code; give it on the command line")


def test_all_pairs_does_not_run_the_code_that_a_table_was_made_with(folder):
    (folder / "networks.csv").write_text(TWO)
    given = [*ON_TWO, "--methods", "none", "-n", N, "--no-figures", "--metrics"]
    run(*given, "cka", "mine.py:rsa")
    other = (folder / "mine.py").read_text().replace("def rsa(x, y):", "def rsa(x, y):\n    1 / 0")
    (folder / "mine.py").write_text(other)
    assert "0 of 1 units" in run(*given, "cka").err
    line = error_line(*given, "procrustes")
    assert says(line, "a-b.csv has rsa", f"--metrics {folder}/mine.py:rsa")
    said = run(*given, "mine.py:rsa").err
    assert says(said, "the code of rsa has changed since")
