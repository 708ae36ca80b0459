"""Tokens: their layout, and networks on sequences."""

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer as TorchvisionTransformer

from src.core.activations import TokenLayout, cells, grid_of, guessed_layout, pool
from src.core.errors import UserError
from src.core.inputs import InputSpec
from src.models import Network
from src.models.axes import n_leading_equal
from src.models.vit import VisionTransformer
from src.stitching import build_layers, build_stitching_layer, match_layers
from src.stitching.layers import resize_maps
from src.training import classification_losses
from src.training.probes import Probes
from tests.commands import says
from tests.tiny_networks import Computed
from tests.traps import Patches

WIDE = (1, 8, 16)  # images


def vit(patch: int = 4) -> Network:
    torch.manual_seed(patch)
    module = VisionTransformer(
        patch=patch, image_size=8, image_shape=WIDE, width=12, depth=2, heads=2, n_classes=10,
        n_channels=1,
    )  # fmt: skip
    return network(module, WIDE)


def network(module: nn.Module, image_shape=(1, 8, 8)) -> Network:
    frozen = module.eval().requires_grad_(False)
    return Network(frozen, image_shape=image_shape, n_classes=10)


class Prefixed(nn.Module):
    """A transformer with prefix tokens, which are parameters or made of the images.

    Layers: `embed` (maps), `patches` (16 tokens), `joined` (with the prefix), `mixed` (attention),
    `rest` (the patches alone).
    """

    def __init__(self, n_prefix: int, *, of_images: bool = False, **attributes):
        super().__init__()
        self.embed, self.patches = nn.Conv2d(1, 6, 2, 2), nn.Linear(6, 6)
        self.prefix = nn.Parameter(torch.randn(1, n_prefix, 6))
        self.of_images = of_images
        self.joined = nn.Identity()
        self.mixed = nn.TransformerEncoderLayer(6, 2, 12, batch_first=True)
        self.rest, self.head = nn.Linear(6, 6), nn.Linear(6, 10)
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patches(self.embed(images).flatten(2).mT)
        prefix = self.prefix.expand(len(images), -1, -1)
        if self.of_images:
            prefix = prefix + patches.mean(1, keepdim=True)
        tokens = self.mixed(self.joined(torch.cat([prefix, patches], 1)))
        rest = self.rest(tokens[:, self.prefix.shape[1] :])
        return self.head(tokens[:, 0] + rest.mean(1))


LAYERS = ("embed", "patches", "joined", "mixed", "rest")


def layouts(module: nn.Module) -> list[TokenLayout | None]:
    view = network(module)
    return [view.token_layout(layer) for layer in LAYERS]


def test_the_suites_vit_on_images_that_are_not_square():
    """Nine tokens: the square of 3, but a CLS token and 2×4 patches."""
    wide = vit()
    assert wide.token_layout("patch_embed") == TokenLayout(0, (2, 4), False)
    for layer in ("pos_drop", "blocks.0", "blocks.0.attn.qkv", "blocks.1", "norm"):
        assert wide.token_layout(layer) == TokenLayout(1, (2, 4), True)
    assert wide.token_layout("head") is wide.token_layout("output") is None
    with pytest.raises(UserError, match="unknown layer 'blocks.2'"):
        wide.token_layout("blocks.2")

    # A probe reads the CLS token
    probes = Probes(wide, ["blocks.1"], [None], InputSpec(10, WIDE), seed=0)
    images, labels = torch.rand(6, *WIDE), torch.arange(6)
    (of_batch,) = probes.losses(images, labels, training=True)
    features = wide(images, until="blocks.1")[:, 0]
    expected = classification_losses(next(iter(probes.heads.values()))(features)[None], labels)
    torch.testing.assert_close(of_batch.losses, expected.losses)

    # Cells keep it apart from those of the patches
    tokens = torch.randn(3, 9, 5)
    maps = tokens[:, 1:].mT.unflatten(2, (2, 4))
    expected_cells = torch.cat([tokens[:, :1], cells(maps, side=2)], 1)
    torch.testing.assert_close(cells(tokens, wide.token_layout("blocks.0"), side=2), expected_cells)


def test_auto_lays_out_patches_as_the_images_are():
    front, end = vit(), vit(2)  # 2×4 and 4×8 patches
    options = {"image_shape": WIDE, "seed": 0}
    layers, _ = build_layers(front, end, ["blocks.0"], ["blocks.0"], "auto", **options)
    (layer,) = layers.values()
    source = front(torch.rand(2, *WIDE), until="blocks.0")
    maps = source[:, 1:].mT.unflatten(2, (2, 4))
    resized = resize_maps(maps, (4, 8), "bilinear").flatten(2).mT
    expected = layer.transform(torch.cat([source[:, :1], resized], 1))
    torch.testing.assert_close(layer(source), expected)


@pytest.mark.parametrize("n_prefix", [1, 2, 5])
def test_tokens_that_no_image_has_reached_are_prefix_tokens(n_prefix, capsys):
    patches, joined = TokenLayout(0, (4, 4), False), TokenLayout(n_prefix, (4, 4), True)
    assert layouts(Prefixed(n_prefix)) == [None, patches, joined, joined, patches]
    zeros = Prefixed(n_prefix)
    nn.init.zeros_(zeros.prefix)  # constant over its features, too
    assert layouts(zeros) == [None, patches, joined, joined, patches]
    assert not capsys.readouterr().err


def test_of_other_packages():
    torchvision = TorchvisionTransformer(8, 4, 1, 2, 8, 16)
    torchvision.conv_proj = nn.Conv2d(1, 8, 4, 4)
    nn.init.normal_(torchvision.class_token)
    view = network(torchvision)
    assert view.token_layout("encoder") == TokenLayout(1, (2, 2), True)
    assert network(Patches(n_channels=1)).token_layout("blocks.1") == TokenLayout(1, (4, 4), True)
    without = network(Patches(n_channels=1, has_cls=False))
    assert without.token_layout("blocks.1") == TokenLayout(0, (4, 4), False)


def test_attributes_say_what_a_pass_does_not_tell(capsys):
    patches = TokenLayout(0, (4, 4), False)
    for name in ("n_prefix_tokens", "num_prefix_tokens"):
        two = TokenLayout(2, (4, 4), True)
        found = layouts(Prefixed(2, of_images=True, **{name: 2}))
        assert found == [None, patches, two, two, patches]
    inside = nn.Sequential(Prefixed(2, of_images=True, n_prefix_tokens=2))
    assert network(inside).token_layout("0.mixed") == TokenLayout(2, (4, 4), True)

    registers = TokenLayout(4, (4, 4), False)
    found = layouts(Prefixed(4, num_prefix_tokens=4, has_class_token=False))
    assert found == [None, patches, registers, registers, patches]
    tokens = torch.randn(3, 20, 6)
    torch.testing.assert_close(pool(tokens, registers), tokens[:, 4:].mean(1))
    assert not capsys.readouterr().err


def test_what_is_guessed_is_said(capsys):
    assert layouts(Prefixed(1, of_images=True))[2] == TokenLayout(1, (4, 4), True)
    guess = "joined", "Prefixed", "17 tokens", "1 token in front", "4×4 patches"
    assert says(capsys.readouterr().err, *guess, "n_prefix_tokens")
    assert layouts(Prefixed(2, of_images=True))[2] == TokenLayout()
    assert not capsys.readouterr().err  # a sequence

    guesses = {1: (0, (1, 1)), 16: (0, (4, 4)), 17: (1, (4, 4)), 5: (1, (2, 2)), 18: (0, None)}
    for n_tokens, (n_prefix, grid) in guesses.items():
        assert guessed_layout(n_tokens) == TokenLayout(n_prefix, grid, n_prefix > 0)
    tokens = torch.randn(2, 26, 4)
    assert torch.equal(pool(tokens), tokens[:, 0])
    assert says(capsys.readouterr().err, "26 tokens", "1 token in front", "5×5 patches")


def test_grids_have_the_ratio_of_the_images_or_are_squares():
    assert grid_of(8, (8, 16)) == (2, 4) and grid_of(8, (16, 8)) == (4, 2)
    assert grid_of(16, (8, 32)) == (2, 8) and grid_of(16, (8, 16)) == (4, 4)
    assert grid_of(6, (20, 30)) == (2, 3) and grid_of(6, (32, 32)) is None


def test_dead_channels_of_a_map_are_no_prefix_tokens():
    channels = torch.rand(2, 64, 16)  # (2, C, H·W)
    channels[:, :3] = 0
    assert n_leading_equal(channels, (8, 8)) == 0
    tokens = torch.rand(2, 20, 4)
    tokens[1, :4] = tokens[0, :4] * (1 + 1e-4)  # up to rounding
    assert n_leading_equal(tokens, (8, 8)) == 4


CLS, REGISTERS = TokenLayout(1, (2, 2), True), TokenLayout(5, (2, 2), True)


@pytest.mark.parametrize("made", ["pool", "learn"])
def test_a_map_becomes_patches_behind_prefix_tokens_that_are_made(made):
    layer = build_stitching_layer(
        "c2t", (3, 2, 2), (9, 4), layouts=(None, REGISTERS), c2t_cls_token=made
    )
    x = torch.randn(2, 3, 2, 2)
    patches = layer.transform(x).flatten(2).mT
    prefix = patches.mean(1, keepdim=True).expand(-1, 5, -1)
    if made == "learn":
        assert layer.cls_token.shape == (1, 5, 4)
        prefix = layer.cls_token.expand(2, -1, -1)
    torch.testing.assert_close(layer(x), torch.cat([prefix, patches], 1))
    target = torch.randn(2, 9, 4)
    torch.testing.assert_close(layer.targets(target), target[:, 5:])


def test_prefix_tokens_that_both_sides_have_are_kept():
    options = {"layouts": (TokenLayout(1, (1, 1), True), REGISTERS)}
    with pytest.raises(UserError, match="t2t to 9 tokens, 5 tokens in front of 2×2 patches: what"):
        build_stitching_layer("t2t", (2, 3), (9, 4), **options)
    layer = build_stitching_layer("t2t", (2, 3), (9, 4), **options, c2t_cls_token="pool")
    x = torch.randn(2, 2, 3)
    mapped = layer.transform(x)
    expected = torch.cat([mapped[:, :1], mapped[:, 1:].expand(-1, 8, -1)], 1)
    torch.testing.assert_close(layer(x), expected)
    target = torch.randn(2, 9, 4)
    expected_targets = torch.cat([target[:, :1], target[:, 5:]], 1)
    torch.testing.assert_close(layer.targets(target), expected_targets)

    fewer = build_stitching_layer(
        "t2t", (9, 3), (2, 4), layouts=(REGISTERS, TokenLayout(1, (1, 1), True))
    )
    tokens = torch.randn(2, 9, 3)
    kept = torch.stack([tokens[:, 0], tokens[:, 5:].mean(1)], 1)
    torch.testing.assert_close(fewer(tokens), fewer.transform(kept))


def test_a_grid_becomes_a_map_without_its_prefix_tokens():
    tokens = torch.randn(2, 9, 3)
    maps = tokens[:, 5:].mT.unflatten(2, (2, 2))
    layer = build_stitching_layer("t2c", (9, 3), (4, 2, 2), layouts=(REGISTERS, None))
    torch.testing.assert_close(layer(tokens), layer.transform(maps))
    added = build_stitching_layer(
        "t2c", (9, 3), (4, 2, 2), layouts=(REGISTERS, None), t2c_cls_token="add"
    )
    with_cls = maps + added.cls_token_weight * tokens[:, 0, :, None, None]
    torch.testing.assert_close(added(tokens), added.transform(with_cls))


def test_learned_registers_start_as_the_means_of_the_targets():
    torch.manual_seed(0)
    front, end = network(Prefixed(1)), network(Prefixed(5))
    images = torch.rand(30, 1, 8, 8)
    layers, _ = build_layers(
        front, end, ["embed"], ["mixed"], "auto", image_shape=(1, 8, 8), seed=0,
        c2t_cls_token="learn",
    )  # fmt: skip
    match_layers(front, end, layers, [(images, None)])
    (layer,) = layers.values()
    target = end(images, until="mixed")
    torch.testing.assert_close(layer.cls_token.detach()[0], target[:, :5].mean(0))


def rows(net, images):
    """An LSTM over the rows of grey images, a norm, and maps beside them."""
    steps, _ = net.lstm(images[:, 0])
    return net.head(net.norm(steps)[:, -1] + net.stem(images).mean())


def row_layers() -> dict[str, nn.Module]:
    layers = {"stem": nn.Conv2d(1, 2, 1), "lstm": nn.LSTM(16, 6, batch_first=True)}
    return layers | {"norm": nn.LayerNorm(6), "head": nn.Linear(6, 4)}


def patches_of(side: int) -> nn.Module:
    """Patch tokens, which form a square."""
    return Computed(
        lambda net, x: net.head(net.tokens(net.embed(x).flatten(2).transpose(1, 2)).mean(1)),
        embed=nn.Conv2d(1, 6, side, side),
        tokens=nn.Linear(6, 6),
        head=nn.Linear(6, 4),
    )


def sequence_network(module: nn.Module, side: int = 16) -> Network:
    return Network(module.eval().requires_grad_(False), image_shape=(1, side, 16), n_classes=4)


def test_sequences_are_stitched_step_by_step_or_not_at_all():
    of_rows = sequence_network(Computed(rows, **row_layers()))
    patches, fine = sequence_network(patches_of(4)), sequence_network(patches_of(2))
    assert of_rows.token_layout("lstm") == of_rows.token_layout("norm") == TokenLayout()
    assert patches.token_layout("tokens") == TokenLayout(grid=(4, 4))
    assert patches.token_layout("embed") is patches.token_layout("output") is None

    def layers(front, end, front_layer, end_layer, kind):
        sides = front, end, [front_layer], [end_layer], kind
        return build_layers(*sides, image_shape=(1, 16, 16), seed=0)[0]

    images = torch.rand(3, 1, 16, 16)
    for front, end, *pair in (
        (of_rows, of_rows, "lstm", "norm"),
        (patches, of_rows, "tokens", "lstm"),
    ):
        (layer,) = layers(front, end, *pair, "t2t").values()
        steps = front(images, until=pair[0])
        assert torch.equal(layer(steps), layer.transform(steps))
    for refused, fitting in (
        ((of_rows, fine, "lstm", "tokens", "t2t"), "s2t"),
        ((fine, of_rows, "tokens", "norm", "t2t"), "t2s"),
        ((of_rows, of_rows, "lstm", "stem", "t2c"), "s2c"),
        ((of_rows, of_rows, "stem", "lstm", "c2t"), "c2s"),
    ):
        with pytest.raises(UserError, match=f"grid.*use {fitting}"):
            layers(*refused)
    assert layers(patches, fine, "tokens", "tokens", "t2t")  # patch tokens are resized


def test_probes_average_all_steps():
    """Of 17 as well, where the first of other tokens would be the CLS token."""
    of_rows = sequence_network(Computed(rows, **row_layers()), 17)
    images = torch.rand(5, 1, 17, 16)
    probes = Probes(of_rows, ["lstm"], [None], InputSpec(4, (1, 17, 16)), seed=0)
    (found,) = probes.losses(images, torch.arange(5) % 4, training=True)
    features = of_rows(images, until="lstm").mean(1)
    expected = classification_losses(
        next(iter(probes.heads.values()))(features)[None], torch.arange(5) % 4
    )
    torch.testing.assert_close(found.losses, expected.losses)


def test_cells_are_stretches_of_steps():
    steps = torch.arange(16.0).view(1, 16, 1)
    assert cells(steps, side=2).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]  # of a map of 4×4
    assert cells(steps, TokenLayout(), side=2).flatten().tolist() == [1.5, 5.5, 9.5, 13.5]


@pytest.mark.parametrize("n_rows", [2, 3, 7])
def test_time_steps_in_front_of_the_images_are_refused(n_rows):
    """Of two as well, though a first pass sees two images, and of as many as there are images."""

    def over_rows(net, images):
        steps, _ = net.steps(images[:, 0, :n_rows].transpose(0, 1))
        return net.head(net.norm(steps)[-1])

    layers = {"steps": nn.GRU(16, 6), "norm": nn.LayerNorm(6), "head": nn.Linear(6, 4)}
    time_first = sequence_network(Computed(over_rows, **layers))
    assert list(time_first.shapes()) == ["head"]
    line = "layer 'norm' gives time steps in front of the images.*batch_first=True"
    with pytest.raises(UserError, match=line):
        time_first.channels_first(["norm"], image_shape=(1, 16, 16))
    with pytest.raises(UserError, match=line):
        time_first(torch.rand(n_rows, 1, 16, 16), until="norm")
