"""PAGES, params.yaml and what lies on the disk -> two tables for a person."""

from collections.abc import Mapping
from pathlib import Path

from pyarrow import parquet

from matpac.datasets.inventory import TABLE, has_inventory
from matpac.datasets.preview import begun_bytes, place_of
from matpac.datasets.public.dataset_page import Page
from matpac.datasets.registry import PAGES, recordings_root
from matpac.files import read_json
from matpac.params import Dataset, Public
from matpac.progress import in_columns, size

RAW, SHARDS = Path("data/raw"), Path("data/shards")


def public_table() -> str:
    """One line of facts for each built-in public dataset, and one with its title and licence."""
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
        for kind, page in PAGES.items()
    ]
    first, *lines = in_columns([header, *rows], right={1, 2, 5})
    about = [f"    {page.title}. Licence: {page.license}. {_hint(page)}".rstrip() for page in PAGES.values()]
    entries = [text for pair in zip(lines, about, strict=True) for text in pair]
    return "\n".join(["Public datasets that are built in (`kind` in params.yaml):", "", first, *entries])


def _hint(page: Page) -> str:
    has_audio = any(archive.unpack for archive in page.archives)
    return "" if has_audio else "Bring your own copy."


def _on_disk(kind: str, page: Page) -> str:
    root = place_of(kind, page)
    if root.is_dir():
        return "yes" if page.num_recordings is not None else "lists only"
    begun = begun_bytes(root)
    return f"partly, {size(begun)}" if begun else "no"


def own_table(datasets: Mapping[str, Dataset]) -> str:
    """What of the datasets of params.yaml is here: recordings, their list, shards."""
    header = ["name", "kind", "recordings", "clips", "hours", "rejected", "in"]
    rows = [
        [name, params.kind, _recordings(name, params), *_shards(name), _place(name, params)]
        for name, params in datasets.items()
    ]
    lines = in_columns([header, *rows], right={2, 3, 4, 5})
    notes = [
        "",
        "recordings: as listed in data/raw, else whether they are here; clips, ...: in data/shards.",
        "What is not made yet (-) is made by `dvc repro`; `matpac inspect <name>` looks first.",
    ]
    return "\n".join(["Datasets of params.yaml:", "", *lines, *notes])


def _recordings(name: str, params: Dataset) -> str:
    if has_inventory(RAW / name):
        return f"{parquet.read_metadata(RAW / name / TABLE).num_rows:,}"
    root = _root(name, params)
    return "here" if root is not None and root.is_dir() else "not here"


def _root(name: str, params: Dataset) -> Path | None:
    """None where `source` names nothing."""
    if isinstance(params, Public) and params.source is not None:
        source = Path(params.source).expanduser()
        return recordings_root(name, params) if source.exists() else None
    return recordings_root(name, params)


def _place(name: str, params: Dataset) -> str:
    root = _root(name, params)
    return str(root) if root is not None else f"{getattr(params, 'source', None)} (not found)"


def _shards(name: str) -> tuple[str, str, str]:
    path = SHARDS / name / "statistics.json"
    if not path.is_file():
        return "-", "-", "-"
    found = read_json(path)
    num_rejected = sum(found["num_rejected"].values())
    return f"{found['num_clips']:,}", f"{found['duration_s'] / 3600:,.2f}", f"{num_rejected:,}"
