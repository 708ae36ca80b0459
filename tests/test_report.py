"""The page of misc/report.py: its numbers, its names and its files, read by a parser of HTML."""

import base64
import csv
import io
import json
import re
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import pytest

from src import __version__
from src.ground import figures
from src.reports.methods_text import how
from tests import tables
from tests.commands import error_line, read_csv, run, says
from tests.written_runs import OPTIONS, skill, write_evaluation, write_run

SCRIPT = "misc/report.py"
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


def page_of(folder: Path, *arguments, with_figures: bool = False) -> Page:
    with figures.left_out(not with_figures):
        run(SCRIPT, *arguments, "-o", folder / "page.html", cwd=folder)
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
    """Word by word and digit by digit, and the same files."""
    write_results(tmp_path)
    folders = ["results/dm", "results/tlm"]
    with figures.left_out():
        run("misc/verdict.py", *folders, "-o", "verdict.csv", cwd=tmp_path)
    verdicts = read_csv(tmp_path / "verdict.csv")
    page = page_of(tmp_path, *folders)

    shown = [
        {"method": title, **row} for title in ("direct matching", "task loss matching")
        for row in page.rows(title)
    ]  # fmt: skip
    assert len(shown) == len(verdicts) == 3
    for row, expected in zip(shown, verdicts, strict=True):
        for name, column in (
            ("method", "method"),
            ("front layer", "front_layer"),
            ("end layer", "end_layer"),
            ("verdict", "verdict"),
            ("reason", "reason"),
        ):
            assert row[name] == expected[column]
        assert row["accuracy"] == rounded(expected["accuracy"])
        assert row["AUROC energy"] == rounded(expected["auroc_energy"])
        for name in ("penalty", "skill"):
            value, low, high = (rounded(expected[f"{name}{end}"]) for end in ("", "_low", "_high"))
            assert row[name] == f"{value} [{low}, {high}]"

    counts = {row.pop("method"): row for row in page.rows("Verdicts on pairs of layers")}
    assert counts["direct matching"]["similar"] == "1"
    assert counts["task loss matching"]["accurate only"] == "1"
    assert counts["task loss matching"]["not matched"] == "1"
    assert counts["task loss matching"]["all pairs"] == "2"
    files = page.files()
    assert files["verdict.csv"] == (tmp_path / "verdict.csv").read_text()


def rounded(text: str) -> str:
    return f"{float(text):.4f}"


def test_the_page_needs_nothing_else(tmp_path, rendered):
    """All addresses are data or places in the page; every figure has its width and its caption."""
    write_results(tmp_path)
    page = page_of(tmp_path, "results", "--title", "Two networks", with_figures=True)
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert len(page.images) >= 2
    for image in page.images:
        assert (
            "Stitches f.pt → g.pt by direct matching" in str(image["alt"])
            and str(image["alt"]) in page.text
        )
        (inches,) = re.findall(r"width: ([\d.]+)em", str(image["style"]))
        assert 3 < float(inches) < 7.5
    assert "://" not in (tmp_path / "page.html").read_text()
    assert page.text.count("Two networks") == 3  # in the head, above the page, in the command
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["page.html", "page.html.run.json", "results"]


def test_names_are_texts(tmp_path):
    """A name that would be HTML stands in the page as it is."""
    write_run(tmp_path / "runs", "1", n_right=945, end_layer="y", front_model_path=f"{FOREIGN}.pt")
    page = page_of(tmp_path, "runs", "--title", FOREIGN)
    assert page.text.count(FOREIGN) >= 3
    assert page.rows("The networks")[0]["name"] == f"{FOREIGN}.pt"


def test_runs_below_runs_are_on_the_page(tmp_path):
    """A folder that holds a run, and a folder with another one."""
    write_run(tmp_path / "runs", "1", n_right=945, end_layer="y")
    write_run(tmp_path / "runs/deeper", "2", n_right=945, front_layer="w")
    verdicts = page_of(tmp_path, "runs").files()["verdict.csv"]
    assert len(verdicts.splitlines()) == 3


def test_how_it_was_made(tmp_path):
    """Commands with their versions, weights and images, of runs that recorded them."""
    digests = {"front_model_path_sha256": "a" * 64, "test_images_sha256": "c" * 64}
    for name in "12":
        folder = write_run(tmp_path / "runs", name, n_right=945, front_layer=f"x{name}", **digests)
        (folder / "run.json").write_text(json.dumps(RECORD))
    page = page_of(tmp_path, "runs")
    assert says(page.text, "2 results", "2025-01-01T10:00", "2025-01-01T11:00")
    assert page.text.count("exec_stitch.py f.pt") == 1
    of_runs, of_page = page.rows("The versions")
    suite, commit, packages, device = of_runs.values()
    assert (suite, commit, device) == ("1.2.3", "0123456789ab", "CPU")
    assert says(packages, "python 3.11.0", "torch 2.6.0")
    assert of_page["suite"] == __version__
    assert says(page.text, "version 1.2.3", "commit 0123456789ab")
    assert f"Reported by version {__version__}" in page.text
    weights = {row["name"]: row["SHA-256 of the weights"] for row in page.rows("The networks")}
    assert weights == {"f.pt": "a" * 64, "g.pt": ""}
    assert page.rows("The images")[0]["fingerprint (SHA-256)"] == "c" * 64


def test_groups_and_similarities_of_many_networks(tmp_path, drawing, monkeypatch):
    """Of a folder of misc/all_pairs.py: means over pairs of networks, and the groups of the list."""
    networks = ["name,path,type,group"]
    for name in "abcd":
        (tmp_path / f"{name}.pt").write_text(name)
        networks.append(f"{name},{name}.pt,resnet18,{'early' if name in 'ab' else 'late'}")
    (tmp_path / "networks.csv").write_text("\n".join(networks))
    pairs = [(front, end) for front in "abcd" for end in "abcd" if front != end]
    for number, (front, end) in enumerate(pairs):
        folder = tmp_path / "all/pinv" / f"{front}-{end}"
        paths = {"front_model_path": f"{front}.pt", "end_model_path": f"{end}.pt"}
        write_run(folder, "1", n_right=900 + 4 * number, end_layer="x", **paths)
    (tmp_path / "all/similarity").mkdir()
    for front, end in (("a", "b"), ("a", "c")):
        row = {"model1": f"{front}.pt", "model2": f"{end}.pt", "layer1": "x", "layer2": "x"}
        table = tmp_path / "all/similarity" / f"{front}-{end}.csv"
        tables.write_table(table, tables.SIMILARITY, row | {"cka": 0.5})

    options = ["--networks", "networks.csv"]
    folders = sorted((tmp_path / "all/pinv").iterdir())
    with figures.left_out():
        run("misc/verdict.py", *folders, *options, "-o", "verdict.csv", cwd=tmp_path)
    blank = pytest.importorskip("matplotlib.figure").Figure((3, 1))  # is quickly rendered
    monkeypatch.setattr(figures, "_save", lambda figure, path: drawing.render(blank, path))
    page = page_of(tmp_path, "all", *options, with_figures=True)
    captions = [str(image["alt"]) for image in page.images]
    assert any("No test of the groups can reach p = 0.05" in caption for caption in captions)
    (title,) = [title for title in page.tables if title.startswith("direct matching: means over")]
    expected = read_csv(tmp_path / "verdict_groups.csv")
    assert len(expected) == 4
    for row, group in zip(page.rows(title), expected, strict=True):
        assert (row["front group"], row["end group"]) == (group["front_group"], group["end_group"])
        assert row["penalty"] == rounded(group["penalty"])
    (tests,) = [title for title in page.tables if title.startswith("direct matching: differences")]
    test = read_csv(tmp_path / "verdict_group_tests.csv")[0]
    assert page.rows(tests)[0]["question"] == f"({test['within']}) − ({test['across']})"
    (means,) = page.rows("direct matching, early → early, 2 pairs of networks")
    accuracies = {pair: 0.9 + 0.004 * number for number, pair in enumerate(pairs)}
    penalty = 0.95 - (accuracies["a", "b"] + accuracies["b", "a"]) / 2
    assert means["mean penalty"] == f"{penalty:.4f}"
    assert page.files()["similarity.csv"].count("0.5") == 2
    shares = list(csv.DictReader(page.files()["best_matches_shares.csv"].splitlines()))
    (similar,) = [row for row in shares if row["networks"] == "early → late" and not row["side"]]
    (title,) = [name for name in page.tables if name.startswith("best match: how often")]
    shown = {row["linear CKA"] for row in page.rows(title) if "early → late (1)" in row.values()}
    assert shown == {rounded(similar["share"])} == {"1.0000"}
    assert [row["name"] for row in page.rows("The networks")] == list("abcd")


def test_a_folder_of_similarities_alone(tmp_path):
    """One pair of networks, without a stitch and without a list."""
    (tmp_path / "all/similarity").mkdir(parents=True)
    rows = [{"layer1": name, "layer2": "x", "cka": 0.25} for name in "xy"]
    tables.write_table(tmp_path / "all/similarity/a-b.csv", tables.SIMILARITY, *rows)
    page = page_of(tmp_path, "all")
    assert says(page.text, "compared by centred kernel alignment")
    assert "Verdict" not in page.text
    assert page.files()["similarity.csv"].count("0.25") == 2


def test_similarities_of_a_further_table_and_other_limits(tmp_path):
    write_results(tmp_path)
    row = {"model1": "f.pt", "model2": "g.pt", "layer1": "x", "layer2": "y", "cka": 0.25}
    tables.write_table(tmp_path / "t.csv", tables.SIMILARITY, row)
    page = page_of(tmp_path, "results/dm", "-sim", "t.csv", "--tolerance", 0.1)
    (verdict,) = page.rows("direct matching")
    assert verdict["cka"] == "0.2500" and verdict["verdict"] != "similar"
    assert "is below 0.1 points" in page.text


@pytest.mark.parametrize("name", ["page.pdf", "page", "html"])
def test_a_page_has_the_ending_of_html(tmp_path, name):
    said = error_line(SCRIPT, tmp_path, "-o", name, cwd=tmp_path)
    assert says(said, "-o/--output", f"'{name}' is not a name that ends in .html")
    assert [*tmp_path.iterdir()] == []


def test_a_folder_without_results_is_refused(tmp_path):
    said = error_line(SCRIPT, tmp_path)
    assert says(said, "no finished", "run", "similarity/*.csv")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"n_pinv_init_samples": "auto"}, "as many training images as the pair of layers needs"),
        ({"n_pinv_init_samples": 500}, "least squares, on 500 training images"),
        ({"pinv_cutoff": "exact"}, "singular values below columns·eps(float32)"),
        ({"init": "rand", "n_epochs": 1}, "trained for 1 epoch on the cross-entropy by adam"),
        ({"init": "eye", "n_epochs": 2, "objective": "mine.py:loss"}, "2 epochs on the loss by"),
        ({"n_epochs": 2, "batch_size": 64}, "batch size 64, statistics of BatchNorms updated"),
        ({"front_stitch_rank": 4}, "cut to 4 principal components"),
    ],
)
def test_methods_in_words(options, text):
    assert text in how(OPTIONS | options)


def test_types_of_stitching_layers_in_words(tmp_path):
    """In the paragraph for a paper, and what they lose among the results."""
    for name, stitching_type in {"1": "rc2c_pre", "2": "c2v", "3": "t2t"}.items():
        write_run(
            tmp_path / "runs", name, n_right=945, stitching_type=stitching_type, end_layer=name
        )
    page = page_of(tmp_path, "runs")
    assert says(page.text, "(rc2c_pre, feature map to feature map; ", "t2t, grid of tokens to grid")
    assert says(
        page.text, "c2v, feature map to vector: a mean over positions", "or vector to vector"
    )
    assert "1 from a feature map to a vector (a mean over positions). What lies in the" in page.text


@pytest.mark.parametrize("path", ["-", "DEFAULT", "f.pt"])
def test_the_training_is_that_of_a_checkpoint(path, tmp_path, monkeypatch):
    """Weights without a file have none, whatever was trained in the working folder."""
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs", "1", n_right=945, front_model_path=path, end_model_path=path)
    (tmp_path / "run.json").write_text(json.dumps(RECORD | {"command": "exec_train.py vit"}))
    page = page_of(tmp_path, "runs")
    assert ("exec_train.py vit" in page.text) == (path == "f.pt")


@pytest.mark.parametrize("record", [[1, 2], {"name": "wandb"}, {"command": "a", "start": "b"}])
def test_a_record_of_other_software_is_left_out(record, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs", "1", n_right=945)
    (tmp_path / "run.json").write_text(json.dumps(record))  # beside the checkpoint f.pt
    (of_page,) = page_of(tmp_path, "runs").rows("The versions")
    assert of_page["suite"] == __version__


def test_without_matplotlib_the_page_has_no_figures(tmp_path, monkeypatch):
    write_run(tmp_path / "runs", "1", n_right=945)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    said = run(SCRIPT, "runs", "-o", "page.html", cwd=tmp_path).err
    text = "warning: the page has no figures: matplotlib is not installed\nwrote page.html\n"
    assert said == text
    page = Page(tmp_path / "page.html")
    assert page.rows("Verdicts on pairs of layers") and not page.images
