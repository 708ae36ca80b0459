"""Other machines: a GPU, little memory, systems that are not Linux, no torch.

Every script gives on a GPU what it gives on the CPU, and no step waits for the GPU more often than it has to. Shown on
a GPU that is pretended (see `pretended_gpu`), and on a real one where there is one.
`TEST_GPU=-1 pytest tests/test_systems.py` compares the CPU with itself, to try the tests themselves.
"""

import ctypes
import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from src.core import device
from src.core.device import free_memory
from src.results.run import write_logs
from src.stitching.grid import SHARE_OF_FREE, SHARE_OF_GPU, Fitting
from tests import result_rows
from tests.commands import ON_DIGITS, ROOT, names_in, read_csv, run, run_module
from tests.tiny_datasets import write_folder
from tests.written_runs import write_evaluation, write_run

REAL = os.environ.get("TEST_GPU", "0")
# How often the host may wait for the GPU in a training step, and for a batch that is evaluated.
STEP, BATCH = 1, 1
MORE = {
    "interventions": (2, 1),  # each moves what it drew for the batch
    "probes at ranks": (4, 4),  # each batch of the layer is decomposed
}


def fresh_process(folder, gpu: str) -> dict:
    """What a process of its own finds; see `fresh_process`."""
    run_module("fresh_process", "answers.json", gpu, cwd=folder)
    return json.loads((folder / "answers.json").read_text())


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return fresh_process(tmp_path_factory.mktemp("devices"), "pretended")


@pytest.fixture
def answers(found):
    if "differs" in found:
        pytest.skip(f"this torch does not take a pretended GPU: {found['differs']}")
    return found


def test_importing_changes_nothing_global(found):
    assert found["changed by imports"] == []


def compare(answers: dict, **tolerance: float) -> None:
    """Compare all numbers that commands wrote on both devices."""
    cpu, gpu = answers["cpu"], answers["gpu"]
    assert cpu.keys() == gpu.keys() and len(cpu) > 20
    for name, expected in cpu.items():
        np.testing.assert_allclose(gpu[name], expected, err_msg=name, **tolerance)


def test_tables_are_those_of_the_cpu(answers):
    compare(answers, rtol=1e-6, atol=1e-12)


@pytest.mark.skipif(not torch.cuda.is_available() and REAL != "-1", reason="no GPU")
def test_tables_of_a_real_gpu_are_near_those_of_the_cpu(tmp_path):
    compare(fresh_process(tmp_path, REAL), rtol=0.05, atol=0.05)


def test_images_have_the_fingerprint_that_they_have_on_the_cpu(answers):
    on_cpu, on_gpu = answers["images"]
    assert on_cpu == on_gpu and len(on_cpu) == 64


def test_a_step_waits_no_more_than_it_has_to(answers):
    for name, waits in answers["waits"].items():
        step, batch = MORE.get(name, (STEP, BATCH))
        assert waits.get("step", 0) <= step, (name, waits, answers["lines"][name])
        assert waits.get("batch", 0) <= batch, (name, waits, answers["lines"][name])


def test_a_run_records_the_gpu_and_its_software(answers):
    recorded = answers["run.json"]
    assert recorded["device"] == "pretended GPU" and "cuda" in recorded
    assert answers["chosen"]  # for all threads, such as those that pin memory


def test_as_many_stitches_run_at_once_as_fit_into_the_memory(monkeypatch):
    memory = {
        "memory_allocated": 1000,
        "memory_reserved": 3000,
        "max_memory_allocated": 1000 + 10 * 200,
    }
    for name, value in memory.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (5000, 80000))
    fitting = Fitting(torch.device("cuda", 1))
    assert fitting.rows("train") == 1  # nothing is known yet
    with fitting.measured("train", 10):
        pass
    n = SHARE_OF_FREE * (5000 + 2000) / 200  # 28 rows of 200 bytes
    assert fitting.rows("train") == 16 <= n < 32 and fitting.rows("evaluate") == 1
    n = SHARE_OF_GPU * 80000 / 200  # whatever else is on a GPU that has enough
    for free in (30000, 79000):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 80000))
        assert fitting.rows("train") == 64 <= n < 128


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_a_device_without_cuda_takes_groups_of_one_size(device):
    fitting = Fitting(torch.device(device))
    with fitting.measured("train", 10):
        pass
    assert fitting.rows("train") == 256


GIB = 2**30
MEMORY = (
    "MemTotal: 67108864 kB\nMemFree: 2097152 kB\nMemAvailable: 33554432 kB\nHugePages_Total: 0\n"
)


def test_pages_of_files_count_as_free(tmp_path, monkeypatch):
    """On a machine of 64 GiB, of which 2 are free, and 32 with pages that can be dropped."""
    monkeypatch.setattr(device, "MEMINFO", tmp_path / "meminfo")
    device.MEMINFO.write_text(MEMORY)
    assert free_memory() == 32 * GIB


def test_half_of_the_memory_counts_as_free_where_the_system_does_not_tell(tmp_path, monkeypatch):
    monkeypatch.setattr(device, "MEMINFO", tmp_path / "missing")
    monkeypatch.setattr(device.os, "sysconf", {"SC_PHYS_PAGES": 2**24, "SC_PAGE_SIZE": 4096}.get)
    assert free_memory() == 32 * GIB


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
    result_rows.write_table(similarity, result_rows.SIMILARITY, *of_ranks, {"cka": 0.9})
    probes = [{"rank": rank, "accuracy": rank / 8} for rank in (8, 4, 2, 1)]
    result_rows.write_table(tmp_path / "probes.csv", result_rows.PROBE, *probes)

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


OF_LINUX = ("sched_getaffinity", "sched_setaffinity", "pipe2", "fdatasync", "getrandom", "memfd_create", "eventfd",
            "pidfd_open", "posix_fadvise", "posix_fallocate", "copy_file_range", "splice", "getxattr")  # fmt: skip
DATA = ["-d", "own", "-gpu", "-1", "-b", "8"]  # one batch, and so one worker
MODEL = ["m/model_1.pt", "small_cnn"]


@pytest.fixture
def without_linux(monkeypatch):
    """What Linux alone has is away, for the Python code of this process."""

    class Library(ctypes.CDLL):
        def __init__(self, name, *args, **kwargs):
            if str(name).startswith("libc.so"):
                raise OSError(f"{name}: cannot open shared object file")
            super().__init__(name, *args, **kwargs)

    for name in OF_LINUX:
        monkeypatch.delattr(os, name, raising=False)
    monkeypatch.setattr(ctypes, "CDLL", Library)
    monkeypatch.setattr(device, "MEMINFO", Path("/nowhere/meminfo"))


@pytest.fixture
def start_method(request):
    """The way of starting processes, for a test; then the usual one."""
    multiprocessing.set_start_method(request.param, force=True)
    yield
    multiprocessing.set_start_method(None, force=True)


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("forkserver", "spawn")]


@pytest.mark.parametrize("start_method", ["fork", *SLOW], indirect=True)
def test_scripts_run_without_linux(start_method, without_linux, in_tmp_path):
    """On images that are too large to be kept in memory."""
    own = Path("own")
    write_folder(own, n=8, size=66, classes="ab", yaml="size: 66\nchannels: 1\n")
    run("exec_train.py", "small_cnn", *DATA, "-e", "1", "-dir", "m")
    run("exec_eval.py", *MODEL, *DATA)
    run("exec_stitch.py", MODEL[0], *MODEL, MODEL[1], "pool3", "pool3", "rc2c_pre", *DATA, "-e", "0", "-i", "pinv",
        "-pinv-samples", "8", "-dir", "stitch")  # fmt: skip
    run("exec_train.py", "small_cnn", *DATA, "-e", "0", "-s", "1", "-dir", "other")
    Path("networks.csv").write_text(
        f"name,path,type\na,{','.join(MODEL)}\nb,other/model_0.pt,{MODEL[1]}\n"
    )
    for shard in ("1/2", "2/2"):
        run("misc/all_pairs.py", "networks.csv", "pool3", "rc2c_pre", *DATA, "-dir", "all", "--methods", "none",
            "--metrics", "cka", "--no-figures", "--shard", shard)  # fmt: skip
    assert "model_1.pt" in names_in(Path("m"))
    assert len([*Path("results/stitch").glob("*/grid.csv")]) == 1
    assert Path("results/all/similarity/a-b.csv").exists()
