"""Processes that build shards, and end with the process that started them."""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection, get_context, parent_process
from types import ModuleType
from typing import TypeVar

ENVIRONMENT = {
    # The processes are the parallelism; threads of the linear algebra in each would only compete.
    "OMP_NUM_THREADS": "1",
    # By default glibc returns the memory of every clip to the system and asks for it again, which takes a
    # tenth of the time. This is the highest threshold that it accepts.
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_TRIM_THRESHOLD_": str(2**25),
}
"""Environment of the workers; variables that the user has set stay."""
KILLED = (
    "a worker process was killed, most likely because memory ran out. "
    "Lower shards.num_workers in params.yaml and run again; finished shards are kept."
)
Argument = TypeVar("Argument")
Result = TypeVar("Result")


class Workers:
    """Run functions of importable modules in `num_workers` other processes.

    `prepare` is called once in every process, before its first job.
    """

    def __init__(self, num_workers: int, prepare: Callable[[], None]) -> None:
        self.num_workers, self.prepare = num_workers, prepare
        self._replacing = threading.Lock()
        self._pool = _start_pool(num_workers, prepare)

    def run(self, function: Callable[[Argument], Result], argument: Argument) -> Result:
        """Call `function(argument)` in a worker and wait for the result; safe from many threads.

        Raises BrokenProcessPool if a worker died, for lack of memory perhaps. New workers then replace all.
        """
        pool = self._pool
        try:
            return pool.submit(function, argument).result()
        except BrokenProcessPool:
            with self._replacing:
                if self._pool is pool:
                    self._pool = _start_pool(self.num_workers, self.prepare)
            raise BrokenProcessPool(KILLED) from None

    def close(self) -> None:
        """Finish running jobs and drop waiting ones."""
        self._pool.shutdown(cancel_futures=True)


def _start_pool(num_workers: int, prepare: Callable[[], None]) -> ProcessPoolExecutor:
    pool = ProcessPoolExecutor(num_workers, get_context("spawn"), initializer=begin, initargs=(prepare,))
    with _main_module_hidden(), _environment_of_workers():
        # One call a process: each starts a process, because none has answered yet.
        try:
            for answer in [pool.submit(_nothing) for _ in range(num_workers)]:
                answer.result()
        except BrokenProcessPool:
            raise BrokenProcessPool(KILLED) from None
    return pool


@contextmanager
def _environment_of_workers() -> Iterator[None]:
    """Set the environment only while workers start: this process may train next, with its own."""
    added = {name: value for name, value in ENVIRONMENT.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


@contextmanager
def _main_module_hidden() -> Iterator[None]:
    """Hide the main module: spawned processes import it, and with it Prefect or a notebook's kernel."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def begin(prepare: Callable[[], None]) -> None:
    """Prepare a worker, and end it with its parent: if that were killed, it would wait for ever."""
    prepare()
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


def _nothing() -> None:
    pass
