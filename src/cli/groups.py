"""Options that several scripts have, alone and in groups, and the values that they stand for."""

import os
from argparse import Namespace
from typing import TYPE_CHECKING, Any, NamedTuple

from src.choices import ALIGNMENTS, OPTIMIZERS, PRECISIONS, SCHEDULERS
from src.choices.datasets import DATASET_NAMES, INTERVENTIONS, dataset_name
from src.choices.models import MODEL_NAMES
from src.choices.similarity import MEASURES, PAPER
from src.cli.parser import Parser
from src.cli.types import cutoff, described, real_number, whole_number
from src.errors import UserError
from src.images import ImageSpec
from src.network_names import NetworkName

if TYPE_CHECKING:
    from src.models import Network
    from src.session import Session

NETWORKS = (
    f"one of {', '.join(MODEL_NAMES)}; tv_NAME, any classification network of torchvision (tv_convnext_tiny); or "
    "FILE.py:FUNCTION, one of your own"
)
CHECKPOINT = (
    "a state dict; DEFAULT: the weights that come with the type, torchvision's of tv_NAME, or those that "
    "FILE.py:FUNCTION gives; another name of torchvision's weights; -: fresh weights, drawn by the seed"
)
MOST_WORKERS = 16  # that decode images by default


def add_gpu(parser: Parser) -> None:
    """Add `-gpu`, `--amp` and `--tf32`."""
    add = parser.add_argument
    add("-gpu", "--gpu", type=whole_number(-1), default=0, help="GPU to run on; -1 is the CPU")
    add(
        "--amp",
        choices=PRECISIONS,
        default="none",
        help="bf16: networks compute in bfloat16 where that is safe",
    )
    add("--tf32", action="store_true", help="let the GPU multiply float32 matrices in TF32")


def add_resume(parser: Parser, *, overwrite: bool = False) -> None:
    """Add `--resume` and, for scripts that write into a folder of the user's choice,
    `--overwrite`."""
    add = parser.add_mutually_exclusive_group().add_argument
    add("--resume", action="store_true", help="go on with an interrupted run of the same options")
    if overwrite:
        add(
            "--overwrite",
            action="store_true",
            help="write over a finished run of other options in -dir",
        )


def add_figure(parser: Parser) -> None:
    """Add `--title` and `--pdf`."""
    parser.add_argument("--title", default="", help="title of the figure")
    parser.add_argument(
        "--pdf", action="store_true", help="draw the figure as a PDF instead of a PNG"
    )


def figure_options(args: Namespace) -> dict[str, str]:
    """Return the ending of a figure's name, and its title."""
    return {"figure": ".pdf" if args.pdf else ".png", "title": args.title}


def add_data(parser: Parser, *, batch_size: int | None) -> None:
    """Add `-d`, `-data`, `-b`, `-workers` and `-prefetch`.

    Args:
        batch_size: the default of `-b`; None where the script leaves it to others.
    """
    add = parser.add_argument
    add("-d", "--dataset", type=dataset_name, default="cifar10",
        help=f"one of {', '.join(DATASET_NAMES)}, a folder of images, or an .npz file")  # fmt: skip
    add("-data", "--dataset-root", default="./data/pytorch", help="folder of the datasets")
    add("-b", "--batch-size", type=whole_number(1), default=batch_size,
        help="images in a batch" + ("" if batch_size else "; default: that of each script"))  # fmt: skip
    add("-workers", "--loader-workers", dest="n_workers", type=whole_number(0), default=None,
        help="processes that decode images from disk; small images need none; default: one a core, at most "
        f"{MOST_WORKERS}")  # fmt: skip
    add(
        "-prefetch",
        "--prefetch-factor",
        type=whole_number(1),
        default=1,
        help="batches each worker prepares ahead",
    )


def load_options(args: Namespace, device: Any) -> dict[str, Any]:
    """Collect the arguments `device` and `loading` of `load_dataset`, and interventions where a
    script has them."""
    from src.datasets import Loading

    n_workers = min(n_cores(), MOST_WORKERS) if args.n_workers is None else args.n_workers
    options = {"device": device, "loading": Loading(n_workers, args.prefetch_factor)}
    if "intervention_seed" in args:
        options["interventions"] = {name: vars(args).get(name) for name in INTERVENTIONS}
        options["intervention_seed"] = args.intervention_seed
    return options


def n_cores() -> int:
    """Count the cores that this process may use; all of the machine where the system does not tell
    (macOS)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def add_training(parser: Parser, *, n_epochs: int | None, momentum: bool = False) -> None:
    """Add the options of training: `-o`, `-e`, `-lr`, `-wd`, `-s`, `-sched`, `-rlre` and
    `--grad-clip`.

    Args:
        n_epochs: the default of `-e`; None leaves that option out.
        momentum: add `--momentum` as well.
    """
    add = parser.add_argument
    without = "sgd is without momentum" + (" unless --momentum gives one" if momentum else "")
    add("-o", "--optimizer", choices=OPTIMIZERS, default="adam", help=without)
    if momentum:
        add(
            "--momentum",
            type=real_number(at_least=0, at_most=1),
            default=0.0,
            help="momentum of -o sgd",
        )
    if n_epochs is not None:
        add(
            "-e",
            "--epochs",
            dest="n_epochs",
            type=whole_number(0),
            default=n_epochs,
            help="number of epochs",
        )
    add(
        "-lr",
        "--learning-rate",
        type=real_number(above=0),
        default=1e-3,
        help="initial learning rate",
    )
    add(
        "-wd",
        "--weight_decay",
        "--weight-decay",
        type=real_number(at_least=0),
        default=1e-5,
        help="weight decay",
    )
    add("-s", "--seed", type=whole_number(0), default=0, help="random seed")
    add("-sched", "--lr-scheduler", dest="scheduler", type=lambda text: text or "none", choices=SCHEDULERS,
        default="none", help="cosine: from the initial learning rate to 0 over all epochs")  # fmt: skip
    add("-rlre", "--reduce-lr-epochs", type=whole_number(1), nargs="*", default=[],
        help="multiply the learning rate by 0.1 after these epochs")  # fmt: skip
    add(
        "--grad-clip",
        type=real_number(above=0),
        default=None,
        help="l2 norm that gradients are clipped to",
    )


def add_matching(parser: Parser) -> None:
    """Add the options of direct matching: `-pinv-samples` and `--pinv-cutoff`."""
    add = parser.add_argument
    add("-pinv-samples", "--pinv-init-samples", dest="n_pinv_init_samples", default=100,
        type=lambda text: text if text == "auto" else whole_number(1)(text),
        help="training images used for direct matching; auto: doubled from 100 until each pair's fit holds on "
        "others")  # fmt: skip
    add("--pinv-cutoff", type=cutoff, default="paper",
        help="share of the largest singular value below which least squares takes them for zero. paper: max(rows, "
        "columns)·eps(float32), so more images drop more directions; exact: columns·eps(float32); or a "
        "number")  # fmt: skip


def add_similarity(parser: Parser) -> None:
    """Add the options of measures of similarity: `-n`, `--metrics`, `--alignment` and
    `--permutations`."""
    add = parser.add_argument
    add(
        "-n",
        "--n-samples",
        type=whole_number(2),
        default=1000,
        help="the first so many validation images",
    )
    add("--metrics", nargs="+", choices=tuple(MEASURES), default=list(PAPER), metavar="MEASURE",
        help=described(MEASURES))  # fmt: skip
    add("--alignment", choices=ALIGNMENTS, default="auto",
        help="samples of CCA and Procrustes. auto, as the paper's code: positions of maps of equal shape, otherwise "
        "images; pool: images; positions: positions")  # fmt: skip
    add("--permutations", dest="n_permutations", type=whole_number(19), default=None,
        help="so many permutations of images, such as 200, for p-values and calibrated values: of all images, and of "
        "those of each class")  # fmt: skip


def add_interventions(parser: Parser, *, of_tests: bool = False) -> None:
    """Add an option for each row of the table of interventions, and `--intervention-seed`.

    Args:
        of_tests: only those that change test images, for scripts that read test images for a measure.
    """
    for name, row in INTERVENTIONS.items():
        if row.changes_tests or not of_tests:
            strength = real_number(at_least=0, at_most=row.at_most)
            parser.add_argument(
                f"--{name.replace('_', '-')}",
                type=strength,
                metavar=row.metavar,
                help=row.description,
            )
    parser.add_argument("--intervention-seed", type=whole_number(0), default=0,
                        help="seed of labels, dots and noise that these draw; -s does not change them")  # fmt: skip


def training_settings(args: Namespace) -> Any:
    """Return the training settings that the options of `add_training` and `-b` stand for.

    Raises:
        UserError: two of them contradict each other.
    """
    from src.training import Settings

    options = vars(args)
    if args.scheduler != "none" and args.reduce_lr_epochs:
        raise UserError(
            f"-sched {args.scheduler} and -rlre both set the learning rate; give one of them"
        )
    if options.get("momentum") and args.optimizer != "sgd":
        raise UserError(
            f"--momentum is of -o sgd, not of {args.optimizer}; give -o sgd or leave it out"
        )
    return Settings(**{name: options[name] for name in Settings._fields if name in options})


def add_channels_last(parser: Parser, *sides: str) -> None:
    """Add `--channels-last`, for one network or for the given sides."""
    what = "activations of three axes are height, width, channels where their shape does not tell"
    if sides:
        parser.add_argument(
            "--channels-last", choices=(*sides, "both"), default=None, help=f"whose {what}"
        )
    else:
        parser.add_argument("--channels-last", action="store_true", help=what)


def named_network(args: Namespace, model: str) -> NetworkName:
    """Return the network that options name: `front_model` by `front_model_path` and
    `front_model_type`."""
    options = vars(args)
    return NetworkName.of(
        options[f"{model}_path"], options[f"{model}_type"], seed=options.get("seed")
    )


class NetworkOptions(NamedTuple):
    """The options that name a network and layers of it."""

    model: str  # what the options of path and type begin with
    layers: str  # the option that names the layers
    side: str = "both"  # the choice of `--channels-last` that means this network
    is_encoder_allowed: bool = False  # whether it may give features instead of logits
    is_end: bool = False  # whether it goes on behind the layers


FRONT = NetworkOptions("front_model", "front_layer", "front", is_encoder_allowed=True)
END = NetworkOptions("end_model", "end_layer", "end", is_end=True)
MODEL1 = NetworkOptions("model1", "model1_layer", "1", is_encoder_allowed=True)
MODEL2 = NetworkOptions("model2", "model2_layer", "2", is_encoder_allowed=True)
PROBED = NetworkOptions("model", "layer_names", is_encoder_allowed=True)
SOURCE = NetworkOptions("source_model", "source_layer_name")


class LoadedNetwork(NamedTuple):
    """A network that options name, and the layers that they name of it."""

    network: "Network"  # gives the activations of the layers as maps (B, C, H, W)
    layers: list[str]
    name: NetworkName  # with the SHA-256 of its weights


def load_network(
    args: Namespace, options: NetworkOptions, images: ImageSpec, *, session: "Session", device: Any
) -> LoadedNetwork:
    """Return the network and the layers that options name. The options then hold the SHA-256 of its
    weights."""
    loaded = _load_whole(args, options, images, session=session, device=device)
    return _with_layers(loaded, args, options, images)


def load_two_networks(
    args: Namespace,
    first: NetworkOptions,
    second: NetworkOptions,
    images: ImageSpec,
    *,
    session: "Session",
    device: Any,
) -> tuple[LoadedNetwork, LoadedNetwork]:
    """Return two networks as `load_network` does. Where options name one network twice, both share
    one object."""
    loaded1 = _load_whole(args, first, images, session=session, device=device)
    loaded2 = _load_whole(args, second, images, session=session, device=device)
    loaded1 = _with_layers(loaded1, args, first, images)
    if loaded1.name != loaded2.name:
        return loaded1, _with_layers(loaded2, args, second, images)
    loaded2 = _with_layers(loaded1, args, second, images)
    return loaded1._replace(network=loaded2.network), loaded2


def _load_whole(
    args: Namespace, options: NetworkOptions, images: ImageSpec, *, session: "Session", device: Any
) -> LoadedNetwork:
    """Return the network that options name, so far without layers."""
    name = named_network(args, options.model)
    network = session.network(name, images, device=device, encoder=options.is_encoder_allowed)
    name = name._replace(weights=session.weights(name, images, device=device))
    setattr(args, f"{options.model}_path_sha256", name.weights)
    return LoadedNetwork(network, [], name)


def _with_layers(
    loaded: LoadedNetwork, args: Namespace, options: NetworkOptions, images: ImageSpec
) -> LoadedNetwork:
    """Return a network with the layers that an option names, and with their activations as maps."""
    names = vars(args)[options.layers]
    text = names if isinstance(names, str) else ",".join(names)
    layers = loaded.network.layers(text)
    if options.is_end and not set(layers) <= set(loaded.network.layer_names):
        raise UserError(
            f"end layer {text}: nothing follows the output of the network; choose a layer in front of it"
        )
    is_last = args.channels_last in (True, options.side, "both")
    network = loaded.network.channels_first(layers, image_shape=images.shape, channels_last=is_last)
    return loaded._replace(network=network, layers=layers)
