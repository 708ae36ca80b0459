"""What tests share: a way to run a script as a user would, and a pair of small trained networks."""

import contextlib
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
torch.set_num_threads(1)  # several tests run at once


@pytest.fixture
def run_script(tmp_path):
    """Run a script as a process in an empty folder; returns what it printed, or with `status` its error line."""

    def run(script: str, *arguments: str, cwd: Path = tmp_path, status: int = 0, timeout: int = 300) -> str:
        command = [sys.executable, str(ROOT / script), *map(str, arguments)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout, env=environment)
        assert done.returncode == status, done.stderr
        return done.stdout if status == 0 else done.stderr

    return run


@pytest.fixture
def run_here(tmp_path, monkeypatch, capsys):
    """Run a script as `run_script` does, but in this process, which spares the seconds that importing torch takes.

    What it wrote to stderr is left in `errors`.
    """

    def run(script: str, *arguments: str, cwd: Path = tmp_path, status: int = 0) -> str:
        capsys.readouterr()
        with monkeypatch.context() as patch:
            patch.chdir(cwd)
            patch.setattr(sys, "argv", [str(ROOT / script), *map(str, arguments)])
            with pytest.raises(SystemExit) as stop:
                runpy.run_path(str(ROOT / script), run_name="__main__")
        out, err = capsys.readouterr()
        run.errors = err
        assert stop.value.code == status, err
        return out if status == 0 else err

    return run


@contextlib.contextmanager
def few_images(n_train: int | None = 256, *, n_test: int | None = None):
    """Embedded data sets have only so many images, in this process, while the block runs. None stands for all."""
    from src.datasets import embedded_sets

    split_of = embedded_sets.split_of

    def first_of(info, images, labels, *, train, device):
        n = n_train if train else n_test
        return split_of(info, images[:n], None if labels is None else labels[:n], train=train, device=device)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedded_sets, "split_of", first_of)
        yield


@pytest.fixture(scope="module")
def few_test_images():
    """The tests of a module evaluate on 120 images; scripts that run as processes take all of them."""
    with few_images(None, n_test=120):
        yield


@pytest.fixture(scope="session")
def digit_networks(tmp_path_factory):
    """Two `resnet18_samewidth` trained for one epoch on the digits, by the script: their checkpoints."""
    folder = tmp_path_factory.mktemp("networks")
    import exec_train

    for seed in ("0", "1"):
        arguments = ["resnet18_samewidth", "-d", "digits", "-gpu", "-1", "-e", "1", "-s", seed]
        assert exec_train.main([*arguments, "-dir", str(folder / seed)]) == 0
    return [folder / seed / "model_1.pt" for seed in ("0", "1")]


@pytest.fixture
def network_folder(tmp_path, digit_networks):
    """Makes folders that hold these two networks, as f.pt and g.pt."""

    def make(name: str) -> Path:
        path = tmp_path / name
        path.mkdir()
        for link, network in zip(("f.pt", "g.pt"), digit_networks, strict=True):
            (path / link).symlink_to(network)
        return path

    return make


@pytest.fixture
def unofficial_files(monkeypatch):
    """Let torchvision read files that are not the published ones, as it refuses to; in this process alone."""
    from torchvision import datasets

    for source in (datasets.CIFAR10, datasets.SVHN):  # CIFAR100 is a CIFAR10
        monkeypatch.setattr(source, "_check_integrity", lambda self: True)
    monkeypatch.setattr(datasets.CIFAR10, "_load_meta", lambda self: None)


@pytest.fixture
def drawn_figures(monkeypatch):
    """The figures that are drawn in this process, by the names of their files; they are written as well."""
    pytest.importorskip("matplotlib")
    from src.results import figures

    drawn, save = {}, figures._save

    def keep(figure, path):
        drawn[Path(path).name] = figure
        save(figure, path)

    monkeypatch.setattr(figures, "_save", keep)
    return drawn
