"""jobs -> their results in order, computed by threads a few jobs ahead of the caller."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


def ahead(
    jobs: Iterable[Callable[[], Result]], num_ahead: int, num_threads: int | None = None
) -> Generator[Result, None, None]:
    """Yield the results of `jobs` in order; the iterable is read as jobs are started.

    By default ThreadPoolExecutor chooses the number of threads. See `in_order`.
    """
    with ThreadPoolExecutor(num_threads) as pool:
        yield from in_order(jobs, num_ahead, pool)


def in_order(
    jobs: Iterable[Callable[[], Result]], num_ahead: int, pool: Executor
) -> Generator[Result, None, None]:
    """Yield the results of `jobs` in order, computed by `pool`.

    At most `num_ahead` jobs are started and not yet taken, which bounds memory. A job's exception is
    raised in its turn. Closing the generator early skips the jobs that have not begun.

    From Python 3.14 on, `Executor.map(buffersize=...)` does the same.
    """
    waiting: deque[Future[Result]] = deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(job))
            if len(waiting) == num_ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for left in waiting:
            left.cancel()
