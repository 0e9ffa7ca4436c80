"""which recordings: ids and digests of their content <-> digests.parquet, and what two lists share.

A shard folder lists its recordings, a checkpoint those that it learned from, a published encoder the same
without readable ids.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from matpac.files import DIGESTS, damage, sums_of, whole_file

FORMAT, UNKNOWN = b"matpac.digests", b"matpac.unknown"
"""Keys of the file's metadata: the version of its format, and `Digests.unknown`, a line each."""
VERSION = b"1"
SCHEMA = pa.schema({"dataset": pa.string(), "id": pa.string(), "content": pa.uint64()})
HIDDEN = re.compile(r"~[\w-]{11}", re.ASCII)
"""An id that is a digest of the id. Files may have names that begin with ~, too."""
NEW, SAME_ID, SAME_CONTENT = 0, 1, 2
"""What a list knows of a recording: nothing, its id with other or unknown content, its content."""


class Digests(NamedTuple):
    """A list of recordings."""

    table: pa.Table
    """A row each: `dataset`, `id` (unique in the dataset), and `content`, the first eight bytes of the
    SHA-256 of the recording's file; null if nobody knows them.

    Among two million recordings, two that differ share a digest with a probability of 10^-7."""
    unknown: tuple[str, ...] = ()
    """Names of initial weights that have seen recordings nobody knows."""

    def counts(self) -> dict[str, int]:
        """Number of recordings by dataset."""
        found = pc.value_counts(self.table["dataset"]).to_pylist()
        return {row["values"]: row["counts"] for row in found}


def digests(dataset: str, ids: pa.Array, content: pa.Array) -> pa.Table:
    """A table for `Digests`; `content` is uint64, null where unknown."""
    names = pa.array([dataset], pa.string()).take(pa.array(np.zeros(len(ids), dtype=np.int64)))
    return pa.table([names, ids, content], schema=SCHEMA)


def content_of(sha256: str, num_bytes: int) -> int | None:
    """Digest of a recording's content; None for an empty file, which is a copy of no other."""
    return int(sha256[:16], 16) if sha256 and num_bytes else None


def joined(parts: Sequence[Digests]) -> Digests:
    """The recordings of all lists, each once; an id that one of them hides is that of another."""
    table = pa.concat_tables([SCHEMA.empty_table(), *(part.table for part in parts)])
    unknown = tuple(dict.fromkeys(chain.from_iterable(part.unknown for part in parts)))
    if len(parts) > 1:
        keys = hidden(table["id"]) if _has_hidden(table) else table["id"]
        groups = table.append_column("key", keys).group_by(["dataset", "key", "content"], use_threads=False)
        # A readable id comes before a hidden one.
        found = groups.aggregate([("id", "min")])
        table = pa.table([found["dataset"], found["id_min"], found["content"]], schema=SCHEMA)
    return Digests(table, unknown)


def hidden(ids: pa.ChunkedArray) -> pa.Array:
    """Digests in place of ids, as `~` and eleven letters; ids that are hidden already stay."""

    def hide(name: str) -> str:
        if HIDDEN.fullmatch(name):
            return name
        found = hashlib.blake2b(name.encode(), digest_size=8).digest()
        return "~" + base64.urlsafe_b64encode(found).decode().rstrip("=")

    return pa.array([hide(name) for name in ids.to_pylist()], pa.string())


def without_names(found: Digests) -> Digests:
    """The same list for publication: ids of own recordings may say what nobody else should read."""
    table = found.table.set_column(1, "id", hidden(found.table["id"]))
    return found._replace(table=table)


def known(ours: pa.Table, theirs: pa.Table, *, copies: bool = False) -> NDArray[np.int8]:
    """What `theirs` knows of each of our recordings: NEW, SAME_ID or SAME_CONTENT.

    Contents are compared whatever the dataset, ids in the same dataset. With `copies`, two tables of one
    dataset each are taken for copies of one dataset, whatever its names.
    """
    same_content = pc.is_in(ours["content"], value_set=_values(theirs["content"]))
    if any(_has_hidden(table) for table in (ours, theirs)):
        ours, theirs = (table.set_column(1, "id", hidden(table["id"])) for table in (ours, theirs))
    names, others = (pc.unique(table["dataset"]).to_pylist() for table in (ours, theirs))
    if copies and len(names) == len(others) == 1:
        same_id = _bools(pc.is_in(ours["id"], value_set=_values(theirs["id"])))
    else:
        same_id = np.zeros(len(ours), dtype=bool)
        for name in names:
            rows = np.flatnonzero(_bools(pc.equal(ours["dataset"], name)))
            there = theirs.filter(pc.equal(theirs["dataset"], name))["id"]
            same_id[rows] = _bools(pc.is_in(ours["id"].take(pa.array(rows)), value_set=_values(there)))
    return np.where(_bools(same_content), SAME_CONTENT, np.where(same_id, SAME_ID, NEW)).astype(np.int8)


def _values(column: pa.ChunkedArray) -> pa.Array:
    return column.drop_null().combine_chunks()


def _bools(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    values: NDArray[np.bool_] = column.to_numpy()
    return values


def _has_hidden(table: pa.Table) -> bool:
    return bool(pc.any(pc.match_substring_regex(table["id"], rf"^{HIDDEN.pattern}$")).as_py())


def write_digests(folder: Path, found: Digests) -> None:
    """Write the list; its bytes depend on the recordings only.

    Sorted ids share beginnings, which are stored once. A million recordings with ids of YouTube take
    15 MB, of which 8 are digests.
    """
    metadata = {FORMAT: VERSION, UNKNOWN: "\n".join(found.unknown).encode()}
    table = found.table.sort_by([("dataset", "ascending"), ("id", "ascending"), ("content", "ascending")])
    with whole_file(folder / DIGESTS) as partial:
        pq.write_table(
            table.replace_schema_metadata(metadata),
            partial,
            compression="zstd",
            use_dictionary=["dataset"],
            column_encoding={"id": "DELTA_BYTE_ARRAY", "content": "PLAIN"},
            write_statistics=False,
            write_page_checksum=True,
        )


def read_digests(path: Path) -> Digests:
    """Read a list, and check that it is as it was written.

    Args:
        path: The file, or a folder that holds it.

    Raises:
        ValueError: There is none, it is damaged, or it has another format; the error says what to do.
    """
    path = path / DIGESTS if path.is_dir() else path
    if not path.is_file():
        raise ValueError(f"{path}: need a list of recordings, found none.")
    if path.name in (sums_of(path.parent) or {}) and damage(path.parent, [path.name]):
        raise _damaged(path, "SHA256SUMS beside it names others")
    try:
        # The file stands alone, too: each of its pages has a checksum.
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            about = file.schema_arrow.metadata or {}
            if FORMAT in about and about[FORMAT] != VERSION:
                raise ValueError(
                    f"{path}: need a list of format {VERSION.decode()}, found one of another format "
                    f"({about[FORMAT].decode(errors='replace')}). Install the matpac that wrote it."
                )
            if FORMAT not in about or not file.schema_arrow.equals(SCHEMA):
                raise _foreign(path, "another table")
            table = file.read()
    except (pa.ArrowException, OSError) as error:
        if path.name != DIGESTS:
            raise _foreign(path, "a file of another kind") from None
        raise _damaged(path, " ".join(str(error).split())) from None
    unknown = about[UNKNOWN].decode() if UNKNOWN in about else ""
    return Digests(table.replace_schema_metadata(None), tuple(unknown.splitlines()))


def _foreign(path: Path, found: str) -> ValueError:
    return ValueError(
        f"{path}: need a list of recordings ({', '.join(SCHEMA.names)}), found {found}. "
        f"Give a folder of shards, a checkpoint or a saved encoder."
    )


def _damaged(path: Path, why: str) -> ValueError:
    return ValueError(
        f"{path}: need the bytes that were written, found others ({why}). Get a whole copy of {path.parent}; "
        f"`matpac verify` says how."
    )


def digests_in(folder: Path) -> Digests | None:
    """The list in a folder; None if it has none, as older checkpoints.

    Raises:
        ValueError: As from `read_digests`.
    """
    return read_digests(folder) if (folder / DIGESTS).is_file() else None


def looked_up(listed: Digests | None, ids: pa.Array) -> pa.Array:
    """Contents of the recordings with these ids; null for those that the list does not have."""
    if listed is None:
        return pa.nulls(len(ids), pa.uint64())
    places = pc.index_in(ids, value_set=listed.table["id"].combine_chunks())
    return listed.table["content"].combine_chunks().take(places)
