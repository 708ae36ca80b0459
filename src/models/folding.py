"""BatchNorm folded into the convolution in front of it, which saves a pass over the activation."""

from collections import Counter
from collections.abc import Sequence

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from src.models.parts import Traced

FOLDABLE = {nn.Conv1d: nn.BatchNorm1d, nn.Conv2d: nn.BatchNorm2d, nn.Conv3d: nn.BatchNorm3d}


def fold_norms(module: nn.Module, traced: Traced, *, kept: Sequence[str]) -> int:
    """Fold norms into convolutions, in place; in evaluation mode the module then computes what it did before.

    A convolution is left alone that has another reader beside the norm, and both are if they are called more than
    once, have several names, or their parameters are read directly.

    Args:
        traced: of the module.
        kept: layers whose values are asked for: their convolutions stay.
    Returns:
        How many were folded.
    """
    modules = dict(module.named_modules(remove_duplicate=False))
    names, nodes = Counter(modules.values()), [node for node in traced.graph.nodes if node.op == "call_module"]
    uses = Counter(node.target for node in nodes)
    uses.update(node.target.rpartition(".")[0] for node in traced.graph.nodes if node.op == "get_attr")
    n_folded, asked = 0, {traced.node(name) for name in kept}
    for node in nodes:
        source = node.args[0] if node.args else None
        if source not in nodes or source in asked or len(source.users) > 1:
            continue
        convolution, norm = modules[source.target], modules[node.target]
        if FOLDABLE.get(type(convolution)) is not type(norm) or norm.running_mean is None:
            continue
        if uses[source.target] == uses[node.target] == names[convolution] == names[norm] == 1:
            module.set_submodule(source.target, fuse_conv_bn_eval(convolution, norm))
            module.set_submodule(node.target, nn.Identity())
            n_folded += 1
    return n_folded
