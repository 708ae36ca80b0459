"""misc/all_pairs.py: the files of the single scripts, by one process or by several of which some
are killed."""

import itertools
import json
import os
import re
import shlex
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch

from misc import all_pairs, pairs
from src.figures import pages
from src.ground.errors import Busy
from src.models import Network, build_model
from src.ood import floors
from src.results import session
from src.results.checkpoints import save_state
from src.results.network_list import ListedNetwork
from src.results.run import Run
from tests.commands import (
    ON_DIGITS,
    ROOT,
    error_line,
    names_in,
    read_csv,
    read_json,
    run,
    says,
    stitch_rows,
)
from tests.conftest import few_images
from tests.run_content import content
from tests.test_exchange import write_earlier

SCRIPT = "misc/all_pairs.py"
OPTIONS = ["networks.csv", "pool2,pool4", "rc2c_pre", *ON_DIGITS, "-b", "128", "-dir", "all", "-n", "60",
           "--methods", "pinv", "--no-verdict", "--metrics", "cka_debiased", "procrustes", "--no-figures"]  # fmt: skip
NAMED = """name,path,type
日本語 ネットワーク,models/a.pt,small_cnn
🐈,models/b.pt,small_cnn
ελ η,models/c.pt,small_cnn
"""
NETS = """from src.models import build_model


def cnn(n_classes, n_channels):
    return build_model("small_cnn", n_classes=n_classes, n_channels=n_channels).module
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


def test_files_are_those_of_the_single_scripts(networks, few):
    """Bit by bit, by the commands of a dry run."""
    one, many = networks("one", 2), networks("many", 2)
    every = [*OPTIONS, "--methods", "covariance", "hint:2", "--probes", "2"]
    said = run(SCRIPT, *every, "--dry-run", cwd=one)
    assert not (one / "results").exists()
    assert said.err.startswith("7 of 7 units") and said.err.count("\n") == 1
    lines = said.out.splitlines()
    assert len(lines) == 2 * 2 * 2 + 1 + 2
    with pages.left_out(True):
        for line in lines:
            python, script, *words = shlex.split(line)
            assert python == "python"
            run(str(Path(script).relative_to(ROOT)), *words, cwd=one)

    done = run(SCRIPT, *every, cwd=many)
    assert done.out == "" and "means over" not in done.err  # whose numbers a single script prints
    expected, found = (content(folder / "results") for folder in (one, many))
    assert found.keys() == expected.keys()
    differing = {name for name in expected if expected[name] != found[name]}
    units = [
        f"all/{pair}/{method}"
        for pair in ("a to b", "b to a")
        for method in ("covariance", "hint2")
    ]
    assert differing == {f"{unit}/skill.config.txt" for unit in units}
    for name in differing:  # it has the options of the stitches as well
        options, more = (json.loads(content_of[name]) for content_of in (expected, found))
        assert options.items() <= more.items() and more["front_layer"] == "pool2,pool4"
    run_of_all = "pool2,pool4 -> pool2,pool4"
    files = (f"{run_of_all}/grid.csv", "skill.csv", f"{run_of_all}/stitches.pt")
    assert {f"{unit}/{file}" for unit in units for file in files} <= found.keys()
    assert {
        "all/similarity/a-b.csv",
        "all/probes/a.csv",
    } <= found.keys() and "all/similarity/b-a.csv" not in found

    stitches = [path for path in many.rglob("results/all/a to b/covariance/**/*") if path.is_file()]
    assert len(stitches) <= 8 and len(list(many.glob("results/all/similarity/*"))) == 3

    before = {path: path.stat().st_mtime_ns for path in many.rglob("*")}
    assert "0 of " in run(SCRIPT, *every, cwd=many).err
    assert {path: path.stat().st_mtime_ns for path in many.rglob("*")} == before
    assert "(seed was 0, now 1)" in error_line(SCRIPT, *every, "-s", "1", cwd=many)


def test_a_folder_of_version_2_0_0_dev0_goes_on(networks, few):
    """Its stitches were in METHOD/A-B, a folder a pair of layers."""
    folder = networks("earlier", 2)
    run(SCRIPT, *OPTIONS, cwd=folder)
    results = folder / "results" / "all"
    for pair in ("a-b", "b-a"):
        place = folder / "old" / "sub" / "pinv" / pair
        made = results / pair.replace("-", " to ") / "pinv"
        run("misc/export_runs.py", str(made), "-o", str(folder / pair), cwd=folder)
        write_earlier(folder / pair, place)
    shutil.copytree(results / "similarity", folder / "old" / "sub" / "similarity")
    results.rename(folder / "expected")

    bring = ["misc/import_runs.py", "old/sub", "-o", "results/all", "--networks", "networks.csv"]
    run(*bring, cwd=folder)
    said = run(SCRIPT, *OPTIONS, cwd=folder).err
    assert "2 of 3 units" in said  # the stitches are to be evaluated
    expected = content(folder / "expected")
    found = content(results)
    unlike = {"grid.png", "grid.pdf", "grid.txt"}  # figures are not brought
    assert {name for name in expected if Path(name).name not in unlike} == found.keys()
    differing = {Path(name).name for name in found if found[name] != expected[name]}
    assert differing <= {"stitches.pt"}  # its numbers are those of skill.csv


def test_measures_can_be_added(networks, few):
    """They move nothing that is there."""
    folder = networks("more", 2)
    only = [
        SCRIPT,
        *OPTIONS[: OPTIONS.index("--metrics")],
        "--metrics",
        "procrustes",
        "--no-figures",
    ]
    run(*only, cwd=folder)
    table = folder / "results/all/similarity/a-b.csv"
    before = read_csv(table)
    assert "1 of 3 units" in run(*only, "--metrics", "mutual_knn", cwd=folder).err
    after = read_csv(table)
    assert "cka" not in before[0]
    assert all(
        row.items() <= more.items() and more["mutual_knn"]
        for row, more in zip(before, after, strict=True)
    )
    assert "0 of 3" in run(*only, cwd=folder).err and read_csv(table) == after
    assert says(error_line(*only, "-n", "50", cwd=folder), "n_samples", "was 60, now 50")


def measured_by(folder: Path, *metrics: str) -> str:
    """Compare the networks in a folder by measures; returns what was said."""
    options = [*OPTIONS[: OPTIONS.index("--metrics")], "--methods", "none", "--no-figures"]
    return run(SCRIPT, *options, "--metrics", *metrics, cwd=folder).err


def test_measures_of_two_processes_are_all_kept(networks, few, monkeypatch):
    """Also if one has begun when the other writes its table, or is at it."""
    folder, run_units = networks("both", 2), all_pairs.run_units
    table = folder / "results/all/similarity/a-b.csv"

    def run_after_other(units, *given, **more):
        monkeypatch.setattr(all_pairs, "run_units", run_units)
        measured_by(folder, "cka")
        run_units(units, *given, **more)

    monkeypatch.setattr(all_pairs, "run_units", run_after_other)
    measured_by(folder, "procrustes")
    assert all(row["cka"] and row["procrustes"] for row in read_csv(table))
    assert read_json(table.with_suffix(".config.txt"))["metrics"] == ["cka", "procrustes"]

    lock, waited = Run.lock, []

    def lock_after_other(run):
        if not waited:
            raise Busy("another run is writing")
        lock(run)

    monkeypatch.setattr(Run, "lock", lock_after_other)
    monkeypatch.setattr(Run, "wait", lambda run: waited.append(run))
    assert says(measured_by(folder, "mutual_knn"), "a-b", "waits")
    assert read_csv(table)[0].keys() >= {"cka", "procrustes", "mutual_knn"}
    assert not list(table.parent.glob("*.lock"))


@pytest.mark.parametrize("alignment", ["pool", "auto"])
def test_networks_are_loaded_once_and_compared_by_one_pass_each(
    networks, few, monkeypatch, alignment
):
    """With the values of the single script, also where positions are the samples."""
    passes, activations = [], Network.activations
    loads, load = [], session.load_model
    monkeypatch.setattr(
        Network,
        "activations",
        lambda *given, **more: passes.append(1) or activations(*given, **more),
    )
    monkeypatch.setattr(
        session, "load_model", lambda *given, **more: loads.append(1) or load(*given, **more)
    )
    folder = networks("passes", 4)
    options = ["--methods", "none", "--alignment", alignment]
    run(SCRIPT, *OPTIONS, *options, "-b", "30", cwd=folder)
    assert len(passes) == 2 * len(loads) == 8  # of two batches each, for 6 pairs
    *_, last = run(
        SCRIPT, *OPTIONS, *options, "-b", "30", "-dir", "x", "--dry-run", cwd=folder
    ).out.splitlines()
    with pages.left_out(True):
        run("exec_compute_low_rank_sim_metrics.py", *shlex.split(last)[2:], cwd=folder)
    found = (folder / "results/all/similarity/c-d.csv").read_text()
    assert found == (folder / "results/x/similarity/c-d.csv").read_text()


def test_images_pass_once_whatever_the_number_of_pairs(networks, few, monkeypatch):
    """Matched images and test images pass once through each network, and test images once through
    each stitch. As an end network, it also sees the images of its floors once."""
    seen, activations = Counter(), Network.activations

    def count(network, x, names, *, after=None, images=None):
        if after:
            seen["stitches"] += len(x)
        elif len(x) > 1:  # a single blank image tells shapes
            weights = network.module.state_dict().values()
            seen[sum(float(weight.sum()) for weight in weights)] += len(x)
        return activations(network, x, names, after=after, images=images)

    monkeypatch.setattr(Network, "activations", count)
    for n in (2, 3):
        folder = networks(f"of{n}", n)
        methods = ["--methods", "pinv", "covariance"]
        seen.clear()
        run(SCRIPT, *OPTIONS, "--no-similarity", *methods, "-pinv-samples", "100", cwd=folder)
        n_layers, n_test = 2, 80
        n_of_stitches = n * (n - 1) * len(methods[1:]) * n_layers**2
        n_of_floors = n * floors.N_DRAWS * 3  # of two layers, and of twins for a wider front
        assert seen.pop("stitches") == (n_of_stitches + n_of_floors) * n_test
        n_training = 200
        twins = n * (n_training + n_test)  # networks of one type have the same twins
        expected = {100 + 2 * n_test + n_training: n, twins: 4 * floors.N_DRAWS}
        assert Counter(seen.values()) == expected


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
        pairs = [(row["front_layer"], row["end_layer"]) for row in stitches]
        assert pairs == list(itertools.product(layers[front], layers[end]))
    for first, second in (("a", "b"), ("b", "c")):
        values = read_csv(folder / f"results/all/similarity/{first}-{second}.csv")
        pairs = [(row["layer1"], row["layer2"]) for row in values]
        assert pairs == list(itertools.product(layers[first], layers[second]))
    for name, probed in layers.items():
        accuracies = read_csv(folder / f"results/all/probes/{name}.csv")
        assert [row["layer"] for row in accuracies] == probed

    assert "0 of 7 units" in run(*given, cwd=folder).err
    (folder / "networks.csv").write_text(LAYERS_OF_EACH.replace("pool[23]", "pool2"))
    line = error_line(*given, cwd=folder)
    assert says(line, "_layer was 'pool[23]'", "now 'pool2'", "give the same")


def test_layers_that_some_networks_lack_are_named_once_before_any_work(networks, few):
    folder = networks("lacking", 3)
    with (folder / "networks.csv").open("a") as table:
        table.write("r,-,preact_resnet18\nt,-,preact_resnet18\n")
    line = error_line(SCRIPT, *OPTIONS, cwd=folder)
    assert says(line, "networks.csv", "2 of 5 networks", "(r, t: ", "unknown layer 'pool2'")
    assert says(line, "give each network", "column layers")
    (folder / "networks.csv").write_text(LAYERS_OF_EACH.replace("pool[23]", "output"))
    line = error_line(SCRIPT, *OPTIONS, cwd=folder)
    assert says(line, "1 of 3 networks", "(b: end layer output: ", "nothing follows")
    assert not (folder / "results").exists()


# ---- Several processes


def test_shares_are_disjoint_complete_and_stable():
    def shares(names: str) -> list[set[str]]:
        networks = [ListedNetwork(name, f"{name}.pt", "small_cnn") for name in names]
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
        if run.config.parts[-3:] == ("a to b", "pinv", "skill.config.txt"):
            raise Busy("another run is writing")
        claim(run, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "claim", claim_others)
        said = run(SCRIPT, *OPTIONS, "--no-similarity", cwd=folder).err
    assert says(said, "1 are left", "other processes", "pinv a to b")
    assert names_in(folder / "results" / "all") == {"b to a"}
    assert "[1/1] pinv a to b" in run(SCRIPT, *OPTIONS, "--no-similarity", cwd=folder).err


def test_an_end_network_is_left_to_the_process_that_is_at_it(networks, few, monkeypatch):
    """Its last pairs are helped with when nothing else is left."""
    folder, claim = networks("turns", 3), Run.claim

    def claim_others(run, **options):
        if run.config.parts[-3:] == ("b to a", "pinv", "skill.config.txt"):
            raise Busy("another run is writing")
        claim(run, **options)

    monkeypatch.setattr(Run, "claim", claim_others)
    said = run(SCRIPT, *OPTIONS, "--no-similarity", cwd=folder).err
    done = re.findall(r"] pinv (. to .):", said)
    assert done == ["a to b", "c to b", "a to c", "b to c", "c to a"]
    assert says(said, "1 are left", "pinv b to a")


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
    finished = (folder / "results" / "all").glob("*/pinv/skill.config.txt")
    assert sorted(path.parts[-3] for path in finished) == ["a to c", "c to a"]
    assert not list((folder / "results").rglob("*.resume.pt.lock"))


def test_a_unit_is_taken_up_where_its_process_was_killed(networks, few, monkeypatch):
    whole, killed = networks("whole", 2), networks("killed", 2)
    options = [*OPTIONS, "--no-similarity"]
    rename = os.replace

    def die_or_rename(source, target):
        if target.name == "config.txt":
            raise KeyboardInterrupt
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", die_or_rename)
        run(SCRIPT, *options, cwd=killed, status=130)
    left = killed / "results" / "all" / "b to a" / "pinv"
    assert list(left.glob("2*/grid.csv")) and not list(left.rglob("*config.txt"))
    line = error_line(SCRIPT, "networks.csv", "pool2", *options[2:], cwd=killed)
    assert says(
        line, "b to a/pinv/skill.resume.pt", "other options", "front_layer was 'pool2,pool4'"
    )
    (left / ".0123.part").write_text("half")
    for folder in (whole, killed):
        run(SCRIPT, *options, cwd=folder)
    assert content(killed / "results") == content(whole / "results") and not list(
        left.glob(".*.part")
    )
    assert all((path / "config.txt").exists() for path in left.glob("2*"))


def test_stitches_without_an_evaluation_are_evaluated_from_their_files(networks, few, monkeypatch):
    whole, killed = networks("whole", 2), networks("killed", 2)
    options = [*OPTIONS, "--no-similarity", "--methods", "covariance", "hint:1"]

    def die(*given, **more):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pairs.exec_eval_stitcher_ood, "evaluate", die)
        run(SCRIPT, *options, cwd=killed, status=130)
    left = killed / "results" / "all" / "b to a" / "covariance"
    assert list(left.glob("2*/config.txt")) and not list(left.glob("skill*.csv"))
    for folder in (whole, killed):
        run(SCRIPT, *options, cwd=folder)
    assert content(killed / "results") == content(whole / "results")


# ---- The verdict


def test_the_process_that_finishes_the_last_unit_writes_the_verdict(networks, few):
    """Of shares, in whatever order; once more where the command is given again."""
    folder = networks("verdict", 3)
    (folder / "networks.csv").write_text(NAMED)
    given = [SCRIPT, "networks.csv", "pool2,pool4", *ON_DIGITS, "-dir", "all", "-n", "60"]
    with pages.left_out(True):
        said = run(*given, "--shard", "2/2", cwd=folder)
        assert says(said.err, "not finished", "writes the verdict") and said.out == ""
        assert names_in(folder) == {"models", "networks.csv", "results"}
        said = run(*given, "--shard", "1/2", cwd=folder)
        assert "unlike types" not in said.err and "similar" in said.out
        rows = read_csv(folder / "all_verdict.csv")
        (folder / "all_verdict.csv").unlink()
        run(*given, cwd=folder)
    assert len(rows) == 6 * 2 * 4  # pairs of networks, methods, pairs of layers
    assert {row["front_network"] for row in rows} == {"日本語 ネットワーク", "🐈", "ελ η"}
    assert read_csv(folder / "all_verdict.csv") == rows
    assert "cka" in rows[0] and (folder / "all.html").read_text().count("🐈")
    left = [SCRIPT, "networks.csv", "pool2", *ON_DIGITS, "-dir", "other", "-n", "60"]
    (folder / "other.html").write_text("mine")
    assert "other.html: not written by an earlier call" in error_line(*left, cwd=folder)
    assert not (folder / "results/other").exists()
    run(*left, "--no-verdict", "--no-similarity", "--methods", "pinv", cwd=folder)
    assert not (folder / "other_verdict.csv").exists()


def test_unlike_types_in_a_group_are_said(networks):
    folder = networks("unlike", 2)
    rows = ["a,models/a.pt,small_cnn,x", "b,-,preact_resnet18,x", "c,models/b.pt,small_cnn,y"]
    (folder / "networks.csv").write_text("\n".join(["name,path,type,group", *rows]))
    given = ["networks.csv", "all", *ON_DIGITS, "--methods", "none", "--dry-run", "-dir", "all"]
    said = run(SCRIPT, *given, cwd=folder).err
    assert says(said, "group x", "unlike types", "small_cnn, preact_resnet18")
    assert "group y" not in said


# ---- Refusals


LISTS = [
    ("name,type\na,small_cnn\nb,small_cnn\n",
     "name, path, type, and optionally group, layers, depths and training): it lacks path"),
    ("name;path;type\na;models/a.pt;small_cnn\nb;models/b.pt;small_cnn\n", "separate columns by commas"),
    ("name,path,type\na,models/a.pt,small_cnn\na,models/b.pt,small_cnn\n", "has the name a more than once"),
    ("name,path,type\na,models/a.pt,small_cnn\nb,./models/a.pt,small_cnn\n", "a and b are one checkpoint"),
    ("name,path,type\n" + "".join(f"{name},models/a.pt,small_cnn\n" for name in ("a-a", "a")),
     "two pairs have the name a-a-a; give names without -"),
    ("name,path,type\n" + "".join(f"{name},models/a.pt,small_cnn\n" for name in ("a to a", "a")),
     "two pairs have the name a to a to a"),
    ("name,path,type,grp\na,models/a.pt,small_cnn,x\nb,models/b.pt,small_cnn,x\n",
     "unknown column 'grp'; did you mean group"),
    ("name,path,type\n-a,models/a.pt,small_cnn\nb,models/b.pt,small_cnn\n", "the name '-a' cannot be that of a folder"),
    ("name,path,type\na\\b,models/a.pt,small_cnn\nb,models/b.pt,small_cnn\n", "cannot be that of a folder"),
    ("name,path,type\na,models/a.pt,small_cnn\nb,models/x.pt,small_cnn\n",
     "networks.csv: there is no checkpoint models/x.pt"),
    ("name,path,type\na,models/a.pt,small_cnn\nb,models/b.pt\n", "networks.csv, line 3: type is missing or damaged"),
    ("name,path,type\na/a,models/a.pt,small_cnn\nb,models/b.pt,small_cnn\n",
     "the name 'a/a' cannot be that of a folder"),
    ("name,path,type\na,models/a.pt,small_cnn\nb,models/b.pt,nets.py:cnn\n",
     "a list does not run code; give --own-types "),
]  # fmt: skip
CHOICES = [
    (["--methods", "pinv", "procrustes"], "unknown method 'procrustes'; give pinv, repair"),
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
    (folder / "networks.csv").unlink()
    assert "cannot read networks.csv" in error_line(SCRIPT, *OPTIONS, cwd=folder)
    assert not list(folder.glob("results/**/*.*"))


def test_paths_count_from_the_folder_of_the_list_and_own_code_runs_where_it_is_named(networks, few):
    folder = networks("lists/here", 2)
    (folder / "nets.py").write_text(NETS)
    text = (folder / "networks.csv").read_text().replace("b.pt,small_cnn", "b.pt,nets.py:cnn")
    (folder / "networks.csv").write_text(text)
    options = [
        "lists/here/networks.csv",
        *OPTIONS[1:],
        "--no-similarity",
        "--own-types",
        "lists/here/nets.py:cnn",
    ]
    run(SCRIPT, *options, cwd=folder.parents[1])
    found = content(folder.parents[1] / "results")
    stitches = "all/a to b/pinv/pool2,pool4 -> pool2,pool4/grid.csv"
    assert {stitches, "all/b to a/pinv/skill.csv"} <= found.keys()
    assert b"lists/here/models/a.pt" in found[stitches]
    assert not any("similarity" in name for name in found)
