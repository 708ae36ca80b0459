"""The layers that `all` stands for, of a network that does not declare them."""

from collections.abc import Iterable

from torch import nn

from src.models.tracing import Trace

TUPLES = (nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)  # what they return is no single tensor
POOLINGS = ("MaxPool", "AvgPool", "AdaptiveAvgPool", "AdaptiveMaxPool", "FractionalMaxPool", "LPPool")


def find_blocks(module: nn.Module, trace: Trace) -> tuple[str, ...]:
    """Return the outermost modules with children through which alone all that follows depends on the images.

    Not counted are those behind the last parameters, which give the logits, `Sequential`s that hold others, and
    single groups of convolution, norm and activation; nor is one module that holds all others. Where fewer than two
    are left (VGG, AlexNet), these are the layers with parameters and the poolings in front of the classifier.
    """
    cuts = trace.cuts()
    last = max((trace.position[node] for node in trace.reached(cuts, None) if _has_parameters(module, node)), default=0)
    inner = {node for node in cuts if trace.position[node] < last}
    modules = {name: module.get_submodule(name) for name, node in trace.layers.items() if node in inner}
    modules = {name: each for name, each in modules.items() if not isinstance(each, TUPLES)}
    groups = {
        name: each for name, each in modules.items() if any(each.children()) and not _is_single(module, trace, name)
    }
    blocks = {name for name, each in groups.items() if not (_is_sequence(each) and _holds(name, groups))}
    outermost = _outermost(blocks)
    while len(outermost) == 1 and len(blocks) > 1:
        blocks -= outermost
        outermost = _outermost(blocks)
    if len(outermost) > 1:
        return tuple(name for name in modules if name in outermost)
    leaves = [name for name, each in modules.items() if not any(each.children()) and _counts(each)]
    classifier = {name.partition(".")[0] for name, node in trace.layers.items() if trace.position[node] >= last}
    in_front = [name for name in leaves if name.partition(".")[0] not in classifier]
    return tuple(in_front if len(in_front) > 1 else leaves)


def _has_parameters(module: nn.Module, node) -> bool:
    if node.op == "call_module":
        return any(True for _ in module.get_submodule(node.target).parameters())
    return any(source.op == "get_attr" for source in node.all_input_nodes)


def _holds(name: str, others: Iterable[str]) -> bool:
    return any(other.startswith(f"{name}.") for other in others)


def _outermost(names: set[str]) -> set[str]:
    return {name for name in names if not any(_holds(other, [name]) for other in names)}


def _is_sequence(module: nn.Module) -> bool:
    return type(module) in (nn.Sequential, nn.ModuleList)


def _is_single(module: nn.Module, trace: Trace, name: str) -> bool:
    """Return whether a layer is one convolution or linear map, at most with a norm and an activation."""
    leaves = [each for each in module.get_submodule(name).modules() if not any(each.children())]
    if sum(map(_is_map, leaves)) > 1 or any(map(_is_pooling, leaves)):
        return False
    node = trace.layers[name]
    while len(sources := trace.data.intersection(node.all_input_nodes)) == 1:
        if node.op == "call_module" and _is_map(module.get_submodule(node.target)):
            return True
        (node,) = sources
    return False  # branches meet behind the map


def _is_map(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return weight is not None and weight.ndim > 1


def _is_pooling(module: nn.Module) -> bool:
    return type(module).__name__.startswith(POOLINGS)


def _counts(module: nn.Module) -> bool:
    return _is_pooling(module) or any(True for _ in module.parameters())
