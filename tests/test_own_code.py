"""A user's own networks and functions, as the how-to pages show them; calls from Python."""

import hashlib
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from src.core.errors import UserError
from src.core.inputs import InputSpec
from src.core.user_code import absolute, is_user_code, load, title_of
from src.low_rank import low_rank_approx
from src.models import Network, build_model
from src.ood import energy, make_detector
from src.results.checkpoints import load_model
from src.results.network_names import NamedNetwork
from src.stitching import direct_matching
from src.stitching.objectives import feature_loss, functional_loss, hint_loss, soft_label_loss
from tests import commands
from tests.commands import ON_DIGITS, Output, read_csv, read_json, says, stitch_rows
from tests.conftest import few_images

BLOCKS = commands.blocks_of("misc/docs/guide.md", "Your own network")
FILE = BLOCKS[0][1]
MORE = """
from tests.traps import Patches


def attention(n_classes, n_channels):
    return Patches(n_classes, n_channels, 24)


def patches(n_classes, image_shape):
    return Patches(n_classes, image_shape[0], 24, has_cls=False)
"""
VOLUMES = """
from torch import nn


class Volumes(nn.Module):
    def __init__(self, n_classes):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.conv = nn.Conv3d(1, 4, 3, padding=1)
        self.fc = nn.Linear(32, n_classes)

    def forward(self, images):
        volumes = self.conv(self.stem(images)[:, None]).relu()
        return self.fc(volumes.mean((3, 4)).flatten(1))


def volume(n_classes):
    return Volumes(n_classes)
"""


@pytest.fixture(scope="module", autouse=True)
def few():
    with few_images(128, n_test=60):
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with nets.py and a network of each of its functions, trained for one epoch by the
    script."""
    path = tmp_path_factory.mktemp("own")
    (path / "nets.py").write_text(FILE + MORE)
    for name in ("patches", "attention", "cnn"):
        run("exec_train.py", f"{path}/nets.py:{name}", "-e", 1, "-dir", path / name)
    return path


def named(folder: Path, *names: str) -> list[str]:
    return [str(folder / name / "model_1.pt") for name in names] + [
        f"{folder}/nets.py:{name}" for name in names
    ]


def run(script: str, *arguments, cwd=".", status: int = 0) -> Output:
    return commands.run(script, *arguments, *ON_DIGITS, cwd=cwd, status=status)


def test_the_commands_of_the_guide(tmp_path):
    (tmp_path / "nets.py").write_text(FILE)
    lines = [
        line
        for language, code in BLOCKS
        if language == "bash"
        for line in code.replace("\\\n", "").splitlines()
    ]
    given = [line for line in lines if line.startswith("python exec_")]
    assert len(given) == 6
    for command in given:
        commands.run(*shlex.split(command)[1:], cwd=tmp_path)
    assert len(stitch_rows(tmp_path / "results/cnn_to_small")) == 2 * 4
    rows = stitch_rows(tmp_path / "results/rows_to_cnn")
    assert [row["stitching_type"] for row in rows] == ["s2c", "s2c"]


def test_a_config_has_the_absolute_path_and_the_digest_and_does_not_run_code(folder, tmp_path):
    written = read_json(folder / "patches" / "config.txt")
    assert written["model_type"] == f"{folder}/nets.py:patches"
    assert (
        written["model_type_sha256"]
        == hashlib.sha256((folder / "nets.py").read_bytes()).hexdigest()
    )
    config = ["--config", folder / "patches" / "config.txt", "-dir", tmp_path / "again"]
    line = commands.error_line("exec_train.py", *config)
    assert says(line, "does not run code", "on the command line")
    run("exec_train.py", "nets.py:patches", *config, cwd=folder)  # a relative path to the same file
    first, again = (path / "model_1.pt" for path in (folder / "patches", tmp_path / "again"))
    assert first.read_bytes() == again.read_bytes()


@pytest.mark.parametrize(
    ("front", "end", "layers", "kind", "options"),
    [
        ("cnn", "attention", ("all", "blocks.*"), "c2t", ["-c2t-cls", "learn"]),
        ("patches", "cnn", ("blocks.*", "[01]"), "t2c", []),
        ("patches", "attention", ("blocks.0", "blocks.1"), "t2t", ["-c2t-cls", "pool"]),
        ("attention", "cnn", ("embed,mix", "1"), "rc2c_pre", []),
        ("cnn", "attention", ("0", "mix"), "rc2c_pre", []),
        ("attention", "attention", ("features", "features"), "v2v", []),
    ],
)
def test_stitching(front, end, layers, kind, options, folder, in_tmp_path):
    arguments = [*named(folder, front, end), *layers, kind, *options, "-dir", "all"]
    said = run("exec_stitch.py", *arguments, "--mod-only-stitch", "-i", "pinv", "-e", 1).err
    assert "not stitched" not in said
    assert says(said, "height, width, channels", "channels first at") == ("mix" in "".join(layers))
    for values in stitch_rows("results/all"):
        error = float(values["matching_error"])
        assert 0 <= error <= 1 and np.isfinite(float(values["representation_difference"]))
        assert front != end or error < 1e-6  # the identity is found


def test_a_detector_notes_the_file(folder, in_tmp_path):
    how = ["blocks.0", "-m", "repr_cls_vit_tiny", "-e", "0", "-fe", "0"]
    sets = ["-ftidd", "digits", "-ftoodd", "photo_patches", "-dir", "d", "-fdir", "store"]
    run("exec_train_representation_classifier.py", *named(folder, "patches"), *how, *sets)
    (entry,) = read_json("store/meta.json").values()
    assert f"{folder}/nets.py:patches" in entry.values()


@pytest.mark.parametrize(
    ("name", "line"),
    [
        (
            "nets.py:five",
            r"nets.py:five gives 5 for an input, not the logits of 10 classes; let it take n_classes",
        ),
        ("nets.py:text", "returns a str; let it return an nn.Module"),
        ("nets.py:double", "parameters of torch.float64, and inputs are float32"),
        ("nets.py:big", "cannot take images of 1×8×8"),
        (
            "nets.py:classes",
            r"cannot run .*nets.py: TypeError: .*num_classes.*gets those that it takes by name",
        ),
    ],
)
def test_what_a_file_must_give(name, line, tmp_path):
    (tmp_path / "nets.py").write_text(
        FILE
        + "five = lambda: cnn(5, 1)\ntext = lambda: 'x'\ndouble = lambda: nn.Linear(1, 1).double()\n"
        "big = lambda: nn.Sequential(nn.Conv2d(1, 1, 9))\n"
        "classes = lambda num_classes: cnn(num_classes, 1)\n"
    )
    with pytest.raises(UserError, match=line):
        build_model(f"{tmp_path}/{name}", n_channels=1, image_shape=(1, 8, 8))


def test_a_network_of_a_file_runs_only_where_the_command_line_names_it(tmp_path):
    """Also from another place, where two files have a function of one name: that of its content runs."""
    (tmp_path / "mine.py").write_text(FILE)
    run("exec_train.py", "mine.py:cnn", "-e", 0, "-dir", "net", cwd=tmp_path)
    digest = hashlib.sha256(FILE.encode()).hexdigest()
    assert read_json(tmp_path / "net" / "config.txt")["model_type_sha256"] == digest
    pair = ["net/model_0.pt", "net/model_0.pt", "mine.py:cnn", "mine.py:cnn", "0", "1", "auto"]
    run("exec_stitch.py", *pair, "-e", 0, "-i", "pinv", "-dir", "s", cwd=tmp_path)
    evaluate = ["exec_eval_stitcher_ood.py", "results/s", *ON_DIGITS, "--detector", "none"]
    line = commands.error_line(*evaluate, cwd=tmp_path)
    assert f"--own-types {tmp_path}/mine.py:cnn" in line
    (tmp_path / "mine.py").rename(tmp_path / "moved.py")
    (tmp_path / "other.py").write_text("def cnn():\n    raise ValueError\n")
    own = ["--own-types", "other.py:cnn", "moved.py:cnn"]
    assert "has changed" not in commands.run(*evaluate, *own, cwd=tmp_path).err


REFUSED = [
    (
        "IMAGENET1K_V1",
        "tv_squeezenet1_0",
        1000,
        "download https://.*; put the file into .*/hub/checkpoints",
    ),
    ("IMAGENET1K_V9", "tv_squeezenet1_0", 1000, "'IMAGENET1K_V9'; did you mean IMAGENET1K_V1"),
    ("DEFAULT", "small_cnn", 1000, "DEFAULT: small_cnn comes with no such weights"),
    (
        "DEFAULT",
        "tv_squeezenet1_1",
        10,
        "DEFAULT of tv_squeezenet1_1 has 1000 classes, the dataset 10",
    ),
    ("-", "tv_inception_v3", 10, "tv_inception_v3 cannot take images of 3×64×64"),
    ("-", "tv_resnet19", 10, "unknown model 'tv_resnet19'; did you mean tv_resnet18"),
]


def test_weights_of_torchvision(tmp_path, monkeypatch, no_network):
    """An encoder needs no head of as many classes."""
    images = InputSpec(1000, (3, 64, 64))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    state = build_model("tv_squeezenet1_1", n_classes=1000).state_dict()
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    torch.save(state, tmp_path / "hub/checkpoints/squeezenet1_1-b8a52dc0.pth")
    name = NamedNetwork("DEFAULT", "tv_squeezenet1_1")
    front = load_model(name, images._replace(n_classes=10), encoder=True)
    assert front.is_encoder
    for network in (front, load_model(name, images)):
        torch.testing.assert_close(network.state_dict(), state, rtol=0, atol=0)
    for path, kind, n_classes, line in REFUSED:
        with pytest.raises(UserError, match=line):
            load_model(NamedNetwork(path, kind), images._replace(n_classes=n_classes))


def test_torchvision_networks_take_other_channels_and_sizes():
    for name, shape in (("tv_squeezenet1_1", (1, 32, 32)), ("tv_vit_b_32", (2, 64, 64))):
        with torch.no_grad(), torch.device("meta"):
            network = build_model(name, n_classes=5, n_channels=shape[0], image_shape=shape).eval()
            assert network(torch.rand(2, *shape)).shape == (2, 5)


def test_a_network_without_parameters_is_probed_stitched_and_not_trained(in_tmp_path, folder):
    """Its layers are functions of the pixels: a baseline."""
    Path("pixels.py").write_text(
        "from torch import nn\n\n\n"
        "def pixels():\n    return nn.Sequential(nn.AvgPool2d(2), nn.Flatten())\n"
    )
    pixels, cnn = "pixels.py:pixels", f"{folder}/nets.py:cnn"
    run("exec_probe.py", "DEFAULT", pixels, "-l", "output", "-e", 1, "-o", "probes.csv")
    assert 0 < float(read_csv("probes.csv")[0]["accuracy"]) < 1
    pair = ["DEFAULT", folder / "cnn" / "model_1.pt", pixels, cnn, "0", "0", "rc2c_pre"]
    run("exec_stitch.py", *pair, "-e", 0, "-i", "pinv", "-dir", "stitch")
    Path("ten.py").write_text(
        "from torch import nn\n\n\n"
        "def ten():\n    return nn.Sequential(nn.AdaptiveAvgPool2d((2, 5)), nn.Flatten())\n"
    )
    err = run("exec_train.py", "ten.py:ten", "-e", 1, "-dir", "trained", status=2).err
    assert "no parameters to train" in err


def test_a_view_without_parameters_knows_its_device_and_type():
    view = Network(torch.nn.Flatten())
    assert view.example.dtype == torch.float32
    assert view.to("meta", memory_format=torch.channels_last).example.device.type == "meta"
    assert view.double().example.dtype == torch.float64


def test_a_network_that_a_function_wraps_in_data_parallel_is_trained_and_read_again(in_tmp_path):
    wrapped = "nn.DataParallel(nn.Sequential(nn.Flatten(), nn.Linear(64, n_classes)))"
    Path("w.py").write_text(f"from torch import nn\ndef net(n_classes):\n    return {wrapped}\n")
    commands.run("exec_train.py", "w.py:net", *ON_DIGITS, "-e", 1, "-dir", "m")
    assert set(torch.load("m/model_1.pt")) == {"1.weight", "1.bias"}
    assert (
        "Clean accuracy" in commands.run("exec_eval.py", "m/model_1.pt", "w.py:net", *ON_DIGITS).out
    )


def test_layers_with_volumes_let_the_others_be_used(in_tmp_path):
    """Conv3d has no channels_last; a volume is neither a map nor tokens."""
    Path("volumes.py").write_text(VOLUMES)
    volume = "volumes.py:volume"
    pair = ["-", "-", volume, volume, "stem"]
    run("exec_stitch.py", *pair, "stem", "rc2c_pre", "-e", 0, "-i", "pinv", "-dir", "stem")
    (row,) = stitch_rows("results/stem")
    assert float(row["r2_test"]) == pytest.approx(1)  # one network
    for arguments in (
        ["exec_probe.py", "-", volume, "-l", "conv", "-e", 1],
        ["exec_compute_low_rank_sim_metrics.py", *pair, "conv", "-n", 20],
    ):
        assert says(run(*arguments, status=2).err, "shape 4×8×8×8", "choose a layer")


NAMES = ["loss.py:cosine", "/a:b/loss.py:cosine"]
NO_NAMES = ["cka", "loss.py", "loss.py:", "task:10", "/tmp/loss:cosine", "a.b:f", "loss.py:f:10"]


def test_forms_of_names():
    assert all(map(is_user_code, NAMES)) and not any(map(is_user_code, NO_NAMES))
    assert {title_of(name) for name in NAMES} == {"cosine"}
    assert [title_of(name) for name in NO_NAMES] == NO_NAMES


def test_paths_become_absolute(in_tmp_path):
    assert absolute("loss.py:cosine") == f"{in_tmp_path}/loss.py:cosine"
    assert absolute("loss.py:cosine", in_tmp_path / "x") == f"{in_tmp_path}/x/loss.py:cosine"
    unchanged = ["/a/loss.py:cosine", "cka"]
    assert [absolute(name) for name in unchanged] == unchanged


def test_a_file_runs_once_and_may_import_its_neighbours(in_tmp_path):
    before = list(sys.path)
    (in_tmp_path / "neighbour_of_mine.py").write_text("N = 3\n")
    (in_tmp_path / "mine.py").write_text(
        "from neighbour_of_mine import N\ncalls = []\ndef count():\n    calls.append(N)\n    return calls\n"
    )
    assert load("mine.py:count")() == [3]
    assert load(f"{in_tmp_path}/mine.py:count")() == [3, 3]
    assert sys.path == before


@pytest.mark.parametrize(
    ("name", "line"),
    [
        (
            "no.py:f",
            r"cannot run .*/no\.py: FileNotFoundError.*; correct it, or give the right FILE",
        ),
        ("bad.py:f", r"cannot run .*/bad\.py, line 2: ZeroDivisionError: division by zero"),
        ("good.py:ff", r"unknown function in good\.py 'ff'; did you mean f\? known: f"),
    ],
)
def test_errors_are_one_line(name, line, in_tmp_path):
    (in_tmp_path / "bad.py").write_text("\n1 / 0\n")
    (in_tmp_path / "good.py").write_text("def f():\n    pass\n")
    with pytest.raises(UserError, match=line):
        load(name)


def draw(*shape: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


MAPS = draw(60, 4, 4, 4, seed=0)
OTHERS = MAPS + draw(60, 4, 4, 4, seed=1)
LOGITS = draw(60, 3, seed=2)
LABELS = np.arange(60) % 3


def scores(name: str, maps, others, labels):
    detector = make_detector(name)
    detector.add(maps, labels)
    detector.fit()
    return detector.score(others)


CALLS = {
    "mahalanobis": lambda a, b, logits, labels: scores("mahalanobis", a, b, labels),
    "energy": lambda a, b, logits, labels: energy(logits),
    "low_rank_approx": lambda a, b, logits, labels: low_rank_approx(a, 2),
    "full rank": lambda a, b, logits, labels: low_rank_approx(a, None),
    "soft": lambda a, b, logits, labels: soft_label_loss(logits, logits + 1),
    "hint": lambda a, b, logits, labels: hint_loss(a, b),
    "functional": lambda a, b, logits, labels: functional_loss([a, b], [b, a]),
    "feature": lambda a, b, logits, labels: feature_loss(a, b),
    "direct_matching": lambda a, b, logits, labels: direct_matching(a, b).weight,
}


@pytest.mark.parametrize("name", CALLS)
def test_arrays_are_taken_where_tensors_are(name):
    arrays = (MAPS, OTHERS, LOGITS, LABELS)
    of_arrays = CALLS[name](*arrays)
    of_tensors = CALLS[name](*map(torch.from_numpy, arrays))
    assert isinstance(of_arrays, torch.Tensor)
    assert torch.equal(of_arrays, of_tensors)
