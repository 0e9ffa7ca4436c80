"""Inspection or Prospect -> text for a terminal, warnings first; or JSON."""

import json
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

from matpac.clip import BY_DESIGN, too_many
from matpac.datasets.own.doubts import doubts_about
from matpac.datasets.own.labels import PARTS
from matpac.datasets.preview import Prospect
from matpac.params import Pretrain, Shards
from matpac.prepare.inspect import Doubt, Inspection
from matpac.prepare.publish import classes_in_words
from matpac.progress import duration, in_columns, printable, size
from matpac.shards.leaks import WAYS_OUT
from matpac.walk import ARCHIVES, NO_PERMISSION, kind_in_words

OWN = ("folder", "tar", "parquet")
"""Kinds whose splits and labels are the user's to correct."""
OFFICIAL = "That is the official split: compare scores only with others that use it."
FEW = 0.05
"""Share of clips too short for a crop that needs no change of parameters."""
NUM_SHOWN = 4
"""Number of rates, formats, classes ... shown of a list."""
WIDTH = min(100, shutil.get_terminal_size((100, 24)).columns)
CHANNELS = {1: "mono", 2: "stereo"}


def json_of(found: Inspection | Prospect, shards: Shards, pretrain: Pretrain) -> str:
    content = {"here": isinstance(found, Inspection), **asdict(found)}
    return json.dumps(content | {"warnings": list(warnings_of(found, shards, pretrain))}, indent=2)


def text_of(found: Inspection | Prospect, shards: Shards, pretrain: Pretrain) -> str:
    title = f"{found.title}, kind {found.kind}" if found.title else f"kind {found.kind}"
    warnings = list(warnings_of(found, shards, pretrain))
    paragraphs = [_wrapped(f"{found.dataset}: {title}")]
    if isinstance(found, Prospect):
        paragraphs[0] += "\nNot here yet. Nothing has been downloaded or written."
    else:
        paragraphs[0] += f"\nRead from {printable(found.root)}; nothing has been written."
    paragraphs += [_wrapped(f"! {warning}", "  ") for warning in warnings]
    paragraphs += _of_prospect(found) if isinstance(found, Prospect) else _of_inspection(found)
    if isinstance(found, Inspection) and not warnings:
        paragraphs.append("No warnings.")
    return "\n\n".join(paragraphs)


def warnings_of(found: Inspection | Prospect, shards: Shards, pretrain: Pretrain) -> Iterator[str]:
    """Problems and what to do about them, the worst first."""
    if isinstance(found, Prospect):
        if found.needed_bytes - found.begun_bytes > found.free_bytes:
            yield (
                f"Too little room: {size(found.needed_bytes)} are needed, {size(found.free_bytes)} "
                "are free. Make room, or let data/audio be a link to a larger disk."
            )
        return
    yield from _of_rejections(found, shards)
    yield from _of_passed_over(found)
    if found.num_notes:
        yield "Some clips are odd and would be used all the same. The notes stand below."
    if found.num_rejected.get("not listed", 0) > found.num_clips:
        yield (
            f"Most files here are in no list of {found.title or found.dataset}. Does `source` name the right "
            "folder, or one above it?"
        )
    if found.num_missing:
        counts = ", ".join(f"{number:,} recordings of {name}" for name, number in found.num_missing.items())
        yield f"Not here: {counts}. Scores do not compare with those of the complete dataset."
    if found.num_repeated_ids:
        yield (
            f"{found.num_repeated_ids:,} ids name several clips, so the stage `shards` would fail. Remove "
            "one of the copies."
        )
    yield from _of_doubts(found, shards)
    yield from _of_classes(found)
    yield from _of_crops(found, pretrain)
    if found.shards_bytes > found.free_bytes:
        yield (
            f"Too little room: the shards take {size(found.shards_bytes)}, {size(found.free_bytes)} are free."
        )


def _of_rejections(found: Inspection, shards: Shards) -> Iterator[str]:
    unusable = {name: number for name, number in found.num_rejected.items() if name not in BY_DESIGN}
    num_unusable = sum(unusable.values())
    if found.num_clips == 0:
        yield "No clip is left, so the stage `shards` would fail. The reasons stand below."
    elif num_unusable:
        num_all = found.num_clips + num_unusable
        limit = shards.max_rejected_fraction
        text = f"{num_unusable:,} of {num_all:,} clips ({num_unusable / num_all:.1%}) cannot be used"
        if too_many(found.num_counted, found.num_clips, limit):
            yield (
                f"{text}, over the limit of {limit:.1%}: the stage `shards` would fail. Mend or remove them, "
                "or raise shards.max_rejected_fraction in params.yaml."
            )
        else:
            free = num_unusable - found.num_counted
            why = f"; {free:,} have no label and do not count against the limit" if free else ""
            yield f"{text} and would be left out{why}. Mend them, or let them go."


def _of_passed_over(found: Inspection) -> Iterator[str]:
    passed_over = found.passed_over
    if names := passed_over.examples.get(NO_PERMISSION):
        number = passed_over.number[NO_PERMISSION]
        more = " and others" if number > len(names) else ""
        yield (
            f"No permission to read {', '.join(names)}{more}: recordings there are missing. Work as the "
            "owner, or be given the rights."
        )
    archives = [
        f"{number:,} {kind} ({passed_over.examples[kind][0]}{', ...' * (number > 1)})"
        for kind, number in passed_over.by_number().items()
        if kind in ARCHIVES
    ]
    if archives:
        yield (
            f"Archives are not read: {', '.join(archives)}. Unpack those that hold recordings; kind tar "
            "reads .tar."
        )


def _of_doubts(found: Inspection, shards: Shards) -> Iterator[str]:
    is_own = found.kind in OWN
    unit = "folds" if found.task and found.task.num_folds else "splits"
    doubt = found.contents_in_several_parts
    if doubt.num_keys:
        what = _doubtful(doubt, "recording", f"in several {unit}")
        if is_own:
            yield f"Leak: {what} The stage `shards` would fail, and list them all. {WAYS_OUT}"
        else:
            yield f"{what} {OFFICIAL}"
    doubt = found.groups_in_several_parts
    if doubt.num_keys:
        what = _doubtful(doubt, "group", f"in several {unit}")
        if is_own:
            yield (
                f"Leak: {what} The stage `shards` would fail. Put each group into one of them, or set splits "
                "to none: clips are then divided, and groups kept whole."
            )
        else:
            yield f"{what} {OFFICIAL}"
    doubt = found.contents_with_several_labels
    if doubt.num_keys:
        todo = "Correct the labels." if is_own else "They are in the official lists."
        yield f"{_doubtful(doubt, 'recording', 'with different labels')} {todo}"


def _doubtful(doubt: Doubt, noun: str, trouble: str) -> str:
    """`12 groups in several splits (60 clips): a; b; c; and 9 more.`"""
    number = f"{doubt.num_keys:,} {noun}{'s' if doubt.num_keys > 1 else ''}"
    num_more = doubt.num_keys - len(doubt.examples)
    examples = "; ".join([*doubt.examples, *([f"and {num_more:,} more"] if num_more else [])])
    return f"{number} {trouble} ({doubt.num_clips:,} clips): {examples}."


def _of_classes(found: Inspection) -> Iterator[str]:
    if found.task is None:
        return
    if found.kind in OWN:
        yield from (f"{doubt}." for doubt in doubts_about(found.task))
    num_classes = len(found.task.classes)
    names = {part.name for part in found.parts}
    absent = [] if found.task.num_folds else [name for name in PARTS if name not in names]
    if absent:
        yield f"No clip in {', '.join(absent)}: it can serve pre-training, but not be probed."
    lacking = [
        f"{num_classes - part.num_classes:,} in {part.name}"
        for part in found.parts
        if part.num_classes < num_classes
    ]
    if lacking:
        yield (
            f"Classes without a clip: {', '.join(lacking)}, of {num_classes:,}. They can be neither learned "
            "nor scored there."
        )


def _of_crops(found: Inspection, pretrain: Pretrain) -> Iterator[str]:
    is_used = found.dataset in pretrain.datasets and pretrain.short_clips == "drop"
    if is_used and found.num_shorter_than_crop > FEW * found.num_clips:
        yield (
            f"Pre-training would drop {found.num_shorter_than_crop:,} of {found.num_clips:,} clips, which "
            f"are shorter than a crop ({found.crop_s:.2f} s). Lower pretrain.crop_frames, or set "
            "pretrain.short_clips to pad."
        )


def _of_prospect(found: Prospect) -> list[str]:
    facts = [
        ("comes from", found.comes_from),
        ("licence", found.license),
        ("cite", found.citation),
        ("clips", f"{found.num_clips:,}"),
        ("task", _task_line(found)),
        ("download", f"about {size(found.download_bytes)}" if found.download_bytes else ""),
        ("begun", f"{size(found.begun_bytes)} are here already" if found.begun_bytes else ""),
        ("disk", f"about {size(found.needed_bytes)} needed, {size(found.free_bytes)} free"),
        ("goes to", found.root),
    ]
    return [_facts(facts), _wrapped(found.todo)]


def _task_line(found: Prospect) -> str:
    if found.num_classes is None:
        return ""
    return f"{found.num_classes:,} classes, {found.protocol}, {found.metric}"


def _of_inspection(found: Inspection) -> list[str]:
    num_left_out = sum(found.num_rejected.values())
    is_mixed = found.parts and found.num_without_part
    facts = [
        ("recordings", f"{found.num_recordings:,}, {size(found.num_bytes)}"),
        ("clips", f"{found.num_clips:,}, {duration(found.duration_s)}"),
        ("left out", f"{num_left_out:,}, as far as headers tell"),
        ("not read", found.passed_over.in_words()),
        (
            "shards",
            f"{found.num_shards:,}, {size(found.shards_bytes)}; {size(found.free_bytes)} free",
        ),
        ("rates", _counts({f"{rate:,} Hz": number for rate, number in found.native_rates_hz.items()}, found)),
        ("channels", _counts({_channels(number): clips for number, clips in found.channels.items()}, found)),
        ("formats", _counts(found.formats, found)),
        ("lengths", _lengths(found)),
        ("crops", _short(found)),
        ("read as", "; ".join(found.choices)),
        ("task", _task(found)),
        ("labels", _labels(found)),
        ("classes", _balance(found)),
        ("no split", f"{found.num_without_part:,} clips, which serve pre-training only" if is_mixed else ""),
    ]
    paragraphs = [_facts(facts)]
    if found.num_rejected:
        paragraphs.append(_by_phrase("Left out:", found.num_rejected, found.rejected_examples))
    if numbers := found.passed_over.by_number():
        counts = {kind_in_words(kind): number for kind, number in numbers.items()}
        examples = {kind_in_words(kind): names for kind, names in found.passed_over.examples.items()}
        paragraphs.append(_by_phrase("Passed over:", counts, examples))
    if found.num_notes:
        paragraphs.append(_by_phrase("Used, with a note:", found.num_notes, found.note_examples))
    if found.parts:
        paragraphs.append(_parts(found))
    return paragraphs


def _counts(counts: Mapping[str, int], found: Inspection) -> str:
    """`44,100 Hz` if all are alike, otherwise with numbers of clips."""
    if len(counts) == 1 and found.num_clips:
        return next(iter(counts))
    shown = [f"{name} ({number:,})" for name, number in list(counts.items())[:NUM_SHOWN]]
    rest = list(counts.values())[NUM_SHOWN:]
    return ", ".join(shown + ([f"{len(rest)} more ({sum(rest):,})"] if rest else []))


def _channels(number: int) -> str:
    return CHANNELS.get(number, f"{number} channels")


def _lengths(found: Inspection) -> str:
    lengths = found.lengths_s
    if lengths is None:
        return ""
    if lengths.min == lengths.max:
        return f"{lengths.min:.2f} s each"
    unknown = f"; {found.num_unknown_lengths:,} not told by the header" if found.num_unknown_lengths else ""
    return (
        f"{lengths.min:.2f} to {lengths.max:.2f} s, median {lengths.median:.2f} s; "
        f"nine in ten from {lengths.percentile_5:.2f} to {lengths.percentile_95:.2f} s{unknown}"
    )


def _short(found: Inspection) -> str:
    number = f"{found.num_shorter_than_crop:,}" if found.num_shorter_than_crop else "no"
    return f"{number} clips are shorter than one for pre-training ({found.crop_s:.2f} s)"


def _task(found: Inspection) -> str:
    if found.task is None:
        return "none: for pre-training only"
    labels = "several labels" if found.task.multi_label else "one label"
    return f"{len(found.task.classes):,} classes, {labels} per clip, {found.task.metric}"


def _labels(found: Inspection) -> str:
    if found.task is None or not found.task.multi_label:
        return ""
    counts = list(found.labels_per_clip.items())
    mean = sum(labels * clips for labels, clips in counts) / max(sum(clips for _, clips in counts), 1)
    none = found.labels_per_clip.get(0, 0)
    return f"{mean:.2f} per clip, at most {max(found.labels_per_clip, default=0)}; {none:,} clips without any"


def _balance(found: Inspection) -> str:
    counts = found.num_clips_of_class
    if not counts:
        return ""
    return classes_in_words(counts)


def _by_phrase(title: str, counts: Mapping[str, int], found: Mapping[str, Sequence[str]]) -> str:
    """Numbers of recordings by reason or note, with examples."""
    lines = [title]
    for phrase, number in counts.items():
        examples = found[phrase]
        lines += [f"{number:>8,}  {phrase}", *(f"          {printable(example)}" for example in examples)]
        if number > len(examples):
            lines.append("          ...")
    return "\n".join(lines)


def _parts(found: Inspection) -> str:
    num_classes = len(found.task.classes) if found.task else 0
    rows = [
        [
            part.name,
            f"{part.num_clips:,}",
            duration(part.duration_s),
            f"{part.num_classes:,} of {num_classes:,}",
        ]
        for part in found.parts
    ]
    return "\n".join(in_columns([["", "clips", "length", "classes"], *rows], right={1, 2, 3}))


def _facts(facts: list[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in facts)
    return "\n".join(
        textwrap.fill(
            printable(text),
            WIDTH,
            initial_indent=f"{name:<{width}}  ",
            subsequent_indent=" " * (width + 2),
            break_long_words=False,
            break_on_hyphens=False,
        )
        for name, text in facts
        if text
    )


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(
        printable(text), WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
