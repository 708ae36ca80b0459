"""Which results are of one experiment, by their options.

All options have to be equal, but for those that the lists of this module name. An option that is in
no list counts. Networks count by their weights (`NetworkName.key`). This module does not import torch.
"""

import json
import reprlib
from collections.abc import Container, Hashable, Iterable, Mapping
from typing import NamedTuple

from src.choices import STARTS, Options
from src.choices.stitching import FORMS
from src.results.network_names import UNTRAINED, networks_named_by

# Options that `config.txt` leaves out: with them it would not repeat the run
NOT_RECORDED = ("config", "resume", "overwrite")

# Without effect on a number: places, devices, workers and words
FREE = (
    "save_dir",
    "source_dir",
    "output",
    "energy_dir",
    "dataset_root",
    "gpu",
    "n_workers",
    "prefetch_factor",
    "verbose",
    "print_freq",
)
# Without effect on a number, but on the files that a run keeps
KEPT = ("no_save",)
# Names of networks, whose weights count instead
CHECKPOINTS = ("front_model_path", "end_model_path")
WEIGHTS = ("front_weights", "end_weights")
NETWORKS = (*CHECKPOINTS, "front_model_type", "end_model_type", *WEIGHTS)
# They select results within an experiment
LAYERS = ("front_layer", "end_layer")
# They are swept in one folder
RANKS = ("front_stitch_rank", "front_pinv_rank")

NOT_COMPARED = (*NOT_RECORDED, *FREE, *KEPT)
DIGEST = "_sha256"  # ends the record of a file's content; weights and images are compared by it


class AllBut(frozenset):
    """All values but these."""

    def __contains__(self, value: object) -> bool:
        return not super().__contains__(value)


# The option, and its values where another option has no effect
Idle = Mapping[str, Container[Hashable]]
WITHOUT_TRAINING: Idle = {"n_epochs": [0]}
UNMATCHED: Idle = {"init": list(STARTS)}
WITHOUT_CUTOFF: Idle = {"init": AllBut(name for name, form in FORMS.items() if form.cuts_off)}


class Option(NamedTuple):
    """An option that tells experiments apart."""

    flag: str  # as it is typed; "": none
    absent: Hashable = None  # the value where a record lacks the option
    idle: Idle = {}


# The first ones stand in the names of methods where several would tell them apart
OPTIONS = {
    "dataset": Option(""),
    "init": Option("-i", "rand"),
    "n_epochs": Option("-e", 30),
    "objective": Option("--objective", "task", WITHOUT_TRAINING),
    "learning_rate": Option("-lr", 1e-3, WITHOUT_TRAINING),
    "optimizer": Option("-o", "adam", WITHOUT_TRAINING),
    "weight_decay": Option("-wd", 1e-5, WITHOUT_TRAINING),
    "scheduler": Option("-sched", "none", WITHOUT_TRAINING),
    "reduce_lr_epochs": Option("-rlre", (), WITHOUT_TRAINING),
    "grad_clip": Option("--grad-clip", None, WITHOUT_TRAINING),
    "l1_coef": Option("-l1", 0.0, WITHOUT_TRAINING),
    "mod_only_stitch": Option("--mod-only-stitch", False, WITHOUT_TRAINING),
    "n_pinv_init_samples": Option("-pinv-samples", 100, UNMATCHED),
    "pinv_cutoff": Option("--pinv-cutoff", "paper", WITHOUT_CUTOFF),
    "front_stitch_rank": Option("--front-stitch-rank"),
    "front_pinv_rank": Option("--front-pinv-rank", None, UNMATCHED),
    "batch_size": Option("-b", 256),
    "c2t_cls_token": Option("-c2t-cls"),
    "t2c_cls_token": Option("-t2c-cls"),
    "upsample_mode": Option("-upsample", "bilinear"),
    "channels_last": Option("--channels-last"),
    "amp": Option("--amp", "none"),
    "shortcut": Option("--shortcut"),
    "seed": Option("-s", 0),
}
ABSENT = {name: option.absent for name, option in OPTIONS.items()}
# In tables of probes and of similarity
ABSENT_IN_TABLES = ABSENT | {"batch_size": 64, "channels_last": False}


class FurtherOptions(str):
    """Options as the text of a JSON object."""

    def __new__(cls, text: str = "{}") -> "FurtherOptions":
        """Raise a ValueError if the text is no JSON object."""
        if not isinstance(json.loads(text), dict):
            raise ValueError(text)
        return super().__new__(cls, text)


def is_idle(name: str, options: Options) -> bool:
    """Return whether an option has no effect, by the options of the run."""
    if name not in OPTIONS:
        return False
    deciding = OPTIONS[name].idle.items()
    return any(options.get(option) in values for option, values in deciding)


def identity_of(options: Options) -> Options:
    """Return the options that tell experiments apart, as hashable values.

    An option without effect is None. Where `auto` chose the stitching type for the pair of layers,
    the type is `auto`.

    Args:
        options: of a run, or the settings in a row of a table. None counts as missing.
    """
    values: dict[str, object] = dict(ABSENT)
    for name, value in options.items():
        # An option that this version does not know counts where it was given.
        if value is not None and (value or name in OPTIONS):
            values[name] = value
    given_type = values.pop("stitching_option", None)
    if given_type:
        values["stitching_type"] = given_type
    counted = {
        name: _hashable(value)
        for name, value in values.items()
        if name not in NOT_COMPARED and not name.endswith(DIGEST)
    }
    for name in OPTIONS:
        if name in counted and is_idle(name, values):
            counted[name] = None
    return counted


def further_options(
    options: Options, columns: Iterable[str], absent: Mapping[str, Hashable] = ABSENT
) -> FurtherOptions:
    """Return the options that tell experiments apart and have no column of their own.

    Options with the value that their absence means are left out.

    Args:
        options: of a run.
        columns: the options with a column.
        absent: what the absence of an option means.
    """
    options = dict(options)
    given_token = options.pop("c2t_cls_option", None)
    if options.get("stitching_option"):  # the run has the token that `auto` chose
        options["c2t_cls_token"] = given_token
    counted = identity_of(options)
    further = {
        name: counted[name]
        for name in sorted(counted.keys() - {*columns, *LAYERS})
        if counted[name] not in (None, absent.get(name))
    }
    return FurtherOptions(json.dumps(further))


def differences(before: Options, now: Options) -> str:
    """Describe how the options of two runs differ; "" if all options agree that both have.

    Weights, images and code may have changed, see `changed_since`.
    """
    values_before = _with_networks(before)
    values_now = _with_networks(now)
    texts = []
    for name, value in before.items():
        if name in now and values_before.get(name) != values_now.get(name):
            texts.append(f"{name} was {reprlib.repr(value)}, now {now[name]!r}")
    return ", ".join(texts)


def _with_networks(options: Options) -> Options:
    """Return the options that tell experiments apart, with the identity of networks in place of paths."""
    values = dict(identity_of(options))
    for name, network in networks_named_by(options).items():
        values[f"{name}_path"] = network.identity
        if (
            network.is_untrained
        ):  # its weights depend on type and seed, which are options themselves
            values[f"{name}_path"] = UNTRAINED
    return values


def _hashable(value: object) -> Hashable:
    """Return a value of JSON as a value to compare; lists become tuples, and objects their text."""
    if isinstance(value, list | tuple):
        return tuple(map(_hashable, value))
    if isinstance(value, dict):
        return str(value)
    return value  # type: ignore[return-value]  # further values of JSON are hashable
