"""Which device to compute on, and how many of its cores this process may use."""

import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIPS = Path("/proc/self/cgroup")
SLOW_BFLOAT16 = (
    "this processor has no instructions for bfloat16, which makes it up to a hundred times as slow as float32"
)


def device_or_default(device: str | torch.device | None = None) -> torch.device:
    """`device`; if None, the GPU if there is one, else the CPU.

    Raises:
        ValueError: This machine has no such device.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        has = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
        raise ValueError(
            f"device: need one that this machine has ({', '.join(has)}), got {str(device)!r}"
        ) from error
    return found


def available_cores() -> int:
    """CPU cores that this process may use.

    Its affinity, the quotas of its control groups (Linux), and OMP_NUM_THREADS, by which people hold
    programs to fewer.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    limits = [math.ceil(quota) for quota in quotas(MEMBERSHIPS, CGROUPS)]
    return max(1, min([allowed, *limits, *([int(wanted)] if wanted.isdigit() else [])]))


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """A copy on the device; for a GPU it joins the queue of its work, and the host does not wait."""
    return (values.pin_memory() if device.type == "cuda" else values).to(device, non_blocking=True)


def num_workers(device: torch.device) -> int:
    """Threads that compute side by side: one a core on a CPU, one that feeds a GPU.

    `torch.set_num_threads` lowers the number, as OMP_NUM_THREADS does.
    """
    return min(available_cores(), torch.get_num_threads()) if device.type == "cpu" else 1


@contextmanager
def workers(number: int) -> Iterator[ThreadPoolExecutor]:
    """A pool of threads that each compute on a single core.

    Small operations are faster this way than shared among cores, which would mostly wait for each
    other; beside a busy process they would also wait for the core that has the least time.
    """
    num_threads = torch.get_num_threads()
    with ThreadPoolExecutor(number, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            yield pool
        finally:
            # The initializer also set the number that new threads begin with.
            torch.set_num_threads(num_threads)


def is_bfloat16_slow(device: torch.device) -> bool:
    """Whether products in bfloat16 are emulated, as on x86 before AVX-512."""
    return device.type == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported()


def memory_bytes() -> int:
    """Memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def quotas(memberships: Path, cgroups: Path) -> Iterator[float]:
    """Cores granted to the control groups of this process and to the groups above them.

    A container may see its own group as the root of `cgroups`, under a name from outside, so only
    files that exist count. See cgroups(7), and `cpu.max` in Linux's cgroup-v2.rst.
    """
    try:
        lines = memberships.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        group = PurePosixPath(name.lstrip("/"))
        for part in (group, *group.parents):
            try:
                if not controllers:
                    quota, period = (cgroups / part / "cpu.max").read_text().split()
                else:
                    folder = cgroups / "cpu" / part
                    quota, period = (
                        (folder / f"cpu.cfs_{word}_us").read_text().strip() for word in ("quota", "period")
                    )
            except OSError:
                continue
            if quota not in ("max", "-1"):
                yield int(quota) / int(period)
