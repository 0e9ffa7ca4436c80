"""audio files -> rows of numbers for each file, resumable: embeddings, probabilities, events.

Until the result is whole, its working folder lies beside it, `.<name>.work/`:

parts/<made_from>/part-000000.rows  rows [row, width] of some files
parts/<made_from>/part-000000.npz   num_rows, reasons, notes [file]; written last
parts.lock                          held by the process that works on it
whole.zarr, old.zarr                the result before it is in place, and the one it replaces

The list of files alone decides which of them share a part, and so a batch: a call that resumes after
a kill gives the same bits. `made_from` is the digest of what computes the rows, its device, and the list
of files (names, sizes, times of change). The result stores it, so a later call knows that nothing is
left to do.
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray

from matpac.clip import UnusableAudio, phrase_of
from matpac.devices import available_cores
from matpac.encoder.encoder import AudioEncoder
from matpac.encoder.reading import Reading, read_ahead
from matpac.files import exclusive, flush_to_disk, room_for, whole_file
from matpac.params import Channels
from matpac.progress import Progress, say
from matpac.walk import PassedOver, audio_files, check_utf8

FILES_PER_PART, BYTES_PER_PART = 256, 2**26
"""A part ends at this many files or bytes, whichever comes first; a kill costs at most one part. Bytes are
those of the files, because only decoding would tell their length."""
MOST_READERS = {"cpu": 4, "cuda": 16}
"""Threads that read files ahead of the encoder, by its device. `matpac.encoder.reading` bounds
what they hold."""
ROW_BYTES = 2**26
"""Rows that are in memory while the result is written."""

Numbered = Iterator[tuple[int, NDArray[Any]]]
"""Number of a file, and log-mels `[frame, mel]` or rows `[row, width]` of it."""


class Job(NamedTuple):
    """What is done with each file."""

    name: str
    """Its command, for messages."""
    by: str
    """What computes the rows, for messages."""
    encoder: AudioEncoder
    """Brings the front end."""
    compute: Callable[[Numbered], Numbered]
    """Pieces of log-mels by the number of their file -> rows by these numbers, in order."""
    width: int
    dtype: np.dtype[Any]
    key: Sequence[Any]
    """Whatever decides the rows of a file besides its content, as JSON can hold it."""
    reject: Collection[str]
    """Reasons to leave out audio that can be decoded, as shards do: "truncated", "silent"."""
    channels: Channels = "mean"


class File(NamedTuple):
    path: Path
    bytes: int
    """Size, or -1 if the file cannot be found."""
    changed_ns: int


class Part(NamedTuple):
    """Results for some files."""

    num_rows: Int64[np.ndarray, " file"]
    """Rows of each file; 0 if the file could not be used."""
    reasons: list[str]
    """Why a file could not be used; empty if it could."""
    notes: list[str]
    """What is odd about a file that was used; usually empty."""


@dataclass(frozen=True)
class Found:
    """Rows of all files. They may exceed memory."""

    paths: list[str]
    """Files that could be used."""
    num_rows: list[int]
    """Rows of each of them."""
    left_out: dict[str, str]
    """Reason for each path that could not be used."""
    noted: dict[str, str]
    """Notes on paths that are used although something is odd about them."""
    made_from: str
    """Digest of what computed them, device and list of files."""
    blocks: Callable[[], Iterator[NDArray[Any]]]
    """Reads the rows `[row, width]` in order, in blocks that fit into memory."""

    def in_words(self) -> str:
        """What was left out and noted, for the summary."""
        left_out = f"left out: {_counts(self.left_out)}" if self.left_out else "nothing left out"
        return left_out + (f"; used, with a note: {_counts(self.noted)}" if self.noted else "")


def write_for_files(
    files: Sequence[File],
    passed_over: PassedOver,
    out: Path,
    job: Job,
    made_from_of: Callable[[Path], str | None],
    write: Callable[[Path, Found], object],
) -> Found | None:
    """Compute rows for files, and write a result of them.

    A file that cannot be used is named on standard error and left out. If the call is killed, the same
    call resumes; once the result is whole, it does nothing.

    Args:
        files: Files to read, from `list_files`.
        passed_over: What is not read.
        out: File or folder to write.
        job: What is done with each file.
        made_from_of: Reads `Found.made_from` from a result; None if there is none.
        write: Writes a result to a path that ends like `out`.

    Returns:
        What was found; None if there was nothing to do.

    Raises:
        ValueError: No file can be used.
        RuntimeError: Another process writes the same `out`.
        OSError: The disk is full; the error names `out`.
    """
    work = out.with_name(f".{out.name}.work")
    with room_for(out), exclusive(work / "parts"):
        made_from = _made_from(job, files)
        if made_from_of(out) == made_from:
            shutil.rmtree(work)
            say(
                f"{out}: whole, of the same {job.by} and {len(files):,} files: nothing to do. "
                f"Remove it to {job.name} them again."
            )
            return None
        if passed_over:
            say(f"passed over: {passed_over.in_words()}")
        folder = _folder_for(work / "parts", made_from, job)
        parts = parts_of(files)
        _compute_missing(folder, parts, job)

        found = _found(folder, parts, job, made_from)
        if not found.paths:
            shutil.rmtree(work)
            raise ValueError(f"{job.name}: need audio that can be used, found none in {len(files)} files")
        whole = work / f"whole{out.suffix}"
        try:
            write(whole, found)
            if whole.is_dir():
                _replace(out, whole)
            else:
                flush_to_disk(whole)
                whole.replace(out)
        finally:
            if whole.is_dir():
                shutil.rmtree(whole)
            whole.unlink(missing_ok=True)
        shutil.rmtree(work)
    return found


def _counts(texts: Mapping[str, str]) -> str:
    """Numbers of files by the phrase of their reason or note."""
    counts = Counter(map(phrase_of, texts.values()))
    return ", ".join(f"{number:,} {phrase}" for phrase, number in counts.most_common())


def _replace(out: Path, whole: Path) -> None:
    """Move the old folder beside the new one, and the new one into its place: `out` is always whole.

    The old folder is deleted with the working folder, by the next call if this one is killed.
    """
    if out.exists():
        old = whole.with_stem("old")
        if old.exists():
            shutil.rmtree(old)
        out.rename(old)
    whole.rename(out)


def list_files(
    sources: Iterable[Path], passed_over: PassedOver | None = None, name: str = "embed"
) -> list[File]:
    """Each file once, those of a folder sorted by name.

    Args:
        sources: Files and folders.
        passed_over: Receives what is not read in the folders.
        name: Command that asks, for messages.

    Raises:
        ValueError: A source is missing, its name is not UTF-8, or a folder holds no audio.
        OSError: A disk fails while a folder is listed.
    """
    paths: dict[Path, None] = {}
    for source in sources:
        check_utf8(str(source), name)
        if not source.exists():
            raise ValueError(f"{name}: need files and folders that are there, found no {source}")
        below = [source / name for name in audio_files(source, passed_over)] if source.is_dir() else [source]
        paths |= dict.fromkeys(below)
    return [_file(path) for path in paths]


def _file(path: Path) -> File:
    try:
        found = path.stat()
    except OSError:
        return File(path, -1, -1)
    return File(path, found.st_size, found.st_mtime_ns)


def parts_of(files: Sequence[File]) -> list[list[File]]:
    parts: list[list[File]] = []
    num_bytes = 0
    for file in files:
        if not parts or len(parts[-1]) == FILES_PER_PART or num_bytes >= BYTES_PER_PART:
            parts.append([])
            num_bytes = 0
        parts[-1].append(file)
        num_bytes += file.bytes
    return parts


def _made_from(job: Job, files: Sequence[File]) -> str:
    listed = [[str(file.path), file.bytes, file.changed_ns] for file in files]
    limits = [FILES_PER_PART, BYTES_PER_PART]
    how = [job.encoder.device.type, job.encoder.precision, sorted(job.reject), job.channels]
    key = json.dumps([job.name, list(job.key), how, limits, listed]).encode()
    return hashlib.sha256(key).hexdigest()


def _folder_for(parts: Path, made_from: str, job: Job) -> Path:
    """Folder for the parts of this work; parts of other work are removed."""
    folder = parts / made_from[:16]
    for other in parts.iterdir():
        if other != folder:
            shutil.rmtree(other)
            say(f"{job.name}: {job.by} or files have changed since the unfinished work here: starts again")
    folder.mkdir(exist_ok=True)
    return folder


def _compute_missing(folder: Path, parts: Sequence[Sequence[File]], job: Job) -> None:
    missing = [number for number in range(len(parts)) if not _is_there(folder, number)]
    num_files = sum(map(len, parts))
    num_missing = sum(len(parts[number]) for number in missing)
    progress = Progress(job.name, num_files, "files", done=num_files - num_missing)
    if progress.done:
        say(f"{job.name}: {progress.done:,} of {num_files:,} files are done")

    encoder = job.encoder
    num_readers = min(MOST_READERS[encoder.device.type], available_cores())
    paths = [file.path for number in missing for file in parts[number]]
    about = encoder.logmel, encoder.mel_filters, encoder.chunk_frames
    # The next part is read while this one is computed.
    with closing(read_ahead(paths, *about, num_readers, job.reject, job.channels)) as found:
        for number in missing:
            of_part = islice(found, len(parts[number]))
            with whole_file(_rows(folder, number)) as unfinished, unfinished.open("wb") as rows:
                part = _compute(job, of_part, rows, progress)
            # With this file, the part is there.
            with whole_file(_path(folder, number)) as unfinished, unfinished.open("wb") as stream:
                np.savez(stream, **part._asdict())


def _compute(job: Job, found: Iterable[Reading], rows: IO[bytes], progress: Progress) -> Part:
    """Write the rows of files to `rows`: memory does not grow with their number."""
    reasons: list[str] = []
    notes: list[str] = []

    def pieces() -> Numbered:
        for number, of_file in enumerate(found):
            reason = ""
            try:
                for piece in of_file.pieces:
                    yield number, piece
            except UnusableAudio as error:
                reason = error.reason
                say(f"left out: {error}")
            reasons.append(reason)
            notes.append("" if reason else "; ".join(of_file.notes))

    num_rows: dict[int, int] = {}
    counted = 0
    for number, of_file in groupby(job.compute(pieces()), itemgetter(0)):
        first = rows.tell()
        for _, values in of_file:
            rows.write(values.astype(job.dtype, order="C", copy=False).data)
        # Damage in a long file is found after its beginning has been computed.
        if reasons[number]:
            rows.seek(first)
            rows.truncate()
        else:
            num_rows[number] = (rows.tell() - first) // (job.dtype.itemsize * job.width)
        # Files are computed in batches: when the first one is done, so are all that have been read.
        if len(reasons) > counted:
            progress.advance(len(reasons) - counted)
            counted = len(reasons)
    if len(reasons) > counted:
        progress.advance(len(reasons) - counted)
    return Part(
        np.array([num_rows.get(number, 0) for number in range(len(reasons))], dtype=np.int64), reasons, notes
    )


def _path(folder: Path, number: int) -> Path:
    return folder / f"part-{number:06}.npz"


def _rows(folder: Path, number: int) -> Path:
    return folder / f"part-{number:06}.rows"


def _is_there(folder: Path, number: int) -> bool:
    return _path(folder, number).exists() and _rows(folder, number).exists()


def _read(folder: Path, number: int, name: str) -> np.ndarray:
    """Read one field of a `Part`."""
    with np.load(_path(folder, number), allow_pickle=False) as file:
        return cast(np.ndarray, file[name])


def _found(folder: Path, parts: Sequence[Sequence[File]], job: Job, made_from: str) -> Found:
    paths: list[str] = []
    num_rows: list[int] = []
    left_out: dict[str, str] = {}
    noted: dict[str, str] = {}
    for number, part in enumerate(parts):
        columns = (_read(folder, number, name).tolist() for name in Part._fields)
        for file, num_of_file, reason, note in zip(part, *columns, strict=True):
            if reason:
                left_out[str(file.path)] = reason
            else:
                if note:
                    noted[str(file.path)] = note
                paths.append(str(file.path))
                num_rows.append(num_of_file)

    def blocks() -> Iterator[NDArray[Any]]:
        bytes_per_row = job.dtype.itemsize * job.width
        for number in range(len(parts)):
            with _rows(folder, number).open("rb") as file:
                while content := file.read(max(ROW_BYTES // bytes_per_row, 1) * bytes_per_row):
                    yield np.frombuffer(content, dtype=job.dtype).reshape(-1, job.width)

    return Found(paths, num_rows, left_out, noted, made_from, blocks)
