"""The stitched network: front part, stitching layer, end part."""

from typing import NamedTuple

from torch import Tensor, nn

from src.low_rank import low_rank_approx
from src.models import Network
from src.stitching.layers import StitchingLayer


class Pair(NamedTuple):
    """The two layers that a stitch connects."""

    front_layer: str
    end_layer: str


class StitchedModel(nn.Module):
    """A network that starts as `front` and goes on as `end` (equation 1 of the paper); for use from Python.

    The scripts stitch through Grid, which does the same for many pairs at once.

    Args:
        front: the network whose activation at the front layer is taken; nothing behind that layer is computed.
        end: the network that goes on behind the end layer; nothing in front of that layer is computed.
        layer: maps the one activation to the shape of the other.
        pair: the names of the two layers.
        front_rank: retained rank of the front activation, cut in each batch (see low_rank_approx); None keeps all.
    """

    def __init__(
        self,
        front: Network,
        end: Network,
        layer: StitchingLayer,
        pair: Pair,
        *,
        front_rank: int | None = None,
    ):
        super().__init__()
        self.front, self.end, self.layer = front, end, layer
        self.pair, self.front_rank = pair, front_rank

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to logits (B, n_classes)."""
        h = low_rank_approx(self.front(images, until=self.pair.front_layer), self.front_rank)
        return self.end(self.layer(h), after=self.pair.end_layer, images=images)


def full_state(front: Network, end: Network, layer: StitchingLayer, pair: Pair) -> dict[str, Tensor]:
    """The state dict of a whole stitched network, under the keys of the public code.

    The stitched layers' own entries stand in it twice, as there: within their network and once more.
    """
    parts = {
        "front_model.model": front,
        "front_model.stitch_from_layer": front.get_submodule(pair.front_layer),
        "end_model.model": end,
        "end_model.stitch_to_layer": end.get_submodule(pair.end_layer),
        "stitching_layer": layer,
    }
    return {f"{prefix}.{key}": value for prefix, module in parts.items() for key, value in module.state_dict().items()}
