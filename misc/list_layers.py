#!/usr/bin/env python3
"""List the layers of a network with the shapes of their activations."""

import sys
from argparse import Namespace
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src import cli
from src.core.console import listed, note, result
from src.core.grouping import grouped
from src.core.inputs import shape_text

INFERRED = (
    "all was inferred: it stands for {}. These are the outermost modules with two convolutions or linear maps, a "
    "pooling or a shortcut, or, without two of these, the modules at the end of each step. Any other layer can be "
    "named, also by a pattern such as {!r}; what the network calls as a function, such as F.relu, is no layer"
)


def parser() -> cli.Parser:
    options = cli.Parser(
        "List the layers of a network in their order, with the shape of one activation of each."
    )
    options.add_argument("model_type", type=cli.network, help=cli.NETWORKS)
    options.add_argument(
        "-d",
        "--dataset",
        type=cli.dataset,
        default="cifar10",
        help="data set whose inputs the network takes",
    )
    return options


def main(args: Namespace) -> None:
    from src.datasets import dataset_info
    from src.models import build_model, inputs_of

    spec = dataset_info(args.dataset, labelled=True).spec
    model = build_model(
        args.model_type,
        n_classes=spec.n_classes,
        n_channels=spec.shape[0],
        image_shape=spec.shape,
        encoder=True,
        inputs=inputs_of(spec),
    )
    shapes = model.eval().shapes()
    blocks = set(model.block_names)
    cuts = set(model.cut_names)
    width = max(map(len, shapes), default=0)
    for layer, shape in shapes.items():
        block = "all" if layer in blocks else ""
        inside = "" if layer in cuts else "inside"
        result(f"{layer:{width}}  {'×'.join(map(str, shape)):16}  {block:4}{inside}".rstrip())

    note(
        f"{len(shapes)} layers, of which all stands for {len(blocks)}; shapes are for inputs of "
        f"{shape_text(spec.shape)} (-d {args.dataset})"
    )
    if not cuts.issuperset(shapes):
        note("inside: a shortcut leads around this layer")
    names = [*model.block_names, *shapes]
    if names and not getattr(model.module, "block_names", ()):
        kinds = [type(model.get_submodule(layer)).__name__ for layer in model.block_names]
        counted = [f"{n} × {kind}" for kind, n in Counter(kinds).items()]
        note(INFERRED.format(listed(counted) or "no layer", pattern_of(names[0])))
    layouts = {layer: model.token_layout(layer) for layer in shapes}
    for layout, layers in grouped(shapes, layouts.get).items():
        if layout is not None:
            note(f"tokens of {listed(layers, n=3)}: {layout}")
    left_out = [layer for layer in model.layer_names if layer not in shapes]
    if left_out:
        note(
            f"left out, as they give no tensor with the inputs as first axis: {', '.join(left_out)}"
        )


def pattern_of(layer: str) -> str:
    """Return a pattern that matches a layer and its siblings with other numbers, such as `layer*`; * stops at a
    dot."""
    return f"{layer.rstrip('0123456789')}*"


if __name__ == "__main__":
    sys.exit(cli.run(parser(), main))
