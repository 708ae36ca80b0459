"""The order of the tokens of a layer: prefix tokens, such as a CLS token, and patches behind them."""

import contextlib
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from src.ground.console import note_once
from src.models.calls import first_tensor, is_activation, steady

# Up to rounding: the difference of a token between two images, relative to that of the other tokens
EQUAL = 0.01


class TokenLayout(NamedTuple):
    """The order of tokens (T, D); without prefix and grid they are the steps of a sequence."""

    n_prefix: int = 0  # tokens in front of the patches: a CLS token, registers
    grid: tuple[int, int] | None = None  # height and width of the patches; None: they form no map
    has_cls: bool = False  # the first prefix token is a CLS token

    def __str__(self) -> str:
        patches = "a sequence"
        if self.grid is not None:
            patches = f"{self.grid[0]}×{self.grid[1]} patches"
        if self.n_prefix == 0:
            return patches
        prefix = "1 token" if self.n_prefix == 1 else f"{self.n_prefix} tokens"
        return f"{prefix} in front of {patches}"


def layout_of(
    n_tokens: int, n_prefix: int, image_size: tuple[int, int], *, has_cls: bool = True
) -> TokenLayout:
    """Return the layout of tokens, of which so many stand in front of the patches.

    Args:
        n_prefix: below `n_tokens`.
        image_size: height and width, whose ratio the grid of patches has.
        has_cls: whether the first prefix token, if there is one, is a CLS token.
    """
    grid = grid_of(n_tokens - n_prefix, image_size)
    return TokenLayout(n_prefix, grid, has_cls and n_prefix > 0)


def grid_of(n_patches: int, image_size: tuple[int, int]) -> tuple[int, int] | None:
    """Return the height and width of the grid that patches form; None if they form none.

    The grid has the ratio of height and width of the images, or else it is a square.
    """
    height, width = image_size
    n_rows = math.isqrt(n_patches * height // width)
    n_columns = math.isqrt(n_patches * width // height)
    if n_rows * n_columns == n_patches and n_rows * width == n_columns * height:
        return n_rows, n_columns
    side = math.isqrt(n_patches)
    if side**2 == n_patches:
        return side, side
    return None


def guessed_layout(n_tokens: int, image_size: tuple[int, int] = (1, 1)) -> TokenLayout:
    """Guess the layout of tokens from their number.

    Tokens that form a grid are patches; a grid and 1 are patches and a CLS token; all further
    tokens are a sequence.

    Args:
        image_size: as for `layout_of`; by default, grids are squares.
    """
    layout = layout_of(n_tokens, 0, image_size)
    if layout.grid is None:
        with_cls = layout_of(n_tokens, 1, image_size)
        if with_cls.grid is not None:
            return with_cls
    return layout


def layout_or_guess(activations: Tensor, layout: TokenLayout | None) -> TokenLayout:
    """Return the layout of tokens (B, T, D); None stands for a guess, which a note tells."""
    if layout is not None:
        return layout
    n_tokens = activations.shape[1]
    guess = guessed_layout(n_tokens)
    note_once(f"{n_tokens} tokens are taken for {guess}; a TokenLayout would say what they are")
    return guess


def count_prefix_tokens(module: nn.Module, images: Tensor) -> int:
    """Count the tokens that stand in front of the patches where these tokens enter a network.

    They are equal for both images there, as a CLS token is. A number of tokens is looked at where it
    comes first in a pass: attention has not mixed the tokens.

    Args:
        images: (2, C, H, W), random.
    Returns:
        0 without such a place.
    """
    counts: dict[int, int] = {}  # of prefix tokens, by the number of tokens

    def look(value: object) -> None:
        tokens = first_tensor(value)
        if tokens is None or tokens.ndim != 3 or not is_activation(tokens, len(images)):
            return
        if tokens.shape[1] in counts or torch.equal(tokens[0], tokens[1]):  # or it sees no image
            return
        height, width = images.shape[-2:]
        counts[tokens.shape[1]] = n_leading_equal(tokens, (height, width))

    with steady(module, images), contextlib.ExitStack() as hooks:
        for part in list(module.modules())[1:]:
            before = part.register_forward_pre_hook(lambda _, inputs: look(inputs))
            behind = part.register_forward_hook(lambda _, inputs, output: look(output))
            hooks.callback(before.remove)
            hooks.callback(behind.remove)
        module(images.clone())
    return next(filter(None, counts.values()), 0)


def n_leading_equal(tokens: Tensor, image_size: tuple[int, int]) -> int:
    """Count the leading tokens that are equal for two images: prefix tokens that saw no image yet.

    It is 0 where the leading tokens are constant over their features and the further tokens form no
    grid: the dead channels of a map (2, C, H·W).

    Args:
        tokens: (2, T, D), of two random images; not all tokens are equal.
        image_size: height and width of the images.
    """
    differences = (tokens[0] - tokens[1]).detach().float().square().mean(-1)  # (T,)
    are_equal = differences <= EQUAL**2 * differences.amax()
    n_equal = int(are_equal.cumprod(0).sum())
    leading = tokens[0, :n_equal]
    n_patches = tokens.shape[1] - n_equal
    if (leading == leading[:, :1]).all() and grid_of(n_patches, image_size) is None:
        return 0
    return n_equal
