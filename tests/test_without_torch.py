"""Scripts load no library that the run does not use."""

import json
import os
import subprocess
import sys

import numpy as np

from src.results.run import write_logs
from tests import tables
from tests.commands import ON_DIGITS, ROOT, read_csv
from tests.written_runs import write_evaluation, write_run

# Runs scripts, one after the other, where some imports fail
CODE = """
import json, runpy, sys
class Without:
    def find_spec(name, path=None, target=None):
        if name in refused:
            raise ImportError(f"{name} is imported")
refused, commands, status = map(json.loads, sys.argv[1:])
sys.meta_path.insert(0, Without)
from src.figures import pages
for words in commands:
    sys.argv[:] = words
    with pages.left_out():
        try: runpy.run_path(words[0], run_name="__main__")
        except SystemExit as stop: assert (stop.code or 0) == status, words
"""


def run_without(refused, commands, *, cwd, status: int = 0):
    """Run commands in one process that must not import some packages; each ends with `status`."""
    words = [[str(ROOT / script), *map(str, rest)] for script, *rest in commands]
    done = subprocess.run(
        [sys.executable, "-c", CODE, *map(json.dumps, (refused, words, status))],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_scripts_on_tables_do_not_need_torch(tmp_path):
    """Nor where they read the options of training runs, their logs, evaluations and lists of networks."""
    for name in "fg":
        (tmp_path / name).mkdir()
        (tmp_path / name / "model_1.pt").write_text(name)
        (tmp_path / name / "config.txt").write_text(json.dumps({"model_type": "resnet18"}))
    networks = [f"{name},{name}/model_1.pt,resnet18,{name}" for name in "fg"]
    (tmp_path / "networks.csv").write_text("\n".join(["name,path,type,group", *networks]))
    results = tmp_path / "results"
    for name, options in {"dm": {}, "tlm": {"init": "rand", "n_epochs": 1}}.items():
        options |= {"front_model_path": "f/model_1.pt", "end_model_path": "g/model_1.pt"}
        folder = write_run(results / name, "1", n_right=945, end_layer="x", **options)
        epoch = {"train_acc": 0.5, "train_loss": 1.0, "val_acc": 0.5, "val_loss": 1.0}
        write_logs(folder, [epoch])
        write_evaluation(results / name, {"1": 0.5})
    of_ranks = [{"rank1": rank, "cka": rank / 10} for rank in (8, 4, 2, 1)]
    similarity = results / "similarity" / "f-g.csv"
    similarity.parent.mkdir()
    tables.write_table(similarity, tables.SIMILARITY, *of_ranks, {"cka": 0.9})
    probes = [{"rank": rank, "accuracy": rank / 8} for rank in (8, 4, 2, 1)]
    tables.write_table(tmp_path / "probes.csv", tables.PROBE, *probes)

    commands = [
        ["misc/verdict.py", "results/dm", "results/tlm", "-sim", similarity],
        ["misc/verdict.py", "results", "-o", "page.csv", "--page"],
        ["misc/collect_results.py", "results", "--networks", "networks.csv"],
        ["misc/collect_results.py", "results", "--best-matches"],
        ["misc/collect_results.py", "results/dm"],
        [
            "misc/score_measures.py",
            similarity,
            "probes.csv",
            "-o",
            "r.csv",
            "-l",
            "x",
            "-other",
            "y",
        ],
    ]
    run_without(["torch", "torchvision"], commands, cwd=tmp_path)
    assert len(read_csv(tmp_path / "verdict.csv")) == 2 and read_csv(tmp_path / "r.csv")


def test_small_networks_on_small_images_do_not_need_torchvision(tmp_path):
    """Nor slow parts of scipy; figures are left out. Transformers, and images in a file, neither."""
    images = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 1), dtype=np.uint8)
    labels = np.arange(20) % 10
    np.savez(tmp_path / "own.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    cnns = ["-", "-", "small_cnn", "small_cnn", "pool4", "pool4"]
    vits = ["-", "-", *2 * ["vit_tiny_patch4_32"], "blocks.0", "blocks.0"]
    commands = [
        ["exec_train.py", "small_cnn", *ON_DIGITS, "-e", 0, "-dir", "f"],
        ["exec_eval.py", "f/model_0.pt", "small_cnn", *ON_DIGITS],
        ["exec_stitch.py", *cnns, "rc2c_pre", *ON_DIGITS, "-i", "pinv", "-e", 0, "-dir", "dm"],
        ["exec_eval_stitcher_ood.py", "results/dm", *ON_DIGITS, "--detector", "mahalanobis"],
        ["exec_compute_low_rank_sim_metrics.py", *vits, "-d", "own.npz", "-gpu", -1],
        ["exec_probe.py", "f/model_0.pt", "small_cnn", "-l", "pool4", *ON_DIGITS, "-e", 0],
    ]
    run_without(["torchvision", "scipy.stats", "matplotlib"], commands, cwd=tmp_path)


def test_help_and_refused_options_wait_for_no_library(tmp_path):
    """But for the demo and the benchmark, which use libraries before they run."""
    left_out = {"benchmark.py", "demo.py"}
    scripts = [*ROOT.glob("exec_*.py"), *ROOT.glob("misc/*.py")]
    names = [
        path.relative_to(ROOT)
        for path in sorted(scripts)
        if path.name not in left_out and "cli.run(" in path.read_text()
    ]
    assert len(names) > 10
    for option, status in (("--help", 0), ("--nonsense", 2)):
        commands = [[name, option] for name in names]
        libraries = ["torch", "numpy", "scipy", "matplotlib"]
        run_without(libraries, commands, cwd=tmp_path, status=status)
