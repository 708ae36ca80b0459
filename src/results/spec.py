"""The spec of a result: digests of its networks, inputs and code, and all options that affect its numbers.

Two results are the same if the keys of their specs are equal. A spec has no path and no name of a
file: a copied project and a renamed checkpoint have the spec of the original. Options that are in no
list of this module count. This module does not import torch.
"""

import hashlib
import json
import reprlib
from collections.abc import Container, Hashable, Iterable, Mapping
from typing import Any, NamedTuple

from src.core.choices import STARTS, Options
from src.core.choices.datasets import DATASET_NAMES, INTERVENTIONS
from src.core.choices.stitching import FORMS
from src.core.console import listed
from src.core.user_code import title_of
from src.results.network_names import RECORD, SHORT, are_same, networks_named_by
from src.results.public import typed_options

Spec = dict[str, Any]  # values of JSON by name
Difference = dict[str, tuple[Any, Any]]  # of two specs: both values by name

# Options that `config.txt` leaves out: with them it would not repeat the run
NOT_RECORDED = ("config", "resume", "overwrite", "warnings")
# Options that cannot change a number: places, devices, workers, words, and the files that a run keeps
FREE = (
    *("save_dir", "source_dir", "source_dirs", "output", "energy_dir", "ood_detector_dir"),
    *("dataset_root", "id_dataset_root", "sanity_check_dataset_root"),
    *("finetune_id_dataset_root", "finetune_ood_dataset_root"),
    *("front_model", "end_model", "own_types", "networks", "similarity", "final_save_dir", "data"),
    *("gpu", "n_workers", "prefetch_factor", "memory", "verbose", "print_freq", "no_save"),
)
NOT_COMPARED = (*NOT_RECORDED, *FREE)
# They select results of one spec
LAYERS = ("front_layer", "end_layer")
# They are swept in one folder
RANKS = ("front_stitch_rank", "front_pinv_rank")
CHECKPOINTS = ("front_model_path", "end_model_path")
WEIGHTS = ("front_model_weights", "end_model_weights")
TYPES = ("front_model_type", "end_model_type")
# The names of networks in columns and in specs
COLUMNS_OF_WEIGHTS = ("front_weights", "end_weights")
NETWORKS = (
    *CHECKPOINTS,
    *TYPES,
    *WEIGHTS,
    *COLUMNS_OF_WEIGHTS,
    "front_model_type_code",
    "end_model_type_code",
)

DIGEST = "_sha256"  # ends the name of an option that records a content
CONTENTS = ("_weights", "_images", "_code")  # end the names of contents in a spec
# Code that measures: what it measured is soon made again, unlike stitches
MEASURING = ("detector_code", "metrics_code")
TRAIN = "train_images"
TEST = "test_images"
SPLITS = {TRAIN: "training inputs", TEST: "test inputs"}
# The options in `config.txt` that hold the fingerprints
RECORDS = {split: f"{split}{DIGEST}" for split in SPLITS}
NAMED_BY = dict.fromkeys(SPLITS, ("dataset", *INTERVENTIONS))  # the options that name the images


class AllBut(frozenset):
    """The complement of a set: contains all values but these."""

    def __contains__(self, value: object) -> bool:
        return not super().__contains__(value)


# The option, and its values where another option has no effect
Idle = Mapping[str, Container[Hashable]]
WITHOUT_TRAINING: Idle = {"n_epochs": [0]}
UNMATCHED: Idle = {"init": list(STARTS)}
WITHOUT_CUTOFF: Idle = {"init": AllBut(name for name, form in FORMS.items() if form.cuts_off)}


class Option(NamedTuple):
    """An option of a stitch: its flag, its default, and when it has no effect."""

    flag: str  # as it is typed
    absent: Hashable = None  # the value where a record lacks the option
    idle: Idle = {}


# The first ones stand in the names of methods where several would tell them apart
OPTIONS = {
    "dataset": Option("-d"),
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


def spec_of(options: Options) -> Spec:
    """Return the spec of a run: the digests of its networks, inputs and code, and the options that have an
    effect.

    An unknown content is None. Weights that the options do not record are those of the checkpoint,
    if it is found. Where `auto` chose the stitching type for the pair of layers, the type is `auto`.

    Args:
        options: of a run, as they were typed, with the recorded contents. None counts as missing.
    """
    values = dict(_with_effect(options))
    spec: Spec = {split: options.get(record) for split, record in RECORDS.items()}
    for name, network in networks_named_by(options).items():
        spec[f"{name}_weights"] = network.known_content
        values.pop(f"{name}_path", None)
    for name, value in values.items():
        option = name.removesuffix(DIGEST)
        if option in NOT_COMPARED or option in LAYERS or name in RECORDS.values():
            continue
        if option == name:
            spec[name] = _without_paths(name, value)
        elif option.endswith("dataset"):
            spec[f"{option}_images"] = value
        elif option in values:
            spec[f"{option}_code"] = _without_paths(option, value)
        elif not name.endswith(RECORD):
            spec[f"{option}_weights"] = value
    known = {
        name: value for name, value in spec.items() if value is not None or name.endswith(CONTENTS)
    }
    return json.loads(json.dumps(known))


def _with_effect(options: Options) -> Options:
    """Return the options of a run that have an effect, with defaults for missing options of a stitch."""
    values: dict[str, Any] = {}
    if "stitching_type" in options:
        values |= ABSENT
    for name, value in typed_options(options).items():
        # An option that this version does not know counts where it was given.
        if value is not None and (value or name in OPTIONS):
            values[name] = value
    return {name: value for name, value in values.items() if not is_idle(name, values)}


def is_idle(name: str, options: Options) -> bool:
    """Return whether an option has no effect, given the other options of the run."""
    if name not in OPTIONS:
        return False
    deciding = OPTIONS[name].idle.items()
    return any(options.get(option) in values for option, values in deciding)


def _without_paths(name: str, value: Any) -> Any:
    """Return the value of an option without paths: the names of a user's functions, and None for a user's data
    set."""
    if isinstance(value, list | tuple):
        return [_without_paths(name, item) for item in value]
    if isinstance(value, dict):
        return {title_of(str(key)): item for key, item in value.items()}
    if isinstance(value, str):
        is_of_user = name.endswith("dataset") and value not in DATASET_NAMES
        return None if is_of_user else title_of(value)
    return value


def key_of(spec: Spec) -> str:
    """Return the SHA-256 of the canonical JSON of a spec."""
    return hashlib.sha256(
        json.dumps(spec, sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()


def difference(before: Spec, now: Spec) -> Difference:
    """Return both values, by name, where two specs differ; unknown digests equal any other."""
    found = {}
    for name in sorted(before.keys() | now.keys()):
        values = (before.get(name), now.get(name))
        is_unknown = name.endswith(CONTENTS) and not name.endswith("_code") and None in values
        if values[0] != values[1] and not is_unknown:
            found[name] = values
    return found


def changed_since(before: Options, now: Options) -> Difference:
    """Return what has changed since the first of two runs: contents that differ although the same names were
    typed."""
    changed = {}
    for name, values in difference(spec_of(before), spec_of(now)).items():
        option = name.rpartition("_")[0]  # of weights, images or code
        named_by = NAMED_BY.get(name, (option, f"{option}_path"))
        are_typed = all(before.get(typed) == now.get(typed) for typed in named_by)
        if name.endswith(CONTENTS) and are_typed:
            changed[name] = values
    return changed


def other_inputs(before: Spec, now: Spec) -> Difference:
    """Return the weights and images in which two specs differ, unless one spec has a subset of the other's."""
    found = {}
    for name, values in difference(before, now).items():
        first, second = map(_digests, values)
        is_input = name.endswith(("_weights", "_images"))
        if is_input and not (first <= second or second <= first):
            found[name] = values
    return found


def _digests(value: Any) -> set[str]:
    """Return the digests in an entry of a spec."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return set().union(*map(_digests, value))
    return {str(value)}


def described(found: Difference) -> str:
    """Format a difference, such as "seed was 0, now 1"; digests are shortened."""

    def text(name: str, value: Any) -> str:
        if value is None:
            return "none"
        if not name.endswith(CONTENTS):
            return reprlib.repr(value)
        shortened = [
            " → ".join(digest[:SHORT] for digest in text.split(" → ")) for text in _digests(value)
        ]
        return listed(sorted(shortened), n=3)

    return ", ".join(
        f"{name} was {text(name, before)}, now {text(name, now)}"
        for name, (before, now) in found.items()
    )


def further_options(
    options: Options, columns: Iterable[str], absent: Mapping[str, Hashable] = ABSENT
) -> str:
    """Return the options of a spec that have no column of their own, without default values, as a JSON object.

    Args:
        options: of a run.
        columns: the options with a column.
        absent: what the absence of an option means.
    """
    usual = json.loads(json.dumps(dict(absent)))
    further = {}
    for name, value in sorted(spec_of(options).items()):
        if not (name in columns or name.endswith(CONTENTS) or value == usual.get(name)):
            further[name] = value
    return json.dumps(further)


def recorded_images(options: Options) -> dict[str, str]:
    """Return the fingerprints of images that options hold, by option."""
    return {name: options[name] for name in RECORDS.values() if options.get(name)}


def short_images(options: Options) -> dict[str, Any]:
    """Return the shortened fingerprints in options, by column; None without a record."""
    return {split: (options.get(record) or "")[:SHORT] or None for split, record in RECORDS.items()}


def on_same_images(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Return whether two records of tables are on the same images: by recorded fingerprints, or else by the data
    set and its dots."""
    of_splits = [(first.get(split), second.get(split)) for split in SPLITS]
    recorded = [digests for digests in of_splits if all(digests)]
    if recorded:
        return all(are_same(*digests) for digests in recorded)
    is_known = None not in (first["dataset"], second["dataset"])
    return not is_known or all(first[name] == second[name] for name in ("dataset", "shortcut"))
