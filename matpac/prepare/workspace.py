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
        """The plan that the finished folder holds."""
        return self.root / "published.json"

    @contextmanager
    def joined(self) -> Iterator[IO[str]]:
        """Work on this dataset, perhaps together with other processes.

        The first process cleans up after kills and drops shards worth retrying. Doing so later would race
        with the others.
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

    @contextmanager
    def claimed(self, key: str) -> Iterator[bool]:
        """Claim a shard; yields False if another process is building it."""
        path = self.root / "claims" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path) as claim:
            yield claim is not None

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
