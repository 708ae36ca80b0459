"""What commands write and read: outputs, checkpoints, run folders, and what ends in the middle."""

import errno
import itertools
import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from src import cli
from src.core.errors import Busy, UserError
from src.core.files import (
    durable_together,
    locked,
    locks_released,
    new_file,
    write_bytes,
    write_json,
)
from src.core.inputs import InputSpec, Normalisation
from src.core.tensors import save_state
from src.datasets import dataset_info
from src.models import build_model
from src.results.checkpoints import load_model, load_state
from src.results.network_names import NamedNetwork
from src.results.public import read_options
from src.results.run import Run
from src.results.tables import SIMILARITIES
from src.results.tables import write_table as write_rows
from src.training import Classification, Settings, train
from tests.commands import (
    MODEL,
    ON_DIGITS,
    PAIR,
    error_line,
    module_of,
    names_in,
    read_json,
    run,
    says,
    start_code,
)
from tests.conftest import few_images
from tests.result_rows import PROBE, SIMILARITY, similarity_row, write_table
from tests.run_content import content
from tests.tiny_datasets import few_grey_images
from tests.written_runs import write_run

ON_LAYERS = [
    *PAIR,
    "layer3.0,layer4.0",
    "layer4.0,layer4.1",
    "rc2c_pre",
    *ON_DIGITS,
    "-dir",
    "grid",
]
TRAINED = ["exec_stitch.py", *ON_LAYERS, "-e", "2", "-b", "256"]
COMMANDS = {
    "probe": ["exec_probe.py", "f.pt", MODEL, "-l", "layer1.0", *ON_DIGITS, "-b", "512", "-e", "1", "-o", "p.csv"],
    "train": ["exec_train.py", MODEL, *ON_DIGITS, "-b", "128", "-e", "2", "-sf", "1", "-dir", "m"],
    "detector": ["exec_train_representation_classifier.py", "f.pt", MODEL, "layer4.0", "-m", "repr_cls_resnet18",
                 *ON_DIGITS, "-b", "256", "-e", "1", "-fe", "2", "-ftidd", "digits", "-ftoodd", "photo_patches",
                 "-dir", "m", "-fdir", "store"],
    "tlm": [*TRAINED, "--mod-only-stitch"],
    "whole": TRAINED,
    "dm": ["exec_stitch.py", *ON_LAYERS, "-e", "0", "-i", "pinv"],
}  # fmt: skip
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in COMMANDS if name != "probe"]


@pytest.fixture
def few():
    """Embedded data sets have few images in this process."""
    with few_images(128, n_test=64):
        yield


@pytest.mark.parametrize("name", ["probe", *SLOW])
def test_a_disk_that_fills_up_at_any_write(name, few, network_folder, monkeypatch, capfd):
    """Run with room for no file, for one more, for two more ..., always going on, until all of them
    are written."""
    script, *words = COMMANDS[name]
    module = module_of(script)
    command = [*words, "--resume"]
    run(script, *command, cwd=network_folder("whole"))
    broken = network_folder("broken")
    monkeypatch.chdir(broken)
    capfd.readouterr()
    replace, room, status = os.replace, 0, 2
    while status:
        left = iter(range(room))

        def replace_while_there_is_room(source, target, left=left):
            if next(left, None) is None:
                raise OSError(28, "No space left on device")
            replace(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", replace_while_there_is_room)
            status = cli.run(module.parser(), module.main, command)
        errors = [line for line in capfd.readouterr().err.splitlines() if "error" in line]
        assert status == 0 or (
            status == 2 and len(errors) == 1 and "No space left on device" in errors[0]
        ), errors
        assert not list(broken.rglob("*.part"))
        room += 1
    assert room > 3
    assert content(broken) == content(broken.parent / "whole")


@pytest.fixture(scope="module")
def processes():
    """Start processes that have imported torch already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "torchvision", "scipy.stats", "matplotlib"])
    return context


def kill_often(processes, command: list[str], folder: Path, within: float) -> int:
    """Start a command six times and kill it within so many seconds, later each time; returns how
    many kills met a running one."""
    moments, met = random.Random(len(command)), 0
    for share in (0.1, 0.2, 0.4, 0.6, 0.8, 1):
        process = processes.Process(target=run, args=(*command, "--resume"), kwargs={"cwd": folder})
        process.start()
        process.join(timeout=moments.uniform(0.5, 1) * share * within)
        met += process.is_alive()
        process.kill()
        process.join()
    return met


@pytest.mark.parametrize("name", SLOW)
def test_a_script_that_was_killed_often_leaves_what_it_leaves_undisturbed(
    name, network_folder, processes, rendered
):
    """Figures are rendered here as well, as a process may be killed after it has drawn them."""
    command = COMMANDS[name]
    whole = network_folder("whole")
    killed = network_folder("killed")
    began = time.monotonic()
    run(*command, cwd=whole)
    seconds = time.monotonic() - began
    assert kill_often(processes, command, killed, within=1 + seconds * 0.5) >= 2
    run(*command, "--resume", cwd=killed)
    expected = content(whole)
    left = content(killed)
    assert expected.keys() == left.keys()
    assert [name for name in expected if expected[name] != left[name]] == []
    assert "finished" in run(*command, "--resume", cwd=killed).err and content(killed) == left


def test_a_kill_between_write_and_rename_leaves_the_old_file(tmp_path):
    code = (
        "import os, pathlib, signal; from src.core.files import write_bytes\n"
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"write_bytes(pathlib.Path({str(tmp_path)!r}) / 'meta.json', b'new')\n"
    )
    (tmp_path / "meta.json").write_bytes(b"old")
    assert start_code(code).wait(60) == -signal.SIGKILL
    assert (tmp_path / "meta.json").read_bytes() == b"old"
    (left,) = set(os.listdir(tmp_path)) - {"meta.json"}
    assert left.startswith(".") and left.endswith(".part")  # no reader takes it for a result
    assert (tmp_path / left).read_bytes() == b"new"


def test_a_file_that_could_not_be_written_is_no_part_of_its_block(tmp_path):
    with durable_together():
        write_bytes(tmp_path / "one", b"1")
        assert not (tmp_path / "one").exists()
        with pytest.raises(UserError, match="cannot write .*two: No space left"):
            with new_file(tmp_path / "two") as file:
                file.write(b"half")
                raise OSError(errno.ENOSPC, "No space left on device")
    assert names_in(tmp_path) == {"one"}


def test_files_of_a_block_are_flushed_before_they_get_their_names_and_then_the_names_are(
    tmp_path, monkeypatch
):
    steps, replace = [], os.replace
    monkeypatch.setattr(os, "fsync", lambda number: steps.append(os.path.isdir(number)))
    monkeypatch.setattr(os, "replace", lambda *paths: steps.append("rename") or replace(*paths))
    with durable_together():
        for name in ("one", "two"):
            write_bytes(tmp_path / name, b"")
    assert steps == [False, False, "rename", "rename", True]


def test_folders_are_created_and_files_get_ordinary_rights_and_the_layout_of_the_public_code(
    tmp_path,
):
    path, plain = tmp_path / "a" / "config.txt", tmp_path / "plain"
    write_json(path, {"a": None, "b": ["é"]})
    assert path.read_text() == '{\n    "a": null,\n    "b": [\n        "\\u00e9"\n    ]\n}'
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode


def test_a_lock_is_held_once_in_a_process(tmp_path):
    """An attempt to lock again does not open the lock to others."""
    path = tmp_path / ".lock"
    code = "import sys; from src.core.files import locked; locked(sys.argv[1], wait=False)"
    with locked(path):
        for wait in (False, True):
            with pytest.raises(Busy, match="another run is writing"):
                locked(path, wait=wait)
        other = start_code(code, path)
        assert other.wait() == 1
    with locked(path, wait=False):
        pass


def test_locks_of_a_failed_block_are_released(tmp_path):
    with locked(tmp_path / "outer"):
        with pytest.raises(ValueError, match="mistake"), locks_released():
            left = locked(tmp_path / "inner")
            raise ValueError("mistake")
        assert left.closed and [path.name for path in tmp_path.iterdir()] == ["outer"]
        locked(tmp_path / "inner", wait=False).close()
        with pytest.raises(Busy):
            locked(tmp_path / "outer")


def test_a_lock_keeps_processes_apart(tmp_path):
    code = (
        "import sys, pathlib; from src.core.files import locked\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "for _ in range(50):\n"
        "    with locked(path.with_name('.lock')): path.write_text(str(int(path.read_text()) + 1))\n"
    )
    counter = tmp_path / "counter"
    counter.write_text("0")
    processes = [start_code(code, counter) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    assert counter.read_text() == "200"


VERDICT, COLLECT = "misc/verdict.py", "misc/collect_results.py"
STATISTICS = "misc/score_measures.py"


@pytest.fixture
def output_folder(in_tmp_path, figures):
    """Runs, and tables of similarity and probing."""
    for number in "12":
        write_run(in_tmp_path / "runs", number, n_right=945, front_layer=f"x{number}")
    write_rows(in_tmp_path / "s.csv", SIMILARITIES, [similarity_row(cka=0.5)])
    ranks = [{"rank1": rank, "cka": rank / 10} for rank in (1, 2, 4)]
    write_table(in_tmp_path / "ranks.csv", SIMILARITY, *ranks)
    probes = [{"model": "a.pt", "rank": rank, "accuracy": rank / 8} for rank in (1, 2, 4)]
    write_table(in_tmp_path / "probes.csv", PROBE, *probes)
    return in_tmp_path


OUTPUTS = {
    "v.csv": [VERDICT, "runs"],
    "g.csv": [COLLECT, "runs"],
    "t.csv": [STATISTICS, "ranks.csv", "probes.csv", "-l", "x", "-other", "y"],
}


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_file_of_another_origin_stays_and_the_files_of_the_command_are_replaced(
    output, output_folder
):
    script, *words = OUTPUTS[output]
    before = names_in(output_folder)
    run(script, *words, "-o", output)
    written = names_in(output_folder) - before
    assert output in written
    (record,) = {name for name in written if name.endswith(".json")}
    assert set(read_json(record)["files"]) == written
    run(script, *words, "-o", output)
    assert names_in(output_folder) == before | written
    (output_folder / record).unlink()  # now the files could be anyone's
    contents = {path.name: path.read_bytes() for path in output_folder.iterdir() if path.is_file()}
    assert output in error_line(script, *words, "-o", output)
    assert {
        path.name: path.read_bytes() for path in output_folder.iterdir() if path.is_file()
    } == contents


@pytest.mark.parametrize(
    ("output", "theirs", "words"),
    [
        ("notes.csv", "notes.md", [VERDICT, "runs"]),
        ("notes.csv", "notes.pdf", [VERDICT, "runs"]),
        ("s.csv", "s.csv", [VERDICT, "runs", "-sim", "s.csv"]),
        ("g.csv", "g.png", [COLLECT, "runs"]),
        ("ranks.csv", "ranks.csv", [STATISTICS, "ranks.csv", "probes.csv"]),
        ("t.csv", "t.pdf", [STATISTICS, "ranks.csv", "-l", "x", "-other", "y"]),
        ("v.csv", "v.csv", [COLLECT, "runs"]),
    ],
)
def test_no_file_is_written_if_one_of_them_is_of_another_origin(
    output, theirs, words, output_folder
):
    if not (output_folder / theirs).exists():
        (output_folder / theirs).write_text("mine")
    content, before = (output_folder / theirs).read_bytes(), names_in(output_folder)
    assert theirs in error_line(*words, "-o", output)
    assert (output_folder / theirs).read_bytes() == content
    assert names_in(output_folder) == before


def test_files_of_the_users_own_stay_in_a_folder_of_runs(output_folder):
    """Also under the names that the script chooses without -o."""
    beside = output_folder / "runs" / "collected_2.png"
    beside.write_text("mine")
    for name in ("collected.csv", "collected.png"):
        path = output_folder / "runs" / name
        path.write_text("mine")
        assert name in error_line(COLLECT, "runs")
        assert path.read_text() == "mine"
        path.unlink()
    for _ in range(2):  # its own files are replaced
        run(COLLECT, "runs")
        assert beside.read_text() == "mine"


def test_a_page_of_another_origin_stays(output_folder):
    (output_folder / "v.html").write_text("mine")
    assert "v.html" in error_line(VERDICT, "runs", "-o", "v.csv", "--page")
    assert (output_folder / "v.html").read_text() == "mine" and not (
        output_folder / "v.csv"
    ).exists()


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


OPTIONS = {"learning_rate": 0.1, "gpu": -1, "resume": False}
SETTINGS = [
    Settings(3, 8),
    Settings(3, 8, optimizer="adamw", scheduler="cosine", grad_clip=0.1),
    Settings(3, 8, optimizer="sgd", reduce_lr_epochs=[1, 2]),
    Settings(3, 8, reduce_lr_epochs=[4], reduce_lr_unit="updates"),
]


def task() -> Classification:
    torch.manual_seed(3)
    layers = (nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 2))
    return Classification(nn.Sequential(*layers))


def weights_of(trained: Classification) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in trained.head.state_dict().items()}


def claimed(folder: Path, *, resume: bool = False, **changes) -> Run:
    run = Run(folder, OPTIONS | changes)
    run.claim(resume=resume)
    return run


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("at", [1, 3])
def test_a_training_that_goes_on_from_a_state_ends_as_one_that_was_not_interrupted(
    settings, at, tmp_path
):
    whole, images = task(), few_grey_images(20, 4, n_classes=2)
    weights = {}
    for history, _ in train(whole, images, images, settings):
        weights[len(history)] = weights_of(whole)

    epochs, run = train(task(), images, images, settings), claimed(tmp_path)
    for _ in range(at):
        _, state = next(epochs)
    run.save(loop=state)
    run.unlock()
    again, run = task(), claimed(tmp_path, resume=True)
    torch.rand(7)  # the global generator is somewhere else
    yielded = []
    for again_history, _ in train(again, images, images, settings, state=run.state["loop"]):
        yielded.append(len(again_history))
        assert all(
            torch.equal(value, weights[len(again_history)][key])
            for key, value in weights_of(again).items()
        )
    assert yielded == list(range(at, 4)) and again_history == history


def test_a_finished_run_is_skipped_when_it_is_resumed(tmp_path, capsys):
    run = claimed(tmp_path)
    assert not run.skip_if_finished(resume=True)
    run.save(loop=None)
    run.finish()
    assert run.skip_if_finished(resume=True) and "nothing is left to do" in capsys.readouterr().err
    assert not run.skip_if_finished(resume=False)  # written over
    assert says(capsys.readouterr().err, "replaces the finished run", "--resume keeps it")
    other = Run(tmp_path, OPTIONS | {"learning_rate": 0.2})
    with pytest.raises(UserError, match="learning_rate was 0.1, now 0.2.*or give --overwrite"):
        other.skip_if_finished(resume=False)
    with pytest.raises(UserError, match="give the same options, or choose another folder"):
        other.skip_if_finished(resume=True)
    assert not other.skip_if_finished(resume=False, overwrite=True)


def test_empty_options_of_the_public_code(tmp_path):
    """It writes "" for no scheduler, and 0 for the full rank."""
    path = tmp_path / "config.txt"
    path.write_text(json.dumps({"scheduler": "", "front_stitch_rank": 0, "seed": 0}))
    assert read_options(path) == {"scheduler": "none", "front_stitch_rank": None, "seed": 0}


RECORDED = {  # script: (arguments, where its options are written down)
    "exec_stitch.py": (
        [*PAIR, "layer3.0", "layer4.1", "rc2c_pre", *ON_DIGITS, "-e", "1", "-b", "512", "-i", "pinv", "-l1", "1e-4"],
        "results/*/config.txt",
    ),
    "exec_probe.py": (
        ["f.pt", MODEL, "-l", "layer3.0", "layer4.1", *ON_DIGITS, "-e", "1", "-ranks", "4", "1", "-o", "p.csv"],
        "p.json",
    ),
    "exec_compute_low_rank_sim_metrics.py": (
        [*PAIR, "layer3.0", "layer4.1", *ON_DIGITS, "-m1r", "8", "2", "-n", "100", "-o", "s.csv"],
        "s.json",
    ),
}  # fmt: skip


@pytest.mark.parametrize("script", RECORDED)
def test_a_run_is_repeated_by_its_config(script, network_folder):
    first, second = network_folder("first"), network_folder("second")
    arguments, pattern = RECORDED[script]
    with few_images():
        printed = run(script, *arguments, cwd=first).out
        (config,) = first.glob(pattern)
        shutil.copy(config, second.parent / "options.json")
        again = run(script, "--config", "../options.json", cwd=second).out
    assert content(first) == content(second)
    assert printed == again or script == "exec_probe.py"  # which prints its command line
