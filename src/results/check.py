"""Checks the options of a stitch together, for contradictions, options without effect and effects
that surprise.

A single option is checked by its type on the command line, and shapes are checked by the stitching
layer between them."""

from collections import Counter
from collections.abc import Mapping, Sequence

from torch import nn

from src.choices import AUTO, STITCHING_TYPES, Options
from src.choices.stitching import INITS
from src.core.console import listed, note, note_once, warn, warn_once
from src.core.errors import UserError
from src.models import Network
from src.results.spec import OPTIONS, is_idle
from src.stitching.layers import StitchingLayer
from src.values import Pair


def check_options(
    options: Options,
    layers: Mapping[Pair, StitchingLayer],
    front: Network,
    end: Network,
) -> None:
    """Warn of options without effect, or with a surprising effect.

    Notes the types that `auto` chooses, and end layers that are no true cut.

    Args:
        options: of the run.
        layers: the stitching layers of all pairs.

    Raises:
        UserError: two options contradict each other.
    """
    if options["stitching_type"] == AUTO:
        _note_chosen_types(list(layers.values()))
    _check_training(options)
    _warn_of_options_of_other_inits(options)
    _warn_of_high_ranks(options, layers)
    if options["n_epochs"] and not options["mod_only_stitch"] and _has_batch_norms(front, end):
        note(
            "without --mod-only-stitch the BatchNorm statistics of both networks move, in the parts "
            "that the stitch uses"
        )
    end_layers = dict.fromkeys(pair.end_layer for pair in layers)
    _note_cuts_inside_blocks(list(end_layers), end)


def _note_chosen_types(layers: Sequence[StitchingLayer]) -> None:
    """Note how many pairs each stitching type was chosen for, and how it reads the activations."""
    parts = []
    types = Counter(layer.stitching_type for layer in layers)
    for name, n_pairs in types.items():
        part = f"{name} for {n_pairs} pair"
        if n_pairs > 1:
            part += "s"
        if STITCHING_TYPES[name].reading:
            part += f" ({STITCHING_TYPES[name].reading})"
        parts.append(part)
    note_once(f"{AUTO} chooses {', '.join(parts)}")


def _check_training(options: Options) -> None:
    """Raise a UserError for an objective without training; warn of a random stitching layer."""
    if options["n_epochs"]:
        return
    if options["objective"] != "task":
        raise UserError(
            f"--objective {options['objective']} with -e 0: nothing is trained; leave one of them out"
        )
    if options["init"] == "rand":
        warn("-e 0 -i rand: a random stitching layer is measured; -i pinv would match it")


def _warn_of_options_of_other_inits(options: Options) -> None:
    """Warn of options of direct matching that do not count with this `-i`."""
    for name, option in OPTIONS.items():
        is_of_matching = "init" in option.idle and options[name] != option.absent
        if is_of_matching and is_idle(name, options):
            inits = [init for init in INITS if init not in option.idle["init"]]
            warn_once(f"{option.flag} counts with -i {', '.join(inits)} only")


def _warn_of_high_ranks(options: Options, layers: Mapping[Pair, StitchingLayer]) -> None:
    """Warn of ranks that leave a front layer whole."""
    widths = {pair.front_layer: layer.transform.weight.shape[1] for pair, layer in layers.items()}
    for option in ("front_stitch_rank", "front_pinv_rank"):
        rank = options[option] or 0
        whole = [f"{name} ({width})" for name, width in widths.items() if rank > width]
        if whole:
            flag = option.replace("_", "-")
            warn(f"--{flag} {rank} is above the width of {', '.join(whole)}: no effect")


def _has_batch_norms(front: Network, end: Network) -> bool:
    """Return whether one of two networks has a BatchNorm."""
    modules = [*front.modules(), *end.modules()]
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in modules)


def _note_cuts_inside_blocks(end_layers: Sequence[str], end: Network) -> None:
    """Note the end layers that lie inside a block, where a branch goes around the layer."""
    cuts = set(end.cut_names)
    inside = [name for name in end_layers if name not in cuts]
    if inside:
        note(
            f"{listed(inside)}: inside a block, no true cut, as what follows depends on the images "
            "past this layer too (misc/list_layers.py lists the layers)"
        )
