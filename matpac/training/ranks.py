"""One process, or several that train one model together (torchrun), one a GPU."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Value = TypeVar("Value")


@dataclass(frozen=True)
class Ranks:
    """Where this process stands among those that train together."""

    rank: int
    number: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """One process says, logs and saves for all."""
        return self.rank == 0

    def part(self, size: int) -> slice:
        """This rank's clips among the `size` of a batch; sizes of ranks differ by one at most."""
        return slice(self.rank * size // self.number, (self.rank + 1) * size // self.number)

    def agree(self, value: Value) -> Value:
        """The first rank's value, on all of them."""
        if self.number == 1:
            return value
        shared = [value]
        dist.broadcast_object_list(shared, device=self.device)
        return shared[0]

    def sum_(self, values: Tensor) -> None:
        """Replace `values` by the sum over all ranks."""
        if self.number > 1:
            dist.all_reduce(values)


def this_process() -> Ranks:
    """A process that trains alone, on a GPU where there is one."""
    return Ranks(0, 1, torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def begin_on_all_gpus(num_gpus: int | None) -> None:
    """Begin this command anew, under `torchrun`, where there are several GPUs to use; else do nothing.

    `num_gpus`: None for all that are visible. Raises ValueError where they are fewer.
    """
    found = torch.cuda.device_count()
    if num_gpus is not None and num_gpus > max(found, 1):
        raise ValueError(f"compute.num_gpus: need {num_gpus} GPUs, found {found}")
    number = num_gpus or found
    if number > 1 and "WORLD_SIZE" not in os.environ:
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(number)]
        # In place of this process, so that signals arrive.
        os.execv(sys.executable, [sys.executable, *torchrun, "-m", "matpac", *sys.argv[1:]])


@contextmanager
def all_ranks() -> Iterator[Ranks]:
    """Those that `torchrun` started, or this process alone. They talk by NCCL, on CPUs by Gloo."""
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
