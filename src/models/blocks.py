"""The layers that `all` stands for, of a network that does not declare them."""

import math
from collections.abc import Collection
from itertools import zip_longest

from torch import nn

from src.models.calls import OUTPUT, Calls

SEQUENCES = (nn.Sequential, nn.ModuleList)
# Where a stitch at the output equals one at the input: maps of one more or less, and norms.
AFFINE = (
    nn.Linear,
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)


def find_blocks(calls: Calls, *, is_encoder: bool) -> tuple[str, ...]:
    """Return the outermost modules with children through which alone all that follows depends on
    the images.

    Not counted are those behind the last parameters, which give the logits, `Sequential`s that hold
    others, and single groups of convolution, norm and activation; nor is one module that alone
    holds others. Where fewer than two are left (VGG, AlexNet), the nonlinearities and poolings in
    front of the classifier count. A convolution or norm does where the next one follows it
    directly, so that no module is the nonlinearity between them.

    Args:
        calls: of the module.
        is_encoder: the last parameters give no logits.
    """
    layers = {name: calls.module.get_submodule(name) for name in calls.layers}
    leaves = {name: each for name, each in layers.items() if not any(each.children())}
    maps = (name for name in reversed(leaves) if _has_parameters(leaves[name]))
    ends = (calls.layers[name] for name in maps if calls.depends(OUTPUT, name))
    last = math.inf if is_encoder else next(ends, -1)
    inner = [name for name in layers if calls.layers[name] < last]
    groups = {name for name in inner if name not in leaves and _is_group(name, calls)}
    blocks = {
        name for name in groups if not (type(layers[name]) in SEQUENCES and _held(name, groups))
    }
    outermost = _outermost(blocks)
    while len(blocks) > 1:
        holders = {name for name in outermost if len(_held(name, blocks)) > 1}
        if 1 not in (len(holders), len(outermost)):
            break
        blocks -= holders if len(holders) == 1 else outermost  # one that alone holds the others
        outermost = _outermost(blocks)
    if len(outermost) > 1:
        return tuple(name for name in inner if name in outermost and name in calls.shapes)
    cuts = [
        name
        for name in inner
        if name in leaves and _counts(leaves[name]) and calls.is_bottleneck(name)
    ]
    chain = [name for name, next_one in zip_longest(cuts, cuts[1:])
             if not isinstance(leaves[name], AFFINE) or next_one is None or _is_map(leaves[next_one])]  # fmt: skip
    classifier = {
        name.partition(".")[0] for name, position in calls.layers.items() if position >= last
    }
    in_front = [name for name in chain if name.partition(".")[0] not in classifier]
    return tuple(
        name for name in (in_front if len(in_front) > 1 else chain) if name in calls.shapes
    )


def _held(name: str, others: Collection[str]) -> list[str]:
    return [other for other in others if other.startswith(f"{name}.")]


def _outermost(names: set[str]) -> set[str]:
    return {name for name in names if not any(_held(other, [name]) for other in names)}


def _is_group(name: str, calls: Calls) -> bool:
    """Return whether a layer is a cut, and more than one convolution or linear map with a norm and
    an activation."""
    module = calls.module.get_submodule(name)
    if (
        isinstance(module, nn.MultiheadAttention)
        or not _has_parameters(module)
        or not calls.is_bottleneck(name)
    ):
        return False
    leaves = {
        f"{name}.{inner}": each
        for inner, each in module.named_modules()
        if not any(each.children())
    }
    maps = [inner for inner, each in leaves.items() if _is_map(each)]
    if len(maps) > 1 or any(_is_torchs(each, "pooling") for each in leaves.values()):
        return True
    return not all(
        inner in calls.layers and calls.is_bottleneck(inner) for inner in maps
    )  # a branch goes around it


def _is_map(module: nn.Module) -> bool:
    return any(parameter.ndim > 1 for parameter in module.parameters())


def _has_parameters(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())


def _is_torchs(module: nn.Module, kind: str) -> bool:
    """Return whether a module is one of torch's of a kind, activation or pooling, or derived from
    one."""
    return any(base.__module__ == f"torch.nn.modules.{kind}" for base in type(module).__mro__)


def _counts(module: nn.Module) -> bool:
    return (
        _is_torchs(module, "activation") or _is_torchs(module, "pooling") or _has_parameters(module)
    )
