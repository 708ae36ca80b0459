"""Many networks: laws of the table of all measurements (misc/collect_results.py -r), means over networks,
and curves over depth with intervals."""

import itertools
import math
import shutil
from collections import defaultdict

import numpy as np
import pytest
from scipy.stats import t as student

from src.results.network_names import read_networks
from tests.commands import caption_of, error_line, heading, read_csv, run, says
from tests.result_rows import SIMILARITY, write_table
from tests.written_runs import SKILL, write_evaluation, write_list, write_pairs, write_run

SCRIPT = "misc/collect_results.py"
COLLECT = "misc/collect_results.py"
NETWORKS = "abcdef"
QUALITY = dict(zip(NETWORKS, (100, 120, 150, 190, 240, 300), strict=True))
GROUPS = {name: "wide" if name < "d" else "narrow" for name in NETWORKS}


TYPES = dict.fromkeys(NETWORKS, "resnet18")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """All pairs of six networks at two layers, and a list of them. A stitch is right on as many
    images as both networks are good; similarity is the product of qualities."""
    folder = tmp_path_factory.mktemp("pairs")
    (folder / "all" / "similarity").mkdir(parents=True)
    layers = {"resnet18": {"blocks.2": 0.5, "blocks.10": 1.0}}
    names = write_pairs(
        folder / "all", TYPES, layers, lambda front, end, *_: QUALITY[front] + QUALITY[end]
    )
    for name in names:
        write_evaluation(folder / "all" / name, dict.fromkeys("0123", 0.5))
    for front, end in itertools.combinations(NETWORKS, 2):
        rows = [{"model1": f"{front}.pt", "model2": f"{end}.pt", "layer1": "blocks.2", "layer2": layer,
                 "rank1": rank, "cka": QUALITY[front] * QUALITY[end] if not rank else 0, "procrustes": 1,
                 "pwcca": 0.2, "pwcca_reversed": 0.4}
                for layer in ("blocks.2", "blocks.10") for rank in ("", 4)]  # fmt: skip
        usual = SIMILARITY | {"pwcca_reversed": ""}
        write_table(folder / "all" / "similarity" / f"{front}-{end}.csv", usual, *rows)
    control = {"front_model_path": "a.pt", "end_model_path": "a.pt"}
    write_run(folder / "all" / "a-a", "0", n_right=200, **control)
    write_list(folder / "list.csv", TYPES, group=GROUPS)
    return folder


def means_in(path, report: str = "depth"):
    """The rows of a report in a table of means."""
    return [row for row in read_csv(path) if row["report"] == report]


def accuracies_in(path):
    """The rows of curves that are of the accuracy."""
    return [row for row in means_in(path) if row["quantity"] == "accuracy"]


def test_curves_are_means_over_pairs_with_intervals_over_networks(folder, drawn_figures):
    run(SCRIPT, "all", cwd=folder)
    rows = {
        (row["quantity"], row["method"], row["layers"]): row
        for row in means_in(folder / "all" / "collected_means.csv")
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


def test_groups_of_a_list_have_a_line_each(folder, drawn_figures):
    out, _ = run(SCRIPT, "all", "--networks", "list.csv", cwd=folder)
    last = out.splitlines()[-1]
    assert last in caption_of(drawn_figures["collected_depth.png"])
    assert says(last, "From first to last layer, skill", "wide → wide")
    rows = means_in(folder / "all" / "collected_means.csv")
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


def test_curves_of_similarity_count_its_pairs(folder, tmp_path, drawn_figures):
    shutil.copytree(folder / "all" / "similarity", tmp_path / "similarity")
    run(SCRIPT, tmp_path, cwd=tmp_path)
    caption = caption_of(drawn_figures["collected_depth.png"])
    assert says(caption, "15 pairs of networks") and "from" not in caption  # of one layer


def test_networks_of_other_architectures_have_curves_over_relative_depth(
    tmp_path, drawn_figures, laid_out
):
    """Deep networks have six layers, shallow ones three of other names; the accuracy of a stitch is
    the place of its front layer in tenths."""
    layers = {
        "resnet18": {f"layer{i}": i / 6 for i in range(1, 7)},
        "resnet34": {f"block{i}": i / 3 for i in range(1, 4)},
    }
    types = {"a": "resnet18", "b": "resnet18", "c": "resnet34", "d": "resnet34"}
    write_pairs(tmp_path / "all", types, layers, lambda _, __, layer, ___: 100 * int(layer[5:]))
    _, err = run(SCRIPT, "all", "--quantities", "accuracy", cwd=tmp_path)
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
    command = (SCRIPT, "a-b", "--networks", "list.csv")
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


def test_names_and_groups_of_a_list(folder, drawn_figures):
    """In titles and in tables of groups; the similarity of two networks counts in both directions."""
    out, _ = run(SCRIPT, "all", "--networks", "list.csv", "-o", "g.csv", cwd=folder)
    matrices, _, groups = out.partition("\nGroups, direct matching")
    title, *lines = matrices.splitlines()
    assert says(title, " → ", "direct matching")
    assert says(groups, "narrow → wide (9)", "58.3") and says(groups, "wide → wide (6)", "15000.00")
    assert says(caption_of(drawn_figures["g.png"]), "12 pairs of networks")
    tests = {
        (row["method"], row["quantity"], row["within"], row["across"]): row
        for row in read_csv(folder / "g_tests.csv")
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
    out, _ = run(SCRIPT, "all/a-b", "--networks", "list.csv", "-o", "h.csv", cwd=folder)
    assert out.startswith("a → b, direct matching\n")


@pytest.mark.parametrize("given", ["tables", "tables/similarity"])
def test_tables_of_similarity_suffice(given, folder):
    copied = folder / "tables" / "similarity"
    shutil.copytree(folder / "all" / "similarity", copied, dirs_exist_ok=True)
    run(SCRIPT, given, "-o", "t.csv", cwd=folder)
    for name in ("t_means.csv", "t.csv"):
        assert {row["method"] for row in read_csv(folder / name)} == {"similarity"}


def test_layers_that_do_not_correspond_have_no_curves(tmp_path):
    write_run(tmp_path / "other", "1", n_right=200, front_layer="blocks.1", end_layer="blocks.2")
    run(SCRIPT, "other", cwd=tmp_path)
    assert not (tmp_path / "other" / "collected_means.csv").exists()


def test_untrained_networks_have_lines_for_themselves_and_compare_no_groups(tmp_path):
    for number, (front, end) in enumerate((("-", "b"), ("a", "-"), ("a", "b"), ("b", "a"))):
        options = {"front_layer": "blocks.2", "end_layer": "blocks.2", "front_model_path": front}
        n_right = 100 if "-" in (front, end) else 900
        write_run(tmp_path / "all", f"{number}", n_right=n_right, end_model_path=end, **options)
    run(SCRIPT, "all", cwd=tmp_path)
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
    run(SCRIPT, "all", "--networks", "list.csv", cwd=tmp_path)
    groups = means_in(tmp_path / "all" / "collected_means.csv", "groups")
    assert {row["networks"] for row in groups} == {"x → y", "y → x"}


def test_the_figure_has_the_chosen_quantities_and_the_table_all(folder, drawn_figures):
    run(SCRIPT, "all", "--quantities", "accuracy", "cka", "-o", "q.csv", cwd=folder)
    accuracy, similarity = drawn_figures["q_depth.png"].axes
    assert [axes.get_ylabel() for axes in (accuracy, similarity)] == ["accuracy", "similarity"]
    assert [line.get_label() for line in similarity.lines] == ["linear CKA"]
    assert {row["quantity"] for row in means_in(folder / "q_means.csv")} > {"procrustes"}
