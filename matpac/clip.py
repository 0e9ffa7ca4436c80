"""Records that every dataset gives: clips, rejections and perhaps a task."""

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
    """Unique name in the dataset, usable as a file name: letters, digits, `_` and `-` only."""
    path: str
    """Path of the recording, relative to the dataset's root, with forward slashes."""
    labels: tuple[str, ...] = ()
    split: SplitName | None = None
    fold: int | None = None
    """Number of the fold, from 1, in datasets that are evaluated by cross-validation."""
    group: str | None = None
    """Name shared by clips of one source recording, artist, speaker, ..."""
    absent: tuple[str, ...] | None = None
    """Labels known not to apply; other labels that are not in `labels` were not observed.
    None if the annotation is complete: every label that is not in `labels` does not apply."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A recording that does not become a clip in a shard."""

    path: str
    """Path of the recording, relative to the root."""
    reason: str
    """A phrase of `REASONS`, perhaps with details in brackets."""


@dataclass(frozen=True, slots=True)
class Note:
    """Something odd about a recording that is a clip in a shard all the same."""

    path: str
    """Path of the recording, relative to the root."""
    note: str
    """A phrase of `NOTES`, perhaps with details in brackets."""


@dataclass(frozen=True)
class Task:
    """The task of a labelled dataset. The position of a class in `classes` is its index."""

    classes: tuple[str, ...]
    multi_label: bool
    metric: Literal["accuracy", "mAP"]
    num_folds: int | None
    """None if the dataset has train, validation and test splits."""
    official_split: bool = False
    """Whether others report scores on these splits or folds. They then stay as they are, even if a group
    or copies of a recording are in several of them; otherwise that is an error."""


def path_safe_id(path: str) -> str:
    """An id from the end of a path; a digest of the whole path keeps it unique."""
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
    "cannot be read": "The file system or its container refuses it: no permission, a dead link, a bad disk. "
    "Or its format needs FFmpeg, which is not installed.",
    "cannot be decoded": "No audio that libsndfile (WAV, FLAC, Ogg, Opus, MP3, AIFF, ...) or FFmpeg (M4A, "
    "WebM, WMA, ...) knows, or damaged.",
    "no samples": "A valid header with nothing after it.",
    "truncated": "Shorter than its own header says: a copy or download that was cut off.",
    "more than one recording": "Files glued together, or chained Ogg streams; decoders read only the first. "
    "Split them.",
    "too short": "Shorter than one analysis window.",
    "too long": "Its log-mel (or, for other encoders, its waveform) exceeds a gigabyte; cut it into pieces.",
    "not finite": "NaN or infinite samples, or energies that overflow.",
    "implausible": "Samples far beyond any loudness: a damaged file.",
    "sample rate out of range": "Slower sound, of the earth say, fills only the lowest mel bands: write it "
    "with a higher rate, as if played faster. Or a damaged header.",
    "silent": "Every sample has the same value.",
    "channels cancel": "The mean of the channels is 30 dB or more below them. Set shards.channels to left or "
    "loudest to use one of them.",
    "duplicate": "The same bytes as an earlier recording, which stays. Never in public datasets.",
    "changed": "Different bytes than in the inventory; run the download stage again.",
    "known defect": "The dataset's page names it as broken.",
    "not listed": "In no list of the dataset: a stray file, or one that its official split leaves out.",
}
NOTES = {
    "longer than its header says": "All of it is used. A recorder crashed before it wrote the size, or the "
    "size did not fit into its field.",
    "bytes that are no audio": "An MP3 that begins inside a frame, or has zeros or text around its frames. "
    "All frames are used.",
    "not at full scale": "A float file with samples far beyond 1, integers perhaps. Divide them, or rescale "
    "the file: its log-mel is shifted.",
}
"""What may be odd about a recording that is used."""
REJECT = ("silent", "truncated")
"""Reasons to leave out audio that can be decoded, unless the caller wants it."""
BY_DESIGN = ("duplicate", "known defect", "not listed")
"""Reasons that do not count against shards.max_rejected_fraction: nothing is wrong with the copy."""
FEWEST_TOO_MANY = 3
"""So many recordings must be unusable before any limit but 0 stops a dataset: one of 99 is an accident."""


def too_many(num_unusable: int, num_clips: int, limit: float) -> bool:
    """Whether the unusable recordings exceed `limit`, as a share of them and of the clips that are left."""
    fewest = FEWEST_TOO_MANY if limit else 1
    return num_unusable >= fewest and num_unusable > limit * (num_clips + num_unusable)


def phrase_of(text: str) -> str:
    """The phrase of `REASONS` or `NOTES` that a reason or a note begins with. Raises KeyError without one."""
    for phrase in (*REASONS, *NOTES):
        if text == phrase or text.startswith(f"{phrase} ("):
            return phrase
    raise KeyError(text)
