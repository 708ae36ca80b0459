"""The error of a user, and how a wrong name is reported."""

import difflib
from collections.abc import Iterable

FEW = 12  # names that fit into one line
# where torch has no error of its own: its libraries got no memory, or no algorithm that fits into
# it
OUT_OF_MEMORY = (
    "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_ALLOC_FAILED", "CUDNN_STATUS_NOT_INITIALIZED", "CUSOLVER_STATUS_ALLOC_FAILED",
    "CUSOLVER_STATUS_NOT_INITIALIZED", "unable to find an engine to execute this computation",
    "Unable to find a valid cuDNN algorithm",
)  # fmt: skip


class UserError(Exception):
    """An error that the user can mend: one line with what was given, what is allowed, and the
    remedy; exit code 2."""

    def __init__(self, line: str):
        super().__init__(" ".join(line.splitlines()))


class Misfit(UserError):
    """A network, a checkpoint and images do not fit each other; naming another data set may mend
    it.

    Args:
        clause: what does not fit, without what surrounds it in the line.
    """

    IMAGES = (
        "the images are others"  # in a line that describes them; scripts name the data set instead
    )

    def __init__(self, line: str, *, clause: str = ""):
        super().__init__(line)
        self.clause = clause or str(self)

    def on(self, dataset: str) -> str:
        """Return the line with the name of the data set."""
        if self.IMAGES in str(self):
            return str(self).replace(self.IMAGES, f"-d is {dataset}")
        return f"{self} (-d is {dataset})"


class Busy(UserError):
    """Another process is writing where this one is to write."""


def as_user_error(error: Exception) -> UserError | None:
    """Return the error of a user that an error of torch stands for; one of a user is its own, of
    others it is None."""
    if isinstance(error, UserError):
        return error
    if type(error).__name__ == "OutOfMemoryError" or any(
        sign in str(error) for sign in OUT_OF_MEMORY
    ):
        return UserError(
            "the memory of the GPU is used up; lower -b (images at once), -n (images that are compared) or the number "
            "of layers"
        )
    if "Expected more than 1 value per channel" in str(error):  # torch's, of BatchNorm in training
        return UserError("a training batch has a single image, too few for BatchNorm; change -b")
    return None


def unknown_name(
    kind: str, given: str, allowed: Iterable[str], *, where: str = "--help lists all"
) -> UserError:
    """Return the error for a name that is not allowed: it lists the close ones, or all if they are
    few.

    Args:
        where: the place to find all names.
    """
    allowed = list(allowed)
    close = difflib.get_close_matches(given, allowed, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    names = f"known: {', '.join(allowed)}" if len(allowed) <= FEW else where
    return UserError(f"unknown {kind} {given!r}; {hint}{names}")
