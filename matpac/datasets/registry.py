"""All kinds of datasets: one module each, which begins with a page about it.

A module offers fetch (make the recordings appear under a root), clips (the recordings with their labels and
splits), task (what is asked of them; None without labels) and tables (the files the labels are read from).
Public datasets have a PAGE besides: what is known of them before anything is downloaded.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from matpac.clip import Clip, Rejection, Task
from matpac.datasets.demo import recipes as demo
from matpac.datasets.fingerprints import fingerprint
from matpac.datasets.inventory import AUDIO, Recording
from matpac.datasets.own import folder, parquet, tar
from matpac.datasets.public import (
    audioset,
    esc10,
    esc50,
    fsd50k,
    fsdd,
    gtzan,
    magnatagatune,
    nsynth,
    openmic,
    urbansound8k,
)
from matpac.datasets.public.dataset_page import Page
from matpac.datasets.public.obtain import is_packed
from matpac.params import AudioSet, Dataset, Demo, Own, digest
from matpac.walk import Held


class Reader(Protocol):
    """What a module of this package offers; `params` is its own section of params.yaml."""

    @property
    def fetch(self) -> Callable[[Any, Path, Callable[[int, int], None] | None], None]:
        """Make the recordings appear under the root; an interrupted call can be repeated."""

    @property
    def clips(self) -> Callable[[Any, Path, Iterable[Recording]], Iterator[Clip | Rejection]]:
        """What becomes of each recording, one for one and in their order.

        The recordings may be gone through more than once.
        """

    @property
    def task(self) -> Callable[[Any, Path, Collection[str], int | None], Task | None]:
        """From the root, all labels that occurred and the largest fold, if there are folds."""

    @property
    def tables(self) -> Callable[[Any, Path], list[Path]]:
        """Files beside the recordings that `clips` and `task` read."""


READERS: dict[str, Reader] = {
    "demo": demo,
    "folder": folder,
    "tar": tar,
    "parquet": parquet,
    "audioset": audioset,
    "openmic": openmic,
    "nsynth": nsynth,
    "gtzan": gtzan,
    "magnatagatune": magnatagatune,
    "fsd50k": fsd50k,
    "esc50": esc50,
    "urbansound8k": urbansound8k,
    "fsdd": fsdd,
    "esc10": esc10,
}

PAGES: dict[str, Page] = {
    "audioset": audioset.PAGE,
    "openmic": openmic.PAGE,
    "nsynth": nsynth.PAGE,
    "gtzan": gtzan.PAGE,
    "magnatagatune": magnatagatune.PAGE,
    "fsd50k": fsd50k.PAGE,
    "esc50": esc50.PAGE,
    "urbansound8k": urbansound8k.PAGE,
    "esc10": esc10.PAGE,
    "fsdd": fsdd.PAGE,
}

HOLDS: dict[str, tuple[Held, ...]] = {
    "tar": ("tars",),
    "parquet": ("parquet",),
    "audioset": ("files", "tars", "parquet"),
}
"""In what a kind keeps its recordings, where it is not plain files."""


def recordings_root(name: str, params: Dataset) -> Path:
    """The folder the recordings lie in: the user's own where there is one, else one of ours.

    What is downloaded lies there once, whatever datasets of params.yaml use it.
    """
    if isinstance(params, Demo):
        return AUDIO / f"{name}-{digest(params)}"
    if isinstance(params, Own | AudioSet):
        return Path(params.source).expanduser()
    page = PAGES[params.kind]
    if params.source is None:
        return AUDIO / f"{params.kind}-{page.key}"
    source = Path(params.source).expanduser()
    if is_packed(source, page):
        # A mended archive is unpacked anew, beside what the old one held.
        return AUDIO / f"{params.kind}-{digest(str(source.absolute()), fingerprint(params))}"
    return source


def num_missing(
    params: Dataset, root: Path, recordings: Iterable[Recording], num_recordings: int
) -> dict[str, int]:
    """Recordings of the complete dataset that are not here, by list; none where all are or nobody knows."""
    if isinstance(params, AudioSet):
        present = audioset.present(params, root, recordings)
        missing = {name: number - present[name] for name, number in audioset.listed(params, root).items()}
    else:
        page = PAGES.get(params.kind)
        expected = page.num_recordings if page else None
        missing = {page.title: expected - num_recordings} if page and expected is not None else {}
    return {name: number for name, number in missing.items() if number > 0}


def holds(params: Dataset) -> tuple[Held, ...]:
    return HOLDS.get(params.kind, ("files",))
