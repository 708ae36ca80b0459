"""Pairs of layers, their stitching layers, and the stitched network: front part, stitching layer,
end part."""

import itertools
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from src.core.choices import AUTO
from src.core.errors import UserError
from src.core.seeds import seeded
from src.core.values import Pair
from src.low_rank import low_rank_approx
from src.models import Network
from src.stitching.layers import StitchingLayer, build_stitching_layer


class StitchedModel(nn.Module):
    """The front part of `front`, a stitching layer, and the end part of `end` (equation 1 of the paper), as a module.

    The scripts stitch through `Grid`, which does the same for many pairs at once. The state dict is
    the public code's: the entries of a stitched layer stand in it twice, within their network and
    by themselves.

    Args:
        front: the network whose activation at the front layer is taken; nothing behind that layer
            is computed.
        end: the network that continues behind the end layer; modules in front of that layer are
            skipped where that is possible.
        layer: maps the activation of the front layer to the shape of the end layer's.
        pair: the names of the two layers.
        front_rank: retained rank of the front activation, cut in each batch (see
            `low_rank_approx`); None keeps all.
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
        self.front = front
        self.end = end
        self.pair = pair
        self.front_rank = front_rank
        front_layer = front.get_submodule(pair.front_layer)
        end_layer = end.get_submodule(pair.end_layer)
        self.front_model = nn.ModuleDict({"model": front.module, "stitch_from_layer": front_layer})
        self.end_model = nn.ModuleDict({"model": end.module, "stitch_to_layer": end_layer})
        self.stitching_layer = layer

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (B, n_classes) of images (B, C, H, W)."""
        activation = self.front(images, until=self.pair.front_layer)
        truncated = low_rank_approx(activation, self.front_rank)
        return self.end(self.stitching_layer(truncated), after=self.pair.end_layer, images=images)


def build_layers(
    front: Network,
    end: Network,
    front_layers: Sequence[str],
    end_layers: Sequence[str],
    stitching_type: str,
    *,
    image_shape: Sequence[int],
    seed: int,
    is_identity: bool = False,
    c2t_cls_token: str | None = None,
    t2c_cls_token: str | None = None,
    upsample_mode: str = "bilinear",
) -> tuple[dict[Pair, StitchingLayer], dict[Pair, str]]:
    """Build the stitching layer of each pair of a front layer and an end layer, independently of
    all further pairs.

    Args:
        front, end: the networks, in evaluation mode.
        front_layers, end_layers: names; all pairs of them are built.
        stitching_type: a name in `STITCHING_TYPES`, or `auto`, which chooses a type for each pair.
        image_shape: (C, H, W) of the images that the networks take.
        seed: each layer is initialised with a generator seeded by it.
        is_identity, c2t_cls_token, t2c_cls_token, upsample_mode: as for `build_stitching_layer`.
    Returns:
        The layers, and the reason for each pair that cannot be stitched.
    Raises:
        UserError: no pair can be stitched; names the first reason.
    """
    sources = front.activation_shapes(front_layers, image_shape)
    source_layouts = {layer: front.token_layout(layer) for layer in front_layers}
    like = front.example
    targets = end.activation_shapes(end_layers, image_shape)
    target_layouts = {layer: end.token_layout(layer) for layer in end_layers}
    layers: dict[Pair, StitchingLayer] = {}
    skipped: dict[Pair, str] = {}
    for pair in itertools.starmap(Pair, itertools.product(front_layers, end_layers)):
        try:
            with seeded(seed):
                layer = build_stitching_layer(
                    stitching_type,
                    sources[pair.front_layer],
                    targets[pair.end_layer],
                    layouts=(source_layouts[pair.front_layer], target_layouts[pair.end_layer]),
                    is_identity=is_identity,
                    c2t_cls_token=c2t_cls_token,
                    t2c_cls_token=t2c_cls_token,
                    upsample_mode=upsample_mode,
                )
            layers[pair] = layer.to(like)
        except UserError as error:
            skipped[pair] = str(error)
    if not layers:
        pair, reason = next(iter(skipped.items()))
        raise UserError(f"{pair}: {reason}")
    return layers, skipped


def chosen_options(layers: Mapping[Pair, StitchingLayer]) -> dict[Pair, dict[str, str | None]]:
    """Return the options that `auto` chose, by pair.

    The `config.txt` of the pair records the options, which make the same layer again.
    """
    return {
        pair: {
            "stitching_type": layer.stitching_type,
            "stitching_option": AUTO,
            "c2t_cls_token": layer.plan.made_cls,
        }
        for pair, layer in layers.items()
    }
