"""misc/verdict.py and misc/collect_results.py on many networks: names and groups of a list, means over pairs of
networks, tests between groups, best matches, and curves over depth with intervals."""

import itertools
import json
import math
import shutil
from collections import defaultdict

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from scipy.stats import t as student

from src.core.values import Pair
from src.figures.groups import draw_groups
from src.figures.matrices import framed_layers
from src.figures.words import lines_on_groups, on_groups, tables_of_groups
from src.results.network_names import (
    NamedNetwork,
    named_networks,
    read_networks,
    tell_groups,
    training_of,
)
from src.results.reports import SHARE, SHARES, compare_groups
from src.results.stitches import GRID, read_evaluated_stitches
from src.results.tables import read_table, write_table
from src.verdict import INCONCLUSIVE, Limits
from tests.commands import caption_of, error_line, heading, read_csv, run, says
from tests.frames import all_pairs, frame
from tests.frames import compared as compared_row
from tests.frames import row as row_of
from tests.result_rows import SIMILARITY, stitch
from tests.result_rows import write_table as write_records
from tests.written_runs import SKILL, write_evaluation, write_list, write_pairs, write_run

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


NETWORKS = "abcdef"
QUALITY = dict(zip(NETWORKS, (100, 120, 150, 190, 240, 300), strict=True))
WIDTHS = {name: "wide" if name < "d" else "narrow" for name in NETWORKS}


OF_SIX = dict.fromkeys(NETWORKS, "resnet18")


@pytest.fixture(scope="module")
def pairs_of_six(tmp_path_factory):
    """All pairs of six networks at two layers, and a list of them. A stitch is right on as many
    images as both networks are good; similarity is the product of qualities."""
    pairs_of_six = tmp_path_factory.mktemp("pairs")
    (pairs_of_six / "all" / "similarity").mkdir(parents=True)
    layers = {"resnet18": {"blocks.2": 0.5, "blocks.10": 1.0}}
    names = write_pairs(
        pairs_of_six / "all", OF_SIX, layers, lambda front, end, *_: QUALITY[front] + QUALITY[end]
    )
    for name in names:
        write_evaluation(pairs_of_six / "all" / name, dict.fromkeys("0123", 0.5))
    for front, end in itertools.combinations(NETWORKS, 2):
        rows = [{"model1": f"{front}.pt", "model2": f"{end}.pt", "layer1": "blocks.2", "layer2": layer,
                 "rank1": rank, "cka": QUALITY[front] * QUALITY[end] if not rank else 0, "procrustes": 1,
                 "pwcca": 0.2, "pwcca_reversed": 0.4}
                for layer in ("blocks.2", "blocks.10") for rank in ("", 4)]  # fmt: skip
        usual = SIMILARITY | {"pwcca_reversed": ""}
        write_records(pairs_of_six / "all" / "similarity" / f"{front}-{end}.csv", usual, *rows)
    control = {"front_model_path": "a.pt", "end_model_path": "a.pt"}
    write_run(pairs_of_six / "all" / "a-a", "0", n_right=200, **control)
    write_list(pairs_of_six / "list.csv", OF_SIX, group=WIDTHS)
    return pairs_of_six


def means_in(path, report: str = "depth"):
    """The rows of a report in a table of means."""
    return [row for row in read_csv(path) if row["report"] == report]


def accuracies_in(path):
    """The rows of curves that are of the accuracy."""
    return [row for row in means_in(path) if row["quantity"] == "accuracy"]


def test_curves_are_means_over_pairs_with_intervals_over_networks(pairs_of_six, drawn_figures):
    run(COLLECT, "all", cwd=pairs_of_six)
    rows = {
        (row["quantity"], row["method"], row["layers"]): row
        for row in means_in(pairs_of_six / "all" / "collected_means.csv")
    }
    layers = ("blocks.2", "blocks.10")
    assert list(rows) == [
        *(
            (quantity, "direct matching", layer)
            for quantity in (
                "accuracy",
                "accuracy_drop",
                "skill",
            )
            for layer in layers
        ),
        *((measure, "similarity", "blocks.2") for measure in ("cka", "pwcca", "procrustes")),
    ]
    accuracy, cka = (
        rows["accuracy", "direct matching", "blocks.2"],
        rows["cka", "similarity", "blocks.2"],
    )
    pairs = list(itertools.combinations(QUALITY.values(), 2))
    assert float(accuracy["value"]) == pytest.approx(np.mean([sum(pair) for pair in pairs]) / 1000)
    assert float(rows["pwcca", "similarity", "blocks.2"]["value"]) == pytest.approx(
        0.3
    )  # the mean of both ways
    assert float(cka["value"]) == pytest.approx(np.mean([math.prod(pair) for pair in pairs]))
    assert (accuracy["n_networks"], accuracy["n_pairs"], cka["n_pairs"]) == ("6", "30", "15")
    skill = float(rows["skill", "direct matching", "blocks.10"]["value"])
    assert skill == pytest.approx(SKILL.output.skill)
    # Without each network, and without each pair
    products = {pair: math.prod(pair) for pair in pairs}
    without = [
        [value for pair, value in products.items() if each not in pair] for each in QUALITY.values()
    ]
    over_networks = 5 * np.var([np.mean(values) for values in without])
    over_pairs = 14 * np.var(
        [np.mean([value for pair, value in products.items() if pair != each]) for each in pairs]
    )
    half = student.ppf(0.975, 5) * max(over_networks - over_pairs, over_pairs) ** 0.5
    assert [float(cka[end]) for end in ("low", "high")] == pytest.approx(
        [float(cka["value"]) - half, float(cka["value"]) + half]
    )
    accuracy_drops = next(
        axes
        for axes in drawn_figures["collected_depth.png"].axes
        if "accuracy drop" in axes.get_ylabel()
    )
    assert accuracy_drops.get_ylabel() == "accuracy drop (percentage points)"
    limit, curve = accuracy_drops.lines
    assert curve.get_ydata()[0] == pytest.approx(95 - 100 * float(accuracy["value"]))
    assert list(limit.get_ydata()) == [5, 5]


def test_groups_of_a_list_have_a_line_each(pairs_of_six, drawn_figures):
    out, _ = run(COLLECT, "all", "--networks", "list.csv", cwd=pairs_of_six)
    last = out.splitlines()[-1]
    assert last in caption_of(drawn_figures["collected_depth.png"])
    assert says(last, "From first to last layer, skill", "wide → wide")
    rows = means_in(pairs_of_six / "all" / "collected_means.csv")
    assert {row["networks"] for row in rows if row["quantity"] == "accuracy"} == {
        f"{one} → {other}" for one in ("wide", "narrow") for other in ("wide", "narrow")
    }
    (row,) = (row for row in rows if (row["quantity"], row["networks"]) == ("cka", "wide → wide"))
    assert (
        float(row["value"]) == pytest.approx(np.mean([100 * 120, 100 * 150, 120 * 150]))
        and row["n_networks"] == "3"
    )
    of_cka = {row["networks"] for row in rows if row["quantity"] == "cka"}
    assert of_cka == {"wide → wide", "narrow → narrow", "narrow → wide"}  # without a direction
    panels = drawn_figures["collected_depth.png"].axes
    assert [heading(axes) for axes in panels] == [*2 * ["direct matching"], "linear CKA"]
    ends = {line.get_label() for line in panels[0].lines[1:]}
    assert ends == {"narrow → narrow", "narrow → wide", "wide → narrow", "wide → wide"}
    measured = {line.get_label() for line in panels[2].lines}
    assert measured == {"narrow → narrow", "wide → wide", "narrow, wide"}  # without a direction
    assert says(caption_of(drawn_figures["collected_depth.png"]), "30 pairs of networks")
    assert "architecture" not in caption_of(drawn_figures["collected_depth.png"])


def test_curves_of_similarity_count_its_pairs(pairs_of_six, tmp_path, drawn_figures):
    shutil.copytree(pairs_of_six / "all" / "similarity", tmp_path / "similarity")
    run(COLLECT, tmp_path, cwd=tmp_path)
    caption = caption_of(drawn_figures["collected_depth.png"])
    assert says(caption, "15 pairs of networks") and "from" not in caption  # of one layer


def test_networks_of_other_architectures_have_curves_over_relative_depth(tmp_path, drawn_figures):
    """Deep networks have six layers, shallow ones three of other names; the accuracy of a stitch is
    the place of its front layer in tenths."""
    layers = {
        "resnet18": {f"layer{i}": i / 6 for i in range(1, 7)},
        "resnet34": {f"block{i}": i / 3 for i in range(1, 4)},
    }
    types = {"a": "resnet18", "b": "resnet18", "c": "resnet34", "d": "resnet34"}
    write_pairs(tmp_path / "all", types, layers, lambda _, __, layer, ___: 100 * int(layer[5:]))
    _, err = run(COLLECT, "all", "--quantities", "accuracy", cwd=tmp_path)
    assert "not recorded" not in err and "no layers correspond" not in err
    lines = defaultdict(dict)
    for row in accuracies_in(tmp_path / "all" / "collected_means.csv"):
        assert row["layers"] == "" and row["n_networks"] == ("2" if row["n_pairs"] == "2" else "4")
        lines[row["networks"]][float(row["relative_depth"])] = float(row["value"])
    thirds = np.arange(1, 4) / 3
    sixths = np.arange(1, 7) / 6
    expected = {
        "resnet18 → resnet18": dict(zip(sixths, np.arange(1, 7) / 10, strict=True)),
        "resnet34 → resnet34": dict(zip(thirds, np.arange(1, 4) / 10, strict=True)),
        "resnet18 → resnet34": dict(zip(thirds, np.arange(2, 7, 2) / 10, strict=True)),
        "resnet34 → resnet18": dict(zip(thirds, np.arange(1, 4) / 10, strict=True)),
    }
    assert lines.keys() == expected.keys()
    for name, line in expected.items():
        assert lines[name] == pytest.approx(line), name
    (axes,) = drawn_figures["collected_depth.png"].axes
    assert "relative depth" in axes.get_xlabel()
    assert {tuple(line.get_xdata()) for line in axes.lines} == {tuple(thirds), tuple(sixths)}
    assert says(caption_of(drawn_figures["collected_depth.png"]), "Groups differ in architecture")


def test_depths_that_fall_or_differ_in_one_type_are_warned_of(tmp_path, capsys):
    types = dict.fromkeys("ab", "small_cnn")
    for depths, said in {
        "pool2=0.6,pool3=0.3": "depths of b fall from pool2=0.6 to pool3=0.3",
        "pool2=0.2,pool3=0.9": "pool3 has the depth 0.7 in a and 0.9 in b",
        "pool2=0.2,pool3=0.7": "",
    }.items():
        of_networks = {"a": "pool2=0.2,pool3=0.7", "b": depths}
        write_list(tmp_path / "list.csv", types, depths=of_networks)
        read_networks(tmp_path / "list.csv")
        err = capsys.readouterr().err
        assert said in err and bool(said) == bool(err)


def test_a_list_may_give_relative_depths(tmp_path):
    """In place of those that tables record, for networks of a type."""
    layers = {"resnet18": {"x": 0.5, "y": 0.5}, "resnet34": {"u": 0.5, "v": 0.5}}
    types = {"a": "resnet18", "b": "resnet34"}
    of_pairs = {"xu": 100, "xv": 200, "yu": 300, "yv": 400}
    write_pairs(tmp_path, types, layers, lambda *at: of_pairs.get("".join(at[2:]), 0))
    command = (COLLECT, "a-b", "--networks", "list.csv")
    for depths, expected in {
        "u=0.3,v=1": {0.3: 0.1, 0.85: 0.4},
        "u=0.75,v=0.25": {0.275: 0.2, 0.725: 0.3},
    }.items():
        write_list(tmp_path / "list.csv", types, depths={"a": "x=0.3, y = 0.7", "b": depths})
        run(*command, cwd=tmp_path)
        rows = accuracies_in(tmp_path / "a-b" / "collected_means.csv")
        found = {float(row["relative_depth"]): float(row["value"]) for row in rows}
        assert found == pytest.approx(expected)
    for depths, words in {
        "u=2": ("depths of b: 'u=2'", "LAYER=DEPTH"),
        "=1": ("depths of b: '=1'", "from 0 to 1"),
        "u=0.3;v=1": ("depths of b: 'u=0.3;v=1'", "with commas between"),
        "u=0.3,v=1, u=0.5": ("depths of b: u is repeated", "give each layer one depth"),
        "u=1": ("depths that the list gives b", "lack v"),
    }.items():
        write_list(tmp_path / "list.csv", types, depths={"a": "x=0.3,y=0.7", "b": depths})
        assert says(error_line(*command, cwd=tmp_path), *words)


def test_names_and_groups_of_a_list(pairs_of_six, drawn_figures):
    """In titles and in tables of groups; the similarity of two networks counts in both directions."""
    out, _ = run(COLLECT, "all", "--networks", "list.csv", "-o", "g.csv", cwd=pairs_of_six)
    matrices, _, groups = out.partition("\nGroups, direct matching")
    title, *lines = matrices.splitlines()
    assert says(title, " → ", "direct matching")
    assert says(groups, "narrow → wide (9)", "58.3") and says(groups, "wide → wide (6)", "15000.00")
    assert says(caption_of(drawn_figures["g.png"]), "12 pairs of networks")
    tests = {
        (row["method"], row["quantity"], row["within"], row["across"]): row
        for row in read_csv(pairs_of_six / "g_tests.csv")
    }
    row = tests["direct matching", "accuracy", "narrow → narrow", "narrow → wide"]
    qualities = {True: (100, 120, 150), False: (190, 240, 300)}
    within, across = (
        2 * np.mean(qualities[False]),
        np.mean(qualities[False]) + np.mean(qualities[True]),
    )
    assert float(row["difference"]) == pytest.approx((within - across) / 1000)
    assert (row["n_labelings"], row["lowest_p"]) == ("20", "0.05")
    assert ("similarity", "cka", "wide → wide", "wide → narrow") in tests
    out, _ = run(COLLECT, "all/a-b", "--networks", "list.csv", "-o", "h.csv", cwd=pairs_of_six)
    assert out.startswith("a → b, direct matching\n")


@pytest.mark.parametrize("given", ["tables", "tables/similarity"])
def test_tables_of_similarity_suffice(given, pairs_of_six):
    copied = pairs_of_six / "tables" / "similarity"
    shutil.copytree(pairs_of_six / "all" / "similarity", copied, dirs_exist_ok=True)
    run(COLLECT, given, "-o", "t.csv", cwd=pairs_of_six)
    for name in ("t_means.csv", "t.csv"):
        assert {row["method"] for row in read_csv(pairs_of_six / name)} == {"similarity"}


def test_layers_that_do_not_correspond_have_no_curves(tmp_path):
    write_run(tmp_path / "other", "1", n_right=200, front_layer="blocks.1", end_layer="blocks.2")
    run(COLLECT, "other", cwd=tmp_path)
    assert not (tmp_path / "other" / "collected_means.csv").exists()


def test_untrained_networks_have_lines_for_themselves_and_compare_no_groups(tmp_path):
    for number, (front, end) in enumerate((("-", "b"), ("a", "-"), ("a", "b"), ("b", "a"))):
        options = {"front_layer": "blocks.2", "end_layer": "blocks.2", "front_model_path": front}
        n_right = 100 if "-" in (front, end) else 900
        write_run(tmp_path / "all", f"{number}", n_right=n_right, end_model_path=end, **options)
    run(COLLECT, "all", cwd=tmp_path)
    rows = accuracies_in(tmp_path / "all" / "collected_means.csv")
    values = {row["networks"]: row["value"] for row in rows}
    assert values == {
        "resnet18 (untrained) → resnet18": "0.1",
        "resnet18 → resnet18 (untrained)": "0.1",
        "resnet18 → resnet18": "0.9",
    }
    for name in "ab":
        (tmp_path / name).write_text(name)
    (tmp_path / "list.csv").write_text(
        "name,path,type,group\na,a,resnet18,x\nb,b,resnet18,y\nn,-,resnet18,none"
    )
    run(COLLECT, "all", "--networks", "list.csv", cwd=tmp_path)
    groups = means_in(tmp_path / "all" / "collected_means.csv", "groups")
    assert {row["networks"] for row in groups} == {"x → y", "y → x"}


def test_the_figure_has_the_chosen_quantities_and_the_table_all(pairs_of_six, drawn_figures):
    run(COLLECT, "all", "--quantities", "accuracy", "cka", "-o", "q.csv", cwd=pairs_of_six)
    accuracy, similarity = drawn_figures["q_depth.png"].axes
    assert [axes.get_ylabel() for axes in (accuracy, similarity)] == ["accuracy", "similarity"]
    assert [line.get_label() for line in similarity.lines] == ["linear CKA"]
    assert {row["quantity"] for row in means_in(pairs_of_six / "q_means.csv")} > {"procrustes"}


def test_framed_layers_of_one_type_have_one_name():
    layers = [("layer1", "layer1"), ("layer2", "layer3"), ("stem", "stem")]
    rows = [stitch(front_layer=front, end_layer=end) for front, end in layers]
    assert framed_layers(rows) == [Pair("layer1", "layer1"), Pair("stem", "stem")]


@pytest.mark.parametrize(
    ("unit", "framed"), [(0.25, [Pair("b", "x"), Pair("c", "y")]), (None, [])], ids=["known", ""]
)
def test_framed_layers_of_two_types_are_nearest_in_relative_depth(unit, framed):
    """Each to the other; of unknown depths none."""
    rows = []
    for (front, depth), (end, other) in itertools.product(
        {"a": 1, "b": 2, "c": 4}.items(), {"x": 2, "y": 4}.items()
    ):
        depths = {
            "front_relative_depth": unit and unit * depth,
            "end_relative_depth": unit and unit * other,
        }
        rows.append(stitch(front_layer=front, end_layer=end, end_model_type="vit", **depths))
    assert framed_layers(rows) == framed


MANY = {f"d{i}": i / 4 for i in range(1, 5)}
FEW = {"s1": 0.5, "s2": 1.0}


@pytest.fixture(scope="module")
def matches(tmp_path_factory):
    """Two networks of each of two types. Similarity and accuracy of two layers fall with the
    distance of their relative depths, but for a pair of networks that shows all at the last layer."""
    matches = tmp_path_factory.mktemp("matches")
    layers = {"resnet18": MANY, "resnet34": FEW}
    types = {"a": "resnet18", "b": "resnet18", "c": "resnet34", "d": "resnet34"}
    depths = MANY | FEW

    def similarity(front, end, layer1, layer2):
        if (front, end) == ("a", "c"):
            return depths[layer1] * depths[layer2]
        return 1 - abs(depths[layer1] - depths[layer2])

    write_pairs(matches / "all", types, layers, lambda *at: round(900 * similarity(*at)))
    write_list(matches / "list.csv", types)
    usual = SIMILARITY | {"relative_depth1": "", "relative_depth2": "", "pwcca": ""}
    (matches / "all" / "similarity").mkdir()
    for front, end in itertools.combinations(types, 2):
        rows = [
            {"model1": f"{front}.pt", "model2": f"{end}.pt", "model1_type": types[front],
             "model2_type": types[end], "layer1": one, "layer2": two, "cka": similarity(front, end, one, two),
             "relative_depth1": depths[one], "relative_depth2": depths[two]}
            for one, two in itertools.product(layers[types[front]], layers[types[end]])
        ]  # fmt: skip
        write_records(matches / "all" / "similarity" / f"{front}-{end}.csv", usual, *rows)
    return matches


def test_the_command_prints_and_writes_best_matches(matches):
    out, _ = run(COLLECT, "all", "--best-matches", cwd=matches)
    rows = read_csv(matches / "all" / "collected_best_matches.csv")
    assert {(row["method"], row["side"]) for row in rows} == {
        ("direct matching", "front"),
        ("direct matching", "end"),
        ("similarity", ""),
    }
    by_pair = {
        (row["front_network"], row["end_network"], row["front_layer"]): row["end_layer"]
        for row in rows
        if row["quantity"] == "cka"
    }
    assert by_pair["b.pt", "c.pt", "d2"] == "s1" and by_pair["a.pt", "c.pt", "d2"] == "s2"
    assert by_pair["c.pt", "a.pt", "s1"] == "d4" and by_pair["a.pt", "b.pt", "d3"] == "d3"
    shares = {
        (row["side"], row["networks"]): float(row["value"])
        for row in read_csv(matches / "all" / "collected_means.csv")
        if (row["report"], row["quantity"]) == ("best matches", "accuracy")
    }
    assert shares["front", "resnet34 → resnet18"] == shares["end", "resnet34 → resnet18"] == 1
    # Of a → c, only the last layers of three are right, and d3, to which both are equally near
    assert shares["front", "resnet18 → resnet34"] == pytest.approx(np.mean([0.5, 1, 1, 1]))
    assert shares["end", "resnet18 → resnet34"] == pytest.approx(np.mean([0.5, 1, 1, 1]))
    assert says(out, "best match in resnet34 for each layer of resnet18", "similarity, digits")
    assert says(out, "d1", "s1", "s1 (3/4)")

    chosen = ["--best-matches", "--quantities"]
    out, _ = run(COLLECT, "all", *chosen, "cka", "-o", "m.csv", cwd=matches)
    tables = out[out.index("best match") :]
    assert "linear CKA" in tables and "direct matching" not in tables
    line = error_line(COLLECT, "all", *chosen, "x", cwd=matches)
    assert says(line, "--quantities x", "accuracy, direct matching", "cka, similarity")


def test_untrained_networks_have_no_best_match(tmp_path):
    write_run(tmp_path / "all", "0", n_right=500, front_model_path="-")
    line = error_line(COLLECT, "all", "--best-matches", cwd=tmp_path)
    assert says(line, "all has no stitches", "two trained networks", "similarity")
