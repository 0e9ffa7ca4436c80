"""audio files -> a table of embeddings, resumable.

Until the result is whole, its working folder lies beside it, `.<name>.work/`:

parts/<made_from>/part-000000.rows  embeddings [row, dim] of some files, float32
parts/<made_from>/part-000000.npz   num_rows, reasons, notes [file]; written last
parts.lock                          held by the process that works on it
whole.zarr, old.zarr                the result before it is in place, and the one it replaces

The list of files alone decides which of them share a part, and so a batch: a call that resumes after
a kill gives the same bits. `made_from` is the digest of encoder, device, precision and list (names,
sizes, times of change). The result stores it, so a later call knows that nothing is left to do.
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import IO, NamedTuple, cast

import numpy as np
from jaxtyping import Float32, Int64
from numpy.typing import NDArray

from matpac.clip import REJECT, UnusableAudio, phrase_of
from matpac.devices import available_cores
from matpac.encoder.encoder import AudioEncoder, load_encoder
from matpac.encoder.reading import Reading, read_ahead
from matpac.encoder.tables import Table, format_for
from matpac.files import exclusive, flush_to_disk, room_for, whole_file
from matpac.params import Precision
from matpac.progress import Progress, say
from matpac.walk import PassedOver, audio_files, check_utf8

FILES_PER_PART, BYTES_PER_PART = 256, 2**26
"""A part ends at this many files or bytes, whichever comes first; a kill costs at most one part. Bytes are
those of the files, because only decoding would tell their length."""
MOST_READERS = {"cpu": 4, "cuda": 16}
"""Threads that read files ahead of the encoder, by its device. `matpac.encoder.reading` bounds
what they hold."""
ROW_BYTES = 2**26
"""Embeddings that are in memory while the table is written."""


class File(NamedTuple):
    path: Path
    bytes: int
    """Size, or -1 if the file cannot be found."""
    changed_ns: int


class Part(NamedTuple):
    """Results for some files."""

    num_rows: Int64[np.ndarray, " file"]
    """Rows of each file: 1, or the number of steps in time; 0 if the file could not be used."""
    reasons: list[str]
    """Why a file could not be used; empty if it could."""
    notes: list[str]
    """What is odd about a file that was used; usually empty."""


def embed_files(
    sources: Sequence[Path],
    checkpoint: str | Path,
    out: Path,
    *,
    in_time: bool = False,
    precision: Precision = "float32",
    reject: Collection[str] = REJECT,
) -> None:
    """Write the embeddings of files, and of all audio files below folders, to a table.

    A file that cannot be used is named on standard error, left out, and listed in the table with the
    reason; one that is odd is listed with a note. If the call is killed, the same call resumes; once
    the table is whole, it does nothing.

    Args:
        sources: Audio files, and folders to search for some.
        checkpoint: Path or name that `matpac.load` opens.
        out: Table to write: .npz, .parquet or .zarr (see `matpac.encoder.tables`).
        in_time: Whether to write one row every 16 frames, with its time in ms, instead of one per file.
        precision: Precision of the encoder's matrix products, as for `matpac.load`.
        reject: Reasons to leave out audio that can be decoded, as shards do: "truncated", "silent".

    Raises:
        ValueError: A source is missing, a folder holds no audio, a name is not UTF-8, no file can be
            used, or `out` has another ending or cannot be written.
        ModuleNotFoundError: The package for this format is not installed (extra `pipeline`).
        RuntimeError: Another process writes the same `out`.
        OSError: The disk is full; the error names `out`.
    """
    kind = format_for(out)
    passed_over = PassedOver()
    files = list_files(sources, passed_over)
    encoder = load_encoder(checkpoint, precision=precision)
    work = out.with_name(f".{out.name}.work")
    with room_for(out), exclusive(work / "parts"):
        checkpoint_digest = encoder.digest()
        made_from = _made_from(checkpoint_digest, encoder, files, reject, in_time=in_time)
        if kind.made_from(out) == made_from:
            shutil.rmtree(work)
            say(
                f"{out}: whole, of the same encoder and {len(files):,} files: nothing to do. "
                f"Remove it to embed them again."
            )
            return
        if passed_over:
            say(f"passed over: {passed_over.in_words()}")
        folder = _folder_for(work / "parts", made_from)
        parts = parts_of(files)
        _embed_missing(folder, parts, encoder, reject, in_time=in_time)

        table = _table(folder, parts, encoder, checkpoint_digest, made_from, in_time=in_time)
        if not table.num_rows:
            shutil.rmtree(work)
            raise ValueError(f"embed: need audio that can be used, found none in {len(files)} files")
        whole = work / f"whole{out.suffix}"
        try:
            kind.write(whole, table, _embeddings(folder, len(parts), encoder.dim))
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
    rows = f"{table.num_rows:,} embeddings of {table.dim:,} dimensions"
    left_out = f"left out: {_counts(table.left_out)}" if table.left_out else "nothing left out"
    noted = f"; used, with a note: {_counts(table.noted)}" if table.noted else ""
    say(f"{out}: {rows} from {len(table.paths):,} files; {left_out}{noted}")


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


def list_files(sources: Iterable[Path], passed_over: PassedOver | None = None) -> list[File]:
    """Each file once, those of a folder sorted by name.

    Args:
        sources: Files and folders.
        passed_over: Receives what is not read in the folders.

    Raises:
        ValueError: A source is missing, its name is not UTF-8, or a folder holds no audio.
        OSError: A disk fails while a folder is listed.
    """
    paths: dict[Path, None] = {}
    for source in sources:
        check_utf8(str(source), "embed")
        if not source.exists():
            raise ValueError(f"embed: need files and folders that are there, found no {source}")
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


def _made_from(
    checkpoint_digest: str,
    encoder: AudioEncoder,
    files: Sequence[File],
    reject: Collection[str],
    *,
    in_time: bool,
) -> str:
    listed = [[str(file.path), file.bytes, file.changed_ns] for file in files]
    limits = [FILES_PER_PART, BYTES_PER_PART]
    how = [encoder.device.type, encoder.precision, in_time, sorted(reject)]
    key = json.dumps([checkpoint_digest, how, limits, listed]).encode()
    return hashlib.sha256(key).hexdigest()


def _folder_for(parts: Path, made_from: str) -> Path:
    """Folder for the parts of this work; parts of other work are removed."""
    folder = parts / made_from[:16]
    for other in parts.iterdir():
        if other != folder:
            shutil.rmtree(other)
            say("embed: encoder or files have changed since the unfinished work here: starts again")
    folder.mkdir(exist_ok=True)
    return folder


def _embed_missing(
    folder: Path,
    parts: Sequence[Sequence[File]],
    encoder: AudioEncoder,
    reject: Collection[str],
    *,
    in_time: bool,
) -> None:
    missing = [number for number in range(len(parts)) if not _is_there(folder, number)]
    num_files = sum(map(len, parts))
    num_missing = sum(len(parts[number]) for number in missing)
    progress = Progress("embed", num_files, "files", done=num_files - num_missing)
    if progress.done:
        say(f"embed: {progress.done:,} of {num_files:,} files are done")

    most = MOST_READERS[encoder.device.type]
    paths = [file.path for number in missing for file in parts[number]]
    about = encoder.logmel, encoder.mel_filters, encoder.chunk_frames
    # The next part is read while this one is embedded.
    with closing(read_ahead(paths, *about, min(most, available_cores()), reject)) as found:
        for number in missing:
            of_part = islice(found, len(parts[number]))
            with whole_file(_rows(folder, number)) as unfinished, unfinished.open("wb") as rows:
                part = _embed(encoder, of_part, rows, progress, in_time=in_time)
            # With this file, the part is there.
            with whole_file(_path(folder, number)) as unfinished, unfinished.open("wb") as stream:
                np.savez(stream, **part._asdict())


def _embed(
    encoder: AudioEncoder,
    found: Iterable[Reading],
    rows: IO[bytes],
    progress: Progress,
    *,
    in_time: bool,
) -> Part:
    """Write the embeddings of files to `rows`: memory does not grow with the length of a file."""
    reasons: list[str] = []
    notes: list[str] = []

    def pieces() -> Iterator[tuple[int, NDArray[np.float32]]]:
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
    for number, of_file in groupby(encoder.embed_pieces(pieces(), in_time=in_time), itemgetter(0)):
        first = rows.tell()
        for _, embeddings in of_file:
            rows.write(embeddings.astype("<f4", order="C", copy=False).data)
        # Damage in a long file is found after its beginning has been embedded.
        if reasons[number]:
            rows.seek(first)
            rows.truncate()
        else:
            num_rows[number] = (rows.tell() - first) // (4 * encoder.dim)
        # Files are embedded in batches: when the first one is done, so are all that have been read.
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


def _embeddings(folder: Path, num_parts: int, dim: int) -> Iterator[Float32[np.ndarray, "row dim"]]:
    """Embeddings of all parts, in blocks that fit into memory."""
    for number in range(num_parts):
        with _rows(folder, number).open("rb") as file:
            while content := file.read(max(ROW_BYTES // (4 * dim), 1) * 4 * dim):
                yield np.frombuffer(content, dtype="<f4").reshape(-1, dim)


def _table(
    folder: Path,
    parts: Sequence[Sequence[File]],
    encoder: AudioEncoder,
    checkpoint_digest: str,
    made_from: str,
    *,
    in_time: bool,
) -> Table:
    paths: list[str] = []
    left_out: dict[str, str] = {}
    noted: dict[str, str] = {}
    steps: list[int] = []
    for number, part in enumerate(parts):
        columns = (_read(folder, number, name).tolist() for name in Part._fields)
        for file, num_steps, reason, note in zip(part, *columns, strict=True):
            if reason:
                left_out[str(file.path)] = reason
            else:
                if note:
                    noted[str(file.path)] = note
                paths.append(str(file.path))
                steps.append(num_steps)
    if not in_time:
        return Table(paths, len(paths), encoder.dim, left_out, noted, checkpoint_digest, made_from)
    times_ms = encoder.step_centers_ms(max(steps, default=0))
    return Table(
        paths,
        sum(steps),
        encoder.dim,
        left_out,
        noted,
        checkpoint_digest,
        made_from,
        file=np.repeat(np.arange(len(paths)), steps),
        time_ms=np.concatenate([times_ms[:0], *(times_ms[:num_steps] for num_steps in steps)]),
    )
