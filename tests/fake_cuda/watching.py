"""What happens on a GPU, seen without one. Import only where cudart.c has been preloaded.

Tensors on `cuda:0` are fake: they have a shape and no data. `Watching` sees every operation on them.
"""

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch._guards import detect_fake_mode
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map_only

CUDA = torch.device("cuda", 0)
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
    with FakeTensorMode():
        yield


def move_(module: nn.Module) -> None:
    """Replace weights and buffers by fake ones on the GPU."""
    for part in module.modules():
        for name, weight in part.named_parameters(recurse=False):
            fake = torch.empty(weight.shape, dtype=weight.dtype, device=CUDA)
            setattr(part, name, nn.Parameter(fake, requires_grad=weight.requires_grad))
        for name, buffer in part.named_buffers(recurse=False):
            setattr(part, name, torch.empty(buffer.shape, dtype=buffer.dtype, device=CUDA))


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
        self.num_operations += 1
        given = tensors_in((args, kwargs))
        if not all(isinstance(tensor, FakeTensor) for tensor in given):
            args, kwargs = tree_map_only(Tensor, as_fake, (args, kwargs))
        result = function(*args, **kwargs)
        made = tensors_in(result)
        self.hazards += hazards(name, args, kwargs, given, made)
        self.count(made)
        return result


def as_fake(tensor: Tensor) -> FakeTensor:
    """Real tensors come from other threads, such as those that read batches."""
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


def hazards(name: str, args: tuple, kwargs: dict, given: list[Tensor], made: list[Tensor]) -> Iterator[str]:
    on_gpu = any(tensor.device == CUDA for tensor in given)
    if on_gpu and name in READS:
        yield f"{name}: the host reads a result"
    if on_gpu and name.startswith("index") and any(tensor.dtype == torch.bool for tensor in given[1:]):
        yield f"{name}: a mask, whose number of elements the host reads"
    if name in COPIES:
        source, target = given[-1], made[0]
        if {source.device.type, target.device.type} == {"cpu", "cuda"}:
            does_not_block = kwargs.get("non_blocking") or (name == "copy_" and args[2:] == (True,))
            to_gpu = target.device == CUDA
            if not does_not_block:
                yield f"{name}: a copy {source.device.type} -> {target.device.type} that blocks"
            elif to_gpu and not is_pinned(source):
                yield f"{name}: a copy to the GPU from memory that is not pinned"
    elif on_gpu and any(tensor.device.type == "cpu" and tensor.dim() > 0 for tensor in given):
        yield f"{name}: tensors on both devices"
