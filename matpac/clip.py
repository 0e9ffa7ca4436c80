"""What every dataset gives: clips, and perhaps a task to solve on them."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

SplitName = Literal["train", "validation", "test"]


@dataclass(frozen=True, slots=True)
class Clip:
    """One recording of a dataset."""

    id: str
    """Unique in its dataset; letters, digits, `_` and `-` only, so that it can name a file."""
    path: str
    """Of the recording, relative to the dataset's root, with forward slashes."""
    labels: tuple[str, ...] = ()
    split: SplitName | None = None
    fold: int | None = None
    """From 1, in datasets that are evaluated by cross-validation."""
    group: str | None = None
    """Clips cut from one source recording (or by one artist, speaker, ...) share a group."""
    absent: tuple[str, ...] | None = None
    """Labels known not to apply; what is neither here nor in `labels` was not observed.
    None where the annotation is complete: whatever is not in `labels` does not apply."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A recording that does not become a clip in a shard."""

    path: str
    """Relative to the root of the recordings."""
    reason: str
    """A phrase of `REASONS`, and perhaps details in brackets."""


@dataclass(frozen=True)
class Task:
    """What a labelled dataset asks for. The position of a class in `classes` is its index."""

    classes: tuple[str, ...]
    multi_label: bool
    metric: Literal["accuracy", "mAP"]
    num_folds: int | None
    """None where the dataset has train, validation and test splits."""
    official_split: bool = False
    """Whether splits or folds are those that others report scores on. They stay as they are, also where they
    put one group or two copies of a recording into several; else that is an error."""


def path_safe_id(path: str) -> str:
    """The end of the path, without its suffix, made safe; a digest of the whole path keeps it unique."""
    stem = PurePosixPath(path).with_suffix("").as_posix()
    safe = re.sub(r"[^A-Za-z0-9_-]+", "_", stem)[-80:].strip("_")
    return f"{safe}-{hashlib.sha256(path.encode()).hexdigest()[:12]}"


def digest64(text: str) -> int:
    """Eight bytes that stand for a name in memory, for millions of names."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


class UnusableAudio(Exception):
    """A recording that cannot become a log-mel. The reason is a short phrase for a table."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


REASONS = {
    "cannot be read": "The file system or its container refuses it: no permission, a dead link, a bad disk.",
    "cannot be decoded": "No audio that libsndfile knows (WAV, FLAC, Ogg, Opus, MP3, AIFF, ...), or damaged.",
    "no samples": "A valid header and nothing behind it.",
    "truncated": "Shorter than its own header says: a copy or download that was cut off.",
    "too short": "Shorter than one analysis window.",
    "too long": "More samples than fit into memory at once; cut it into pieces.",
    "not finite": "NaN or infinite samples, or energies that overflow.",
    "implausible": "A sample rate or loudness that no recording has: a damaged header.",
    "silent": "Every sample has the same value.",
    "duplicate": "The same bytes as a recording before it, which stands for both. Not in public datasets.",
    "changed": "Other bytes than when the inventory was taken; run the download stage again.",
    "known defect": "The dataset's page names it as broken.",
    "not listed": "In no list of the dataset: a stray file, or one that its official split leaves out.",
}
BY_DESIGN = ("duplicate", "known defect", "not listed")
"""Reasons that do not count against shards.max_rejected_fraction: nothing is wrong with the copy."""


def phrase_of(reason: str) -> str:
    """The documented phrase that a reason begins with. Raises KeyError where there is none."""
    for phrase in REASONS:
        if reason == phrase or reason.startswith(f"{phrase} ("):
            return phrase
    raise KeyError(reason)
