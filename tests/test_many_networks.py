"""misc/verdict.py on many networks: names and groups of a list, means over pairs of networks, tests
between groups, and one network at two epochs."""

import itertools
import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.text import Text

from src.figures import pages, sections
from src.figures.dots import draw_groups
from src.figures.shown import of_means, of_networks
from src.figures.words import tables_of_groups
from src.results.between_groups import Question, compare_groups, values_of_verdicts
from src.results.evaluations import read_evaluated_stitches
from src.results.measurements import Measurement, NetworkLayer
from src.results.named_networks import NamedNetwork, named_networks
from src.results.network_list import ListedNetwork, as_listed
from src.results.network_means import mean_over_networks
from src.results.network_names import NetworkName
from src.results.trained_with import training_of
from src.results.verdicts import judge_stitches
from tests.commands import (
    ON_DIGITS,
    caption_of,
    error_line,
    parse_matrix,
    read_csv,
    run,
    says,
)
from tests.conftest import few_images
from tests.written_runs import runs_of, write_evaluation, write_run

SCRIPT = "misc/verdict.py"
COLLECT = "misc/collect_results.py"
CLEAN = ("c0", "c1", "c2")
NOISY = ("n0", "n1", "n2")
LAYERS = ("x", "y")


def n_right(front: str, end: str) -> int:
    """Stitches of clean networks are better: 945 of 1,000 images, less 4 for a noisy end network, 40
    for a noisy front network."""
    return 945 - 4 * (end in NOISY) - 40 * (front in NOISY)


@pytest.fixture
def folder(tmp_path):
    """All pairs of three clean and three noisy networks at two layers, and a list of them."""
    for front, end in itertools.permutations(CLEAN + NOISY, 2):
        for number, layers in enumerate(itertools.product(LAYERS, LAYERS)):
            options = {
                f"{side}_layer": layer for side, layer in zip(("front", "end"), layers, strict=True)
            }
            options |= {"front_model_path": f"{front}.pt", "end_model_path": f"{end}.pt"}
            n = n_right(front, end) if layers[0] == layers[1] else 500
            write_run(tmp_path / f"{front}-{end}", f"{number}", n_right=n, **options)
        write_evaluation(tmp_path / f"{front}-{end}", dict.fromkeys("0123", 0.5))
    lines = []
    for name in CLEAN + NOISY:
        (tmp_path / f"{name}.pt").write_text(name)
        lines.append(f"{name},{name}.pt,resnet18,{'noisy' if name in NOISY else 'clean'}")
    (tmp_path / "list.csv").write_text("\n".join(["name,path,type,group", *lines]))
    return tmp_path


def folders() -> list[str]:
    return [f"{front}-{end}" for front, end in itertools.permutations(CLEAN + NOISY, 2)]


def test_one_matrix_a_quantity_whatever_the_number_of_networks(folder, drawn_figures):
    out, _ = run(SCRIPT, *folders(), "--networks", "list.csv", "-o", "v.csv", cwd=folder)
    title = "direct matching, 30 pairs of networks"
    similar = parse_matrix(out, title)
    assert similar["x", "y"] == "0/30" and similar["x", "x"] == "15/30"  # of clean fronts
    assert ".pt" not in out and len(out.splitlines()) < 50

    rows = read_csv(folder / "v.csv")
    assert len(rows) == 120 and rows[0]["networks"] == "c0 → c1"
    named = {key: rows[2][key] for key in ("front_network", "front_group", "same_run")}
    assert named == {"front_network": "c0", "front_group": "clean", "same_run": "False"}
    points, cells = drawn_figures["v.png"].axes
    assert len(points.lines) == 1 + 120  # the floor, and a point a stitch
    assert cells.texts[0].get_text().endswith("\n0.60") and "30 pairs" in caption_of(
        drawn_figures["v.png"]
    )
    out = run(
        SCRIPT, *folders(), "--networks", "list.csv", "-o", "v.csv", "--verbose", cwd=folder
    ).out
    assert says(out, "direct matching", "c0 → n1: x -> x: similar", "0.9410")
    penalty = sum(95 - n_right(*name.split("-")) / 10 for name in folders()) / 30
    assert parse_matrix(out, f"mean points lost, {title}")["y", "y"] == f"{penalty:.1f}"
    assert parse_matrix(out, f"mean skill at the output, {title}")["x", "y"] == "0.60"


def test_a_folder_stands_for_its_runs_or_without_any_for_all_below(folder):
    runs = read_evaluated_stitches(folder / name for name in folders())
    assert len(runs) == 120
    for given in ([folder], [folder, folder / "c0-c1"]):
        assert {run.folder for run in read_evaluated_stitches(given)} == {
            run.folder for run in runs
        }
    write_run(folder / "c0-c1" / "deeper", "0", n_right=900)
    assert len(read_evaluated_stitches([folder / "c0-c1"])) == 4
    assert len(read_evaluated_stitches([folder / "c0-c1"], recursive=True)) == 5
    above = run(COLLECT, folder, cwd=folder).out
    assert above == run(COLLECT, folder, "-r", cwd=folder).out
    assert len(read_csv(folder / "grid.csv")) == 121


def test_groups_are_compared_by_permuting_networks(folder, drawn_figures):
    """As by hand: over the layers of the same name, of 20 ways to label three of six networks."""
    out, _ = run(SCRIPT, *folders(), "--networks", "list.csv", "-o", "v.csv", cwd=folder)
    lines = out.splitlines()
    (start,) = [number for number, line in enumerate(lines) if line.startswith("Groups, ")]
    assert says(lines[start], "direct matching", "2 pairs of layers", "same name")
    table = {
        re.split(r" \(|\) +", line)[0]: line.split()[-4:] for line in lines[start + 2 : start + 6]
    }
    assert table["clean → noisy"][1:] == ["0.9", "0.60", "0.50"]
    assert table["noisy → clean"][1:] == ["4.5", "0.60", "0.50"]
    groups = {(row["networks"], row["quantity"]): row for row in read_csv(folder / "v_groups.csv")}
    clean = groups["clean → clean", "skill"]
    assert (clean["n_networks"], clean["n_pairs"]) == ("3", "6")
    assert len({networks for networks, _ in groups}) == 4
    assert float(groups["clean → noisy", "skill"]["value"]) == pytest.approx(0.6)

    tests = {
        (row["quantity"], row["within"], row["across"]): row
        for row in read_csv(folder / "v_group_tests.csv")
    }
    test = tests["penalty", "clean → clean", "noisy → clean"]
    assert float(test["difference"]) == pytest.approx(-0.04)
    assert (test["n_labelings"], test["lowest_p"], test["is_exact"]) == ("20", "0.05", "True")
    assert float(test["p_value"]) == 2 / 20  # the labels exchanged are as far apart
    assert float(tests["penalty", "clean → clean", "clean → noisy"]["difference"]) == pytest.approx(
        -0.004
    )
    difference = "(clean → clean) − (noisy → clean)"
    assert says(out, difference, "+1.00 (0.1)", "-4.0 (0.1)")
    assert says(" ".join(out.split()), "20 ways", "below 0.05")

    shares, penalties, _ = drawn_figures["v_groups.png"].axes
    rows = [label.get_text() for label in shares.get_yticklabels()]
    groups = ["clean → clean (6)", "clean → noisy (9)", "noisy → clean (9)", "noisy → noisy (6)"]
    assert rows == groups
    dots = [line.get_xdata()[0] for line in penalties.lines if line.get_marker() == "o"]
    means = {
        round(line.get_ydata()[0]): line.get_xdata()[0]
        for line in penalties.lines
        if line.get_marker() == "D"
    }
    assert len(dots) == 30 and means[2] == pytest.approx(4.5) and means[1] == pytest.approx(0.9)
    assert "p 0.1" in [text.get_text() for text in penalties.texts]
    caption = caption_of(drawn_figures["v_groups.png"])
    assert says(caption, "1.00 (clean → clean)") and len(caption.split()) <= 60
    assert says(caption, "clean → noisy with noisy → noisy", "0.05")
    (cells,) = drawn_figures["v_networks.png"].axes
    names = [f"{group[0]}{number}" for group in ("clean", "noisy") for number in range(3)]
    assert [label.get_text() for label in cells.get_xticklabels()] == names
    assert np.isnan(cells.images[0].get_array().filled(np.nan)).sum() == 6
    run(SCRIPT, "c0-c1", "c1-c0", "--networks", "list.csv", "-o", "v.csv", cwd=folder)
    assert not (folder / "v_groups.png").exists()  # of the networks of before


def test_networks_of_two_types_are_compared_by_one_method(tmp_path):
    """A group may be a type: the test of groups needs the pairs of both types in one method."""
    types = {"a": "resnet18", "b": "resnet18", "c": "small_cnn", "d": "small_cnn"}
    for front, end in itertools.permutations(types, 2):
        n = 945 if types[front] == types[end] else 900
        options = {"front_model_path": f"{front}.pt", "end_model_path": f"{end}.pt"}
        options |= {"front_model_type": types[front], "end_model_type": types[end]}
        write_run(tmp_path / f"{front}-{end}", "0", n_right=n, end_layer="x", **options)
    pairs = [f"{front}-{end}" for front, end in itertools.permutations(types, 2)]
    out, _ = run(SCRIPT, *pairs, "-o", "v.csv", cwd=tmp_path)
    assert parse_matrix(out, "direct matching, 12 pairs of networks") == {("x", "x"): "0/12"}
    assert {row["method"] for row in read_csv(tmp_path / "v.csv")} == {"direct matching"}
    tests = read_csv(tmp_path / "v_group_tests.csv")
    test = next(row for row in tests if row["quantity"] == "penalty")
    assert (test["within"], test["across"]) == ("resnet18 → resnet18", "resnet18 → small_cnn")
    assert float(test["difference"]) == pytest.approx(-0.045)


def test_a_section_is_divided_by_its_pairs_of_groups(tmp_path):
    types = {"a": "resnet18", "b": "resnet18", "c": "small_cnn"}
    for number, (front, end) in enumerate(("ab", "ba", "ac")):
        options = {"front_model_path": f"{front}.pt", "end_model_path": f"{end}.pt"}
        options |= {"front_model_type": types[front], "end_model_type": types[end]}
        write_run(tmp_path, str(number), n_right=900, **options)
    (section,) = sections.sections_of(judge_stitches(runs_of(tmp_path)))
    many, single = sections.by_groups(section)
    assert [row.networks for row in many.rows] == ["a.pt → b.pt", "b.pt → a.pt"]
    assert [row.networks for row in single.rows] == ["a.pt → c.pt"]
    assert many.is_summary and not single.is_summary


def test_a_list_must_be_readable_and_unlisted_networks_are_named_by_path(folder, drawn_figures):
    assert "cannot read none.csv" in error_line(
        SCRIPT, "c0-c1", "--networks", "none.csv", cwd=folder
    )
    (folder / "two.csv").write_text("name,path,type\na,c0.pt,resnet18\nb,c1.pt,resnet18")
    _, err = run(SCRIPT, "c0-c1", "c0-c2", "--networks", "two.csv", "-o", "w.csv", cwd=folder)
    assert says(err, "two.csv", "not list c2.pt")
    rows = read_csv(folder / "w.csv")
    assert {row["networks"] for row in rows} == {"a → b", "a → c2.pt"}
    assert says(caption_of(drawn_figures["w.png"]), "2 pairs of networks")
    assert {row["end_group"] for row in rows} == {"resnet18", "not listed"}
    assert not (folder / "w_group_tests.csv").exists()


def test_groups_of_unlike_networks_are_compared_at_all_layers_that_correspond(
    tmp_path, drawn_figures
):
    """Deep networks have layers at quarters, flat ones at thirds: the last layers alone have one depth."""
    layers = {
        "resnet18": {"a": 0.25, "b": 0.5, "c": 0.75, "d": 1.0},
        "small_cnn": {"x": 1 / 3, "y": 2 / 3, "z": 1.0},
    }
    types = {"a0": "resnet18", "a1": "resnet18", "b0": "small_cnn", "b1": "small_cnn"}
    depths = {
        kind: '"' + ", ".join(f"{layer}={depth}" for layer, depth in of_kind.items()) + '"'
        for kind, of_kind in layers.items()
    }
    lines = ["name,path,type,group,depths"]
    for name, kind in types.items():
        (tmp_path / f"{name}.pt").write_text(name)
        lines.append(f"{name},{name}.pt,{kind},{name[0]},{depths[kind]}")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    for front, end in itertools.permutations(types, 2):
        options = {"front_model_path": f"{front}.pt", "end_model_path": f"{end}.pt"}
        options |= {"front_model_type": types[front], "end_model_type": types[end]}
        pairs = itertools.product(layers[types[front]], layers[types[end]])
        for number, (layer, end_layer) in enumerate(pairs):
            at = {"front_layer": layer, "end_layer": end_layer}
            write_run(tmp_path / f"{front}-{end}", f"{number}", n_right=900, **at, **options)
    folders = [f"{front}-{end}" for front, end in itertools.permutations(types, 2)]
    out, err = run(SCRIPT, *folders, "--networks", "list.csv", "-o", "v.csv", cwd=tmp_path)
    rows = read_csv(tmp_path / "v_groups.csv")
    found = {row["networks"]: row for row in rows}
    numbers = {groups: float(row["n_layers"]) for groups, row in found.items()}
    assert numbers == {"a → a": 4, "a → b": 3, "b → a": 3, "b → b": 3}
    across = "a (0.25) → x (0.33); c (0.75) → y (0.67); d (1.00) → z (1.00)"
    assert found["a → b"]["pairs_of_layers"] == across
    assert says(out, "b → b", "x (0.33) → x (0.33), y (0.67) → y (0.67), z (1.00) → z (1.00)")
    assert says(err, "come from the layers")
    tests = read_csv(tmp_path / "v_group_tests.csv")
    assert {row["types"] for row in tests} == {"a: resnet18, b: small_cnn"}
    text = " ".join((tmp_path / "v.md").read_text().split())
    assert says(text, "a: resnet18, b: small_cnn", "architecture")
    for figure in ("v.png", "v_groups.png"):
        assert says(caption_of(drawn_figures[figure]), "a: resnet18, b: small_cnn")
    run(SCRIPT, *folders, "-o", "w.csv", cwd=tmp_path)  # the groups are the types
    assert {row["types"] for row in read_csv(tmp_path / "w_group_tests.csv")} == {""}


def test_figures_name_users_types_without_their_paths(tmp_path, drawn_figures, laid_out):
    types = dict.fromkeys("abc", "/home/me/nets.py:cnn") | dict.fromkeys(
        "def", "/home/me/nets.py:mlp"
    )
    for front, end in itertools.permutations(types, 2):
        options = {"front_model_path": f"{front}.pt", "end_model_path": f"{end}.pt"}
        options |= {"front_model_type": types[front], "end_model_type": types[end]}
        write_run(tmp_path / f"{front}-{end}", "0", n_right=900, end_layer="x", **options)
    pairs = [f"{front}-{end}" for front, end in itertools.permutations(types, 2)]
    out, _ = run(SCRIPT, *pairs, "-o", "v.csv", cwd=tmp_path)
    captions = list(map(caption_of, drawn_figures.values()))
    assert says(out, "(cnn → cnn) − (cnn → mlp)") and "/home" not in out
    texts = [text.get_text() for figure in drawn_figures.values() for text in figure.findobj(Text)]
    assert not any("/home" in text for text in [*texts, *captions])


def test_networks_that_the_list_lacks_are_in_no_group(folder):
    """Two clean and two noisy networks are listed; means and tests are theirs alone."""
    lines = (folder / "list.csv").read_text().splitlines()
    kept = [line for line in lines if not line.startswith(("c2", "n2"))]
    (folder / "four.csv").write_text("\n".join(kept))
    four = ("c0", "c1", "n0", "n1")
    tables = {}
    for title, networks, of in (("short", "four.csv", CLEAN + NOISY), ("full", "list.csv", four)):
        pairs = [f"{front}-{end}" for front, end in itertools.permutations(of, 2)]
        with pages.left_out():
            _, err = run(SCRIPT, *pairs, "--networks", networks, "-o", f"{title}.csv", cwd=folder)
        assert err.count("does not list") == (2 if title == "short" else 0)
        for table in ("groups", "group_tests"):
            tables[title, table] = read_csv(folder / f"{title}_{table}.csv")
    for table in ("groups", "group_tests"):
        assert tables["short", table] == tables["full", table] and tables["full", table]
    (folder / "all").mkdir()
    for pair in folders():
        (folder / pair).rename(folder / "all" / pair)
    out, err = run(COLLECT, "all", "-r", "--networks", "four.csv", "-o", "g.csv", cwd=folder)
    assert "clean → noisy (4)" in out  # pairs of networks
    assert says(err, "four.csv", "not list c2.pt") and err.count("does not list") == 2
    assert not any("not listed" in row["networks"] for row in read_csv(folder / "g_groups.csv"))


def trained(folder, name: str, **options) -> None:
    """Two epochs of a training, with its options beside them."""
    (folder / name).mkdir()
    for epoch in (1, 2):
        (folder / name / f"model_{epoch}.pt").write_text(f"{name} {epoch}")
    config = {"model_type": "resnet18", "save_dir": name} | options
    (folder / name / "config.txt").write_text(json.dumps(config))


def test_one_network_at_two_epochs_is_no_pair_of_networks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        trained(tmp_path, name)
    networks = [f"{name}/model_{epoch}.pt" for name in "ab" for epoch in (1, 2)]
    for number, (front, end) in enumerate(itertools.permutations(networks, 2)):
        options = {"front_model_path": front, "end_model_path": end, "front_layer": "y"}
        write_run(tmp_path / "all", str(number), n_right=900, **options)
    runs = runs_of(tmp_path / "all")
    rows = judge_stitches(runs)
    assert [row.same_run for row in rows].count(True) == 4
    itself, others = (section.title for section in sections.sections_of(rows))
    assert says(itself, "direct matching", "4 pairs", "itself")
    assert says(others, "direct matching", "8 pairs of networks")
    names = named_networks([network for run in runs for network in run.row.networks], {})
    values = list(values_of_verdicts(rows, names.values()))
    pairs = {(value.front.network.name[0], value.end.network.name[0]) for value in values}
    assert pairs == {("a", "b"), ("b", "a")}


def test_the_training_of_a_network_is_that_of_its_config(tmp_path):
    for name in ("a", "b"):
        trained(tmp_path, name)
    (tmp_path / "copy").mkdir()
    for path in ("model_2.pt", "config.txt"):
        (tmp_path / "copy" / path).write_bytes((tmp_path / "a" / path).read_bytes())

    def training(path: str, kind: str = "resnet18", seed: int | None = None) -> str:
        return training_of(NetworkName(str(tmp_path / path) if path != "-" else path, kind, seed))

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


def test_networks_beside_equal_files_of_the_user_are_a_pair(tmp_path):
    for name in ("a", "b"):
        trained(tmp_path, name)
        (tmp_path / name / "config.txt").write_text('{"model_type": "resnet18"}')
    paths = [str(tmp_path / name / "model_1.pt") for name in "ab"]
    write_run(
        tmp_path / "runs",
        "1",
        n_right=945,
        front_model_path=paths[0],
        end_model_path=paths[1],
        front_model_type="resnet18",
        end_model_type="resnet18",
    )
    run(SCRIPT, "runs", "-o", "v.csv", cwd=tmp_path)
    (row,) = read_csv(tmp_path / "v.csv")
    assert row["same_run"] == "False"


def test_one_line_of_a_list_stands_for_fresh_weights_of_every_seed():
    line = ListedNetwork("fresh", "-", "resnet18", "none")
    networks = [NetworkName("-", "resnet18", seed) for seed in (0, 1)]
    named = named_networks(networks, as_listed([line]))
    assert [network.name for network in named.values()] == ["fresh", "fresh (seed 1)"]
    assert {network.group for network in named.values()} == {"none"}
    (network,) = named_networks(networks[:1], {}).values()
    assert network[:2] == ("- (resnet18, seed 0)", "resnet18")


def value_of(
    front: NamedNetwork, end: NamedNetwork, value: float, layers="xx", quantity: str = "accuracy"
) -> Measurement:
    """A value of two layers of two networks."""
    sides = (
        NetworkLayer(network, layer) for network, layer in zip((front, end), layers, strict=True)
    )
    return Measurement("dm", quantity, *sides, value)


def values_of(trainings: dict[str, str], groups: dict[str, str]) -> list[Measurement]:
    """Values of all pairs of networks of different trainings: 1 within a group, else 0."""
    networks = [NamedNetwork(name, groups[name], trainings[name]) for name in trainings]
    return [
        value_of(one, two, float(one.group == two.group))
        for one, two in itertools.permutations(networks, 2)
        if one.training != two.training
    ]


def test_epochs_of_a_network_count_once_in_a_test():
    names = ("a1", "a2", "b1", "b2", "c1", "d1")
    trainings = {name: name[0] for name in names}
    groups = {name: "early" if name[0] in "ab" else "late" for name in names}
    _, tests, *_ = compare_groups(values_of(trainings, groups))
    assert {(test.n_networks, test.n_second, test.result.n_labelings) for test in tests} == {
        (2, 2, 6)
    }
    assert {test.result.difference for test in tests} == {1.0} and len(tests) == 4
    groups = {name: "early" if name[1] == "1" else "late" for name in names}
    rows, tests, untested, _ = compare_groups(values_of(trainings, groups))
    assert rows and not tests  # networks a and b are in both groups
    assert says("\n".join(untested), "− (early → late), dm: ", "in both groups")


def test_checkpoints_of_one_training_are_one_network(tmp_path):
    """As the list says. Two trainings have no interval, and two pairs of networks."""
    names = ("a1", "a2", "b1", "b2")
    lines = [f"{name},{name}.pt,resnet18,g,{name[0]}" for name in names]
    (tmp_path / "list.csv").write_text("\n".join(["name,path,type,group,training", *lines]))
    for name in names:
        (tmp_path / f"{name}.pt").write_text(name)
    layers = {"x": 0.5, "y": 1.0}
    for front, end in itertools.permutations(names, 2):
        for number, (one, two) in enumerate(itertools.product(layers, repeat=2)):
            write_run(
                tmp_path / "all" / f"{front}-{end}",
                str(number),
                n_right=900 if one == two else 600 + ord(front[0]) + 9 * int(end[1]),
                metrics={"front_relative_depth": layers[one], "end_relative_depth": layers[two]},
                front_model_path=f"{front}.pt",
                end_model_path=f"{end}.pt",
                front_layer=one,
                end_layer=two,
            )
    options = ["all", "--networks", "list.csv", "-o"]
    run("misc/compare_layers.py", *options, "curves.csv", cwd=tmp_path)
    run("misc/compare_layers.py", *options, "best.csv", "--best-matches", cwd=tmp_path)
    run("misc/verdict.py", *options, "verdict.csv", cwd=tmp_path)
    curves = [
        row for row in read_csv(tmp_path / "curves.csv") if "two epochs" not in row["networks"]
    ]
    groups = read_csv(tmp_path / "verdict_groups.csv")
    for row in (*curves, *groups, *read_csv(tmp_path / "best_shares.csv")):
        assert (row["n_networks"], row["n_pairs"]) == ("2", "2")
        assert row["low"] == row["high"] == "nan"
    assert sum(row["same_run"] == "True" for row in read_csv(tmp_path / "verdict.csv")) == 4 * 4


def test_an_interval_of_shares_has_possible_limits():
    """Of four networks, one of which has no share with any other."""
    groups = {name: "alone" if name == "a" else "rest" for name in "abcd"}
    rows = [
        row._replace(value=float("a" not in row.trainings))
        for row in values_of({name: name for name in "abcd"}, groups)
    ]
    mean = mean_over_networks(rows, possible=(-math.inf, math.inf))
    assert mean.value == 0.5 and mean.low < 0 and mean.high > 1
    assert mean_over_networks(rows) == replace(mean, low=0, high=1)


def test_what_cannot_be_tested_is_left_out():
    trainings = {name: name for name in "abc"}
    values = values_of(trainings, {"a": "k", "b": "k", "c": "l"})
    rows, tests, untested, _ = compare_groups(values)
    assert (
        {test.question.within for test in tests} == {"k → k"} and len(rows) == 3 and len(tests) == 2
    )
    assert says(untested[0], "(l → l) − (l → k), dm: ", "l has fewer than two")
    _, tests, untested, _ = compare_groups(values[:-1])
    assert not tests and says("\n".join(untested), "(k → k) − (k → l), dm: ", "no value")
    assert Question("k", "l", "front").across == "l → k"


def test_a_quantity_that_a_group_lacks_is_not_tested():
    trainings = {name: name for name in "abcd"}
    values = values_of(trainings, {"a": "k", "b": "k", "c": "l", "d": "l"})
    of_k = [value for value in values if {network.name for network in value.networks} == {*"ab"}]
    values += [value._replace(quantity="skill", value=0.5) for value in of_k]
    _, tests, untested, _ = compare_groups(values)
    assert {test.quantity for test in tests} == {"accuracy"}
    assert says("\n".join(untested), "(k → k) − (k → l), dm: ", "no value (skill)")


def test_groups_are_compared_at_layers_that_all_networks_have():
    def layers_of(*pairs):
        networks = [NamedNetwork(name, "k", name) for name in "ab"]
        values = [
            value_of(front, end, 1.0, layers)
            for front, end in itertools.permutations(networks, 2)
            for layers in pairs
        ]
        rows, *_ = compare_groups(values)
        return rows[0].layers

    assert says(layers_of(("x", "x"), ("x", "y")), "1 pair of layers", "same name")
    assert layers_of(("x", "y"), ("y", "x")) == "2 pairs of layers"
    a, b = (NamedNetwork(name, name, name) for name in "ab")
    rows, *_ = compare_groups([value_of(a, b, 1.0, "xu"), value_of(b, a, 0.0, "ux")])
    assert [row.layers for row in rows] == ["all pairs of layers"] * 2


def test_groups_of_other_architectures_are_compared_at_corresponding_layers():
    """The value of two layers is 1 if they correspond. Layers u and v of one type have equal names
    and other depths in the other."""
    depths = {"p": {"u": 0.5, "v": 1.0}, "q": {"t": 0.25, "u": 0.6, "v": 0.7, "w": 1.0}}
    partner = {"u": "u", "v": "w", "w": "v"}
    types = {"a": "p", "b": "p", "c": "q", "d": "q"}
    networks = [NamedNetwork(name, kind, name, type=kind) for name, kind in types.items()]
    values = []
    for front, end in itertools.permutations(networks, 2):
        for one, other in itertools.product(depths[front.type], depths[end.type]):
            expected = one if front.type == end.type else partner.get(one)
            values.append(
                Measurement(
                    "dm",
                    "accuracy",
                    NetworkLayer(front, one, relative_depth=depths[front.type][one]),
                    NetworkLayer(end, other, relative_depth=depths[end.type][other]),
                    float(other == expected),
                )
            )
    rows, *_ = compare_groups(values)
    (layers,) = {row.layers for row in rows}
    assert says(layers, "corresponding layers")
    assert [row.n_layers for row in rows] == [2, 2, 2, 4]  # p → p, p → q, q → p, q → q
    assert [row.value for row in rows] == [1, 1, 1, 1]


def test_means_say_of_how_many_layers_they_are(tmp_path, drawn_figures):
    """A pair of layers in two has no skill, as its floor is 1; points lost are known of both."""
    networks = [NamedNetwork(name, "k", name) for name in "ab"]
    values = []
    for front, end in itertools.permutations(networks, 2):
        for layer, skill in (("x", 0.4), ("y", math.nan)):
            places = [NetworkLayer(network, layer, relative_depth=0.5) for network in (front, end)]
            values.append(Measurement("dm", "penalty", *places, 0.1))
            values.append(Measurement("dm", "skill", *places, skill))
    rows, _, _, means = compare_groups(values)
    found = {row.quantity: (row.n_layers, row.pairs_of_layers) for row in rows}
    assert found["penalty"] == (2, "x (0.50) → x (0.50); y (0.50) → y (0.50)")
    assert found["skill"] == (1, "x (0.50) → x (0.50)")
    (table,) = tables_of_groups(rows, [])
    assert table.lines == [["k → k (2)", "", "10.0", "0.40 (1 of 2 layers)", ""]]
    draw_groups(tmp_path / "g.png", of_networks(means), list(of_means(rows)))
    assert says(caption_of(drawn_figures["g.png"]), "k → k 1 of 2")


def test_groups_and_networks_stand_in_the_order_of_the_list(folder):
    lines = (folder / "list.csv").read_text().splitlines()
    (folder / "backwards.csv").write_text("\n".join([lines[0], *lines[:0:-1]]))
    with pages.left_out():
        run(SCRIPT, *folders(), "--networks", "backwards.csv", "-o", "b.csv", cwd=folder)
    names = [line.split(",")[0] for line in lines[:0:-1]]
    rows = read_csv(folder / "b.csv")
    expected = list(itertools.permutations(names, 2))
    assert (
        list(dict.fromkeys((row["front_network"], row["end_network"]) for row in rows)) == expected
    )
    groups = list(dict.fromkeys(row["networks"] for row in read_csv(folder / "b_groups.csv")))
    assert groups == [f"{a} → {b}" for a, b in itertools.product(("noisy", "clean"), repeat=2)]


def test_do_networks_of_noisy_labels_stitch_to_clean_ones(in_tmp_path):
    """Answered by commands alone, as in the README: training and all pairs, which end with the verdict."""
    train = ["small_cnn", *ON_DIGITS, "-e", "1", "-b", "50"]
    lines = ["name,path,type,group"]
    with few_images(200, n_test=80):
        for number, group in enumerate(("clean", "clean", "noisy")):
            name = f"{group}{number}"
            noise = ["--label-noise", "0.5"] if group == "noisy" else []
            run("exec_train.py", *train, "-s", number, *noise, "-dir", f"models/{name}")
            lines.append(f"{name},models/{name}/model_1.pt,small_cnn,{group}")
        (in_tmp_path / "groups.csv").write_text("\n".join(lines))
        options = ["--methods", "pinv", "-n", "60", "--no-similarity"]
        layers = ["pool3,pool4", "rc2c_pre"]
        given = ["groups.csv", *layers, *ON_DIGITS, *options, "-dir", "noise"]
        with pages.left_out(True):
            out = run("misc/all_pairs.py", *given).out
    assert (in_tmp_path / "noise.html").exists()
    assert parse_matrix(out, "direct matching, 6 pairs of networks")["pool3", "pool4"] == "0/6"
    assert "noisy → clean (2) " in out and says(out, "2 pairs of layers", "same name")
    (test,) = (
        row
        for row in read_csv("noise_verdict_group_tests.csv")
        if (row["quantity"], row["across"]) == ("penalty", "noisy → clean")
    )
    assert (test["within"], test["n_labelings"]) == ("clean → clean", "3")
    assert len(read_csv("noise_verdict.csv")) == 24
