"""dataset of params.yaml whose recordings are not here yet -> what is known of it, and what to do."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from matpac.datasets.inventory import AUDIO
from matpac.datasets.public.dataset_page import Page
from matpac.datasets.registry import PAGES, recordings_root
from matpac.files import WORK
from matpac.params import Dataset, Demo, Public

BYTES_OF_DEMO_CLIP = 2.4e5
"""About: three seconds of 16 bits, a part of them in stereo."""
ROOM_FACTOR = 2.0
"""Archives and what is unpacked from them lie side by side for a while."""


@dataclass(frozen=True)
class Prospect:
    """What would come, from where, and whether there is room for it."""

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
    """Where the recordings will lie."""
    comes_from: str
    download_bytes: float
    """About; 0 where nothing is downloaded."""
    begun_bytes: int
    """Of the download, on disk already."""
    needed_bytes: float
    """Of disk space, for archives and recordings together."""
    free_bytes: int
    todo: str


def prospect_of(dataset: str, source: Dataset) -> Prospect | None:
    """None where the recordings are here, or should be since they are the user's own.

    Raises ValueError where `source` of a public dataset names nothing.
    """
    command = f"`python -m flows.download {dataset}` (or `dvc repro`)"
    if isinstance(source, Demo):
        root = recordings_root(dataset, source)
        return None if root.is_dir() else _demo(dataset, source, root, command)
    if not isinstance(source, Public):
        return None
    if source.source is not None and not Path(source.source).expanduser().exists():
        raise ValueError(
            f"datasets.{dataset}.source: need a folder or an archive, found no {source.source}. "
            "Set it to null to download."
        )
    root, page = recordings_root(dataset, source), PAGES[source.kind]
    if root.is_dir():
        return None
    from_network = source.source is None
    download_bytes = page.download_gb * 1e9 if from_network else 0.0
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
        download_bytes=download_bytes,
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


def place_of(kind: str, page: Page) -> Path:
    """Where downloaded recordings of a public dataset lie."""
    return AUDIO / f"{kind}-{page.key}"


def begun_bytes(root: Path) -> int:
    """What an unfinished download of the recordings at the root has brought."""
    return sum(path.stat().st_size for path in (WORK / "download" / root.name).rglob("*") if path.is_file())


def free_bytes() -> int:
    """On the disk that downloads go to."""
    here = next(folder for folder in (AUDIO, *AUDIO.absolute().parents) if folder.is_dir())
    return shutil.disk_usage(here).free
