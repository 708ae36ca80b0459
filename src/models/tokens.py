"""The order of the tokens of a layer: prefix tokens, such as a CLS token, before patches."""

import math
from typing import NamedTuple

from torch import Tensor

from src.ground.console import note_once

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
        prefix = "1 token"
        if self.n_prefix > 1:
            prefix = f"{self.n_prefix} tokens"
        return f"{prefix} in front of {patches}"


def image_size_of(inputs: Tensor) -> tuple[int, int] | None:
    """Return height and width of images (B, C, H, W); None for inputs that are no images."""
    if inputs.ndim != 4:
        return None
    height, width = inputs.shape[2:]
    return height, width


def layout_of(
    n_tokens: int, n_prefix: int, image_size: tuple[int, int] | None, *, has_cls: bool = True
) -> TokenLayout:
    """Return the layout of `n_tokens` tokens: `n_prefix` prefix tokens, then the patches.

    Args:
        n_prefix: below `n_tokens`.
        image_size: height and width, whose ratio the grid of patches has; None: they form no grid.
        has_cls: whether the first prefix token, if there is one, is a CLS token.
    """
    grid = grid_of(n_tokens - n_prefix, image_size)
    return TokenLayout(n_prefix, grid, has_cls and n_prefix > 0)


def grid_of(n_patches: int, image_size: tuple[int, int] | None) -> tuple[int, int] | None:
    """Return the height and width of the grid that patches form; None if they form none.

    The grid has the ratio of height and width of the images, or else it is a square.
    """
    if image_size is None:
        return None
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


def n_leading_equal(tokens: Tensor, image_size: tuple[int, int] | None) -> int:
    """Count the leading tokens that are equal for two images: prefix tokens that saw no image yet.

    It is 0 where the leading tokens are constant over their features and the further tokens form no
    grid: the dead channels of a map (2, C, H·W).

    Args:
        tokens: (2, T, D), of two random images; not all tokens are equal.
        image_size: height and width of the images; None: the inputs are no images.
    """
    differences = (tokens[0] - tokens[1]).detach().float().square().mean(-1)  # (T,)
    are_equal = differences <= EQUAL**2 * differences.amax()
    n_equal = int(are_equal.cumprod(0).sum())
    leading = tokens[0, :n_equal]
    n_patches = tokens.shape[1] - n_equal
    if (leading == leading[:, :1]).all() and grid_of(n_patches, image_size) is None:
        return 0
    return n_equal
