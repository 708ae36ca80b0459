"""Files from strangers, damaged or made to do harm: read, or refused in one line; nothing runs, nothing is used up."""

import json
import os
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import loadmat

from src.checkpoints import load_model, load_state, load_tensors, save_state
from src.datasets.matlab_files import read_arrays
from src.datasets.readers import load_arrays
from src.errors import MAX_LENGTH, UserError
from src.resuming import StateFile
from src.stitching.runs import claimed_folders
from tests.conftest import ROOT
from tests.hostile_formats import MARKER, Code, saved
from tests.hostile_readers import READERS, SHAPE, network, write_checkpoint, write_plain_svhn
from tests.hostile_run import BYTES, prepare
from tests.hostile_traps import traps
from tests.tiny_datasets import write_svhn

MUTATIONS = int(os.environ.get("HOSTILE_MUTATIONS", 2_400))


def read_hostile(folder: Path, n_mutations: int, *, seed: int) -> dict:
    """What `hostile_run` says, run in an empty folder; its crash is a failure here."""
    here = folder / "empty"
    here.mkdir()
    command = [sys.executable, "-m", "tests.hostile_run", folder / "files", n_mutations, seed]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*map(str, command)], cwd=here, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"exit code {done.returncode} (negative: a signal)\n{done.stderr[-5000:]}"
    assert not list(here.iterdir()), "code ran"
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    return read_hostile(tmp_path_factory.mktemp("hostile"), MUTATIONS, seed=0)


def check(outcome: dict, n_mutations: int) -> None:
    assert not outcome["failures"], "\n\n".join(outcome["failures"])
    assert outcome["n"] >= n_mutations and outcome["slowest"].keys() == READERS.keys()
    assert outcome["grown"] < BYTES
    assert outcome["refused"] > outcome["n"] / 2, "the files are hardly damaged"


def test_damaged_files_are_read_or_refused(outcome):
    check(outcome, MUTATIONS)


@pytest.mark.slow
def test_very_many_damaged_files_are_read_or_refused(tmp_path):
    check(read_hostile(tmp_path, 20_000, seed=1), 20_000)


def test_traps_are_refused(outcome, tmp_path):
    prepare(tmp_path)
    expected = traps(tmp_path)
    assert outcome["traps"].keys() == expected.keys()
    for name, (refusal, wrong) in outcome["traps"].items():
        assert not wrong, f"{name}: {wrong}"
        assert expected[name].said in refusal, f"{name}: {refusal}"


def test_the_code_of_the_traps_would_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.pt").write_bytes(saved(Code()))
    torch.load("m.pt", weights_only=False)
    assert (tmp_path / MARKER).exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_checkpoints_are_refused_wherever_they_are_truncated(tmp_path, zipped):
    write_checkpoint(tmp_path, zipped=zipped)
    content = (tmp_path / "m.pt").read_bytes()
    for length in {*range(0, len(content), 4999), *range(40), len(content) - 1}:
        (tmp_path / "m.pt").write_bytes(content[:length])
        with pytest.raises(UserError, match=r"checkpoint .*m\.pt"):
            load_state(tmp_path / "m.pt")


def test_a_wrong_magic_number_is_refused(tmp_path):
    write_checkpoint(tmp_path, zipped=False)
    content = (tmp_path / "m.pt").read_bytes()
    (tmp_path / "m.pt").write_bytes(content.replace(content[4:8], b"\1\2\3\4", 1))
    with pytest.raises(UserError, match="no checkpoint at all"):
        load_state(tmp_path / "m.pt")


def test_weights_that_are_not_finite_are_a_warning_only(tmp_path, capsys):
    state = network().state_dict()
    state["fc.weight"][:] = torch.nan
    save_state(tmp_path / "m.pt", state)
    model = load_model(tmp_path / "m.pt", "small_cnn", n_classes=10, image_shape=SHAPE)
    assert model.fc.weight.isnan().all() and "weights that are not finite" in capsys.readouterr().err


STATE = {
    "network": network().state_dict(), "random": torch.get_rng_state(), "counts": Counter({2: 3}),
    "rest": [(1, 2.5), None],
    "bfloat16": torch.ones(3, dtype=torch.bfloat16), "empty": torch.empty(0, 3), "scalar": torch.tensor(3),
    "transposed": torch.arange(6.0).reshape(2, 3).t(), "part": torch.arange(6)[2:4],
    "repeated": torch.ones(1).expand(5), "flags": torch.tensor([True, False]),
    "parameter": torch.nn.Parameter(torch.ones(2)), "size": torch.Size([1, 2]),
    "large": 2**70, "text": "ä",
}  # fmt: skip


@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_saves_is_read_as_torch_reads_it(tmp_path, zipped):
    newer = zipped and torch.__version__ >= "2.6"  # older ones do not save such tensors
    state = STATE | ({"unsigned": torch.ones(2, dtype=torch.uint16)} if newer else {})
    torch.save(state, tmp_path / "m.pt", _use_new_zipfile_serialization=zipped)
    found, expected = load_tensors(tmp_path / "m.pt"), torch.load(tmp_path / "m.pt", weights_only=True)
    assert list(found) == list(expected)
    same = dict(zip(found["network"], found["network"].values(), strict=True)) | found
    for key, value in (expected["network"] | expected).items():
        if isinstance(value, torch.Tensor):
            assert (same[key].dtype, same[key].stride()) == (value.dtype, value.stride()) and torch.equal(
                same[key], value
            )
        elif key != "network":
            assert same[key] == value and type(same[key]) is type(value)


@pytest.mark.parametrize("write", [write_svhn, write_plain_svhn])
def test_matlab_files_are_read_as_scipy_reads_them(tmp_path, write):
    write(tmp_path)
    found, expected = read_arrays(tmp_path / "train_32x32.mat"), loadmat(tmp_path / "train_32x32.mat")
    for name in "Xy":
        assert np.array_equal(found[name], expected[name]) and found[name].dtype == expected[name].dtype


def test_large_endian_arrays_in_pickles_keep_their_values(tmp_path):
    array = np.arange(6, dtype=">i4").reshape(2, 3)
    for protocol in range(6):
        (tmp_path / "a").write_bytes(pickle.dumps({"a": np.asfortranarray(array)}, protocol))
        assert np.array_equal(load_arrays(tmp_path / "a")["a"], array)


@pytest.mark.parametrize(
    "folders", [[["a", "b", ".."]], [["a", "b", ""]], [["a", "b", 3]], [["a"]], 3, [[[], "b", "c"]]]
)
def test_a_state_names_folders_below_its_own_or_is_refused(tmp_path, folders):
    state = StateFile(tmp_path / "a.resume.pt", {}, resume=False)
    state.write(folders=folders)
    with pytest.raises(UserError, match=r"a\.resume\.pt"):
        claimed_folders(StateFile(state.path, {}, resume=True))


def test_an_error_quotes_a_strangers_text_in_one_short_line():
    assert str(UserError("a\nb\x1b[31m\ud800")) == "a\\nb\\x1b[31m\\ud800"
    assert len(str(UserError("x" * 10**6))) < MAX_LENGTH + 10
