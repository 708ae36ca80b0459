"""Files of torch that hold tensors and plain values, written whole and read without running code.

Torch is loaded where such a file is written or read: records of runs do without it.
"""

import pickle
import warnings
from pathlib import Path
from typing import Any

from src.ground.errors import UserError
from src.ground.files import new_file, readable


def save_tensors(path: Path, content: object) -> None:
    """Save tensors and plain values, in any containers, in torch's zip format, atomically."""
    import torch

    # torch would store a path in the file: bytes would depend on the name
    with new_file(path) as file:
        torch.save(content, file)


def load_tensors(path: str | Path, *, mmap: bool = False) -> Any:
    """Load a file of torch that holds tensors and plain values, onto the CPU.

    Code in the file does not run.

    Args:
        mmap: leave tensors in the file until they are used.

    Raises:
        UserError: the file is missing or damaged, or holds code.
    """
    import torch

    remedy = "save a plain state dict: torch.save(model.state_dict(), path)"
    advice = "check the path"
    if Path(path).is_file():
        advice = f"it is damaged or no checkpoint: {remedy}"
    with readable(f"checkpoint {path}", advice), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of files that are no checkpoints
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
        except pickle.UnpicklingError as error:  # torch's message advises to run the code
            raise UserError(
                f"checkpoint {path} holds more than tensors, or is damaged; {remedy}"
            ) from error
