"""The detector store: the public code's table, and the right detector."""

import json

import pytest
import torch

from src.core.errors import UserError
from src.core.inputs import InputSpec
from src.core.tensors import save_state
from src.models import build_model
from src.ood import energy
from src.results.checkpoints import DetectorStore, new_name
from src.results.network_names import NamedNetwork, content_of
from tests.commands import says
from tests.goldens import DATA

PUBLIC = json.loads((DATA / "public_meta.json").read_text())
SHAPES = {"representation_shape": (4, 2, 2), "image_shape": (1, 8, 8)}


def entry(**changes) -> dict:
    made = {
        "model_type": "repr_cls_resnet18",
        "source_model_type": "small_cnn",
        "source_model_path": "m.pt",
        "source_layer": "pool1",
        "id_dataset": "digits",
        "orig_input_shape": [1, 8, 8],
        "required_input_shape": [4, 2, 2],
        "training_loc": "d",
    }
    return made | changes


@pytest.fixture
def store(tmp_path):
    return DetectorStore(tmp_path / "store")


STATE = {"weight": torch.zeros(2)}
IMAGES, CPU = InputSpec(10, (1, 8, 8)), torch.device("cpu")


def add(store: DetectorStore, state=STATE, **changes) -> str:
    name = new_name()
    store.add(name, state, entry(**changes))
    return name


def test_adding_keeps_the_table_of_the_public_code_and_its_layout(store):
    store.folder.mkdir()
    store.meta.write_text(json.dumps(PUBLIC, indent=4))
    source = NamedNetwork("models/m1/model_3.pt", "resnet18")
    (found,) = store.names_by_layer(source)["layer2.0"]
    assert PUBLIC[found]["source_layer"] == "layer2.0"
    name = add(store)
    assert list(store.entries()) == [*PUBLIC, name]
    assert store.meta.read_text().startswith('{\n    "') and (store.folder / name).is_file()
    assert len(name) == 35 and name.endswith(".pt")
    with pytest.raises(
        UserError, match=r"no detector for nope .*the store has detectors for layer"
    ):
        store.load(source, "nope", IMAGES, device=CPU)


def test_content_counts_more_than_the_path(store, tmp_path):
    names = ("a.pt", "moved.pt", "other.pt")
    for name in names:
        save_state(tmp_path / name, {"weight": torch.full((2,), float(name == "other.pt"))})
    source, moved, other = (NamedNetwork(str(tmp_path / name), "small_cnn") for name in names)
    name = add(store, source_model_path=source.path, source_sha256=content_of(source.path))
    assert store.names_by_layer(moved) == {"pool1": [name]} and store.names_by_layer(other) == {}
    # a checkpoint that was trained anew under the old path is another network
    (tmp_path / "a.pt").write_bytes((tmp_path / "other.pt").read_bytes())
    assert store.names_by_layer(source) == {}


def test_loads_the_newest_detector_and_refuses_one_of_another_shape(store, capsys):
    detector = build_model("repr_cls_resnet18", n_classes=10, **SHAPES)
    add(store, {key: value + 1 for key, value in detector.state_dict().items()})
    name = add(store, detector.state_dict())
    source = NamedNetwork("m.pt", "small_cnn")
    loaded = store.load(source, "pool1", IMAGES, device=CPU)
    assert says(capsys.readouterr().err, "2 detectors", "pool1 of m.pt", name)
    x = torch.rand(2, 4, 2, 2)
    torch.testing.assert_close(loaded.network(x), detector.eval()(x))
    torch.testing.assert_close(loaded.score(x), energy(detector(x)))
    with pytest.raises(UserError, match="is for images of 1×8×8 pixels, not 3×32×32"):
        store.load(source, "pool1", InputSpec(10, (3, 32, 32)), device=CPU)
    for reason, changes in (
        (r"size mismatch for conv1\.weight", {"required_input_shape": [8, 2, 2]}),
        ("unknown detector in .*meta.json 'nets.py:run'", {"model_type": "nets.py:run"}),
    ):
        add(store, detector.state_dict(), **changes)
        with pytest.raises(UserError, match=reason):
            store.load(source, "pool1", IMAGES, device=CPU)
