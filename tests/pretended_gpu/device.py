"""A pretended CUDA device on a CPU build of torch: real numbers, a GPU's rules, and its counts.

A tensor that was made on or moved to `cuda` is a wrapper that claims cuda:0 around a CPU tensor.
What a GPU refuses is refused: operands on two devices, a CPU generator for a draw on the GPU,
`numpy()`.
Copies between the devices and whatever waits for the GPU are counted, by the line that asked.

Not covered: DeepSpeed's engine (it swaps `.data`), NCCL, limits of kernels, memory, speed.
"""

from __future__ import annotations

import collections
import ctypes
import dataclasses
import os
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

VARIABLE = "PRETENDED_CUDA_GUARD"
"""Names the compiled guard."""

# Before torch, which asks for the hooks once.
_GUARD = ctypes.CDLL(os.environ[VARIABLE], ctypes.RTLD_GLOBAL)

import torch  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves, tree_map  # noqa: E402

CUDA = torch.device("cuda", 0)
REPOSITORY = Path(__file__).resolve().parents[2]

_aten = torch.ops.aten
_TRANSFERS = {_aten._to_copy.default, _aten.copy_.default}
_INDEXING = {
    _aten.index.Tensor,
    _aten.index_put_.default,
    _aten.index_put.default,
    _aten._index_put_impl_.default,
    _aten._unsafe_index.Tensor,
}
_READS = {_aten._local_scalar_dense.default, _aten.equal.default, _aten.nonzero.default}
_PINNING = {_aten.pin_memory.default, _aten._pin_memory.default, _aten.is_pinned.default}


@dataclasses.dataclass
class Counts:
    """What the host and the GPU exchanged."""

    copies: int = 0
    """From host to GPU."""
    blocking: int = 0
    """Of those: from pageable memory or not marked as such that need not be waited for."""
    syncs: int = 0
    """Values read from the GPU, explicit synchronisation."""
    sites: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    """Kind and line of each."""

    @property
    def waits(self) -> int:
        """How often the host waited for the GPU: torch also waits for a blocking copy."""
        return self.syncs + self.blocking

    def note(self, kind: str) -> None:
        """Count one event of `kind`, at the line that asked for it."""
        self.sites[f"{kind} {_site()}"] += 1

    def as_json(self) -> dict[str, Any]:
        """Counts and sites, the most frequent first."""
        return {
            "copies": self.copies,
            "blocking": self.blocking,
            "syncs": self.syncs,
            "waits": self.waits,
            "sites": [f"{number} x {site}" for site, number in self.sites.most_common()],
        }


_counts = Counts()
_pinned: dict[int, torch.UntypedStorage] = {}
"""Storages in pinned memory, kept so that no address is used twice."""


@contextmanager
def counted() -> Iterator[Counts]:
    """Count what is exchanged inside the block."""
    global _counts
    before, _counts = _counts, Counts()
    try:
        yield _counts
    finally:
        _counts = before


def _site() -> str:
    """The line of the project that asked, else the innermost one of diffusers or transformers."""
    frames = traceback.extract_stack()
    for ours in (True, False):
        for frame in reversed(frames):
            name = frame.filename
            is_ours = name.startswith((f"{REPOSITORY}/sarhpc/", f"{REPOSITORY}/hpc/"))
            if is_ours if ours else ("/diffusers/" in name or "/transformers/" in name):
                short = name.removeprefix(f"{REPOSITORY}/").rpartition("site-packages/")[2]
                return f"{short}:{frame.lineno} {frame.line}"
    return "?"


class PretendedTensor(torch.Tensor):
    """A CPU tensor that claims cuda:0."""

    _elem: torch.Tensor

    @staticmethod
    def __new__(cls, elem: torch.Tensor) -> PretendedTensor:
        """The wrapper of `elem`."""
        made: Any = torch.Tensor._make_wrapper_subclass(
            cls,
            elem.size(),
            strides=elem.stride(),
            storage_offset=elem.storage_offset(),
            dtype=elem.dtype,
            layout=elem.layout,
            device=CUDA,
            requires_grad=elem.requires_grad,
        )
        made._elem = elem
        return made  # type: ignore[no-any-return]

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["_elem"], None

    @staticmethod
    def __tensor_unflatten__(
        inner: Mapping[str, torch.Tensor], _meta: object, _size: object, _stride: object
    ) -> PretendedTensor:
        return PretendedTensor(inner["_elem"])

    def __repr__(self, **_named: Any) -> str:
        return f"PretendedTensor({self._elem!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class PretendedGpu(TorchDispatchMode):
    """Inside the block operations follow the rules of a machine with a GPU."""

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    on_gpu = [tensor for tensor in tensors if isinstance(tensor, PretendedTensor)]
    on_cpu = [tensor for tensor in tensors if not isinstance(tensor, PretendedTensor)]
    if func in _PINNING:
        return _pin(func, args[0])
    if func is _aten._fused_sdp_choice.default and on_gpu:
        return 0  # the plain kernel: the others have none for a wrapper
    device = kwargs.get("device")
    device = None if device is None else torch.device(device)
    is_result_on_gpu = device.type == "cuda" if device is not None else bool(on_gpu)
    if func is _aten.copy_.default:
        is_result_on_gpu = isinstance(args[0], PretendedTensor)
    _refuse(func, args, kwargs, on_gpu, on_cpu, is_result_on_gpu)
    _count(func, args, kwargs, device, on_gpu, on_cpu)
    plain_args, plain = tree_map(_unwrapped, (args, dict(kwargs)))
    if device is not None:
        plain["device"] = torch.device("cpu")
    is_pinned = bool(plain.pop("pin_memory", False))
    result = func(*plain_args, **plain)
    if is_pinned:
        _mark_pinned(result)
    if func is _aten._to_copy.default and on_gpu and not is_result_on_gpu:
        result = result.clone() if result is plain_args[0] else result
    wrapped = {id(tensor._elem): tensor for tensor in on_gpu}
    untouched = {id(tensor) for tensor in on_cpu}

    def _wrap(found: Any) -> Any:
        """The wrapper of a result that lies on the GPU."""
        if not isinstance(found, torch.Tensor) or isinstance(found, PretendedTensor):
            return found
        if id(found) in wrapped:
            return wrapped[id(found)]
        return found if not is_result_on_gpu or id(found) in untouched else PretendedTensor(found)

    return tree_map(_wrap, result)


def _unwrapped(leaf: Any) -> Any:
    return leaf._elem if isinstance(leaf, PretendedTensor) else leaf


def _refuse(
    func: Any,
    args: Any,
    kwargs: Mapping[str, Any],
    on_gpu: list[PretendedTensor],
    on_cpu: list[torch.Tensor],
    is_result_on_gpu: bool,
) -> None:
    """Raise RuntimeError where CUDA does."""
    generator = kwargs.get("generator")
    if generator is not None and is_result_on_gpu and generator.device.type == "cpu":
        raise RuntimeError(
            f"Expected a 'cuda' device type for generator but found 'cpu' ({func}) at {_site()}"
        )
    if not on_gpu or not on_cpu or func in _TRANSFERS:
        return
    if func in _INDEXING:
        if not isinstance(args[0], PretendedTensor) and any(t.dim() > 0 for t in on_gpu):
            raise RuntimeError(
                f"indices should be either on cpu or on the same device as the indexed tensor "
                f"(cpu) ({func}) at {_site()}"
            )
    elif any(tensor.dim() > 0 for tensor in on_cpu):
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, "
            f"cuda:0 and cpu! ({func}) at {_site()}"
        )


def _count(
    func: Any,
    args: Any,
    kwargs: Mapping[str, Any],
    device: torch.device | None,
    on_gpu: list[PretendedTensor],
    on_cpu: list[torch.Tensor],
) -> None:
    if func in _READS and on_gpu:
        _note_sync("sync")
    elif func in _INDEXING and on_gpu:
        indices = [t for t in tree_leaves(args[1]) if isinstance(t, torch.Tensor)]
        if any(index.dtype == torch.bool for index in indices):
            _note_sync("sync (mask)")
        for index in indices:
            if not isinstance(index, PretendedTensor) and isinstance(args[0], PretendedTensor):
                _note_copy(index, is_waited_for=True)
    elif func is _aten.copy_.default:
        target, source = args[0], args[1]
        waits = not (kwargs.get("non_blocking") or (len(args) > 2 and args[2]))
        if waits or isinstance(target, PretendedTensor) or not _is_pinned(target):
            _note_transfer(source, isinstance(target, PretendedTensor), waits)
    elif func is _aten._to_copy.default and device is not None:
        _note_transfer(args[0], device.type == "cuda", not kwargs.get("non_blocking", False))
    elif on_gpu and on_cpu and func not in _TRANSFERS:
        # A scalar tensor of the CPU is an argument of the kernel; nothing is copied.
        pass


def _note_transfer(source: torch.Tensor, is_to_gpu: bool, is_waited_for: bool) -> None:
    if isinstance(source, PretendedTensor) == is_to_gpu:
        return
    if is_to_gpu:
        _note_copy(source, is_waited_for)
    else:
        _note_sync("read")  # into pageable memory it is waited for, whatever was asked


def _note_copy(source: torch.Tensor, is_waited_for: bool) -> None:
    _counts.copies += 1
    blocks = is_waited_for or not _is_pinned(source)
    _counts.blocking += blocks
    _counts.note("blocking copy" if blocks else "copy")


def _note_sync(kind: str) -> None:
    _counts.syncs += 1
    _counts.note(kind)


# Pinned memory


def _pin(func: Any, tensor: torch.Tensor) -> Any:
    if func is _aten.is_pinned.default:
        return _is_pinned(tensor)
    return _mark_pinned(tensor.clone())


def _mark_pinned(tensor: torch.Tensor) -> torch.Tensor:
    storage = tensor.untyped_storage()
    _pinned[storage.data_ptr()] = storage
    return tensor


def _is_pinned(tensor: torch.Tensor) -> bool:
    return tensor.untyped_storage().data_ptr() in _pinned


# The functions of torch that ask for a GPU


def install() -> None:
    """Let this process see one GPU, an A100 that computes as slowly as its CPU."""
    _GUARD.register_pretended_cuda()
    for name, function in _cuda_functions().items():
        setattr(torch.cuda, name, function)
    for name in ("tensor", "as_tensor", "asarray"):
        setattr(torch, name, _made_on_gpu(getattr(torch, name)))
    torch.Tensor.numpy = _refused_on_gpu(torch.Tensor.numpy)  # type: ignore[method-assign]
    torch.Tensor.tolist = _read_of_gpu(torch.Tensor.tolist)  # type: ignore[method-assign]
    torch.__future__.set_swap_module_params_on_conversion(True)


class _Event:
    """A point in the work of the GPU, which the host may wait for."""

    def record(self) -> None:
        """Set the point."""

    def synchronize(self) -> None:
        """Wait for it."""
        _note_sync("event")


def _cuda_functions() -> dict[str, Callable[..., Any]]:
    return {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "is_initialized": lambda: True,
        "is_bf16_supported": lambda *_, **__: True,
        "synchronize": lambda *_: _note_sync("synchronize"),
        "get_device_name": lambda *_: "NVIDIA A100-SXM4-80GB",
        "get_device_capability": lambda *_: (8, 0),
        "max_memory_allocated": lambda *_: 0,
        "empty_cache": lambda: None,
        "get_rng_state": lambda *_: torch.zeros(16, dtype=torch.uint8),
        "set_rng_state": lambda *_: None,
        "Event": _Event,
    }


def _made_on_gpu(plain: Callable[..., Any]) -> Callable[..., Any]:
    """`torch.tensor` and the like, which make a tensor on the CPU and copy it to the GPU."""

    def made(data: Any, *args: Any, device: Any = None, **named: Any) -> Any:
        """The tensor, on the device that was asked for."""
        if device is None or torch.device(device).type != "cuda":
            place = {} if device is None else {"device": device}
            return plain(data, *args, **place, **named)
        tensor = data if isinstance(data, torch.Tensor) else plain(data, *args, **named)
        return tensor.to(CUDA)

    return made


def _refused_on_gpu(plain: Callable[..., Any]) -> Callable[..., Any]:
    def numpy(self: torch.Tensor, *args: Any, **named: Any) -> Any:
        """The array of a CPU tensor."""
        if isinstance(self, PretendedTensor):
            raise TypeError(
                "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the "
                f"tensor to host memory first. ({_site()})"
            )
        return plain(self, *args, **named)

    return numpy


def _read_of_gpu(plain: Callable[..., Any]) -> Callable[..., Any]:
    def tolist(self: torch.Tensor) -> Any:
        """The values; those of the GPU are waited for."""
        if not isinstance(self, PretendedTensor):
            return plain(self)
        _note_sync("sync")
        return self._elem.tolist()

    return tolist
