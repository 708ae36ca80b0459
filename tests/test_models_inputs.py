"""Networks whose inputs are no images: three inputs of the data find layers, prefix tokens and
unsteadiness, and whole numbers stay as they are."""

import pytest
import torch
from torch import nn

from src.activations import TokenLayout
from src.ground.errors import UserError
from src.ground.images import ImageSpec
from src.models import Network, inputs_of
from src.models.steadiness import unsteadiness_of

N_WORDS = 7


class Block(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, tokens):
        tokens = tokens + self.attention(tokens, tokens, tokens)[0]
        return tokens + self.mlp(tokens)


class Words(nn.Module):
    """Classifies rows of whole numbers by a transformer with a CLS token."""

    def __init__(self, width: int = 8):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.places = nn.Embedding(N_WORDS, width), nn.Embedding(20, width)
        self.cls = nn.Parameter(torch.randn(1, 1, width))
        self.blocks = nn.ModuleList(Block(width) for _ in range(3))
        self.head = nn.Linear(width, 4)

    def embed(self, numbers):
        assert numbers.dtype == torch.int64 and numbers.max() < N_WORDS
        return self.words(numbers)

    def forward(self, numbers):
        tokens = self.embed(numbers) + self.places(torch.arange(numbers.shape[1]))
        tokens = torch.cat([self.cls.expand(len(numbers), -1, -1), tokens], 1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(tokens[:, 0])


class Drawn(Words):
    def forward(self, numbers):
        return super().forward(numbers) + torch.randn(4)


class OfBatch(Words):
    def forward(self, numbers):
        logits = super().forward(numbers)
        return (logits - logits.mean(0)) / logits.std(0)


def numbers(n: int = 3, length: int = 9, seed: int = 1) -> torch.Tensor:
    draws = torch.Generator().manual_seed(seed)
    return torch.randint(N_WORDS, (n, length), generator=draws)


def network(kind: type[nn.Module] = Words) -> Network:
    return Network(kind().eval().requires_grad_(False), inputs=numbers(), n_classes=4)


@pytest.mark.parametrize("length", [9, 5])
def test_a_pass_behind_a_layer_of_words_is_the_hooks(length):
    view = network()
    front, end = numbers(5, length, seed=2), numbers(5, length, seed=3)
    activation = view(front, until="blocks.1").detach()
    with view.get_submodule("blocks.1").register_forward_hook(lambda *_: activation):
        expected = view.module(end)
    torch.testing.assert_close(view(activation, after="blocks.1"), expected, rtol=0, atol=0)
    torch.testing.assert_close(view.module(front), expected, rtol=0, atol=0)


def test_layers_of_words_are_found():
    view = network()
    assert view.block_names == ("blocks.0", "blocks.1", "blocks.2")
    assert "blocks.0.mlp" not in view.cut_names  # the sum leads around it
    assert view.output_shape == (4,)
    assert view.shapes()["words"] == (9, 8)
    assert view.activation_shapes(["blocks.0"], (5,)) == {"blocks.0": (6, 8)}
    assert view.token_layout("words") == TokenLayout()
    view.module.n_prefix_tokens = 1
    assert view.token_layout("blocks.0") == TokenLayout(1, None, True)
    assert view.token_layout("words") == TokenLayout()


def test_prefix_tokens_behind_floats_are_counted():
    class Steps(Words):
        def embed(self, numbers):
            return self.words(torch.zeros(numbers.shape, dtype=torch.int64)) * numbers[..., None]

    inputs = torch.rand(3, 9, generator=torch.Generator().manual_seed(0))
    view = Network(Steps().eval(), inputs=inputs)
    assert view.token_layout("blocks.0") == TokenLayout(1, None, True)


@pytest.mark.parametrize("kind, found", [(Words, ""), (Drawn, "random"), (OfBatch, "batch")])
def test_unsteady_networks_of_words_are_found(kind, found):
    data = ImageSpec(4, (9,), inputs=tuple(map(tuple, numbers().tolist())))
    view = Network(kind().eval(), inputs=inputs_of(data))
    assert unsteadiness_of(view, data) == found


def test_three_inputs_are_needed():
    with pytest.raises(UserError, match="inputs: 2"):
        Network(Words(), inputs=numbers(2))
