"""kind -> how such a dataset is fetched, listed, read and judged.

A kind is one module. Its name is the `kind` in params.yaml, and everything else is read off it:

clips      (params, root, recordings) -> a Clip or a Rejection for each recording, in their order
PAGE       what is known of a public dataset before it is downloaded
CLASSES    the classes in the order of their indices; or, if a file of the dataset tells them,
task       (params, root, labels, num_folds) -> the Task; None without labels
choices    (params, root, recordings) -> lines that say what is taken for labels and splits; default:
           none
tables     (params, root) -> files beside the recordings that `clips` and `task` read; default: none
fetch      (params, root, report): make the recordings appear; default: download PAGE
missing    (params, root, recordings) -> the number of recordings that are not here, by list;
           default: by the number in PAGE
STORED_AS  what the recordings may be stored in; default: plain files

`params` is the dataset's section of params.yaml. Every file of `public` is a public dataset.
"""

from collections.abc import Collection, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from matpac.clip import Clip, Rejection, Task
from matpac.datasets import public
from matpac.datasets.dataset_page import Page
from matpac.datasets.demo import recipes
from matpac.datasets.fingerprints import fingerprint
from matpac.datasets.inventory import AUDIO, Recording
from matpac.datasets.obtain import fetch_page, is_packed
from matpac.datasets.own import folder, labels, parquet, tar
from matpac.fetch.http import Report
from matpac.params import PUBLIC_KINDS, Dataset, Demo, digest
from matpac.walk import PLAIN_FILES, Storage


class Reader:
    """A kind of dataset: its module, and the defaults for all that the module leaves out."""

    def __init__(self, module: ModuleType) -> None:
        self.module = module

    @property
    def page(self) -> Page | None:
        """None for recordings of the user and for the demo."""
        page: Page | None = getattr(self.module, "PAGE", None)
        return page

    @property
    def stored_as(self) -> tuple[Storage, ...]:
        storages: tuple[Storage, ...] = getattr(self.module, "STORED_AS", PLAIN_FILES)
        return storages

    def fetch(self, params: Any, root: Path, report: Report | None) -> None:  # noqa: ANN401 - any section
        """Make the recordings appear under the root. An interrupted call can be repeated."""
        if hasattr(self.module, "fetch"):
            self.module.fetch(params, root, report)
        elif self.page is not None:
            fetch_page(self.page, params.source, root, report)

    def tables(self, params: Any, root: Path) -> list[Path]:  # noqa: ANN401 - any section
        """Files beside the recordings that `clips` and `task` read."""
        if not hasattr(self.module, "tables"):
            return []
        tables: list[Path] = self.module.tables(params, root)
        return tables

    def clips(
        self,
        params: Any,  # noqa: ANN401 - any section
        root: Path,
        recordings: Iterable[Recording],
    ) -> Iterator[Clip | Rejection]:
        """What becomes of each recording, one for one and in their order.

        `recordings` may be iterated more than once.
        """
        clips: Iterator[Clip | Rejection] = self.module.clips(params, root, recordings)
        return clips

    def choices(
        self,
        params: Any,  # noqa: ANN401 - any section
        root: Path,
        recordings: Iterable[Recording],
    ) -> tuple[str, ...]:
        """What is taken for labels and splits of own recordings, and why, in words."""
        if not hasattr(self.module, "choices"):
            return ()
        choices: tuple[str, ...] = self.module.choices(params, root, recordings)
        return choices

    def task(
        self,
        params: Any,  # noqa: ANN401 - any section
        root: Path,
        labels_found: Collection[str],
        num_folds: int | None,
    ) -> Task | None:
        """The task, from all labels that occurred and the largest fold if there are folds."""
        task: Task | None
        if hasattr(self.module, "task"):
            task = self.module.task(params, root, labels_found, num_folds)
        elif self.page is not None:
            task = self.page.task(self.module.CLASSES)
        else:
            task = labels.task(params, root, labels_found, num_folds)
        return task

    def num_missing(
        self,
        params: Any,  # noqa: ANN401 - any section
        root: Path,
        recordings: Iterable[Recording],
        num_recordings: int,
    ) -> dict[str, int]:
        """Recordings of the complete dataset that are not here, by list, if known."""
        if hasattr(self.module, "missing"):
            missing = self.module.missing(params, root, recordings)
        elif self.page is not None and self.page.num_recordings is not None:
            missing = {self.page.title: self.page.num_recordings - num_recordings}
        else:
            missing = {}
        return {name: number for name, number in missing.items() if number > 0}


READERS = {
    "demo": Reader(recipes),
    "folder": Reader(folder),
    "tar": Reader(tar),
    "parquet": Reader(parquet),
    **{kind: Reader(import_module(f"{public.__name__}.{kind}")) for kind in PUBLIC_KINDS},
}


def pages() -> dict[str, Page]:
    """The page of each public dataset, by kind."""
    return {kind: reader.page for kind, reader in READERS.items() if reader.page is not None}


def recordings_root(name: str, params: Dataset) -> Path:
    """The folder of the recordings: the user's own if there is one, else one of ours.

    Downloads lie there once, however many datasets of params.yaml use them.
    """
    if isinstance(params, Demo):
        return AUDIO / f"{name}-{digest(params)}"
    page = READERS[params.kind].page
    if params.source is None:
        assert page is not None, "only public datasets are downloaded"
        return page.root(params.kind)
    source = Path(params.source).expanduser()
    if page is not None and page.has_audio and is_packed(source, page):
        # A mended archive is unpacked anew, beside what the old one held.
        return AUDIO / f"{params.kind}-{digest(str(source.absolute()), fingerprint(params))}"
    return source
