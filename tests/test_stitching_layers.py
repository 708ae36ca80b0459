"""Stitching layers: goldens of all kinds, identities, and shapes that do not fit. Grids that are resized are in
test_any_layers.py and test_token_layout.py."""

import pytest
import torch

from src.core.errors import UserError
from src.stitching.layers import THRESHOLDS, build_stitching_layer, resize_maps
from tests.goldens import load_golden_weights, notes, numbers, tensor

NAME = "stitching_layers"
LAYERS = notes(NAME)["layers"]
# Where the public code does something else on purpose: sizes that do not fit are errors here, not
# other shapes.
REFUSED = {
    "c2c_eye_unequal",
    "c2c_size_mismatch",
    "c2t_None",
    "c2t_eye_is_ignored",
    "t2c_non_square_18tok",
}
OTHERS = {
    "t2t_token_count_differs"
}  # is resized to the tokens of the target, where the public code keeps the source's
REACHABLE = [
    case for case in LAYERS if isinstance(LAYERS[case], dict) and "state_dict" in LAYERS[case]
]
BUILT = [case for case in REACHABLE if case not in REFUSED | OTHERS]


def build(case: str, **changes):
    golden = LAYERS[case]
    options = dict(golden["options"])
    is_identity = options.pop("init", "rand") == "eye"
    options = {"is_identity": is_identity, **options, **changes}
    return build_stitching_layer(golden["type"], golden["src"], golden["dst"], **options)


@pytest.mark.parametrize("case", [case for case in BUILT if f"{case}/y" in numbers(NAME)])
def test_outputs_equal_the_public_code(case):
    layer = build(case, is_identity=False)
    assert [[key, list(value.shape)] for key, value in layer.state_dict().items()] == LAYERS[case][
        "state_dict"
    ]
    load_golden_weights(layer, 500)
    torch.testing.assert_close(
        layer(tensor(NAME, f"{case}/x")), tensor(NAME, f"{case}/y"), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("case", [case for case in BUILT if "rc2c_pre_eye" not in case])
def test_initialisation_equals_the_public_code_in_the_seed(case):
    torch.manual_seed(0)
    state = build(case).state_dict()
    for key, value in state.items():
        expected = tensor(NAME, f"{case}/init_seed0/{key}")
        torch.testing.assert_close(
            value, expected, rtol=0, atol=1e-7
        )  # processors scale the draws in other orders


def test_eye_is_the_identity_and_resizes():
    x = torch.randn(2, 6, 4, 4)
    for kind in ("rc2c_pre", "rc2c_post", "c2c"):
        torch.testing.assert_close(
            build_stitching_layer(kind, (6, 4, 4), (6, 4, 4), is_identity=True)(x), x
        )
    layer = build_stitching_layer("rc2c_pre", (6, 4, 4), (6, 8, 8), is_identity=True)
    torch.testing.assert_close(layer(x), resize_maps(x, (8, 8), "bilinear"))


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize(
    ("source", "target"), [((4, 4), (8, 8)), ((8, 8), (4, 4)), ((3, 5), (7, 4))]
)
def test_convolving_first_or_last_is_the_same(mode, source, target):
    layer = build_stitching_layer(
        "rc2c_pre", (3, *source), (2, *target), upsample_mode=mode
    ).double()
    x = torch.randn(2, 3, *source, dtype=torch.float64)
    torch.testing.assert_close(layer(x), layer.transform(resize_maps(x, target, mode)))
    torch.testing.assert_close(layer(x), resize_maps(layer.transform(x), target, mode))


def test_sparsity_and_l1_count_weight_and_bias():
    golden = numbers("sparsity_l1")
    layer = build_stitching_layer("c2c", (5, 1, 1), (6, 1, 1))
    layer.set_affine(torch.from_numpy(golden["weight"]), torch.from_numpy(golden["bias"]))
    assert list(map(float, THRESHOLDS)) == golden["thresholds"].tolist()
    assert list(layer.sparsity().values()) == pytest.approx(golden["sparsity_weight_bias"].tolist())
    total = golden["cross_entropy"] + 0.1 * layer.l1_norm().item()
    assert total == pytest.approx(golden["l1_loss/coef=0.1"].item(), rel=1e-6)


@pytest.mark.parametrize(("use", "expected"), [(None, 0.0), ("add", 0.1), ("only", 1.0)])
def test_t2t_uses_a_cls_token_of_the_source_alone(use, expected):
    layer = build_stitching_layer("t2t", (5, 3), (4, 3), is_identity=True, t2c_cls_token=use)
    x = torch.randn(2, 5, 3)
    patches = x[:, 1:] * (use != "only") + expected * x[:, :1]
    torch.testing.assert_close(layer(x), patches)


def test_vectors_are_mapped_linearly():
    layer = build_stitching_layer("t2t", (6,), (7,))  # as the paper's code, which has no v2v
    x = torch.randn(4, 6)
    torch.testing.assert_close(layer(x), x @ layer.transform.weight.T + layer.transform.bias)


@pytest.mark.parametrize(
    ("kind", "source", "target", "options", "line"),
    [
        ("c2c", (6, 2, 2), (5, 2, 2), {"is_identity": True}, "equal widths"),
        ("c2c", (6, 2, 2), (6, 3, 2), {}, "equal size"),
        (
            "c2t",
            (6, 2, 2),
            (17, 6),
            {},
            "17 tokens, 1 token in front of 4×4 patches: what .* made; use c2t_cls_token pool",
        ),
        ("t2c", (18, 6), (6, 2, 2), {}, "patch tokens that form a grid, not the 18"),
        ("t2c", (5, 6), (6, 2, 2), {"is_identity": True}, "init eye is not defined"),
        ("rc2c_pre", (5, 6), (6, 2, 2), {}, "use t2c"),
        ("rc2c_pre", (10,), (6, 2, 2), {}, "use v2c"),
        (
            "t2t",
            (7, 6),
            (4, 6),
            {},
            "patch tokens that form a grid, not the 7 tokens of a sequence; use s2t",
        ),
        ("t2t", (4, 6), (5, 6), {}, "has to be made; use c2t_cls_token pool or learn"),
        ("t2t", (6,), (4, 6), {}, "use v2t"),
        (
            "c2t",
            (6, 3, 3),
            (16, 6),
            {"c2t_cls_token": "pool"},
            "no token stands in front of the patches of the end layer, .*16 tokens; leave it out",
        ),
    ],
)
def test_shapes_that_do_not_fit(kind, source, target, options, line):
    with pytest.raises(UserError, match=line):
        build_stitching_layer(kind, source, target, **options)
