"""clips in splits or folds -> groups and recordings that are in several; an error, unless official."""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

NUM_EXAMPLES = 3
WAYS_OUT = (
    "Give copies one group in the table of labels, or set join_copies to true, which joins their groups. If "
    "the splits or folds are given, remove the copies in the wrong place, or set splits to none."
)


class Place(NamedTuple):
    value: str
    """Split or fold (or whatever the keys overlap in)."""
    path: str
    """First recording there, by path."""


class Example(NamedTuple):
    key: str
    num_clips: int
    places: tuple[Place, ...]
    """One place a value, in the order of the paths."""


class Overlap(NamedTuple):
    """Keys (groups, contents) that occur with several values where only one is right."""

    num_keys: int
    num_clips: int
    examples: tuple[Example, ...]
    """The first few keys, in their order."""


def overlaps(clips: pa.Table, key: str, value: str = "part") -> Overlap:
    """Keys of a column that have several values in another column.

    `clips` has a column `path` besides. Rows without a key are left out. The value `part` is made from
    the columns `split` and `fold`, null for none.
    """
    if value == "part":
        clips = clips.append_column("part", _parts(clips))
    known = clips.filter(pc.is_valid(clips[key]))
    places = known.group_by([key, value]).aggregate([([], "count_all"), ("path", "min")])
    keys = places.group_by(key).aggregate([([], "count_all"), ("count_all", "sum")])
    several = keys.filter(pc.greater(keys["count_all"], 1)).sort_by(key)
    num_clips = pc.sum(several["count_all_sum"]).as_py() or 0
    examples = []
    for name, number in zip(several[key][:NUM_EXAMPLES], several["count_all_sum"], strict=False):
        rows = places.filter(pc.equal(places[key], name)).sort_by("path_min").to_pylist()
        found = tuple(Place(row[value], row["path_min"]) for row in rows)
        examples.append(Example(name.as_py(), number.as_py(), found))
    return Overlap(len(several), num_clips, tuple(examples))


def _parts(clips: pa.Table) -> Any:  # noqa: ANN401 - an Arrow column has no type of its own
    """The split or fold of each clip, as text."""
    folds = pc.binary_join_element_wise("fold", clips["fold"].cast(pa.string()), " ")
    return pc.coalesce(folds, clips["split"])


def refuse_leaks(source: str, clips: pa.Table, listing: Path | None = None) -> None:
    """Refuse groups and recordings in several splits or folds: scores on their test clips are too good.

    `clips`, each in a split or a fold, has columns `path`, `split`, `fold` and `group`, null for none. If
    it has a column `sha256` (null without content), recordings with the same bytes are refused too.

    Raises ValueError, which begins with `source`, names the first group and recording, and counts the
    others. The table `listing` then has them all.
    """
    has_content = "sha256" in clips.column_names
    groups = _groups_in_several_parts(clips)
    copies = _copies_in_several_parts(clips) if has_content else ""
    if not groups and not copies:
        return
    where = ""
    if listing is not None:
        _write_leaks(clips, ("group", "sha256") if has_content else ("group",), listing)
        where = f" ({listing} has all)"
    found = []
    if groups:
        found.append(
            f"need each group in one split or fold, found {groups}{where}. Put each group into one, or set "
            "splits to none: clips are then divided, and groups kept whole."
        )
    if copies:
        found.append(
            f"need each recording in one split or fold, found copies in several: {copies}{where}. {WAYS_OUT}"
        )
    raise ValueError(f"{source}: {' Also: '.join(found)}")


def _write_leaks(clips: pa.Table, keys: Iterable[str], listing: Path) -> None:
    """Write all clips whose group or content is in several parts."""
    clips = clips.append_column("part", _parts(clips))
    listing.parent.mkdir(parents=True, exist_ok=True)
    with listing.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["same", "value", "path", "part", "group"])
        for key in keys:
            known = clips.filter(pc.is_valid(clips[key]))
            parts = known.group_by(key).aggregate([("part", "count_distinct")])
            several = parts.filter(pc.greater(parts["part_count_distinct"], 1))[key]
            rows = known.filter(pc.is_in(known[key], several))
            rows = rows.sort_by([(key, "ascending"), ("path", "ascending")])
            columns = (rows[name].to_pylist() for name in (key, "path", "part", "group"))
            table.writerows((key, *values) for values in zip(*columns, strict=True))


def official_leaks(clips: pa.Table) -> Iterator[str]:
    """The same leaks in words; official splits keep them, because others report scores on these splits."""
    if found := _groups_in_several_parts(clips):
        yield f"group in several splits or folds: {found}"
    if found := _copies_in_several_parts(clips):
        yield f"recording in several splits or folds: {found}"


def _groups_in_several_parts(clips: pa.Table) -> str:
    """`'rex' in train, test (3 clips) and 1 more`, or nothing."""
    found = overlaps(clips, "group")
    if not found.examples:
        return ""
    first = found.examples[0]
    parts = ", ".join(place.value for place in first.places)
    return f"{first.key!r} in {parts} ({first.num_clips} clips){_and_more(found)}"


def _copies_in_several_parts(clips: pa.Table) -> str:
    """`a.wav (train) = b.wav (test) and 1 more`, or nothing."""
    found = overlaps(clips, "sha256")
    return f"{as_equation(found.examples[0])}{_and_more(found)}" if found.examples else ""


def as_equation(copies: Example) -> str:
    """`a.wav (train) = b.wav (test)`."""
    return " = ".join(f"{place.path} ({place.value})" for place in copies.places)


def _and_more(found: Overlap) -> str:
    return f" and {found.num_keys - 1:,} more" if found.num_keys > 1 else ""
