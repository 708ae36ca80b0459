"""Baselines of skill, untrained features, the width of a front, and the evaluation of a stitch that
changes nothing, from networks and images alone."""

import numpy as np
import pytest
import torch
from torch import nn

from src.core.activations import ActivationShape, TokenLayout
from src.core.cache import Cache
from src.judge import judge
from src.models import Network, build_model
from src.ood.evaluation import score_grid, separation_of
from src.ood.reference import EvaluationOptions, make_reference
from src.skill import baseline
from src.skill.baseline import (
    BaselineKey,
    Baselines,
    form_for,
    n_copies_for,
    numbers_up_to,
    rounded_width,
)
from src.skill.fitting import beside_class
from src.skill.running import AtPlaces, Following, one_hot_of
from src.skill.skills import Baseline, skill_of
from src.skill.untrained import (
    Averages,
    Draw,
    RandomFeatures,
    UntrainedCopy,
    UntrainedFeatures,
    splits_of,
)
from src.skill.widths import RunningWidth
from src.skill.within_class import within_class
from src.stitching import Grid, Pair, build_layers
from src.verdict import INCONCLUSIVE
from tests.tiny_datasets import few_grey_images
from tests.tiny_networks import Computed

IMAGES = few_grey_images(120, 8, n_classes=3)
KEYS = [
    BaselineKey("pool2", 1, 16, "pinv"),
    BaselineKey("pool2", 2, 38, "pinv"),
    BaselineKey("pool3", 1, 16, "covariance"),
]


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build_model("small_cnn", n_classes=3, n_channels=1).eval().requires_grad_(False)


def of_vectors(first: type = nn.Linear) -> nn.Module:
    """A network of images of 8×8 pixels, whose first layer is of this type; the same in each call."""
    torch.manual_seed(0)
    _Sometimes.is_finite = []
    return nn.Sequential(nn.Flatten(), first(64, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


def baselines_of(network, *, train=IMAGES, batch_size: int = 50) -> Baselines:
    return Baselines(network, train, IMAGES, torch.arange(120), batch_size=batch_size)


def measured(network, keys, **further) -> dict[BaselineKey, Baseline]:
    return dict(baselines_of(network, **further).measured(keys))


def correlations(found: Baseline) -> list[float]:
    return [place.correlation for place in found.products]


def test_a_baseline_is_the_same_whatever_is_measured_beside_it(network):
    together = measured(network, KEYS)
    for key in KEYS:
        alone = correlations(measured(network, [key])[key])
        assert alone == pytest.approx(correlations(together[key]), abs=1e-5)
    baselines = baselines_of(network)
    baselines.measured(KEYS[:1])
    later = correlations(baselines.measured(KEYS[1:])[KEYS[2]])
    assert later == pytest.approx(correlations(together[KEYS[2]]), abs=1e-5)


def test_networks_of_one_type_share_untrained_features(network, monkeypatch):
    """And have the baselines that they have alone."""
    keys = [BaselineKey("pool2", 2, 38, "pinv"), BaselineKey("pool1", 1, 16, "covariance")]
    torch.manual_seed(1)
    other = build_model("small_cnn", n_classes=3, n_channels=1).eval().requires_grad_(False)
    cache = Cache(10**8)
    views = [each.keeping(cache, code="small_cnn") for each in (network, other)]
    together = [measured(view, keys) for view in views]
    for each, found in zip((network, other), together, strict=True):
        alone = measured(each, keys)
        for key in keys:
            assert correlations(found[key]) == pytest.approx(correlations(alone[key]), abs=1e-6)
    first, second = (correlations(found[keys[0]]) for found in together)
    assert first != second
    passes = []
    monkeypatch.setattr(RandomFeatures, "of", lambda *call: passes.append(call))
    monkeypatch.setattr(UntrainedCopy, "activations", lambda *call: passes.append(call))
    measured(views[0], keys)
    assert not passes


class Scaled(nn.Module):
    """A network with a number that is neither a parameter nor a buffer."""

    def __init__(self, scale: float):
        super().__init__()
        self.scale = scale
        self.conv = nn.Conv2d(1, 16, 3)
        self.head = nn.Linear(16, 3)

    def forward(self, images):
        return self.head(self.conv((self.scale * images).sin()).relu().mean((2, 3)))


def test_networks_of_one_type_with_other_attributes_share_no_copies():
    """As networks of torchvision, which normalise their inputs or not."""
    networks = [Network(Scaled(scale), image_shape=(1, 8, 8)).eval() for scale in (1, 9)]
    key = BaselineKey("conv", 1, 16, "pinv")
    cache = Cache(10**8)
    together = [measured(each.keeping(cache, code="scaled"), [key])[key] for each in networks]
    alone = [measured(each, [key])[key] for each in networks]
    for found, expected in zip(together, alone, strict=True):
        assert correlations(found) == pytest.approx(correlations(expected), abs=1e-6)


def test_a_wider_front_has_a_higher_baseline(network):
    """Up to what fewer images overfit: it is the largest over all numbers of copies."""
    baselines = baselines_of(network)
    keys = [baselines.key("pool2", width) for width in (1, 16, 64)]
    found = baselines.measured(keys)
    values = [correlations(found[key]) for key in keys]
    assert np.diff(values, axis=0).min() > -0.01
    assert [found[key].n_copies for key in keys] == [1, 1, 2]


def test_copies_of_a_draw_are_next_to_each_other_for_vectors():
    """Whose random features have no positions, and so no splits."""
    module = of_vectors()
    network = Network(module, image_shape=(1, 8, 8), n_classes=3)
    shapes = {"1": ActivationShape.of((8,))}
    features = UntrainedFeatures(network, torch.rand(20, 64), shapes)
    draws = [Draw("1", splits, 2, number) for splits in (None, ()) for number in range(3)]
    blocks = list(features.widths(draws))
    assert [block.splits for block in blocks] == [None] * 4 + [()] * 3
    assert [block.number for block in blocks] == [0, 1, 2, 3, 0, 1, 2]


def test_each_form_has_its_baseline(network):
    forms = [form_for(name) for name in ("covariance", "pinv", "ortho", "")]
    assert forms == ["covariance", "pinv", "pinv", "pinv"]
    found = measured(network, [BaselineKey("pool2", 1, 32, form) for form in forms[:2]])
    kept, least = (correlations(of_form) for of_form in found.values())
    assert kept != least


def test_a_baseline_says_how_many_rows_a_channel_it_was_fitted_to(network):
    """pool2 has 2×2 positions and 32 channels, and there are three classes."""
    for width, n_channels in ((16, 32), (32, 32), (33, 64)):
        baselines = baselines_of(network)
        (found,) = baselines.measured([baselines.key("pool2", width)]).values()
        assert found.rows_per_channel == pytest.approx(120 * 4 / (n_channels + 3))
        assert (found.width, found.n_classes) == (rounded_width(width), 3)


def test_all_positions_of_a_map_are_fitted(network):
    """A few of each image, in any batches."""
    baselines = baselines_of(network)
    sample = baselines.sample(Draw("pool1", None, 1, 0))._replace(n_positions=3)
    places = torch.arange(16.0).view(1, 1, 4, 4).expand(12, -1, -1, -1)
    found = sample.rows(places, 0)
    assert found.shape == (12, 3, 1)
    counts = torch.bincount(found.flatten().long(), minlength=16)
    assert counts.min() == 2 and counts.max() == 3
    assert torch.equal(found[5:], sample.rows(places[5:], 5))


def test_a_baseline_leaves_the_network_and_the_random_numbers_as_they_were(network):
    before = {name: values.clone() for name, values in network.state_dict().items()}
    state = torch.get_rng_state()
    measured(network, KEYS)
    assert torch.equal(torch.get_rng_state(), state)
    for name, values in network.state_dict().items():
        assert torch.equal(values, before[name])
    assert not any(module.training for module in network.modules())


def test_copies_are_as_many_as_have_the_channels_of_the_front():
    assert [n_copies_for(front, 64) for front in (3, 64, 65, 128, 129)] == [1, 1, 2, 2, 3]
    assert numbers_up_to(1) == [1] and numbers_up_to(6) == [1, 2, 4, 6]
    assert numbers_up_to(16) == [1, 2, 4, 8, 16]


def test_fronts_of_nearly_equal_width_share_a_baseline():
    for width in range(1, 3000):
        assert 0.89 * width <= rounded_width(width) <= 1.12 * width
    assert len({rounded_width(width) for width in range(64, 129)}) == 5


class _Sometimes(nn.Linear):
    """A layer whose reset gives NaN in some of its calls, in the order of the calls."""

    is_finite: list[bool] = []

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if self.is_finite and not self.is_finite.pop(0):
            self.bias.data[0] = torch.nan


@pytest.mark.parametrize("is_finite", [[False, True, True, True, True], [False] * 5])
def test_draws_that_are_not_finite_are_left_out(is_finite, monkeypatch):
    monkeypatch.setattr(baseline, "N_DRAWS", 5)
    network = Network(of_vectors(_Sometimes), image_shape=(1, 8, 8), n_classes=3)
    _Sometimes.is_finite = list(is_finite)
    (found,) = measured(network, [BaselineKey("2", 1, 8, "pinv")]).values()
    assert np.isfinite(correlations(found)).all() == any(is_finite)
    assert _Sometimes.is_finite == []


def test_a_network_whose_copies_are_not_finite_is_inconclusive():
    """The one draw of a test is not finite; all else is measured."""
    inputs = torch.rand(300, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    module = of_vectors(_Sometimes)
    with torch.no_grad():
        module[3].bias -= module(inputs).mean(0)  # it predicts all three classes
    labels = module(inputs).argmax(1)  # all are right
    batches = [(inputs, labels)]
    _Sometimes.is_finite = [False]
    (row,) = judge(module, module, batches, batches, layers="2", forms="covariance")
    assert row.verdict == INCONCLUSIVE and "there is no baseline" in row.reason
    assert row.accuracy == 1 and row.correlation == pytest.approx(1)
    assert np.isnan([row.baseline, row.skill, row.skill_at_end]).all()


def test_a_reset_with_arguments_is_no_reset():
    class Given(nn.Linear):
        def __init__(self, *sizes):
            nn.Module.__init__(self)
            self.weight = nn.Parameter(torch.randn(sizes[1], sizes[0]))
            self.bias = nn.Parameter(torch.zeros(sizes[1]))

        def reset_parameters(self, std):
            raise AssertionError("called")

    torch.manual_seed(0)
    network = Network(
        nn.Sequential(nn.Flatten(), Given(64, 3)).eval(), image_shape=(1, 8, 8), n_classes=3
    )
    copied = UntrainedCopy(network, torch.rand(2, 1, 8, 8), seed=0).network.module
    assert not torch.equal(copied[1].weight, network.module[1].weight)


def test_copies_have_other_weights_of_the_same_spread_and_statistics_of_the_images():
    """Of a module with BatchNorm, and with a bare parameter that does not reset itself."""
    torch.manual_seed(5)
    module = Computed(
        lambda net, images: net.fc((net.scale * net.norm(net.conv(images))).mean((2, 3))),
        conv=nn.Conv2d(1, 4, 3),
        norm=nn.BatchNorm2d(4),
        scale=nn.Parameter(5 + torch.randn(4, 6, 6)),
        index=nn.Parameter(torch.arange(4), requires_grad=False),
        fc=nn.Linear(4, 3),
    )
    network = Network(module.eval(), image_shape=(1, 8, 8), n_classes=3)
    ((images, _),) = IMAGES.batches(120)
    copies = [UntrainedCopy(network, images, seed=seed) for seed in (0, 0, 1)]
    for copied in copies:
        copied.activations(images, ["norm"])
    copied, again, other = (copied.network.module for copied in copies)
    assert copies[0].identity == copies[1].identity != copies[2].identity
    modules = (network.module, copied, again, other)
    for name in ("conv.weight", "scale", "fc.bias"):
        own, first, second, third = (module.get_parameter(name) for module in modules)
        assert torch.equal(first, second)
        assert not torch.equal(first, third) and not torch.equal(first, own)
    assert copied.scale.mean().item() == pytest.approx(network.module.scale.mean().item(), abs=0.3)
    assert torch.equal(copied.index, network.module.index)
    with torch.no_grad():
        means = copied.conv(images).mean((0, 2, 3))
    torch.testing.assert_close(copied.norm.running_mean, means)
    assert not any(module.training for module in copied.modules())


@pytest.mark.filterwarnings("ignore:.*weight_norm")
@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
def test_copies_have_other_weights_where_a_module_resets_none_of_its_parameters(norm):
    """A reset of the weight leaves the parameters that it is computed from."""
    torch.manual_seed(5)
    module = nn.Sequential(nn.Flatten(), norm(nn.Linear(64, 3))).eval()
    network = Network(module, image_shape=(1, 8, 8), n_classes=3)
    with torch.no_grad():
        network(torch.rand(2, 1, 8, 8))  # the old norm cannot be copied before
    copied = UntrainedCopy(network, torch.rand(2, 1, 8, 8), seed=0).network.module
    for name, own in module.named_parameters():
        assert not torch.equal(copied.get_parameter(name), own), name


def test_the_class_is_beside_the_features_at_all_positions():
    torch.manual_seed(0)
    rows, logits = torch.randn(5, 7, 4), torch.randn(5, 3)
    joint = beside_class([rows, 2 * rows], one_hot_of(logits))
    first, second, of_class = joint.split([4, 4, 3], 2)
    assert torch.equal(first, rows) and torch.equal(second, 2 * rows)
    assert (of_class.argmax(2) == logits.argmax(1)[:, None]).all()
    assert (of_class.sum(2) == 1).all()


LAYERS = ["pool1", "pool2"]
SCORE = "mahalanobis"


@pytest.fixture(scope="module")
def reference(network):
    options = EvaluationOptions(tuple(LAYERS), (SCORE,), IMAGES, 50, "images", IMAGES)
    return make_reference(network, options, trained={})


def grid_of(network, *, is_identity: bool) -> Grid:
    layers, _ = build_layers(
        network,
        network,
        LAYERS,
        LAYERS,
        "rc2c_pre",
        image_shape=IMAGES.image_shape,
        seed=0,
        is_identity=is_identity,
    )
    return Grid(network, network, {Pair(name, name): layers[name, name] for name in LAYERS})


def test_a_stitch_that_changes_nothing_is_the_network_itself(network, reference):
    right = [network(images).argmax(1) == labels for images, labels in IMAGES.batches(50)]
    for pair, scores in score_grid(grid_of(network, is_identity=True), reference).items():
        own = reference.id_scores[SCORE][pair.end_layer]
        assert scores.is_finite and scores.accuracy == torch.cat(right).double().mean()
        np.testing.assert_allclose(scores.scores[SCORE], own, rtol=1e-4)
        for place in scores.skill[:2]:
            assert (place.correlation, place.skill) == pytest.approx((1, 1), abs=1e-5)
            assert place.baseline < 1
        assert scores.skill.n_images == len(IMAGES)
        separation = separation_of(own, own, is_paired=True)
        assert separation.auroc == 0.5 and separation.mean_energy == separation.mean_id_energy


# ---- The width of a front


def width_of(values: torch.Tensor) -> int:
    running = RunningWidth(len(values))
    for part in values.split(50):
        running.add(part)
    return running.rank


@pytest.mark.parametrize("shape", [(200, 12, 3, 3), (200, 9, 12), (200, 12)])
def test_the_width_is_that_of_what_an_affine_map_can_use(shape):
    """Channels that are empty, repeated, permuted or mixed change nothing."""
    axis = 1 if len(shape) == 4 else -1
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(shape, generator=generator).relu()
    mixing = torch.linalg.qr(torch.randn(12, 12, generator=generator))[0]

    def mixed(activations, weight):
        return (activations.movedim(axis, -1) @ weight).movedim(-1, axis)

    empty = torch.zeros_like(values)
    tripled = torch.cat([values, values, values + 5], axis)
    turned = mixed(
        torch.cat([values, empty], axis),
        torch.linalg.qr(torch.randn(24, 24, generator=generator))[0],
    )
    for front in (
        values,
        values.flip(axis),
        mixed(values, mixing),
        torch.cat([values, empty, empty + 3], axis),
        tripled,
        turned,
        1e-6 * values,
        values.movedim(axis, -1).mul(torch.logspace(-5, 0, 12)).movedim(-1, axis),  # faint channels
    ):
        assert width_of(front) == 12
    assert width_of(empty) == 1
    assert width_of(values * torch.nan) == 12


def test_too_few_rows_do_not_narrow_a_front():
    values = torch.randn(30, 40, generator=torch.Generator().manual_seed(0))
    assert width_of(values) == width_of(nn.functional.pad(values, (0, 60))) == 40


# ---- Random features of the input


FORMS = {
    "map": ActivationShape.of((7, 4, 4)),
    "tokens": ActivationShape.of((17, 7), TokenLayout(1, (4, 4), has_cls=True)),
    "sequence": ActivationShape.of((5, 7), TokenLayout()),
    "vector": ActivationShape.of((7,)),
}
INPUTS = {
    "images": torch.rand(6, 3, 9, 8, generator=torch.Generator().manual_seed(0)),
    "tokens": torch.arange(60).view(6, 10) % 13,
    "vectors": torch.rand(6, 11, generator=torch.Generator().manual_seed(0)),
    "sequences of vectors": torch.rand(6, 10, 4, generator=torch.Generator().manual_seed(0)),
}


@pytest.mark.parametrize("layer", FORMS)
@pytest.mark.parametrize("kind", INPUTS)
def test_random_features_have_the_form_of_a_layer(kind, layer):
    """And are the same filters in any number, and beside any others."""
    inputs, form = INPUTS[kind], FORMS[layer]
    random = RandomFeatures(inputs, seed=0)
    several = splits_of(form, inputs.shape[1:], are_tokens=kind == "tokens")
    made = random.of(inputs, {Averages(form, splits): 50 for splits in several})
    for averages, values in made.items():
        assert (values >= 0).all() and values.std() > 0
        channels = values.movedim(form.channel_axis, -1)
        n_features = averages.n_cells * max(1, 50 // averages.n_cells)
        assert channels.shape == (6, *form.sizes, n_features)
        alone = RandomFeatures(inputs, seed=0).of(inputs, {averages: 20})[averages]
        torch.testing.assert_close(alone, averages.narrowed(values, 20))
    averages = Averages(form, several[0])
    other = RandomFeatures(inputs, seed=1).of(inputs, {averages: 50})[averages]
    assert not torch.equal(other, made[averages])


@pytest.mark.parametrize(
    ("shape", "inputs", "splits"),
    [
        ((7,), (3, 9, 8), [(1, 1), (4, 4)]),
        ((7,), (1, 2, 8), [(1, 1), (2, 4)]),
        ((7, 1, 1), (3, 9, 8), [(1, 1), (4, 4)]),
        ((7, 2, 2), (3, 9, 8), [(1, 1), (2, 2)]),
        ((7, 4, 4), (3, 9, 8), [(1, 1)]),
        ((7,), (11,), [()]),
        ((7,), (10, 4), [(1,), (4,)]),
    ],
)
def test_layers_with_few_positions_have_cells_in_them(shape, inputs, splits):
    assert splits_of(ActivationShape.of(shape), inputs, are_tokens=False) == splits
    assert splits_of(ActivationShape.of((7,)), (10,), are_tokens=True) == [(1,), (4,)]


def test_cells_are_channels_of_the_position_that_they_lie_in():
    """Random features of an image that is black but for a corner are the black image's elsewhere."""
    form = ActivationShape.of((32, 2, 2))
    images = torch.zeros(2, 1, 32, 32)
    images[1, :, :8, :8] = 1
    random = RandomFeatures(torch.rand(2, 1, 32, 32), seed=0)
    averages = Averages(form, (2, 2))
    black, white = random.of(images, {averages: 32})[averages]
    differs = (black != white).any(0)
    assert differs.tolist() == [[True, False], [False, False]]


def test_filters_pass_over_large_cells_in_steps():
    """Which is cheaper, and changes the means by little."""
    coarse = torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    images = nn.functional.interpolate(coarse, size=64, mode="bilinear")
    few, many = (Averages(ActivationShape.of((8, side, side)), (1, 1)) for side in (4, 16))
    made = RandomFeatures(images, seed=0).of(images, {few: 8, many: 8})
    every = nn.functional.avg_pool2d(made[many], 4)  # of filters at all places
    difference = (made[few] - every).square().mean() / every.var((0, 2, 3)).mean()
    assert 0 < difference < 0.2


# ---- Precision


def test_sums_of_skill_do_not_hang_on_the_precision_of_networks():
    """Class means that are a hundred times the deviations cost bfloat16 all digits."""
    module = of_vectors()
    end = Network(module, image_shape=(1, 8, 8), n_classes=3)
    own = torch.randn(200, 8) + 100 * torch.arange(200)[:, None] % 3
    stitched = own + torch.randn(200, 8)
    logits = torch.nn.functional.one_hot(torch.arange(200) % 3, 3) * 100.0 + torch.randn(200, 3)
    found = []
    for is_on in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_on), torch.no_grad():
            following = Following(end, ["2"], image_shape=(1, 8, 8))
            following.add_end({"2": own, end.output_name: logits})
            following.add_stitches(["stitch"], "2", stitched[None], logits[None])
            found.append([place.correlation for place in following.products("stitch")])
    assert found[0] == found[1]


# ---- The interval of skill


@pytest.mark.slow
@pytest.mark.parametrize("noise", [[1.5] * 5, [1.2, 1.5, 2, 3, 5]])
def test_intervals_of_skill_have_the_true_value_in_about_95_of_100_samples(noise):
    """The best of five baselines is chosen on some of the images, and measured on all."""
    draw = np.random.default_rng(0)
    n, n_choosing, n_samples = 800, 300, 400
    true = [1 / np.sqrt(1 + width**2) for width in (0.5, *noise)]
    expected = (true[0] - max(true[1:])) / (1 - max(true[1:]))
    n_inside = 0
    for _ in range(n_samples):
        classes = draw.integers(0, 10, n)
        own = draw.normal(size=(n, 4))
        stitched, *others = (own + width * draw.normal(size=own.shape) for width in (0.5, *noise))
        first = slice(n_choosing)
        values = [
            within_class(other[first], own[first], classes[first]).correlation for other in others
        ]
        chosen = within_class(others[int(np.argmax(values))], own, classes)
        found = Baseline(AtPlaces(chosen, chosen), 10, 64, 1, 50.0)
        products = within_class(stitched, own, classes)
        skill = skill_of(AtPlaces(products, products), found).output
        n_inside += skill.low < expected < skill.high
    assert 0.93 <= n_inside / n_samples <= 0.98
