"""Data sets that are missing: downloaded once, or an error that says what to fetch."""

import functools
import http.server
import multiprocessing
import socket
import tarfile
import threading
import time
import urllib.request

import pytest
from torchvision import datasets as tv

from src.datasets import load_dataset, torchvision_sets
from src.errors import UserError
from tests import tiny_datasets as tiny


@pytest.fixture
def no_network(monkeypatch):
    """Every connection is refused, also where the machine has a network."""
    for scheme in ("http", "https"):
        monkeypatch.setenv(f"{scheme}_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)


@pytest.mark.parametrize(
    ("name", "url", "place"),
    [
        ("cifar10", "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz", "cifar-10-batches-py"),
        ("cifar100_large", "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz", "cifar-100-python"),
        ("svhn", "http://ufldl.stanford.edu/housenumbers/train_32x32.mat", "."),
        ("mnist", "mnist/train-images-idx3-ubyte.gz", "MNIST/raw"),
        ("fashion", "http://fashion-mnist.s3", "FashionMNIST/raw"),
    ],
)
def test_without_a_network_the_error_says_what_to_fetch(name, url, place, tmp_path, no_network):
    root, start = tmp_path / "data", time.monotonic()
    with pytest.raises(UserError) as caught:
        load_dataset(name, root, train=True)
    text = str(caught.value)
    for words in (f"dataset {name}: ", url, str(root / place), "and no download", "then run again"):
        assert words in text
    assert "\n" not in text
    assert time.monotonic() - start < 10 and not root.exists()


def test_a_silent_network_is_given_up(tmp_path, monkeypatch):
    def silent(*_, **__):
        time.sleep(4)
        raise socket.gaierror

    monkeypatch.setattr(torchvision_sets, "PATIENCE", 0.2)
    monkeypatch.setattr(urllib.request, "_opener", None)
    monkeypatch.setattr(socket, "getaddrinfo", silent)
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    start = time.monotonic()
    with pytest.raises(UserError, match="no answer from its server"):
        load_dataset("mnist", tmp_path, train=True)
    assert time.monotonic() - start < 3


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(torchvision_sets, "_reachable", lambda urls: True)
    with pytest.raises(UserError, match="dataset svhn: no train_32x32.mat in .*, and no download .cannot create"):
        load_dataset("svhn", tmp_path / "file" / "data", train=True)


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A server from which torchvision downloads a tiny CIFAR-10, checksum and all; gives the archive that it serves."""
    folder = tmp_path / "server"
    tiny.write_cifar10(folder)
    archive = folder / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder / "cifar-10-batches-py", "cifar-10-batches-py")
    handler = functools.partial(_QuietHandler, directory=folder)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(urllib.request, "_opener", None)
    monkeypatch.setattr(tv.CIFAR10, "tgz_md5", tv.utils.calculate_md5(archive))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        monkeypatch.setattr(tv.CIFAR10, "url", f"http://127.0.0.1:{server.server_port}/{archive.name}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield archive
        server.shutdown()


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_what_is_missing_is_downloaded_once_for_both_splits(published, tmp_path):
    root = tmp_path / "new" / "data"
    assert len(load_dataset("cifar10", root, train=True)) == 50
    published.unlink()
    assert len(load_dataset("cifar10", root, train=False)) == 20
    assert sorted(path.name for path in root.iterdir()) == [".cifar10.lock", "cifar-10-batches-py"]


def test_a_download_leaves_alone_what_is_there(published, tmp_path):
    tiny.write_cifar10(tmp_path / "data", n_train=5)
    (tmp_path / "data" / "cifar-10-batches-py" / "test_batch").unlink()
    assert len(load_dataset("cifar10", tmp_path / "data", train=False)) == 20
    assert len(load_dataset("cifar10", tmp_path / "data", train=True)) == 5


def test_a_damaged_download_leaves_nothing_behind(published, tmp_path, monkeypatch):
    monkeypatch.setattr(tv.CIFAR10, "tgz_md5", "0" * 32)
    with pytest.raises(UserError, match="no download .File not found or corrupted.*fetch http://127.*unpack it in"):
        load_dataset("cifar10", tmp_path / "data", train=True)
    assert [path.name for path in (tmp_path / "data").iterdir()] == [".cifar10.lock"]


def _load(root, lengths):
    lengths.put(len(load_dataset("cifar10", root, train=True)))


def test_processes_that_start_together_download_once(published, tmp_path, monkeypatch):
    fetch, log = torchvision_sets.download_and_extract_archive, tmp_path / "fetched"

    def slow_fetch(*arguments, **options):
        with open(log, "a") as file:
            file.write("once\n")
        time.sleep(0.3)
        fetch(*arguments, **options)

    monkeypatch.setattr(torchvision_sets, "download_and_extract_archive", slow_fetch)
    context = multiprocessing.get_context("fork")  # children inherit the tiny server
    lengths = context.Queue()
    processes = [context.Process(target=_load, args=(tmp_path / "data", lengths)) for _ in range(3)]
    for process in processes:
        process.start()
    assert [lengths.get(timeout=30) for _ in processes] == [50] * 3
    for process in processes:
        process.join(10)
    assert log.read_text() == "once\n"
