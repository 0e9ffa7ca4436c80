"""plan -> finished shards, by one of Prefect's task runners: one task a shard, a few at a time.

threads     threads that wait for a pool of worker processes of ours: 10 ms a task (default)
processes   Prefect's own processes: 0.3 s a task, and each of them loads Prefect
dask        a Dask cluster on this machine, or on many that see the same files (shards.dask_address)

A shard's bytes follow from its job alone, whatever runs it.
"""

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from flows import prefect_ui
from matpac.params import Shards
from matpac.prepare.build import ShardJob, ShardResult, build_shard
from matpac.prepare.plan import Plan
from matpac.prepare.workers import Workers, begin
from matpac.signal.audio import mute_c_libraries

JOBS_A_WORKER = 2
"""Tasks in flight: one runs, one waits. Prefect loses tasks if thousands are submitted at once."""
ELSEWHERE_S = 1.0
"""Seconds between two looks at shards that other processes are building."""
DASK_TIMEOUT_S = 10

Build = Callable[[ShardJob], ShardResult | None]
Submit = Callable[[ShardJob], PrefectFuture[ShardResult | None]]


def build_shards(dataset: str, plan: Plan) -> None:
    """Build the shards of the plan; return when all are finished, by us or by other processes."""
    meter = prefect_ui.Meter("shards", dataset, "converted", "clips")
    waiting = deque(range(len(plan.shards)))
    running: deque[tuple[int, PrefectFuture[ShardResult | None]]] = deque()
    elsewhere: list[int] = []
    done = 0
    with runner_of(plan.params) as submit:
        while waiting or running or elsewhere:
            if not waiting and not running:
                time.sleep(ELSEWHERE_S)
                waiting.extend(number for number in elsewhere if is_free(plan, number))
                elsewhere = [number for number in elsewhere if number not in waiting]
                continue
            while waiting and len(running) < JOBS_A_WORKER * plan.params.num_workers:
                number = waiting.popleft()
                running.append((number, submit(plan.job(number))))
            number, future = running.popleft()
            result = future.result()
            if result is None:
                elsewhere.append(number)
                continue
            done += result.num_clips + result.num_rejected
            meter.show(done, plan.num_clips)


def is_free(plan: Plan, number: int) -> bool:
    with plan.workspace.claimed(plan.shards[number]) as free:
        return free


@contextmanager
def runner_of(params: Shards) -> Iterator[Submit]:
    if params.runner == "threads":
        with closing(Workers(params.num_workers, mute_c_libraries)) as workers:
            build = as_task(lambda job: workers.run(build_shard, job))
            with submitting(ThreadPoolTaskRunner(JOBS_A_WORKER * params.num_workers), build) as submit:
                yield submit
        return
    # Processes already use all cores; threads of linear algebra inside each would only compete.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    runner = (
        ProcessPoolTaskRunner(params.num_workers) if params.runner == "processes" else dask_runner(params)
    )
    with submitting(runner, as_task(build_quietly)) as submit:
        yield submit


@contextmanager
def submitting(runner: "TaskRunner[Any]", build: Any) -> Iterator[Submit]:  # noqa: ANN401 - a task
    with runner:
        yield lambda job: runner.submit(
            build.with_options(task_run_name=f"shard {job.number}"), parameters={"job": job}
        )


def as_task(build: Build) -> Any:  # noqa: ANN401 - a task of Prefect's
    @task(name="build", retries=1, retry_delay_seconds=1, cache_policy=NO_CACHE, persist_result=False)
    def build_task(job: ShardJob) -> ShardResult | None:
        return build(job)

    return build_task


def dask_runner(params: Shards) -> "TaskRunner[Any]":
    """Raises ValueError if Dask is not installed or its scheduler does not answer."""
    try:
        from prefect_dask.task_runners import DaskTaskRunner
    except ImportError:
        raise ValueError(
            "shards.runner: need prefect-dask for `dask`, found none. "
            "Install it: pip install --constraint constraints.txt 'matpac[dask]'."
        ) from None
    if params.dask_address is not None:
        check_scheduler(params.dask_address)
        get_run_logger().info(f"shards on the Dask cluster at {params.dask_address}")
        return DaskTaskRunner(address=params.dask_address)
    return DaskTaskRunner(
        cluster_kwargs={
            "n_workers": params.num_workers,
            "threads_per_worker": 1,
            "dashboard_address": None,
            "silence_logs": logging.ERROR,
        }
    )


def check_scheduler(address: str) -> None:
    """Raises ValueError if no scheduler answers; Prefect and Dask would need a hundred lines."""
    from distributed import Client
    from distributed.comm.core import connect
    from distributed.security import Security

    async def call() -> None:
        comm = await connect(address, timeout=DASK_TIMEOUT_S, **Security().get_connection_args("client"))
        await comm.close()

    try:
        asyncio.run(call())
    except (OSError, ValueError) as error:
        raise ValueError(
            f"shards.dask_address: need a Dask scheduler that answers, as tcp://host:8786, "
            f"found {address} ({error})"
        ) from None
    with Client(address, timeout=DASK_TIMEOUT_S, set_as_default=False) as client:
        if not client.scheduler_info()["workers"]:
            get_run_logger().warning(f"the Dask cluster at {address} has no workers: shards wait for one")


def build_quietly(job: ShardJob) -> ShardResult | None:
    _begin_once()
    return build_shard(job)


@cache
def _begin_once() -> None:
    begin(mute_c_libraries)
