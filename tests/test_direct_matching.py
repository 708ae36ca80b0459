"""Direct matching and grids: goldens, numpy, scipy and scikit-learn, what each closed form has to be by
definition, and every pair of a grid as it would be alone."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes

from src.core.activations import as_rows
from src.core.choices.stitching import FORMS
from src.core.errors import UserError
from src.low_rank import low_rank_approx
from src.statistics.moments import Rows
from src.stitching import Grid, Pair, StitchedModel, build_layers, direct_matching
from src.stitching.closed_forms import Source, Target, solve, solver_of
from src.stitching.grid import Fitting
from src.stitching.layers import resize_maps
from src.stitching.objectives import OBJECTIVES, functional_loss, hint_loss, soft_label_loss
from src.stitching.upsampling import resized_rows
from src.training import Settings, train
from src.verdict import obstacle_of
from tests.goldens import numbers, random, tensor
from tests.tiny_datasets import DoubleSet
from tests.tiny_networks import narrow_resnet

GOLDENS = sorted({key.split("/")[0] for key in numbers("ps_inv")})


def solved(form, x, y, *, rank=None, size=None):
    solver, rows, target = solver_of(form), resized_rows(x, size), Rows.of(y)
    source = Source(rows.moments(), len(x), rank=rank, along_axes=solver.along_axes)
    return solve(solver, source, Target(target.moments()), rows.cross(target).scatter)


def error_of(matching, rows, target):
    return (
        (rows @ matching.weight.T + matching.bias - target).square().sum() / target.square().sum()
    ).item()


# Least squares


@pytest.mark.parametrize("case", GOLDENS)
def test_equals_the_public_code(case):
    found = direct_matching(tensor("ps_inv", f"{case}/x1"), tensor("ps_inv", f"{case}/x2"))
    golden = {key: numbers("ps_inv")[f"{case}/{key}"] for key in ("w", "b", "w64", "b64", "loss64")}
    np.testing.assert_allclose(found.weight, golden["w64"], atol=1e-9)
    np.testing.assert_allclose(found.bias, golden["b64"], atol=1e-9)
    np.testing.assert_allclose(found.weight, golden["w"], atol=7e-6)
    np.testing.assert_allclose(found.error, golden["loss64"], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("cutoff", "relative", "rank"),
    [("paper", 40 * 2**-23, 8), ("exact", 10 * 2**-23, 9), (0.3, 0.3, None), (0.5, 0.5, None)],
)
def test_cutoffs_are_those_of_numpys_pseudo_inverse(cutoff, relative, rank):
    x, y = random(40, 9) * torch.logspace(0, -1, 9), random(40, 3, seed=1)
    x[:, 4] = 0  # a dead feature
    x[:, 7] = 1e-7 * x[:, 7]  # one below the cutoff, which "exact" keeps
    augmented = np.hstack([x.numpy(), np.ones((40, 1))])
    norms = np.ones(10)
    if cutoff == "exact":
        norms = np.linalg.norm(augmented, axis=0)
        norms[4] = 1
    solution = np.linalg.pinv(augmented / norms, rcond=relative) @ y.numpy() / norms[:, None]
    found = direct_matching(x, y, cutoff=cutoff)
    np.testing.assert_allclose(found.weight.T, solution[:-1], rtol=1e-6, atol=1e-10)
    np.testing.assert_allclose(found.bias, solution[-1], atol=1e-10)
    assert found.error == pytest.approx(error_of(found, x, y), rel=1e-9)
    sigma = np.linalg.svd(augmented / norms, compute_uv=False)
    assert found.rank == (sigma > relative * sigma[0]).sum()
    assert rank in (None, found.rank)


@pytest.mark.parametrize("n_rows", [200, 9])  # rows enough, and fewer than channels
def test_the_exact_cutoff_gives_one_map_whatever_the_units_of_the_channels(n_rows):
    x = random(n_rows, 12) + random(12, seed=3)
    x[:, 2] = x[:, 0] - x[:, 1]
    y = x @ random(12, 5, seed=1) + random(n_rows, 5, seed=2)
    units, target_units = torch.logspace(-4, 4, 12), torch.logspace(4, -4, 5)
    plain = direct_matching(x, y, cutoff="exact")
    scaled = direct_matching(x * units, y * target_units, cutoff="exact")
    expected = target_units[:, None] * plain.weight / units
    np.testing.assert_allclose(scaled.weight, expected, rtol=1e-6)
    np.testing.assert_allclose(scaled.bias, target_units * plain.bias, rtol=1e-6, atol=1e-9)
    assert scaled.rank == plain.rank == min(12, n_rows)


def test_dropped_directions_that_explain_little_are_no_truncation_to_warn_of():
    x, y = random(30000, 4) * torch.tensor([1, 1, 1, 1e-3]), random(30000, 2, seed=1)
    known = y + x[:, :2] + 1e3 * x[:, 3:]
    # Of one channel nearly all of the error stays, and the other varies little
    little = torch.stack([y[:, 0], x[:, 3]], dim=1)
    cases = (
        (y + x[:, :2], "paper", False),
        (known, "paper", True),
        (known * torch.tensor([1e3, 1e-3]), "paper", True),
        (little, "paper", True),
        (known, 0.01, False),  # as asked for
    )
    for target, cutoff, is_truncated in cases:
        found = direct_matching(x, target, cutoff=cutoff)
        assert found.rank == 4 and found.truncated == is_truncated
        assert not direct_matching(x, target, cutoff="exact").truncated


# The other forms


@pytest.mark.parametrize(("n_in", "n_out"), [(6, 6), (4, 7), (8, 3)])
def test_orthogonal_equals_scipy(n_in, n_out):
    x = random(50, n_in) + 3
    y = x @ random(n_in, n_out, seed=1) + 0.5 * random(50, n_out, seed=2)
    found = direct_matching(x, y, form="ortho")
    one, other = (rows - rows.mean(0) for rows in (x, y))
    if n_in <= n_out:  # otherwise the padded problem has several solutions
        padded = np.pad(one.numpy(), ((0, 0), (0, n_out - n_in)))
        expected = orthogonal_procrustes(padded, other.numpy())[0][:n_in]
        np.testing.assert_allclose(found.weight.T, expected, atol=1e-10)
    best = torch.linalg.matrix_norm(one.T @ other, "nuc").item()
    assert (found.weight.T * (one.T @ other)).sum().item() == pytest.approx(best)
    torch.testing.assert_close(found.bias, y.mean(0) - found.weight @ x.mean(0))
    narrow = found.weight if n_out <= n_in else found.weight.T
    torch.testing.assert_close(narrow @ narrow.T, torch.eye(min(n_in, n_out), dtype=torch.float64))
    assert found.error == pytest.approx(error_of(found, x, y), rel=1e-9)


def numpy_covariance(x, y):
    """The formula as it stands."""

    def root(rows, power):
        values, vectors = np.linalg.eigh(np.cov(rows.T, bias=True))
        kept = values > 1e-10 * values[-1]
        return vectors[:, kept] * values[kept] ** power @ vectors[:, kept].T

    cross = (x - x.mean(0)).T @ (y - y.mean(0)) / len(x)
    u, _, vh = np.linalg.svd(root(x, -0.5) @ cross @ root(y, 0.5), full_matrices=False)
    weight = root(x, -0.5) @ u @ vh @ root(y, 0.5)
    return weight, y.mean(0) - x.mean(0) @ weight


def rows_of_case(case):
    """Source and target rows that hang together in part, with means that are far from zero."""
    n_in, n_out = {"wide": (4, 7), "narrow": (7, 4)}.get(case, (6, 6))
    x = random(200, n_in) @ random(n_in, n_in, seed=5) + 3
    y = x @ random(n_in, n_out, seed=1) + 2 * random(200, n_out, seed=2) - 5
    if case == "deficient source":
        x[:, 4] = x[:, 0] - 2 * x[:, 1]
        x[:, 5] = 7
    if case == "deficient target":
        y[:, 4] = y[:, 0] + y[:, 1]
        y[:, 5] = 0
    return x, y


@pytest.mark.parametrize(
    "case", ["square", "wide", "narrow", "deficient source", "deficient target"]
)
def test_covariance_equals_numpy(case):
    x, y = rows_of_case(case)
    found = direct_matching(x, y, form="covariance")
    weight, bias = numpy_covariance(x.numpy(), y.numpy())
    np.testing.assert_allclose(found.weight.T, weight, atol=1e-9)
    np.testing.assert_allclose(found.bias, bias, atol=1e-9)
    residual = np.square(x.numpy() @ weight + bias - y.numpy()).sum()
    assert found.error == pytest.approx(residual / np.square(y.numpy()).sum(), rel=1e-9)
    assert found.r2 == pytest.approx(1 - residual / y.numpy().var(0).sum() / 200, rel=1e-9)


def test_a_source_that_does_not_vary_gives_the_mean_target():
    x, y = torch.full((13, 3), 0.1, dtype=torch.float64), random(13, 2)
    found = direct_matching(x, y, form="covariance")
    torch.testing.assert_close(found.weight, torch.zeros(2, 3, dtype=torch.float64))
    torch.testing.assert_close(found.bias, y.mean(0))
    assert found.r2 == pytest.approx(0, abs=1e-12)
    constant = direct_matching(random(13, 2), x)  # is met exactly, and has no R²
    assert (
        constant.r2 != constant.r2
        and constant.error < 1e-15
        and constant.weight.abs().max() < 1e-12
    )


# All of them


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize(("source", "target"), [((4, 4), (8, 8)), ((8, 8), (4, 4))])
def test_resized_and_truncated_sources_equal_doing_so_first(source, target, rank, form):
    x, y = random(10, 6, *source), random(10, 3, *target, seed=1)
    plain = low_rank_approx(resize_maps(x, target, "bilinear"), rank)
    one = solved(form, x, y, rank=rank, size=target)
    other = solved(form, plain, y)
    rows = as_rows(plain)
    torch.testing.assert_close(rows @ one.weight.T + one.bias, rows @ other.weight.T + other.bias)
    assert one.error == pytest.approx(other.error, rel=1e-9) and one.r2 == pytest.approx(
        other.r2, rel=1e-9
    )


def test_a_source_and_a_target_are_decomposed_once_for_all_pairs(monkeypatch):
    rows = [Rows.of(random(60, 5, seed=seed)) for seed in range(4)]
    sources = [Source(of_source.moments(), 60) for of_source in rows[:2]]
    targets = [Target(of_target.moments()) for of_target in rows[2:]]
    decomposed, eigh = [], torch.linalg.eigh
    monkeypatch.setattr(
        torch.linalg, "eigh", lambda matrix: decomposed.append(matrix) or eigh(matrix)
    )
    pairs = list(itertools.product((0, 1), (2, 3)))
    for form, n_decomposed in (("covariance", 4), ("pinv", 2)):
        found = [
            solve(solver_of(form), sources[i], targets[j - 2], rows[i].cross(rows[j]).scatter)
            for i, j in pairs
        ]
        assert len(decomposed) == n_decomposed
        for (i, j), matching in zip(pairs, found, strict=True):
            alone = direct_matching(random(60, 5, seed=i), random(60, 5, seed=j), form=form)
            assert torch.equal(matching.weight, alone.weight)
        decomposed.clear()


REFUSED = {
    "source activations are not finite": lambda x, y: direct_matching(x * torch.nan, y),
    "target activations are not finite": lambda x, y: direct_matching(x, y / 0, form="covariance"),
    "9 positions, the target 4": lambda x, y: direct_matching(random(1, 4, 3, 3), random(1, 4, 2, 2)),
    "the same samples": lambda x, y: direct_matching(x[:5], y),
    "unknown closed-form solver .pca.; known: pinv, covariance, ortho": lambda x, y: direct_matching(x, y, form="pca"),
    "cutoff papr is not paper, exact": lambda x, y: direct_matching(x, y, cutoff="papr"),
    "cutoff None is not paper, exact": lambda x, y: direct_matching(x, y, cutoff=None),
    "the source has .*complex64; give real": lambda x, y: direct_matching(x.to(torch.complex64), y),
    r"the target has shape \(0, 2\)": lambda x, y: direct_matching(x, y[:0]),
    "the source is no array of numbers": lambda x, y: direct_matching("x", y),
}  # fmt: skip


@pytest.mark.parametrize("said", REFUSED)
def test_what_cannot_be_matched_is_refused(said):
    with pytest.raises((ValueError, UserError), match=said):
        REFUSED[said](random(9, 4), random(9, 2))


SHAPE = (1, 8, 8)
FRONTS, ENDS = ["layer1.0", "layer2.1", "layer4.1"], ["layer1.1", "layer3.0", "layer4.1"]

N = 24  # images


@pytest.fixture(scope="module")
def data():
    return DoubleSet(N, SHAPE)


@pytest.fixture(scope="module")
def networks(data):
    models = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = narrow_resnet().double()
        model(data.images)  # lets the BatchNorm statistics move off their start
        models.append(model.eval().requires_grad_(False))
    return models


def layers_of(networks, fronts=FRONTS, ends=ENDS, kind="rc2c_pre", **options):
    return build_layers(*networks, fronts, ends, kind, image_shape=SHAPE, seed=3, **options)[0]


@pytest.mark.parametrize("broken", ["front network", "end network", "layer2.1 -> layer3.0"])
@torch.no_grad()
def test_logits_that_are_not_finite_have_no_accuracy(networks, data, broken):
    """The first of several pairs is whole. The front breaks behind its last stitched layer."""
    copies = [copy.deepcopy(network) for network in networks]
    layers = layers_of(copies, ["layer1.0", "layer2.1"], ["layer3.0"])
    places = {
        "front network": copies[0].module.fc.bias,
        "end network": copies[1].module.fc.bias,
        "layer2.1 -> layer3.0": layers["layer2.1", "layer3.0"].transform.bias,
    }
    places[broken][0] = math.nan
    with pytest.raises(UserError, match=f"the logits of (the )?{broken} are not finite"):
        Grid(*copies, layers).evaluate(data.batches(15))


@pytest.mark.parametrize(("rows_at_once", "front_rank"), [(1, None), (N, 3), (1024, None)])
@torch.no_grad()
def test_evaluation_equals_each_stitched_model_alone(
    networks, data, rows_at_once, front_rank, monkeypatch
):
    """The rank is cut in each batch, so the batches must be the same."""
    monkeypatch.setattr(Fitting, "rows", lambda self, kind: rows_at_once)
    layers = layers_of(networks, ends=["layer1.1", "layer3.0.conv2", "layer4.1"])
    score = Grid(*networks, layers, front_rank=front_rank).evaluate(data.batches(15))
    for pair, layer in layers.items():
        model = StitchedModel(*networks, layer, pair, front_rank=front_rank)
        n_correct, distance, norm = 0, 0.0, 0.0
        for images, labels in data.batches(15):
            n_correct += (model(images).argmax(1) == labels).sum().item()
            source = low_rank_approx(model.front(images, until=pair.front_layer), front_rank)
            target = networks[1](images, until=pair.end_layer)
            distance += (layer(source) - target).square().sum().item()
            norm += target.square().sum().item()
        found = score.pairs[pair]
        assert found.accuracy == n_correct / N
        assert found.representation_difference == pytest.approx(distance / norm, rel=1e-9)
        rows = as_rows(networks[1](data.images, until=pair.end_layer))
        variation = (rows - rows.mean(0)).square().sum().item()
        assert found.r2_test == pytest.approx(1 - distance / variation, rel=1e-9)
    for network, accuracy in zip(networks, (found.front_accuracy, found.end_accuracy), strict=True):
        assert accuracy == (network(data.images).argmax(1) == data.labels).double().mean().item()


def test_an_end_layer_that_a_branch_goes_around_says_nothing(networks, data):
    """An untrained front would be accurate there: the image reaches the output past the layer."""
    layers = layers_of(networks, ["layer2.1"], ["layer3.0", "layer3.0.conv1"])
    metrics = Grid(*networks, layers).evaluate(data.batches(N)).pairs
    obstacles = {
        pair.end_layer: obstacle_of([of_pair], "pinv") for pair, of_pair in metrics.items()
    }
    assert obstacles["layer3.0"] == ""
    assert "inside a block" in obstacles["layer3.0.conv1"]


def test_one_network_stitched_to_itself_takes_one_pass(networks, data):
    front, _ = networks
    layers = layers_of((front, front))
    expected = Grid(front, copy.deepcopy(front), layers).evaluate(data.batches(20))
    score = Grid(front, front, layers).evaluate(data.batches(20))
    for pair, metrics in score.pairs.items():
        assert vars(metrics) == pytest.approx(vars(expected.pairs[pair]), nan_ok=True)


OTHERS = [name for name in OBJECTIVES if name != "task"]


def logs_of(grid: Grid, data, settings: Settings) -> dict[Pair, list]:
    """The logs of all epochs of each pair."""
    *_, (history, _) = train(grid, data, data, settings)
    return {pair: [logs[pair] for logs in history] for pair in grid.layers}


SOME = (
    ["layer1.0", "layer3.1"],
    ["layer2.1", "layer3.0.conv2", "layer4.1"],
)  # pairs of layers, one inside a block


@pytest.mark.parametrize(
    ("objective", "settings"),
    [
        ("task", Settings(2, 16, grad_clip=0.1)),
        ("task", Settings(2, 16, optimizer="sgd", scheduler="cosine")),
        ("hint", Settings(1, 16)),
        ("fula", Settings(1, 16)),
    ],
    ids=["task, clipped", "task, sgd", "hint", "fula"],
)
def test_training_equals_each_pair_alone(networks, data, objective, settings):
    options = {
        "objective": OBJECTIVES[objective],
        "l1_coef": 1e-3,
        "front_rank": None if objective == "task" else 9,
    }
    together = layers_of(networks, *SOME)
    before = [
        {key: value.clone() for key, value in network.state_dict().items()} for network in networks
    ]
    logs = logs_of(Grid(*networks, together, **options), data, settings)
    for network, state in zip(networks, before, strict=True):
        assert all(torch.equal(state[key], value) for key, value in network.state_dict().items())
    for pair, layer in together.items():
        alone = layers_of(networks, [pair.front_layer], [pair.end_layer])
        alone_logs = logs_of(Grid(*networks, alone, **options), data, settings)[pair]
        torch.testing.assert_close(
            layer.state_dict(), alone[pair].state_dict(), rtol=1e-8, atol=1e-8
        )
        for one, other in zip(logs[pair], alone_logs, strict=True):
            assert one.train == pytest.approx(other.train, rel=1e-8, nan_ok=True)
            assert one.val == pytest.approx(other.val, rel=1e-8)
            assert math.isnan(one.train.accuracy) == (objective == "hint")  # not measured
            if objective == "task":
                assert (
                    one.train.loss > one.train.cross_entropy
                    and one.val.loss == one.val.cross_entropy
                )  # l1


@pytest.mark.parametrize("objective", OTHERS)
def test_losses_are_those_of_plain_passes(networks, data, objective):
    front, end = networks
    images, labels = data.images[:12], data.labels[:12]
    grid = Grid(
        front, end, layers_of(networks, *SOME), objective=OBJECTIVES[objective], l1_coef=1e-3
    )
    for training in (True, False):
        groups = grid.losses(images, labels, training=training)
        losses = torch.cat([group.losses for group in groups]).tolist()
        for loss, (pair, layer) in zip(losses, grid.layers.items(), strict=True):
            behind = ["layer3.0", "layer3.1", "layer4.0", "layer4.1"]
            if pair.end_layer == "layer4.1":
                behind = []
            h, g = (
                [layer(front(images, until=pair.front_layer))],
                [end(images, until=pair.end_layer)],
            )
            g += [end(images, until=name) for name in behind]
            for name in behind:
                h.append(end(h[0], after=pair.end_layer, until=name, images=images))
            expected = {
                "soft": lambda h=h, pair=pair: soft_label_loss(
                    end(h[0], after=pair.end_layer, images=images), end(images)
                ),
                "hint": lambda h=h, g=g: hint_loss(h[0], g[0]),
                "fula": lambda h=h, g=g: functional_loss(h, g),
                "feature": lambda h=h, g=g: (h[-1] - g[-1]).square().mean(),
            }[objective]().item()
            accuracy_drop = training * 1e-3 * layer.l1_norm().item()
            assert loss == pytest.approx(expected + accuracy_drop, rel=1e-8)


def test_statistics_move_only_when_asked_for_and_targets_stay(data):
    torch.manual_seed(0)
    front, end = (narrow_resnet().double().eval().requires_grad_(False) for _ in "12")
    layers = layers_of((front, end), ["layer2.0"], ["layer2.0"])
    grid, before = (
        Grid(front, end, layers, frozen=False, objective=OBJECTIVES["fula"]),
        end(data.images),
    )
    list(train(grid, data, data, Settings(1, 20)))
    assert torch.equal(grid.originals["end"](data.images), before)
    assert (
        grid.front.module.bn1.num_batches_tracked == 2
        and grid.end.module.layer3[0].bn1.num_batches_tracked == 2
    )
    assert grid.front.module.layer3[0].bn1.num_batches_tracked == 0
    assert grid.end.module.layer2[0].bn1.num_batches_tracked == 0
    assert front.module.bn1.num_batches_tracked == end.module.layer3[0].bn1.num_batches_tracked == 0
    assert not front.module.training and not end.module.training
    with pytest.raises(ValueError, match="several pairs"):
        Grid(front, end, layers_of((front, end)), frozen=False)


@pytest.mark.parametrize(
    ("places", "is_warned"),
    [([[0, 0], [0]], True), ([[0, 0, 1]], False), ([[0], [1]], False), ([[0]], False)],
    ids=["equal", "the third differs", "batches of one", "one image"],
)
def test_a_front_that_shows_one_activation_is_warned_of(networks, data, places, is_warned, capsys):
    """Its map varies from position to position."""
    layers = layers_of(networks, ["layer1.0", "layer2.1"], ["layer3.0"])
    Grid(*networks, layers).evaluate([(data.images[some], data.labels[some]) for some in places])
    text = "the activations of layer1.0, layer2.1 of the front network are constant"
    assert (text in capsys.readouterr().err) == is_warned
