"""Warns of options of a stitch that have no effect, or one that surprises."""

from collections.abc import Mapping

from torch import nn

from src.choices.stitching import FORMS
from src.console import listed, note, warn
from src.errors import UserError
from src.models import Network
from src.results.experiments import Experiment, Pair
from src.stitching.layers import StitchingLayer


def check_options(experiment: Experiment, layers: Mapping[Pair, StitchingLayer], front: Network, end: Network) -> None:
    """Warn of options that have no effect, or one that surprises, and note cuts around which the images go on."""
    options = experiment.options
    init, n_epochs = options["init"], options["n_epochs"]
    if options["objective"] != "task" and not n_epochs:
        raise UserError(f"--objective {options['objective']} with -e 0: nothing is trained; leave one of them out")
    if init == "rand" and not n_epochs:
        warn("-e 0 -i rand: a random stitching layer is measured; -i pinv would match it")
    for option, is_given, inits in (
        ("-pinv-samples auto", options["n_pinv_init_samples"] == "auto", FORMS),
        ("--front-pinv-rank", options["front_pinv_rank"], FORMS),
        ("--pinv-cutoff", options["pinv_cutoff"] != "paper", [name for name, form in FORMS.items() if form.cuts_off]),
    ):
        if is_given and init not in inits:
            warn(f"{option} counts with -i {', '.join(inits)} only")
    widths = {pair.front_layer: layer.transform.weight.shape[1] for pair, layer in layers.items()}
    for option in ("front_stitch_rank", "front_pinv_rank"):
        whole = [f"{name} ({width})" for name, width in widths.items() if (options[option] or 0) > width]
        if whole:
            warn(f"--{option.replace('_', '-')} {options[option]} is above the width of {', '.join(whole)}: no effect")
    has_norms = any(isinstance(each, nn.modules.batchnorm._BatchNorm) for each in (*front.modules(), *end.modules()))
    if has_norms and n_epochs and not options["mod_only_stitch"]:
        note("without --mod-only-stitch the BatchNorm statistics of what the stitch uses of both networks move")
    cuts = set(end.cut_names)
    inside = [name for name in dict.fromkeys(pair.end_layer for pair in layers) if name not in cuts]
    if inside:
        note(
            f"{listed(inside)}: inside a block, no true cut, as what follows depends on the images past this layer too "
            "(misc/list_layers.py lists the layers)"
        )
