"""The command line: every option of the public code, files of options, and how a script ends that did
not go well (see test_refusals.py for bad input)."""

import json
import re
import signal

import pytest
import torch

import exec_eval
from src import cli
from src.cli.parser import FREQUENT, RARE
from tests.commands import error_line, parser_of, read_json, says, start_code
from tests.goldens import DATA

FLAGS = read_json(DATA / "cli_flags.json")
SCRIPTS = [
    "exec_train",
    "exec_eval",
    "exec_stitch",
    "exec_train_representation_classifier",
    "exec_eval_stitcher_ood",
    "exec_probe",
    "exec_compute_low_rank_sim_metrics",
]
# Where ours differs on purpose: the README's default wins over the public parser's, and "" has a
# name.
DEFAULTS = {
    ("exec_train", "save_frequency"): 0,
    ("exec_train", "scheduler"): "none",
    ("exec_train_representation_classifier", "save_frequency"): 0,
    ("exec_train_representation_classifier", "dataset"): "cifar10",
    ("exec_probe", "weight_decay"): 1e-5,
    (
        "exec_eval_stitcher_ood",
        "energy_dir",
    ): None,  # in the evaluated folder, so that evaluations keep theirs
    # The default folder may be missing, and a given one not
    ("exec_eval_stitcher_ood", "ood_detector_dir"): None,
    ("exec_probe", "ranks"): [],
    **{(script, "n_workers"): None for script in SCRIPTS},  # one a core
}
# What the README calls required, and the public parser only misses later.
REQUIRED = {"model_type", "finetune_id_dataset", "finetune_ood_dataset", "layer_names"}


@pytest.mark.parametrize("script", SCRIPTS)
def test_flags_of_the_public_code(script):
    known = {
        name: action
        for action in parser_of(script)._actions
        for name in [*action.option_strings, action.dest]
    }
    for flag in FLAGS[f"{script}.py"]:
        action = known[flag["dest"]]
        assert all(known[spelling] is action for spelling in flag["flags"]), flag
        assert action.default == DEFAULTS.get((script, flag["dest"]), flag["default"]), flag
        assert action.required == (flag.get("required", False) or flag["dest"] in REQUIRED), flag
        assert set(flag.get("choices", [])) - {None} <= set(
            action.choices or flag.get("choices", [])
        ), flag
        assert action.help
    assert (
        script != "exec_stitch" or {"-sched", "--grad-clip"} <= known.keys()
    )  # which only its README names


def test_the_help_has_every_option_once_and_the_rare_ones_last():
    parser = parser_of("exec_stitch")
    options = [action for action in parser._actions if action.option_strings]
    before, rare = parser.format_help().split("\nrarely needed:\n")
    for action in options:
        heading = f"\n  {action.option_strings[0]}"
        part, other = (rare, before) if action.dest in RARE else (before, rare)
        assert len(re.findall(rf"{heading}[ ,\n]", f"\n{part}")) == 1
        assert not re.search(rf"{heading}[ ,\n]", f"\n{other}")
    frequent = [FREQUENT.index(action.dest) for action in options if action.dest in FREQUENT]
    shown = before.split("\nmost runs need:\n")[1]
    first = next(action for action in options if action.dest == FREQUENT[min(frequent)])
    assert shown.startswith(f"  {first.option_strings[0]} ")


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_help_shows_texts_and_no_code(script):
    text = parser_of(script).format_help()
    assert not re.search(r"\.join\(|\.items\(", text)
    assert script != "exec_stitch" or "c: feature map" in " ".join(text.split())


def test_options_in_the_order_of_the_help_exist():
    scripts = [
        *SCRIPTS,
        "misc/all_pairs.py",
        "misc/imagenet_train_main.py",
        "misc/verdict.py",
    ]
    known = {action.dest for script in scripts for action in parser_of(script)._actions}
    assert not {*FREQUENT, *RARE} - known
    assert len({*FREQUENT, *RARE}) == len(FREQUENT) + len(RARE)


def test_values_that_follow_their_option_at_once_ranks_of_0_and_an_empty_scheduler():
    """As argparse reads them among options such as -data and -dir, and as the public code takes the
    others."""
    words = "a b resnet18 resnet18 layer1.0 layer1.0 rc2c_pre -ddigits -ipinv -e0 -lr=1e-2".split()
    words += ["--front-stitch-rank", "0", "-sched", ""]
    args = parser_of("exec_stitch").parse_args(words)
    found = (
        args.dataset,
        args.init,
        args.n_epochs,
        args.learning_rate,
        args.front_stitch_rank,
        args.scheduler,
    )
    assert found == ("digits", "pinv", 0, 0.01, None, "none")


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("-l", "unknown option -l; did you mean -lr or -l1"),
        ("-pinv=9", "unknown option -pinv; "),
        ("--learning", "unrecognized arguments: --learning"),
    ],
)
def test_no_option_is_shortened_or_split(word, said, capsys):
    words = "a b resnet18 resnet18 layer1.0 layer1.0 rc2c_pre".split()
    with pytest.raises(SystemExit):
        parser_of("exec_stitch").parse_args([*words, word, "3"])
    assert said in capsys.readouterr().err


@pytest.fixture
def config(tmp_path):
    def write(text: str) -> str:
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return str(path)

    return write


def test_values_are_those_of_the_command_line_and_explicit_ones_win(config):
    path = config(
        "model_type: resnet34\nsave_dir: a\nlearning_rate: 1e-2\nreduce_lr_epochs: [3, 5]\nn_epochs: 7\n"
    )
    parser = parser_of("exec_train.py")
    given = parser.parse_args("resnet18 -dir a -lr 0.5 -rlre 3 5 -e 7".split())
    args = parser.parse_args(["resnet18", "-lr", "0.5", f"--config={path}"])
    assert vars(args) | {"config": None} == vars(given)
    assert parser.parse_args(["--config", path]).model_type == "resnet34"


def test_a_config_of_the_public_code_is_taken(config):
    path = config(
        json.dumps({"scheduler": "", "reduce_lr_epochs": [], "grad_clip": None, "seed": 4})
    )
    args = parser_of("exec_train.py").parse_args(["resnet18", "-dir", "out", "--config", path])
    assert (args.scheduler, args.reduce_lr_epochs, args.grad_clip, args.seed) == (
        "none",
        [],
        None,
        4,
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lerning_rate: 1", "did you mean learning_rate"),
        ("config: other.yaml", "unknown option"),
        ("learning_rate: [1, 2]", "-lr/--learning-rate: '1,2' is not a finite number above 0"),
        ("optimizer: foo", "-o/--optimizer: invalid choice: 'foo'"),
        ("no_save: 1", "neither true nor false"),
        (None, "config.yaml"),
    ],
)
def test_what_is_refused(text, said, config, tmp_path):
    path = config(text) if text is not None else tmp_path / "config.yaml"
    stitch = "exec_stitch.py - - resnet18 resnet18 conv1 conv1 rc2c_pre -dir out".split()
    assert said in error_line(*stitch, "--config", path, cwd=tmp_path)


def test_a_mistake_in_the_program_shows_its_traceback(capsys):
    def broken(args):
        raise RuntimeError("oops")

    assert cli.run(exec_eval.parser(), broken, ["a", "b"]) == 1
    assert "RuntimeError: oops" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
    ],
)
def test_an_error_of_torch_that_a_user_can_mend_is_one_line(error, capsys):
    def too_many(args):
        raise error

    assert cli.run(exec_eval.parser(), too_many, ["a", "b"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says(line, "error: ", "GPU is out of memory", "lower -b")


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_says_so(signum, status, capsys):
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
    process = start_code(code)
    out, _ = process.communicate(timeout=60)
    assert (out, process.returncode) == ("cleaning up\n", -signal.SIGTERM)
