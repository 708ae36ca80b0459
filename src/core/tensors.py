"""Reading and writing files of torch that hold tensors and plain values, atomically and without running code.

Torch is loaded where such a file is written or read: records of runs do without it.
"""

import hashlib
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.core.errors import UserError
from src.core.files import new_file, readable

if TYPE_CHECKING:
    from torch import Tensor

# Of unpickling, of reading zip archives, and of reading files in the format before these
ERRORS_OF_TORCH = (pickle.UnpicklingError, RuntimeError, LookupError, ValueError, EOFError)


def save_tensors(path: Path, content: object) -> None:
    """Save tensors and plain values, in any containers, in torch's zip format, atomically."""
    import torch

    # torch would store a path in the file: bytes would depend on the name
    with new_file(path) as file:
        torch.save(content, file)


def save_state(path: Path, state: "Mapping[str, Tensor]") -> None:
    """Save a state dict in torch's zip format, atomically; equal states make equal bytes."""
    save_tensors(path, on_cpu(state))


def on_cpu(state: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """Return a state dict on the CPU, without gradients."""
    return {key: value.detach().cpu().contiguous() for key, value in state.items()}


def load_tensors(path: str | Path, *, mmap: bool = False) -> Any:
    """Load a file of torch that holds tensors and plain values, onto the CPU.

    Code in the file does not run.

    Args:
        mmap: leave tensors in the file until they are used.

    Raises:
        UserError: the file is missing or damaged, or holds code.
    """
    import torch

    advice = "check the path"
    if Path(path).is_dir():
        advice = "name a checkpoint in it, such as model_15.pt"
    with readable(f"checkpoint {path}", advice), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of files that are no checkpoints
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
        except ERRORS_OF_TORCH as error:  # the message of some advises to run the code
            raise UserError(
                f"{path} is no checkpoint of torch, is damaged, or holds more than tensors; save a plain state dict: "
                "torch.save(model.state_dict(), path)"
            ) from error


def bytes_of(values: "Tensor") -> memoryview:
    """Return the bytes of a tensor of any type; numpy lacks bfloat16."""
    import torch

    return values.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data


def content_of_state(state: "Mapping[str, Tensor]") -> str:
    """Return the SHA-256 of the names, types, shapes and values of a state dict."""
    import torch

    digest = hashlib.sha256()
    for key, value in sorted(state.items()):
        if not isinstance(value, torch.Tensor):  # extra state of a module
            continue
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(bytes_of(value))
    return digest.hexdigest()
