"""Errors that a user can correct, and their messages."""

import difflib
import errno
from collections.abc import Iterable

MAX_LISTED = 12  # names that fit into one line
# Messages of CUDA's libraries where memory is used up. torch raises an OutOfMemoryError of its own
# only where its allocator fails.
OUT_OF_MEMORY = (
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_NOT_INITIALIZED",
    "CUSOLVER_STATUS_ALLOC_FAILED",
    "CUSOLVER_STATUS_NOT_INITIALIZED",
    "unable to find an engine to execute this computation",
    "Unable to find a valid cuDNN algorithm",
)

# Errors of the system that another name or folder, or more room, mends
OF_PLACES = (errno.ENAMETOOLONG, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


class UserError(Exception):
    """An error that the user can correct; a script prints its message and exits with code 2.

    The message is one line: the value that is wrong, the values that are allowed, and the remedy.
    """

    def __init__(self, line: str):
        super().__init__(" ".join(line.splitlines()))


class Misfit(UserError):
    """A network, a checkpoint and images do not fit together; another data set may be the remedy.

    Args:
        line: the whole message.
        clause: the part of the message that names the misfit (default: the whole message). A longer
            message can quote it.
    """

    IMAGES = "the images at hand differ"  # `on` puts the name of the data set in its place

    def __init__(self, line: str, *, clause: str = ""):
        super().__init__(line)
        self.clause = clause or str(self)

    def on(self, dataset: str) -> str:
        """Return the message with the name of the data set that the user chose."""
        message = str(self)
        if self.IMAGES in message:
            return message.replace(self.IMAGES, f"-d is {dataset}")
        return f"{message} (-d is {dataset})"


class Busy(UserError):
    """Another process holds the lock of a folder or file that this process needs to write."""


def not_finite(name: str) -> UserError:
    """Return the error for logits that are not finite; the caller raises it.

    Args:
        name: of the network, head or stitch.
    """
    return UserError(
        f"the logits of {name} are not finite, so that no class is predicted; check the weights and the inputs, and "
        "lower the learning rate in training"
    )


def as_user_error(error: Exception) -> UserError | None:
    """Translate an exception into a UserError; return None if the user cannot correct the cause.

    Three errors of torch are translated: exhausted GPU memory, a training batch that is too small
    for BatchNorm, and a step of an optimiser that overflows; and errors of the system on names, rights and
    room of files. A UserError is returned unchanged.
    """
    if isinstance(error, UserError):
        return error
    message = str(error)
    is_of_torch = type(error).__name__ == "OutOfMemoryError"
    if is_of_torch or any(sign in message for sign in OUT_OF_MEMORY):
        return UserError(
            "the GPU is out of memory; lower -b (inputs in a batch), "
            "-n (inputs to compare on) or the number of layers"
        )
    if isinstance(error, OSError) and error.errno in OF_PLACES:
        return UserError(
            f"{error.strerror}: {error.filename or 'a file to write'}; choose another name or folder, or make room"
        )
    if "Expected more than 1 value per channel" in message:  # BatchNorm in training mode
        return UserError(
            "a training batch has a single input, and BatchNorm needs two or more; change -b"
        )
    if "cannot be converted to type float without overflow" in message:  # a step of Adam
        return UserError("an optimiser step overflows single precision; lower -lr or -wd")
    return None


def unknown_name(
    noun: str, name: str, allowed: Iterable[str], *, where: str = "--help lists all"
) -> UserError:
    """Return the error for a name outside of `allowed`; the caller raises it.

    The message lists the allowed names if they fit into a line. In any case it suggests names that
    begin so, or else close matches.

    Args:
        noun: for the thing that the name stands for, such as "layer".
        where: where the user finds all allowed names, if they are too many for a line.
    """
    names = list(allowed)
    begins_so = [allowed_name for allowed_name in names if name and allowed_name.startswith(name)]
    other_case = [allowed_name for allowed_name in names if allowed_name.lower() == name.lower()]
    close = begins_so or difflib.get_close_matches(name, names) or other_case
    hint = ""
    if close:
        hint = f"did you mean {' or '.join(close[:3])}? "
    if len(names) <= MAX_LISTED:
        where = f"known: {', '.join(names)}"
    return UserError(f"unknown {noun} {name!r}; {hint}{where}")
