"""Names of folders and container files -> the splits that recordings were given.

A level of the paths is one of splits if every name there is one: `train/dog/a.wav` (level 0),
`dog/train/a.wav` (level 1), `data/train-00000-of-00003.parquet` (level 1, by a word of its name).
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from matpac.clip import SplitName
from matpac.datasets.inventory import Recording

SPLITS: dict[str, SplitName] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
CONTAINERS = (".tar", ".parquet", ".arrow")
MOST_LEVELS = 8
"""Levels that are looked at. Deeper ones hold no splits that anybody means."""
NUM_EXAMPLES = 3


@dataclass(frozen=True)
class Places:
    """The level of paths that names splits."""

    level: int
    """Position of the name in a path, from its beginning; from its end if below 0."""
    names: tuple[str, ...]
    """The names there, such as `train` and `Val`, or `train-00000-of-00003.parquet`."""
    tells: bool
    """Whether there are several splits. One alone (all in `train`) is only a folder around the others."""

    def split_of(self, recording: Recording) -> SplitName | None:
        """The split that the name of its place gives a recording; None outside all folders."""
        names = names_above(recording)
        return split_in(names[self.level]) if self.tells and self._is_in(names) else None

    def others(self, recording: Recording) -> tuple[str, ...]:
        """Names of the folders above a recording, without the one that is a split."""
        names = names_above(recording)
        if not self._is_in(names):
            return names
        level = self.level % len(names)
        return names[:level] + names[level + 1 :]

    def _is_in(self, names: Sequence[str]) -> bool:
        return -len(names) <= self.level < len(names)

    def __str__(self) -> str:
        shown = [*self.names[:NUM_EXAMPLES], *(["..."] if len(self.names) > NUM_EXAMPLES else [])]
        return ", ".join(shown)


def names_above(recording: Recording) -> tuple[str, ...]:
    """Names of the folders, and of the container, that a recording lies in."""
    return PurePosixPath(recording.path).parts[:-1]


def split_in(name: str) -> SplitName | None:
    """The split that a folder is called, or that a container's name has as a word."""
    stem, dot, suffix = name.lower().rpartition(".")
    if f"{dot}{suffix}" not in CONTAINERS:
        return SPLITS.get(name.lower())
    found = {SPLITS[word] for word in re.split(r"[^a-z]+", stem) if word in SPLITS}
    return found.pop() if len(found) == 1 else None


def places_of(root: str, recordings: Iterable[Recording]) -> Places | None:
    """The outermost level of splits, if there is one.

    Raises:
        ValueError: If a level has several splits and other names beside them: nobody knows then what
            these are.
    """
    names_at: defaultdict[int, Counter[str]] = defaultdict(Counter)
    num_within = 0
    for recording in recordings:
        above = names_above(recording)
        num_within += bool(above)
        for level in {*range(min(len(above), MOST_LEVELS)), *([-1] if above else [])}:
            names_at[level][above[level] if split_in(above[level]) else ""] += 1
    partly = None
    for level in (*range(MOST_LEVELS), -1):
        names = sorted(name for name in names_at[level] if name)
        num_named = sum(names_at[level][name] for name in names)
        tells = len({split_in(name) for name in names}) > 1
        if num_named and num_named == num_within:
            return Places(level, tuple(names), tells)
        if tells and partly is None:
            partly = names, num_named
    if partly is not None:
        found, num_named = partly
        raise ValueError(
            f"{root}: splits: need all recordings below {', '.join(found[:NUM_EXAMPLES])}, or none, "
            f"found {num_named:,} of {num_within:,}. Move the others, or set splits to none: then these are "
            "names like any other."
        )
    return None
