"""The law of cuts: what follows a layer is what a plain hook on it gives, in values and gradients,
for every module.

And the blocks that `all` stands for, of all networks of the zoo and of torchvision.
"""

import contextlib
from collections import Counter

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from src.core.errors import UserError
from src.core.seeds import seeded
from src.models import MODEL_NAMES, Network, build_model
from src.models.preact_resnet import PreActResNet
from src.models.resnet import ResNet
from src.models.torchvision_networks import classifiers
from src.models.vit import VisionTransformer
from tests import traps
from tests.commands import says
from tests.goldens import block_names, golden_input, load_golden_weights
from tests.tiny_networks import Computed

SIZES = {"n_classes": 10, "n_channels": 3}
# A small member of each family: how to build it, its input, and some modules inside of its blocks.
FAMILIES = {
    "resnet": (lambda: Network(ResNet(block="BasicBlock", depths=(2, 1, 1, 1), same_width=True, **SIZES)), (3, 8, 8),
               ["layer1.0.conv2", "layer1.0.bn1", "layer1.0.relu", "layer2.0.downsample", "layer2.0.downsample.0"]),
    "bottleneck": (lambda: Network(ResNet(block="Bottleneck", depths=(1, 1, 1, 2), same_width=True, imagenet_stem=True,
                                          **SIZES)), (3, 32, 32), ["layer4.1.bn2", "layer4.1.conv3"]),
    "wide": (lambda: Network(PreActResNet(family="wide", depths=(1,) * 3, widths=(16, 32, 64), stem_width=16, **SIZES)),
             (3, 8, 8), ["layer.0.block.0.relu_0", "layer.1.block.0.shortcut"]),
    "small_cnn": (lambda: build_model("small_cnn"), (3, 16, 16), []),
    "vit": (lambda: Network(VisionTransformer(patch=4, image_size=16, width=24, depth=3, heads=2, **SIZES)),
            (3, 16, 16),
            ["patch_embed.proj", "blocks.1.attn", "blocks.1.attn.qkv", "blocks.1.norm2", "blocks.1.mlp.act"]),
}  # fmt: skip
LEAD_NOWHERE = {("nowhere", traps.Attention), ("same", traps.DictOutput)}
NO_GRADIENT = {
    traps.NumpyOfAll,
    traps.InPlaceModule,
    traps.CapturedView,
}  # torch gives none of the whole pass
# Gradients take some layers for cuts, but a short pass gives other values: a call that is answered
# would change its input, or branches around the layer have no gradient.
BY_HOOKS = {
    traps.CapturedView,
    traps.Detached,
    traps.InPlaceModule,
    traps.NumpyOfAll,
    traps.ReadAlias,
}


def zoo_network(name: str) -> tuple[Network, Tensor]:
    build, shape, _ = FAMILIES[name]
    return load_golden_weights(build()).double().eval().requires_grad_(False), golden_input(
        (2, *shape)
    ).double()


def plain_pass(
    network: Network,
    images: Tensor,
    replaced: str | None = None,
    by: Tensor | None = None,
    n_calls: int = 0,
) -> tuple[dict[str, Tensor | None], Counter[str]]:
    """Run a pass with hooks on all modules, of which one may replace an output in the last of
    `n_calls` calls.

    Returns copies of the last output of each module by name, with the logits as `output`, and the
    numbers of calls."""
    outputs, calls = {}, Counter()

    def hook(name, output):
        calls[name] += 1
        first, rest = (output[0], output[1:]) if isinstance(output, tuple) else (output, None)
        if name == replaced and calls[name] == n_calls:
            first = by.clone()
        outputs[name] = first.clone() if isinstance(first, Tensor) else None
        if name == replaced:
            return first if rest is None else (first, *rest)

    torch.manual_seed(1)
    with contextlib.ExitStack() as handles:
        for name, module in network.module.named_modules():
            handle = module.register_forward_hook(
                lambda _module, _inputs, output, name=name: hook(name, output)
            )
            handles.callback(handle.remove)
        outputs["output"] = network(images.clone())
    return outputs, calls


def gradient(logits: Tensor, source: Tensor) -> Tensor:
    """The gradient of a fixed function of logits."""
    weights = torch.linspace(-1, 1, logits.numel(), dtype=logits.dtype).view_as(logits)
    return torch.autograd.grad((weights * logits).sum(), source)[0]


def check_cut(network: Network, images: Tensor, layer: str, names: list[str]) -> None:
    """Check what follows values of other images at a layer: on images, on twice as many, on none if
    it can."""
    values, calls = plain_pass(network, images)
    has_gradient = type(network.module) not in NO_GRADIENT
    if (layer, type(network.module)) in LEAD_NOWHERE:
        with pytest.raises(UserError, match=f"the logits do not depend on layer '{layer}'"):
            network(values[layer], after=layer, images=images)
        return
    ways = [(1, images), (2, images), (1, None)]
    try:
        network(values[layer], after=layer)
    except ValueError as error:
        assert says(str(error), f"in front of {layer} ", "cannot be skipped")
        ways.pop()
    for times, passed_images in ways:
        value = torch.cat([values[layer].roll(1 + i, 0) for i in range(times)]).requires_grad_(
            has_gradient
        )
        kept, repeated = value.detach().clone(), torch.cat([images] * times)
        with torch.set_grad_enabled(has_gradient):
            plain, _ = plain_pass(network, repeated)
            expected, _ = plain_pass(network, repeated, layer, value, calls[layer])
            state = torch.get_rng_state()
            changed = [name for name in names[::-1] if not torch.equal(expected[name], plain[name])]
            torch.manual_seed(1)
            activations = network.activations(
                value, [*changed, "output"], after=layer, images=passed_images
            )
        assert torch.equal(
            torch.get_rng_state(), state
        )  # what is tried out takes no random numbers
        pairs = {name: (act, expected[name]) for name, act in activations.items()}
        if has_gradient:
            pairs["gradient"] = (
                gradient(activations["output"], value),
                gradient(expected["output"], value),
            )
        for name, (ours, theirs) in pairs.items():  # products with more rows round differently
            tolerance = 0 if times == 1 else 1e-11 * theirs.abs().max().item()
            torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance, msg=name)
        assert torch.equal(value, kept)  # which is not changed in place


def check_law(network: Network, images: Tensor, layers: list[str] | None) -> None:
    """Check cuts at layers, None: at all that are activations, and the activations of all."""
    before, state = (
        images.clone(),
        {key: value.clone() for key, value in network.state_dict().items()},
    )
    outputs, _ = plain_pass(network, images)
    layers_with_tensors = {layer for layer, act in outputs.items() if act is not None}
    assert layers_with_tensors - {"", "output"} == set(network.layer_names)
    names = [layer for layer in network.layer_names if len(outputs[layer]) == len(images)]
    torch.manual_seed(1)
    activations = network.activations(images, [*names[::-1], network.output_name])
    assert [*activations] == [*dict.fromkeys([*names[::-1], network.output_name])]
    for layer in (*names, network.output_name):
        assert torch.equal(activations[layer], outputs[layer]), (
            layer
        )  # nothing that came later changed it
    for layer in names if layers is None else layers:
        torch.manual_seed(1)
        assert torch.equal(network(images, until=layer), outputs[layer]), layer
        check_cut(network, images, layer, names)
    assert torch.equal(images, before)
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert all(
        "forward" not in vars(part) for part in network.modules()
    )  # what short passes put there is gone


@pytest.mark.parametrize("kind", traps.TRAPS, ids=lambda kind: kind.__name__)
def test_traps(kind, capfd):
    with seeded(0):
        network = Network(kind(), image_shape=(3, 4, 4))
        for buffer in network.buffers():  # statistics that are not trivial
            buffer.data = torch.rand(buffer.shape) + 0.5 if buffer.is_floating_point() else buffer
        images = 5 * torch.randn(5, 3, 4, 4, dtype=torch.float64)
    check_law(network.double().eval().requires_grad_(False), images, None)
    notes = capfd.readouterr().err.splitlines()
    assert len(notes) == (kind in BY_HOOKS), notes
    assert all(says(note, "whole passes", "slower") for note in notes)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_zoo(name, capfd):
    network, images = zoo_network(name)
    check_law(
        network,
        images,
        [*network.block_names[:: max(2, len(network.block_names) // 2)], *FAMILIES[name][2]],
    )
    assert not capfd.readouterr().err


def n_operations(run) -> int:
    """Multiply-adds of convolutions, linear maps and attention, after a first run that looks at the
    network."""
    run()
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_a_pass_costs_what_its_modules_cost(name):
    """Nothing behind `until` is computed, and nothing in front of `after`, unless that lies inside
    a block."""
    network, images = zoo_network(name)
    whole = n_operations(lambda: network(images))
    for layer in (*network.block_names, *FAMILIES[name][2]):
        act = network(images, until=layer)
        front = n_operations(lambda layer=layer: network(images, until=layer))
        behind = n_operations(lambda h=act, layer=layer: network(h, after=layer, images=images))
        assert behind == (whole - front if layer in network.cut_names else whole), layer
        assert layer in network.cut_names or layer not in network.block_names


@pytest.fixture(scope="module")
def resnet():
    return (
        load_golden_weights(build_model("resnet18_samewidth")).double().eval().requires_grad_(False)
    )


def test_between_two_layers(resnet):
    images = golden_input((2, 3, 16, 16)).double()
    start, end = resnet(images, until="layer1.0"), resnet(images, until="layer4.1")
    assert torch.equal(resnet(start, after="layer1.0", until="layer4.1"), end)
    assert torch.equal(resnet(end, after="output", until="output"), end)
    for layer in ("layer4.1", "output"):
        with pytest.raises(ValueError, match="does not lie behind"):
            resnet.activations(end, resnet.block_names, after=layer)


@pytest.mark.parametrize(
    ("layer", "n_blocks"),
    [("conv1", 8), ("layer2", 4), ("layer2.1", 4), ("layer3.0.conv2", 4), ("layer3.0", 3),
     ("layer4.1", 0), ("fc", 0)],
)  # fmt: skip
def test_blocks_behind_a_layer(resnet, layer, n_blocks):
    assert resnet.behind(layer) == list(resnet.block_names)[8 - n_blocks :]


def test_layers_of_an_option(resnet):
    assert resnet.layers("all") == list(resnet.block_names) and resnet.layers("all, fc")[-2:] == [
        "layer4.1",
        "fc",
    ]
    assert resnet.layers("layer2.0, layer1.0.conv2,layer2.0") == ["layer2.0", "layer1.0.conv2"]
    assert resnet.layers("layer*.1") == ["layer1.1", "layer2.1", "layer3.1", "layer4.1"]
    assert resnet.layers("layer[34].?.conv2,layer1") == [
        f"layer{i}.{j}.conv2" for i in "34" for j in "01"
    ] + ["layer1"]
    for text, line in (
        ("layer9", "unknown layer 'layer9'"),
        ("layer9.*", r"no layer matches 'layer9.\*'"),
        ("stem,layer3*", "unknown layer 'stem'"),
        ("layer1.0,layer2.l", "did you mean layer2.1"),
    ):
        with pytest.raises(UserError, match=line):
            resnet.layers(text)


def test_a_pattern_that_stops_at_a_dot_too_early_is_completed():
    class Staged(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.stages = torch.nn.ModuleList([torch.nn.Conv2d(3, 3, 1), torch.nn.Conv2d(3, 3, 1)])

        def forward(self, images):
            return self.stages[1](self.stages[0](images)).mean((2, 3))

    network = Network(Staged().eval(), image_shape=(3, 8, 8))
    with pytest.raises(UserError, match=r"give stages\.\*"):
        network.layers("stages*")
    assert network.layers("stages.*") == ["stages.0", "stages.1"]


# Networks of torchvision


EXPECTED = block_names()
FAST = ("tv_squeezenet1_1", "tv_shufflenet_v2_x0_5", "tv_vgg11", "tv_densenet121", "tv_googlenet")
CUT = {  # the smallest network of each kind: options that make it smaller
    "alexnet": {}, "convnext_tiny": {}, "densenet121": {}, "efficientnet_b0": {}, "efficientnet_v2_s": {},
    "googlenet": {}, "inception_v3": {},
    "maxvit_t": {"input_size": (64, 64), "stem_channels": 16, "partition_size": 2, "block_channels": [16, 32],
                 "block_layers": [1, 2], "head_dim": 8, "stochastic_depth_prob": 0.2, "num_classes": 7},
    "mnasnet0_5": {}, "mobilenet_v2": {},
    "mobilenet_v3_small": {}, "regnet_x_400mf": {}, "regnet_y_400mf": {}, "resnet18": {}, "resnet50": {},
    "resnext50_32x4d": {}, "shufflenet_v2_x0_5": {}, "squeezenet1_1": {}, "swin_t": {}, "swin_v2_t": {}, "vgg11": {},
    "vgg11_bn": {}, "vit_b_32": {"image_size": 64},
}  # fmt: skip


def built(name: str, **options) -> torch.nn.Module:
    if name in (
        "googlenet",
        "inception_v3",
    ):  # drawing truncated normal numbers takes half a minute
        options = {"init_weights": False}
    with seeded(0):
        if name == "maxvit_t" and options:  # torchvision's takes images of 224×224 alone
            module = torchvision.models.MaxVit(**options)
        else:
            module = torchvision.models.get_model(name, weights=None, num_classes=7, **options)
    return module.eval().requires_grad_(False)


@pytest.mark.parametrize(
    "name",
    [
        name if name in FAST else pytest.param(name, marks=pytest.mark.slow)
        for name in EXPECTED
        if name not in MODEL_NAMES
    ],
)
def test_blocks(name):
    """Those of the suite's own networks: test_models_network.py."""
    with (
        contextlib.nullcontext() if "regnet" in name else torch.device("meta")
    ):  # RegNet computes its widths
        network = Network(built(name.removeprefix("tv_")))
    assert list(network.to("meta").block_names) == EXPECTED[name]


def test_blocks_are_told_of_every_network():
    assert EXPECTED.keys() == {*MODEL_NAMES, *(f"tv_{name}" for name in classifiers())}


def test_every_family_is_cut():
    families = {torchvision.models.get_model_builder(name).__module__ for name in classifiers()}
    assert {torchvision.models.get_model_builder(name).__module__ for name in CUT} == families


@pytest.mark.parametrize(
    "name",
    [
        name if f"tv_{name}" == FAST[0] else pytest.param(name, marks=pytest.mark.slow)
        for name in CUT
    ],
)
def test_cuts(name, capfd):
    """Activations are those of hooks, and so is what follows some blocks and layers inside of
    some."""
    size = 75 if name == "inception_v3" else 64
    network = Network(built(name, **CUT[name]).double(), image_shape=(3, size, size))
    images = torch.rand(2, 3, size, size, dtype=torch.float64)
    blocks = network.block_names
    inner = [
        name for name, shape in network.shapes().items() if name not in network.cut_names and shape
    ] or blocks
    names = [blocks[0], blocks[-1], inner[len(inner) // 3], inner[-1]]
    with torch.no_grad():
        values, calls = plain_pass(network, images)
        acts = network.activations(images, [*blocks, *names, "output"])
    assert all(torch.equal(act, values[name]) for name, act in acts.items())
    for name in names:
        value = values[name].flip(0).requires_grad_()
        expected = plain_pass(network, images, name, value, calls[name])[0]["output"]
        logits = network(value, after=name, images=images)
        assert torch.equal(logits, expected), name
        assert torch.equal(gradient(logits, value), gradient(expected, value)), name
    assert {*blocks} <= {*network.cut_names}
    assert "takes whole passes" not in capfd.readouterr().err


@torch.no_grad()
def test_parameters_in_front_that_change_are_seen_behind():
    """A module in front of `body` returns a function of its parameter, which is used behind."""
    scale = Computed(lambda net: 2 * net.scale, scale=nn.Parameter(torch.ones(4)))
    module = Computed(
        lambda net, images: net.head(net.body(images.flatten(1)) * net.scale()),
        scale=scale,
        body=nn.Linear(3 * 4 * 4, 4),
        head=nn.Linear(4, 10),
    )
    network, images = Network(module).eval(), torch.rand(3, 3, 4, 4)
    h = network(images, until="body")
    assert torch.equal(network(h, after="body"), network(images))
    network.load_state_dict({**network.state_dict(), "scale.scale": torch.arange(4.0)})
    torch.testing.assert_close(network(h, after="body"), network(images))
    scale.scale.data = torch.full((4,), 3.0)
    torch.testing.assert_close(network(h, after="body"), network(images))


def test_a_pass_behind_a_layer_knows_the_size_of_its_images():
    """A map is resized to it."""

    def forward(net, images):
        resized = nn.functional.interpolate(net.first(images), size=images.shape[-2:])
        return net.last(resized).mean((2, 3))

    layers = {"first": nn.Conv2d(1, 2, 3, stride=2), "last": nn.Conv2d(2, 3, 1)}
    network = Network(Computed(forward, **layers).eval())
    for size in (16, 32, 20):  # the first images have another size than the next ones
        images = torch.rand(4, 1, size, size)
        hidden = network(images, until="first")
        logits = network(hidden, after="first", images=images)
        torch.testing.assert_close(logits, network(images))


def keep_size(net, images):
    """Keeps the size of its map, which a pass behind another layer reads."""
    features = net.conv(images)  # (B, 4, h, w)
    net.size = features.shape
    return features.flatten(2).mT  # (B, h·w, 4)


WEIGHED = {  # the mean of tokens, by the size that the embedding has seen last
    "grid": lambda mean, size: mean * size[-1] / 10,
    "batch": lambda mean, size: mean / size[0],
}


@pytest.mark.parametrize("kind", WEIGHED)
@torch.no_grad()
def test_a_module_that_keeps_the_size_of_its_last_images_is_cut(kind):
    def forward(net, images):
        tokens = net.last(net.block(net.embedding(images)))
        return net.head(WEIGHED[kind](tokens.mean(1), net.embedding.size))

    embedding = Computed(keep_size, conv=nn.Conv2d(1, 4, 4, stride=4))
    layers = {"block": nn.Linear(4, 4), "last": nn.Linear(4, 4), "head": nn.Linear(4, 3)}
    network = Network(Computed(forward, embedding=embedding, **layers).eval())
    batches = [torch.rand(n, 1, size, size) for n, size in [(4, 16), (5, 32), (4, 16)]]
    for images in batches:
        hidden = network(images, until="block")
        logits = network(images)
        for names in (["head"], ["last"], ["last", "head"]):
            network(batches[1])  # any pass over images of another size or number
            values = network.activations(hidden, names, after="block", images=images)
            if "head" in names:
                torch.testing.assert_close(values["head"], logits)


@torch.no_grad()
def test_what_a_module_assigns_for_another_size_is_not_left_in_it():
    def forward(net, images):
        """Resizes its parameter for images of another size, and keeps it so."""
        maps = net.conv(images)
        if maps.shape[-2:] != net.positions.shape[-2:]:
            resized = nn.functional.interpolate(net.positions, maps.shape[-2:])
            net.positions = nn.Parameter(resized)
        return net.head(maps + net.positions).mean((2, 3))

    before = nn.Parameter(torch.randn(1, 4, 4, 4))
    layers = {"conv": nn.Conv2d(1, 4, 4, stride=4), "head": nn.Conv2d(4, 3, 1)}
    module = Computed(forward, positions=before, **layers).eval()
    network = Network(module, image_shape=(1, 16, 16))
    images = torch.rand(4, 1, 16, 16)
    hidden = network(images, until="conv")
    logits = network(hidden, after="conv", images=images)
    torch.testing.assert_close(logits, network(images))
    assert module.positions is before
