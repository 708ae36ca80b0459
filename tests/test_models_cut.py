"""A cut is what plain hooks give: on networks of the zoo, on traps for tracing, and on what cannot be traced."""

import contextlib
import re
from collections import Counter
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from src.errors import UserError
from src.models import Network, build_model
from src.models.hooked import Hooked
from src.models.parts import Traced
from src.models.resnet import ResNet
from src.models.wide_resnet import wide_resnet
from src.runtime import seeded
from tests import traps
from tests.golden_weights import golden_input, load_golden_weights
from tests.traps import HOOKED, TRACED
from tests.untraceable import KINDS, Recurrent

# A small member of each family: how to build it, its input, and some modules inside of its steps.
LARGE = ("preact", "liu2020", "repr_cls_resnet", "repr_cls_vit")
FAMILIES = {
    "resnet": (
        lambda: build_model("resnet18_samewidth"),
        (3, 16, 16),
        ["layer1.0.conv2", "layer1.0.bn1", "layer1.0.relu", "layer2.0.downsample", "layer2.0.downsample.0"],
    ),
    "bottleneck": (
        lambda: Network(
            ResNet(block="Bottleneck", depths=(1, 1, 1, 2), n_classes=10, n_channels=3, imagenet_stem=True)
        ),
        (3, 32, 32),
        ["layer4.1.bn2", "layer4.1.conv3"],
    ),
    "preact": (
        lambda: build_model("preact_resnet18"),
        (3, 16, 16),
        ["layer_0.1.batchnorm_0", "layer_1.0.shortcut", "layer_3.1.conv_2d_2"],
    ),
    "wide": (
        lambda: Network(wide_resnet(depth=16, widening=1, n_classes=10, n_channels=3)),
        (3, 16, 16),
        ["layer.0.block.1.relu_0", "layer.1.block.0.shortcut"],
    ),
    "liu2020": (
        lambda: build_model("liu2020_wrn"),
        (3, 16, 16),
        ["block1.layer.0.convShortcut", "block3.layer.5.bn2"],
    ),
    "small_cnn": (lambda: build_model("small_cnn"), (3, 16, 16), []),
    "vit": (
        lambda: build_model("vit_tiny_patch4_32", image_shape=(3, 16, 16)),
        (3, 16, 16),
        ["patch_embed.proj", "blocks.3.attn", "blocks.3.attn.qkv", "blocks.3.norm2", "blocks.3.mlp.act"],
    ),
    "repr_cls_resnet": (
        lambda: build_model("repr_cls_resnet18", representation_shape=(8, 4, 4), image_shape=(3, 16, 16)),
        (8, 4, 4),
        ["layer3.0.bn2"],
    ),
    "repr_cls_vit": (
        lambda: build_model("repr_cls_vit_tiny", representation_shape=(17, 24)),
        (17, 24),
        ["blocks.11.mlp"],
    ),
}
ZOO = [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in FAMILIES]
SMALL = {kind.__name__: kind for kind in [*TRACED, *HOOKED, Recurrent]} | KINDS
NOTES = {kind.__name__: reason for kind, reason in HOOKED.items()}
LEAD_NOWHERE = {("nowhere", traps.Attention), ("same", traps.DictOutput)}
INSIDE = re.compile(r"module\.layers\.\d\.")  # of layers of torch's transformer, which are taken as a whole


class Case(NamedTuple):
    """A network in double precision, images, and the layers at which it is cut; empty: at all."""

    network: Network
    images: Tensor
    layers: list[str]


def small_case(name: str) -> Case:
    shape = (1, 8, 8) if name in {*KINDS, "Recurrent"} else (3, 4, 4)
    with seeded(0):
        network = Network(SMALL[name](), image_shape=shape)
        for buffer in network.buffers():  # statistics that are not trivial
            buffer.data = torch.rand(buffer.shape) + 0.5 if buffer.is_floating_point() else buffer
        images = 5 * torch.randn(5, *shape, dtype=torch.float64)
    return Case(network.double().eval().requires_grad_(False), images, [])


def zoo_case(name: str) -> Case:
    build, shape, inner = FAMILIES[name]
    network = load_golden_weights(build()).double().eval().requires_grad_(False)
    return Case(network, golden_input((2, *shape)).double(), [*network.block_names[::4], *inner])


@contextlib.contextmanager
def hooks_on(network, hook):
    """Plain hooks on all modules: `hook(name, output)` sees each output and may return another one."""
    with contextlib.ExitStack() as handles:
        for name, module in network.named_modules():
            plain = module.register_forward_hook(lambda _module, _inputs, output, name=name: hook(name, output))
            handles.callback(plain.remove)
        yield


def plain_pass(network, images, replaced: str | None = None, by: Tensor | None = None, n_calls: int = 0):
    """The last output of every module in a full pass, copied; the output of one, in its last call, may be a lie.

    Returns these by names, with the logits as `output`, and how often each module is called.
    """
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
    with hooks_on(network, hook):
        outputs["output"] = network(images.clone())
    return outputs, calls


def seeded_run(run, *arguments, **options):
    torch.manual_seed(1)
    return run(*arguments, **options)


def check_cut(case: Case, name: str, names: list[str]) -> None:
    """Check what follows a layer, given its own value, and then that of the images in another order."""
    network, images, _ = case
    own, calls = plain_pass(network, images)
    order = torch.arange(len(images)).roll(1)
    given = {"after": name, "images": images}
    if (name, type(network.module)) in LEAD_NOWHERE:
        with pytest.raises(UserError, match=f"the logits do not depend on layer '{name}'"):
            network(own[name], **given)
        return
    if network.needs_images(name):
        with pytest.raises(ValueError, match=f"{name} (is cut by hooks|lies inside a block): what follows it needs"):
            network(own[name], after=name)
    else:
        given.pop("images")
    for value in (own[name], own[name][order]):
        kept = value.clone()
        expected, _ = plain_pass(network, images, name, value, calls[name])
        state = torch.get_rng_state()
        assert torch.equal(seeded_run(network, value, **given), expected["output"])
        assert torch.equal(torch.get_rng_state(), state)  # what the engines try out takes no random numbers
        changed = [other for other in names[::-1] if not torch.equal(expected[other], own[other])]
        for other, act in seeded_run(network.activations, value, changed, **given).items():
            assert torch.equal(act, expected[other]), other
        assert torch.equal(value, kept)  # a part does not change its input
    is_permuted = torch.allclose(expected["output"], own["output"][order], rtol=0, atol=1e-9)
    assert is_permuted == (name in network.cut_names)
    engine = network._engines.current()
    behind = [other for other in names if other in changed or engine.layers[other] == engine.layers[name]]
    assert engine.behind(name, names) == behind
    needs_images = isinstance(engine, Hooked) or not is_permuted or isinstance(network.module, traps.LateShape)
    assert network.needs_images(name) <= needs_images


@pytest.mark.parametrize("name", [*SMALL, *ZOO])
@torch.no_grad()
def test_a_cut_is_what_hooks_give(name, capfd):
    case = network, images, layers = small_case(name) if name in SMALL else zoo_case(name)
    before = images.clone()
    outputs, _ = plain_pass(network, images)
    found = {layer for layer, act in outputs.items() if act is not None} - {"", "output"}
    assert {layer for layer in found if not INSIDE.match(layer)} <= set(network.layer_names)
    names = [layer for layer in network.layer_names if layer in found and len(outputs[layer]) == len(images)]
    activations = seeded_run(network.activations, images, [*names[::-1], network.output_name])
    assert [*activations] == [*dict.fromkeys([*names[::-1], network.output_name])]
    assert torch.equal(activations[network.output_name], outputs["output"])
    for layer in names:
        assert torch.equal(activations[layer], outputs[layer]), layer  # nothing that came later changed it
    for layer in layers or names:
        assert torch.equal(seeded_run(network, images, until=layer), outputs[layer]), layer
        check_cut(case, layer, names)
    assert torch.equal(images, before)
    is_hooked = name in NOTES or name in KINDS
    assert isinstance(network._engines.current(), Hooked if is_hooked else Traced)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == is_hooked
    for line in lines:
        assert re.match(rf"\w+ cannot be traced {NOTES.get(name, '')}", line)
        assert "takes a whole pass of the end network" in line


@pytest.fixture(scope="module")
def resnet():
    return load_golden_weights(build_model("resnet18_samewidth")).double().eval().requires_grad_(False)


def called(network, run):
    """The names of the modules without children that `run()` calls, after it has run once to be traced."""
    run()
    names = []
    with hooks_on(network, lambda name, _: names.append(name)):
        run()
    return {name for name in names if not list(network.get_submodule(name).children())}


@pytest.mark.parametrize("name", ZOO)
@torch.no_grad()
def test_nothing_behind_until_and_nothing_in_front_of_after_is_computed(name):
    network, images, _ = zoo_case(name)
    everything = called(network, lambda: network(images))
    for layer in network.block_names:
        activation = network(images, until=layer)
        front = called(network, lambda layer=layer: network(images, until=layer))
        assert front == called(network, lambda layer=layer: network.activations(images, [layer]))
        behind = called(network, lambda layer=layer, h=activation: network(h, after=layer))
        assert front and behind and not front & behind and front | behind == everything


def test_between_two_layers(resnet):
    images = golden_input((2, 3, 16, 16)).double()
    start, end = resnet(images, until="layer1.0"), resnet(images, until="layer4.1")
    assert torch.equal(resnet(start, after="layer1.0", until="layer4.1"), end)
    for run in (lambda: resnet(end, after="layer4.1", until="layer1.0"),
                lambda: resnet.activations(end, resnet.block_names, after="layer4.1")):  # fmt: skip
        with pytest.raises(ValueError, match="does not lie behind"):
            run()


def test_blocks_behind_a_layer(resnet):
    blocks = list(resnet.block_names)
    assert resnet.behind("conv1") == blocks and resnet.behind("layer4.1") == resnet.behind("fc") == []
    assert resnet.behind("layer3.0") == blocks[5:] and resnet.behind("layer3.0.conv2") == blocks[4:]
    assert resnet.behind("layer2") == resnet.behind("layer2.1") == blocks[4:]


def test_layers_of_an_option(resnet):
    assert resnet.layers("all") == list(resnet.block_names)
    assert resnet.layers("layer2.0, layer1.0.conv2,layer2.0") == ["layer2.0", "layer1.0.conv2"]
    assert resnet.layers("layer*.1") == ["layer1.1", "layer2.1", "layer3.1", "layer4.1"]
    assert resnet.layers("layer[34].?.conv2,layer1") == [f"layer{i}.{j}.conv2" for i in "34" for j in "01"] + ["layer1"]
    with pytest.raises(UserError, match="`all` stands for all blocks and is not combined"):
        resnet.layers("all,conv1")
    with pytest.raises(UserError, match="unknown layer 'layer9.*'"):
        resnet.layers("layer9.*")
    with pytest.raises(UserError, match="did you mean layer2.1"):
        resnet.layers("layer1.0,layer2.l")


def test_block_names_of_the_families():
    expected = {
        "resnet18": ("layer1.0", "layer4.1", 8),
        "preact_resnet18": ("layer_0.0", "layer_3.1", 8),
        "wide_resnet_28_10": ("layer.0.block.0", "layer.2.block.3", 12),
        "liu2020_wrn": ("block1.layer.0", "block3.layer.5", 18),
        "small_cnn": ("pool1", "pool4", 4),
        "vit_tiny_patch4_32": ("blocks.0", "blocks.11", 12),
    }
    for name, (first, last, number) in expected.items():
        with torch.device("meta"):
            names = build_model(name).block_names
        assert (names[0], names[-1], len(names)) == (first, last, number)
