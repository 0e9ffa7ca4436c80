"""Where clips come from: one module per kind of dataset, which begins with a page about it.

A module offers fetch (make the recordings appear under a root), clips (the recordings with their
labels and splits) and task (what is asked of them; None without labels).
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from matpac.datasets import demo, esc10, folder, fsdd
from matpac.datasets.clip import Clip, Task


class Reader(Protocol):
    """What a module of this package offers; `params` is its own section of params.yaml."""

    @property
    def fetch(self) -> Callable[[Any, Path, Callable[[int, int], None] | None], None]:
        """Make the recordings appear under the root; an interrupted call can be repeated."""

    @property
    def clips(self) -> Callable[[Any, Path, Sequence[str]], Iterator[Clip]]:
        """Clips of the recordings with these paths under the root, in the same order."""

    @property
    def task(self) -> Callable[[Any, Sequence[Clip]], Task | None]: ...


READERS: dict[str, Reader] = {
    "demo": demo,
    "folder": folder,
    "fsdd": fsdd,
    "esc10": esc10,
}
