"""jobs -> their results in order, computed by threads a few jobs ahead of the caller."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


def ahead(
    jobs: Iterable[Callable[[], Result]], num_ahead: int, num_threads: int | None = None
) -> Generator[Result, None, None]:
    """Yield the results of `jobs` in order; the iterable is read as jobs are started.

    At most `num_ahead` jobs are started and not yet taken, which bounds memory. By default
    ThreadPoolExecutor chooses the number of threads. A job's exception is raised in its turn.
    Closing the generator early skips the jobs that have not begun.

    From Python 3.14 on, `Executor.map(buffersize=...)` does the same.
    """
    waiting: deque[Future[Result]] = deque()
    threads = ThreadPoolExecutor(num_threads)
    try:
        for job in jobs:
            waiting.append(threads.submit(job))
            if len(waiting) == num_ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)
