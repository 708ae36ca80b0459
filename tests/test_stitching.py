"""Stitching layers and stitched models: the public code's values, low ranks, transformations that are known, and
runs of stitches."""

import copy
import json
import math
import re
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

import exec_stitch
from src.cli import descending
from src.core.activations import as_rows
from src.core.errors import UserError
from src.core.values import Metrics, Predictions
from src.low_rank import low_rank_approx, principal_components
from src.models import Network, build_model
from src.ood import make_detector, ood_metrics
from src.results import stitch_runs
from src.results.checkpoints import load_state
from src.results.frame import judge_stitches
from src.results.stitch_runs import GridRun, check_options, resume
from src.results.stitches import RunFiles, Stitch, columns_of_skill, metrics_of, read_stitches
from src.skill.baseline import Baselines
from src.skill.running import Following
from src.skill.skills import skill_of
from src.stitching import (
    Grid,
    Pair,
    StitchedModel,
    build_layers,
    build_stitching_layer,
    direct_matching,
    match_layers,
)
from src.stitching.closed_forms import Matching
from src.stitching.grid import GridMetrics, agreement_of
from src.stitching.layers import THRESHOLDS, resize_maps
from src.training import EpochLog, HeadResult
from tests.commands import ON_DIGITS, digit_images, read_json, run, says
from tests.conftest import few_images
from tests.frames import rows_of
from tests.goldens import DATA, load_golden_weights, notes, numbers, tensor
from tests.result_rows import stitch
from tests.run_content import content
from tests.tiny_networks import PLAIN, plain_network

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


MODELS = "stitched_models"
GOLDENS = {golden["tag"]: golden for golden in notes(MODELS)}
LONG = [tag for tag in GOLDENS if "vit_small" in tag]  # the widths of t2t differ in test_any_layers


@cache
def golden_network(name: str, base: int):
    return load_golden_weights(build_model(name), base).double().eval().requires_grad_(False)


def stitched(golden) -> StitchedModel:
    options = {name: value for name, value in golden["options"].items() if name != "init"}
    layer = build_stitching_layer(
        golden["type"], golden["shapes"]["front"][1:], golden["shapes"]["end"][1:], **options
    )
    front, end = golden_network(golden["front"], 0), golden_network(golden["end"], 10000)
    pair = Pair(golden["front_layer"], golden["end_layer"])
    layer = load_golden_weights(layer, 500).double()
    return StitchedModel(front, end, layer, pair, front_rank=golden["front_rank"])


@pytest.fixture(scope="module")
def images():
    x = torch.sin(torch.arange(2 * 3 * 32 * 32, dtype=torch.float64) * 0.01)
    return x.float().double().reshape(2, 3, 32, 32)


@pytest.mark.parametrize(
    "tag", [pytest.param(tag, marks=pytest.mark.slow) if tag in LONG else tag for tag in GOLDENS]
)
@torch.no_grad()
def test_models_equal_the_public_code(tag, images):
    model = stitched(GOLDENS[tag])
    source = low_rank_approx(model.front(images, until=model.pair.front_layer), model.front_rank)
    made, target = model.stitching_layer(source), model.end(images, until=model.pair.end_layer)
    found = {
        "logits": model(images),
        "stitched_stats": torch.stack([made.mean(), made.std(correction=0)]),
        "repr_diff": (made - target).square().sum() / target.square().sum(),
    }
    for key, value in found.items():
        golden = torch.as_tensor(numbers(MODELS)[f"{tag}/{key}64"])
        torch.testing.assert_close(value, golden, rtol=1e-9, atol=1e-9, msg=key)


def test_whole_state_has_the_keys_of_the_public_code():
    golden = GOLDENS["resnet18:layer3.1->resnet18:layer2.0|rc2c_pre"]
    front, end = golden_network("resnet18", 0), golden_network("resnet18", 10000)
    layer = build_stitching_layer("rc2c_pre", (256, 8, 8), (128, 16, 16))
    state = StitchedModel(front, end, layer, Pair("layer3.1", "layer2.0")).state_dict()
    assert len(state) == golden["n_state_keys"]
    doubled = {key for key in state if ".stitch_from_layer." in key or ".stitch_to_layer." in key}
    assert set(golden["state_keys_with_prefix_stitch_from_layer_or_stitch_to_layer"]) <= doubled
    assert torch.equal(state["front_model.model.fc.bias"], front.module.fc.bias)


# Stitching runs of the public code, with its weights, images and samples


RUNS = DATA / "public_runs"
DET_RUNS = read_json(DATA / "det_unrounded.json")
DET_RUNS = {
    name: golden
    for name, golden in DET_RUNS.items()
    if isinstance(golden, dict) and "accuracy" in golden
}


@pytest.fixture(scope="module")
def halves():
    return [
        copy.deepcopy(golden_network("resnet18", base)).to(torch.float32) for base in (0, 10000)
    ]


def batches(split: str, *, indices=slice(None)):
    with np.load(DATA / "data_small.npz") as arrays:
        gray = torch.from_numpy(arrays[f"{split}_gray"])[indices]
        labels = torch.from_numpy(arrays[f"{split}_labels"])[indices]
    images = gray[:, None].repeat(1, 3, 1, 1).float() / 255
    return list(zip(images.split(64), labels.split(64), strict=True))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if "frontstitch" in name else pytest.mark.slow)
        for name in DET_RUNS
    ],
)
def test_direct_matching_repeats_the_run(halves, name):
    golden = DET_RUNS[name]
    folder = RUNS / golden["results_dir"].removeprefix("results/")
    pair = Pair(golden["front_layer"], golden["end_layer"])
    (samples,) = (golden[key] for key in golden if key.startswith("pinv_sample_indices"))
    layers, _ = build_layers(
        *halves, [pair.front_layer], [pair.end_layer], "rc2c_pre", image_shape=(3, 32, 32), seed=0
    )
    grid = Grid(*halves, layers, front_rank=golden["front_stitch_rank"])

    errors = match_layers(
        *halves, layers, batches("train", indices=samples), rank=golden["front_pinv_rank"]
    )
    state = load_state(folder / "final_model.pt")
    for key, value in layers[pair].state_dict().items():
        torch.testing.assert_close(value, state[key], rtol=0, atol=7e-6)
    error = golden["loss of float64 pinv weights, cutoff max(rows,cols)*eps32"]
    assert errors[pair].error == pytest.approx(error, rel=1e-5)

    score = grid.evaluate(batches("test"))
    assert score.pairs[pair].accuracy == pytest.approx(golden["accuracy"])
    difference = golden["repr_diff over all samples at once"]
    assert score.pairs[pair].representation_difference == pytest.approx(difference, rel=1e-4)


CASES = sorted(key for key in numbers("low_rank") if "/rank" in key and "directly" not in key)


def test_low_ranks_equal_the_public_code():
    for key in CASES:
        case, _, rank = key.partition("/rank")
        x = tensor("low_rank", f"{case}/x")
        tolerance = 2e-5
        if key.endswith("_64"):
            x = x.double()
            tolerance = 1e-12
        truncated = low_rank_approx(x, int(rank.removesuffix("_64")))
        expected = tensor("low_rank", key)
        torch.testing.assert_close(truncated, expected, rtol=tolerance, atol=tolerance, msg=key)


@pytest.fixture
def x():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, 5, 4, 3, dtype=torch.float64, generator=generator) + 2


def test_keeps_the_mean_has_the_rank_and_drops_the_least_variance(x):
    before = x.clone()
    rows = as_rows(x)
    truncated = as_rows(low_rank_approx(x, 2))
    torch.testing.assert_close(truncated.mean(0), rows.mean(0))
    assert torch.linalg.matrix_rank(truncated - truncated.mean(0)) == 2
    sigma = torch.linalg.svdvals(rows - rows.mean(0))
    torch.testing.assert_close((truncated - rows).square().sum(), sigma[2:].square().sum())
    torch.testing.assert_close(low_rank_approx(low_rank_approx(x, 2), 2), low_rank_approx(x, 2))
    assert torch.equal(x, before)
    constant = torch.full((8, 6, 3, 3), 0.3)
    torch.testing.assert_close(low_rank_approx(constant, 2), constant)


def test_full_rank_and_none_change_nothing_and_ranks_below_one_are_refused(x):
    assert low_rank_approx(x, 5) is low_rank_approx(x, 500) is low_rank_approx(x, None) is x
    with pytest.raises(ValueError, match="not positive"):
        low_rank_approx(x, 0)


@pytest.mark.parametrize("shape", [(6, 12, 4, 3), (20, 12), (7, 12), (1, 12)])
def test_axes_are_orthonormal_and_sorted_by_variance(shape):
    acts = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 2
    mean, axes = principal_components(acts, 12)
    n_rows = acts.numel() // 12
    assert axes.shape[1] == min(12, n_rows - 1)  # n samples vary in n - 1 directions
    torch.testing.assert_close(axes.T @ axes, torch.eye(axes.shape[1], dtype=torch.float64))
    assert (((as_rows(acts) - mean) @ axes).square().sum(0).diff() <= 1e-12).all()


def test_gradients_are_those_of_a_constant_projection(x):
    x.requires_grad_()
    weights = torch.rand_like(x)
    (low_rank_approx(x, 2) * weights).sum().backward()
    mean, axes = principal_components(x, 2)
    torch.testing.assert_close(as_rows(x.grad), as_rows(weights) @ axes @ axes.T)


def test_ranks_of_an_option():
    assert descending([4, 64, 4]) == [64, 4] and descending([4, 0, 64]) == [None, 64, 4]
    assert descending(None) == descending([]) == descending([0]) == [None]


LAYER = "4"
KNOWN = {
    "itself": "similar",
    "class means": "accurate only",
    "shrunk to 0.7": "similar",
    "noise": "similar",
    "constant maps": "not matched",
    "shuffled positions": "not matched",
    "untrained front": "not matched",
}


def judged(*results):
    return rows_of(judge_stitches(*results))


@pytest.fixture(scope="module")
def end() -> Network:
    """The network as it was trained once: no verdict depends on the rounding of a training run."""
    trained = plain_network()
    trained.module.load_state_dict(torch.load(PLAIN, weights_only=True))
    return trained.eval().requires_grad_(False)


def digits(*, train: bool) -> tuple[torch.Tensor, torch.Tensor]:
    ((images, labels),) = digit_images(train=train).batches(2000)
    return images, labels


@pytest.fixture(scope="module")
def baselines(end) -> Baselines:
    train, test = (digit_images(train=is_train) for is_train in (True, False))
    return Baselines(end, train, test, torch.arange(len(test)), batch_size=360)


def run_of(baselines: Baselines, made: torch.Tensor, name: str, layer: str = LAYER) -> Stitch:
    """A run whose stitch gives the end network these activations of the test images."""
    images, labels = digits(train=False)
    end, key = baselines.end, baselines.key(layer, made.shape[1])
    logits = end(made, after=layer)
    following = Following(end, [layer], image_shape=images.shape[1:])
    following.add_end(end.activations(images, [layer, end.output_name]))
    following.add_stitches([name], layer, made[None], logits[None])
    skill = skill_of(following.products(name), baselines.measured([key])[key])
    made_stitch = stitch(front_layer=name, end_layer=layer, n_epochs=0)
    own = end(images).argmax(1)
    classes = logits.argmax(1), own, own, labels
    predictions = Predictions(*(of_images.numpy() for of_images in classes))
    made_stitch.files.__dict__["predictions"] = {made_stitch.pair: predictions}
    return replace(made_stitch, folder=Path(name), evaluation=columns_of_skill(skill))


def controls_of(end: Network) -> dict[str, torch.Tensor]:
    """The activations that each negative control makes of the test images."""
    (images, labels), (test_images, _) = (digits(train=train) for train in (True, False))
    acts, own = end(images, until=LAYER), end(test_images, until=LAYER)
    mean, std = acts.mean((0, 2, 3), keepdim=True), acts.std((0, 2, 3))[:, None, None]
    class_means = torch.stack([acts[labels == label].mean(0) for label in range(10)])
    torch.manual_seed(0)
    noise, untrained = torch.randn_like(own), plain_network().eval()
    weight, bias, *_ = direct_matching(untrained(images, until=LAYER), acts, cutoff="exact")
    return {
        "itself": own,
        "class means": class_means[end(own, after=LAYER).argmax(1)],
        "shrunk to 0.7": mean + 0.7 * (own - mean),
        "noise": own + 0.7 * std * noise,
        "constant maps": own.mean((2, 3), keepdim=True).expand_as(own),
        "shuffled positions": own.flatten(2)[:, :, torch.randperm(own[0, 0].numel())].view_as(own),
        "untrained front": maps_of(untrained(test_images, until=LAYER), weight, bias),
    }


def maps_of(source: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return torch.einsum("oc,nchw->nohw", weight.float(), source) + bias.float()[:, None, None]


@torch.no_grad()
def test_the_word_on_each(end, baselines):
    """Constant and shuffled maps leave every score of pooled features as it is."""
    (images, labels), made = digits(train=True), controls_of(end)
    detector = make_detector("mahalanobis")
    detector.add(end(images, until=LAYER), labels)
    detector.fit()
    runs = [run_of(baselines, acts, name) for name, acts in made.items()]
    verdicts = {row.front_layer: row for row in judged(runs)}
    assert {name: row.verdict for name, row in verdicts.items()} == KNOWN
    skills = {name: row.skill for name, row in verdicts.items()}
    assert skills["itself"] == pytest.approx(1) and skills["shrunk to 0.7"] > 0.9
    for name in ("constant maps", "shuffled positions"):
        scores = [detector.score(acts) for acts in (made["itself"], made[name])]
        assert ood_metrics(*scores).auroc == pytest.approx(0.5, abs=1e-3)


def other_images(end: Network) -> dict[str, torch.Tensor]:
    """The training image that each cheat shows in the place of a test image, as its index."""
    (images, labels), (test_images, _) = (digits(train=train) for train in (True, False))
    logits, test_logits = end(images), end(test_images)
    is_of_class = labels == test_logits.argmax(1)[:, None]  # (n_test, n_train)
    drawn = torch.multinomial(is_of_class.float(), 1, generator=torch.Generator().manual_seed(0))
    nearest = torch.cdist(test_logits, logits).argmin(1)
    return {"nearest in logits": nearest, "random of the predicted class": drawn[:, 0]}


@torch.no_grad()
def test_another_image_is_never_similar(end, baselines):
    """It is accurate, by real activations of the end network, two blocks before its end."""
    images, _ = digits(train=True)
    acts = end(images, until="2")
    runs = [run_of(baselines, acts[shown], name, "2") for name, shown in other_images(end).items()]
    nearest, drawn = judged(runs)
    for row in (nearest, drawn):
        assert row.accuracy_drop < 0.05 and row.verdict == "accurate only"
    assert drawn.skill < 0 and nearest.skill_at_end < 0


@pytest.mark.parametrize("form", ["pinv", "covariance"])
@torch.no_grad()
def test_features_clustered_by_class_are_never_similar(end, baselines, form):
    """A front of the class and noise (Smith et al. 2025): its stitches are accurate, and make class
    means."""
    draw, source = torch.Generator().manual_seed(0), {}
    centres = (
        torch.eye(160).unflatten(0, (10, 16)).transpose(1, 2).unflatten(2, (4, 4))
    )  # of each class and position
    for train in (True, False):
        labels = digits(train=train)[1]
        source[train] = centres[labels] + 0.03 * torch.randn(len(labels), 160, 4, 4, generator=draw)
    target = end(digits(train=True)[0], until=LAYER)
    weight, bias, *_ = direct_matching(source[True], target, form=form, cutoff="exact")
    (verdict,) = judged([run_of(baselines, maps_of(source[False], weight, bias), form)])
    assert verdict.verdict == "accurate only" and verdict.skill < 0


PAIR = Pair("layer2.0", "layer3.0")
INSIDE = ["layer2.0", "layer3.0.conv1", "layer3.0.bn2"]  # but the first
WORDS = ["f.pt", "g.pt", "resnet18", "resnet18", *PAIR, "rc2c_pre"]


def options_of(*arguments: str) -> dict:
    return vars(exec_stitch.parser().parse_args([*WORDS, *arguments]))


@pytest.fixture(scope="module")
def networks():
    return [
        build_model("resnet18_samewidth", n_channels=1, image_shape=(1, 8, 8)) for _ in range(2)
    ]


@pytest.fixture(scope="module")
def layer(networks):
    return build_layers(
        *networks, *([name] for name in PAIR), "rc2c_pre", image_shape=(1, 8, 8), seed=0
    )[0][PAIR]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["--front-pinv-rank", "8"],
            "--front-pinv-rank has an effect only with -i pinv, covariance, ortho",
        ),
        (
            ["-pinv-samples", "auto"],
            "-pinv-samples has an effect only with -i pinv, covariance, ortho",
        ),
        (["-e", "0"], "-e 0 -i rand: a random stitching layer is measured"),
        ([], "without --mod-only-stitch the BatchNorm statistics of both networks move"),
        (["--mod-only-stitch"], ""),
        (["-e", "0", "-i", "pinv"], ""),
        (["--mod-only-stitch", "--front-stitch-rank", "64"], ""),
        (
            ["--mod-only-stitch", "--front-stitch-rank", "65"],
            "rank 65 is above the width of layer2.0 (64)",
        ),
    ],
    ids=str,
)
def test_options_without_effect_are_named(arguments, line, networks, layer, capsys):
    check_options(options_of(*arguments), {PAIR: layer}, *networks)
    err = capsys.readouterr().err
    assert line in err and bool(line) == bool(err)


def test_auto_says_what_it_chooses(networks, capsys):
    shapes = [((8, 4, 4), (6,)), ((8,), (6,)), ((8,), (6, 4, 4)), ((5, 8), (5, 6))]
    layers = {
        Pair(f"x{place}", "fc"): build_stitching_layer("auto", *sides)
        for place, sides in enumerate(shapes)
    }
    options = options_of("--mod-only-stitch") | {"stitching_type": "auto"}
    check_options(options, layers, *networks)
    (chosen,) = (line for line in capsys.readouterr().err.splitlines() if "auto chooses" in line)
    assert says(chosen, "c2v for 1 pair (a mean over positions)", "v2v for 1 pair,")
    assert says(chosen, "v2c for 1 pair (one value at all positions)", "t2t for 1 pair")


def test_cuts_around_which_the_images_go_on_are_noted_once(networks, layer, capsys):
    pairs = dict.fromkeys(
        (Pair(front, end) for front in ("layer1.0", "layer2.0") for end in INSIDE), layer
    )
    check_options(options_of("--mod-only-stitch"), pairs, *networks)
    (line,) = capsys.readouterr().err.splitlines()
    assert says(
        line, "layer3.0.conv1, layer3.0.bn2", "inside a block", "shortcut carries information"
    )


def resumed(folder: Path, layers, options) -> GridRun:
    """The runs of a folder that go on with these options."""
    runs = GridRun(folder, layers, options)
    resume(folder, [runs])
    return runs


def test_a_finished_run_of_the_public_code_is_finished(layer, tmp_path, capsys):
    """Its scheduler is "", and it has no options that are new."""
    public = min((DATA / "public_runs" / "trained").iterdir())
    shutil.copytree(public, tmp_path / public.name)
    written = json.loads((public / "config.txt").read_text())
    assert "objective" not in written
    (tmp_path / public.name / "config.txt").write_text(json.dumps(written | {"scheduler": ""}))
    pair = Pair(written["front_layer"], written["end_layer"])
    options = options_of() | written
    layers = {pair: layer}
    assert not resumed(tmp_path, layers, options).layers
    assert not resumed(tmp_path, layers, options | {"learning_rate": 7}).layers  # of no training
    assert resumed(tmp_path, layers, options | {"batch_size": 7}).layers == layers
    assert resumed(tmp_path, layers, options | {"seed": 7}).layers == layers
    trained = {"objective": "hint", "n_epochs": 3}
    assert resumed(tmp_path, layers, options | trained).layers == layers


def logs_of(losses) -> dict[Pair, EpochLog]:
    """The logs of an epoch with these losses."""
    logs = {}
    for pair, loss in losses.items():
        result = HeadResult(0.5, loss, loss)
        logs[pair] = EpochLog(result, result)
    return logs


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_whole_networks_are_one_folder_with_a_folder_a_pair(epochs, tmp_path):
    """Interrupted after so many of four epochs, its finished pairs count, and the others go on beside
    them."""
    given = ["exec_stitch.py", "-", "-", "small_cnn", "small_cnn", "pool3,pool4", "pool4", "rc2c_pre",
             *ON_DIGITS, "-e", 2, "-dir", "s", "--resume"]  # fmt: skip
    logged = []
    folders_read = []

    def interrupted(self, history, state):
        log(self, history, state)
        logged.append(self)
        if len(logged) == epochs:
            raise KeyboardInterrupt

    log = GridRun.log
    for folder in ("whole", "cut"):
        (tmp_path / folder).mkdir()
    with few_images(64, n_test=30):
        run(*given, cwd=tmp_path / "whole")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(GridRun, "log", interrupted)
            run(*given, cwd=tmp_path / "cut", status=130)
        finished, _ = read_stitches(tmp_path / "cut/results/s")
        assert len(finished) == (epochs == 3)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                stitch_runs,
                "read_stitches",
                lambda path: folders_read.append(path) or read_stitches(path),
            )
            run(*given, cwd=tmp_path / "cut")
    assert len(folders_read) == 1  # whatever the number of pairs
    assert content(tmp_path / "cut") == content(tmp_path / "whole")
    stitches, skipped = read_stitches(tmp_path / "cut/results/s")
    (call,) = (tmp_path / "cut/results/s").iterdir()
    assert {stitch.folder for stitch in stitches} == {call} and not skipped
    assert [stitch.place for stitch in stitches] == [
        (call.name, Pair(front, "pool4")) for front in ("pool3", "pool4")
    ]


def test_pairs_that_were_begun_together_go_on_together(layer, tmp_path, capsys):
    """In other batches they could round otherwise."""
    others = [Pair("layer2.0", "layer3.1"), Pair("layer1.0", "layer3.1")]
    pairs = dict.fromkeys([PAIR, *others], layer)
    options = options_of("--mod-only-stitch", "-e", "1", "-gpu", "-1")
    begun = GridRun(tmp_path, pairs, options)
    assert not list(tmp_path.iterdir())  # a failure in the first epoch leaves nothing
    losses = {pair: float(number) for number, pair in enumerate(reversed(pairs))}
    begun.log([logs_of(losses)], {"history": torch.ones(1, 3, 2, 3), "weight": torch.ones(1)})
    epochs = RunFiles(begun.folder, list(pairs)).epochs
    assert {pair: float(row["train_loss"]) for pair, (row,) in epochs.items()} == losses
    (state,) = tmp_path.glob("*/resume.pt")
    assert state.parent == begun.folder
    folder = begun.folder
    del begun  # an interrupted process has no lock
    GridRun(tmp_path, pairs, options)  # claims nothing
    again = resumed(tmp_path, pairs, options)
    assert list(again.layers) == list(pairs) and again.folder == folder
    assert again.state["weight"] == 1
    other = resumed(tmp_path, pairs, options | {"n_epochs": 2})  # a further experiment
    assert not other.folder and not other.state


MATCHED = Matching(torch.zeros(1, 1), torch.zeros(1), error=0.5, r2=0.5, rank=1, n_samples=9)


@pytest.mark.parametrize(
    ("matching", "line"),
    [
        (MATCHED, ""),
        (
            MATCHED._replace(truncated=True),
            "the cutoff of singular values truncates the fit of layer2.0 -> layer3.0: .*; give "
            "--pinv-cutoff exact",
        ),
        (
            MATCHED._replace(r2=0.9),
            "too few fitting samples for layer2.0 -> layer3.0: R² .*; raise -pinv-samples, .*",
        ),
    ],
)
def test_a_fit_to_doubt_has_one_line(matching, line, layer, tmp_path, capsys):
    options = options_of("-i", "pinv", "-e", "0", "-gpu", "-1")
    metrics = Metrics(
        accuracy=0.5, end_accuracy=0.5, representation_difference=0.5, agreement=0.5, r2_test=0.5
    )
    score = GridMetrics(
        {PAIR: metrics}, dict.fromkeys((PAIR, "front", "end", "labels"), torch.arange(3))
    )
    runs = GridRun(tmp_path, {PAIR: layer}, options)
    runs.write(score, {PAIR: matching}, whole_networks=None)
    runs.finish()
    warnings = re.findall("warning: (.*)", capsys.readouterr().err)
    assert len(warnings) == bool(line) and all(re.fullmatch(line, text) for text in warnings)
    ((run,), _) = read_stitches(tmp_path)
    assert run.record["truncated"] == metrics_of(run.record).is_truncated == matching.truncated


def test_kappa_at_its_limits():
    one = torch.tensor([0, 1, 2, 0])
    assert agreement_of(one, one) == (1, 1)
    assert agreement_of(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])) == (
        0.5,
        0,
    )  # as by chance
    agreement, kappa = agreement_of(0 * one, 0 * one)
    assert agreement == 1 and math.isnan(kappa)
