"""misc/all_pairs.py: the files of the single scripts, by one process or by several of which some
are killed."""

import itertools
import os
import re
from collections import Counter
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

import exec_stitch
from misc import all_pairs, pairs
from src.core.errors import Busy
from src.core.tensors import save_state
from src.models import Network, build_model
from src.results.network_names import NamedNetwork, read_networks
from src.results.run import Run
from src.skill.baseline import Baselines
from tests.commands import (
    ON_DIGITS,
    error_line,
    names_in,
    pair_of,
    parser_of,
    read_csv,
    run,
    says,
    stitch_rows,
)
from tests.conftest import few_images
from tests.run_content import content

SCRIPT = "misc/all_pairs.py"
OPTIONS = ["networks.csv", "pool2,pool4", "rc2c_pre", *ON_DIGITS, "-b", "128", "-dir", "all", "-n", "60",
           "--methods", "pinv", "--no-verdict", "--metrics", "cka_debiased", "procrustes", "--no-figures"]  # fmt: skip
NAMED = """name,path,type
日本語 ネットワーク,models/a.pt,small_cnn
🐈,models/b.pt,small_cnn
ελ η,models/c.pt,small_cnn
"""


@pytest.fixture
def networks(tmp_path):
    """Makes a folder with a list of so many networks of random weights."""

    def make(folder: str, n: int = 3) -> Path:
        path = tmp_path / folder
        (path / "models").mkdir(parents=True)
        for seed, name in enumerate("abcdef"[:n], start=100):
            torch.manual_seed(seed)
            network = build_model("small_cnn", n_classes=10, n_channels=1, image_shape=(1, 8, 8))
            save_state(path / "models" / f"{name}.pt", network.state_dict())
        lines = [f"{name},models/{name}.pt,small_cnn" for name in "abcdef"[:n]]
        (path / "networks.csv").write_text("\n".join(["name,path,type", *lines]) + "\n")
        return path

    return make


@pytest.fixture
def few():
    """The scripts that run in this process take few images."""
    with few_images(200, n_test=80):
        yield


def test_files_are_those_of_the_single_scripts(networks, few, monkeypatch):
    """Bit by bit, each call by itself."""
    one, many = networks("one", 2), networks("many", 2)
    every = [*OPTIONS, "--methods", "covariance", "hint:2", "--probes", "2"]
    monkeypatch.chdir(one)
    args = parser_of(SCRIPT).parse_args(list(map(str, every)))
    units = all_pairs.units_of(args, read_networks("networks.csv"))
    assert len(units) == 2 * 2 + 1 + 2
    for unit in units:
        if unit.stitching:
            exec_stitch.main(unit.stitching)
        unit.function(unit.options)

    run(SCRIPT, *every, "--memory", "0.0002", cwd=many)  # too little for all
    expected, found = (content(folder / "results") for folder in (one, many))
    assert found.keys() == expected.keys()
    assert {"all/similarity/a-b.csv", "all/probes/a.csv"} <= found.keys()
    assert {name for name in expected if expected[name] != found[name]} == set()

    before = {path: path.stat().st_mtime_ns for path in many.rglob("*")}
    assert "0 of " in run(SCRIPT, *every, cwd=many).err
    assert {path: path.stat().st_mtime_ns for path in many.rglob("*")} == before
    assert "(seed was 0, now 1)" in error_line(SCRIPT, *every, "-s", "1", cwd=many)


def test_measures_can_be_added(networks, few):
    """They move nothing that is there."""
    folder = networks("more", 2)
    options = [SCRIPT, *OPTIONS[: OPTIONS.index("--metrics")], "--methods", "none", "--no-figures"]
    tables = []
    for metrics in (["procrustes"], ["procrustes", "mutual_knn"], ["procrustes"]):
        run(*options, "--metrics", *metrics, cwd=folder)
        tables.append(read_csv(folder / "results/all/similarity/a-b.csv"))
    before, after, again = tables
    for row, more in zip(before, after, strict=True):
        assert row.items() <= more.items() and more["mutual_knn"]
    assert again == after


def test_a_warning_is_printed_once(networks, few):
    """About a network once, about pairs of networks with their number."""
    options = [SCRIPT, *OPTIONS[: OPTIONS.index("--methods")], "--methods", "pinv", "--no-verdict"]
    said = run(*options, "--metrics", "cka", cwd=networks("warned", 2)).err.splitlines()
    (line,) = [line for line in said if "biased" in line]
    assert says(line, "warning: ", "1 of 1")
    assert sorted(line.partition("models/")[2][0] for line in said if "chance" in line) == [
        "a",
        "b",
    ]


def test_without_stitches_the_commands_that_follow_are_named(networks, few, figures):
    folder = networks("compared")
    options = [SCRIPT, *OPTIONS[: OPTIONS.index("--methods")], "--methods", "none"]
    said = run(*options, "--metrics", "cka", cwd=folder).err
    assert said.count("left to do") == 1
    for command in re.finditer(r"misc/\w+\.py results/all --networks \S+", said):
        run(*command[0].split(), cwd=folder)
    assert names_in(folder / "results/all") >= {"collected_depth.png", "collected_means.csv"}


def test_images_pass_once_whatever_the_number_of_pairs(networks, few, monkeypatch):
    """Fitting samples and test images pass once through each network, and test images once through
    each stitch. No baseline of an end network is measured twice."""
    seen, keys_of_ends, measured = Counter(), Counter(), Baselines._measure
    activations = Network.activations

    def count(network, x, names, *, after=None, images=None, keep=False):
        if keep and network.cached is not None:  # what is missing passes by a further call
            return activations(network, x, names, keep=True)
        if after:
            seen["stitches"] += len(x)
        elif len(x) > 1:  # a single blank image tells shapes
            weights = network.module.state_dict().values()
            seen[sum(float(weight.sum()) for weight in weights)] += len(x)
        return activations(network, x, names, after=after, images=images)

    def measure(baselines, keys):
        before = Counter(seen)
        measured(baselines, keys)
        seen.clear()
        seen.update(before)
        weights = sum(float(weight.sum()) for weight in baselines.end.module.parameters())
        keys_of_ends.update((weights, key) for key in keys)

    monkeypatch.setattr(Network, "activations", count)
    monkeypatch.setattr(Baselines, "_measure", measure)
    for n in (2, 3):
        folder = networks(f"of{n}", n)
        methods = ["--methods", "pinv", "covariance"]
        seen.clear()
        run(SCRIPT, *OPTIONS, "--no-similarity", *methods, "-pinv-samples", "100", cwd=folder)
        n_layers, n_test = 2, 80
        n_of_stitches = n * (n - 1) * len(methods[1:]) * n_layers**2
        assert seen.pop("stitches") == n_of_stitches * n_test
        assert set(keys_of_ends.values()) == {1}
        keys_of_ends.clear()
        assert Counter(seen.values()) == {100 + n_test: n}


# ---- Layers of each network


LAYERS_OF_EACH = """name,path,type,layers
a,models/a.pt,small_cnn,"pool1, pool4"
b,models/b.pt,small_cnn,pool[23]
c,models/c.pt,small_cnn,
"""


def test_a_list_names_the_layers_of_each_network(networks, few):
    """Where it names none, the command line does."""
    folder = networks("layers", 3)
    (folder / "networks.csv").write_text(LAYERS_OF_EACH)
    given = [SCRIPT, "networks.csv", "pool3", *OPTIONS[2:], "--ends", "b", "--probes", "1"]
    run(*given, cwd=folder)
    layers = {"a": ["pool1", "pool4"], "b": ["pool2", "pool3"], "c": ["pool3"]}
    for front, end in (("a", "b"), ("c", "b")):
        stitches = stitch_rows(folder / "results/all" / f"{front} to {end}" / "pinv")
        pairs = [pair_of(row) for row in stitches]
        assert pairs == list(itertools.product(layers[front], layers[end]))
    values = read_csv(folder / "results/all/similarity/a-b.csv")
    pairs = [(row["layer1"], row["layer2"]) for row in values]
    assert pairs == list(itertools.product(layers["a"], layers["b"]))
    for name, probed in layers.items():
        accuracies = read_csv(folder / f"results/all/probes/{name}.csv")
        assert [row["layer"] for row in accuracies] == probed
    (folder / "networks.csv").write_text(LAYERS_OF_EACH.replace("pool[23]", "pool2"))
    line = error_line(*given, cwd=folder)
    assert says(line, "_layer was 'pool[23]'", "now 'pool2'")


# ---- Several processes


def test_shares_are_disjoint_complete_and_stable():
    def shares(names: str) -> list[set[str]]:
        networks = [NamedNetwork(f"{name}.pt", "small_cnn", name=name) for name in names]
        units = all_pairs.units_of(all_pairs.parser().parse_args(OPTIONS), networks)
        return [
            {unit.title for unit in units if all_pairs.is_in_share(unit, number, 3)}
            for number in (1, 2, 3)
        ]

    few, more = shares("abcdef"), shares("zabcydef")
    assert sum(map(len, few)) == len(set.union(*few)) == 6 * 5 + 15 and all(few)
    assert all(one <= other for one, other in zip(few, more, strict=True))


def test_a_pair_that_another_process_is_at_is_left(networks, few, monkeypatch):
    folder, claim = networks("claimed", 2), Run.claim

    def claim_others(run, **options):
        if run.config.parts[-3:] == ("a to b", "pinv", "evaluation.json"):
            raise Busy("another run is writing")
        claim(run, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "claim", claim_others)
        said = run(SCRIPT, *OPTIONS, "--no-similarity", cwd=folder).err
    assert says(said, "left to other processes", "1 (pinv a to b)")
    assert names_in(folder / "results" / "all") == {"b to a"}
    assert "[1/1] pinv a to b" in run(SCRIPT, *OPTIONS, "--no-similarity", cwd=folder).err


def test_a_pair_that_fails_stops_no_other(networks, few):
    folder = networks("failing", 3)
    path = folder / "models" / "b.pt"
    state = torch.load(path)
    save_state(
        path,
        {
            key: value * torch.nan if key.endswith("4.weight") else value
            for key, value in state.items()
        },
    )
    said = run(SCRIPT, *OPTIONS, "--no-similarity", cwd=folder, status=2).err
    assert "4 of 6 failed (pinv " in said.splitlines()[-1] and said.count(" failed: ") == 4
    finished = (folder / "results" / "all").glob("*/pinv/evaluation.json")
    assert sorted(path.parts[-3] for path in finished) == ["a to c", "c to a"]
    assert not list((folder / "results").rglob("*.resume.pt.lock"))


# ---- The verdict


def test_the_process_that_finishes_the_last_unit_writes_the_verdict(networks, few):
    """Of shares, in whatever order; once more where the command is given again."""
    folder = networks("verdict", 3)
    (folder / "networks.csv").write_text(NAMED)
    given = [SCRIPT, "networks.csv", "pool2,pool4", *ON_DIGITS, "-dir", "all", "-n", "60"]
    run(*given, "--shard", "2/2", cwd=folder)
    assert names_in(folder) == {"models", "networks.csv", "results"}
    run(*given, "--shard", "1/2", cwd=folder)
    rows = read_csv(folder / "all_verdict.csv")
    (folder / "all_verdict.csv").unlink()
    run(*given, cwd=folder)
    assert read_csv(folder / "all_verdict.csv") == rows
    assert (
        len(rows) == 6 * 2 * 4 and "cka_debiased" in rows[0]
    )  # pairs of networks, methods, layers
    assert {row["front_network"] for row in rows} == {"日本語 ネットワーク", "🐈", "ελ η"}
    assert (folder / "all.html").read_text().count("🐈")
    left = [SCRIPT, "networks.csv", "pool2", *ON_DIGITS, "-dir", "other", "-n", "60"]
    (folder / "other.html").write_text("mine")
    assert "other.html: not written by an earlier call" in error_line(*left, cwd=folder)
    assert not (folder / "results/other").exists()


# ---- Refusals


LISTS = [
    ("name,type\na,small_cnn\nb,small_cnn\n",
     "name, path, type, and optionally group, layers, depths and training): it lacks path"),
    ("name,path,typ\na,models/a.pt,small_cnn\nb,models/b.pt,small_cnn\n", "did you mean type?"),
    ("name;path;type\na;models/a.pt;small_cnn\nb;models/b.pt;small_cnn\n", "separate columns by commas"),
    ("name,path,type\na,models/a.pt,small_cnn\na,models/b.pt,small_cnn\n",
     "networks.csv, line 3: networks.csv, line 2, has the name a"),
    ("name,path,type\na,models/a.pt,small_cnn\nb,./models/a.pt,small_cnn\n", "a and b have equal weights"),
    ("name,path,type\n" + "".join(f"{name},models/a.pt,small_cnn\n" for name in ("a-a", "a")),
     "two pairs have the name a-a-a; give names without -"),
    ("name,path,type,grp\na,models/a.pt,small_cnn,x\nb,models/b.pt,small_cnn,x\n",
     "unknown column 'grp'; did you mean group"),
    ("name,path,type\n-a,models/a.pt,small_cnn\nb,models/b.pt,small_cnn\n", "the name '-a' cannot be that of a folder"),
    ("name,path,type\na,models/a.pt,small_cnn\nb,models/x.pt,small_cnn\n",
     "networks.csv, line 3: there is no checkpoint models/x.pt"),
    ("name,path,type\na,models/a.pt,small_cnn\nb,models/b.pt\n", "networks.csv, line 3: type is missing or damaged"),
    ("name,path,type\na,models/a.pt,small_cnn\nb,models/b.pt,nets.py:cnn\n",
     "which runs only if the command line gives it; add --own-types "),
    ("name,path,type\na,models/a.pt,small_cnn\nb,models/b.pt,smal_cnn\n",
     "networks.csv, line 3, column type: unknown type 'smal_cnn'; did you mean small_cnn"),
    ("name,path,type,depths\na,models/a.pt,small_cnn,\nb,models/b.pt,small_cnn,pool2=x\n",
     "networks.csv, line 3: depths of b: 'pool2=x'"),
    ("name,path,type,depths\na,models/a.pt,small_cnn,pool2=1\nb,models/b.pt,small_cnn,\n",
     "the column depths lacks pool4"),
]  # fmt: skip
TYPOS = {
    "cnn": "'cnn'",
    "nets.py:cn": "'nets.py:cn'",
}  # of nets.py:cnn: as a list has it, and as it is named
CHOICES = [
    (["--methods", "pinv", "procrustes"], "unknown method 'procrustes'; give pinv, covariance"),
    (["--methods", "covarianc"], "did you mean covariance?"),
    (["--methods", "task"], "task:10"),
    (["--methods", "nets.py:cnn"], "it ran"),
    (["--detector", "energy"], "unknown score 'energy'; known: mahalanobis"),
    (["--shard", "4/3"], "'4/3' is not I/N with I from 1 to N"),
]


def test_lists_and_options_that_are_refused(networks):
    folder = networks("refused", 2)
    (folder / "nets.py").write_text("raise SystemExit('it ran')\n")
    for options, said in CHOICES:
        assert said in error_line(SCRIPT, *OPTIONS, *options, cwd=folder)
    for table, said in LISTS:
        (folder / "networks.csv").write_text(table)
        assert said in error_line(SCRIPT, *OPTIONS, cwd=folder)
    for kind, named in TYPOS.items():
        table = f"name,path,type\na,models/a.pt,small_cnn\nb,models/b.pt,{kind}\n"
        (folder / "networks.csv").write_text(table)
        line = error_line(SCRIPT, *OPTIONS, "--own-types", "nets.py:cnn", cwd=folder)
        assert f"line 3, column type: unknown type {named}; did you mean nets.py:cnn?" in line
    (folder / "networks.csv").unlink()
    assert "cannot read networks.csv" in error_line(SCRIPT, *OPTIONS, cwd=folder)
    assert not list(folder.glob("results/**/*.*"))


def test_groups_have_no_blanks_around_them_and_an_error_stands_alone(networks):
    folder = networks("blanks", 2)
    table = folder / "networks.csv"
    lines = "name,path,type,group\na,models/a.pt,small_cnn,plain\nb,models/b.pt,{},plain \n"
    table.write_text(lines.format("small_cnn"))
    assert {network.group for network in read_networks(table)} == {"plain"}
    table.write_text(lines.format("smal_cnn"))
    said = run(SCRIPT, *OPTIONS, cwd=folder, status=2).err
    assert "unknown type 'smal_cnn'" in said and len(said.splitlines()) == 1


def killed_before_a_run_has_ended(patch) -> None:
    rename = os.replace

    def die_or_rename(source, target):
        if target.name == "config.txt":
            raise KeyboardInterrupt
        rename(source, target)

    patch.setattr(os, "replace", die_or_rename)


def killed_before_an_evaluation(patch) -> None:
    patch.setattr(pairs.exec_eval_stitcher_ood, "main", Mock(side_effect=KeyboardInterrupt))


@pytest.mark.parametrize("kill", [killed_before_a_run_has_ended, killed_before_an_evaluation])
def test_a_unit_is_taken_up_where_its_process_was_killed(kill, networks, few, monkeypatch):
    whole, killed = networks("whole", 2), networks("killed", 2)
    options = [*OPTIONS, "--no-similarity", "--methods", "covariance", "hint:1"]
    with monkeypatch.context() as patch:
        kill(patch)
        run(SCRIPT, *options, cwd=killed, status=130)
    left = killed / "results" / "all" / "b to a" / "covariance"
    assert list(left.glob("2*/grid.csv")) and not list(left.glob("skill*.csv"))
    (left / ".0123.part").write_text("half")
    for folder in (whole, killed):
        run(SCRIPT, *options, cwd=folder)
    assert content(killed / "results") == content(whole / "results")
    assert not list(left.glob(".*.part"))
    assert all((path / "config.txt").exists() for path in left.glob("2*"))


@pytest.mark.parametrize(
    ("save_dir", "name"), [("a", "a"), ("a/b", "a_b"), ("/data/a/b", "/data/a/b")]
)
def test_the_verdict_lies_in_the_working_directory_or_beside_an_absolute_folder(save_dir, name):
    assert all_pairs.name_of_outputs(save_dir) == name
