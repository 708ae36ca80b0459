"""Networks by name and by module: published values, initial weights, passes, the order of layers, activations
and the cache."""

import copy
import hashlib
import itertools
import json
import math
import pickle
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from src.core.activations import (
    ActivationShape,
    TokenLayout,
    as_rows,
    cells,
    map_positions,
    mean_over_positions,
    pool,
    positions_of,
    shape_of,
)
from src.core.cache import Cache
from src.core.errors import Misfit, UserError
from src.core.grouping import by_depth
from src.core.inputs import InputSpec
from src.core.kinds import GRID, MAP, SEQUENCE, VECTOR
from src.core.tensors import save_state
from src.figures.pages import CELLS
from src.models import MODEL_NAMES, Network, build_model, vit
from src.models.resnet import ResNet
from src.results.checkpoints import Session
from src.results.network_names import NamedNetwork
from tests.commands import ON_DIGITS, pair_of, parse_matrix, read_csv, run, says, stitch_rows
from tests.conftest import few_images
from tests.goldens import block_names, golden_input, load_golden_weights, random
from tests.tiny_networks import Computed
from tests.traps import Attention, Base, Dropout, Patches, SharedRelu

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


@pytest.fixture
def images():
    return torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def built(kind) -> tuple[nn.Module, Network]:
    """A module in evaluation mode with statistics that are not trivial, and a network of a copy of
    it."""
    torch.manual_seed(0)
    module = kind()
    for buffer in module.buffers():
        buffer.data = torch.rand(buffer.shape) + 0.5 if buffer.is_floating_point() else buffer
    module.eval().requires_grad_(False)
    return module, Network(copy.deepcopy(module))


def test_each_mode_has_passes_of_its_own(images):
    module, network = built(Dropout)
    assert torch.equal(network(images, until="two"), module.two(module.one(module.stem(images))))
    network.train()
    assert network.module.training and network.module.one.training
    torch.manual_seed(1)
    trained = network(images, until="two")
    torch.manual_seed(1)
    expected = module.two(F.dropout(module.one(module.stem(images)), 0.5, True))
    assert torch.equal(trained, expected) and not torch.equal(trained, network(images, until="two"))
    network.eval()
    assert torch.equal(network(images), module(images)) and not network.module.training


def test_a_module_in_training_mode_is_warned_of_once(images, capsys):
    """As a new module is. Whoever calls train() or eval() knows the mode."""
    module, _ = built(SharedRelu)
    plain, cut, chosen, evaluated = (Network(copy.deepcopy(module).train()) for _ in range(4))
    plain(images)
    plain(images, until="norm")
    cut(cut(images, until="one"), after="one")
    chosen.train()(images)
    evaluated.eval()(images)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all(says(line, "training mode", "call .eval()") for line in lines)


@pytest.mark.parametrize(("kind", "layer"), [(SharedRelu, "one"), (Attention, "attention")])
def test_inference_mode_changes_nothing(kind, layer, images):
    """Neither in it, nor for the gradients of later passes."""
    module, network = built(kind)
    with torch.inference_mode():
        acts = network(images, until=layer)
        logits = network(acts, after=layer, images=images)
    torch.testing.assert_close(logits, module(images))
    source = network(images, until=layer).requires_grad_()
    network(source, after=layer, images=images).square().sum().backward()
    assert source.grad.isfinite().all()


def test_statistics_of_batch_norm_move_once_in_training_mode(images):
    module, network = built(SharedRelu)
    network.train()
    network(network(images, until="one"), after="one")
    module.train()(images)
    assert torch.equal(network.module.norm.running_mean, module.norm.running_mean)
    assert network.module.norm.num_batches_tracked == 1


def test_statistics_in_front_of_a_layer_do_not_move(images):
    """Neither behind a block, nor inside of one, which needs the images."""
    module = ResNet(
        block="BasicBlock", depths=(1, 1, 1, 1), n_classes=4, n_channels=3, same_width=True
    )
    network = Network(module).train()
    moved = [0, 0, 0, 1, 1]
    for layer in ("layer2.0", "layer2.0.conv2"):
        h = network(images, until=layer)
        for part in network.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.num_batches_tracked.zero_()
        network(h, after=layer, images=images)
        norms = ("bn1", "layer1.0.bn2", "layer2.0.bn1", "layer3.0.bn1", "layer4.0.bn2")
        assert [network.get_submodule(norm).num_batches_tracked.item() for norm in norms] == moved


def test_gradients_flow_into_the_module(images):
    module, network = built(Base)
    module.requires_grad_(True)
    network.requires_grad_(True)
    network(network(images, until="one"), after="one").square().sum().backward()
    module(images).square().sum().backward()
    for (name, ours), theirs in zip(
        network.module.named_parameters(), module.parameters(), strict=True
    ):
        torch.testing.assert_close(ours.grad, theirs.grad, msg=name)
    torch.optim.SGD(network.parameters(), lr=0.1).step()
    assert torch.equal(network(images), network(images, until="head"))


def test_a_layer_that_is_never_called_is_refused(images):
    """test_any_layers.py has time steps in front of the images."""
    with pytest.raises(UserError, match="layer 'never' is never called by this network"):
        built(Attention)[1].activations(images, ["embed", "never"])


def test_what_a_network_is_asked_before_it_has_seen_images(images):
    """It assumes images of 32 or 224 pixels, with the channels of the first convolution."""
    module, network = built(Base)
    assert network.layer_names and network.image_shape is None
    assert torch.equal(network(module.stem(images), after="stem"), module(images))
    _, network = built(Attention)
    with pytest.raises(
        UserError,
        match=r"the shape of the inputs is unknown; give it, as in Network\(module, image_shape=\(C, H, W\)",
    ):
        _ = network.layer_names


def chosen(network: Network, text: str, images, **options) -> Network:
    return network.channels_first(network.layers(text), image_shape=images.shape[1:], **options)


def test_channels_last_is_told_by_two_equal_axes_in_front(images, capsys):
    module, network = built(Patches)
    native = network.activations(images, ["embed", "mix", "blocks.1"])
    plain = network
    network = chosen(network, "embed,mix,blocks.1,head", images)
    assert says(capsys.readouterr().err, "height, width, channels", "channels first at mix")
    acts = network.activations(images, ["embed", "mix", "blocks.1"])
    assert torch.equal(acts["embed"], native["embed"]) and torch.equal(
        acts["blocks.1"], native["blocks.1"]
    )
    assert acts["mix"].shape == (5, 6, 2, 2) and torch.equal(
        acts["mix"], native["mix"].permute(0, 3, 1, 2)
    )
    assert torch.equal(network(images, until="mix"), acts["mix"])
    assert torch.equal(network(acts["mix"], after="mix"), module(images))
    assert torch.equal(network(acts["embed"], after="embed", until="mix"), acts["mix"])
    for copied in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert copied(images, until="mix").shape == (5, 6, 2, 2)
    assert torch.equal(plain(images, until="mix"), native["mix"]) and plain.module is network.module


def test_where_the_shape_does_not_tell_an_option_or_the_module_decides(images, capsys):
    module, network = built(lambda: Patches(width=2))
    native = module.mix(module.embed(images).permute(0, 2, 3, 1))
    for declared, options, is_moved, said in (
        (
            None,
            {},
            False,
            "warning: mix: 2×2×2 is taken for channels×height×width; if it is "
            "height×width×channels, give --channels-last or, in Python, set channels_last = True on the module",
        ),
        (None, {"channels_last": True}, True, "channels first at mix"),
        (True, {}, True, "channels first at mix"),
        (False, {"channels_last": True}, False, ""),
    ):
        network.module.channels_last = declared
        activation = chosen(network, "mix", images, **options)(images, until="mix")
        expected = native.permute(0, 3, 1, 2) if is_moved else native
        assert torch.equal(activation, expected)
        assert said in (err := capsys.readouterr().err) and bool(said) == bool(err)


@pytest.mark.parametrize(
    ("shape", "stride", "width"), [((1, 8, 8), 1, 8), ((3, 7, 5), 1, 7), ((3, 7, 5), 2, 4)]
)
def test_a_plain_network_has_its_channels_first(shape, stride, width, capsys):
    """Maps with as many channels as rows are told by the modules, and maps of long images by their sides."""
    conv = nn.Conv2d(shape[0], width, 3, stride, padding=1)
    body = nn.Sequential(conv, nn.ReLU(), nn.Sequential(nn.Conv2d(width, width, 1), nn.ReLU()))
    module = nn.Sequential(body, nn.Flatten(), nn.LazyLinear(4)).eval()
    module(torch.rand(2, *shape))
    network = Network(module, image_shape=shape)
    view = chosen(network, "0.0,0.1,0.2,0.2.1", torch.rand(2, *shape))
    assert capsys.readouterr().err == ""
    assert view(torch.rand(2, *shape), until="0.1").shape[1] == width


def test_relative_depth_counts_blocks_and_grows_between_them(images):
    """Whatever lies in front of, between and behind the blocks, of which some may never be called."""

    def chain(*blocks: str) -> Network:
        inner = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())
        plain = nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(5)), inner, nn.Flatten())
        module = Computed(
            lambda net, images: plain(images),
            never=nn.Identity(),
            block_names=blocks,
            **plain._modules,
        )
        return Network(module.eval(), image_shape=(3, 4, 4))

    network = chain("1", "never", "4")
    assert network.layers("all") == ["1", "never", "4"] and network.behind("1") == ["4"]
    depths = list(network.relative_depths([*"0123456", "output"]).values())
    assert depths == pytest.approx([1 / 4, 1 / 2, 2 / 3, 5 / 6, 1, 1, 1, 1])
    assert chain("4", "1").relative_depths("1") == {"1": 0.5}  # in the order of the pass
    inner = chain("5").relative_depths(["5", "5.1"])
    assert inner["5"] == inner["5.1"]


def test_a_module_that_holds_a_view_is_told_to_hold_its_module():
    def halved(held) -> Computed:
        return Computed(lambda net, images: net.net(images / 2), net=held).eval()

    network = build_model("small_cnn", n_classes=10, n_channels=1)
    with pytest.raises(UserError, match=r"Computed\.net is a Network.*\.module"):
        Network(halved(network))
    outer = Network(halved(network.module), image_shape=(1, 8, 8))
    assert outer.layers("net.pool2") == ["net.pool2"]


def test_an_attribute_of_the_module_is_found_there():
    network = build_model("small_cnn", n_classes=10, n_channels=1)
    with pytest.raises(AttributeError, match=r"no attribute 'half'.*\.module\.half"):
        network.half()
    with pytest.raises(AttributeError, match="no attribute 'halve'$"):
        _ = network.halve
    assert not hasattr(network, "half") and copy.deepcopy(network).layer_names


def test_a_network_without_layers_says_so():
    """Of layers that it holds where torch does not see them."""
    opaque = Computed(
        lambda net, images: net.parts[0](images).mean((2, 3)), parts=[nn.Conv2d(1, 4, 3)]
    )
    with pytest.raises(UserError, match="layer 'pool2': .*no submodules"):
        Network(opaque.eval(), image_shape=(1, 8, 8)).layers("pool2")


def test_layers_without_gradients_lie_behind_by_their_order():
    with_no_grad = torch.no_grad()(lambda self, x: self.c(self.b(self.a(x.flatten(1)))))
    linear = {name: nn.Linear(4, 4) for name in "abc"}
    network = Network(Computed(with_no_grad, **linear).eval(), inputs=torch.rand(3, 1, 2, 2))
    assert network.behind("a") == ["b"] and not network.behind("b")  # c is the output


def test_a_convolution_with_norm_and_activation_is_no_block():
    """It has one map, whatever its biases; a block has more."""
    stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
    blocks = [
        nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.ReLU())
        for _ in range(2)
    ]
    module = nn.Sequential(stem, *blocks, nn.Flatten(), nn.Linear(4 * 64, 10))
    network = Network(module.eval(), image_shape=(3, 8, 8), n_classes=10)
    assert network.block_names == ("1", "2")


HOUSE = f"{Path(__file__).parent}/tiny_networks.py:house"
LAYERS = ["stem", "body", "attic"]
MATRICES = {"direct matching": "verdict", "STITCHING ACCURACY": "ood", "": "collect"}


@pytest.fixture
def printed(in_tmp_path, drawn_figures):
    """What the scripts print that read the stitches of two networks; those into `stem` were added
    last."""
    matched = ["rc2c_pre", *ON_DIGITS, "-i", "pinv", "-e", "0", "-dir", "f to g/pinv"]
    all_layers = ",".join(LAYERS)
    with few_images(64, n_test=40):
        for seed, name in enumerate("fg"):
            run("exec_train.py", HOUSE, *ON_DIGITS, "-e", "1", "-s", seed, "-dir", name)
        pair = [*(f"{name}/model_1.pt" for name in "fg"), HOUSE, HOUSE]
        for layers in (("body,attic", "attic,body"), ("stem", "attic,body"), (all_layers, "stem")):
            run("exec_stitch.py", *pair, *layers, *matched)
        own = ["--own-types", HOUSE, "--detector", "mahalanobis"]
        evaluated = run("exec_eval_stitcher_ood.py", "results/f to g/pinv", *ON_DIGITS, *own)
        table = ["-o", "results/similarity/f-g.csv", "--metrics", "cka", "-n", "40"]
        measured = [*pair, all_layers, all_layers, *ON_DIGITS, *table]
        run("exec_compute_low_rank_sim_metrics.py", *measured)
    collected = run("misc/collect_results.py", "results/f to g/pinv")
    judged = run("misc/verdict.py", "results/f to g/pinv")
    run("misc/collect_results.py", "results")
    return {"ood": evaluated.out, "collect": f"\n{collected.out}", "verdict": judged.out}


def test_every_table_and_figure(printed, drawn_figures):
    for title, script in MATRICES.items():
        matrix = parse_matrix(printed[script], title)
        for side in zip(*matrix, strict=True):
            assert list(dict.fromkeys(side)) == LAYERS
    for name in ("collected.png", "verdict.png", "evaluation_mahalanobis.png", "f-g.png"):
        maps = [axes for axes in drawn_figures[name].axes if axes.get_gid() == CELLS]
        for labels in (maps[0].get_yticklabels(), maps[-1].get_xticklabels()):
            assert [text.get_text() for text in labels] == LAYERS, name
    (*_, axes) = drawn_figures["collected_depth.png"].axes
    assert [text.get_text() for text in axes.get_xticklabels()] == LAYERS
    curves = read_csv("results/collected_means.csv")
    assert list(dict.fromkeys(row["layers"] for row in curves)) == LAYERS
    for row in stitch_rows("results/f to g/pinv"):
        depths = row["front_depth"], row["end_depth"]
        assert depths == tuple(str(LAYERS.index(layer)) for layer in pair_of(row))


def test_layers_of_unknown_depth_are_in_natural_order():
    layers = ["b10", "b2", "a"]
    assert by_depth(layers, {}) == by_depth(layers, {"b10": 0}) == ["a", "b2", "b10"]
    assert by_depth(layers, {"b10": 0, "a": 1, "b2": 2, "c": 3}) == ["b10", "a", "b2"]


FORMS = {
    MAP: ((5, 2, 3), None),
    GRID: ((7, 5), TokenLayout(1, (2, 3), True)),
    SEQUENCE: ((7, 5), TokenLayout()),
    VECTOR: ((5,), None),
}


@pytest.fixture(params=FORMS)
def kind(request) -> str:
    return request.param


def test_channels_at_positions_are_a_view(kind):
    shape, layout = FORMS[kind]
    x = random(4, *shape)
    form = ActivationShape.of(shape, layout)
    assert form.kind == kind and str(form) == "×".join(map(str, shape))
    assert (form.n_channels, form.n_values) == (5, math.prod(shape))
    positions = positions_of(x)
    assert positions.shape == (4, form.n_positions, 5)
    assert positions.data_ptr() == x.data_ptr()
    assert torch.equal(form.native(positions), x)
    assert torch.equal(as_rows(x), positions.flatten(0, 1))
    vectors = random(4, 2)
    everywhere = vectors[:, None].expand(-1, form.n_positions, -1)
    assert torch.equal(positions_of(form.everywhere(vectors)), everywhere)
    torch.testing.assert_close(mean_over_positions(x), positions.mean(1))


def test_positions_are_mapped_and_pooled(kind):
    shape, layout = FORMS[kind]
    x = random(4, *shape)
    weight = random(3, 5)
    bias = random(3)
    mapped = map_positions(x, weight, bias)
    positions = positions_of(x)
    torch.testing.assert_close(positions_of(mapped), positions @ weight.T + bias)
    pooled = positions[:, 0] if kind == GRID else positions.mean(1)
    torch.testing.assert_close(pool(x, layout), pooled)
    n_prefix = int(kind == GRID)
    few = cells(x, layout, side=1)
    torch.testing.assert_close(few[:, n_prefix:], positions[:, n_prefix:].mean(1, keepdim=True))
    assert torch.equal(few[:, :n_prefix], positions[:, :n_prefix])
    torch.testing.assert_close(cells(x, layout, side=7), positions)


@pytest.mark.parametrize("shape", [(), (2, 3, 4, 4)])
def test_other_axes_are_refused(shape):
    with pytest.raises(UserError, match="the third layer has shape .*choose a layer"):
        ActivationShape.of(shape, title="the third layer")
    with pytest.raises(UserError, match="choose a layer"):
        shape_of(torch.zeros(1, *shape))


SPEC = InputSpec(10, (1, 8, 8))


def drawn_images(n: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def used(cache: Cache, network: str, n_batches: int = 5) -> int:
    """Take 10 bytes for each batch of a network, as a pass does; return how many were kept."""
    n_kept = 0
    for batch in range(n_batches):
        value = cache.get((network, batch))
        if value is None:
            cache.keep((network, batch), f"{network}{batch}", 10)
        else:
            assert value == f"{network}{batch}"
            n_kept += 1
        assert cache.n_bytes <= cache.max_bytes
    return n_kept


@pytest.mark.parametrize(("max_bytes", "least"), [(0, 0), (25, 0.02), (150, 0.35), (200, 0.5)])
def test_a_budget_is_kept_and_a_cycle_of_networks_does_not_empty_it(max_bytes, least, capsys):
    """Six networks of 50 bytes, each an end network for all others in turn."""
    cache = Cache(max_bytes)
    n_kept = 0
    n_used = 0
    for end, front in itertools.permutations("abcdef", 2):
        cache.begin_unit()
        n_kept += used(cache, front) + used(cache, end)
        n_used += 10
    assert least * n_used <= n_kept < n_used
    assert says(capsys.readouterr().err, "computed again")
    cache.clear()
    assert cache.n_bytes == 0 and cache.get(("a", 0)) is None


def test_all_that_fits_is_computed_once(capsys):
    cache = Cache(300)
    n_kept = 0
    for end, front in itertools.permutations("abcdef", 2):
        cache.begin_unit()
        n_kept += used(cache, front) + used(cache, end)
    assert n_kept == 30 * 10 - 6 * 5 and cache.n_bytes == 300 and capsys.readouterr().err == ""


@torch.no_grad()
def test_a_batch_passes_once_for_each_layer():
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.Linear(24, 10)).eval()
    network = Network(module, image_shape=(1, 8, 8), n_classes=10).keeping(Cache(10**6))
    expected = network.activations(drawn_images(5), ["1", "2"])
    n_seen = []
    module[0].register_forward_hook(lambda module, inputs, output: n_seen.append(len(output)))
    for names, seed, n_passes in ((["1"], 0, 1), (["1"], 0, 1), (["2", "1"], 0, 2), (["1"], 1, 3)):
        kept = network.activations(drawn_images(5, seed=seed), names, keep=True)
        assert list(kept) == names and len(n_seen) == n_passes
        assert all(torch.equal(kept[name], expected[name]) for name in names) == (seed == 0)


@torch.no_grad()
def test_equal_weights_share_and_a_changed_checkpoint_does_not(tmp_path):
    states = {}
    for seed in range(2):
        torch.manual_seed(seed)
        states[seed] = build_model("small_cnn", n_classes=10, n_channels=1).state_dict()
    for name, seed in {"a": 0, "copy": 0, "b": 1}.items():
        save_state(tmp_path / f"{name}.pt", states[seed])
    cache = Cache(10**6)

    def pool4(path: Path) -> torch.Tensor:
        """The activation in a session of its own."""
        name = NamedNetwork(str(path), "small_cnn")
        network = Session(cache).network(name, SPEC, device="cpu")
        (values,) = network.activations(drawn_images(5), ["pool4"], keep=True).values()
        assert torch.equal(values, network.activations(drawn_images(5), ["pool4"])["pool4"])
        return values

    first = pool4(tmp_path / "a.pt")
    assert pool4(tmp_path / "copy.pt") is first
    save_state(tmp_path / "a.pt", states[1])
    assert pool4(tmp_path / "a.pt") is not first
    assert pool4(tmp_path / "b.pt") is pool4(tmp_path / "a.pt")
