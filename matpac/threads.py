"""jobs -> their results in order, computed by threads a few jobs ahead of whoever takes them."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


def ahead(
    jobs: Iterable[Callable[[], Result]], num_ahead: int, num_threads: int | None = None
) -> Generator[Result, None, None]:
    """`num_ahead` jobs at most are on their way, which bounds the memory; `jobs` is read as they are taken.

    `num_threads`: None for as many as ThreadPoolExecutor has by itself. Raises what a job raised, in order.
    Closed early, it leaves out the jobs that have not begun.
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
