"""millions of names and contents -> those that occur more than once, at eight bytes each."""

import hashlib
from array import array
from collections.abc import Iterable, Set

import numpy as np

from matpac.datasets.inventory import Recording

NOTHING = 0
"""Stands for what there is none of, and is never repeated."""


def digest_of(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def content_of(recording: Recording) -> int:
    """Empty and unreadable recordings have no content: there are other reasons to leave them out."""
    return int(recording.sha256[:16], 16) if recording.sha256 and recording.bytes else NOTHING


def repeated(values: "array[int]") -> Set[int]:
    ordered = np.sort(np.frombuffer(values, dtype=np.uint64))
    return set(ordered[1:][ordered[1:] == ordered[:-1]].tolist()) - {NOTHING}


def repeated_contents(recordings: Iterable[Recording]) -> Set[int]:
    return repeated(array("Q", map(content_of, recordings)))
