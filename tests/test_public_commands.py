"""The example commands of the public README, word by word; what is added makes them small."""

import shlex
from pathlib import Path

import numpy as np

from tests.commands import run, save_network
from tests.tiny_datasets import (
    random_images,
    write_cifar5m,
    write_cifar10,
    write_imagenet,
    write_svhn,
)

DATA = Path("data/pytorch")
# The commands of the README, without `python`, in an order in which each has what it reads
STITCH = (
    "exec_stitch.py models/test/model_5.pt models/test2/model_5.pt resnet18 resnet18 layer4.1 "
    "layer1.0 rc2c_pre -d cifar10 -e 0 -b 512 -i pinv --mod-only-stitch"
)
DETECTOR = (
    "exec_train_representation_classifier.py models/test2/model_5.pt resnet18 layer1.0 -m repr_cls_resnet18 "
    "-d cifar10 -e 100 -b 512 -ftidd cifar5m -ftoodd outlier_exposure -ftooddata /location/to/300k_random_images/oe "
    "-dir models/test_ood -fe 10"
)
EVALUATION = "exec_eval_stitcher_ood.py results/stitching_m1_to_m2/ -d cifar10 -b 64 -scd svhn"
PROBES = (
    "exec_probe.py models/test2/model_5.pt resnet18 -l layer4.0 layer4.1 -d cifar10 -b 256 -ranks 512 448 384 "
    "320 256 192 128 64 32 16 8 4 2 1"
)
SIMILARITY = (
    "exec_compute_low_rank_sim_metrics.py models/test/model_5.pt models/test2/model_5.pt resnet18 resnet18 "
    "layer4.1 layer3.0 -m1r 512 448 -m2r 256 128"
)
IMAGENET = "imagenet_train_main.py path/to/imagenet -a tv_resnet18 -b 1024 --gpu gpu_id --seed seed"


def give(command: str, *added: str):
    """Run a command of the README on the CPU, with further options behind its own."""
    script, *arguments = shlex.split(command)
    return run(script, *arguments, "-gpu", "-1", *added)


def test_the_commands_of_the_public_readme(tmp_path, monkeypatch, unofficial_files):
    monkeypatch.chdir(tmp_path)
    write_cifar10(DATA, 20, 10)
    write_svhn(DATA, 20, 10)
    write_cifar5m(DATA / "cifar5m", [4] * 6)
    oe = tmp_path / "300k_random_images/oe"
    oe.mkdir(parents=True)
    np.save(oe / "300K_random_images.npy", random_images(20, 32, 32, 3))
    for name in ("test", "test2"):
        save_network(Path("models") / name / "model_5.pt", "resnet18", n_classes=10, n_channels=3)

    give(STITCH, "-dir", "stitching_m1_to_m2")
    give(DETECTOR.replace("/location/to", str(tmp_path)), "-e", "1", "-fe", "1")
    out = give(EVALUATION).out
    assert "layer4.1" in out and "layer1.0" in out
    out = give(PROBES, "-e", "1").out
    assert out.count("Rank ") == 2 * 14
    out = give(SIMILARITY).out
    assert "Model1 rank 448:" in out and "Model2 rank 128:" in out


def test_training_on_imagenet(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_imagenet(Path("path/to/imagenet"))
    command = IMAGENET.replace("gpu_id", "-1").replace(" seed", " 3")
    script, *arguments = shlex.split(command)
    run(f"misc/{script}", *arguments, "--epochs", "1", "-j", "0", "-dir", "models/small")
    assert Path("models/small/model_1.pt").exists()
