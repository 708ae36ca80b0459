"""The scripts that read tables and options alone run without torch."""

import json
import os
import subprocess
import sys

from src.tables.tables import write_table
from src.tables.training_rows import EpochRow
from tests import tables
from tests.commands import ROOT, read_csv
from tests.written_runs import write_evaluation, write_run

# Runs scripts, one after the other, where an import of torch fails
CODE = """
import json, runpy, sys
class WithoutTorch:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision"):
            raise ImportError(f"{name} is imported")
sys.meta_path.insert(0, WithoutTorch)
from src.reports import figures
for words in json.loads(sys.argv[1]):
    sys.argv[:] = words
    with figures.left_out():
        try: runpy.run_path(words[0], run_name="__main__")
        except SystemExit as stop: assert not stop.code, words
"""


def test_scripts_on_tables_do_not_need_torch(tmp_path):
    """Nor where they read the options of trainings, their logs, evaluations and lists of networks."""
    networks = ["name,path,type,group"]
    for name in "fg":
        (tmp_path / name).mkdir()
        (tmp_path / name / "model_1.pt").write_text(name)
        (tmp_path / name / "config.txt").write_text(json.dumps({"model_type": "resnet18"}))
        networks.append(f"{name},{name}/model_1.pt,resnet18,{name}")
    (tmp_path / "networks.csv").write_text("\n".join(networks))
    paths = {"front_model_path": "f/model_1.pt", "end_model_path": "g/model_1.pt"}
    methods = {"dm": paths, "tlm": paths | {"init": "rand", "n_epochs": 1}}
    for name, options in methods.items():
        folder = write_run(tmp_path / "results" / name, "1", n_right=945, end_layer="x", **options)
        write_table(folder / "training_logs.csv", EpochRow, [EpochRow(0.5, 1.0, 0.5, 1.0)])
        write_evaluation(tmp_path / "results" / name, {"1": 0.5})
    of_layers = [{"rank1": rank, "cka": rank / 10} for rank in (8, 4, 2, 1)]
    of_layers.append({"cka": 0.9})
    (tmp_path / "results" / "similarity").mkdir()
    similarity = tmp_path / "results" / "similarity" / "f-g.csv"
    tables.write_table(similarity, tables.SIMILARITY, *of_layers)
    probes = [{"rank": rank, "accuracy": rank / 8} for rank in (8, 4, 2, 1)]
    tables.write_table(tmp_path / "probes.csv", tables.PROBE, *probes)

    of_ranks = [similarity, "probes.csv", "-o"]
    commands = [
        ["verdict.py", "results/dm", "results/tlm", "-sim", similarity],
        ["report.py", "results"],
        ["collect_results.py", "results", "-r", "--networks", "networks.csv"],
        ["collect_results.py", "results", "--curves"],
        ["collect_results.py", "results/dm", "results/tlm"],
        ["rank_statistics.py", *of_ranks, "ranks.csv"],
        ["sensitivity_figure.py", *of_ranks, "sensitivity.png", "-l", "x", "-other", "y"],
    ]
    words = [[f"{ROOT}/misc/{script}", *map(str, rest)] for script, *rest in commands]
    done = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(words)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert len(read_csv(tmp_path / "verdict.csv")) == 2
    assert read_csv(tmp_path / "ranks.csv")
