"""data -> what in it is not as it was written, and how to get it back.

Stages seal the folders that they publish (SHA256SUMS in each), recordings have their checksums in
the inventory, and DVC notes those of everything else (dvc.lock). Everything is read, whatever times
and sizes say.
"""

import hashlib
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
import yaml
from pyarrow import parquet

from matpac.clip import UnusableAudio
from matpac.datasets.inventory import AUDIO, TABLE, Recording, has_inventory, read_recordings, unchanged
from matpac.datasets.registry import recordings_root
from matpac.files import WORK, damage, line_of, read_json, remedy, sums_of
from matpac.params import Dataset
from matpac.progress import Progress, size
from matpac.threads import ahead

DATA = Path("data")
LOCK, CACHE = Path("dvc.lock"), Path(".dvc/cache/files/md5")
STAGES = {
    "shards": "shards@{name}",
    "checkpoints": "pretrain",
    "embeddings": "embed@{name}",
    "finetuned": "finetune@{name}",
}
"""Folders below DATA that hold sealed folders, and the stage that writes those."""
NAMED = 3
"""Number of damaged recordings that a line names."""
AHEAD = 16

Show = Callable[[int], object]


class Item(NamedTuple):
    """Something below DATA that can be compared with a checksum."""

    path: Path
    num_bytes: int
    damage: Callable[[Show], str | None]
    """Reads all of it; the argument receives the numbers of bytes that were read."""
    remedy: str


class Damaged(NamedTuple):
    path: Path
    found: str
    remedy: str


def verify(datasets: Mapping[str, Dataset], paths: Sequence[Path]) -> tuple[str, list[Damaged]]:
    """Compare everything below `paths` with its checksums.

    Args:
        datasets: `datasets` of params.yaml; the recordings of these are compared.
        paths: Files and folders of the pipeline in `data`, or `data` itself.

    Returns:
        What was compared, in words, and what is damaged.

    Raises:
        ValueError: Nothing below one of `paths` has checksums.
    """
    items = [item for item in _items(datasets) if any(_is_below(item.path, path) for path in paths)]
    for path in paths:
        if not any(_is_below(item.path, path) for item in items):
            known = ", ".join(str(item.path) for item in _items(datasets)) or "nothing"
            raise ValueError(f"{path}: need something that has checksums; {known} has.")
    num_bytes = sum(item.num_bytes for item in items)
    progress = Progress("verify", num_bytes, "bytes")
    damaged = []
    for item in items:
        try:
            found = item.damage(progress.advance)
        except (OSError, pyarrow.ArrowException) as error:
            found = f"it cannot be read ({' '.join(line_of(error).split())})"
        # A state is gone once the run that was going on has saved the next.
        if found and item.path.exists():
            damaged.append(Damaged(item.path, found, item.remedy))
    return f"{len(items):,} files and folders, {size(num_bytes)}", damaged


def _is_below(path: Path, folder: Path) -> bool:
    return path.absolute().is_relative_to(folder.absolute())


def _items(datasets: Mapping[str, Dataset]) -> Iterator[Item]:
    # Inventories come before the recordings that they list.
    yield from _noted_by_dvc()
    for name, params in datasets.items():
        yield from _recordings(name, params)
    for kind, stage in STAGES.items():
        for folder in sorted((DATA / kind).glob("[!.]*/")):
            if any(folder.iterdir()):
                yield _sealed(folder, remedy(folder, stage.format(name=folder.name)))
    for state in sorted(WORK.glob("pretrain/*/update-*[0-9]")):
        yield _sealed(state, f"Begin the run again from its start: `rm -r {shlex.quote(str(state))}`.")


def _sealed(folder: Path, todo: str) -> Item:
    num_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Item(folder, num_bytes, lambda show: damage(folder, show=show), todo)


def _recordings(name: str, params: Dataset) -> Iterator[Item]:
    """Nothing if the recordings are not here: shards do without them."""
    raw, root = DATA / "raw" / name, recordings_root(name, params)
    if not (has_inventory(raw) and root.exists()):
        return
    try:
        num_bytes = sum(parquet.read_table(raw / TABLE, columns=["bytes"])["bytes"].to_pylist())
    except (OSError, pyarrow.ArrowException):
        num_bytes = 0  # Reading it to compare the recordings says why.
    if root.is_relative_to(AUDIO):
        todo = f"Fetch them again: `rm -r {shlex.quote(str(root))}`, `python -m flows.download {name}`."
    else:
        again = f"`dvc repro --force --single-item download@{name}`, then `dvc repro`"
        todo = f"Get whole copies, or take the recordings as they are now: {again}."
    yield Item(raw, num_bytes, partial(_changed, raw, root), todo)


def _changed(raw: Path, root: Path, show: Show) -> str | None:
    names: list[str] = []
    number = 0
    for name, num_bytes in ahead(_compare(read_recordings(raw), root), AHEAD):
        show(num_bytes)
        if name is not None:
            number += 1
            names = [*names, name][:NAMED]
    if not number:
        return None
    more = f" and {number - NAMED:,} more" if number > NAMED else ""
    return f"other bytes, or none, in {', '.join(names)}{more} below {root}"


def _compare(recordings: Iterable[Recording], root: Path) -> Iterator[Callable[[], tuple[str | None, int]]]:
    def compared(recording: Recording) -> tuple[str | None, int]:
        try:
            unchanged(recording, root)
        except UnusableAudio:
            return recording.path, recording.bytes
        return None, recording.bytes

    # Those without a checksum could not be read in the first place.
    return (partial(compared, recording) for recording in recordings if recording.sha256)


def _noted_by_dvc() -> Iterator[Item]:
    """Outs that are not sealed: files, and folders whose list of files is in DVC's cache."""
    if not LOCK.exists():
        return
    stages = (yaml.safe_load(LOCK.read_text(encoding="utf-8")) or {}).get("stages", {})
    for stage, noted in stages.items():
        for out in noted.get("outs", ()):
            path, md5s = Path(out["path"]), _md5s(out)
            if path.exists() and md5s and sums_of(path) is None:
                num_bytes = sum(file.stat().st_size for file in _files(path))
                yield Item(path, num_bytes, partial(_other, path, md5s), remedy(path, stage))


def _md5s(out: dict[str, Any]) -> dict[str, str]:
    """MD5 of each file of an out, by its name in it; "" if the out is a file. Empty if not known."""
    md5 = out["md5"] if out.get("hash") == "md5" else ""
    if not md5.endswith(".dir"):
        return {"": md5} if md5 else {}
    listing = CACHE / md5[:2] / md5[2:]
    return {file["relpath"]: file["md5"] for file in read_json(listing)} if listing.exists() else {}


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())


def _other(path: Path, md5s: Mapping[str, str], show: Show) -> str | None:
    files = {"" if file == path else file.relative_to(path).as_posix(): file for file in _files(path)}
    wrong = sorted(md5s.keys() ^ files.keys())
    for name, file in files.items():
        with file.open("rb") as content:
            if hashlib.file_digest(content, "md5").hexdigest() != md5s.get(name):
                wrong.append(name)
        show(file.stat().st_size)
    if not wrong:
        return None
    where = f" in {wrong[0]}" if wrong[0] else ""
    return f"other bytes{where} than {LOCK} notes (damaged, or made without DVC)"
