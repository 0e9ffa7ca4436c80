"""What happens on a GPU, seen without one. Import only where cudart.c has been preloaded.

Tensors on `cuda:0` are fake: they have a shape and no data. Tensors of the CPU are real; what is
copied there from the GPU is made of ones. `Watching` sees every operation.
"""

import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch._guards import detect_fake_mode
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map_only

from matpac.params import Custom

CUDA = torch.device("cuda", 0)
NANO = Custom(
    encoder_dim=32,
    encoder_depth=1,
    encoder_heads=2,
    predictor_dim=32,
    predictor_depth=1,
    predictor_heads=2,
    head_hidden=32,
    head_bottleneck=16,
)
"""Networks for tests of what is done, not how long or in how much memory."""
READS = {
    "_local_scalar_dense",
    "_unique2",
    "equal",
    "is_nonzero",
    "masked_select",
    "nonzero",
    "unique_consecutive",
    "unique_dim",
}
"""Operations whose result the host needs before it can go on."""
COPIES = {"_to_copy", "copy_"}
BLOCK_BYTES = 512
"""PyTorch's allocator rounds up to this."""


@contextmanager
def fake_cuda() -> Iterator[None]:
    """Make all new tensors fake."""
    if not torch.cuda.is_available():
        raise RuntimeError("need the stand-in for CUDA's runtime (cudart.c), preloaded")
    # torch.tensor(..., device="cuda") copies too, which would otherwise go unseen.
    torch._C._set_only_lift_cpu_tensors(True)
    try:
        with FakeTensorMode():
            yield
    finally:
        torch._C._set_only_lift_cpu_tensors(False)


def move_(module: nn.Module) -> None:
    """Replace weights and buffers by fake ones on the GPU."""
    for part in module.modules():
        for name, weight in part.named_parameters(recurse=False):
            fake = torch.empty(weight.shape, dtype=weight.dtype, device=CUDA)
            setattr(part, name, nn.Parameter(fake, requires_grad=weight.requires_grad))
        for name, buffer in part.named_buffers(recurse=False):
            setattr(part, name, torch.empty(buffer.shape, dtype=buffer.dtype, device=CUDA))


@contextmanager
def in_this_thread() -> Iterator[None]:
    """Let pools do their jobs at once and here, because threads of theirs know nothing of fakes."""

    def done(_pool: ThreadPoolExecutor, job: Callable[..., object], *args: object) -> Future:
        future: Future = Future()
        future.set_result(job(*args))
        return future

    submit = ThreadPoolExecutor.submit
    ThreadPoolExecutor.submit = done
    try:
        yield
    finally:
        ThreadPoolExecutor.submit = submit


class Watching(TorchDispatchMode):
    """Lists what makes the host wait for the GPU, and counts the bytes in use.

    hazards: reads by the host, copies between CPU and GPU that block, operations on both devices.
    peak_bytes: most bytes in use at once, in storages that were made or named by `count`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hazards: list[str] = []
        self.num_operations = self.peak_bytes = self.bytes = 0
        self._counted: set[int] = set()

    def count(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key = storage._cdata
            if tensor.device == CUDA and key not in self._counted:
                size = -(-storage.nbytes() // BLOCK_BYTES) * BLOCK_BYTES
                self._counted.add(key)
                self.bytes += size
                self.peak_bytes = max(self.peak_bytes, self.bytes)
                weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._counted.remove(key)
        self.bytes -= size

    def __torch_dispatch__(self, function, _types, args=(), kwargs=None):
        name, kwargs = function.overloadpacket.__name__, kwargs or {}
        if name == "device":  # Asked for ten thousand times an update.
            return function(*args, **kwargs)
        if torch.is_inference_mode_enabled():
            # There, operations made of others come as a whole.
            with self:
                result = function.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        given = tensors_in((args, kwargs))
        if not any(tensor.is_cuda for tensor in given) and not is_cuda(kwargs.get("device")):
            with _disable_current_modes():
                return function(*args, **kwargs)
        self.num_operations += 1
        self.hazards += hazards(name, args, kwargs, given)
        if name == "_local_scalar_dense":
            return 1
        if name == "copy_" and not args[0].is_cuda:
            return ones_into(args[0])
        result = function(*tree_map_only(Tensor, as_fake, args), **tree_map_only(Tensor, as_fake, kwargs))
        self.count(tensors_in(result))
        if name == "_to_copy" and not result.is_cuda:
            with _disable_current_modes():
                pinned = bool(kwargs.get("non_blocking"))
                return torch.ones(result.shape, dtype=result.dtype, pin_memory=pinned)
        return result


def is_cuda(device: torch.device | None) -> bool:
    return device is not None and torch.device(device).type == "cuda"


def ones_into(tensor: Tensor) -> Tensor:
    with _disable_current_modes():
        return tensor.fill_(1)


def as_fake(tensor: Tensor) -> FakeTensor:
    if isinstance(tensor, FakeTensor):
        return tensor
    mode = detect_fake_mode()
    assert mode is not None
    return mode.from_tensor(tensor)


def is_pinned(tensor: Tensor) -> bool:
    if isinstance(tensor, FakeTensor):
        return False
    with _disable_current_modes():
        return tensor.is_pinned()


def tensors_in(values: object) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


def hazards(name: str, args: tuple, kwargs: dict, given: list[Tensor]) -> Iterator[str]:
    """What makes the host wait in one operation on tensors of the GPU, or a copy to it."""
    if name in READS:
        yield f"{name}: the host reads a result"
    if name.startswith("index") and any(tensor.dtype == torch.bool for tensor in given[1:]):
        yield f"{name}: a mask, whose number of elements the host reads"
    if name in COPIES:
        source = args[1] if name == "copy_" else args[0]
        to_gpu = args[0].is_cuda if name == "copy_" else is_cuda(kwargs.get("device", source.device))
        if source.is_cuda == to_gpu:
            return
        does_not_block = kwargs.get("non_blocking") or (name == "copy_" and args[2:] == (True,))
        if not does_not_block:
            yield f"{name}: a copy {'to' if to_gpu else 'from'} the GPU that blocks"
        elif not is_pinned(source if to_gpu else args[0]) and (to_gpu or name == "copy_"):
            yield f"{name}: a copy between the GPU and memory that is not pinned"
    elif any(not tensor.is_cuda and tensor.dim() > 0 for tensor in given):
        yield f"{name}: tensors on both devices"
