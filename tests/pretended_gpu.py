"""A pretended GPU for a machine without one: real values, real devices, no speed.

`install` makes this machine one with two GPUs, of which the second, `cuda:1`, can be used. A tensor
there says so and holds its values in a tensor of the CPU. A dispatch mode sees every operation,
computes it on the CPU, refuses what CUDA refuses, and counts what blocks: copies that nobody asked
not to wait for, and values that the host asks for.

It does not show kernels that round otherwise, nondeterminism, streams and races, real memory,
several GPUs, speed."""

import collections
import os
import sys

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

GPU = torch.device("cuda", 1)
FREE_BYTES = 2**30
BLOCKING: collections.Counter = collections.Counter()  # (operation, line of the suite) -> times
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

WAITS = {  # operations whose result, or whether they succeeded, comes to the host
    "_local_scalar_dense", "nonzero", "masked_select", "equal", "bincount", "histc", "_linalg_check_errors",
    "_linalg_eigh", "linalg_eig", "_linalg_svd", "linalg_lstsq", "_unique2", "unique_dim", "unique_consecutive",
}  # fmt: skip
PRODUCTS = {"mm", "bmm", "addmm", "baddbmm", "mv", "dot", "convolution"}  # of floats alone
COPIES = {"copy_", "_to_copy"}


class Refused(RuntimeError):
    """What CUDA would refuse."""


class Pretended(Tensor):
    """A tensor on the pretended GPU. For C++ it is one of the CPU, so that torch needs no other
    build."""

    device = property(lambda self: GPU)
    is_cuda = property(lambda self: True)
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor):
        layout = {
            "strides": held.stride(),
            "storage_offset": held.storage_offset(),
            "dtype": held.dtype,
        }
        tensor = Tensor._make_wrapper_subclass(cls, held.size(), **layout, device="cpu")
        tensor.held = held
        return tensor

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return execute(function, args, kwargs or {})

    def cpu(self, *_):
        return self.to("cpu")

    def tolist(self):
        return self.cpu().tolist()

    def numpy(self, *_, **__):
        raise TypeError("can't convert cuda:1 device type tensor to numpy")

    def __deepcopy__(self, memo):
        if id(self) not in memo:
            copy = (
                self.detach()
                .clone(memory_format=torch.preserve_format)
                .requires_grad_(self.requires_grad)
            )
            copy._is_param = getattr(self, "_is_param", False)
            memo[id(self)] = copy
        return memo[id(self)]

    def __reduce_ex__(self, protocol):
        return self.detach().cpu().__reduce_ex__(protocol)  # files are read onto the CPU


def execute(function, args, kwargs):
    """Compute an operation on the CPU, after refusing what CUDA refuses and counting what
    blocks."""
    name = function._schema.name.removeprefix("aten::")
    flat, spec = tree_flatten((args, kwargs))
    tensors = [value for value in flat if isinstance(value, Tensor)]
    on_gpu = [value for value in tensors if isinstance(value, Pretended)]
    to_gpu = _is_gpu(kwargs["device"]) if kwargs.get("device") is not None else None
    if not on_gpu and not to_gpu:
        return function(*args, **kwargs)
    if kwargs.get("generator") not in (None, torch.default_generator):
        raise Refused(f"{name}: expected a 'cuda' device type for generator")
    if name in COPIES:
        source = args[name == "copy_"]
        to_gpu = isinstance(args[0], Pretended) if name == "copy_" else to_gpu
        asked = kwargs.get("non_blocking") or any(flag is True for flag in args[2:])
        if to_gpu not in (None, isinstance(source, Pretended)) and not asked:
            _count("copy to the GPU" if to_gpu else "copy from the GPU")
    elif name.startswith(("index", "_index", "_unsafe_index")) and isinstance(
        args[1], (list, tuple)
    ):
        _check_indices(name, args[0], args[1])
    elif name != "is_pinned":
        _check(name, tensors, on_gpu)
    if name in WAITS:
        _count(name)

    values = [value.held if isinstance(value, Pretended) else value for value in flat]
    plain_args, plain_kwargs = tree_unflatten(values, spec)
    if plain_kwargs.get("device") is not None:
        plain_kwargs["device"] = torch.device("cpu")
    out = function(*plain_args, **plain_kwargs)
    if name == "_to_copy" and not (isinstance(args[0], Pretended) if to_gpu is None else to_gpu):
        return out
    if not function._schema.is_mutable or to_gpu is None:
        out = tree_map_only(
            Tensor, lambda each: each if isinstance(each, Pretended) else Pretended(each), out
        )
    return return_and_correct_aliasing(function, args, kwargs, out) if on_gpu else out


def _is_gpu(device) -> bool:
    """Return whether a device is the pretended GPU; a bare `cuda` is the one that was chosen
    last."""
    device = torch.device(device)
    index = torch.cuda.current_device() if device.index is None else device.index
    if device.type == "cuda" and index != GPU.index:
        raise Refused(f"GPU {index} is another one than the {GPU.index} of -gpu")
    return device.type == "cuda"


def _count(what: str) -> None:
    """Count an operation that blocks, by the innermost line of the suite."""
    frame = sys._getframe(1)
    while frame and not (
        frame.f_code.co_filename.startswith(f"{ROOT}/")
        and "/tests/" not in frame.f_code.co_filename
    ):
        frame = frame.f_back
    line = f"{frame.f_code.co_filename[len(ROOT) + 1 :]}:{frame.f_lineno}" if frame else "elsewhere"
    BLOCKING[what, line] += 1


def _check_indices(name: str, indexed: Tensor, indices) -> None:
    for index in indices:
        if isinstance(index, Pretended) and not isinstance(indexed, Pretended):
            raise Refused(
                f"{name}: indices should be on the same device as the indexed tensor (cpu)"
            )
        if (
            index is not None
            and not isinstance(index, Pretended)
            and isinstance(indexed, Pretended)
        ):
            _count("index of the CPU")
        if index is not None and index.dtype in (torch.bool, torch.uint8):
            _count("index by a mask")


def _check(name: str, tensors: list[Tensor], on_gpu: list[Tensor]) -> None:
    """Refuse tensors of two devices, but for scalars of the CPU where CUDA takes them, and kernels
    that CUDA lacks."""
    others = [value for value in tensors if not isinstance(value, Pretended)]
    is_step = name.startswith(("_foreach", "_fused"))  # the counters of optimisers are on the CPU
    takes_none = name in PRODUCTS or name in ("cat", "stack", "index_select", "gather", "scatter")
    if on_gpu and others and not is_step and (takes_none or any(value.ndim for value in others)):
        where = [
            ("gpu" if isinstance(value, Pretended) else "cpu", tuple(value.shape))
            for value in tensors
        ]
        raise Refused(f"{name}: expected all tensors to be on the same device, not {where}")
    if on_gpu and name in PRODUCTS and not tensors[0].is_floating_point():
        raise Refused(f"{name} is not implemented for {tensors[0].dtype} on CUDA")


class OnTheGpu(TorchDispatchMode):
    """Sees every operation, also those without a tensor of the GPU."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return execute(function, args, kwargs or {})


_parse_to, _plain_to = torch._C._nn._parse_to, Tensor.to
_group = torch._C._group_tensors_by_device_and_dtype


def _places(*args, **kwargs):
    """Replace a tensor among the arguments of `to` by its device and dtype: C++ would take it for
    one of the CPU."""
    if args and isinstance(args[0], Tensor):
        args = (args[0].device, args[0].dtype, *args[1:])
    return args, kwargs


def _to(tensor: Tensor, *args, copy: bool = False, **kwargs) -> Tensor:
    args, kwargs = _places(*args, **kwargs)
    device, dtype, non_blocking, layout = _parse_to(*args, **kwargs)
    is_there = device is None or _is_gpu(device) == isinstance(tensor, Pretended)
    if is_there and not isinstance(tensor, Pretended):
        return _plain_to(tensor, *args, copy=copy, **kwargs)
    if is_there and not copy and dtype in (None, tensor.dtype) and layout is None:
        return tensor
    device = GPU if device is None or _is_gpu(device) else device
    options = {"dtype": dtype, "non_blocking": non_blocking, "memory_format": layout}
    return torch.ops.aten._to_copy(tensor, device=device, **options)


def _grouped(lists: list[list[Tensor]], *args):
    """Group the tensors of an optimiser by device, as `_group` does, which takes all for tensors of
    the CPU."""
    groups = _group(lists, *args)
    return {
        (members[0][0].device, dtype): (members, places)
        for (_, dtype), (members, places) in groups.items()
    }


def install() -> int:
    """Pretend from now on that there are two GPUs; returns the number of the one that can be used.

    Raises:
        AttributeError, RuntimeError, TypeError: this torch is made otherwise.
    """
    chosen = [GPU.index]  # for the trial; then 0, as in every process at first
    torch._C._set_only_lift_cpu_tensors(
        True
    )  # torch.tensor(…, device="cuda") makes it on the CPU, and then moves it
    torch._C._nn._parse_to = lambda *args, **kwargs: _parse_to(
        *_places(*args, **kwargs)[0], **kwargs
    )
    torch._C._group_tensors_by_device_and_dtype = _grouped
    Tensor.to = _to
    Tensor.pin_memory = lambda tensor, *_: tensor.clone()
    torch.__future__.set_overwrite_module_params_on_conversion(
        True
    )  # a parameter becomes one of the other class
    answers = {
        "_lazy_init": None, "is_available": True, "is_initialized": True, "device_count": 2, "manual_seed": None,
        "manual_seed_all": None, "get_device_name": "pretended GPU", "empty_cache": None, "_is_in_bad_fork": False,
        "mem_get_info": (FREE_BYTES, FREE_BYTES), "memory_reserved": 0, "memory_allocated": 0,
        "max_memory_allocated": 2**20, "reset_peak_memory_stats": None,
    }  # fmt: skip
    for name, answer in answers.items():
        setattr(torch.cuda, name, lambda *_, answer=answer, **__: answer)
    for name in ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check"):
        if hasattr(torch.optim.Optimizer, name):  # builds for CUDA ask the driver
            setattr(torch.optim.Optimizer, name, lambda optimizer: None)
    torch.backends.cudnn.version = lambda: None
    torch.cuda.default_generators = (torch.default_generator,) * 2
    torch.cuda.current_device = lambda: chosen[0]
    torch.cuda.set_device = lambda device: chosen.__setitem__(0, getattr(device, "index", device))
    torch.cuda.synchronize = lambda device=None: _count("synchronize")
    OnTheGpu().__enter__()
    _try()
    chosen[0] = 0
    return GPU.index


def _try() -> None:
    """Raise RuntimeError where torch does not do what all this relies on."""
    weight = torch.nn.Linear(2, 1, bias=False).to(GPU).weight
    loss = (weight @ torch.ones(2, device="cuda")).sum()
    loss.backward()
    if (
        not isinstance(weight.grad, Pretended)
        or loss.device != GPU
        or weight.grad.tolist() != [[1, 1]]
    ):
        raise RuntimeError("gradients are not on the device of their parameters")
    torch.optim.Adam([weight], fused=True).step()
    try:
        weight + torch.ones(2)
    except Refused:
        return
    raise RuntimeError("operations pass by")
