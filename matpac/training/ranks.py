"""One process, or one a GPU under torchrun, that train one model together."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from matpac.devices import device_or_default

Value = TypeVar("Value")


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together."""

    rank: int
    number: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process prints, logs and saves for all."""
        return self.rank == 0

    def part(self, size: int) -> slice:
        """This rank's clips of a batch of `size`; the ranks' shares differ by at most one clip."""
        return slice(self.rank * size // self.number, (self.rank + 1) * size // self.number)

    def agree(self, value: Value) -> Value:
        """The first rank's value, on all ranks."""
        if self.number == 1:
            return value
        shared = [value]
        dist.broadcast_object_list(shared, device=self.device)
        return shared[0]

    def sum_(self, values: Tensor) -> None:
        """Replace `values` by their sum over all ranks."""
        if self.number > 1:
            dist.all_reduce(values)


def this_process() -> Ranks:
    """A process that trains alone, on the GPU if there is one."""
    return Ranks(0, 1, device_or_default())


def begin_on_all_gpus(num_gpus: int | None) -> None:
    """Restart this command under `torchrun` if several GPUs are to be used.

    `num_gpus`: None for all visible ones. Raises ValueError if there are fewer.
    """
    found = torch.cuda.device_count()
    if num_gpus is not None and num_gpus > max(found, 1):
        raise ValueError(f"compute.num_gpus: need {num_gpus} GPUs, found {found}")
    number = num_gpus or found
    if number > 1 and "WORLD_SIZE" not in os.environ:
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(number)]
        # Replaces this process, so that signals reach torchrun.
        os.execv(sys.executable, [sys.executable, *torchrun, "-m", "matpac", *sys.argv[1:]])


@contextmanager
def all_ranks() -> Iterator[Ranks]:
    """Join the processes that `torchrun` started (NCCL on GPUs, Gloo on CPUs), or train alone."""
    number = int(os.environ.get("WORLD_SIZE", "1"))
    if number == 1:
        yield this_process()
        return
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), number, device)
    finally:
        dist.destroy_process_group()
