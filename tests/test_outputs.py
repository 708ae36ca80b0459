"""What commands write by `-o`: a file that the same command did not write stays as it is."""

import pytest

from src.results.tables import SIMILARITIES
from src.results.tables import write_table as write_rows
from tests.commands import error_line, names_in, read_json, run
from tests.result_rows import PROBE, SIMILARITY, similarity_row, write_table
from tests.written_runs import write_run

VERDICT, COLLECT = "misc/verdict.py", "misc/collect_results.py"
STATISTICS = "misc/score_measures.py"


@pytest.fixture
def folder(in_tmp_path, figures):
    """Runs, and tables of similarity and probing."""
    for number in "12":
        write_run(in_tmp_path / "runs", number, n_right=945, front_layer=f"x{number}")
    write_rows(in_tmp_path / "s.csv", SIMILARITIES, [similarity_row(cka=0.5)])
    ranks = [{"rank1": rank, "cka": rank / 10} for rank in (1, 2, 4)]
    write_table(in_tmp_path / "ranks.csv", SIMILARITY, *ranks)
    probes = [{"model": "a.pt", "rank": rank, "accuracy": rank / 8} for rank in (1, 2, 4)]
    write_table(in_tmp_path / "probes.csv", PROBE, *probes)
    return in_tmp_path


COMMANDS = {
    "v.csv": [VERDICT, "runs"],
    "g.csv": [COLLECT, "runs"],
    "t.csv": [STATISTICS, "ranks.csv", "probes.csv", "-l", "x", "-other", "y"],
}


@pytest.mark.parametrize("output", COMMANDS)
def test_a_file_of_another_origin_stays_and_the_files_of_the_command_are_replaced(output, folder):
    script, *words = COMMANDS[output]
    before = names_in(folder)
    run(script, *words, "-o", output)
    written = names_in(folder) - before
    assert output in written
    (record,) = {name for name in written if name.endswith(".json")}
    assert set(read_json(record)["files"]) == written
    run(script, *words, "-o", output)
    assert names_in(folder) == before | written
    (folder / record).unlink()  # now the files could be anyone's
    contents = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert output in error_line(script, *words, "-o", output)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == contents


@pytest.mark.parametrize(
    ("output", "theirs", "words"),
    [
        ("notes.csv", "notes.md", [VERDICT, "runs"]),
        ("notes.csv", "notes.pdf", [VERDICT, "runs"]),
        ("s.csv", "s.csv", [VERDICT, "runs", "-sim", "s.csv"]),
        ("g.csv", "g.png", [COLLECT, "runs"]),
        ("ranks.csv", "ranks.csv", [STATISTICS, "ranks.csv", "probes.csv"]),
        ("t.csv", "t.pdf", [STATISTICS, "ranks.csv", "-l", "x", "-other", "y"]),
        ("v.csv", "v.csv", [COLLECT, "runs"]),
    ],
)
def test_no_file_is_written_if_one_of_them_is_of_another_origin(output, theirs, words, folder):
    if not (folder / theirs).exists():
        (folder / theirs).write_text("mine")
    content, before = (folder / theirs).read_bytes(), names_in(folder)
    assert theirs in error_line(*words, "-o", output)
    assert (folder / theirs).read_bytes() == content
    assert names_in(folder) == before


def test_files_of_the_users_own_stay_in_a_folder_of_runs(folder):
    """Also under the names that the script chooses without -o."""
    beside = folder / "runs" / "collected_2.png"
    beside.write_text("mine")
    for name in ("collected.csv", "collected.png"):
        path = folder / "runs" / name
        path.write_text("mine")
        assert name in error_line(COLLECT, "runs")
        assert path.read_text() == "mine"
        path.unlink()
    for _ in range(2):  # its own files are replaced
        run(COLLECT, "runs")
        assert beside.read_text() == "mine"


def test_a_page_of_another_origin_stays(folder):
    (folder / "v.html").write_text("mine")
    assert "v.html" in error_line(VERDICT, "runs", "-o", "v.csv", "--page")
    assert (folder / "v.html").read_text() == "mine" and not (folder / "v.csv").exists()
