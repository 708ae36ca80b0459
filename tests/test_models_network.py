"""Any module as a network: modes, copies, gradients, layouts, and what is refused."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from src.core.errors import UserError
from src.models import Network, build_model
from src.models.resnet import ResNet
from tests.commands import says
from tests.tiny_networks import Computed
from tests.traps import Attention, Base, Dropout, Patches, SharedRelu


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
    """test_sequences.py has time steps in front of the images."""
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
