"""What tests share: scripts that run in an empty folder, fewer images, and a pair of small trained
networks."""

import contextlib
import gc
import io
import os
import signal
import urllib.request
from functools import partial
from pathlib import Path
from types import SimpleNamespace

# Several tests run at once: one thread of torch and one of numpy, also in the processes that they
# start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytest
from PIL import Image

from src.core import console
from tests import commands

# A shell lets its background jobs ignore SIGINT, and what these start would ignore it as well.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish():
    """The collector of garbage leaves alone what was imported, which takes a tenth of the time of
    the tests."""
    gc.freeze()


@pytest.fixture
def in_tmp_path(tmp_path, monkeypatch):
    """The working folder is an empty one; returns it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def warnings_anew():
    """A process gives some warnings once, and each test is to see its own."""
    console._said.clear()


@pytest.fixture(scope="session", autouse=True)
def no_flushes():
    """Files of this process are not flushed to the disk: none but a power cut would tell."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def few_draws():
    """Baselines take one draw in this process: five are half of the time of an evaluation."""
    from src.skill import (
        baseline,
    )  # not before a pretended GPU is installed, for processes of tests

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baseline, "N_DRAWS", 1)
        yield


@pytest.fixture
def rng():
    """Random numbers, the same for every test."""
    return np.random.default_rng(0)


@pytest.fixture
def stitch(in_tmp_path, digit_networks):
    """Stitch the two networks, if no others are given, in an empty folder (see
    `commands.stitch`)."""
    return partial(commands.stitch, networks=digit_networks)


@contextlib.contextmanager
def few_images(n_train: int | None = 256, *, n_test: int | None = None):
    """Embedded data sets have only so many images, in this process, while the block runs. None
    stands for all."""
    from src.core.choices.datasets import EMBEDDED
    from src.datasets import registry

    split_of = registry.split_of

    def first_of(info, images, labels, *, train, device):
        n = n_train if train else n_test
        if info.read == EMBEDDED and labels is not None:
            images, labels = images[:n], labels[:n]
        elif info.read == EMBEDDED:
            images = images[:n]
        return split_of(info, images, labels, train=train, device=device)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "split_of", first_of)
        yield


@contextlib.contextmanager
def small_networks(*names: str):
    """Networks of these types are built small, in this process, while the block runs: ResNets of one
    width, and transformers of two blocks."""
    from src.core.choices.models import MODELS

    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            row = MODELS[name]
            smaller = {"depth": 2} if "vit" in name else {"same_width": True}
            patch.setitem(MODELS, name, row._replace(arguments=row.arguments | smaller))
        yield


@pytest.fixture(scope="session")
def digit_networks(tmp_path_factory):
    """Two `resnet18_samewidth` trained for one epoch on some of the digits, by the script: their
    checkpoints."""
    folder = tmp_path_factory.mktemp("networks")
    arguments = [commands.MODEL, *commands.ON_DIGITS, "-e", "1"]
    with few_images(256, n_test=60):
        for seed in ("0", "1"):
            commands.run("exec_train.py", *arguments, "-s", seed, "-dir", folder / seed)
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
def no_network(monkeypatch):
    """Every connection is refused, also in processes and where the machine has a network."""
    for scheme in ("http", "https"):
        monkeypatch.setenv(f"{scheme}_proxy", "http://127.0.0.1:9")  # nothing answers there
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)


@pytest.fixture
def unofficial_files(monkeypatch):
    """Let torchvision read files that are not the published ones, as it refuses to; in this process
    alone."""
    from torchvision import datasets

    for source in (datasets.CIFAR10, datasets.SVHN):  # CIFAR100 is a CIFAR10
        monkeypatch.setattr(source, "_check_integrity", lambda self: True)
    monkeypatch.setattr(datasets.CIFAR10, "_load_meta", lambda self: None)


@pytest.fixture(scope="session", autouse=True)
def drawing():
    """Figures are left out in this process, but in tests that use `figures`. There they have no layout and are not
    rendered, each of which takes longer than most scripts; returns what does both.

    Their files hold one pixel, or the first bytes of their format. Tests that are `laid_out` or `rendered` do it,
    and so do processes.
    """
    from src.figures import pages

    real = SimpleNamespace(make=pages.new_figure, fit=pages.fit, render=pages._rendered)

    def without_layout(width):
        figure = real.make(width)
        figure.set_layout_engine("none")
        return figure

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "new_figure", without_layout)
        patch.setattr(pages, "fit", lambda figure: None)
        patch.setattr(pages, "_rendered", beginning)
        with pages.left_out():
            yield real


@pytest.fixture
def figures(monkeypatch, drawing):
    """Figures are drawn."""
    from src.figures import pages

    monkeypatch.setattr(pages, "_to_draw", None)


def beginning(figure, kind: str) -> bytes:
    if kind == "pdf":
        return commands.PDF
    file = io.BytesIO()
    Image.new("L", (1, 1)).save(file, "png", dpi=(600, 600))
    return file.getvalue()


@pytest.fixture
def laid_out(monkeypatch, drawing, figures):
    """Figures have the layout of the style: no panel collapses, and what is drawn has its place."""
    from src.figures import pages

    monkeypatch.setattr(pages, "new_figure", drawing.make)
    monkeypatch.setattr(pages, "fit", drawing.fit)


@pytest.fixture
def rendered(monkeypatch, drawing, laid_out):
    """Figures are laid out and written as images of few dots."""
    import matplotlib

    from src.figures import pages

    def of_few_dots(figure, kind: str) -> bytes:
        with matplotlib.rc_context({"savefig.dpi": 50}):
            return drawing.render(figure, kind)

    monkeypatch.setattr(pages, "_rendered", of_few_dots)


@pytest.fixture
def drawn_figures(monkeypatch, figures):
    """The figures that are made in this process, by the names of their files."""
    from src.figures import pages

    drawn, write = {}, pages._write

    def keep(figure, path, **options):
        drawn[path.with_suffix(".png").name] = figure
        return write(figure, path, **options)

    monkeypatch.setattr(pages, "_write", keep)
    return drawn
