"""Inference of the layers that `all` stands for in a network without `block_names`."""

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import zip_longest

from torch import nn

from src.models.calls import OUTPUT, Calls

CONTAINERS = (nn.Sequential, nn.ModuleList)
# Affine maps: a stitch behind such a module has the same effect as a stitch in front of it
AFFINE = (
    nn.Linear,
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)


def find_blocks(calls: Calls, *, is_encoder: bool) -> tuple[str, ...]:
    """Return the outermost composite modules that are bottlenecks, in order.

    A module is a bottleneck if later values depend on the images only through its output. It is
    composite if it has more than one convolution or linear map, a pooling, or a residual branch.
    Left out are the last module with parameters, which gives the logits, and all behind it; not
    so in an encoder. Networks such as VGG and AlexNet have fewer than two composite modules: their
    blocks are leaf modules, as `_chain` selects.
    """
    layers = {name: calls.module.get_submodule(name) for name in calls.positions}
    leaves = {name: module for name, module in layers.items() if not any(module.children())}
    end = math.inf
    if not is_encoder:
        end = _position_of_head(calls, leaves)
    names = [name for name in layers if calls.positions[name] < end]
    blocks: Collection[str] = _composites(calls, layers, names)
    if len(blocks) < 2:
        blocks = _chain(calls, leaves, names, end)
    return tuple(name for name in names if name in blocks and name in calls.shapes)


def _position_of_head(calls: Calls, leaves: Mapping[str, nn.Module]) -> int:
    """Return the position of the last leaf with parameters that gives the logits; -1 without it."""
    for name in reversed(list(leaves)):
        if _has_parameters(leaves[name]) and calls.depends(OUTPUT, name):
            return calls.positions[name]
    return -1


def _composites(calls: Calls, layers: Mapping[str, nn.Module], names: Sequence[str]) -> set[str]:
    """Return the outermost composite bottlenecks among `names`, without a module that contains all."""
    composites = {name for name in names if _is_composite(name, calls)}
    # A container counts only if it contains none
    blocks = {
        name
        for name in composites
        if type(layers[name]) not in CONTAINERS or not _inside(name, composites)
    }
    outermost = _outermost(blocks)
    # What contains all blocks, such as the encoder in front of a classifier, is replaced by its contents
    while len(blocks) > 1:
        parents = {name for name in outermost if len(_inside(name, blocks)) > 1}
        if len(parents) == 1:
            blocks -= parents
        elif len(outermost) == 1:
            blocks -= outermost
        else:
            break
        outermost = _outermost(blocks)
    return outermost


def _chain(
    calls: Calls, leaves: Mapping[str, nn.Module], names: Sequence[str], end: float
) -> list[str]:
    """Return the leaf modules among `names` that are bottlenecks and end with a nonlinearity."""
    # `end` is the position of the last module with parameters, which gives the logits
    bottlenecks = [
        name
        for name in names
        if name in leaves and _is_step(leaves[name]) and calls.is_bottleneck(name)
    ]
    # An affine module counts in front of a map: the nonlinearity between the two is then no module
    chain = []
    for name, next_name in zip_longest(bottlenecks, bottlenecks[1:]):
        is_affine = isinstance(leaves[name], AFFINE)
        if not is_affine or next_name is None or _is_map(leaves[next_name]):
            chain.append(name)
    # Modules of the classifier are left out, if two or more lie in front of it
    classifier = {_root(name) for name, position in calls.positions.items() if position >= end}
    in_front = [name for name in chain if _root(name) not in classifier]
    if len(in_front) > 1:
        return in_front
    return chain


def _root(name: str) -> str:
    """Return the child of the network that a layer lies in: "features.3" -> "features"."""
    return name.partition(".")[0]


def _inside(name: str, names: Collection[str]) -> list[str]:
    """Return the names of modules inside of the module `name`."""
    return [inner for inner in names if inner.startswith(f"{name}.")]


def _outermost(names: set[str]) -> set[str]:
    """Return the names of modules that lie in no module of `names`."""
    return {name for name in names if not any(_inside(outer, [name]) for outer in names)}


def _is_composite(name: str, calls: Calls) -> bool:
    """Return whether a module is a bottleneck, and more than a map with norm and activation."""
    module = calls.module.get_submodule(name)
    is_leaf = not any(module.children())
    if is_leaf or isinstance(module, nn.MultiheadAttention):
        return False
    if not _has_parameters(module) or not calls.is_bottleneck(name):
        return False
    leaves = {
        f"{name}.{inner}": part
        for inner, part in module.named_modules()
        if not any(part.children())
    }
    maps = [inner for inner, part in leaves.items() if _is_map(part)]
    if len(maps) > 1 or any(_is_of_torch(part, "pooling") for part in leaves.values()):
        return True
    has_branch = not all(inner in calls.positions and calls.is_bottleneck(inner) for inner in maps)
    return has_branch


def _is_map(module: nn.Module) -> bool:
    """Return whether a module has weights, as convolutions and linear maps have."""
    return any(parameter.ndim > 1 for parameter in module.parameters())


def _has_parameters(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())


def _is_of_torch(module: nn.Module, library: str) -> bool:
    """Return whether the class of a module derives from one in torch.nn.modules.activation or .pooling."""
    return any(base.__module__ == f"torch.nn.modules.{library}" for base in type(module).__mro__)


def _is_step(module: nn.Module) -> bool:
    """Return whether a module is an activation, a pooling or has parameters."""
    is_nonlinear = _is_of_torch(module, "activation") or _is_of_torch(module, "pooling")
    return is_nonlinear or _has_parameters(module)
