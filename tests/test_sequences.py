"""Steps of a recurrent layer are tokens in a row: no map is made of 16 of them, and the first of 17
is no CLS token."""

import pytest
import torch
from torch import nn

from src.core.activations import TokenLayout, cells
from src.core.errors import UserError
from src.core.inputs import InputSpec
from src.models import Network
from src.stitching import build_layers
from src.training import classification_losses
from src.training.probes import Probes
from tests.tiny_networks import Computed


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


def network(module: nn.Module, side: int = 16) -> Network:
    return Network(module.eval().requires_grad_(False), image_shape=(1, side, 16), n_classes=4)


def test_sequences_are_stitched_step_by_step_or_not_at_all():
    of_rows = network(Computed(rows, **row_layers()))
    patches, fine = network(patches_of(4)), network(patches_of(2))
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
    of_rows = network(Computed(rows, **row_layers()), 17)
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
    time_first = network(Computed(over_rows, **layers))
    assert list(time_first.shapes()) == ["head"]
    line = "layer 'norm' gives time steps in front of the images.*batch_first=True"
    with pytest.raises(UserError, match=line):
        time_first.channels_first(["norm"], image_shape=(1, 16, 16))
    with pytest.raises(UserError, match=line):
        time_first(torch.rand(n_rows, 1, 16, 16), until="norm")
