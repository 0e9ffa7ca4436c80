"""clips in splits or folds -> groups and recordings that are in several; an error, unless official."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


def refuse_leaks(where: str, clips: pa.Table) -> None:
    """What training has seen of a test clip's group, or of its very bytes, would make scores too good.

    `clips` as in `groups_in_several_parts` and, where there is a column `sha256`, in
    `copies_in_several_parts`.
    Raises ValueError, which begins with `where`, names the first group or recording, and counts the others.
    """
    if found := groups_in_several_parts(clips):
        raise ValueError(
            f"{where}: need each group in one split or fold, found {found}. Put each group into one, or give "
            "no split and no fold: num_folds and split_fractions deal groups whole."
        )
    if "sha256" in clips.column_names and (found := copies_in_several_parts(clips)):
        raise ValueError(
            f"{where}: need each recording in one split or fold, found copies in several: {found}. Remove "
            "what is in the wrong place, or give copies one group: num_folds and split_fractions deal groups "
            "whole."
        )


def official_leaks(clips: pa.Table) -> Iterator[str]:
    """The same in words, of splits that stay as they are, since others report scores on them."""
    if found := groups_in_several_parts(clips):
        yield f"group in several splits or folds: {found}"
    if found := copies_in_several_parts(clips):
        yield f"recording in several splits or folds: {found}"


def groups_in_several_parts(clips: pa.Table) -> str:
    """`'rex' in train, test (3 clips) and 1 more`; empty where every group is in one split or fold.

    `clips`, each in a split or a fold, has columns `path`, `split`, `fold` and `group`, null for none.
    """
    found, num_more = _first_in_several_parts(clips, "group")
    if not found:
        return ""
    parts, num_clips = ", ".join(map(_part, found)), sum(row["count_all"] for row in found)
    return f"{found[0]['group']!r} in {parts} ({num_clips} clips){_and_more(num_more)}"


def copies_in_several_parts(clips: pa.Table) -> str:
    """`a.wav (train) = b.wav (test) and 1 more`, of recordings with the same bytes; empty where none are.

    `clips` has a column `sha256` besides, null where there is no content.
    """
    found, num_more = _first_in_several_parts(clips, "sha256")
    return " = ".join(f"{row['path_min']} ({_part(row)})" for row in found) + _and_more(num_more)


def _first_in_several_parts(clips: pa.Table, key: str) -> tuple[list[dict[str, Any]], int]:
    """A row per part of the key that comes first among those in several, and how many more there are."""
    known = clips.filter(pc.is_valid(clips[key]))
    parts = known.group_by([key, "split", "fold"]).aggregate([([], "count_all"), ("path", "min")])
    keys = parts.group_by(key).aggregate([([], "count_all")])
    several = keys.filter(pc.greater(keys["count_all"], 1))[key]
    if len(several) == 0:
        return [], 0
    first = parts.filter(pc.equal(parts[key], pc.min(several)))
    return first.sort_by("path_min").to_pylist(), len(several) - 1


def _part(row: dict[str, Any]) -> str:
    return str(row["split"]) if row["fold"] is None else f"fold {row['fold']}"


def _and_more(number: int) -> str:
    return f" and {number:,} more" if number else ""
