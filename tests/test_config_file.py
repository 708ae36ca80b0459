"""`--config`: defaults from YAML or JSON, for options and positional arguments alike."""

import json

import pytest

from tests.commands import error_line, parser_of


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
        ("tf32: 1", "neither true nor false"),
        (None, "config.yaml"),
    ],
)
def test_what_is_refused(text, said, config, tmp_path):
    path = config(text) if text is not None else tmp_path / "config.yaml"
    assert said in error_line(
        "exec_train.py", "resnet18", "-dir", "out", "--config", path, cwd=tmp_path
    )
