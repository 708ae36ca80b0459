"""What the scripts share: groups of options, checked values, and one way to run and to fail.

Nothing here imports torch, so that `--help` and a mistyped option are answered at once.
"""

import argparse
import contextlib
import difflib
import math
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from src.config_file import words_of
from src.console import note, warn
from src.errors import UserError
from src.network_options import complete
from src.options import LR_STEPS, OOD_SCORES, OPTIMIZERS, PRECISIONS, SCHEDULERS


class Parser(argparse.ArgumentParser):
    """An argument parser that shows defaults and reports a mistake in one line, with exit code 2."""

    def __init__(self, description: str):
        super().__init__(description=description, formatter_class=_HelpFormatter, allow_abbrev=False)
        self.add_argument("--config", help="YAML or JSON file of options, such as the config.txt of a run; "
                          "what is given here as well wins")  # fmt: skip

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> argparse.Namespace:
        args = sys.argv[1:] if args is None else args
        first = argparse.ArgumentParser(prog=self.prog, add_help=False, allow_abbrev=False, exit_on_error=False)
        first.add_argument("--config")
        try:
            path = first.parse_known_args(args)[0].config
            words = [] if path is None else words_of(self, path)
        except (argparse.ArgumentError, UserError) as error:
            self.error(str(error))
        self._refuse_near_misses(args)
        parsed = super().parse_args([*words, *args], namespace)
        try:
            complete(self, parsed, args)
        except UserError as error:
            self.error(str(error))
        return parsed

    def _refuse_near_misses(self, args: Sequence[str]) -> None:
        """Refuse words such as `-dirr` and `-epochs`, which argparse reads as `-d irr` and `-e pochs`."""
        long = {option.lstrip("-"): option for option in self._option_string_actions if len(option.lstrip("-")) > 1}
        for word in args:
            given = word.split("=")[0]
            if given.startswith("-") and not given.startswith("--") and given not in self._option_string_actions:
                close = difflib.get_close_matches(given[1:], long, n=2, cutoff=0.75)
                if close:
                    self.error(f"unknown option {given}; did you mean {' or '.join(long[name] for name in close)}?")

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=36, width=120)

    def _get_help_string(self, action: argparse.Action) -> str:
        if not action.option_strings or action.required or action.const is True:
            return action.help
        return super()._get_help_string(action)


class Terminated(BaseException):
    """SIGTERM came; a BaseException, as KeyboardInterrupt is, so that no handler of errors takes it for one."""


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Raise an exception for SIGINT and SIGTERM while the block runs. A second signal kills the process."""

    def handle(signum: int, frame: object) -> None:
        for each in before:
            signal.signal(each, signal.SIG_DFL)
        raise KeyboardInterrupt if signum == signal.SIGINT else Terminated

    before = {signum: signal.signal(signum, handle) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def run(parser: Parser, experiment: Callable[[argparse.Namespace], None], argv: Sequence[str] | None = None) -> int:
    """Parse the command line, run the experiment, and turn errors of the user into one line.

    Returns:
        The exit code: 0, 2 for an error of the user, 130 after SIGINT, 143 after SIGTERM, 1 for any other failure.
    """
    args = parser.parse_args(argv)
    try:
        with _signals(), _precision(args):
            experiment(args)
    except UserError as error:
        note(f"{parser.prog}: error: {error}")
        return 2
    except (KeyboardInterrupt, Terminated) as stop:
        signum = signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT
        remedy = "; to go on, give the same command with --resume" if hasattr(args, "resume") else ""
        note(f"{parser.prog}: interrupted by {signum.name}{remedy}")
        return 128 + signum
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":  # torch's, named without importing torch
            note(f"{parser.prog}: error: the memory of the GPU is used up; lower -b")
            return 2
        if "Expected more than 1 value per channel" in str(error):  # torch's, of BatchNorm in training
            note(f"{parser.prog}: error: a training batch has a single image, too few for BatchNorm; change -b")
            return 2
        traceback.print_exc()
        return 1
    return 0


def whole_number(minimum: int) -> Callable[[str], int]:
    """The type of an option that takes a whole number from `minimum` on (and that fits into 63 bits)."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = minimum - 1
        if not minimum <= number < 2**63:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {minimum} on")
        return number

    return parse


def described(choices: Mapping[str, Any]) -> str:
    """Names of choices and what they mean, for a help text; a choice is a text or has a `description`."""
    return "; ".join(f"{name}: {getattr(choice, 'description', choice)}" for name, choice in choices.items())


def output_file(kind: str, *endings: str) -> Callable[[str], str]:
    """The type of an option that names a file to write; what is written beside it has the same name, but for the end.

    Args:
        kind: what it is to be, such as "a figure".
    """

    def parse(text: str) -> str:
        if not text.endswith(endings):
            message = f"{text} is to be {kind}; give it a name that ends in {' or '.join(endings)}"
            raise argparse.ArgumentTypeError(message)
        return text

    return parse


csv_file = output_file("a CSV", ".csv")
figure_file = output_file("a figure", ".png", ".pdf")
table_or_figure = output_file("a CSV or a figure", ".csv", ".png", ".pdf")


def rank(text: str) -> int | None:
    """The type of an option that takes a rank; 0 is the full rank, as in the public code."""
    return whole_number(0)(text) or None


def one_of(names: Sequence[str]) -> Callable[[str], str]:
    """The type of an option that takes a name in any case; what is unknown is left for `choices` to refuse."""
    return lambda text: next((name for name in names if name.lower() == text.lower()), text)


def real_number(*, at_least: float = -math.inf, above: float = -math.inf) -> Callable[[str], float]:
    """The type of an option that takes a finite number within bounds."""

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number) or number < at_least or number <= above:
            bounds = {" at least": at_least, " above": above}
            limits = "".join(f"{word} {bound:g}" for word, bound in bounds.items() if bound > -math.inf)
            raise argparse.ArgumentTypeError(f"{text!r} is not a finite number{limits}")
        return number

    return parse


def dataset(text: str) -> str:
    """The type of an option that names a data set, in the table or on disk."""
    from src.datasets import dataset_name

    try:
        return dataset_name(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def dataset_help() -> str:
    """What such an option can name."""
    from src.datasets import DATASET_NAMES

    return f"one of {', '.join(DATASET_NAMES)}, a folder of images, or an .npz file"


def add_gpu(parser: Parser) -> None:
    """`-gpu`, `--amp` and `--tf32`."""
    add = parser.add_argument
    add("-gpu", "--gpu", type=whole_number(-1), default=0, help="GPU to run on; -1 is the CPU")
    add("--amp", choices=PRECISIONS, default="none", help="bf16: networks compute in bfloat16 where that is safe")
    add("--tf32", action="store_true", help="let the GPU multiply float32 matrices in TF32")


def _precision(args: argparse.Namespace) -> contextlib.AbstractContextManager:
    """What `--amp` and `--tf32` ask for, while the block runs; torch stays out where they ask for nothing."""
    if getattr(args, "amp", "none") == "none" and not getattr(args, "tf32", False):
        return contextlib.nullcontext()
    from src.runtime import precision

    return precision(gpu=args.gpu, amp=args.amp, tf32=args.tf32)


def add_resume(parser: Parser, *, overwrite: bool = False) -> None:
    """`--resume` and, for scripts that write into a folder of the user's choice, `--overwrite`."""
    add = parser.add_mutually_exclusive_group().add_argument
    add("--resume", action="store_true", help="go on with an interrupted run of the same options")
    if overwrite:
        add("--overwrite", action="store_true", help="write over a finished run of other options in -dir")


def add_seed(parser: Parser) -> None:
    """`-s`."""
    parser.add_argument("-s", "--seed", type=whole_number(0), default=0, help="random seed")


def add_title(parser: Parser) -> None:
    """`--title`."""
    parser.add_argument("--title", default="", help="title of the figure")


def add_data(parser: Parser, *, batch_size: int) -> None:
    """`-d`, `-data`, `-b`, `-workers` and `-prefetch`."""
    add = parser.add_argument
    add("-d", "--dataset", type=dataset, default="cifar10", help=dataset_help())
    add("-data", "--dataset-root", default="./data/pytorch", help="folder of the datasets")
    add("-b", "--batch-size", type=whole_number(1), default=batch_size, help="images in a batch")
    add("-workers", "--loader-workers", dest="n_workers", type=whole_number(0), default=1,
        help="processes that decode images from disk; small images need none")  # fmt: skip
    add("-prefetch", "--prefetch-factor", type=whole_number(1), default=1, help="batches each worker prepares ahead")


def placing_of(args: argparse.Namespace, device: Any) -> dict[str, Any]:
    """Where images go and how they are decoded, for `load_dataset`: `device` and `loading`."""
    from src.datasets import Loading

    return {"device": device, "loading": Loading(args.n_workers, args.prefetch_factor)}


def add_training(parser: Parser, *, n_epochs: int) -> None:
    """The options of training: `-o`, `-e`, `-lr`, `-wd`, `-s`, `-sched`, `-rlre` and `--grad-clip`."""
    add = parser.add_argument
    add("-o", "--optimizer", choices=OPTIMIZERS, default="adam", help="sgd is without momentum")
    add("-e", "--epochs", dest="n_epochs", type=whole_number(0), default=n_epochs, help="number of epochs")
    add("-lr", "--learning-rate", type=real_number(above=0), default=1e-3, help="initial learning rate")
    add("-wd", "--weight_decay", "--weight-decay", type=real_number(at_least=0), default=1e-5, help="weight decay")
    add_seed(parser)
    add("-sched", "--lr-scheduler", dest="scheduler", type=lambda text: text or "none", choices=SCHEDULERS,
        default="none", help="cosine: from the initial learning rate to 0 over all epochs")  # fmt: skip
    add("-rlre", "--reduce-lr-epochs", type=whole_number(1), nargs="*", default=[],
        help="multiply the learning rate by 0.1 after these epochs")  # fmt: skip
    add("--grad-clip", type=real_number(above=0), default=None, help="l2 norm that gradients are clipped to")


def add_finetuning(parser: Parser) -> None:
    """The options of fine-tuning OOD detectors."""
    add, real = parser.add_argument, real_number()
    add("-ftidd", "--finetune-id-dataset", type=dataset, required=True, help="ID dataset, as -d")
    add("-ftiddata", "--finetune-id-dataset-root", default="./data/pytorch", help="folder of the ID dataset")
    add("-ftoodd", "--finetune-ood-dataset", type=dataset, required=True, help="auxiliary OOD dataset, as -d")
    add("-ftooddata", "--finetune-ood-dataset-root", default="./data/pytorch", help="folder of the OOD dataset")
    add("-fe", "--finetune-epochs", dest="n_finetune_epochs", type=whole_number(0), default=20, help="epochs")
    add("--finetune-decay", choices=LR_STEPS, default="updates",
        help="what is counted to -fe // 2, where the learning rate drops to a tenth; published: updates")  # fmt: skip
    add("-m-in", "--mean-in-score", dest="m_in", type=real, default=-25, help="energy that ID is to stay below")
    add("-m-out", "--mean-out-score", dest="m_out", type=real, default=-7, help="energy that OOD is to stay above")
    add("-score", "--ood-score", dest="score", type=one_of(OOD_SCORES), choices=OOD_SCORES, default="energy",
        help="what is added to the cross-entropy: the energy hinge, or outlier exposure")  # fmt: skip
    add("-fdir", "--final-save-dir", default="./models/repr_cls_ood_detectors", help="folder of the detector store")


def settings_of(args: argparse.Namespace) -> Any:
    """The training settings that the options of `add_training` and `-b` stand for.

    Raises:
        UserError: two of them contradict each other.
    """
    from src.training import Settings

    if args.scheduler != "none" and args.reduce_lr_epochs:
        raise UserError(f"-sched {args.scheduler} and -rlre both set the learning rate; give one of them")
    late = [epoch for epoch in args.reduce_lr_epochs if epoch >= args.n_epochs]
    if late:
        epochs = " ".join(map(str, late))
        warn(f"-rlre {epochs}: none of the -e {args.n_epochs} epochs comes after that; the learning rate does not drop")
    options = vars(args)
    return Settings(**{name: options[name] for name in Settings._fields if name in options})
