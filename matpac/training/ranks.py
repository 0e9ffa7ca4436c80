"""Processes that train one model together: one a GPU, or one a core of the CPU, under torchrun."""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from matpac.devices import available_cores, device_or_default, memory_bytes
from matpac.model.sizes import SIZES
from matpac.params import Params
from matpac.progress import say

Value = TypeVar("Value")
TIMEOUT = timedelta(minutes=10)
"""The longest that ranks wait for each other, as for the first one to save, before the run fails."""
CROPS_PER_PROCESS = 8
"""Fewest crops of a batch that are worth a process of their own on a CPU."""


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together."""

    rank: int
    number: int
    device: torch.device
    number_here: int = 1
    """Processes on this machine."""

    @property
    def is_first(self) -> bool:
        """Whether this process prints, logs and saves for all."""
        return self.rank == 0

    @property
    def share_memory(self) -> bool:
        """Whether several processes train on the CPU of one machine."""
        return self.device.type == "cpu" and 1 < self.number == self.number_here

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

    def wait(self) -> None:
        """Return once all ranks have come here; what they wrote before is then visible."""
        dist.barrier()

    def sum_(self, values: Tensor) -> None:
        """Replace `values` by their sum over all ranks."""
        if self.number > 1:
            dist.all_reduce(values)


def this_process() -> Ranks:
    """A process that trains alone, on the GPU if there is one."""
    return Ranks(0, 1, device_or_default())


def this_rank() -> Ranks:
    """This process among those that `torchrun` started, if they need not talk to each other."""
    number = int(os.environ.get("WORLD_SIZE", "1"))
    if number == 1:
        return this_process()
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    return Ranks(int(os.environ["RANK"]), number, device, int(os.environ["LOCAL_WORLD_SIZE"]))


def begin_all_processes(params: Params) -> None:
    """Run this command in several processes and exit, if several are to train together.

    Raises ValueError if `compute.num_processes` is above the number of GPUs.
    """
    begin_processes(params, lambda cores: processes_on_cpu(params, cores, memory_bytes()))


def begin_processes(params: Params, on_cpu: Callable[[int], int]) -> None:
    """Run this command in several processes and exit, or return if one is enough.

    Args:
        params: `compute.num_processes` says how many; if null, one a GPU.
        on_cpu: Number of cores -> number of processes on a machine without GPUs.

    Raises:
        ValueError: `compute.num_processes` is above the number of GPUs.
    """
    if "WORLD_SIZE" in os.environ:
        return
    wanted, gpus = params.compute.num_processes, torch.cuda.device_count()
    if gpus and (wanted or 0) > gpus:
        raise ValueError(f"compute.num_processes: need {wanted} GPUs, found {gpus}")
    cores = available_cores()
    number = wanted or gpus or on_cpu(cores)
    if number == 1:
        return
    if not gpus:
        os.environ["OMP_NUM_THREADS"] = str(max(1, cores // number))
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    # Its lines say in its own words what is said below.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        # torchrun would leave an empty folder for logs behind each run, and so would a kill.
        how = ["--standalone", "--nproc-per-node", str(number), "--log-dir", os.devnull]
        torchrun([*how, "-m", "matpac", *sys.argv[1:]])
    except SignalException as stopped:
        raise SystemExit(128 + stopped.sigval) from None
    except ChildFailedError as failed:
        rank, failure = failed.get_first_failure()
        if failure.exitcode < 0:
            say(
                f"Process {rank + 1} of {number} was ended by {failure.signal_name()}. "
                "The next run goes on from the last saved state."
            )
        # Otherwise the process has said why it failed.
        raise SystemExit(1) from None
    raise SystemExit


def processes_on_cpu(params: Params, cores: int, memory: int) -> int:
    """One process a core, as far as the batch and half of the memory go.

    Processes of one thread share a busy machine better than threads, which all wait for the slowest
    in every small operation; and they are faster at rest. Large models gain less and need their
    memory in every process.
    """
    size = params.model.custom or SIZES[params.model.size]
    # A block has 12 dim² weights. Student and teacher; gradients and the optimizer's moments.
    weights = 12 * (
        2 * size.encoder_depth * size.encoder_dim**2 + size.predictor_depth * size.predictor_dim**2
    )
    return max(1, min(cores, params.pretrain.batch_size // CROPS_PER_PROCESS, memory // 2 // (16 * weights)))


def processes_for_fits(params: Params, num_fits: int, cores: int, memory: int) -> int:
    """One process a core for fits that need not talk to each other, as far as half of the memory goes."""
    size = params.model.custom or SIZES[params.model.size]
    weights = 12 * size.encoder_depth * size.encoder_dim**2
    # Weights as they were, now and at the best epoch; gradients and the optimizer's moments.
    return max(1, min(cores, num_fits, memory // 2 // (24 * weights)))


@contextmanager
def all_ranks() -> Iterator[Ranks]:
    """Join the processes that `torchrun` started (NCCL on GPUs, Gloo on CPUs), or train alone.

    Raises RuntimeError if one of the others ends while this one trains.
    """
    ranks = this_rank()
    if ranks.number == 1:
        yield ranks
        return
    if ranks.device.type == "cuda":
        dist.init_process_group("nccl", timeout=TIMEOUT, device_id=ranks.device)
    else:
        dist.init_process_group("gloo", timeout=TIMEOUT)
    try:
        yield ranks
    except RuntimeError as error:
        # Gloo raises no class of its own, but names its source file.
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise RuntimeError(
            "a process that trains together with this one has ended, or does not answer. "
            "The next run goes on from the last saved state."
        ) from error
    finally:
        dist.destroy_process_group()
