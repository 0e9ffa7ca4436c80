"""dataset of params.yaml -> what preparing it would do. Nothing is decoded, nothing stays on the disk."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, TypeVar

from matpac.clip import Clip, Rejection, Task, UnusableAudio
from matpac.datasets.inventory import Recording, Recordings, take_inventory, write_recordings
from matpac.datasets.own.labels import PARTS
from matpac.datasets.preview import Prospect, free_bytes, prospect_of
from matpac.datasets.registry import READERS, recordings_root
from matpac.params import Dataset, LogMel, Shards
from matpac.prepare.header_check import Header, foresee, num_frames
from matpac.prepare.repeats import repeated_contents
from matpac.prepare.survey import Lengths, Overlap, Survey, part_of
from matpac.progress import Progress, counted
from matpac.threads import ahead

JOB_RECORDINGS, WAITING_JOBS, THREADS = 64, 32, 8
BYTES_PER_VALUE = 2
T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """A split or a fold."""

    name: str
    """`train`, `fold 3`, ..."""
    num_clips: int
    duration_s: float
    num_classes: int
    """That have a clip here."""


@dataclass(frozen=True)
class Doubt:
    """Groups or contents that stand in several places, with examples in words."""

    num_keys: int
    num_clips: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Inspection:
    """Counts are of clips that would reach the shards, as far as their headers tell."""

    dataset: str
    kind: str
    title: str
    root: str
    num_recordings: int
    num_bytes: int
    num_clips: int
    duration_s: float
    num_rejected: dict[str, int]
    """Foreseeable, by the phrase of the reason, most frequent first."""
    rejected_examples: dict[str, tuple[str, ...]]
    num_missing: dict[str, int]
    """Of what the dataset consists of and is not here, by the list that names it."""
    num_repeated_ids: int
    """Ids that name several clips, which no shards can hold."""
    native_rates_hz: dict[int, int]
    channels: dict[int, int]
    formats: dict[str, int]
    """Of these three: the number of clips, most frequent first."""
    lengths_s: Lengths | None
    num_unknown_lengths: int
    """Clips whose header does not tell it; the duration is without them."""
    crop_s: float
    """Length of a crop for pre-training."""
    num_shorter_than_crop: int
    num_shards: int
    shards_bytes: int
    free_bytes: int
    """On the disk that shards are written to."""
    task: Task | None
    parts: tuple[Part, ...]
    num_clips_of_class: dict[str, int]
    """Of the clips in a part, in the order of the classes."""
    labels_per_clip: dict[int, int]
    num_without_part: int
    """Clips in no split or fold, which serve pre-training only."""
    groups_in_several_parts: Doubt
    contents_in_several_parts: Doubt
    contents_with_several_labels: Doubt


def inspect_dataset(
    dataset: str, source: Dataset, logmel: LogMel, shards: Shards, crop_frames: int
) -> Inspection | Prospect:
    """A Prospect where the recordings are not here yet.

    Reads all recordings once, for their checksums, and then their headers; `crop_frames` as in pre-training.
    Raises ValueError where the dataset cannot be read at all: no recordings, a wrong table of labels.
    """
    prospect = prospect_of(dataset, source)
    if prospect is not None:
        return prospect
    root, reader = recordings_root(dataset, source), READERS[source.kind]
    if root.is_dir():
        reader.tables(source, root)  # A missing table should not show up after hours of checksums.
    with TemporaryDirectory(prefix="matpac-inspect-") as folder:
        progress = Progress(f"{dataset}: checksums", 0, "recordings")
        found = write_recordings(
            Path(folder), counted(take_inventory(root, reader.stored_as), progress.advance)
        )
        recordings = Recordings(Path(folder))

        survey = Survey(repeated_contents(recordings) if "duplicate" in shards.reject else set())
        progress = Progress(f"{dataset}: headers", found.num_recordings, "recordings")
        pairs = zip(reader.clips(source, root, recordings), recordings, strict=True)
        look = partial(_look, root, logmel, shards)
        # One thread reads the rows of parquet files in their order, which is fastest.
        looks = _in_threads(look, pairs, 1 if "parquet" in reader.stored_as else THREADS)
        for item, recording, header in counted(looks, progress.advance):
            crops = isinstance(header, Header) and num_frames(header, logmel) >= crop_frames
            survey.count(item, recording, header, crops=crops)

        def doubt(overlap: Overlap, name: Callable[[list[Clip]], str]) -> Doubt:
            return _doubt(overlap, reader.clips(source, root, recordings), name)

        task = reader.task(source, root, survey.labels, survey.num_folds)
        page = reader.page
        return Inspection(
            dataset=dataset,
            kind=source.kind,
            title=page.title if page else "",
            root=str(root),
            num_recordings=found.num_recordings,
            num_bytes=found.num_bytes,
            num_clips=survey.num_clips,
            duration_s=survey.duration_s,
            num_rejected=_by_count(survey.num_rejected),
            rejected_examples={
                phrase: tuple(f"{item.path}{item.reason.removeprefix(phrase)}" for item in items)
                for phrase, items in survey.rejected_examples.items()
            },
            num_missing=reader.num_missing(source, root, recordings, found.num_recordings),
            num_repeated_ids=survey.num_repeated_ids(),
            native_rates_hz=_by_count(survey.native_rates_hz),
            channels=_by_count(survey.channels),
            formats=_by_count(survey.formats),
            lengths_s=survey.lengths_s(),
            num_unknown_lengths=survey.num_unknown_lengths,
            crop_s=crop_frames / logmel.frames_per_s,
            num_shorter_than_crop=survey.num_shorter_than_crop,
            num_shards=-(-survey.num_clips // shards.clips_per_shard),
            shards_bytes=round(survey.duration_s * logmel.frames_per_s * logmel.num_mels * BYTES_PER_VALUE),
            free_bytes=free_bytes(),
            task=task,
            parts=_parts(survey),
            num_clips_of_class=_clips_of_class(survey, task),
            labels_per_clip=dict(sorted(survey.labels_per_clip.items())),
            num_without_part=survey.num_clips - survey.num_in_parts,
            groups_in_several_parts=doubt(survey.groups_in_several_parts(), _name_group),
            contents_in_several_parts=doubt(survey.contents_in_several_parts(), _name_parts),
            contents_with_several_labels=doubt(survey.contents_with_several_labels(), _name_labels),
        )


class _Look(NamedTuple):
    item: Clip | Rejection
    recording: Recording
    header: Header | Rejection


def _look(root: Path, logmel: LogMel, shards: Shards, pair: tuple[Clip | Rejection, Recording]) -> _Look:
    item, recording = pair
    if isinstance(item, Rejection):
        return _Look(item, recording, item)
    try:
        return _Look(item, recording, foresee(root, recording, logmel, shards.reject))
    except UnusableAudio as error:
        return _Look(item, recording, Rejection(recording.path, error.reason))


def _in_threads(
    look: Callable[[tuple[Clip | Rejection, Recording]], _Look],
    pairs: Iterable[tuple[Clip | Rejection, Recording]],
    num_threads: int,
) -> Iterator[_Look]:
    """In the order of the pairs; a bounded number of them is on its way."""
    pairs = iter(pairs)
    parts = iter(lambda: list(islice(pairs, JOB_RECORDINGS)), [])
    jobs: Iterator[Callable[[], list[_Look]]] = (partial(list, map(look, part)) for part in parts)
    return chain.from_iterable(ahead(jobs, WAITING_JOBS, num_threads))


def _by_count(counts: Counter[T]) -> dict[T, int]:
    return dict(counts.most_common())


def _parts(survey: Survey) -> tuple[Part, ...]:
    return tuple(
        Part(name, survey.clips_of_part[name], survey.seconds_of_part[name], len(survey.clips_of_class[name]))
        for name in sorted(survey.clips_of_part, key=_order_of_part)
    )


def _order_of_part(name: str) -> int:
    return PARTS.index(name) if name in PARTS else int(name.removeprefix("fold "))


def _clips_of_class(survey: Survey, task: Task | None) -> dict[str, int]:
    total = sum(survey.clips_of_class.values(), Counter[str]())
    return {name: total[name] for name in (task.classes if task else ())}


def _doubt(overlap: Overlap, items: Iterator[Clip | Rejection], name: Callable[[list[Clip]], str]) -> Doubt:
    """Goes through the clips once more for the names of a few, since no names were kept."""
    wanted = {row for rows in overlap.rows for row in rows}
    clips: dict[int, Clip] = {}
    if wanted:
        for row, item in enumerate(islice(items, max(wanted) + 1)):
            if row in wanted and isinstance(item, Clip):
                clips[row] = item
    examples = tuple(name([clips[row] for row in rows]) for rows in overlap.rows)
    return Doubt(overlap.num_keys, overlap.num_clips, examples)


def _name_group(clips: list[Clip]) -> str:
    parts = sorted((part_of(clip) or "" for clip in clips), key=_order_of_part)
    return f"{clips[0].group} ({', '.join(parts)})"


def _name_parts(clips: list[Clip]) -> str:
    return " = ".join(f"{clip.path} ({part_of(clip)})" for clip in clips)


def _name_labels(clips: list[Clip]) -> str:
    return " = ".join(f"{clip.path} ({', '.join(clip.labels) or 'none'})" for clip in clips)
