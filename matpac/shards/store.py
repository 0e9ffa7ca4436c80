"""Shards on their way: data/.work/shards/<dataset>, shared by all processes and machines at work on it.

A shard is named by the digest of all that its bytes follow from, so work of any earlier run, with whatever
parameters, is taken up where it fits and never where it does not. Locks are the kernel's: they end with
the process that holds them, and hold between machines where the file system is shared (NFS 4, Lustre, ...).
"""

import fcntl
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple


class Store(NamedTuple):
    root: Path

    def tar(self, key: str) -> Path:
        return self.root / "tars" / f"{key}.tar"

    def record(self, key: str) -> Path:
        """What became of each clip. A shard is finished when its record is there."""
        return self.root / "records" / f"{key}.json"

    def plan(self, key: str) -> Path:
        return self.root / "plans" / f"{key}.arrow"

    def planned_rejections(self, key: str) -> Path:
        return self.root / "plans" / f"{key}.rejected.csv"

    def zarr(self, key: str) -> Path:
        """A whole dataset as one array, named by its plan."""
        return self.root / "stores" / f"{key}.zarr"

    @property
    def published(self) -> Path:
        """Which plan the finished folder holds."""
        return self.root / "published.json"

    @contextmanager
    def joined(self) -> Iterator[IO[str]]:
        """Work on this dataset, perhaps together with others; who comes first clears what a kill left."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "users.lock").open("a") as users:
            if _locked(users, fcntl.LOCK_EX):
                for partial in self.root.rglob(".*.partial"):
                    _remove(partial)
            _locked(users, fcntl.LOCK_SH, wait=True)
            yield users

    def keep_only(self, shards: Collection[str], plan: str, users: IO[str]) -> None:
        """Remove what other plans left, unless somebody else is at work; `users` comes from `joined`."""
        alone = _locked(users, fcntl.LOCK_EX)
        if alone:
            kept = {"tars": shards, "records": shards, "claims": shards}
            kept |= {"plans": {plan, f"{plan}.rejected"}, "stores": {plan}}
            for folder, names in kept.items():
                for path in (self.root / folder).glob("*"):
                    if path.stem not in names:
                        _remove(path)
        # A lock that could not be exchanged is lost.
        _locked(users, fcntl.LOCK_SH, wait=True)

    @contextmanager
    def claimed(self, key: str) -> Iterator[bool]:
        """Whether the shard is ours to build; False where another process builds it now."""
        path = self.root / "claims" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as claim:
            yield _locked(claim, fcntl.LOCK_EX)

    @contextmanager
    def publishing(self) -> Iterator[None]:
        """One at a time; the others wait."""
        with (self.root / "publish.lock").open("a") as lock:
            _locked(lock, fcntl.LOCK_EX, wait=True)
            yield


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _locked(file: IO[str], how: int, *, wait: bool = False) -> bool:
    try:
        fcntl.flock(file, how if wait else how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def link_tree(source: Path, target: Path) -> None:
    """The same files under another name, at no cost; copies where the file system has no hard links."""
    if source.is_dir():
        shutil.copytree(source, target, copy_function=link)
    else:
        link(str(source), str(target))


def link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
