"""What a cut means: a whole pass with plain hooks, of which one replaces the output of a layer."""

import contextlib
from collections import Counter

import torch
from torch import Tensor

from src.models import Network


def plain_pass(
    network: Network, images: Tensor, replaced: str | None = None, by: Tensor | None = None, n_calls: int = 0
) -> tuple[dict[str, Tensor | None], Counter[str]]:
    """Run a pass with hooks on all modules, of which one may replace an output in the last of `n_calls` calls.

    Returns copies of the last output of each module by name, with the logits as `output`, and the numbers of calls.
    """
    outputs, calls = {}, Counter()

    def hook(name, output):
        calls[name] += 1
        first, rest = (output[0], output[1:]) if isinstance(output, tuple) else (output, None)
        if name == replaced and calls[name] == n_calls:
            first = by.clone()
        outputs[name] = first.clone() if isinstance(first, Tensor) else None
        if name == replaced:
            return first if rest is None else (first, *rest)

    torch.manual_seed(1)
    with contextlib.ExitStack() as handles:
        for name, each in network.named_modules():
            plain = each.register_forward_hook(lambda _module, _inputs, output, name=name: hook(name, output))
            handles.callback(plain.remove)
        outputs["output"] = network(images.clone())
    return outputs, calls


def gradient(logits: Tensor, source: Tensor) -> Tensor:
    """The gradient of a fixed function of logits."""
    weights = torch.linspace(-1, 1, logits.numel(), dtype=logits.dtype).view_as(logits)
    return torch.autograd.grad((weights * logits).sum(), source)[0]
