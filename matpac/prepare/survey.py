"""clips and headers, one after the other -> counts of all that can be foreseen about a dataset.

Some forty bytes of each recording are kept, as digests and numbers: enough to see what stands twice.
"""

from array import array
from collections import Counter, defaultdict
from collections.abc import Set
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from matpac.clip import Clip, Rejection, phrase_of
from matpac.datasets.inventory import Recording
from matpac.prepare.header_check import Header
from matpac.prepare.repeats import NOTHING, content_of, digest_of, repeated

NUM_EXAMPLES = 3
"""Digest of a group or label that is not there."""
UNUSABLE, NO_PART = -2, -1


@dataclass(frozen=True)
class Lengths:
    """In seconds."""

    min: float
    percentile_5: float
    median: float
    percentile_95: float
    max: float


class Overlap(NamedTuple):
    """Keys (groups, contents) that occur with several values where one is needed."""

    num_keys: int
    num_clips: int
    rows: tuple[tuple[int, ...], ...]
    """Numbers of a few recordings: of each example, one for each value."""


def part_of(clip: Clip) -> str | None:
    """The split or fold of a clip."""
    return f"fold {clip.fold}" if clip.fold is not None else clip.split


class Survey:
    """Counts are of clips that would reach the shards; those in a split or fold have a part."""

    def __init__(self, duplicates: Set[int]) -> None:
        """`duplicates`: contents of which only the first recording is used; see matpac/prepare/repeats.py."""
        self.duplicates = duplicates
        self.num_clips = self.num_in_parts = self.num_unknown_lengths = 0
        self.num_shorter_than_crop = 0
        self.duration_s = 0.0
        self.num_rejected = Counter[str]()
        self.rejected_examples = defaultdict[str, list[Rejection]](list)
        self.native_rates_hz, self.channels = Counter[int](), Counter[int]()
        self.formats = Counter[str]()
        self.clips_of_part = Counter[str]()
        self.seconds_of_part = defaultdict[str, float](float)
        self.clips_of_class = defaultdict[str, Counter[str]](Counter)
        """By part."""
        self.labels_per_clip = Counter[int]()
        self.labels: set[str] = set()
        """All that occurred, absent ones too; what a task is made from."""
        self.num_folds: int | None = None
        self._duplicates_seen: set[int] = set()
        self._lengths_s = array("f")
        self._part_numbers: dict[str, int] = {}
        # One entry a recording:
        self._parts = array("h")
        self._groups, self._contents, self._labels = array("Q"), array("Q"), array("Q")
        self._ids = array("Q")

    def count(
        self, item: Clip | Rejection, recording: Recording, header: Header | Rejection, *, crops: bool
    ) -> None:
        """`crops`: whether a crop for pre-training fits into the clip."""
        self._remember(item, recording, header)
        if isinstance(item, Rejection):
            self._reject(item)
            return
        self.labels.update(item.labels, item.absent or ())
        if item.fold is not None:
            self.num_folds = max(self.num_folds or 0, item.fold)
        if self._is_second(content_of(recording)):
            self._reject(Rejection(item.path, "duplicate"))
        elif isinstance(header, Rejection):
            self._reject(header)
        else:
            self._count_audio(header, crops=crops)
            self._count_labels(item, header)

    def _is_second(self, content: int) -> bool:
        is_second = content in self._duplicates_seen
        if content in self.duplicates:
            self._duplicates_seen.add(content)
        return is_second

    def _remember(self, item: Clip | Rejection, recording: Recording, header: Header | Rejection) -> None:
        """What is needed to find overlaps, which duplicates take part in."""
        part, group, labels = UNUSABLE, NOTHING, NOTHING
        if isinstance(item, Clip) and isinstance(header, Header):
            name = part_of(item)
            part = NO_PART if name is None else self._part_numbers.setdefault(name, len(self._part_numbers))
            group = NOTHING if item.group is None else digest_of(item.group)
            labels = NOTHING if part == NO_PART else digest_of(repr(sorted(item.labels)))
        self._parts.append(part)
        self._groups.append(group)
        self._labels.append(labels)
        self._contents.append(content_of(recording))
        self._ids.append(digest_of(item.id) if isinstance(item, Clip) else NOTHING)

    def _reject(self, rejection: Rejection) -> None:
        phrase = phrase_of(rejection.reason)
        self.num_rejected[phrase] += 1
        if len(self.rejected_examples[phrase]) < NUM_EXAMPLES:
            self.rejected_examples[phrase].append(rejection)

    def _count_audio(self, header: Header, *, crops: bool) -> None:
        self.num_clips += 1
        self.native_rates_hz[header.rate_hz] += 1
        self.channels[header.num_channels] += 1
        self.formats[header.format] += 1
        if header.num_samples is None:
            self.num_unknown_lengths += 1
        else:
            self.num_shorter_than_crop += not crops
            self.duration_s += header.duration_s
            self._lengths_s.append(header.duration_s)

    def _count_labels(self, clip: Clip, header: Header) -> None:
        part = part_of(clip)
        if part is None:
            return
        self.num_in_parts += 1
        self.clips_of_part[part] += 1
        self.seconds_of_part[part] += header.duration_s
        self.clips_of_class[part].update(clip.labels)
        self.labels_per_clip[len(clip.labels)] += 1

    def lengths_s(self) -> Lengths | None:
        """None without clips."""
        if not self._lengths_s:
            return None
        values = np.frombuffer(self._lengths_s, dtype=np.float32)
        return Lengths(*np.quantile(values, (0, 0.05, 0.5, 0.95, 1)).tolist())

    def num_repeated_ids(self) -> int:
        return len(repeated(self._ids))

    def groups_in_several_parts(self) -> Overlap:
        return _overlap(self._groups, self._parts, self._usable)

    def contents_in_several_parts(self) -> Overlap:
        return _overlap(self._contents, self._parts, self._usable)

    def contents_with_several_labels(self) -> Overlap:
        return _overlap(self._contents, self._labels, self._usable)

    @property
    def _usable(self) -> NDArray[np.bool_]:
        return np.frombuffer(self._parts, dtype=np.int16) >= 0


def _overlap(keys: "array[int]", values: "array[int]", usable: NDArray[np.bool_]) -> Overlap:
    every_key = np.frombuffer(keys, dtype=np.uint64)
    rows = np.flatnonzero(usable & (every_key != NOTHING))
    key, value = every_key[rows], np.asarray(values)[rows].astype(np.uint64)
    pairs = np.unique(np.stack([key, value], axis=1), axis=0)
    different, num_values = np.unique(pairs[:, 0], return_counts=True)
    overlapping = different[num_values > 1]
    found = np.isin(key, overlapping)
    key, value, rows = key[found], value[found], rows[found]
    _, firsts = np.unique(key, return_index=True)
    examples = []
    for first in np.sort(firsts)[:NUM_EXAMPLES]:
        own = key == key[first]
        _, places = np.unique(value[own], return_index=True)
        examples.append(tuple(sorted(rows[own][places].tolist())[:NUM_EXAMPLES]))
    return Overlap(len(overlapping), len(rows), tuple(examples))
