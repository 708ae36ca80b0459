"""The detector store: the public code's table, many writers at once, the right detector, and damaged stores."""

import json
import subprocess
import sys

import pytest
import torch

from src.checkpoints import save_state
from src.errors import UserError
from src.images import ImageSpec
from src.models import build_model
from src.network_names import NetworkName, content_of
from src.ood import energy
from src.ood.store import DetectorStore
from tests.commands import ROOT
from tests.goldens import DATA

PUBLIC = json.loads((DATA / "public_meta.json").read_text())
SHAPES = {"representation_shape": (4, 2, 2), "image_shape": (1, 8, 8)}


def entry(**changes) -> dict:
    made = {
        "model_type": "repr_cls_resnet18", "source_model_type": "small_cnn", "source_model_path": "m.pt",
        "source_layer": "pool1", "id_dataset": "digits", "orig_input_shape": [1, 8, 8],
        "required_input_shape": [4, 2, 2], "training_loc": "d",
    }  # fmt: skip
    return made | changes


@pytest.fixture
def store(tmp_path):
    return DetectorStore(tmp_path / "store")


STATE = {"weight": torch.zeros(2)}
IMAGES, CPU = ImageSpec(10, (1, 8, 8)), torch.device("cpu")


def test_reads_the_table_of_the_public_code(tmp_path):
    (tmp_path / "meta.json").write_text(json.dumps(PUBLIC, indent=4))
    store = DetectorStore(tmp_path)
    name, found = store.find(NetworkName("models/m1/model_3.pt", "resnet18"), "layer2.0")
    assert found == PUBLIC[name] and found["source_layer"] == "layer2.0"
    with pytest.raises(UserError, match=r"no detector for nope .*the store has detectors for layer"):
        store.find(NetworkName("models/m1/model_3.pt", "resnet18"), "nope")


def test_adding_keeps_what_is_there_and_the_layout(store):
    store.folder.mkdir()
    store.meta.write_text(json.dumps(PUBLIC, indent=4))
    name = store.add(STATE, entry())
    assert list(store.entries()) == [*PUBLIC, name]
    assert store.meta.read_text().startswith('{\n    "') and (store.folder / name).is_file()
    assert len(name) == 35 and name.endswith(".pt")


def test_content_counts_more_than_the_path(store, tmp_path, capsys):
    names = ("a.pt", "moved.pt", "other.pt")
    for name in names:
        save_state(tmp_path / name, {"weight": torch.full((2,), float(name == "other.pt"))})
    source, moved, other = (NetworkName(str(tmp_path / name), "small_cnn") for name in names)
    of_source = {"source_model_path": source.path, "source_sha256": content_of(source.path)}
    older, newer = (store.add(STATE, entry(**of_source)) for _ in range(2))
    assert store.find(moved, "pool1")[0] == newer != older
    assert f"2 detectors for pool1 of {tmp_path}/moved.pt; the newest is used, {newer}" in capsys.readouterr().err
    with pytest.raises(UserError, match="no detector for pool1"):
        store.find(other, "pool1")
    # a checkpoint that was trained anew under the old path is another network
    (tmp_path / "a.pt").write_bytes((tmp_path / "other.pt").read_bytes())
    with pytest.raises(UserError, match="no detector for pool1"):
        store.find(source, "pool1")


def test_loads_a_detector_and_refuses_one_of_another_shape(store):
    detector = build_model("repr_cls_resnet18", n_classes=10, **SHAPES)
    store.add(detector.state_dict(), entry())
    source = NetworkName("m.pt", "small_cnn")
    loaded = store.load(source, "pool1", IMAGES, device=CPU)
    x = torch.rand(2, 4, 2, 2)
    torch.testing.assert_close(loaded.network(x), detector.eval()(x))
    torch.testing.assert_close(loaded.score(x), energy(detector(x)))
    store.add(detector.state_dict(), entry(source_layer="pool2", required_input_shape=[8, 2, 2]))
    with pytest.raises(UserError, match=r"size mismatch for conv1\.weight"):
        store.load(source, "pool2", IMAGES, device=CPU)
    name = store.add(detector.state_dict(), entry(source_layer="pool4"))
    (store.folder / name).unlink()
    with pytest.raises(UserError, match=rf"cannot read checkpoint .*{name}"):
        store.load(source, "pool4", IMAGES, device=CPU)
    with pytest.raises(UserError, match="for pool1 is for images of 1×8×8 pixels, not 3×32×32"):
        store.load(source, "pool1", ImageSpec(10, (3, 32, 32)), device=CPU)


@pytest.mark.parametrize(
    ("content", "reason"),
    [("{", "it is to be JSON"), ("[]", "no table of detectors"), ('{"a.pt": {}}', "entry 'a.pt' lacks model_type")],
)
def test_a_damaged_table_is_named_and_not_overwritten(store, content, reason):
    store.folder.mkdir()
    store.meta.write_text(content)
    for call in (store.check, store.entries, lambda: store.add(STATE, entry())):
        with pytest.raises(UserError, match=reason):
            call()
    assert store.meta.read_text() == content


def test_no_store_is_an_error_that_says_so(store):
    store.check()
    with pytest.raises(UserError, match=r"no detectors in .*there is no meta\.json.*or --detector mahalanobis"):
        store.entries()


@pytest.mark.slow
def test_four_processes_add_five_detectors_each(store):
    code = (
        "import sys, torch; from src.ood.store import DetectorStore; from tests.test_ood_detectors import entry\n"
        "store = DetectorStore(sys.argv[1])\n"
        "for i in range(5): store.add({'weight': torch.zeros(2)}, entry(source_layer=f'{sys.argv[2]}.{i}'))\n"
    )
    command = [sys.executable, "-c", code, str(store.folder)]
    processes = [subprocess.Popen([*command, str(number)], cwd=ROOT) for number in range(4)]
    assert [process.wait(120) for process in processes] == [0] * 4
    entries = store.entries()
    assert len({one["source_layer"] for one in entries.values()}) == len(entries) == 20
    assert all((store.folder / name).is_file() for name in entries)
