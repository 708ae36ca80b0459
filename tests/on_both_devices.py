"""Runs the main commands on the CPU, then on a GPU; tells what they wrote and how often the host
waited."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from src.core.device import device_of
from src.datasets import load_dataset
from src.datasets.base import InputSet
from src.figures import pages
from src.judge import judge
from src.models import build_model
from src.skill import baseline
from tests import pretended_gpu
from tests.commands import read_csv, read_json, run
from tests.conftest import few_images, small_networks
from tests.run_content import TIME
from tests.tiny_datasets import random_images

TRAINED = ["-e", "1", "-lr", "0.001"]
NETWORKS = ["-", "../cpu/m/model_1.pt", "small_cnn", "small_cnn"]
STITCH = ["exec_stitch.py", *NETWORKS, "pool3,pool4", "pool4", "rc2c_pre"]
MATCH = [*STITCH, "--mod-only-stitch", "-e", "0", "-pinv-samples", "80"]
CLASSIFIER = ["-m", "repr_cls_resnet18", "-ftidd", "digits", "-ftoodd", "photo_patches", "-fe", "1"]
COMMANDS = {  # name: batch size (a batch is a fourth of all images), and words
    "train": (24, ["exec_train.py", "small_cnn", *TRAINED, "-dir", "m"]),
    "train on files": (24, ["exec_train.py", "small_cnn", *TRAINED, "-d", "../own", "-workers", "0", "-dir", "own"]),
    "interventions": (24, ["exec_train.py", "small_cnn", *TRAINED, "--shortcut", "0.5", "-dir", "changed"]),
    "imagenet": (2, ["misc/imagenet_train_main.py", "-a", "small_cnn", "--dummy", "--dummy-size", "8", "--epochs", "1",
                     "--lr", "0.001", "-dir", "imagenet"]),
    "evaluate": (24, ["exec_eval.py", NETWORKS[1], "small_cnn"]),
    "pinv": (12, [*MATCH, "-i", "pinv", "-pinv-samples", "40", "-dir", "pinv"]),
    "covariance": (24, [*MATCH, "-i", "covariance", "-dir", "covariance"]),
    "ortho": (24, [*MATCH, "-i", "ortho", "-dir", "ortho"]),
    "fula": (24, [*STITCH, *TRAINED, "--mod-only-stitch", "--objective", "fula", "-l1", "1e-4", "--grad-clip", "1",
                  "-dir", "fula"]),
    "networks that move": (24, ["exec_stitch.py", *NETWORKS, "pool3", "pool2", "rc2c_pre", *TRAINED, "-dir", "moving"]),
    "detector": (4, ["exec_train_representation_classifier.py", NETWORKS[1], "small_cnn", "pool4", *CLASSIFIER,
                     "-e", "0", "-lr", "0.001", "-dir", "d", "-fdir", "store"]),
    "scores": (12, ["exec_eval_stitcher_ood.py", "results/pinv", "-detectors", "store", "-scd", "photo_patches",
                    "--detector", "energy,mahalanobis", "-ed", "energies"]),
    "probes": (24, ["exec_probe.py", NETWORKS[1], "small_cnn", "-l", "pool2", *TRAINED, "-o", "probes.csv"]),
    "probes at ranks": (24, ["exec_probe.py", NETWORKS[1], "small_cnn", "-l", "pool4", *TRAINED, "-ranks", "8", "2",
                             "-o", "ranks.csv"]),
    "similarity": (24, ["exec_compute_low_rank_sim_metrics.py", *NETWORKS, "pool4", "pool3,pool4", "--permutations",
                        "19", "-o", "similarity.csv"]),
    "similarity at ranks": (24, ["exec_compute_low_rank_sim_metrics.py", *NETWORKS, "pool3", "pool4", "-m1r", "4",
                                 "-o", "low_rank.csv"]),
}  # fmt: skip


def numbers(folder: Path) -> dict[str, list[float]]:
    """Read the numbers of all tables and scores that lie in a folder; TIME stands for the times that
    runs are named by."""
    found = {}
    for path in sorted([*folder.rglob("*.csv"), *folder.rglob("*.npy")]):
        name = TIME.sub("TIME", str(path.relative_to(folder)))
        assert name not in found
        if path.suffix == ".npy":
            found[name] = np.load(path).ravel().tolist()
        else:
            texts = [text for row in read_csv(path) for text in row.values()]
            found[name] = [float(text) for text in texts if re.fullmatch(r"-?\d[\d.e+-]*", text)]
    return found


def count_batches(waits: dict[str, list[int]]) -> None:
    """Note how often the host waits between the last two batches of each pass over images."""

    def counting(deliver, kind):
        def counted(*args, **kwargs):
            totals = []
            try:
                for batch in deliver(*args, **kwargs):
                    totals.append(pretended_gpu.BLOCKING.total())
                    yield batch
            finally:
                if len(totals) > 2:  # the first passes of a network find out how it runs
                    waits.setdefault(kind, []).append(totals[-1] - totals[-2])

        return counted

    for kind, name in (("step", "epoch"), ("batch", "batches")):
        setattr(InputSet, name, counting(getattr(InputSet, name), kind))


def write_images(folder: Path) -> None:
    """Write grey images of two classes."""
    for split, n in (("train", 96), ("val", 96)):
        for number, pixels in enumerate(random_images(n, 8, 8, seed=n)):
            path = folder / split / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    (folder / "dataset.yaml").write_text(
        "size: 8\nchannels: 1\naugment: none\nmean: [0.5]\nstd: [0.2]\n"
    )


def judge_in_python(folder: Path, device: torch.device) -> None:
    """Judge two networks that are on a device, by image sets that are not; writes `judged.csv`."""
    networks = [build_model("small_cnn", n_classes=10, n_channels=1).eval() for _ in range(2)]
    for network in networks:
        network.load_state_dict(torch.load(folder.parent / "cpu/m/model_1.pt"))
        network.to(device)
    with few_images(96, n_test=96):
        images = [load_dataset("digits", "", train=is_train) for is_train in (True, False)]
    rows = judge(*networks, *images, layers="pool3", forms=["covariance", "task:1"])
    rows.to_csv(folder / "judged.csv")


def run_all(
    folder: Path, gpu: int, answers: dict[str, dict], waits: dict[str, list[int]]
) -> dict[str, list[float]]:
    """Run all commands in a folder; returns the numbers that they wrote, and notes the waits of
    each."""
    folder.mkdir()
    for name, (batch_size, words) in COMMANDS.items():
        waits.clear()
        pretended_gpu.BLOCKING.clear()
        data = [] if "-d" in words or name == "imagenet" else ["-d", "digits"]
        size = ["-n", "48"] if "similarity" in name else ["-b", batch_size]
        few = few_images(4 * batch_size, n_test=4 * batch_size)
        with few, small_networks("repr_cls_resnet18"), pages.left_out():
            run(*words, *data, *size, "-gpu", gpu, cwd=folder)
        answers["waits"][name] = {kind: max(counts, default=0) for kind, counts in waits.items()}
        answers["lines"][name] = [[*key, n] for key, n in pretended_gpu.BLOCKING.most_common()]
    judge_in_python(folder, device_of(gpu))
    return numbers(folder)


def run_on_both(gpu: str) -> dict[str, Any]:
    """Run all commands in the working folder, on the CPU and on the GPU of a number, or on a pretended one;
    "differs" tells why this torch does not take that."""
    start, adam = Path.cwd(), torch.optim.Adam
    # Adam in one kernel, as on a GPU, rounds otherwise than the one that torch takes on a CPU.
    torch.optim.Adam = lambda *args, **kwargs: adam(*args, **kwargs | {"fused": True})
    baseline.N_DRAWS = 1  # draws of untrained features, which take half of an evaluation
    waits: dict[str, list[int]] = {}
    count_batches(waits)
    write_images(start / "own")
    answers: dict[str, Any] = {"waits": {}, "lines": {}}
    answers["cpu"] = run_all(start / "cpu", -1, answers, waits)
    try:
        number = pretended_gpu.install() if gpu == "pretended" else int(gpu)
    except (RuntimeError, AttributeError, TypeError) as error:
        return {"differs": str(error)}
    answers["gpu"] = run_all(start / "gpu", number, answers, waits)
    configs = [read_json(start / name / "changed" / "config.txt") for name in ("cpu", "gpu")]
    answers["images"] = [config["train_images_sha256"] for config in configs]
    answers["run.json"] = read_json(start / "gpu" / "m" / "run.json")
    answers["chosen"] = gpu == "pretended" and torch.cuda.current_device() == number
    return answers
