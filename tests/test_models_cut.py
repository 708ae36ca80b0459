"""Stopping and starting a zoo network at any layer equals plain hooks on full passes, and computes nothing else."""

import contextlib

import pytest
import torch

from src.errors import UserError
from src.models import Network, build_model
from src.models.resnet import ResNet
from src.models.wide_resnet import wide_resnet
from tests.golden_weights import golden_input, load_golden_weights

# A small member of each family: how to build it, its input, and some modules inside of its steps.
FAMILIES = {
    "resnet": (
        lambda: build_model("resnet18_samewidth"),
        (2, 3, 16, 16),
        ["layer1.0.conv2", "layer1.0.bn1", "layer1.0.relu", "layer2.0.downsample", "layer2.0.downsample.0"],
    ),
    "bottleneck": (
        lambda: Network(
            ResNet(block="Bottleneck", depths=(1, 1, 1, 2), n_classes=10, n_channels=3, imagenet_stem=True)
        ),
        (2, 3, 32, 32),
        ["layer4.1.bn2", "layer4.1.conv3"],
    ),
    "preact": (
        lambda: build_model("preact_resnet18"),
        (2, 3, 16, 16),
        ["layer_0.1.batchnorm_0", "layer_1.0.shortcut", "layer_3.1.conv_2d_2"],
    ),
    "wide": (
        lambda: Network(wide_resnet(depth=16, widening=1, n_classes=10, n_channels=3)),
        (2, 3, 16, 16),
        ["layer.0.block.1.relu_0", "layer.1.block.0.shortcut"],
    ),
    "liu2020": (
        lambda: build_model("liu2020_wrn"),
        (2, 3, 16, 16),
        ["block1.layer.0.convShortcut", "block3.layer.5.bn2"],
    ),
    "small_cnn": (lambda: build_model("small_cnn"), (2, 3, 16, 16), []),
    "vit": (
        lambda: build_model("vit_tiny_patch4_32", image_shape=(3, 16, 16)),
        (2, 3, 16, 16),
        ["patch_embed.proj", "blocks.3.attn", "blocks.3.attn.qkv", "blocks.3.norm2", "blocks.3.mlp.act"],
    ),
    "repr_cls_resnet": (
        lambda: build_model("repr_cls_resnet18", representation_shape=(8, 4, 4), image_shape=(3, 16, 16)),
        (2, 8, 4, 4),
        ["layer3.0.bn2"],
    ),
    "repr_cls_vit": (
        lambda: build_model("repr_cls_vit_tiny", representation_shape=(17, 24)),
        (2, 17, 24),
        ["blocks.11.mlp"],
    ),
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    """A network in double precision, its input, and names of inner modules."""
    build, input_shape, inner = FAMILIES[request.param]
    network = load_golden_weights(build()).double().eval()
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    return network, golden_input(input_shape).double(), inner


@pytest.fixture(scope="module")
def resnet():
    return load_golden_weights(build_model("resnet18_samewidth")).double().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def images():
    return golden_input((2, 3, 16, 16)).double()


@contextlib.contextmanager
def hooked(network, hook):
    """Plain hooks on all modules: `hook(name, output)` sees each output and may return another one."""
    with contextlib.ExitStack() as handles:
        for name, module in network.named_modules():
            plain = module.register_forward_hook(lambda _module, _inputs, output, name=name: hook(name, output))
            handles.callback(plain.remove)
        yield


def plain_outputs(network, images, *, replaced=None, replacement=None):
    """The output of every module in a full pass, copied, and the logits; one module may be made to lie."""
    outputs = {}

    def hook(name, output):
        outputs[name] = replacement.clone() if name == replaced else output.clone()
        return replacement.clone() if name == replaced else None

    with hooked(network, hook):
        logits = network(images)
    return outputs, logits


def called(network, run):
    """The names of the modules without children that `run()` calls, after it has run once to be traced."""
    run()
    names = []
    with hooked(network, lambda name, _: names.append(name)):
        run()
    return {name for name in names if not list(network.get_submodule(name).children())}


def test_until_and_after_every_step_equal_a_full_pass(family):
    network, images, _ = family
    outputs, logits = plain_outputs(network, images)
    assert set(network.block_names) <= set(network.cut_names)
    for name in set(network.cut_names) & outputs.keys():  # the others are containers that are not called
        activation = network(images, until=name)
        assert torch.equal(activation, outputs[name]), name
        assert torch.equal(network(activation, after=name), logits), name
    assert torch.equal(network(images, until=network.output_name), logits)


def test_activations_of_many_layers_come_from_one_pass(family):
    network, images, inner = family
    outputs, _ = plain_outputs(network, images)
    names = [name for name in reversed(network.layer_names) if name in outputs]
    assert set(inner) <= set(names)
    activations = network.activations(images, names)
    assert list(activations) == names
    for name in names:
        assert torch.equal(activations[name], outputs[name]), name  # no step changes what another one kept


def test_inner_modules_equal_plain_hooks(family):
    network, images, inner = family
    outputs, logits = plain_outputs(network, images)
    for name in inner:
        activation = network(images, until=name)
        assert torch.equal(activation, outputs[name]), name
        changed = 2 * activation + 1
        _, expected = plain_outputs(network, images, replaced=name, replacement=changed)
        assert not torch.equal(expected, logits), name
        assert torch.equal(network(changed, after=name, images=images), expected), name


def test_between_two_layers(family):
    network, images, _ = family
    first, *_, last = network.block_names
    start, end = network(images, until=first), network(images, until=last)
    assert torch.equal(network(start, after=first, until=last), end)
    with pytest.raises(ValueError, match="does not lie behind"):
        network(end, after=last, until=first)


def test_activations_of_many_layers_behind_another(family):
    network, images, inner = family
    outputs, _ = plain_outputs(network, images)
    layers = [name for name in network.layer_names if name in outputs]
    for name in network.block_names[::2]:
        names = layers[layers.index(name) + 1 :][::-1]
        activations = network.activations(outputs[name], names, after=name)
        assert list(activations) == names
        assert all(torch.equal(activations[other], outputs[other]) for other in names)
    for name in inner:
        changed = 2 * outputs[name] + 1
        expected, _ = plain_outputs(network, images, replaced=name, replacement=changed)
        names = [*network.behind(name)[::-1], network.output_name]
        activations = network.activations(changed, names, after=name, images=images)
        assert all(torch.equal(activations[other], expected[other]) for other in names), name
    with pytest.raises(ValueError, match="does not lie behind"):
        network.activations(outputs[network.block_names[-1]], network.block_names, after=network.block_names[-1])


def test_blocks_behind_a_layer(resnet):
    blocks = list(resnet.block_names)
    assert resnet.behind("conv1") == blocks and resnet.behind("layer4.1") == resnet.behind("fc") == []
    assert resnet.behind("layer3.0") == blocks[5:] and resnet.behind("layer3.0.conv2") == blocks[4:]
    assert resnet.behind("layer2") == resnet.behind("layer2.1") == blocks[4:]


def test_nothing_behind_until_and_nothing_in_front_of_after_is_computed(family):
    network, images, _ = family
    everything = called(network, lambda: network(images))
    for name in network.block_names:
        activation = network(images, until=name)
        front = called(network, lambda name=name: network(images, until=name))
        assert front == called(network, lambda name=name: network.activations(images, [name]))
        behind = called(network, lambda name=name, h=activation: network(h, after=name))
        assert front and behind and not front & behind and front | behind == everything


@pytest.mark.parametrize(
    ("name", "container", "last"),
    [
        ("resnet18_samewidth", "layer2", "layer2.1"),
        ("preact_resnet18", "layer_1", "layer_1.1"),
        ("liu2020_wrn", "block2", "block2.layer.5"),
        ("vit_tiny_patch4_32", "blocks", "blocks.11"),
    ],
)
def test_a_container_means_its_last_step(name, container, last):
    with torch.device("meta"):
        network = build_model(name)
    positions = network._engines.current().layers
    assert positions[container] == positions[last]


def test_an_activation_is_that_of_the_module_itself(resnet, images):
    before_relu = resnet(images, until="layer1.0.bn1")
    assert before_relu.min() < 0  # the in-place ReLU behind it would have cut that off
    convolved = resnet(images, until="layer1.0.conv1")
    assert torch.equal(before_relu, resnet.module.layer1[0].bn1(convolved))
    assert resnet(images, until="bn1").min() < 0


def test_an_inner_module_needs_the_images(resnet, images):
    activation = resnet(images, until="layer2.0.conv2")
    with pytest.raises(ValueError, match="layer2.0.conv2 lies inside a block"):
        resnet(activation, after="layer2.0.conv2")


@pytest.mark.parametrize("given", ["layer5.0", "layer1.2", "layer1.0.add", ""])
def test_an_unknown_layer_lists_the_blocks(resnet, images, given):
    with pytest.raises(UserError, match=f"unknown layer '{given}'.*known: layer1.0, layer1.1, layer2.0") as error:
        resnet(images, until=given)
    assert str(error.value).endswith("for all others: python misc/list_layers.py MODEL")


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
