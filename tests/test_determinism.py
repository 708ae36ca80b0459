"""Networks that are random, or depend on the batch, when they are evaluated: found where they are
loaded, recorded by stitches, and inconclusive in the verdict."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from src.core.inputs import InputSpec, Normalisation
from src.core.values import BATCH_DEPENDENT, STOCHASTIC
from src.models import Network, build_model
from src.models.determinism import nondeterminism_of
from tests import traps
from tests.commands import ON_DIGITS, read_metrics, run, stitch_rows
from tests.conftest import few_images
from tests.tiny_networks import Computed

GREY, COLOURED = InputSpec(10, (1, 8, 8)), InputSpec(4, (3, 4, 4))


def small(change) -> nn.Module:
    """A network that changes its features (B, 8, 4, 4)."""
    return Computed(
        lambda net, x: net.head(net.two(change(net.norm(net.one(x)))).relu().mean((2, 3))),
        one=nn.Conv2d(1, 8, 2, 2),
        norm=nn.BatchNorm2d(8),
        two=nn.Conv2d(8, 8, 1),
        head=nn.Linear(8, 10),
    )


def drop_path(x):
    for _ in range(6):
        x = x + x.relu() * (torch.rand(len(x), 1, 1, 1) < 0.5)
    return x


DRAWS = np.random.default_rng(0)  # a generator of a user's own
STEPS, NO_STATISTICS = nn.GRU(16, 16), nn.BatchNorm2d(8, track_running_stats=False)
CHANGES = {
    STOCHASTIC: {
        "dropout": lambda x: F.dropout(x, 0.3),
        "drop path": drop_path,
        "own generator": lambda x: x * torch.from_numpy(DRAWS.uniform(0.5, 2, x.shape)).to(x),
    },
    BATCH_DEPENDENT: {
        "less the mean": lambda x: x - x.mean(0),
        "over the largest": lambda x: x / x.abs().amax(),
        "no running statistics": NO_STATISTICS,
        # Attention and recurrence that take the images for steps
        "over the batch": lambda x: x + STEPS(x.flatten(2))[0].unflatten(2, (4, 4)),
        "flipped": lambda x: x + x.flip(0),
    },
    "": {"none": lambda x: x, "constant": lambda x: 0 * x},
}


def rounded(logits):
    """As in low precision, with steps that depend on the batch."""
    step = 1e-3 * logits.std() * (1 + logits.mean())
    return (logits / step).round() * step


def network(module: nn.Module, images: InputSpec = GREY) -> Network:
    torch.manual_seed(0)
    for parameter in module.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter)
    return Network(module.eval(), image_shape=images.shape, n_classes=images.n_classes)


@pytest.mark.parametrize(
    ("found", "name"), [(found, name) for found in CHANGES for name in CHANGES[found]]
)
@torch.no_grad()
def test_networks_that_are_random_or_depend_on_the_batch(found, name):
    assert nondeterminism_of(network(small(CHANGES[found][name])), GREY) == found


def test_what_rounding_does_does_not_count():
    module = small(lambda x: x)
    module = Computed(lambda net, x: rounded(net.net(x)), net=module)
    assert nondeterminism_of(network(module), GREY) == ""


@pytest.mark.parametrize("kind", [*traps.TRAPS, traps.Patches])
def test_steady_networks_of_all_kinds(kind):
    """Those that draw no numbers in evaluation mode; `RandomBranch` does."""
    torch.manual_seed(0)
    found = nondeterminism_of(Network(kind().eval(), image_shape=COLOURED.shape), COLOURED)
    assert found == (STOCHASTIC if kind is traps.RandomBranch else "")


@pytest.mark.parametrize("name", ["small_cnn", "vit_tiny_patch4_32"])
def test_steady_networks_of_the_suite(name):
    shape = (3, 32, 32) if name.startswith("vit") else (3, 8, 8)
    normalised = InputSpec(10, shape, Normalisation((0.5,) * 3, (0.2,) * 3))
    torch.manual_seed(0)
    module = build_model(name, image_shape=shape).eval()
    assert nondeterminism_of(module, normalised) == ""
    assert nondeterminism_of(module.double(), normalised) == ""


def test_generators_statistics_and_modes_stay():
    module = small(lambda x: x)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    buffers = [buffer.clone() for buffer in module.buffers()]
    module.train()  # a network that moves its statistics
    nondeterminism_of(Network(module, image_shape=GREY.shape), GREY)
    assert torch.equal(before, torch.get_rng_state()) and module.training
    assert all(map(torch.equal, buffers, module.buffers()))


NETS = """import torch.nn.functional as F
from torch import nn


class CNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 8, 3, 2), nn.Conv2d(8, 8, 2)
        self.head = nn.Linear(8, 10)

    def forward(self, images):
        return self.head(self.two(self.change(self.one(images))).relu().mean((2, 3)))

    def change(self, x):
        return x.relu()


class Dropout(CNN):
    def change(self, x):
        return F.dropout(x.relu(), 0.3)


class LessTheMean(CNN):
    def change(self, x):
        return x - x.mean(0)
"""


def test_scripts_warn_where_a_network_is_loaded_and_runs_record_it(in_tmp_path):
    (in_tmp_path / "nets.py").write_text(NETS)
    kinds = [f"{in_tmp_path}/nets.py:{name}" for name in ("CNN", "Dropout", "LessTheMean")]
    repeatable, dropout, less = kinds
    said_of = {
        dropout: f"warning: - ({dropout}, seed 0) is stochastic in evaluation mode",
        less: f"warning: - ({less}, seed 0) gives logits that depend on the other inputs of a batch",
    }
    options = [
        "one",
        "two",
        "auto",
        "-e",
        0,
        "-i",
        "covariance",
        "--mod-only-stitch",
        "-dir",
        "grid",
    ]
    with few_images(60, n_test=40):
        for front, end in ((repeatable, dropout), (less, repeatable), (repeatable, repeatable)):
            said = run("exec_stitch.py", "-", "-", front, end, *options, *ON_DIGITS).err
            for kind, line in said_of.items():
                assert said.count(line) == (kind in (front, end)), said
        run("misc/collect_results.py", "results/grid")
    rows = stitch_rows("results/grid")
    found = [(row["front_nondeterminism"], row["end_nondeterminism"]) for row in rows]
    assert found == [("", "random"), ("batch", ""), ("", "")]
    folder = in_tmp_path / "results" / "grid" / rows[1]["folder"]
    metrics = read_metrics(folder)
    assert (metrics["front_nondeterminism"], metrics["end_nondeterminism"]) == ("batch", None)


# ---- Probabilities in the place of logits

SOFT = """import torch

from src.models import build_model


def plain(n_classes, n_channels):
    return build_model("small_cnn", n_classes=n_classes, n_channels=n_channels).module


def soft(n_classes, n_channels):
    return torch.nn.Sequential(plain(n_classes, n_channels), torch.nn.Softmax(1))
"""


@pytest.mark.parametrize(("name", "is_soft"), [("plain", False), ("soft", True)])
def test_probabilities_are_warned_of_in_training_and_where_networks_are_loaded(
    name, is_soft, in_tmp_path
):
    (in_tmp_path / "nets.py").write_text(SOFT)
    trained = run("exec_train.py", f"nets.py:{name}", *ON_DIGITS, "-e", "0", "-dir", "m")
    loaded = run("exec_eval.py", "m/model_0.pt", f"nets.py:{name}", *ON_DIGITS)
    for printed in (trained, loaded):
        assert printed.err.count("sum to 1") == is_soft
