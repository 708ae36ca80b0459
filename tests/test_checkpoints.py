"""Checkpoints: both formats, equal bytes for equal states, and one line for everything that can be wrong."""

import sys

import pytest
import torch

from src.checkpoints import load_model, load_state, save_state
from src.errors import UserError
from src.images import ImageSpec
from src.models import build_model
from src.network_names import NetworkName

IMAGES = ImageSpec(10, (3, 32, 32))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model("small_cnn")


@pytest.mark.parametrize("zipped", [True, False])
def test_reads_both_formats_of_torch(tmp_path, model, zipped):
    torch.save(model.state_dict(), tmp_path / "m.pt", _use_new_zipfile_serialization=zipped)
    state = load_state(tmp_path / "m.pt")
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())


def test_equal_states_make_equal_bytes_under_any_name(tmp_path, model):
    save_state(tmp_path / "a.pt", model.state_dict())
    save_state(tmp_path / "another_name.pt", model.state_dict())
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "another_name.pt").read_bytes()
    assert zip_magic(tmp_path / "a.pt")


def zip_magic(path) -> bool:
    return path.read_bytes()[:2] == b"PK"


def test_loads_frozen_and_in_evaluation_mode(tmp_path, model):
    save_state(tmp_path / "m.pt", model.state_dict())
    loaded = load_model(NetworkName(str(tmp_path / "m.pt"), "small_cnn"), IMAGES)
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(loaded(x), model.eval()(x))


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_reads_wrapped_data_parallel_and_compiled_checkpoints(tmp_path, model, wrapper, prefix):
    state = {f"{prefix}{key}": value for key, value in model.state_dict().items()}
    torch.save({"epoch": 3, wrapper: state} if wrapper else state, tmp_path / "m.pt")
    assert load_state(tmp_path / "m.pt").keys() == model.state_dict().keys()


def test_safetensors_are_read_where_the_package_is_installed(tmp_path, model):
    save_file = pytest.importorskip("safetensors.torch").save_file
    save_file(model.state_dict(), tmp_path / "m.safetensors")
    state = load_state(tmp_path / "m.safetensors")
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    (tmp_path / "m.safetensors").write_bytes(b"no tensors")
    with pytest.raises(UserError, match="m.safetensors is damaged or no checkpoint"):
        load_state(tmp_path / "m.safetensors")
    with pytest.raises(UserError, match="cannot read checkpoint .*nowhere.safetensors"):
        load_state(tmp_path / "nowhere.safetensors")


def test_safetensors_without_the_package_say_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(UserError, match=r"m.safetensors: install safetensors to read it \(pip install safetensors\)"):
        load_state(tmp_path / "m.safetensors")


def test_other_architectures_are_refused_with_the_keys_that_differ(tmp_path, model):
    path = str(tmp_path / "m.pt")
    save_state(tmp_path / "m.pt", model.state_dict())
    with pytest.raises(UserError, match=r"does not fit resnet18 .* missing: bn1.weight.* and \d+ more; unexpected: "):
        load_model(NetworkName(path, "resnet18"), IMAGES)
    with pytest.raises(UserError, match=r"of another shape: fc.weight \(10×128 instead of 100×128\)"):
        load_model(NetworkName(path, "small_cnn"), IMAGES._replace(n_classes=100))


def test_weights_that_are_not_finite_are_loaded_with_a_warning(tmp_path, model, capsys):
    state = {key: value.clone() for key, value in model.state_dict().items()}
    state["fc.bias"][0] = torch.nan
    save_state(tmp_path / "m.pt", state)
    load_model(NetworkName(str(tmp_path / "m.pt"), "small_cnn"), IMAGES)
    assert "not finite" in capsys.readouterr().err
