"""params.yaml -> the recordings of a dataset, and data/raw/<dataset>: the list of them with checksums.

python -m flows.download esc10
"""

import shutil
from pathlib import Path

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows import artifacts, stage
from matpac.datasets import READERS
from matpac.datasets.folder import label_table
from matpac.datasets.recordings import Recording, recordings_root, take_inventory, write_recordings
from matpac.files import whole_file
from matpac.params import Dataset, load_params


@flow(flow_run_name="download {dataset}", persist_result=False)
def download(dataset: str) -> None:
    """Fetch or synthesise the recordings where they are not here yet, then list them."""
    params = load_params()
    source = stage.source_of(dataset, params)
    root, raw = recordings_root(dataset, source), Path("data/raw", dataset)

    fetch(dataset, source, root)
    recordings = inventory(root)
    write_recordings(raw, recordings)
    if source.kind == "folder" and (labels := label_table(source, root)):
        # Edited labels make the shards stale, as edited recordings do. Never written in place: what lies
        # there may be a hard link to DVC's cache.
        with whole_file(raw / "labels.csv") as partial:
            shutil.copyfile(labels, partial)

    num_bytes = sum(recording.bytes for recording in recordings)
    artifacts.table(
        "download",
        dataset,
        [{"recordings": len(recordings), "megabytes": round(num_bytes / 1e6, 1), "folder": str(root)}],
    )


@task(retries=2, retry_delay_seconds=5, cache_policy=NO_CACHE, persist_result=False)
def fetch(dataset: str, source: Dataset, root: Path) -> None:
    unit = "clips" if source.kind == "demo" else "bytes"
    meter = artifacts.Meter("download", dataset, "fetched", unit)
    READERS[source.kind].fetch(source, root, meter.show)


@task(cache_policy=NO_CACHE, persist_result=False)
def inventory(root: Path) -> list[Recording]:
    return take_inventory(root)


if __name__ == "__main__":
    stage.run(download)
