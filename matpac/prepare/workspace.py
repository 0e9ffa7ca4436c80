"""Shards in the making: data/.work/shards/<dataset>, shared by all processes and machines that make them.

A shard is named by the digest of everything that determines its bytes, so a run reuses the shards of
earlier runs exactly if they fit its parameters. Locks belong to the kernel: they end with their process,
and hold between machines on a shared file system (NFS 4, Lustre, ...).
"""

import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from matpac.files import lock, locked


class Workspace(NamedTuple):
    root: Path

    def tar(self, key: str) -> Path:
        return self.root / "tars" / f"{key}.tar"

    def record(self, key: str) -> Path:
        """Outcome of each clip. A shard is finished once its record exists."""
        return self.root / "records" / f"{key}.json"

    def plan(self, key: str) -> Path:
        return self.root / "plans" / f"{key}.arrow"

    def planned_rejections(self, key: str) -> Path:
        return self.root / "plans" / f"{key}.rejected.csv"

    def mel_filters(self, key: str) -> Path:
        """Filterbank of a plan, made once by the planner and read by the workers."""
        return self.root / "plans" / f"{key}.mel.npy"

    def again(self, key: str) -> Path:
        """Mark at a finished shard with rejections that may be gone next time."""
        return self.root / "again" / key

    @property
    def published(self) -> Path:
        """Key of the plan that the processes now at work have published."""
        return self.root / "published"

    @contextmanager
    def joined(self) -> Iterator[IO[str]]:
        """Work on this dataset, perhaps together with other processes.

        The first process cleans up after kills and drops shards worth retrying. It also has the folder
        published again, from shards that are checked then. Doing so later would race with the others.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "users.lock").open("a") as users:
            if lock(users):
                for partial in self.root.rglob(".*.partial"):
                    _remove(partial)
                self.published.unlink(missing_ok=True)
                for mark in (self.root / "again").glob("*"):
                    self.record(mark.name).unlink(missing_ok=True)
                    mark.unlink()
            lock(users, shared=True, wait=True)
            yield users

    def keep_only(self, shards: Collection[str], plan: str, users: IO[str]) -> None:
        """Remove the files of other plans, unless another process is at work; `users` comes from `joined`.

        Call it last, once this plan is published: until then older shards may be reused. The lock is lost
        if it cannot be made exclusive.
        """
        if not lock(users):
            return
        kept = {"tars": shards, "records": shards, "claims": shards, "again": shards}
        kept |= {"plans": {plan, f"{plan}.rejected", f"{plan}.mel"}}
        for folder, names in kept.items():
            for path in (self.root / folder).glob("*"):
                if path.stem not in names:
                    _remove(path)

    def drop(self, key: str) -> None:
        """Have a finished shard built again. Waits for a process that is looking at it."""
        with locked(self._claim(key), wait=True):
            self.record(key).unlink(missing_ok=True)
            self.tar(key).unlink(missing_ok=True)

    @contextmanager
    def claimed(self, key: str) -> Iterator[bool]:
        """Claim a shard; yields False if another process is building it."""
        with locked(self._claim(key)) as claim:
            yield claim is not None

    def _claim(self, key: str) -> Path:
        return self.root / "claims" / key

    @contextmanager
    def publishing(self) -> Iterator[None]:
        """Publish, one process at a time; others wait."""
        with locked(self.root / "publish.lock", wait=True):
            yield


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def link(source: Path, target: Path) -> None:
    """The same file under another name at no cost, or a copy on file systems without hard links."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)
