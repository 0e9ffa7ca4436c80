"""labelled clips -> folds, or train, validation and test: classes spread evenly, groups kept whole.

Copies of a recording without a group form a group. Groups that share a recording may be joined.
"""

import hashlib
from array import array
from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from matpac.datasets.inventory import Recording

KEY_BYTES = 16


class Splitter:
    """Divides labelled clips into parts. It keeps 20 bytes a clip, and each set of labels once; 36 bytes
    to join the groups of copies."""

    def __init__(self, *, join_copies: bool = False) -> None:
        self._keys = bytearray()
        self._contents = bytearray() if join_copies else None
        self._labels = array("I")
        self._numbers: dict[tuple[str, ...], int] = {}

    def __len__(self) -> int:
        return len(self._labels)

    def add(self, recording: Recording, labels: tuple[str, ...], group: str | None) -> None:
        """Add the next clip. The path stands for an empty or unreadable recording."""
        content = f"content {recording.sha256}" if recording.bytes and recording.sha256 else ""
        name = f"group {group}" if group else content or f"path {recording.path}"
        self._keys += hashlib.sha256(name.encode()).digest()[:KEY_BYTES]
        if self._contents is not None:
            self._contents += hashlib.sha256((content or name).encode()).digest()[:KEY_BYTES]
        self._labels.append(self._numbers.setdefault(labels, len(self._numbers)))

    def split(self, shares: Sequence[float]) -> Int64[np.ndarray, " clip"]:
        """The number of the part of each clip, in the order in which the clips were added.

        Each group, the largest first, goes to the part that has least of its labels so far for its
        share. A class with as many clips as there are parts is in every part. The order of the
        clips does not matter.
        """
        # Groups in the order of digests, not of names, since neighbors in a series are often alike.
        keys = np.frombuffer(self._keys, dtype=f"S{KEY_BYTES}")
        _, group_of_clip, sizes = np.unique(keys, return_inverse=True, return_counts=True)
        if self._contents is not None:
            contents = np.frombuffer(self._contents, dtype=f"S{KEY_BYTES}")
            group_of_clip, sizes = _joined(group_of_clip, np.unique(contents, return_inverse=True)[1])
        clips_by_group, ends = np.argsort(group_of_clip, kind="stable"), np.cumsum(sizes)
        label_sets = list(self._numbers)

        num_labels = [Counter[str]() for _ in shares]
        num_clips = [0] * len(shares)
        part_of_clip = np.empty(len(self), dtype=np.int64)
        for group in np.argsort(-sizes, kind="stable"):
            clips = clips_by_group[ends[group] - sizes[group] : ends[group]]
            labels = [label for clip in clips for label in label_sets[self._labels[clip]]]
            part = min(
                range(len(shares)),
                key=lambda part: (
                    sum(num_labels[part][label] for label in labels) / shares[part],
                    num_clips[part] / shares[part],
                ),
            )
            num_labels[part].update(labels)
            num_clips[part] += len(clips)
            part_of_clip[clips] = part
        return part_of_clip


def _joined(
    group_of_clip: Int64[np.ndarray, " clip"], content_of_clip: Int64[np.ndarray, " clip"]
) -> tuple[Int64[np.ndarray, " clip"], Int64[np.ndarray, " group"]]:
    """Groups of clips, and their sizes, such that copies are in one group: connected by what they share."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    num_groups, num_contents = group_of_clip.max() + 1, content_of_clip.max() + 1
    edges = (np.ones(len(group_of_clip)), (group_of_clip, num_groups + content_of_clip))
    graph = coo_array(edges, shape=(num_groups + num_contents,) * 2)
    _, component = connected_components(graph, directed=False)
    _, joined, sizes = np.unique(component[group_of_clip], return_inverse=True, return_counts=True)
    return joined, sizes
