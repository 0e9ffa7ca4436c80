"""data/raw/<dataset> and the recordings it lists -> data/shards/<dataset>.

python -m flows.shards esc10

Several processes may run this for one dataset at once, also on machines that share a file system.
They divide the shards among them, and all end when the last shard is finished.
"""

from pathlib import Path

from prefect import flow, get_run_logger

from flows import prefect_ui, stage
from flows.download import fetch
from flows.prefect_ui import DatasetName
from flows.runners import build_shards
from flows.summary import about_shards, count_rejected, describe
from matpac.datasets.registry import recordings_root
from matpac.params import PARAMS, load_params, refuse_changes
from matpac.prepare.plan import Plan, plan_dataset, workspace_of
from matpac.prepare.publish import DamagedShards, Summary, TooManyRejected, publish

OF_THE_BYTES = ("format", "clips_per_shard", "reject", "max_rejected_fraction")
"""Keys of `shards` that a result depends on; others say how it is made."""


@flow(flow_run_name="shards {dataset}", persist_result=False)
def shards(dataset: DatasetName) -> None:
    """Convert the recordings of a dataset. Shards finished by an earlier run are kept."""
    params = load_params()
    source = params.source_of(dataset)
    raw, out = Path("data/raw", dataset), Path("data/shards", dataset)

    # Recordings are no out of a stage: if DVC took `download` from its cache, they are still
    # missing.
    fetch(dataset, source, recordings_root(dataset, source))
    workspace = workspace_of(dataset)
    with workspace.joined() as users:
        meter = prefect_ui.Meter("plan", dataset, "planned", "recordings")
        plan = plan_dataset(dataset, source, raw, params.logmel, params.shards, meter.show)
        try:
            summary = build_and_publish(dataset, plan, out)
        except TooManyRejected as error:
            count_rejected(dataset, error.num_rejected)
            raise
        workspace.keep_only(frozenset(plan.shards), plan.key, users)

    get_run_logger().info(f"{out}: {describe(summary)}")
    about_shards(dataset, out, summary)
    refuse_changes(
        PARAMS, params, f"datasets.{dataset}", "logmel", *(f"shards.{key}" for key in OF_THE_BYTES)
    )


def build_and_publish(dataset: str, plan: Plan, out: Path) -> Summary:
    """Shards that an earlier run finished and that were damaged since are built once more."""
    build_shards(dataset, plan)
    try:
        return publish(plan, out, prefect_ui.Meter("publish", dataset, "checked", "shards").show)
    except DamagedShards as error:
        get_run_logger().warning(str(error))
    build_shards(dataset, plan)
    return publish(plan, out)


if __name__ == "__main__":
    stage.run(shards)
