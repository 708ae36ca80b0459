"""The page of misc/verdict.py --page: its numbers, its names and its files, read by a parser of HTML."""

import base64
import io
import itertools
import json
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from src import __version__
from tests import result_rows
from tests.commands import read_csv, run, says
from tests.written_runs import skill, write_evaluation, write_list, write_pairs, write_run

SCRIPT = "misc/verdict.py"
VOID = {"meta", "img"}  # elements without an end
FOREIGN = '<b title="x">&f'  # a name that would be HTML
RECORD = {
    "command": "exec_stitch.py f.pt g.pt 'layer*'",
    "suite": "1.2.3",
    "commit": "0123456789abcdef",
    "python": "3.11.0",
    "torch": "2.6.0",
    "device": "CPU",
    "start": "2025-01-01T10:00:00.1",
    "end": "2025-01-01T11:00:00.1",
}


class Page(HTMLParser):
    """The tables of a page by their titles, its texts, and the addresses it names.

    An element that is not closed, or not in its place, is an error.
    """

    def __init__(self, path: Path):
        super().__init__()
        self.open: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.text = ""
        self.addresses: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.title = ""
        self.feed(path.read_text(encoding="utf-8"))
        assert not self.open

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.addresses += [values[name] for name in ("src", "href") if name in values]
        if tag == "img":
            self.images.append(values)
        if tag == "caption":
            self.title = ""
        elif tag == "tr":
            self.tables[self.title].append([])
        elif tag in ("td", "th"):
            self.tables[self.title][-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "caption":
            assert self.title not in self.tables
            self.tables[self.title] = []

    def handle_data(self, data):
        self.text += data
        if "caption" in self.open:
            self.title += data
        elif {"td", "th"} & set(self.open):
            self.tables[self.title][-1][-1] += data

    def rows(self, title: str) -> list[dict[str, str]]:
        """The rows of a table by column."""
        header, *lines = self.tables[title]
        return [dict(zip(header, line, strict=True)) for line in lines]

    def files(self) -> dict[str, str]:
        """The text of the files in the archive that the page carries, but for figures."""
        (address,) = [item for item in self.addresses if "octet-stream" in item]
        content = base64.b64decode(address.partition(",")[2])
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = [name for name in archive.namelist() if not name.endswith(".pdf")]
            return {Path(name).name: archive.read(name).decode() for name in names}


def page_of(folder: Path, *arguments) -> Page:
    run(SCRIPT, *arguments, "-o", folder / "page.csv", "--page", cwd=folder)
    return Page(folder / "page.html")


def write_results(folder: Path) -> None:
    """Direct matching and training, evaluated, with one pair of layers in `results/dm` and two in
    `results/tlm`."""
    run_folder = write_run(folder / "results/dm", "1", n_right=945, end_layer="y")
    (run_folder / "run.json").write_text(json.dumps(RECORD))
    trained = {"init": "rand", "n_epochs": 3, "optimizer": "adam", "learning_rate": 0.01}
    write_run(folder / "results/tlm", "1", n_right=948, end_layer="y", **trained)
    write_run(folder / "results/tlm", "2", n_right=500, front_layer="w", **trained)
    write_evaluation(folder / "results/dm", {"1": 0.5})
    write_evaluation(
        folder / "results/tlm",
        {"1": 0.7, "2": 0.9},
        skill=skill(0.1),
    )


def test_the_page_has_the_numbers_of_the_verdict(tmp_path):
    """In points, and the same files."""
    write_results(tmp_path)
    folders = ["results/dm", "results/tlm"]
    page = page_of(tmp_path, *folders)
    beside = (tmp_path / "page.csv").read_text()
    printed = run("misc/verdict.py", *folders, "-o", "page.csv", cwd=tmp_path).out
    assert beside == (tmp_path / "page.csv").read_text()
    verdicts = read_csv(tmp_path / "page.csv")

    methods = ("direct matching", "task loss matching")
    shown = [row for method in methods for row in page.rows(f"{method}, f.pt → g.pt")]
    assert len(shown) == len(verdicts) == 3
    for row, expected in zip(shown, verdicts, strict=True):
        assert row["front -> end layer"] == f"{expected['front_layer']} -> {expected['end_layer']}"
        assert row["verdict"] == expected["verdict"]
        ends = [100 * float(expected[f"accuracy_drop{end}"]) for end in ("", "_low", "_high")]
        assert row["accuracy drop (percentage points)"] == "{:.1f} [{:.1f}, {:.1f}]".format(*ends)
        assert row["skill at the output"].startswith(f"{float(expected['skill']):.2f} [")
        assert row["AUROC energy"] == f"{float(expected['auroc_energy']):.2f}"

    counts = {row.pop("method"): row for row in page.rows("Pairs of layers")}
    assert counts["direct matching"]["similar"] == "1"
    assert counts["task loss matching"]["all"] == "2"
    files = page.files()
    assert files["page.csv"] == beside
    assert printed.strip().rpartition("\n")[0] in files["page.md"]


def test_the_page_needs_nothing_else(tmp_path, rendered):
    """All addresses are data; figures say their result; tables have heads and scroll by themselves."""
    write_results(tmp_path)
    page = page_of(tmp_path, "results")
    assert all(address.startswith("data:") for address in page.addresses)
    assert "similar: 1 (x → y)" in str(page.images[0]["alt"])
    assert all(image["alt"] for image in page.images)
    html = (tmp_path / "page.html").read_text()
    assert "://" not in html and html.count("Report on results") == 2  # head and heading
    assert html.count('<div class="wide" tabindex="0">') == len(page.tables)
    assert html.count('<th scope="col">') + html.count('<th scope="row">') == html.count("<th ")
    assert {"page.html", "page.html.json"} <= {path.name for path in tmp_path.iterdir()}


def test_names_are_texts(tmp_path):
    """A name that would be HTML stands in the page as it is; a user's type names a group without its path."""
    network = {"front_model_path": f"{FOREIGN}.pt", "front_model_type": "/home/me/nets.py:cnn"}
    write_run(tmp_path / "runs", "1", n_right=945, end_layer="y", **network)
    page = page_of(tmp_path, "runs")
    assert page.text.count(FOREIGN) >= 2
    front = page.rows("Networks")[0]
    assert (front["name"], front["group"]) == (f"{FOREIGN}.pt", "cnn")


def test_how_it_was_made(tmp_path):
    """Commands with their versions, weights and images, of runs that recorded them."""
    digests = {"front_model_path_sha256": "a" * 64, "test_images_sha256": "c" * 64}
    for name, torch in (("1", "2.6.0"), ("2", "2.6.0"), ("3", "2.7.0")):
        folder = write_run(tmp_path / "runs", name, n_right=945, front_layer=f"x{name}", **digests)
        (folder / "run.json").write_text(json.dumps(RECORD | {"torch": torch}))
    page = page_of(tmp_path, "runs")
    assert page.text.count("exec_stitch.py f.pt") == 1
    of_runs, _, of_page = page.rows("Versions")
    suite, commit, packages, device = of_runs.values()
    assert (suite, commit, device) == ("1.2.3", "0123456789ab", "CPU")
    assert says(packages, "python 3.11.0", "torch 2.6.0")
    assert of_page["suite"] == __version__
    weights = {row["name"]: row["SHA-256 of the weights"] for row in page.rows("Networks")}
    assert weights == {"f.pt": "a" * 64, "g.pt": ""}
    assert page.rows("Data")[0]["fingerprint (SHA-256)"] == "c" * 64


def test_groups_of_many_networks(tmp_path, rendered):
    """Of a folder of misc/all_pairs.py: means over pairs of networks, and the groups of the list."""
    types = dict.fromkeys("abcd", "resnet18")
    pairs = list(itertools.permutations("abcd", 2))
    write_pairs(
        tmp_path / "all",
        types,
        {"resnet18": {"x": 1.0}},
        lambda front, end, *_: 900 + 4 * pairs.index((front, end)),
    )
    groups = {name: "early" if name in "ab" else "late" for name in types}
    write_list(tmp_path / "networks.csv", types, group=groups)
    options = ["--networks", "networks.csv"]
    page = page_of(tmp_path, "all", *options)
    assert str(page.images[0]["alt"]).startswith("Direct matching: 8 of 12 pairs of layers")
    (title,) = [title for title in page.tables if title.startswith("Groups, direct matching")]
    groups = read_csv(tmp_path / "page_means.csv")
    expected = [group for group in groups if group["quantity"] == "accuracy_drop"]
    assert len(expected) == 4
    for row, group in zip(page.rows(title), expected, strict=True):
        assert row["front → end (pairs of networks)"].startswith(f"{group['networks']} (")
        assert row["accuracy drop (percentage points)"] == f"{100 * float(group['value']):.1f}"
    (tests,) = [title for title in page.tables if title.startswith("Differences between groups")]
    test = read_csv(tmp_path / "page_tests.csv")[0]
    assert page.rows(tests)[0]["question"] == f"({test['within']}) − ({test['across']})"
    (means,) = page.rows("direct matching, early → early (2 pairs of networks)")
    mean_place = np.mean([pairs.index(pair) for pair in (("a", "b"), ("b", "a"))])
    assert means["accuracy drop (percentage points)"] == f"{5 - 0.4 * mean_place:.1f}"
    of_group = page.rows(title)[0]["share similar"]
    assert means["share similar"] == of_group == "0.00 to 1.00"  # inconclusive ones may be similar
    assert [row["name"] for row in page.rows("Networks")] == list("abcd")


def test_similarities_and_other_limits(tmp_path):
    """Tables of other layers and networks, each with a measure of its own, count nowhere."""
    write_results(tmp_path)
    stitched = {"model1": "f.pt", "model2": "g.pt", "layer1": "x", "layer2": "y", "cka": 0.25}
    layers = stitched | {"layer1": "w", "layer2": "w", "cka": "", "pwcca": 0.5}
    networks = stitched | {"model2": "other.pt", "cka": "", "procrustes": 0.5}
    result_rows.write_table(tmp_path / "t.csv", result_rows.SIMILARITY, stitched, layers, networks)
    page = page_of(tmp_path, "results/dm", "-sim", "t.csv", "--tolerance", 0.1)
    (verdict,) = page.rows("direct matching, f.pt → g.pt")
    assert verdict["cka"] == "0.25" and verdict["verdict"] != "similar"
    assert "other.pt" not in page.text and "less than 0.1 points" in page.text


@pytest.mark.parametrize(
    ("path", "record", "is_named"),
    [
        ("f.pt", RECORD, True),
        ("-", RECORD, False),
        ("DEFAULT", RECORD, False),
        ("f.pt", [1, 2], False),
        ("f.pt", {"name": "wandb"}, False),
        ("f.pt", {"start": "b"}, False),
    ],
)
def test_the_training_is_that_of_a_checkpoint(path, record, is_named, tmp_path, monkeypatch):
    """Weights without a file have none, whatever was trained in the working folder; records of other
    software are left out."""
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs", "1", n_right=945, front_model_path=path, end_model_path=path)
    if isinstance(record, dict):
        record = record | {"command": "exec_train.py vit"}
    (tmp_path / "run.json").write_text(json.dumps(record))
    page = page_of(tmp_path, "runs")
    assert ("exec_train.py vit" in page.text) == is_named
    assert page.rows("Versions")[-1]["suite"] == __version__


def test_without_matplotlib_the_page_has_no_figures(tmp_path, monkeypatch):
    write_run(tmp_path / "runs", "1", n_right=945)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    said = run(SCRIPT, "runs", "-o", "page.csv", "--page", cwd=tmp_path).err
    assert (
        "warning: the page has no figures: matplotlib is not installed\nwrote page.html\n" in said
    )
    page = Page(tmp_path / "page.html")
    assert page.rows("Pairs of layers") and not page.images


def test_a_verdict_repeats_what_its_runs_were_warned_of(tmp_path):
    """In the printed text, beside the table and on the page."""
    warning = "training and test set share inputs: 12 % of the test inputs"
    folder = write_run(tmp_path / "runs", "1", n_right=945)
    (folder / "run.json").write_text(json.dumps({"warnings": [warning]}))
    said = run(SCRIPT, "runs", "-o", "page.csv", "--page", cwd=tmp_path)
    texts = [said.out, *((tmp_path / name).read_text() for name in ("page.md", "page.html"))]
    assert [" ".join(text.split()).count(warning) for text in texts] == [1, 1, 1]
