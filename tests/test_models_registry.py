"""The table of networks: states, randomly initialised weights, logits and activations of the public code; what
they take."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
import torchvision

from src.core.errors import Misfit, UserError
from src.models import MODEL_NAMES, build_model, vit
from tests.goldens import block_names, golden_input, load_golden_weights

DATA = Path(__file__).parent / "data" / "models"
STATES = json.loads((DATA / "state_dicts.json").read_text())
UNTRAINED = json.loads((DATA / "init_seed0.json").read_text())
BLOCKS = block_names()
GOLDENS = json.loads((DATA / "forward.json").read_text())

# The public code builds these two, but with layers that do not fit one channel, so they cannot run.
BROKEN = {"liu2020_wrn|classes=10|channels=1", "small_cnn|classes=10|channels=1"}
DTYPES = {torch.float32: "f32", torch.int64: "i64"}


def shape(text: str) -> tuple[int, ...]:
    return tuple(int(size) for size in text.split("x"))


def build_labelled(label: str):
    """Build what a label such as
    `repr_cls_resnet18|classes=10|channels=64|repr=64x32x32|orig=3x32x32` describes."""
    name, *parts = label.split("|")
    options = dict(part.split("=") for part in parts)
    return build_model(
        name,
        n_classes=int(options["classes"]),
        n_channels=int(options["channels"]),
        representation_shape=shape(options["repr"]) if "repr" in options else None,
        image_shape=shape(options["orig"]) if "orig" in options else None,
    )


@pytest.mark.parametrize("label", sorted(STATES.keys() - BROKEN))
def test_state_dict_equals_the_public_code(label):
    """Of the weights; and the blocks that `all` stands for."""
    golden = STATES[label]
    with torch.device("meta"):
        network = build_labelled(label)
    state = [
        [key, list(tensor.shape), DTYPES[tensor.dtype]]
        for key, tensor in network.state_dict().items()
    ]
    assert sum(parameter.numel() for parameter in network.parameters()) == golden["n_params"]
    assert [key for key, _, _ in state] == golden.get("keys", [key for key, _, _ in state])
    assert len(state) == golden["n_entries"]
    assert hashlib.sha256(json.dumps(state).encode()).hexdigest() == golden["sha256"]
    assert list(network.block_names) == BLOCKS[label.split("|")[0]]


WITH_GOLDEN = {label.split("|")[0] for label in STATES}


@pytest.mark.parametrize("name", [name for name in MODEL_NAMES if name not in WITH_GOLDEN])
def test_networks_without_a_golden_have_the_entries_of_torchvisions(name):
    """These two: the public code cannot build them."""
    assert name in ("resnext50_32x4d", "resnext101_32x8d")
    with torch.device("meta"):
        networks = torchvision.models.get_model(name, num_classes=10), build_model(name)
    states = [network.state_dict() for network in networks]
    theirs, ours = ({key: value.shape for key, value in state.items()} for state in states)
    assert (ours.pop("conv1.weight")[2:], theirs.pop("conv1.weight")[2:]) == ((3, 3), (7, 7))
    assert ours == theirs
    assert list(networks[1].block_names) == BLOCKS[name]


@pytest.mark.parametrize("label", UNTRAINED)
def test_untrained_weights_equal_the_public_code_in_the_seed(label):
    name, _, representation = label.partition("|")
    torch.manual_seed(0)
    state = build_model(
        name, representation_shape=shape(representation) if representation else None
    ).state_dict()
    assert torch.rand(1).item() == pytest.approx(UNTRAINED[label]["next_rand"])
    for key, total, deviation in UNTRAINED[label]["state"]:
        assert state[key].double().sum().item() == pytest.approx(total, rel=1e-6, abs=1e-3), key
        assert state[key].double().std(correction=0).item() == pytest.approx(
            deviation, rel=1e-6, abs=1e-12
        ), key


# Other tests have their families, in another size or cut and trained
LARGE = [
    "wide_resnet_28_10", "resnet18_samesize", "resnet18", "tv_resnet18", "resnet50", "resnet18__28x28",
    "vit_tiny_patch16_224", "repr_cls_resnet18__repr128x16x16", "repr_cls_vit_tiny__repr65x384",
]  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in GOLDENS],
)
@torch.no_grad()
def test_equals_the_public_code(name):
    golden = GOLDENS[name]
    network = build_model(golden["model"], representation_shape=golden["representation_shape"])
    load_golden_weights(network).double().eval()
    images = golden_input(golden["input_shape"]).double()
    acts = network.activations(images, [*golden["layers"], network.output_name])
    *_, logits = acts.values()
    for key, rounding in (("logits", 1e-9), ("logits_float32", 1e-4)):
        expected = torch.tensor(golden[key], dtype=torch.float64)
        torch.testing.assert_close(
            logits, expected, rtol=0, atol=rounding * expected.abs().max().item()
        )
    for layer, expected in golden["layers"].items():
        values = acts[layer].flatten()
        assert list(acts[layer].shape) == expected["shape"], layer
        found = {
            "stats": [values.mean(), values.std(correction=0)],
            "first": values[:8],
            "last": values[-8:],
        }
        tolerance = 1e-9 * values.abs().max().item()
        for key, numbers in found.items():
            assert [float(number) for number in numbers] == pytest.approx(
                expected[key], rel=1e-9, abs=tolerance
            ), layer


def test_only_infinite_weights_are_clamped(monkeypatch):
    """To -2, as by timm, whose networks of the same seed are then equal to the last weight."""
    monkeypatch.setattr(
        torch.Tensor,
        "uniform_",
        lambda self, low, high: self.copy_(torch.tensor([-1.0, 0.0, 0.9999999])),
    )
    weight = torch.empty(3)
    vit.draw_normal(weight)
    assert weight[0] == -2 and weight[1] == 0 and weight[2] == pytest.approx(0.02 * 5.3, rel=0.05)


@pytest.mark.parametrize(
    ("name", "image_shape"),
    [
        ("resnet18", (1, 28, 28)),
        ("resnext50_32x4d", (3, 9, 11)),
        ("preact_resnet18", (3, 15, 17)),
        ("liu2020_wrn", (5, 9, 9)),
        ("small_cnn", (1, 8, 8)),
        ("small_cnn", (3, 224, 224)),
        ("vit_tiny_patch4_32", (1, 28, 28)),
        ("vit_tiny_patch4_32", (2, 8, 12)),
    ],
)
@torch.no_grad()
def test_any_number_of_channels_and_classes_and_other_sizes(name, image_shape):
    network = build_model(
        name, n_classes=7, n_channels=image_shape[0], image_shape=image_shape
    ).eval()
    assert network(torch.rand(2, *image_shape)).shape == (2, 7)


def test_representation_resnet_resizes_to_the_images():
    network = build_model(
        "repr_cls_resnet18", representation_shape=(4, 5, 7), image_shape=(3, 24, 20)
    ).eval()
    assert network(torch.rand(2, 4, 5, 7), until="resize").shape == (2, 4, 24, 20)


def test_constants_of_three_channels_are_averaged_for_others_and_not_saved():
    network = build_model("preact_resnet18", n_channels=2)
    assert network.module.mean.flatten().tolist() == pytest.approx(
        [(0.4914 + 0.4822 + 0.4465) / 3] * 2
    )
    assert network.module.std.flatten().tolist() == pytest.approx(
        [(0.2471 + 0.2435 + 0.2616) / 3] * 2
    )
    assert not {"mean", "std"} & network.state_dict().keys()


@pytest.mark.parametrize(
    ("name", "shapes", "message"),
    [
        (
            "repr_cls_resnet18",
            {},
            r"takes activations of shape \(channels, height, width\), not images",
        ),
        (
            "repr_cls_resnet18",
            {"representation_shape": (65, 192)},
            r"not \(65, 192\).*repr_cls_vit_\* tokens",
        ),
        (
            "repr_cls_vit_tiny",
            {"representation_shape": (64, 8, 8)},
            r"\(tokens, width\), not \(64, 8, 8\)",
        ),
        (
            "vit_tiny_patch16_224",
            {"image_shape": (3, 28, 32)},
            "28×32 pixels cannot be cut into patches of 16×16",
        ),
        (
            "small_cnn",
            {"image_shape": (3, 7, 9)},
            "cannot take images of 3×7×9: the smallest are 8×8",
        ),
        ("vit_tiny_patch4_32", {}, "the images give 49 patches, this network was built for 64"),
    ],
)
def test_shapes_that_do_not_suit_are_named(name, shapes, message):
    with pytest.raises((UserError, Misfit), match=message):
        build_model(name, **shapes)(torch.rand(1, 3, 28, 28))
