"""Layers of any kind: the layout of tokens, networks on sequences, and stitches between two kinds, against least
squares on activations that are resampled naively and through the scripts on a list of mixed networks."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer as TorchvisionTransformer

from src.core.activations import ActivationShape, TokenLayout, cells, grid_of, guessed_layout, pool
from src.core.choices import STITCHING_TYPES
from src.core.errors import UserError
from src.core.inputs import InputSpec
from src.core.kinds import GRID, MAP, SEQUENCE, VECTOR
from src.models import Network, build_model
from src.models.axes import n_leading_equal
from src.models.vit import VisionTransformer
from src.stitching import build_layers, build_stitching_layer, match_layers
from src.stitching.layers import resize_maps, type_for
from src.training import classification_losses
from src.training.probes import Probes
from tests.commands import ON_DIGITS, read_csv, read_json, run, says, stitch_rows
from tests.conftest import few_images
from tests.tiny_networks import Computed
from tests.traps import Patches

WIDE = (1, 8, 16)  # images


def vit(patch: int = 4) -> Network:
    torch.manual_seed(patch)
    module = VisionTransformer(
        patch=patch, image_size=8, image_shape=WIDE, width=12, depth=2, heads=2, n_classes=10,
        n_channels=1,
    )  # fmt: skip
    return token_network(module, WIDE)


def token_network(module: nn.Module, image_shape=(1, 8, 8)) -> Network:
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


TOKEN_LAYERS = ("embed", "patches", "joined", "mixed", "rest")


def layouts(module: nn.Module) -> list[TokenLayout | None]:
    view = token_network(module)
    return [view.token_layout(layer) for layer in TOKEN_LAYERS]


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
    view = token_network(torchvision)
    assert view.token_layout("encoder") == TokenLayout(1, (2, 2), True)
    assert token_network(Patches(n_channels=1)).token_layout("blocks.1") == TokenLayout(
        1, (4, 4), True
    )
    without = token_network(Patches(n_channels=1, has_cls=False))
    assert without.token_layout("blocks.1") == TokenLayout(0, (4, 4), False)


def test_attributes_say_what_a_pass_does_not_tell(capsys):
    patches = TokenLayout(0, (4, 4), False)
    for name in ("n_prefix_tokens", "num_prefix_tokens"):
        two = TokenLayout(2, (4, 4), True)
        found = layouts(Prefixed(2, of_images=True, **{name: 2}))
        assert found == [None, patches, two, two, patches]
    inside = nn.Sequential(Prefixed(2, of_images=True, n_prefix_tokens=2))
    assert token_network(inside).token_layout("0.mixed") == TokenLayout(2, (4, 4), True)

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
    front, end = token_network(Prefixed(1)), token_network(Prefixed(5))
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


IMAGE = (1, 6, 8)


WIDTHS = {"maps": 3, "vector": 7, "wide": 3}  # of the others: 4
EMBEDDINGS = {
    "maps": lambda: nn.Conv2d(1, 3, 2, 2),  # (3, 3, 4)
    "patches": lambda: nn.Conv2d(1, 4, (3, 4), (3, 4)),  # 2×2
    "cls": lambda: nn.Conv2d(1, 4, (3, 4), (3, 4)),
    "wide": lambda: nn.Conv2d(1, 3, (2, 2), (2, 3)),  # 3×3
    "vector": lambda: nn.Linear(48, 7),
    "rows": lambda: nn.Linear(8, 4),  # 6, which form no square
    "steps": nn.Identity,
    "columns": nn.Identity,
}
LAYERS = {
    "maps": nn.Identity,
    "steps": lambda: nn.GRU(8, 4, batch_first=True),  # over 6 rows
    "columns": lambda: nn.GRU(6, 4, batch_first=True),  # over 8 columns
}


def embedded(net, images: Tensor) -> Tensor:
    """What the layer of a network takes: maps, tokens or a vector."""
    if net.name == "vector":
        return net.embed(images.flatten(1))
    if net.name in ("steps", "rows", "columns"):
        return net.embed(images[:, 0].mT if net.name == "columns" else images[:, 0])
    if net.name == "maps":
        return net.embed(images)
    tokens = net.embed(images).flatten(2).mT
    if net.name == "cls":
        tokens = torch.cat([tokens.square().mean(1, keepdim=True), tokens], 1)
    return tokens


def logits(net, images: Tensor) -> Tensor:
    acts = net.layer(embedded(net, images))
    acts = acts[0] if isinstance(acts, tuple) else acts
    return net.head(pool(acts.tanh(), TokenLayout()))


KINDS = {
    "maps": MAP, "patches": GRID, "cls": GRID, "wide": GRID, "steps": SEQUENCE,
    "columns": SEQUENCE, "rows": SEQUENCE, "vector": VECTOR,
}  # fmt: skip
SIDES = {"maps": (3, 4), "patches": (2, 2), "cls": (2, 2), "wide": (3, 3)}  # of grids
PAIRS = [
    ("maps", "patches"), ("wide", "patches"), ("cls", "wide"), ("patches", "maps"), ("maps", "cls"),
    ("steps", "columns"), ("columns", "rows"), ("maps", "steps"), ("rows", "maps"), ("cls", "steps"),
    ("patches", "rows"), ("columns", "cls"), ("rows", "wide"), ("maps", "vector"), ("cls", "vector"),
    ("wide", "vector"), ("steps", "vector"), ("vector", "maps"), ("vector", "cls"),
    ("vector", "rows"), ("vector", "vector"),
]  # fmt: skip


def network(name: str) -> Network:
    """A network whose layer `layer` has activations of one of `KINDS`."""
    torch.manual_seed(len(name))
    width = WIDTHS.get(name, 4)
    layer = LAYERS.get(name, lambda: nn.Linear(width, width))
    parts = {"embed": EMBEDDINGS[name](), "layer": layer(), "head": nn.Linear(width, 4)}
    module = Computed(logits, name=name, **parts).double().eval().requires_grad_(False)
    return Network(module, image_shape=IMAGE, n_classes=4)


def some_images(n: int) -> Tensor:
    return torch.rand(n, *IMAGE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def stitching_layer(front: Network, end: Network, kind: str = "auto"):
    layers, _ = build_layers(front, end, ["layer"], ["layer"], kind, image_shape=IMAGE, seed=0)
    return layers


def resampled(line: np.ndarray, n: int) -> np.ndarray:
    """Resample (B, T, C) linearly along its second axis, as pixels are, without aligned corners."""
    n_in = line.shape[1]
    places = np.clip((np.arange(n) + 0.5) * n_in / n - 0.5, 0, n_in - 1)
    return np.stack([
        line[:, int(place)] * (1 - place % 1) + line[:, min(int(place) + 1, n_in - 1)] * (place % 1)
        for place in places
    ], axis=1)  # fmt: skip


def in_a_row(activation: Tensor, name: str) -> np.ndarray:
    """Return the positions (B, T, C) of an activation row by row, without a CLS token."""
    if activation.ndim == 4:
        activation = activation.flatten(2).mT
    return activation[:, int(name == "cls") :].numpy()


def expected_rows(source: Tensor, target: Tensor, front: str, end: str):
    """Return source and target as (B, T, C), whose positions correspond."""
    if front == end == "vector":
        return source[:, None].numpy(), target[:, None].numpy()
    if end == "vector":
        rows = source[:, :1].numpy() if front == "cls" else in_a_row(source, front)
        return rows.mean(1, keepdims=True), target[:, None].numpy()
    if front == "vector":
        rows = in_a_row(target, "all tokens")
        return np.repeat(source[:, None].numpy(), rows.shape[1], axis=1), rows
    rows, sides = in_a_row(target, end), (SIDES.get(front), SIDES.get(end))
    if None in sides:
        return resampled(in_a_row(source, front), rows.shape[1]), rows
    (height, width), (new_height, new_width) = sides
    maps = in_a_row(source, front).reshape(len(source), height, width, -1)
    columns = resampled(maps.reshape(len(maps), height, -1), new_height)
    lines = columns.reshape(len(maps) * new_height, width, -1)
    return resampled(lines, new_width).reshape(len(maps), new_height * new_width, -1), rows


@pytest.mark.parametrize(("front_name", "end_name"), PAIRS)
def test_matching_is_least_squares_on_naively_resampled_activations(front_name, end_name):
    front, end = network(front_name), network(end_name)
    images = some_images(60)
    layers = stitching_layer(front, end)
    (layer,) = layers.values()
    kinds = (KINDS[front_name], KINDS[end_name])
    assert STITCHING_TYPES[layer.stitching_type] == kinds
    assert layer.stitching_type == "rc2c_pre" or layer.stitching_type[1:-1] == "2"
    matched = match_layers(front, end, layers, [(images[:25], None), (images[25:], None)])

    source, target = front(images, until="layer"), end(images, until="layer")
    x, y = expected_rows(source, target, front_name, end_name)
    ones = np.ones((*x.shape[:2], 1))
    design = np.concatenate([x, ones], axis=2).reshape(-1, x.shape[2] + 1)
    solution, *_ = np.linalg.lstsq(design, y.reshape(-1, y.shape[2]), rcond=None)
    weight = layer.transform.weight.detach().flatten(1)
    np.testing.assert_allclose(weight, solution[:-1].T, atol=1e-8)
    np.testing.assert_allclose(layer.transform.bias.detach(), solution[-1], atol=1e-8)
    (matching,) = matched.values()
    squares = ((design @ solution - y.reshape(-1, y.shape[2])) ** 2).sum()
    assert matching.error == pytest.approx(squares / (y**2).sum(), rel=1e-8)

    stitched = layer(source)
    assert stitched.shape == target.shape
    made = (design @ solution).reshape(y.shape)
    if end_name == "vector":
        made = made[:, 0]
    elif end_name == "cls" and front_name != "vector":
        made = np.concatenate([made.mean(1, keepdims=True), made], axis=1)
    elif end_name == "maps":
        made = made.transpose(0, 2, 1).reshape(target.shape)
    np.testing.assert_allclose(stitched.detach(), made, atol=1e-8)


@pytest.mark.parametrize("name", KINDS)
def test_a_stitch_of_a_layer_to_itself_is_the_identity(name):
    both = network(name)
    layers = stitching_layer(both, both)
    match_layers(both, both, layers, [(some_images(60), None)])
    (layer,) = layers.values()
    width = layer.transform.weight.shape[0]
    weight = layer.transform.weight.detach().flatten(1)
    torch.testing.assert_close(weight, torch.eye(width).double(), atol=1e-6, rtol=0)
    bias = layer.transform.bias.detach()
    torch.testing.assert_close(bias, torch.zeros_like(bias), atol=1e-6, rtol=0)


def test_the_rule_of_kinds():
    numbers = {GRID: (1, 2, 4, 5, 16, 17, 197, 1024), SEQUENCE: (3, 6, 8, 18, 512)}
    for kind, counts in numbers.items():
        assert {ActivationShape.of((n_tokens, 3)).kind for n_tokens in counts} == {kind}
    steps = TokenLayout()
    assert ActivationShape.of((16, 3), steps).kind == SEQUENCE
    assert (ActivationShape.of((3, 4, 4)).kind, ActivationShape.of((3,)).kind) == (MAP, VECTOR)
    assert type_for(ActivationShape.of((512, 4)), ActivationShape.of((1024, 6))) == "s2t"
    assert type_for(ActivationShape.of((512, 4)), ActivationShape.of((512, 6))) == "t2t"
    assert type_for(ActivationShape.of((17, 4), steps), ActivationShape.of((17, 6))) == "t2t"
    with pytest.raises(UserError, match="shape 2×3×4×4; choose a layer"):
        type_for(ActivationShape.of((2, 3, 4, 4)), ActivationShape.of((3,)))


def test_a_user_may_read_a_grid_as_a_sequence():
    layer = build_stitching_layer("s2s", (4, 3), (9, 3), is_identity=True)
    tokens = torch.rand(2, 4, 3)
    expected = torch.from_numpy(resampled(tokens.numpy(), 9))
    torch.testing.assert_close(layer(tokens), expected.to(tokens))
    for kind, source, line in (("t2s", (18, 3), "grid, not the 18 tokens of a sequence; use s2s"),
                               ("s2t", (3, 3), "has to be made")):  # fmt: skip
        with pytest.raises(UserError, match=line):
            build_stitching_layer(kind, source, (5, 3))


NETS = """import torch
from torch import nn

from src.models.vit import VisionTransformer


class CNN(nn.Module):
    block_names = ("first", "pooled")

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU())
        self.second = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU())
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(8, 10)

    def forward(self, images):
        return self.head(self.pooled(self.second(self.first(images))))


class UNet(nn.Module):
    block_names = ("bottom", "up")

    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(1, 4, 3, padding=1)
        self.bottom = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(4, 8, 3, padding=1), nn.ReLU())
        self.up = nn.ConvTranspose2d(8, 4, 2, 2)
        self.head = nn.Linear(8, 10)

    def forward(self, images):
        skip = self.down(images)
        both = torch.cat([skip, self.up(self.bottom(skip))], 1)
        return self.head(both.relu().mean((2, 3)))


class GRU(nn.Module):
    block_names = ("steps",)

    def __init__(self):
        super().__init__()
        self.steps, self.head = nn.GRU(8, 12, batch_first=True), nn.Linear(12, 10)

    def forward(self, images):
        return self.head(self.steps(images[:, 0])[0][:, -1])


def vit():
    return VisionTransformer(
        patch=2, image_size=8, width=12, depth=2, heads=2, n_classes=10, n_channels=1
    )
"""


@pytest.fixture
def four_networks(tmp_path):
    """A folder with a list of a CNN, a U-Net, a ViT and a GRU of a user's file, not trained."""
    (tmp_path / "nets.py").write_text(NETS)
    lines = ["name,path,type"]
    for name in ("CNN", "UNet", "vit", "GRU"):
        torch.manual_seed(len(lines))
        built = build_model(f"{tmp_path}/nets.py:{name}", image_shape=(1, 8, 8))
        torch.save(built.state_dict(), tmp_path / f"{name}.pt")
        lines.append(f"{name},{name}.pt,nets.py:{name}")
    (tmp_path / "networks.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_a_list_of_mixed_kinds_is_stitched_evaluated_and_compared(four_networks):
    types = [f"{four_networks}/nets.py:{name}" for name in ("CNN", "UNet", "vit", "GRU")]
    options = ["networks.csv", "all", *ON_DIGITS, "-b", 128, "-dir", "mixed", "-n", 60, "--methods", "pinv",
               "--no-verdict", "-pinv-samples", 150, "--own-types", *types]  # fmt: skip
    with few_images(150, n_test=60):
        said = run("misc/all_pairs.py", *options, cwd=four_networks).err
        assert "0 of 18 units" in run("misc/all_pairs.py", *options, cwd=four_networks).err
    assert "not stitched" not in said and "failed" not in said and "is read row by row" in said
    folder = four_networks / "results" / "mixed"
    compared, evaluated = (
        list(folder.glob("similarity/*.csv")),
        list(folder.glob("*/pinv/evaluation.csv")),
    )
    assert (len(compared), len(evaluated)) == (6, 12)
    for row in itertools.chain.from_iterable(map(read_csv, compared)):
        assert all(
            math.isfinite(float(row[name])) for name in ("cka_debiased", "pwcca", "procrustes")
        )
    for row in itertools.chain.from_iterable(map(read_csv, evaluated)):
        assert row["correlation"] and row["correlation_at_end"]

    # The table records the type that was chosen, and the options of the run what was asked for
    rows = stitch_rows(folder / "CNN to vit" / "pinv")
    types = [(row["front_layer"], row["stitching_option"], row["stitching_type"]) for row in rows]
    assert types == 2 * [("first", "auto", "c2t")] + 2 * [("pooled", "auto", "v2t")]
    (config,) = map(read_json, folder.glob("CNN to vit/pinv/2*/config.txt"))
    assert (config["stitching_type"], config["c2t_cls_token"]) == ("auto", None)


def test_a_run_of_auto_is_resumed_repeated_by_its_type_and_evaluated(four_networks):
    def stitch(*options):
        return run("exec_stitch.py", *networks, *options, *ON_DIGITS, cwd=four_networks)

    kinds = [f"{four_networks}/nets.py:{name}" for name in ("CNN", "GRU")]
    networks = ["CNN.pt", "GRU.pt", *kinds]
    training = ["first", "steps", "auto", "-e", 1, "-b", 64, "--mod-only-stitch", "-dir", "auto"]
    own = ["--own-types", *kinds, "--detector", "mahalanobis"]
    with few_images(64, n_test=30):
        assert says(stitch(*training).err, "auto chooses c2s", "1 pair", "row by row")
        assert "1 of 1 stitches are finished" in stitch(*training, "--resume").err
        (config,) = four_networks.glob("results/auto/*/config.txt")
        stitch("--config", config, "-dir", "again")
        run("exec_eval_stitcher_ood.py", "results/auto", *own, *ON_DIGITS, cwd=four_networks)
    (again,) = four_networks.glob("results/again/*/config.txt")
    assert "stitching_option" not in read_json(again)
    states = [torch.load(path.with_name("final_model.pt")) for path in (config, again)]
    torch.testing.assert_close(*states, rtol=0, atol=0)
    (row,) = read_csv(config.with_name("grid.csv"))
    assert (row["stitching_type"], row["stitching_option"]) == ("c2s", "auto")
