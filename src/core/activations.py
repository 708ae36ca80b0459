"""The layout of activations: channels at positions.

`ActivationShape` decides how the axes of an activation are read. All else takes positions × channels from here:

    positions = positions_of(activations)  # (B, P, C), a view
    shape_of(activations).native(positions)  # (B, C, H, W), (B, T, D) or (B, D), as before

Averages have the precision of the activations: convert half precision before, by `at_least_single`.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor

from src.core.console import counted, note_once
from src.core.errors import UserError
from src.core.inputs import shape_text
from src.core.kinds import GRID, MAP, SEQUENCE, VECTOR

MapSize = tuple[int, int]  # height and width of a map


class TokenLayout(NamedTuple):
    """The order of tokens (T, D); without prefix and grid they are the steps of a sequence."""

    n_prefix: int = 0  # tokens in front of the patches: a CLS token, registers
    grid: MapSize | None = None  # height and width of the patches; None: they form no map
    has_cls: bool = False  # the first prefix token is a CLS token

    def __str__(self) -> str:
        patches = "a sequence"
        if self.grid is not None:
            patches = f"{shape_text(self.grid)} patches"
        if self.n_prefix == 0:
            return patches
        return f"{counted(self.n_prefix, 'token', 'tokens')} in front of {patches}"


def grid_of(n_patches: int, image_size: MapSize | None) -> MapSize | None:
    """Return the height and width of the grid that patches form; None if they form none.

    The grid has the ratio of height and width of the images, or else it is a square.
    """
    if image_size is None:
        return None
    for height, width in (image_size, (1, 1)):
        n_rows = math.isqrt(n_patches * height // width)
        n_columns = math.isqrt(n_patches * width // height)
        if n_rows * n_columns == n_patches and n_rows * width == n_columns * height:
            return n_rows, n_columns
    return None


def layout_of(
    n_tokens: int, n_prefix: int, image_size: MapSize | None, *, has_cls: bool = True
) -> TokenLayout:
    """Return the layout of `n_tokens` tokens: `n_prefix` prefix tokens, then the patches.

    Args:
        n_prefix: below `n_tokens`.
        image_size: height and width, whose ratio the grid of patches has; None: they form no grid.
        has_cls: whether the first prefix token, if there is one, is a CLS token.
    """
    grid = grid_of(n_tokens - n_prefix, image_size)
    return TokenLayout(n_prefix, grid, has_cls and n_prefix > 0)


def guessed_layout(n_tokens: int, image_size: MapSize = (1, 1)) -> TokenLayout:
    """Guess the layout of tokens from their number.

    Tokens that form a grid are patches; a grid and 1 are patches and a CLS token; all further
    tokens are a sequence.

    Args:
        image_size: as for `layout_of`; by default, grids are squares.
    """
    for n_prefix in (0, 1):
        layout = layout_of(n_tokens, n_prefix, image_size)
        if layout.grid is not None:
            return layout
    return TokenLayout()


class ActivationShape(NamedTuple):
    """The shape of activations, whatever their number: maps (C, H, W), tokens (T, D) or vectors (D,)."""

    n_channels: int
    sizes: tuple[int, ...]  # of the axes of positions: (H, W), (T,) or ()
    known_layout: TokenLayout | None  # None: of tokens that nothing is known of

    @classmethod
    def of(
        cls,
        shape: Sequence[int],
        layout: TokenLayout | None = None,
        *,
        title: str = "an activation",
    ) -> "ActivationShape":
        """Return the shape of activations with these axes.

        Args:
            layout: of tokens; None: it is guessed from their number where it is needed.
            title: of the activation, for the error.
        Raises:
            UserError: the shape has another number of axes.
        """
        if len(shape) == 3:
            n_channels, height, width = shape
            return cls(n_channels, (height, width), TokenLayout(grid=(height, width)))
        if len(shape) == 2:
            n_tokens, n_channels = shape
            return cls(n_channels, (n_tokens,), layout)
        if len(shape) == 1:
            return cls(shape[0], (), TokenLayout())
        raise UserError(
            f"{title} has shape {shape_text(shape)}; choose a layer with a feature map (C, H, W), "
            "tokens (T, D) or a vector (D)"
        )

    @property
    def layout(self) -> TokenLayout:
        """The order of the positions; the layout of tokens may be a guess, of which a note is printed."""
        if self.known_layout is not None:
            return self.known_layout
        guess = guessed_layout(self.n_positions)
        note_once(
            f"{self.n_positions} tokens are taken for {guess}; give a TokenLayout if they are something else"
        )
        return guess

    @property
    def n_positions(self) -> int:
        """The number of positions, prefix tokens included."""
        return math.prod(self.sizes)

    @property
    def n_values(self) -> int:
        """The number of values, of all channels at all positions."""
        return self.n_channels * self.n_positions

    @property
    def n_patches(self) -> int:
        """The number of positions behind the prefix tokens."""
        return self.n_positions - self.layout.n_prefix

    @property
    def map_size(self) -> MapSize:
        """The size of the map that the patches form; without a grid they are a row."""
        return self.layout.grid or (1, self.n_patches)

    @property
    def is_map(self) -> bool:
        """Whether there are axes (C, H, W)."""
        return len(self.sizes) == 2

    @property
    def is_tokens(self) -> bool:
        """Whether there are axes (T, D): channels come last, elsewhere first."""
        return len(self.sizes) == 1

    @property
    def kind(self) -> str:
        """The kind of the activation: MAP, GRID, SEQUENCE or VECTOR."""
        if self.is_map:
            return MAP
        if not self.is_tokens:
            return VECTOR
        if self.layout.grid is None:
            return SEQUENCE
        return GRID

    @property
    def channel_axis(self) -> int:
        """The axis of the channels of a batch."""
        return 2 if self.is_tokens else 1

    def native(self, activations: Tensor) -> Tensor:
        """Return activations of K channels and as many positions as (B, K, H, W), (B, T, K) or (B, K).

        It is a view. The activations may have any form; positions × channels (B, P, K) are tokens.
        """
        if self.is_tokens:
            return positions_of(activations)
        return channels_first(activations, self.sizes)

    def everywhere(self, vectors: Tensor) -> Tensor:
        """Return the vectors (B, K) at all positions: (B, K, H, W), (B, T, K) or (B, K), a view."""
        return self.native(vectors[:, :, None].expand(-1, -1, self.n_positions).mT)

    def __str__(self) -> str:
        shape = [self.n_channels, *self.sizes]
        if self.is_tokens:
            shape.reverse()
        return shape_text(shape)


def shape_of(activations: Tensor, layout: TokenLayout | None = None) -> ActivationShape:
    """Return the shape of activations (B, C, H, W), (B, T, D) or (B, D)."""
    return ActivationShape.of(activations.shape[1:], layout)


def positions_of(activations: Tensor) -> Tensor:
    """Return activations (B, C, H, W), (B, T, C) or (B, C) as a view (B, positions, C)."""
    shape = shape_of(activations)
    if shape.is_tokens:
        return activations
    return channels_first(activations, (shape.n_positions,)).mT


def as_rows(activations: Tensor) -> Tensor:
    """Return activations with one row a position, (B·positions, C)."""
    positions = positions_of(activations)
    return positions.reshape(-1, positions.shape[-1])


def channels_first(activations: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Return activations of any form as (B, C, *sizes), positions row by row, a view."""
    if activations.ndim == 3:  # tokens
        activations = activations.mT
    if activations.shape[2:] == sizes:  # no view for gradients to go back through
        return activations
    return activations.reshape(*activations.shape[:2], *sizes)


def map_positions(activations: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Map each position by a weight (C2, C1) and a bias (C2,)."""
    if shape_of(activations).is_map:  # a linear map of its positions takes 1.6 times as long
        return F.conv2d(activations, weight[:, :, None, None], bias)
    return F.linear(activations, weight, bias)


def at_least_single(values: ArrayLike | Tensor) -> Tensor:
    """Return an array or tensor as a tensor of at least float32 precision, for exact sums."""
    values = torch.as_tensor(values)
    return values.to(torch.promote_types(values.dtype, torch.float32))


def mean_over_positions(activations: Tensor) -> Tensor:
    """Average activations over positions, (B, C).

    All tokens count, unlike in `pool`: a CLS token is one of them.
    """
    return positions_of(activations).mean(1)


def pool(activations: Tensor, layout: TokenLayout | None = None) -> Tensor:
    """Return the features (B, C) that a linear probe reads: the CLS token, or else the mean over
    the patches, steps or positions.

    Args:
        activations: (B, C, H, W), (B, T, C) or (B, C).
        layout: of the tokens; None: it is guessed from their number.
    """
    layout = shape_of(activations, layout).layout
    positions = positions_of(activations)
    if layout.has_cls:
        return positions[:, 0]
    return positions[:, layout.n_prefix :].mean(1)


def cells(activations: Tensor, layout: TokenLayout | None = None, *, side: int) -> Tensor:
    """Pool activations to a few positions, (B, positions, C).

    A grid, of a map or of patches, becomes a grid of at most side×side cells. Patches and steps that
    form no grid become at most side² stretches. Prefix tokens, such as a CLS token, stay positions of
    their own in front.

    Args:
        activations, layout: as for `pool`.
    """
    layout = shape_of(activations, layout).layout
    positions = positions_of(activations)
    prefix = positions[:, : layout.n_prefix]
    patches = positions[:, layout.n_prefix :]
    if layout.grid is None:
        n_stretches = min(side**2, patches.shape[1])
        pooled = F.adaptive_avg_pool1d(patches.mT, n_stretches).mT
    else:
        height, width = layout.grid
        size = (min(side, height), min(side, width))
        pooled = positions_of(F.adaptive_avg_pool2d(channels_first(patches, layout.grid), size))
    return torch.cat([prefix, pooled], 1)
