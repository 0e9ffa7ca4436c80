"""data/raw/<dataset> and the recordings it lists -> data/shards/<dataset>.

python -m flows.shards esc10

Several processes, on several machines where the file system is shared, may run it for one dataset at once:
they divide the shards among them and all end when the last one is there.
"""

from pathlib import Path

from prefect import flow, get_run_logger

from flows import artifacts, stage
from flows.choices import DatasetName
from flows.download import fetch
from flows.runners import build_shards
from flows.summary import about_shards, count_rejected, in_words
from matpac.datasets.registry import recordings_root
from matpac.params import load_params
from matpac.prepare.plan import plan_dataset, store_of
from matpac.prepare.publish import TooManyRejected, finish


@flow(flow_run_name="shards {dataset}", persist_result=False)
def shards(dataset: DatasetName) -> None:
    """Convert the recordings of a dataset. Shards that an earlier run had finished are kept."""
    params = load_params()
    source = params.source_of(dataset)
    raw, out = Path("data/raw", dataset), Path("data/shards", dataset)

    # The recordings are no out of the pipeline: a result taken from its cache leaves them behind.
    fetch(dataset, source, recordings_root(dataset, source))
    store = store_of(dataset)
    with store.joined() as users:
        meter = artifacts.Meter("plan", dataset, "planned", "recordings")
        plan = plan_dataset(dataset, source, raw, params.logmel, params.shards, meter.show)
        build_shards(dataset, plan)
        try:
            summary = finish(plan, out)
        except TooManyRejected as error:
            count_rejected(dataset, error.num_rejected)
            raise
        store.keep_only(frozenset(plan.shards), plan.key, users)

    get_run_logger().info(f"{out}: {in_words(summary)}")
    about_shards(dataset, out, summary)


if __name__ == "__main__":
    stage.run(shards)
