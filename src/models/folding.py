"""BatchNorm folded into the convolution in front of it, which saves a pass over the activation."""

from collections import Counter
from collections.abc import Sequence

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from src.models.tracing import Trace

FOLDABLE = {nn.Conv1d: nn.BatchNorm1d, nn.Conv2d: nn.BatchNorm2d, nn.Conv3d: nn.BatchNorm3d}


def fold_norms(module: nn.Module, trace: Trace, *, kept: Sequence[str]) -> int:
    """Fold norms into convolutions, in place; in evaluation mode the module then computes what it did before.

    A convolution is left alone that has another reader beside the norm, and both are if they are called more than
    once, or have parameters that are read elsewhere.

    Args:
        trace: of the module.
        kept: layers whose values are asked for: their convolutions stay.
    Returns:
        How many were folded.
    """
    calls = Counter(node.target for node in trace.graph.nodes if node.op == "call_module")
    modules = dict(module.named_modules(remove_duplicate=False))
    owners = Counter(modules.values())
    shared = Counter(id(tensor) for each in owners for tensor in each.parameters(recurse=False))
    read = {id(module.get_parameter(node.target)) for node in trace.graph.nodes if _reads_parameter(node, module)}

    def is_alone(name: str) -> bool:
        parameters = {id(parameter) for parameter in modules[name].parameters()}
        is_plain = calls[name] == owners[modules[name]] == 1 and parameters.isdisjoint(read)
        return is_plain and all(shared[parameter] == 1 for parameter in parameters)

    n_folded, asked = 0, {trace.layers.get(name) for name in kept}
    for node in trace.graph.nodes:
        (source,) = node.all_input_nodes if len(node.all_input_nodes) == 1 else (None,)
        if node.op != "call_module" or source is None or source.op != "call_module" or source in asked:
            continue
        convolution, norm = modules[source.target], modules[node.target]
        if FOLDABLE.get(type(convolution)) is not type(norm) or norm.running_mean is None or len(source.users) > 1:
            continue
        if is_alone(source.target) and is_alone(node.target):
            module.set_submodule(source.target, fuse_conv_bn_eval(convolution, norm))
            module.set_submodule(node.target, nn.Identity())
            n_folded += 1
    return n_folded


def _reads_parameter(node: fx.Node, module: nn.Module) -> bool:
    return node.op == "get_attr" and node.target in dict(module.named_parameters())
