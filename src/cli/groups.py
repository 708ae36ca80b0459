"""Groups of options that several scripts have, and the values that are made of these options."""

import os
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from src.cli.parser import Parser
from src.cli.types import (
    cutoff,
    described,
    integer_from,
    integer_from_0,
    integer_from_1,
    names_of,
    network,
    number_of_samples,
    real_above_0,
    real_from_0,
    real_number,
    scheduler,
)
from src.core.choices import ALIGNMENTS, PRECISIONS
from src.core.choices.datasets import DATASET_NAMES, INTERVENTIONS, dataset_label, dataset_name
from src.core.choices.models import MODEL_NAMES, VIT_INPUTS, VITS
from src.core.choices.similarity import MEASURES, PAPER
from src.core.choices.training import OPTIMIZERS, SCHEDULERS
from src.core.console import is_silent, note, note_once, progress, recorded_warnings, warn_once
from src.core.inputs import InputSpec
from src.core.user_code import CODE
from src.results.network_names import NamedNetwork, networks_named_by, options_beside
from src.results.spec import (
    RECORDS,
    SPLITS,
    TEST,
    TRAIN,
    are_same,
)

if TYPE_CHECKING:
    import torch

    from src.datasets.base import InputSet
    from src.models import Network
    from src.results.checkpoints import Session
    from src.results.run import Run
    from src.training import Settings

N_COMPARED = 1000  # validation inputs that measures of similarity take by default
MOST_SHARED = 0.01  # of test inputs that are among the training inputs without a warning
MOST_WORKERS = 16  # that decode images by default

# Help texts
_LISTED = [name for name in MODEL_NAMES if not name.startswith(("vit_", "repr_cls_"))]
_PATCHES = " or ".join(f"vit_SIZE_{suffix}" for suffix in VIT_INPUTS)
NETWORKS = (
    f"one of {', '.join(_LISTED)}; {_PATCHES}, where SIZE is one of {', '.join(VITS)}; tv_NAME: "
    "any classification network of torchvision, such as tv_convnext_tiny; or a network of your "
    f"own: {CODE}"
)
CHECKPOINT = (
    "file of a state dict; -: randomly initialised weights, drawn by the seed; DEFAULT: the weights that come with "
    "the type (from torchvision for tv_NAME, from your function for a network of your own); or the "
    "name of other weights of torchvision"
)
CHANNELS_LAST = (
    "activations are (height, width, channels); needed only where the shape is ambiguous"
)


def add_gpu(parser: Parser) -> None:
    """Add `-gpu` and `--amp`."""
    add = parser.add_argument
    add("-gpu", "--gpu", type=integer_from(-1), default=0, help="number of the GPU; -1: the CPU")
    add(
        "--amp",
        choices=PRECISIONS,
        default="none",
        help="bf16: networks compute in bfloat16 where that is safe (autocast)",
    )


def add_resume(parser: Parser, *, overwrite: bool = False) -> None:
    """Add `--resume`.

    Args:
        overwrite: add `--overwrite` as well, for scripts that write into a folder of the user's
            choice.
    """
    add = parser.add_mutually_exclusive_group().add_argument
    add("--resume", action="store_true", help="resume an interrupted run of the same options")
    if overwrite:
        add(
            "--overwrite",
            action="store_true",
            help="replace a finished run in -dir, even a run of other options",
        )


def claim(run: "Run", args: Namespace) -> None:
    """Claim a run, and print a note if `--resume` finds none to resume."""
    run.claim(resume=args.resume)
    if not run.state:
        note_new_run(args, run.folder)


def note_new_run(args: Namespace, folder: Path) -> None:
    """Print a note that `--resume` finds nothing to resume; silent within `all_pairs.py`, which always resumes."""
    if args.resume and not is_silent():
        note(f"--resume: {folder} has no run of these options to resume; a new one starts")


def add_memory(parser: Parser) -> None:
    """Add `--memory`, for a script that keeps activations for further pairs of networks."""
    parser.add_argument(
        "--memory",
        type=real_above_0,
        metavar="GB",
        help="memory of each process for activations and sums that further pairs need; what does not fit is "
        "computed again. Default: a quarter of the memory that is free at the start",
    )


def add_own_types(parser: Parser) -> None:
    """Add `--own-types`, for a script that reads types from a list or a folder."""
    parser.add_argument(
        "--own-types",
        type=network,
        nargs="+",
        default=[],
        metavar="TYPE",
        help="types of networks that are your own code, which runs only if it is given here; FILE.py is relative to "
        "the working folder",
    )


def add_data(parser: Parser, *, batch_size: int | None) -> None:
    """Add `-d`, `-data`, `-b`, `-workers` and `-prefetch`.

    Args:
        batch_size: the default of `-b`; None for a script that leaves it to the scripts it calls.
    """
    add = parser.add_argument
    add(
        "-d",
        "--dataset",
        type=dataset_name,
        default="cifar10",
        help=f"data set: one of {', '.join(DATASET_NAMES)}; or your own: a folder of images, or an .npz file of "
        "images, tokens (N, T) or vectors (N, D). For networks that were trained elsewhere, write mean, std and "
        "classes (names in the order of the outputs; default: sorted) as in their training to dataset.yaml in "
        "the folder, or to arrays of the file; misc/docs/guide.md has a recipe",
    )
    add(
        "-data",
        "--dataset-root",
        default="./data/pytorch",
        help="folder of the data sets; torchvision's are downloaded to it",
    )
    about_batch_size = "inputs in a batch"
    if batch_size is None:
        about_batch_size += "; default: the default of each script"
    add(
        "-b",
        "--batch-size",
        type=integer_from_1,
        default=batch_size,
        help=about_batch_size,
    )
    add(
        "-workers",
        "--loader-workers",
        dest="n_workers",
        type=integer_from_0,
        default=None,
        help="processes that decode images from disk; data sets in memory need none; default: the "
        f"number of cores, at most {MOST_WORKERS}",
    )
    add(
        "-prefetch",
        "--prefetch-factor",
        type=integer_from_1,
        default=1,
        help="batches that each process of -workers prepares ahead",
    )


def begin(
    args: Namespace, session: "Session | None" = None
) -> "tuple[Session, torch.device, InputSpec]":
    """Return a session, a new one unless there is one, the device of the options, and the spec of the inputs.

    Raises:
        UserError: the device does not exist, or the data set has no labels.
    """
    from src.core.device import device_of
    from src.datasets import dataset_info
    from src.results.checkpoints import Session

    path = Path(f"{args.dataset}.npz")  # a folder of this name is often the data set's own (-data)
    if args.dataset in DATASET_NAMES and path.exists():
        note_once(f"-d {args.dataset} is the data set of that name; give -d ./{path} for yours")
    device = device_of(args.gpu)
    return session or Session(), device, dataset_info(args.dataset, labelled=True).spec


def load_options(args: Namespace, device: "torch.device") -> dict[str, Any]:
    """Return arguments of `load_dataset`: `device`, `loading` and the interventions."""
    from src.datasets import Loading

    n_workers = args.n_workers
    if n_workers is None:
        n_workers = min(n_cores(), MOST_WORKERS)
    options = {"device": device, "loading": Loading(n_workers, args.prefetch_factor)}
    options["interventions"] = {name: vars(args).get(name) for name in INTERVENTIONS}
    return options


def load_split(
    args: Namespace, session: "Session", device: "torch.device", *, train: bool, seed: int = 0
) -> "InputSet":
    """Return the training or the test inputs of `-d`, with the interventions of the options.

    Adds their fingerprint to `args`. Warns, once, if a network of `args` was trained on another data
    set, or on other training inputs of the same name.

    Args:
        seed: of what interventions draw for training images.
    """
    loading = load_options(args, device)
    images = session.dataset(args.dataset, args.dataset_root, train=train, seed=seed, **loading)
    split = TRAIN if train else TEST
    setattr(args, RECORDS[split], images.fingerprint)

    with recorded_warnings() as texts:
        _warn_of_training_on_others(args, split, images.spec)
        _warn_of_equal_splits(args, session)
    _record_warnings(args, texts)
    return images


def batches_of(test_set: "InputSet", batch_size: int) -> Iterable:
    """Return the batches of test inputs, with a progress bar."""

    n_batches = test_set.n_batches(batch_size)
    return progress(test_set.batches(batch_size), "evaluating", n_batches)


def _record_warnings(args: Namespace, texts: Sequence[str]) -> None:
    """Add warnings to `args`, for the `run.json` of results."""
    args.warnings = list(dict.fromkeys([*getattr(args, "warnings", ()), *texts]))


def _warn_of_equal_splits(args: Namespace, session: "Session") -> None:
    """Warn if the training and the test inputs of `-d` are the same, or more than 1 % of the test inputs are among
    the training inputs."""

    train, test = (getattr(args, RECORDS[split], None) for split in (TRAIN, TEST))
    if train and train == test:
        warn_once(
            f"{args.dataset}: training and test inputs are the same, and accuracies are those of training; "
            "give other test inputs"
        )
        return
    share = session.shared_inputs(args.dataset, args.dataset_root)
    if share > MOST_SHARED:
        warn_once(
            f"{args.dataset}: {share:.0%} of the test inputs are among the training inputs, and accuracies are partly "
            "those of training; give other test inputs"
        )


def _warn_of_training_on_others(args: Namespace, split: str, spec: InputSpec) -> None:
    """Warn of networks of `args` that were trained on another data set of this spec, and note which were trained on
    other training inputs of the same name.

    Another spec was warned of when the network was loaded.
    """

    options = vars(args)
    record = RECORDS[split]
    for name in networks_named_by(options).values():
        trained_with = options_beside(name.path)
        trained, chosen = (dataset_label(run.get("dataset", "")) for run in (trained_with, options))
        if not trained or trained_with.get(record) == options[record]:
            continue
        if "image_spec" in trained_with:
            trained_spec = InputSpec.of_record(trained_with["image_spec"])
            if trained_spec.record() != spec.record():
                continue
        # Interventions draw by the seed of the training
        has_drawn = any(trained_with.get(key) is not None for key in INTERVENTIONS)
        if trained != chosen:
            warn_once(
                f"{name.title} was trained on {trained}, and -d is {chosen}; give -d {trained}, unless other inputs "
                "are intended"
            )
        elif split == TRAIN and not (
            has_drawn or are_same(trained_with.get(record), options[record])
        ):
            note_once(f"{name.title} was trained on other {SPLITS[TRAIN]} of {args.dataset}")


def n_cores() -> int:
    """Count the cores that this process may use; on macOS all cores of the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def add_training(parser: Parser, *, n_epochs: int | None, has_steps: bool = True) -> None:
    """Add the options of training: epochs, learning rate with its steps, weight decay and seed.

    Args:
        n_epochs: the default of `-e`; None leaves this option out.
        has_steps: add `-rlre`.
    """
    add = parser.add_argument
    if n_epochs is not None:
        add(
            "-e",
            "--epochs",
            dest="n_epochs",
            type=integer_from_0,
            default=n_epochs,
            help="number of epochs",
        )
    add(
        "-lr",
        "--learning-rate",
        type=real_above_0,
        default=1e-3,
        help="initial learning rate",
    )
    add(
        "-wd",
        "--weight_decay",
        "--weight-decay",
        type=real_from_0,
        default=1e-5,
        help="weight decay",
    )
    add("-s", "--seed", type=integer_from_0, default=0, help="random seed")
    if has_steps:
        add(
            "-rlre",
            "--reduce-lr-epochs",
            type=integer_from_1,
            nargs="*",
            default=[],
            help="multiply the learning rate by 0.1 after these epochs",
        )


def add_optimizer(parser: Parser) -> None:
    """Add `-o` and `-sched`."""
    parser.add_argument(
        "-o",
        "--optimizer",
        choices=OPTIMIZERS,
        default="adam",
        help=f"optimizer. {described(OPTIMIZERS)}",
    )
    add_scheduler(parser)


def add_scheduler(parser: Parser) -> None:
    """Add `-sched`."""
    parser.add_argument(
        "-sched",
        "--lr-scheduler",
        dest="scheduler",
        type=scheduler,
        choices=SCHEDULERS,
        default="none",
        help=f"schedule of the learning rate. {described(SCHEDULERS)}",
    )


def add_clipping(parser: Parser) -> None:
    """Add `--grad-clip`."""
    parser.add_argument(
        "--grad-clip",
        type=real_above_0,
        default=None,
        help="largest l2 norm of gradients; larger gradients are scaled down to it",
    )


def add_matching(parser: Parser, *, n_samples: int | str, default_cutoff: str) -> None:
    """Add the options of direct matching with their defaults: `-pinv-samples` and
    `--pinv-cutoff`."""
    add = parser.add_argument
    add(
        "-pinv-samples",
        "--pinv-init-samples",
        dest="n_pinv_init_samples",
        type=number_of_samples,
        default=n_samples,
        help="number of training inputs for direct matching; auto: 50 rows a channel of the front layer, "
        "at least 500 and at most 10,000 inputs, but not more than there are",
    )
    add(
        "--pinv-cutoff",
        type=cutoff,
        default=default_cutoff,
        help="ignore singular values below this share of the largest one in least squares. "
        "paper: max(rows, columns)·eps(float32), so that more inputs drop more directions; "
        "exact: columns·eps(float32) of columns of norm 1, whatever the number of inputs and the "
        "units of channels; or a number",
    )


def add_similarity(parser: Parser) -> None:
    """Add the options of measures: `-n`, `--metrics`, `--alignment` and `--permutations`."""
    add = parser.add_argument
    add(
        "-n",
        "--n-samples",
        type=integer_from(2),
        default=N_COMPARED,
        help="number of validation inputs to compare on, the first ones; all of them if there are fewer",
    )
    add(
        "--metrics",
        nargs="+",
        type=names_of("measure", MEASURES, has_code=True),
        default=list(PAPER),
        metavar="MEASURE",
        help=f"measures, separated by blanks or commas. {described(MEASURES)}; or {CODE}, a "
        "function of your own",
    )
    add(
        "--alignment",
        choices=ALIGNMENTS,
        default="auto",
        help="samples of CCA and Procrustes. pool: the inputs; auto: the positions in the inputs where "
        "both layers have maps of equal shape, and otherwise the inputs, as in the paper's code",
    )
    add(
        "--permutations",
        dest="n_permutations",
        type=integer_from(19),
        default=None,
        help="number of random permutations of the inputs, such as 200, for p-values and "
        "calibrated values. All inputs are permuted, and then the inputs within each class",
    )


def add_interventions(parser: Parser, *, of_tests: bool = False) -> None:
    """Add the options of interventions on data sets.

    Args:
        of_tests: only interventions that change test images.
    """
    for name, row in INTERVENTIONS.items():
        if row.changes_images or not of_tests:
            parser.add_argument(
                f"--{name.replace('_', '-')}",
                type=real_number(at_least=0, at_most=1),
                metavar="P",
                help=row.description,
            )


def accuracy_of(scores: Mapping[str, Any]) -> str:
    """Return the end of a last line: the accuracy in the last row of a log of training; "" if none was measured."""
    accuracy = scores.get("val_acc")
    if accuracy is None:
        return ""
    return f": {accuracy:.2%} accuracy on the test inputs"


def training_settings(args: Namespace) -> "Settings":
    """Return the settings of training from the options of `add_training` and `-b`.

    Raises:
        UserError: two options contradict each other.
    """
    from src.training import Settings
    from src.training.settings import checked_settings

    options = vars(args)
    given = {name: options[name] for name in Settings._fields if name in options}
    settings = checked_settings(Settings(**given))
    late = [epoch for epoch in args.reduce_lr_epochs if epoch >= options.get("n_epochs", epoch + 1)]
    if late and options["n_epochs"] > 0:
        warn_once(
            f"-rlre {' '.join(map(str, late))} has no effect: there are {options['n_epochs']} epochs (-e)"
        )
    return settings


def add_channels_last(parser: Parser, *sides: str) -> None:
    """Add `--channels-last`.

    Args:
        sides: names of the networks that the user can choose from; none for a single network.
    """
    if sides:
        choices = (*sides, "both")
        text = f"network whose {CHANNELS_LAST}"
        parser.add_argument("--channels-last", choices=choices, default=None, help=text)
    else:
        parser.add_argument("--channels-last", action="store_true", help=CHANNELS_LAST)


def named_network(args: Namespace, model: str) -> NamedNetwork:
    """Return the network of the options `front_model_path` and `front_model_type`, if `model` is front_model."""
    options = vars(args)
    return NamedNetwork.of(
        options[f"{model}_path"], options[f"{model}_type"], seed=options.get("seed")
    )


class NetworkOptions(NamedTuple):
    """The names of the options of a network and its layers."""

    model: str  # beginning of the options of path and type
    layers: str  # the option that names the layers
    side: str = "both"  # the choice of `--channels-last` that means this network
    is_encoder_allowed: bool = False  # whether it may return features instead of logits
    is_end: bool = False  # whether it continues behind the layers


FRONT = NetworkOptions("front_model", "front_layer", "front", is_encoder_allowed=True)
END = NetworkOptions("end_model", "end_layer", "end", is_end=True)
MODEL1 = NetworkOptions("model1", "model1_layer", "1", is_encoder_allowed=True)
MODEL2 = NetworkOptions("model2", "model2_layer", "2", is_encoder_allowed=True)
PROBED = NetworkOptions("model", "layer_names", is_encoder_allowed=True)
SAVED = NetworkOptions("model", "layers", is_encoder_allowed=True)
SOURCE = NetworkOptions("source_model", "source_layer_name")


class LoadedNetwork(NamedTuple):
    """A loaded network, and its layers chosen on the command line."""

    network: "Network"  # returns maps (B, C, H, W) for activations with channels last
    layers: list[str]
    name: NamedNetwork  # with the SHA-256 of the weights


def load_networks(
    args: Namespace,
    *named: NetworkOptions,
    images: InputSpec,
    session: "Session",
    device: "torch.device",
) -> list[LoadedNetwork]:
    """Load the networks and layers of the options; a network given twice is loaded once.

    Adds the SHA-256 of the weights to `args`.

    Raises:
        UserError: a network cannot be loaded, or has not the layers.
    """
    names = []
    networks = {}
    for options in named:
        name = named_network(args, options.model)
        network = session.network(name, images, device=device, encoder=options.is_encoder_allowed)
        _record_warnings(args, session.warnings_of.get(name, ()))
        name = replace(name, weights=session.weights(name, images, device=device))
        setattr(args, f"{options.model}_path_sha256", name.weights)
        networks[name] = network
        names.append(name)
    all_layers = []
    for options, name in zip(named, names, strict=True):
        text = vars(args)[options.layers]
        if not isinstance(text, str):
            text = ",".join(text)
        layers = networks[name].layers(text, of_end=options.is_end)
        is_last = args.channels_last in (True, options.side, "both")
        networks[name] = networks[name].channels_first(
            layers, image_shape=images.shape, channels_last=is_last
        )
        all_layers.append(layers)
    return [
        LoadedNetwork(networks[name], layers, name)
        for name, layers in zip(names, all_layers, strict=True)
    ]
