"""Shards on their way: data/.work/shards/<dataset>, shared by all processes and machines at work on it.

A shard is named by the digest of all that its bytes follow from, so work of any earlier run, with whatever
parameters, is taken up where it fits and never where it does not. Locks are the kernel's: they end with
the process that holds them, and hold between machines where the file system is shared (NFS 4, Lustre, ...).
"""

import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from matpac.files import lock, locked


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

    def mel_filters(self, key: str) -> Path:
        """Filterbank of a plan, made once by the planner and read by the workers."""
        return self.root / "plans" / f"{key}.mel.npy"

    def again(self, key: str) -> Path:
        """A mark at a finished shard: next time its trouble may be gone."""
        return self.root / "again" / key

    @property
    def published(self) -> Path:
        """Which plan the finished folder holds."""
        return self.root / "published.json"

    @contextmanager
    def joined(self) -> Iterator[IO[str]]:
        """Work on this dataset, perhaps together with others.

        Who comes first clears what a kill left, and forgets shards that are worth another try: later that
        would change them under the hands of others.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "users.lock").open("a") as users:
            if lock(users):
                for partial in self.root.rglob(".*.partial"):
                    _remove(partial)
                for mark in (self.root / "again").glob("*"):
                    self.published.unlink(missing_ok=True)
                    self.record(mark.name).unlink(missing_ok=True)
                    mark.unlink()
            lock(users, shared=True, wait=True)
            yield users

    def keep_only(self, shards: Collection[str], plan: str, users: IO[str]) -> None:
        """Remove what other plans left, unless somebody else is at work; `users` comes from `joined`.

        To be done last, when this plan is published: until then the work of others, of yesterday's
        parameters say, is all that there is. And a lock that could not be exchanged is lost.
        """
        if not lock(users):
            return
        kept = {"tars": shards, "records": shards, "claims": shards, "again": shards}
        kept |= {"plans": {plan, f"{plan}.rejected", f"{plan}.mel"}}
        for folder, names in kept.items():
            for path in (self.root / folder).glob("*"):
                if path.stem not in names:
                    _remove(path)

    @contextmanager
    def claimed(self, key: str) -> Iterator[bool]:
        """Whether the shard is ours to build; False where another process builds it now."""
        path = self.root / "claims" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path) as claim:
            yield claim is not None

    @contextmanager
    def publishing(self) -> Iterator[None]:
        """One at a time; the others wait."""
        with locked(self.root / "publish.lock", wait=True):
            yield


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def link(source: Path, target: Path) -> None:
    """The same file under another name, at no cost; a copy where the file system has no hard links."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)
