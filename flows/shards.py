"""data/raw/<dataset> and the recordings it lists -> data/shards/<dataset>.

python -m flows.shards esc10
"""

from collections import deque
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture

from flows import artifacts, stage
from flows.download import fetch
from flows.summary import about_shards
from matpac.datasets.recordings import recordings_root
from matpac.files import exclusive
from matpac.params import load_params
from matpac.shards.build import ShardPlan, ShardResult, build_shard
from matpac.shards.finish import finish
from matpac.shards.plan import clear_leftovers, plan_dataset
from matpac.shards.workers import Workers
from matpac.signal.audio import mute_c_libraries


@flow(flow_run_name="shards {dataset}", persist_result=False)
def shards(dataset: str) -> None:
    """Convert the recordings of a dataset. Shards that an interrupted run had finished are kept."""
    params = load_params()
    source = stage.source_of(dataset, params)
    raw, out = Path("data/raw", dataset), Path("data/shards", dataset)

    # The recordings are no out of the pipeline: a result taken from its cache leaves them behind.
    fetch(dataset, source, recordings_root(dataset, source))
    plan = plan_dataset(dataset, source, raw, params.logmel, params.shards)
    with exclusive(plan.work):
        clear_leftovers(plan.work)
        with closing(Workers(params.shards.num_workers, mute_c_libraries)) as workers:
            build_shards(dataset, plan.shards, workers)
        summary = finish(plan, out)

    about_shards(dataset, out, summary)


def build_shards(dataset: str, plans: Sequence[ShardPlan], workers: Workers) -> None:
    """A task per shard, which waits for a worker process; Prefect loses tasks that come by the thousand."""

    @task(task_run_name="shard {number}", retries=1, cache_policy=NO_CACHE, persist_result=False)
    def build(number: int) -> ShardResult:
        return workers.run(build_shard, plans[number])

    meter = artifacts.Meter("shards", dataset, "converted", "clips")
    num_clips = sum(len(plan.clips) for plan in plans)
    done = 0
    running: deque[PrefectFuture[ShardResult]] = deque()
    for number in range(len(plans) + workers.num_workers):
        if number < len(plans):
            running.append(build.submit(number))
        if number >= workers.num_workers:
            result = running.popleft().result()
            done += result.num_clips + result.num_rejected
            meter.show(done, num_clips)


if __name__ == "__main__":
    stage.run(shards)
