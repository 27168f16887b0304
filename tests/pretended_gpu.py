"""A GPU that is not there: its tensors have their values on the CPU and refuse to meet others.

Every operator runs on the CPU. A tensor of this GPU says that it is on "cuda:0", and an operator
that is given tensors of both devices fails, as CUDA's would: whatever misses a `.to(device)` is
found on a machine without a GPU. Kernels, streams, compilation and speed are not tested.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

CUDA = torch.device("cuda", 0)
BETWEEN_DEVICES = ("aten::copy_", "aten::_to_copy", "aten::_foreach_copy_")
STRICT = ("aten::stack", "aten::cat")  # others take numbers of the CPU
BY_INDEX = ("aten::index", "aten::index_put", "aten::_index_put_impl")  # of the CPU, too
aten = torch.ops.aten


class OnGpu(Tensor):
    """Torch's C++ takes it to be on the CPU, so that autograd needs no driver; Python does not."""

    values: Tensor
    leaving = False  # while a copy goes to the CPU
    device = property(lambda self: CUDA)  # pyright: ignore
    is_cuda = property(lambda self: True)  # pyright: ignore
    is_cpu = property(lambda self: False)  # pyright: ignore
    __torch_function__ = torch._C._disabled_torch_function_impl  # pyright: ignore

    @staticmethod
    def __new__(cls, values: Tensor) -> OnGpu:
        layout = {"strides": values.stride(), "storage_offset": values.storage_offset()}
        tensor = Tensor._make_wrapper_subclass(cls, values.shape, dtype=values.dtype, **layout)  # pyright: ignore
        tensor.values = values
        return tensor

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})

    # what C++ would answer for the CPU

    def to(self, *args, **kwargs):
        if args and isinstance(args[0], Tensor):
            args = (args[0].device, args[0].dtype, *args[1:])
        copy = kwargs.pop("copy", False)
        device, dtype, _, layout = torch._C._nn._parse_to(*args, **kwargs)
        device = device or CUDA
        if device.type == "cuda" and dtype in (None, self.dtype) and not (copy or layout):
            return self
        with mock.patch.object(OnGpu, "leaving", device.type == "cpu"):
            return aten._to_copy(self, dtype=dtype, device=device, memory_format=layout)

    def cpu(self, *_):
        return self.to("cpu")

    def cuda(self, *_, **__):
        return self

    def new_tensor(self, data, *, dtype=None, device=None):
        return torch.tensor(data, dtype=dtype or self.dtype, device=device or CUDA)

    def untyped_storage(self):
        return self.values.untyped_storage()

    def tolist(self):
        return self.values.tolist()

    def numpy(self, *, force=False):
        if not force:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        return self.values.numpy()

    def __array__(self, *_):
        return self.numpy()

    def __format__(self, spec):
        return format(self.values, spec)

    def __repr__(self):
        return f"OnGpu({self.values!r})"


class Gpu(TorchDispatchMode):
    """Inside, factories and copies to "cuda" give tensors of the pretended GPU."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not all(issubclass(t, (OnGpu, torch.nn.Parameter)) or t is Tensor for t in types):
            return NotImplemented  # a DTensor comes back with what it holds
        return run(func, args, kwargs or {})


def run(func: Any, args: Any, kwargs: Any) -> Any:
    """An operator on the CPU, with its results where CUDA would leave them."""
    name = func.name().split(".")[0]
    tensors = [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    ours = [t for t in tensors if isinstance(t, OnGpu)]
    if name == "aten::_pin_memory":
        return args[0]
    if ours:
        _refuse_mixtures(name, args, tensors)
    asked = _device(kwargs, tensors, ours)
    on_gpu = bool(ours) if asked is None else asked.type == "cuda"
    kwargs = {k: v for k, v in kwargs.items() if k != "pin_memory"}
    if asked is not None:
        kwargs["device"] = torch.device("cpu") if on_gpu else asked
    given = {id(_values(t)): t for t in tensors}  # in place: the same object comes back

    def placed(result: Tensor) -> Tensor:
        found = given.get(id(result))
        return found if found is not None else OnGpu(result) if on_gpu else result

    args, kwargs = pytree.tree_map_only(Tensor, _values, (args, kwargs))
    return pytree.tree_map_only(Tensor, placed, func(*args, **kwargs))


def _values(t: Tensor) -> Tensor:
    return t.values if isinstance(t, OnGpu) else t


def _refuse_mixtures(name: str, args: Any, tensors: list[Tensor]) -> None:
    counts = [t for t in tensors if t.ndim or name in STRICT]
    others = [list(t.shape) for t in counts if not isinstance(t, OnGpu)]
    indexed = name in BY_INDEX and isinstance(args[0], OnGpu)
    if others and not indexed and name not in BETWEEN_DEVICES:
        raise RuntimeError(f"{name}: tensors on cuda:0 and on cpu, {others}")


def _device(kwargs: Any, tensors: list[Tensor], ours: list[OnGpu]) -> torch.device | None:
    """The one that is asked for; autograd's own code asks for the CPU where it means the GPU."""
    asked = kwargs.get("device")
    if asked is None:
        return None
    in_backward = torch._C._current_graph_task_id() != -1
    meant = not OnGpu.leaving and (ours or (in_backward and not tensors))
    return CUDA if meant and torch.device(asked).type == "cpu" else torch.device(asked)


class Event:
    """The host's clock."""

    def __init__(self, **_: Any):
        self.at = 0.0

    def record(self, stream: Any = None) -> None:
        self.at = time.perf_counter()

    def elapsed_time(self, other: Event) -> float:
        return 1e3 * (other.at - self.at)

    def query(self) -> bool:
        return True

    synchronize = wait = lambda self, *_: None


class Stream:
    """All work is done at once, and in order."""

    stream_id, device_index, device_type = 0, 0, 0
    wait_stream = wait_event = synchronize = lambda self, *_: None

    def __init__(self, *_: Any, **__: Any):
        return

    def record_event(self, event: Event | None = None) -> Event:
        event = event or Event()
        event.record()
        return event


class Autocast(torch.autocast):
    def __init__(self, device_type: str, *args: Any, **kwargs: Any):
        super().__init__("cpu" if device_type == "cuda" else device_type, *args, **kwargs)


def answers() -> dict[str, Any]:
    """What torch.cuda says."""
    size = 80 * 10**9
    about = SimpleNamespace(name="Pretended GPU", total_memory=size, major=9, minor=0)
    of_host = SimpleNamespace(cudaHostRegister=nothing, cudaHostUnregister=nothing)
    asked: dict[str, Callable[..., Any]] = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "is_bf16_supported": lambda **_: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_name": lambda *_: about.name,
        "get_device_properties": lambda *_: about,
        "mem_get_info": lambda *_: (size, size),
        "max_memory_allocated": lambda *_: size // 2,
        "Stream": Stream,
        "current_stream": lambda *_: Stream(),
        "stream": lambda _: nullcontext(),
        "Event": Event,
        "cudart": lambda: of_host,
        "get_rng_state": lambda *_: torch.get_rng_state(),
    }
    silent = ("_lazy_init", "set_device", "synchronize", "set_rng_state", "manual_seed_all")
    silent += ("check_error",)
    asked |= _made_ready_first()
    return asked | {name: lambda *_: None for name in silent}  # not one: Dynamo wants them apart


def nothing(*_: Any) -> None:
    return


def _made_ready_first() -> dict[str, Any]:
    """`reset_peak_memory_stats` wants CUDA ready, and does not make it so."""
    ready: list[bool] = []

    def reset(*_: Any) -> None:
        if not ready:
            raise RuntimeError("Invalid device argument")

    return {"init": lambda: ready.append(True), "reset_peak_memory_stats": reset}


@contextmanager
def pretended_gpu() -> Iterator[None]:
    """Inside, PyTorch finds one GPU."""
    torch._C._ensureCUDADeviceGuardSet()  # pyright: ignore
    generators = (torch.default_generator,)
    with ExitStack() as stack:
        for name, answer in (answers() | {"default_generators": generators}).items():
            stack.enter_context(mock.patch.object(torch.cuda, name, answer))
        stack.enter_context(mock.patch.object(torch, "autocast", Autocast))
        stack.enter_context(mock.patch.object(Tensor, "record_stream", nothing))
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device="cuda") copies
        stack.callback(torch._C._set_only_lift_cpu_tensors, False)
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, False)
        stack.enter_context(Gpu())
        yield
