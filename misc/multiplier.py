"""Networks that multiply two elements of a group (Chughtai, Chan and Nanda, *A Toy Model of Universality*,
ICML 2023), for the study of misc/docs/study.md. The keys of the state dict are theirs."""

import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class Multiplier(nn.Module):
    """Multiplies pairs of elements of a group, (B, 2) integers: logits (B, n) of the product."""

    def __init__(self, n: int, n_embedding: int = 256, n_hidden: int = 128) -> None:
        super().__init__()
        self.W_x = nn.Parameter(torch.randn(n, n_embedding))
        self.W_y = nn.Parameter(torch.randn(n, n_embedding))
        self.W = nn.Parameter(torch.randn(2 * n_embedding, n_hidden))
        self.W_U = nn.Parameter(torch.randn(n_hidden, n))
        self.embed_stack = nn.Identity()
        self.hidden = nn.ReLU()

    def forward(self, elements: Tensor) -> Tensor:
        first, second = elements.unbind(1)
        embedded = torch.cat([self.W_x[first], self.W_y[second]], 1)  # (B, 2 n_embedding)
        return self.hidden(self.embed_stack(embedded) @ self.W) @ self.W_U

    def functions(self) -> list[NDArray]:
        """Return the functions of the first and of the second element that the hidden layer adds, less
        their means, each (n, n_hidden)."""
        of_first, of_second = self.W.detach().double().chunk(2)
        functions = [self.W_x.detach().double() @ of_first, self.W_y.detach().double() @ of_second]
        return [(values - values.mean(0)).numpy() for values in functions]

    def functions_behind_relu(self) -> list[NDArray]:
        """Return the functions of the first and of the second element that the activations of the
        hidden layer have on average over the other element, less their means, each (n, n_hidden)."""
        of_first, of_second = self.W.detach().double().chunk(2)
        first = self.W_x.detach().double() @ of_first
        second = self.W_y.detach().double() @ of_second
        hidden = torch.stack([torch.relu(row + second) for row in first])  # (n, n, n_hidden)
        functions = [hidden.mean(1), hidden.mean(0)]
        return [(values - values.mean(0)).numpy() for values in functions]


def network(n_classes: int) -> Multiplier:
    """Build the network of a group of `n_classes` elements."""
    return Multiplier(n_classes)
