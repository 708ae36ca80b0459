"""Checkpoints: both formats, equal bytes for equal states, and one line for what does not fit."""

import itertools

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


def _channels_last(value):
    return value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value


def test_equal_states_make_equal_bytes_under_any_name(tmp_path, model):
    save_state(tmp_path / "a.pt", model.state_dict())
    other = {key: _channels_last(value) for key, value in model.state_dict().items()}  # equal, laid out otherwise
    save_state(tmp_path / "another_name.pt", other)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "another_name.pt").read_bytes()
    assert (tmp_path / "a.pt").read_bytes()[:2] == b"PK"


def test_reads_both_formats_wrapped_data_parallel_and_compiled_checkpoints(tmp_path, model):
    prefixes = ("", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.")
    for zipped, prefix, wrapper in itertools.product((True, False), prefixes, (None, "state_dict", "model")):
        state = {f"{prefix}{key}": value for key, value in model.state_dict().items()}
        content = {"epoch": 3, wrapper: state} if wrapper else state
        torch.save(content, tmp_path / "m.pt", _use_new_zipfile_serialization=zipped)
        found = load_state(tmp_path / "m.pt")
        assert found.keys() == model.state_dict().keys(), (prefix, wrapper)
        assert all(torch.equal(found[key], value) for key, value in model.state_dict().items())


def test_loads_frozen_and_in_evaluation_mode(tmp_path, model):
    save_state(tmp_path / "m.pt", model.state_dict())
    loaded = load_model(NetworkName(str(tmp_path / "m.pt"), "small_cnn"), IMAGES)
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(loaded(x), model.eval()(x))


def test_other_architectures_are_refused_with_the_keys_that_differ(tmp_path, model):
    path = str(tmp_path / "m.pt")
    save_state(tmp_path / "m.pt", model.state_dict())
    with pytest.raises(UserError, match='fit resnet18 with 10 classes: Missing key.*"bn1.weight".* Unexpected'):
        load_model(NetworkName(path, "resnet18"), IMAGES)
    with pytest.raises(UserError, match=r"size mismatch for fc.weight: .*\[10, 128\].*\[100, 128\]"):
        load_model(NetworkName(path, "small_cnn"), IMAGES._replace(n_classes=100))


def test_weights_that_are_not_finite_are_loaded_with_a_warning(tmp_path, model, capsys):
    state = {key: value.clone() for key, value in model.state_dict().items()}
    state["fc.bias"][0] = torch.nan
    save_state(tmp_path / "m.pt", state)
    load_model(NetworkName(str(tmp_path / "m.pt"), "small_cnn"), IMAGES)
    assert "not finite" in capsys.readouterr().err
