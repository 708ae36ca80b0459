"""Bad input: one line that says what was given, what is allowed and what to do; exit code 2; nothing left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import exec_eval
import exec_stitch
import exec_train
from src.checkpoints import save_state
from src.datasets import DATASET_NAMES
from src.errors import UserError, unknown_name
from src.models import MODEL_NAMES, build_model
from src.options import INITS, OPTIMIZERS

ROOT = Path(__file__).parents[1]
TRAIN = ["small_cnn", "-d", "digits", "-gpu", "-1", "-dir", "m"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "small.pt"
    save_state(path, build_model("resnet18_samewidth", n_channels=1).state_dict())
    return path


def fails(main, arguments, capsys) -> str:
    """The one line on stderr with which a command ends."""
    try:
        status = main([str(argument) for argument in arguments])
    except SystemExit as stop:
        status = stop.code
    lines = capsys.readouterr().err.strip().splitlines()
    assert status == 2, lines
    assert len(lines) == 1 and ": error: " in lines[0], lines
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["resnet19", *TRAIN[1:]], "unknown model 'resnet19'; did you mean resnet18"),
        ([*TRAIN, "-d", "cifar11"], "unknown dataset 'cifar11'; did you mean cifar10"),
        ([*TRAIN, "-d", "photo_patches"], "'photo_patches' has no labels"),
        ([*TRAIN, "-e", "-1"], "argument -e/--epochs: '-1' is not a whole number from 0 on"),
        ([*TRAIN, "-b", "0"], "argument -b/--batch-size: '0' is not a whole number from 1 on"),
        ([*TRAIN, "-lr", "nan"], "'nan' is not a finite number above 0"),
        ([*TRAIN, "-lr", "fast"], "'fast' is not a finite number above 0"),
        ([*TRAIN, "-wd", "-1"], "'-1' is not a finite number at least 0"),
        ([*TRAIN, "--grad-clip", "0"], "'0' is not a finite number above 0"),
        ([*TRAIN, "-o", "rmsprop"], "invalid choice: 'rmsprop' (choose from"),
        ([*TRAIN, "-sched", "step"], "invalid choice: 'step' (choose from"),
        ([*TRAIN, "-sched", "cosine", "-rlre", "3"], "-sched cosine and -rlre both set the learning rate"),
        ([*TRAIN, "-sf", "-2"], "'-2' is not a whole number from 0 on"),
        ([*TRAIN, "-gpu", "-2"], "'-2' is not a whole number from -1 on"),
        ([*TRAIN, "-gpu", "99"], "-gpu 99: this machine has"),
        ([*TRAIN, "--nonsense"], "unrecognized arguments: --nonsense"),
        ([*TRAIN, "-epochs", "3"], "argument -e/--epochs: 'pochs' is not a whole number from 0 on"),
        ([*TRAIN, "--resume", "--overwrite"], "argument --overwrite: not allowed with argument --resume"),
        (TRAIN[:-2], "the following arguments are required: -dir/--save-dir"),
        (["vit_tiny_patch16_224", *TRAIN[1:]], "8×8"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_train(arguments, line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert line in fails(exec_train.main, arguments, capsys)
    assert not os.listdir(tmp_path)


def test_a_folder_that_cannot_be_written(capsys, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    line = fails(exec_train.main, [*TRAIN[:-1], tmp_path / "file" / "m"], capsys)
    assert "file/m as folder of this run: Not a directory" in line


EVAL = ["resnet18_samewidth", "-d", "digits", "-gpu", "-1"]


def test_eval(capsys, checkpoint, tmp_path):
    assert "cannot read checkpoint" in fails(exec_eval.main, [tmp_path / "x.pt", *EVAL], capsys)
    line = fails(exec_eval.main, [checkpoint, "small_cnn", *EVAL[1:]], capsys)
    assert "does not fit small_cnn with 10 classes; missing: " in line and "unexpected: " in line
    (tmp_path / "short.pt").write_bytes(checkpoint.read_bytes()[:1000])
    assert "is damaged" in fails(exec_eval.main, [tmp_path / "short.pt", *EVAL], capsys)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({4: "layer9.0"}, "unknown layer 'layer9.0'; did you mean "),
        ({4: "layer9.0"}, "known: layer1.0, layer1.1, layer2.0"),
        ({5: "layer1.0,nope"}, "unknown layer 'nope'"),
        ({4: ""}, "unknown layer ''"),
        ({6: "t2t"}, "t2t stitches from a token layer to a token layer, not from shape 64×8×8 to 64×4×4; use rc2c_pre"),
        ({6: "c2c"}, "c2c needs maps of equal size, not 64×8×8 and 64×4×4; use rc2c_pre"),
        ({6: "r2c"}, "argument stitching_type: invalid choice: 'r2c' (choose from"),
        ({5: "fc"}, "not from shape 64×8×8 to 10"),
        (["-i", "foo"], "argument -i/--init: invalid choice: 'foo' (choose from"),
        (["-pinv-samples", "0"], "'0' is not a whole number from 1 on"),
        (["--front-stitch-rank", "-1"], "'-1' is not a whole number from 0 on"),
        (["--front-pinv-rank", "-3"], "'-3' is not a whole number from 0 on"),
        (["-l1", "-1"], "'-1' is not a finite number at least 0"),
        (["-upsample", "cubic"], "invalid choice: 'cubic'"),
        (["-c2t-cls", "mean"], "invalid choice: 'mean'"),
        (["-b", "x"], "'x' is not a whole number from 1 on"),
        (["-gpu", "7"], "-gpu 7: this machine has"),
    ],
    ids=str,
)
def test_stitch(changes, line, capsys, checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = [checkpoint, checkpoint, "resnet18_samewidth", "resnet18_samewidth", "layer1.0", "layer2.0", "rc2c_pre"]
    if isinstance(changes, dict):
        for place, value in changes.items():
            arguments[place] = value
        changes = []
    assert line in fails(exec_stitch.main, [*arguments, "-d", "digits", "-gpu", "-1", "-e", "0", *changes], capsys)
    assert not os.listdir(tmp_path)


def test_missing_data_says_what_to_put_where(run_script, tmp_path, monkeypatch):
    """As a process, with a deadline: no network must not mean a long wait."""
    for name in ("http_proxy", "https_proxy"):  # nothing answers there, wherever this test runs
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    save_state(tmp_path / "small.pt", build_model("small_cnn").state_dict())
    start = time.monotonic()
    line = run_script("exec_eval.py", "small.pt", "small_cnn", "-data", "nowhere", "-gpu", "-1", status=2)
    assert time.monotonic() - start < 20  # 10 on a machine that is not running the other tests
    assert line.count("\n") == 1 and line.startswith("exec_eval.py: error: ") and "datasets.CIFAR10(" in line


def test_pickles_with_code_are_refused_by_the_script(run_here, tmp_path):
    from tests.test_checkpoints import Code

    torch.save({"a": Code(f"touch {tmp_path}/ran")}, tmp_path / "m.pt")
    line = run_here("exec_eval.py", "m.pt", *EVAL, status=2)
    assert "holds more than tensors" in line and not (tmp_path / "ran").exists()


def test_a_mistake_in_the_program_shows_its_traceback(capsys, monkeypatch):
    from src import cli

    def broken(args):
        raise RuntimeError("oops")

    assert cli.run(exec_eval.parser(), broken, ["a", "b"]) == 1
    assert "RuntimeError: oops" in capsys.readouterr().err


def test_values_that_follow_their_option_at_once_are_read():
    """As argparse reads them: `-dmnist` and `-e30`."""
    parser = exec_train.parser()
    for name in DATASET_NAMES:
        assert parser.parse_args([*TRAIN, f"-d{name}"]).dataset == name
    for name in OPTIMIZERS:
        assert parser.parse_args([*TRAIN, f"-o{name}"]).optimizer == name
    args = parser.parse_args([*TRAIN, "-e30", "-b8", "-lr=1e-2", "-wd", "1e-5"])
    assert (args.n_epochs, args.batch_size, args.learning_rate) == (30, 8, 0.01)
    networks = ["a", "b", "resnet18", "resnet18", "layer1.0", "layer1.0", "rc2c_pre"]
    for name in INITS:
        assert exec_stitch.parser().parse_args([*networks, f"-i{name}"]).init == name


def test_what_empty_values_mean_in_the_public_code():
    assert exec_train.parser().parse_args([*TRAIN, "-sched", ""]).scheduler == "none"
    networks = ["a", "b", "resnet18", "resnet18", "layer1.0", "layer1.0", "rc2c_pre"]
    args = exec_stitch.parser().parse_args([*networks, "--front-stitch-rank", "0", "--front-pinv-rank", "0"])
    assert args.front_stitch_rank is args.front_pinv_rank is None


def test_milestones_behind_the_last_epoch_are_named(capsys):
    from src import cli

    args = exec_train.parser().parse_args([*TRAIN, "-e", "3", "-rlre", "2", "3", "40"])
    assert cli.settings_of(args).reduce_lr_epochs == [2, 3, 40]
    assert "warning: -rlre 3 40: none of the -e 3 epochs comes after that" in capsys.readouterr().err


def test_an_unknown_name_lists_the_close_ones_and_no_long_list():
    assert str(unknown_name("model", "resnet19", MODEL_NAMES)) == (
        "unknown model 'resnet19'; did you mean resnet18 or resnet152 or resnet101? --help lists all"
    )
    assert str(unknown_name("key", "sise", ["size", "channels"])) == (
        "unknown key 'sise'; did you mean size? known: size, channels"
    )


def test_an_error_is_one_line():
    assert str(UserError("a\nb\r\nc")) == "a b c"


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_says_so(signum, status, capsys):
    from src import cli

    def interrupted(args):
        signal.raise_signal(signum)

    before = signal.getsignal(signum)
    assert cli.run(exec_eval.parser(), interrupted, ["a", "b"]) == status
    assert f"interrupted by {signal.Signals(signum).name}" in capsys.readouterr().err
    assert signal.getsignal(signum) is before


def test_a_second_signal_kills():
    code = (
        "import signal\nimport exec_eval\nfrom src import cli\n"
        "def experiment(args):\n"
        "    try: signal.raise_signal(signal.SIGTERM)\n"
        "    finally: print('cleaning up', flush=True); signal.raise_signal(signal.SIGTERM); print('not reached')\n"
        "cli.run(exec_eval.parser(), experiment, ['a', 'b'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("cleaning up\n", -signal.SIGTERM)
