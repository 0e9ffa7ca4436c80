"""params.yaml -> the recordings of a dataset, and data/raw/<dataset>: the list of them with
checksums.

python -m flows.download esc10
"""

import os
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from flows import prefect_ui, stage
from flows.prefect_ui import DatasetName
from matpac.datasets.inventory import Inventory, Recordings, take_inventory, write_recordings
from matpac.datasets.registry import READERS, recordings_root
from matpac.files import WORK, checksum, locked, write_json
from matpac.params import PARAMS, Dataset, load_params, refuse_changes
from matpac.progress import counted
from matpac.walk import PassedOver


@flow(flow_run_name="download {dataset}", persist_result=False)
def download(dataset: DatasetName) -> None:
    """Fetch or synthesise the recordings that are not here yet, then list them."""
    params = load_params()
    source = params.source_of(dataset)
    root, raw = recordings_root(dataset, source), Path("data/raw", dataset)

    fetch(dataset, source, root)
    with locked(WORK / "inventory" / f"{dataset}.lock", wait=True):
        # Edited labels make the shards stale, as edited recordings do.
        tables = READERS[source.kind].tables(source, root)
        inventory = list_recordings(dataset, source, root, raw, tables)
        write_json(raw / "tables.json", {os.path.relpath(path, root): checksum(path) for path in tables})

    missing = READERS[source.kind].num_missing(source, root, Recordings(raw), inventory.num_recordings)
    for name, number in missing.items():
        get_run_logger().warning(f"{name}: {number:,} recordings are not here")
    if inventory.passed_over:
        get_run_logger().info(f"{root}: passed over: {inventory.passed_over.in_words()}")
    row = {
        "recordings": inventory.num_recordings,
        "unreadable": inventory.num_unreadable,
        "passed over": inventory.passed_over.total(),
        "missing": sum(missing.values()),
        "megabytes": round(inventory.num_bytes / 1e6, 1),
        "folder": str(root),
    }
    prefect_ui.table("download", dataset, [row])
    refuse_changes(PARAMS, params, f"datasets.{dataset}")


@task(cache_policy=NO_CACHE, persist_result=False)
def fetch(dataset: str, source: Dataset, root: Path) -> None:
    unit = "clips" if source.kind == "demo" else "bytes"
    meter = prefect_ui.Meter("download", dataset, "fetched", unit)
    READERS[source.kind].fetch(source, root, meter.show)


@task(cache_policy=NO_CACHE, persist_result=False)
def list_recordings(dataset: str, source: Dataset, root: Path, raw: Path, tables: list[Path]) -> Inventory:
    meter = prefect_ui.Meter("inventory", dataset, "listed", "recordings")
    passed_over = PassedOver()
    recordings = take_inventory(root, READERS[source.kind].stored_as, passed_over, tables)
    return write_recordings(raw, counted(recordings, meter.advance), passed_over)


if __name__ == "__main__":
    stage.run(download)
