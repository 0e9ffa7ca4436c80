"""clips in splits or folds -> an error where a group or a recording is in several of them."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


def refuse_leaks(where: str, clips: pa.Table) -> None:
    """What training has seen of a test clip's group, or of its very bytes, would make scores too good.

    `clips`, each in a split or a fold, has columns `path`, `split`, `fold`, `group` and perhaps `sha256`; a
    null stands for no group and for no content.
    Raises ValueError, which begins with `where`, names the first group or recording, and counts the others.
    """
    found, num_more = _first_in_several_parts(clips, "group")
    if found:
        parts, num_clips = ", ".join(map(_part, found)), sum(row["count_all"] for row in found)
        raise ValueError(
            f"{where}: need each group in one split or fold, found {found[0]['group']!r} in {parts} "
            f"({num_clips} clips){_and_more(num_more)}. Put each group into one, or give no split and no "
            "fold: num_folds and split_fractions deal groups whole."
        )
    if "sha256" not in clips.column_names:
        return
    found, num_more = _first_in_several_parts(clips, "sha256")
    if found:
        places = " = ".join(f"{row['path_min']} ({_part(row)})" for row in found)
        raise ValueError(
            f"{where}: need each recording in one split or fold, found copies in several: {places}"
            f"{_and_more(num_more)}. Remove the copies, or add `duplicate` to shards.reject in params.yaml."
        )


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
    return f" and {number} more" if number else ""
