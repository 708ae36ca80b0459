"""Checkpoints: both formats, equal bytes for equal states, and one line for what does not fit."""

import itertools
import json

import pytest
import torch

from src.core.errors import UserError
from src.core.inputs import InputSpec, Normalisation
from src.core.tensors import save_state
from src.datasets import dataset_info
from src.models import build_model
from src.results.checkpoints import load_model, load_state
from src.results.network_names import NamedNetwork
from tests.commands import says

IMAGES = InputSpec(10, (3, 32, 32))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model("small_cnn")


def _channels_last(value):
    return value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value


def test_equal_states_make_equal_bytes_under_any_name(tmp_path, model):
    save_state(tmp_path / "a.pt", model.state_dict())
    channels_last = {key: _channels_last(value) for key, value in model.state_dict().items()}
    save_state(tmp_path / "another_name.pt", channels_last)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "another_name.pt").read_bytes()
    assert (tmp_path / "a.pt").read_bytes()[:2] == b"PK"


def test_reads_both_formats_wrapped_data_parallel_and_compiled_checkpoints(tmp_path, model):
    prefixes = ("", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.")
    kinds = itertools.product((True, False), prefixes, (None, "state_dict", "model"))
    for is_zipped, prefix, wrapper in kinds:
        state = {f"{prefix}{key}": value for key, value in model.state_dict().items()}
        content = {"epoch": 3, wrapper: state} if wrapper else state
        torch.save(content, tmp_path / "m.pt", _use_new_zipfile_serialization=is_zipped)
        loaded = load_state(tmp_path / "m.pt")
        torch.testing.assert_close(loaded, {**model.state_dict()}, rtol=0, atol=0)


def test_loads_frozen_and_in_evaluation_mode(tmp_path, model):
    save_state(tmp_path / "m.pt", model.state_dict())
    loaded = load_model(NamedNetwork(str(tmp_path / "m.pt"), "small_cnn"), IMAGES)
    assert not loaded.module.training and not any(p.requires_grad for p in loaded.parameters())
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(loaded(x), model.eval()(x))


def test_other_architectures_are_refused_with_a_key_of_each_that_differs(tmp_path, model):
    path = str(tmp_path / "m.pt")
    save_state(tmp_path / "m.pt", model.state_dict())
    with pytest.raises(
        UserError,
        match=r'fit resnet18 with 10 classes: Missing key[^"]*"bn1.weight" and \d+ more; '
        r'Unexpected key[^"]*"conv2.weight" and \d+ more; name',
    ):
        load_model(NamedNetwork(path, "resnet18"), IMAGES)
    with pytest.raises(
        UserError, match=r"fc.weight: \[10, 128\] in the checkpoint, \[100, 128\] in the n"
    ) as error:
        load_model(NamedNetwork(path, "small_cnn"), IMAGES._replace(n_classes=100))
    assert "fc.bias" not in str(error.value)


def train_options(folder, **options):
    (folder / "config.txt").write_text(
        json.dumps({"model_type": "small_cnn", "dataset": "cifar10"} | options)
    )
    return NamedNetwork(str(folder / "m.pt"), "small_cnn")


def test_images_of_another_size_classes_or_values_are_warned_of_once(tmp_path, model, capsys):
    save_state(tmp_path / "m.pt", model.state_dict())
    name = train_options(tmp_path)
    larger = InputSpec(10, (3, 64, 64), Normalisation((0.5,) * 3, (0.25,) * 3), tuple("abcdefghij"))
    for images in (IMAGES, dataset_info("cifar5m").spec, larger, larger):
        load_model(name, images)
    (line,) = capsys.readouterr().err.splitlines()
    trained, at_hand = line.split(" The images at hand: ")
    assert says(trained, str(name.path), "cifar10", "3×32×32", "airplane", "in [0, 1]")
    assert says(at_hand, "3×64×64", "classes a, b, c", "mean 0.5, 0.5, 0.5")


def test_weights_that_are_not_finite_are_loaded_with_a_warning(tmp_path, model, capsys):
    state = {key: value.clone() for key, value in model.state_dict().items()}
    state["fc.bias"][0] = torch.nan
    save_state(tmp_path / "m.pt", state)
    load_model(NamedNetwork(str(tmp_path / "m.pt"), "small_cnn"), IMAGES)
    assert "not finite" in capsys.readouterr().err


@pytest.mark.parametrize("entries", [("model", "model_ema"), ("state_dict", "ema_state_dict")])
def test_of_two_sets_of_weights_it_says_which_one_is_taken(entries, tmp_path, model, capsys):
    first = model.state_dict()
    second = {f"module.{key}": value * 2 for key, value in first.items()}
    content = {entries[0]: first, entries[1]: second, "optimizer": {"state": {}}}
    torch.save(content, tmp_path / "m.pt")
    torch.testing.assert_close(load_state(tmp_path / "m.pt"), {**first})
    said = capsys.readouterr().err
    assert says(said, *entries, f"{entries[0]} is taken", f"torch.load(path)['{entries[1]}']")
    torch.save(content | {entries[1]: {}}, tmp_path / "m.pt")
    load_state(tmp_path / "m.pt")
    assert not capsys.readouterr().err
