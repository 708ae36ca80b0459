"""A stitch between layers of any two kinds: against least squares on activations that are resampled
naively, in training, and through the scripts on a list of networks of mixed kinds."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from src.core.activations import ActivationShape, TokenLayout, pool
from src.core.choices import STITCHING_TYPES
from src.core.errors import UserError
from src.core.kinds import GRID, MAP, SEQUENCE, VECTOR
from src.models import Network, build_model
from src.stitching import build_layers, build_stitching_layer, match_layers
from src.stitching.layers import type_for
from tests.commands import ON_DIGITS, read_csv, read_json, run, says, stitch_rows
from tests.conftest import few_images
from tests.tiny_networks import Computed

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
