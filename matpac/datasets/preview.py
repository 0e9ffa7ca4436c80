"""params.yaml and pages of public datasets -> what is on the disk, and what a download needs."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pyarrow import parquet

from matpac.datasets.dataset_page import Page
from matpac.datasets.inventory import AUDIO, TABLE, has_inventory
from matpac.datasets.registry import READERS, pages, recordings_root
from matpac.files import WORK, read_json
from matpac.params import Dataset, Demo, Own, Public
from matpac.progress import in_columns, size

RAW, SHARDS = Path("data/raw"), Path("data/shards")
BYTES_OF_DEMO_CLIP = 2.4e5
"""Approximate: three seconds of 16 bits, some of them in stereo."""
ROOM_FACTOR = 2.0
"""Archives and the files unpacked from them share the disk for a while."""


@dataclass(frozen=True)
class Prospect:
    """A dataset that is not here yet: its facts, its source, and the room that it needs."""

    dataset: str
    kind: str
    title: str
    home: str
    license: str
    citation: str
    num_clips: int
    num_classes: int | None
    protocol: str
    metric: str
    root: str
    """Future folder of the recordings."""
    comes_from: str
    download_bytes: float
    """Approximate size of the download; 0 if there is none."""
    begun_bytes: int
    """Part of the download that is on disk already."""
    needed_bytes: float
    """Disk space for archives and recordings together."""
    free_bytes: int
    todo: str


def prospect_of(dataset: str, source: Dataset) -> Prospect | None:
    """None if the recordings are here, or are the user's own and should be.

    Raises:
        ValueError: If `source` of a public dataset names nothing.
    """
    if isinstance(source, Own):
        return None
    command = f"`python -m flows.download {dataset}` (or `dvc repro`)"
    if isinstance(source, Demo):
        root = recordings_root(dataset, source)
        return None if root.is_dir() else _demo(dataset, source, root, command)
    page = READERS[source.kind].page
    if page is None or not page.has_audio:
        return None
    if not _source_exists(source):
        raise ValueError(
            f"datasets.{dataset}.source: need a folder or an archive, found no {source.source}. "
            "Set it to null to download."
        )
    root = recordings_root(dataset, source)
    if root.is_dir():
        return None
    from_network = source.source is None
    return Prospect(
        dataset=dataset,
        kind=source.kind,
        title=page.title,
        home=page.home,
        license=page.license,
        citation=page.citation,
        num_clips=page.num_clips,
        num_classes=page.num_classes,
        protocol=page.protocol,
        metric=page.metric,
        root=str(root),
        comes_from=page.home if source.source is None else source.source,
        download_bytes=page.download_gb * 1e9 if from_network else 0.0,
        begun_bytes=begun_bytes(root),
        needed_bytes=(ROOM_FACTOR if from_network else ROOM_FACTOR - 1) * page.download_gb * 1e9,
        free_bytes=free_bytes(),
        todo=f"{'Download' if from_network else 'Unpack'} with {command}; an interrupted run goes on where "
        "it stopped. If you have a copy, name it as `source` in params.yaml.",
    )


def _demo(dataset: str, source: Demo, root: Path, command: str) -> Prospect:
    return Prospect(
        dataset=dataset,
        kind=source.kind,
        title=f"Synthesised recordings, recipe {source.recipe}",
        home="",
        license="none needed",
        citation="",
        num_clips=source.num_clips,
        num_classes=None,
        protocol="",
        metric="",
        root=str(root),
        comes_from=f"synthesised from seed {source.seed}",
        download_bytes=0.0,
        begun_bytes=0,
        needed_bytes=source.num_clips * BYTES_OF_DEMO_CLIP,
        free_bytes=free_bytes(),
        todo=f"Synthesise them with {command}; no network is needed.",
    )


def begun_bytes(root: Path) -> int:
    """Bytes that an unfinished download of the recordings at the root has brought."""
    return sum(path.stat().st_size for path in (WORK / "download" / root.name).rglob("*") if path.is_file())


def free_bytes() -> int:
    """Free space on the disk that downloads go to."""
    here = next(folder for folder in (AUDIO, *AUDIO.absolute().parents) if folder.is_dir())
    return shutil.disk_usage(here).free


def public_table() -> str:
    """Two lines for each public dataset: its facts, then its title and license."""
    header = ["kind", "clips", "classes", "protocol", "metric", "download", "on disk"]
    rows = [
        [
            kind,
            f"{page.num_clips:,}",
            str(page.num_classes),
            page.protocol,
            page.metric,
            size(page.download_gb * 1e9),
            _on_disk(kind, page),
        ]
        for kind, page in pages().items()
    ]
    first, *lines = in_columns([header, *rows], right={1, 2, 5})
    about = [f"    {page.title}. License: {page.license}.{_hint(page)}" for page in pages().values()]
    entries = [text for pair in zip(lines, about, strict=True) for text in pair]
    return "\n".join(["Public datasets that are built in (`kind` in params.yaml):", "", first, *entries])


def _hint(page: Page) -> str:
    return "" if page.has_audio else " Bring your own copy."


def _on_disk(kind: str, page: Page) -> str:
    root = page.root(kind)
    if root.is_dir():
        return "yes" if page.has_audio else "lists only"
    begun = begun_bytes(root)
    return f"partly, {size(begun)}" if begun else "no"


def own_table(datasets: Mapping[str, Dataset]) -> str:
    """The datasets of params.yaml: which recordings, inventories and shards are here."""
    header = ["name", "kind", "recordings", "clips", "hours", "rejected", "in"]
    rows = [
        [name, params.kind, _recordings(name, params), *_shards(name), _place(name, params)]
        for name, params in datasets.items()
    ]
    lines = in_columns([header, *rows], right={2, 3, 4, 5})
    notes = [
        "",
        "recordings: as listed in data/raw, else whether they are here; clips, ...: in data/shards.",
        "`dvc repro` makes what is missing (-); `matpac inspect <name>` looks first.",
    ]
    return "\n".join(["Datasets of params.yaml:", "", *lines, *notes])


def _recordings(name: str, params: Dataset) -> str:
    if has_inventory(RAW / name):
        return f"{parquet.read_metadata(RAW / name / TABLE).num_rows:,}"
    is_here = _source_exists(params) and recordings_root(name, params).is_dir()
    return "here" if is_here else "not here"


def _place(name: str, params: Dataset) -> str:
    if isinstance(params, Public) and not _source_exists(params):
        return f"{params.source} (not found)"
    return str(recordings_root(name, params))


def _source_exists(params: Dataset) -> bool:
    """Whether `source` names something; True if nothing is named."""
    source = getattr(params, "source", None)
    return source is None or Path(source).expanduser().exists()


def _shards(name: str) -> tuple[str, str, str]:
    path = SHARDS / name / "statistics.json"
    if not path.is_file():
        return "-", "-", "-"
    found = read_json(path)
    num_rejected = sum(found["num_rejected"].values())
    return f"{found['num_clips']:,}", f"{found['duration_s'] / 3600:,.2f}", f"{num_rejected:,}"
