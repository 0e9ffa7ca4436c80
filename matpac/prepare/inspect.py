"""dataset of params.yaml -> what preparing it would do: its plan, and a look at every header.

Nothing is decoded, and nothing stays on the disk.
"""

from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

from matpac.clip import BY_DESIGN, Rejection, Task, UnusableAudio, phrase_of
from matpac.datasets.inventory import Recordings, take_inventory, write_recordings
from matpac.datasets.own.labels import PARTS
from matpac.datasets.preview import Prospect, free_bytes, prospect_of
from matpac.datasets.registry import READERS, recordings_root
from matpac.params import Dataset, LogMel, Shards
from matpac.prepare.build import recording_of
from matpac.prepare.header_check import Header, check_header
from matpac.prepare.plan import NUM_EXAMPLES, Census, batches_of, clips_in_parts, is_listed, write_plan
from matpac.progress import Progress, counted
from matpac.shards.leaks import Example, Overlap, as_equation, overlaps
from matpac.threads import ahead
from matpac.walk import PassedOver

JOB_RECORDINGS, WAITING_JOBS, THREADS = 64, 32, 8
BYTES_PER_VALUE = 2
T = TypeVar("T")
Row = dict[str, Any]
"""A planned clip."""


@dataclass(frozen=True)
class Lengths:
    """Lengths of clips in seconds."""

    min: float
    percentile_5: float
    median: float
    percentile_95: float
    max: float


@dataclass(frozen=True)
class Part:
    """A split or a fold."""

    name: str
    """`train`, `fold 3`, ..."""
    num_clips: int
    duration_s: float
    num_classes: int
    """Number of classes that have a clip here."""


@dataclass(frozen=True)
class Doubt:
    """Groups or contents that are in several parts, or have several labels; with examples in words."""

    num_keys: int
    num_clips: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Inspection:
    """Counts of clips that would reach the shards, as far as their headers tell."""

    dataset: str
    kind: str
    title: str
    root: str
    choices: tuple[str, ...]
    """What is taken for labels and splits of own recordings, in words."""
    num_recordings: int
    num_bytes: int
    num_clips: int
    duration_s: float
    num_rejected: dict[str, int]
    """Foreseeable rejections by the phrase of the reason, most frequent first."""
    rejected_examples: dict[str, tuple[str, ...]]
    num_counted: int
    """Rejections that count against shards.max_rejected_fraction."""
    passed_over: PassedOver
    """Files and folders that are no recordings, or that cannot be read."""
    num_notes: dict[str, int]
    """Notes on clips that would be used, by phrase, most frequent first."""
    note_examples: dict[str, tuple[str, ...]]
    num_missing: dict[str, int]
    """Number of recordings that belong to the dataset and are not here, by the list that names them."""
    num_repeated_ids: int
    """Number of ids that name several clips, which no shards can hold."""
    native_rates_hz: dict[int, int]
    """Number of clips by sample rate, most frequent first."""
    channels: dict[int, int]
    """Number of clips by number of channels, most frequent first."""
    formats: dict[str, int]
    """Number of clips by format, most frequent first."""
    lengths_s: Lengths | None
    num_unknown_lengths: int
    """Number of clips whose header does not tell the length; the duration is without them."""
    crop_s: float
    """Length of a crop for pre-training."""
    num_shorter_than_crop: int
    num_shards: int
    shards_bytes: int
    free_bytes: int
    """Free space on the disk of the shards."""
    task: Task | None
    parts: tuple[Part, ...]
    num_clips_of_class: dict[str, int]
    """Number of clips in a part by class, in the order of the classes."""
    labels_per_clip: dict[int, int]
    num_without_part: int
    """Number of clips in no split or fold, which serve pre-training only."""
    groups_in_several_parts: Doubt
    contents_in_several_parts: Doubt
    contents_with_several_labels: Doubt


def inspect_dataset(
    dataset: str, source: Dataset, logmel: LogMel, shards: Shards, crop_frames: int
) -> Inspection | Prospect:
    """An Inspection, or a Prospect if the recordings are not here yet.

    Reads all recordings once, for their checksums, and then their headers. `crop_frames` is that of
    pre-training. Raises ValueError if the dataset cannot be read at all: no recordings, a wrong table of
    labels.
    """
    prospect = prospect_of(dataset, source)
    if prospect is not None:
        return prospect
    root, reader = recordings_root(dataset, source), READERS[source.kind]
    tables: list[Path] = []
    if root.is_dir():
        tables = reader.tables(source, root)  # A missing one should not show up after hours of checksums.
    with TemporaryDirectory(prefix="matpac-inspect-") as name:
        folder = Path(name)
        progress, passed_over = Progress(f"{dataset}: checksums", 0, "recordings"), PassedOver()
        inventory = take_inventory(root, reader.stored_as, passed_over, tables)
        found = write_recordings(folder, counted(inventory, progress.advance), passed_over)
        recordings = Recordings(folder)

        rows = folder / "plan.arrow"
        items = reader.clips(source, root, recordings)
        census = write_plan(items, recordings, rows, folder / "rejected.csv", logmel, shards)
        clips = clips_in_parts(rows, census, ["labels"])

        headers = Headers(census)
        progress = Progress(f"{dataset}: headers", census.num_clips, "recordings")
        check = partial(_check, root, logmel, shards)
        # One thread reads the rows of parquet files in their order, which is fastest.
        num_threads = 1 if "parquet" in reader.stored_as else THREADS
        for row, header in counted(_in_threads(check, _rows_of(rows), num_threads), progress.advance):
            if isinstance(header, Rejection):
                headers.reject(header, row)
            else:
                headers.count(row, header, crops=header.num_frames(logmel) >= crop_frames)

        task = reader.task(source, root, census.labels, census.num_folds)
        num_unusable = sum(
            number for phrase, number in headers.num_rejected.items() if phrase not in BY_DESIGN
        )
        page = reader.page
        return Inspection(
            dataset=dataset,
            kind=source.kind,
            title=page.title if page else "",
            root=str(root),
            choices=reader.choices(source, root, recordings),
            num_recordings=found.num_recordings,
            num_bytes=found.num_bytes,
            num_clips=headers.num_clips,
            duration_s=headers.duration_s,
            num_rejected=_by_count(headers.num_rejected),
            rejected_examples={
                phrase: tuple(f"{item.path}{item.reason.removeprefix(phrase)}" for item in rejections)
                for phrase, rejections in headers.rejected_examples.items()
            },
            num_counted=num_unusable - (headers.num_unlisted if task else 0),
            passed_over=passed_over,
            num_notes=_by_count(headers.num_notes),
            note_examples={phrase: tuple(examples) for phrase, examples in headers.note_examples.items()},
            num_missing=reader.num_missing(source, root, recordings, found.num_recordings),
            num_repeated_ids=len(census.repeated_ids()),
            native_rates_hz=_by_count(headers.native_rates_hz),
            channels=_by_count(headers.channels),
            formats=_by_count(headers.formats),
            lengths_s=headers.lengths_s(),
            num_unknown_lengths=headers.num_unknown_lengths,
            crop_s=crop_frames / logmel.frames_per_s,
            num_shorter_than_crop=headers.num_shorter_than_crop,
            num_shards=-(-headers.num_clips // shards.clips_per_shard),
            shards_bytes=round(headers.duration_s * logmel.frames_per_s * logmel.num_mels * BYTES_PER_VALUE),
            free_bytes=free_bytes(),
            task=task,
            parts=_parts(headers),
            num_clips_of_class=_clips_of_class(headers, task),
            labels_per_clip=dict(sorted(headers.labels_per_clip.items())),
            num_without_part=headers.num_clips - headers.clips_of_part.total(),
            groups_in_several_parts=_doubt(overlaps(clips, "group"), _group_in_words),
            contents_in_several_parts=_doubt(overlaps(clips, "sha256"), as_equation),
            contents_with_several_labels=_doubt(
                overlaps(_with_label_sets(clips), "sha256", "label_set"), as_equation
            ),
        )


class Headers:
    """Sums over the headers of planned clips; rejections are added to those of the plan."""

    def __init__(self, census: Census) -> None:
        self.num_clips = self.num_unknown_lengths = self.num_shorter_than_crop = 0
        self.num_unlisted = 0
        """Rejections of clips without label, split and fold."""
        self.duration_s = 0.0
        self.num_rejected, self.rejected_examples = census.num_rejected, census.rejected_examples
        self.num_notes, self.note_examples = Counter[str](), defaultdict[str, list[str]](list)
        self.native_rates_hz, self.channels = Counter[int](), Counter[int]()
        self.formats = Counter[str]()
        self.clips_of_part = Counter[str]()
        self.seconds_of_part = defaultdict[str, float](float)
        self.clips_of_class = defaultdict[str, Counter[str]](Counter)
        """Number of clips by part, then by class."""
        self.labels_per_clip = Counter[int]()
        self._lengths_s = array("f")

    def reject(self, rejection: Rejection, row: Row) -> None:
        self.num_unlisted += not is_listed(row)
        phrase = phrase_of(rejection.reason)
        self.num_rejected[phrase] += 1
        if len(self.rejected_examples[phrase]) < NUM_EXAMPLES:
            self.rejected_examples[phrase].append(rejection)

    def count(self, row: Row, header: Header, *, crops: bool) -> None:
        """`crops`: whether a crop for pre-training fits into the clip."""
        self.num_clips += 1
        self.native_rates_hz[header.rate_hz] += 1
        self.channels[header.num_channels] += 1
        self.formats[header.format] += 1
        for note in header.notes:
            phrase = phrase_of(note)
            self.num_notes[phrase] += 1
            if len(self.note_examples[phrase]) < NUM_EXAMPLES:
                self.note_examples[phrase].append(f"{row['path']}{note.removeprefix(phrase)}")
        if header.num_samples is None:
            self.num_unknown_lengths += 1
        else:
            self.num_shorter_than_crop += not crops
            self.duration_s += header.duration_s
            self._lengths_s.append(header.duration_s)
        part = f"fold {row['fold']}" if row["fold"] is not None else row["split"]
        if part is not None:
            self.clips_of_part[part] += 1
            self.seconds_of_part[part] += header.duration_s
            self.clips_of_class[part].update(row["labels"])
            self.labels_per_clip[len(row["labels"])] += 1

    def lengths_s(self) -> Lengths | None:
        """None without clips."""
        if not self._lengths_s:
            return None
        values = np.frombuffer(self._lengths_s, dtype=np.float32)
        return Lengths(*np.quantile(values, (0, 0.05, 0.5, 0.95, 1)).tolist())


class Checked(NamedTuple):
    row: Row
    header: Header | Rejection


def _check(root: Path, logmel: LogMel, shards: Shards, row: Row) -> Checked:
    recording = recording_of(row)
    try:
        return Checked(row, check_header(root, recording, logmel, shards.reject))
    except UnusableAudio as error:
        return Checked(row, Rejection(recording.path, error.reason))


def _rows_of(rows: Path) -> Iterator[Row]:
    for batch in batches_of(rows):
        yield from batch.to_pylist()


def _in_threads(check: Callable[[Row], Checked], rows: Iterator[Row], num_threads: int) -> Iterator[Checked]:
    """Check rows in their order, a bounded number of them ahead."""
    parts = iter(lambda: list(islice(rows, JOB_RECORDINGS)), [])
    jobs: Iterator[Callable[[], list[Checked]]] = (partial(list, map(check, part)) for part in parts)
    return chain.from_iterable(ahead(jobs, WAITING_JOBS, num_threads))


def _by_count(counts: Counter[T]) -> dict[T, int]:
    return dict(counts.most_common())


def _parts(headers: Headers) -> tuple[Part, ...]:
    return tuple(
        Part(name, num_clips, headers.seconds_of_part[name], len(headers.clips_of_class[name]))
        for name, num_clips in sorted(headers.clips_of_part.items(), key=lambda item: _order_of_part(item[0]))
    )


def _order_of_part(name: str) -> int:
    return PARTS.index(name) if name in PARTS else int(name.removeprefix("fold "))


def _clips_of_class(headers: Headers, task: Task | None) -> dict[str, int]:
    total = sum(headers.clips_of_class.values(), Counter[str]())
    return {name: total[name] for name in (task.classes if task else ())}


def _with_label_sets(clips: pa.Table) -> pa.Table:
    """The same clips with their sorted labels as text, batch by batch to keep memory small."""
    texts = [
        pa.array([", ".join(sorted(labels)) or "none" for labels in batch["labels"].to_pylist()], pa.string())
        for batch in clips.select(["labels"]).to_batches()
    ]
    return clips.append_column("label_set", pa.chunked_array(texts, pa.string()))


def _doubt(overlap: Overlap, in_words: Callable[[Example], str]) -> Doubt:
    return Doubt(overlap.num_keys, overlap.num_clips, tuple(map(in_words, overlap.examples)))


def _group_in_words(group: Example) -> str:
    parts = sorted((place.value for place in group.places), key=_order_of_part)
    return f"{group.key} ({', '.join(parts)})"
