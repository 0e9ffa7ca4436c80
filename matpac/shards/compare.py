"""two lists of recordings -> what they share, as a table and a CSV."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from matpac.digests import NEW, SAME_CONTENT, SAME_ID, Digests, joined, known, read_digests
from matpac.files import DIGESTS, whole_file
from matpac.progress import in_columns
from matpac.shards.folder import ShardFolder

INDEX = "index.parquet"
HEADER = ["dataset", "side", "recordings", "same content", "same id only", "only here"]
IN_CSV = {SAME_ID: "same id, other or unknown content", NEW: "only here"}
KINDS = "a checkpoint, a saved encoder, a folder of shards or a digests.parquet"


class Side(NamedTuple):
    """One of two lists, and what the other knows of it."""

    name: str
    """`a` or `b`."""
    digests: Digests
    found: NDArray[np.int8]
    """NEW, SAME_ID or SAME_CONTENT for each recording."""

    def counts(self, dataset: str | None = None) -> list[int]:
        """Number of recordings: all, and those with the same content, only the same id, neither."""
        found = self.found
        if dataset is not None:
            found = found[pc.equal(self.digests.table["dataset"], dataset).to_numpy()]
        return [len(found), *(int((found == kind).sum()) for kind in (SAME_CONTENT, SAME_ID, NEW))]


def opened(path: Path) -> Digests:
    """Recordings of shards, of all shards below a folder, or those that a model learned from.

    Raises:
        ValueError: There is no list of recordings, or a damaged one; the error says what to do.
    """
    if not path.exists():
        raise ValueError(f"{path}: need {KINDS}, found nothing there.")
    if path.name == DIGESTS and (path.parent / INDEX).is_file():
        path = path.parent
    if (path / INDEX).is_file():
        return ShardFolder(path).recordings()
    if path.is_file() or (path / DIGESTS).is_file():
        return read_digests(path)
    if below := sorted(path.glob(f"*/{INDEX}")):
        return joined([ShardFolder(file.parent).recordings() for file in below])
    raise ValueError(
        f"{path}: need {KINDS}, found no {INDEX} or {DIGESTS} in it. A checkpoint of an older version has no "
        "list of its recordings. In its place, give the folders of the shards that it learned from."
    )


def compare(a: Digests, b: Digests) -> tuple[Side, Side]:
    of_a, of_b = known(a.table, b.table, copies=True), known(b.table, a.table, copies=True)
    return Side("a", a, of_a), Side("b", b, of_b)


def text_of(sides: tuple[Side, Side], a: Path, b: Path) -> str:
    """A table for the terminal: two lines per dataset, and two for all if there are several."""
    datasets = list(dict.fromkeys(name for side in sides for name in side.digests.counts()))
    # Two lists of one dataset are compared whatever its names.
    blocks = [[name] * 2 for name in datasets] if len(datasets) != 2 else _pairs(sides, datasets)
    lines = []
    for names in blocks:
        lines += [_line(side, name) for side, name in zip(sides, names, strict=True)]
    if len(blocks) > 1:
        lines += [_line(side) for side in sides]
    rule = ["-" * max(map(len, column)) for column in zip(HEADER, *lines, strict=True)]
    table = in_columns([HEADER, rule, *lines], right=range(2, len(HEADER)))
    return "\n".join([f"a: {a}", f"b: {b}", "", *table, *_remarks(sides)])


def _pairs(sides: tuple[Side, Side], datasets: list[str]) -> list[list[str]]:
    """Names for each block of two lines."""
    of_each = [list(side.digests.counts()) for side in sides]
    return [datasets] if all(len(names) == 1 for names in of_each) else [[name] * 2 for name in datasets]


def _line(side: Side, dataset: str | None = None) -> list[str]:
    total, *parts = side.counts(dataset)
    shares = [f"{part:,} ({part / total:.1%})" if total else "0" for part in parts]
    return ["all" if dataset is None else dataset or "unnamed", side.name, f"{total:,}", *shares]


def _remarks(sides: tuple[Side, Side]) -> list[str]:
    remarks = []
    for side in sides:
        if number := side.digests.table["content"].null_count:
            remarks.append(
                f"{side.name}: the content of {number:,} recordings is not known, they are compared by id. "
                f"Shards of older versions have no {DIGESTS}; `dvc repro` adds it without converting again."
            )
        if side.digests.unknown:
            names = ", ".join(side.digests.unknown)
            remarks.append(f"{side.name}: also learned from the recordings of {names}, which nobody knows.")
    return ["", *remarks] if remarks else []


def write_listing(path: Path, sides: tuple[Side, Side]) -> int:
    """Write a row for each recording whose content the other side lacks; return their number."""
    parts = []
    for side in sides:
        rows = np.flatnonzero(side.found != SAME_CONTENT)
        table = side.digests.table.take(pa.array(rows)).select(["dataset", "id"])
        is_new = pa.array(side.found[rows] == NEW)
        columns = {
            "side": pa.array([side.name] * len(rows), pa.string()),
            **dict(zip(table.column_names, table.columns, strict=True)),
            "found": pc.if_else(is_new, IN_CSV[NEW], IN_CSV[SAME_ID]),
        }
        parts.append(pa.table(columns))
    listed = pa.concat_tables(parts).sort_by([(name, "ascending") for name in ("dataset", "id", "side")])
    with whole_file(path) as partial:
        pyarrow.csv.write_csv(listed, partial)
    return len(listed)
