"""A step in a process of its own: its result, its seconds and its peak memory, imports included."""

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple


class Measured(NamedTuple):
    result: Any
    seconds: float
    """Seconds without the imports."""
    peak_megabytes: float


def fresh(step: Callable[..., Any], *arguments: object) -> Measured:
    """`step` must be importable; what its module imports counts into the memory."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measured, step, arguments).result()


def megabytes(line: str = "VmRSS") -> float:
    """Memory of this process now, or its peak (`VmHWM`). getrusage would count the parent too."""
    status = dict(row.split(":") for row in Path("/proc/self/status").read_text().splitlines())
    return int(status[line].split()[0]) * 1024 / 1e6


def _measured(step: Callable[..., Any], arguments: tuple[object, ...]) -> Measured:
    started = time.perf_counter()
    result = step(*arguments)
    return Measured(result, time.perf_counter() - started, megabytes("VmHWM"))
