"""misc/verdict.py on many networks: names and groups of a list, means over pairs of networks, tests
between groups, and one network at two epochs."""

import itertools
import json
import math
import shutil
from collections import defaultdict

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from src.figures.groups import draw_groups
from src.figures.words import lines_on_groups, on_groups, tables_of_groups
from src.results.network_names import (
    NamedNetwork,
    named_networks,
    tell_groups,
    training_of,
)
from src.results.reports import SHARE, SHARES, compare_groups
from src.results.stitches import (
    GRID,
    read_evaluated_stitches,
)
from src.results.tables import read_table, write_table
from src.verdict import INCONCLUSIVE, Limits
from tests.commands import (
    caption_of,
    read_csv,
    run,
    says,
)
from tests.frames import all_pairs, frame
from tests.frames import compared as compared_row
from tests.frames import row as row_of
from tests.written_runs import write_evaluation, write_list, write_pairs, write_run

SCRIPT = "misc/verdict.py"
NO_TESTS = pd.DataFrame()
COLLECT = "misc/collect_results.py"
CLEAN = ("c0", "c1", "c2")
NOISY = ("n0", "n1", "n2")
LAYERS = {"x": 0.5, "y": 1.0}
TYPES = dict.fromkeys(CLEAN + NOISY, "resnet18")
GROUPS = dict.fromkeys(CLEAN, "clean") | dict.fromkeys(NOISY, "noisy")


def n_right(front: str, end: str, front_layer: str = "x", end_layer: str = "x") -> int:
    """Stitches of clean networks are better: 945 of 1,000 images, less 4 for a noisy end network, 40
    for a noisy front network."""
    if front_layer != end_layer:
        return 500
    return 945 - 4 * (end in NOISY) - 40 * (front in NOISY)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """All pairs of three clean and three noisy networks at two layers, and a list of them."""
    folder = tmp_path_factory.mktemp("groups")
    for name in write_pairs(folder / "all", TYPES, {"resnet18": LAYERS}, n_right):
        write_evaluation(folder / "all" / name, dict.fromkeys("0123", 0.5))
    write_list(folder / "list.csv", TYPES, group=GROUPS)
    return folder


def test_one_matrix_a_quantity_whatever_the_number_of_networks(folder, drawn_figures):
    command = [SCRIPT, "all", "--networks", "list.csv", "-o", "v.csv"]
    out, _ = run(*command, cwd=folder)
    similar = dict(line.split()[:2] for line in out.splitlines() if line.startswith("x "))
    assert similar["x"] in ("0", "100") and out.count("% similar): direct matching") == 4
    assert ".pt" not in out

    rows = read_csv(folder / "v.csv")
    assert len(rows) == 120 and rows[0]["networks"] == "c0 → c1"
    named = {key: rows[2][key] for key in ("front_network", "front_group", "same_run")}
    assert named == {"front_network": "c0", "front_group": "clean", "same_run": "False"}
    assert len(drawn_figures["v.png"].axes) == 4  # a map a pair of groups
    assert says(caption_of(drawn_figures["v.png"]), "30 pairs")


def test_a_folder_stands_for_its_runs_or_without_any_for_all_below(tmp_path):
    for name in ("a", "a/deeper", "b"):
        write_run(tmp_path / name, "0", n_right=900)
    n_read = {
        (".",): 3,
        (".", "a"): 3,  # each run once
        ("a",): 1,
    }
    for folders, n in n_read.items():
        assert len(read_evaluated_stitches(tmp_path / name for name in folders)) == n
    assert len(read_evaluated_stitches([tmp_path / "a"], recursive=True)) == 2
    above = run(COLLECT, tmp_path, cwd=tmp_path).out
    assert above


def test_groups_are_compared_by_permuting_networks(folder, drawn_figures):
    """As by hand: over the layers of the same name, of 20 ways to label three of six networks."""
    out, _ = run(SCRIPT, "all", "--networks", "list.csv", "-o", "v.csv", cwd=folder)
    groups = {(row["networks"], row["quantity"]): row for row in read_csv(folder / "v_means.csv")}
    clean = groups["clean → clean", "skill"]
    assert (clean["n_networks"], clean["n_pairs"]) == ("3", "6")
    assert len({networks for networks, _ in groups}) == 4
    assert float(groups["clean → noisy", "skill"]["value"]) == pytest.approx(0.6)
    assert float(groups["noisy → clean", "accuracy_drop"]["value"]) == pytest.approx(0.045)

    tests = {
        (row["quantity"], row["within"], row["across"]): row
        for row in read_csv(folder / "v_tests.csv")
    }
    test = tests["accuracy_drop", "clean → clean", "noisy → clean"]
    assert float(test["difference"]) == pytest.approx(-0.04)
    assert (test["n_labelings"], test["lowest_p"], test["is_exact"]) == ("20", "0.05", "True")
    assert float(test["p_value"]) == 2 / 20  # the labels turned round are as far apart
    other = tests["accuracy_drop", "clean → clean", "clean → noisy"]
    assert float(other["difference"]) == pytest.approx(-0.004)
    assert says(out, "(clean → clean) − (noisy → clean)", "-4.0 (0.1)")
    assert {quantity for quantity, *_ in tests} == {
        "accuracy",
        "accuracy_drop",
        "skill",
        "skill_at_end",
    }

    shares, skills = drawn_figures["v_groups.png"].axes
    rows = [label.get_text() for label in shares.get_yticklabels()]
    assert rows == ["from clean (6)", "from noisy (9)", "from noisy (6)", "from clean (9)"]
    assert "p = 1" in [text.get_text() for text in skills.texts]
    cells = drawn_figures["v_networks.png"].axes[0]
    assert np.isnan(cells.images[0].get_array().filled(np.nan)).sum() == 6
    run(SCRIPT, "all/c0-c1", "all/c1-c0", "--networks", "list.csv", "-o", "v.csv", cwd=folder)
    assert not (folder / "v_groups.png").exists()  # of the networks of before


def test_groups_of_unlike_networks_are_compared_at_all_layers_that_correspond(
    tmp_path, drawn_figures
):
    """Deep networks have layers at quarters, flat ones at thirds: the last layers alone have one depth.
    Their types, which are groups as well, are named without paths."""
    cnn = "/home/me/nets.py:cnn"
    mlp = "/home/me/nets.py:mlp"
    layers = {
        cnn: {"a": 0.25, "b": 0.5, "c": 0.75, "d": 1.0},
        mlp: {"x": 1 / 3, "y": 2 / 3, "z": 1.0},
    }
    types = {"a0": cnn, "a1": cnn, "b0": mlp, "b1": mlp}
    write_pairs(tmp_path / "all", types, layers, lambda front, end, *_: 940 - 40 * (front < end))
    write_list(tmp_path / "list.csv", types, group={name: name[0] for name in types})
    out, err = run(SCRIPT, "all", "--networks", "list.csv", "-o", "v.csv", cwd=tmp_path)
    found = {row["networks"]: row for row in read_csv(tmp_path / "v_means.csv")}
    numbers = {groups: float(row["n_layers"]) for groups, row in found.items()}
    assert numbers == {"a → a": 4, "a → b": 3, "b → a": 3, "b → b": 3}
    across = "a (0.25) → x (0.33); c (0.75) → y (0.67); d (1.00) → z (1.00)"
    assert found["a → b"]["pairs_of_layers"] == across
    tests = read_csv(tmp_path / "v_tests.csv")
    assert {row["types"] for row in tests} == {f"a: {cnn}, b: {mlp}"}
    assert says(err, "come from the layers")
    drawn_figures.clear()
    out, _ = run(SCRIPT, "all", "-o", "w.csv", cwd=tmp_path)
    assert {row["types"] for row in read_csv(tmp_path / "w_tests.csv")} == {""}
    assert {row["method"] for row in read_csv(tmp_path / "w.csv")} == {"direct matching"}
    texts = [text.get_text() for figure in drawn_figures.values() for text in figure.findobj(Text)]
    captions = map(caption_of, drawn_figures.values())
    assert not any("/home" in text for text in [out, *texts, *captions])


def test_networks_that_the_list_lacks_are_in_no_group(folder):
    """Two clean and two noisy networks are listed; means and tests are theirs alone."""
    four = ("c0", "c1", "n0", "n1")
    write_list(folder / "four.csv", {name: "resnet18" for name in four}, group=GROUPS)
    pairs = [f"all/{front}-{end}" for front, end in itertools.permutations(four, 2)]
    tables = {}
    for title, networks, folders in (("short", "four.csv", ["all"]), ("full", "list.csv", pairs)):
        given = [*folders, "--networks", networks, "-o", f"{title}.csv"]
        _, err = run(SCRIPT, *given, cwd=folder)
        assert err.count("does not list") == (2 if title == "short" else 0)
        for table in ("means", "tests"):
            tables[title, table] = read_csv(folder / f"{title}_{table}.csv")
    for table in ("means", "tests"):
        assert tables["short", table] == tables["full", table] and tables["full", table]
    of_others = {row["end_group"] for row in read_csv(folder / "short.csv")}
    assert of_others == {"clean", "noisy", "not listed"}
    _, err = run(COLLECT, "all", "--networks", "four.csv", "-o", "g.csv", cwd=folder)
    assert says(err, "four.csv", "not list c2.pt") and err.count("does not list") == 2
    assert not any("not listed" in row["networks"] for row in read_csv(folder / "g_means.csv"))


def trained(folder, name: str, **options) -> None:
    """Two epochs of a training run, with its options beside them."""
    (folder / name).mkdir()
    for epoch in (1, 2):
        (folder / name / f"model_{epoch}.pt").write_text(f"{name} {epoch}")
    config = {"model_type": "resnet18", "save_dir": name} | options
    (folder / name / "config.txt").write_text(json.dumps(config))


def test_the_training_of_a_network_is_that_of_its_config(tmp_path):
    for name in ("a", "b"):
        trained(tmp_path, name)
    (tmp_path / "copy").mkdir()
    for path in ("model_2.pt", "config.txt"):
        (tmp_path / "copy" / path).write_bytes((tmp_path / "a" / path).read_bytes())

    def training(path: str, kind: str = "resnet18", seed: int | None = None) -> str:
        return training_of(NamedNetwork(str(tmp_path / path) if path != "-" else path, kind, seed))

    assert training("a/model_1.pt") == training("a/model_2.pt") == training("copy/model_2.pt")
    assert training("a/model_1.pt") != training("b/model_1.pt")
    assert training("a/model_1.pt", "vit") != training(
        "a/model_2.pt", "vit"
    )  # config of another type
    assert training("-", seed=0) != training("-", seed=1)
    for name in "ab":  # what a user may write beside any network
        (tmp_path / name / "config.txt").write_text('{"model_type": "resnet18"}')
    assert training("a/model_1.pt") != training("b/model_1.pt")
    (tmp_path / "a" / "config.txt").unlink()
    assert training("a/model_1.pt") != training("a/model_2.pt")


def test_one_line_of_a_list_stands_for_untrained_weights_of_every_seed():
    line = NamedNetwork("-", "resnet18", name="untrained", group="none")
    networks = [NamedNetwork("-", "resnet18", seed) for seed in (0, 1)]
    named = named_networks(networks, {line.listed_as: line})
    assert [network.name for network in named.values()] == ["untrained", "untrained (seed 1)"]
    assert {network.group for network in named.values()} == {"none"}
    (network,) = named_networks(networks[:1], {}).values()
    assert (network.name, network.group) == ("- (resnet18, seed 0)", "resnet18")


def test_checkpoints_of_one_training_are_one_network(tmp_path):
    """As the list says. Two training runs have no interval, and two pairs of networks."""
    types = dict.fromkeys(("a1", "a2", "b1", "b2"), "resnet18")

    def accurate(front, end, front_layer, end_layer):
        if front_layer != end_layer:
            return 600 + ord(front[0]) + 9 * int(end[1])
        return 900 if front[0] == end[0] else 500

    write_pairs(tmp_path / "all", types, {"resnet18": LAYERS}, accurate)
    training_runs = {name: name[0] for name in types}
    write_list(
        tmp_path / "list.csv", types, group=dict.fromkeys(types, "g"), training=training_runs
    )
    options = ["all", "--networks", "list.csv", "-o"]
    run(SCRIPT, *options, "verdict.csv", cwd=tmp_path)
    run(COLLECT, *options, "all.csv", "--best-matches", cwd=tmp_path)
    curves = defaultdict(list)
    for row in read_csv(tmp_path / "all_means.csv"):
        if row["report"] == "depth":
            curves["two epochs" in row["networks"]].append(row)
    for is_one, accuracy in ((True, "0.9"), (False, "0.5")):
        values = {row["value"] for row in curves[is_one] if row["quantity"] == "accuracy"}
        assert values == {accuracy}
    groups = read_csv(tmp_path / "verdict_means.csv")
    for row in (*curves[False], *groups, *read_csv(tmp_path / "all_means.csv")):
        if "two epochs" not in row["networks"]:
            assert (row["n_networks"], row["n_pairs"]) == ("2", "2")
            assert row["low"] == row["high"] == ""
    assert sum(row["same_run"] == "True" for row in read_csv(tmp_path / "verdict.csv")) == 4 * 4
    for row in read_csv(tmp_path / "all.csv"):
        is_one = row["front_network"][0] == row["end_network"][0]
        assert (row["front_training"] == row["end_training"]) == is_one


def test_the_lowest_p_is_that_of_the_groups_of_a_test():
    """Of four, three and one networks: 35, 5 and 4 labelings."""
    names = "abcdefgh"
    group_of = dict(zip(names, "kkkklllm", strict=True))
    rows = [
        row_of(front, end, front_group=group_of[front], end_group=group_of[end])
        for front, end in itertools.permutations(names, 2)
    ]
    compared = compare_groups(frame(rows), ["skill"])
    limits = {(4, 3): 1 / 35, (3, 4): 1 / 35, (4, 1): 1 / 5, (3, 1): 1 / 4}
    tests = compared.tests
    sizes = zip(tests.n_networks, tests.n_second, strict=True)
    assert dict(zip(sizes, tests.lowest_p, strict=True)) == limits
    lines = list(lines_on_groups(compared.groups, tests, frame(rows)))
    for limit in (
        "35 ways to divide networks into groups of 4 + 3|0.029",
        "5 ways to divide networks into groups of 4 + 1|0.2.",
        "4 ways to divide networks into groups of 3 + 1|0.25",
    ):
        assert sum(says(line, *limit.split("|")) for line in lines) == 1
    assert says(compared.untested[0], "(m → m) − (m → k), dm: m has fewer than two networks")


@pytest.mark.parametrize(("p", "words"), [(1 / 6, "p 0.17, the lowest possible"), (0.5, "p 0.5.")])
def test_the_headline_of_groups_is_their_largest_difference(p, words):
    compared = compare_groups(all_pairs(), ["skill"])
    tests = compared.tests.assign(difference=[0.1, -0.3, 0.2, 0.0], p_value=[1 / 6, p, 1 / 6, 1])
    largest = tests.iloc[1]
    assert says(on_groups(compared.groups, tests), largest.within, largest.across, words)


def test_groups_that_are_architectures_are_all_named_and_so_are_lost_positions(
    tmp_path, drawn_figures
):
    """A group of a single network is the second group of tests alone. Under the figure of groups."""
    types = {"a": "/x/n.py:k", "b": "/x/n.py:k", "c": "/x/n.py:l"}
    write_pairs(tmp_path / "all", types, dict.fromkeys(types.values(), {"x": 1.0}), lambda *_: 940)
    for path in tmp_path.glob("all/*/*/grid.csv"):
        (row,) = read_table(path, GRID)
        write_table(path, GRID, [row | {"stitching_type": "c2v"}])
    write_list(tmp_path / "list.csv", types, group={name: types[name][-1] for name in types})
    run(SCRIPT, "all", "--networks", "list.csv", "-o", "v.csv", cwd=tmp_path)
    text = drawn_figures["v_groups.png"].get_supxlabel().replace("\n", " ")
    assert says(text, "(k, l)", "lose the differences between positions")


def test_a_list_in_the_folder_names_networks(folder, tmp_path):
    """As misc/compare.py writes it; `--networks` names another."""
    for name in ("c0-c1", "c1-c0"):
        shutil.copytree(folder / "all" / name, tmp_path / "both" / name)
    for name in ("c0.pt", "c1.pt"):
        (tmp_path / name).write_text(name.removesuffix(".pt"))
    lines = [f"{name},{tmp_path / name}.pt,resnet18" for name in ("c1", "c0")]
    (tmp_path / "both" / "networks.csv").write_text("\n".join(["name,path,type", *lines]))
    run(SCRIPT, "both", cwd=tmp_path)
    run(COLLECT, "both", cwd=tmp_path)
    for table in ("verdict.csv", "both/collected.csv"):
        networks = [row["networks"] for row in read_csv(tmp_path / table)]
        assert list(dict.fromkeys(networks)) == ["c1 → c0", "c0 → c1"]  # in the order of the list


def test_a_distance_is_called_so_in_a_table_of_groups():
    names = ["pwcca", "procrustes", "near_distance"]
    rows = frame(
        [compared_row(math.nan, **dict.fromkeys(names, 0.5)), compared_row(math.nan, front="c")]
    )
    (table,) = tables_of_groups(compare_groups(rows, names).groups, NO_TESTS, names)
    assert table.header[1:] == ["PWCCA distance", "Procrustes distance", "near_distance"]


def test_means_say_of_how_many_layers_they_are():
    """A pair of layers in two has no skill, as its baseline is 1; accuracy drops are known of both."""
    rows = [
        row_of(front, end, layers, skill=skill, accuracy_drop=0.1, verdict=None)
        for front, end in itertools.permutations("abe", 2)
        for layers, skill in (("xx", 0.4), ("yy", math.nan))
    ]
    compared = compare_groups(frame(rows), ["accuracy_drop", "skill"])
    (table,) = tables_of_groups(compared.groups, compared.tests)
    assert table.lines == [["one → one (6)", "", "10.0", "0.40 (1 of 2 layers)", ""]]


def test_the_share_of_similar_pairs_has_two_bounds(tmp_path, drawn_figures):
    """Of four networks: a third of the stitches within a group is inconclusive, and none across."""
    rows = all_pairs()
    of_group = (rows.front_group == "one") & (rows.end_group == "one") & (rows.front_layer == "x")
    rows["verdict"] = np.where(of_group, INCONCLUSIVE, SHARE)
    compared = compare_groups(rows, [SHARE, INCONCLUSIVE])
    (table,) = tables_of_groups(compared.groups, compared.tests)
    assert [line[1] for line in table.lines] == ["0.50 to 1.00", "1.00", "1.00", "1.00"]
    assert any(
        "two bounds" in line for line in lines_on_groups(compared.groups, compared.tests, rows)
    )
    draw_groups(tmp_path / "g.png", compare_groups(rows, [*SHARES, "skill"]), Limits())
    bars = [(bar.get_x(), bar.get_width()) for bar in drawn_figures["g.png"].axes[0].patches]
    assert (0.5, 0.5) in bars  # inconclusive, from the share of similar pairs on


@pytest.mark.parametrize(
    ("seeds", "groups", "is_warned"), [("00", "pq", True), ("01", "pq", False), ("00", "pp", False)]
)
def test_groups_that_share_a_seed_are_warned_of(tmp_path, capsys, seeds, groups, is_warned):
    networks = []
    for name, seed, group in zip("ab", seeds, groups, strict=True):
        path = tmp_path / name / "model_1.pt"
        path.parent.mkdir()
        path.touch()
        (path.parent / "config.txt").write_text(json.dumps({"seed": int(seed)}))
        networks.append(NamedNetwork(str(path), "small_cnn", name=name, group=group))
    tell_groups("list.csv", networks)
    assert says(capsys.readouterr().err, "a, b", "one seed") == is_warned


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        (("A", "a"), ("'A' and 'a' count as different groups",)),
        (("label noise", "label_noise"), ("'label noise' and 'label_noise'",)),
        (("clean", None), ("no group is given for b,", "a group, or none")),
        (("clean", "noisy"), ()),
        ((None, None), ()),
    ],
)
def test_groups_that_seem_mistyped_or_missing_are_warned_of(capsys, groups, words):
    networks = [
        NamedNetwork("-", "small_cnn", name=name, group=group)
        for name, group in zip("ab", groups, strict=True)
    ]
    tell_groups("list.csv", networks)
    said = capsys.readouterr().err
    assert all(word in said for word in words) and bool(said) == bool(words)


def test_groups_and_networks_stand_in_the_order_of_the_list(folder):
    lines = (folder / "list.csv").read_text().splitlines()
    (folder / "backwards.csv").write_text("\n".join([lines[0], *lines[:0:-1]]))
    run(SCRIPT, "all", "--networks", "backwards.csv", "-o", "b.csv", cwd=folder)
    names = [line.split(",")[0] for line in lines[:0:-1]]
    rows = read_csv(folder / "b.csv")
    expected = list(itertools.permutations(names, 2))
    assert (
        list(dict.fromkeys((row["front_network"], row["end_network"]) for row in rows)) == expected
    )
    groups = list(dict.fromkeys(row["networks"] for row in read_csv(folder / "b_means.csv")))
    assert groups == [f"{a} → {b}" for a, b in itertools.product(("noisy", "clean"), repeat=2)]
