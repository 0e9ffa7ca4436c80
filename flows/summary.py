"""shard folder -> its summary for people: a line, a table of counts, a page with spectrograms."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float16, UInt8
from PIL import Image
from prefect.artifacts import create_markdown_artifact

from flows import prefect_ui
from matpac.clip import NOTES, REASONS
from matpac.prepare.publish import Summary, classes_in_words
from matpac.progress import duration
from matpac.shards.folder import read_logmel, sample
from matpac.walk import PassedOver, kind_in_words

NUM_PICTURES = 6
PICTURE_FRAMES = 400


def describe(summary: Summary) -> str:
    """One line for the terminal."""
    made = f"{summary.num_clips:,} clips, {duration(summary.duration_s)}, in {summary.num_shards:,} shards"
    reasons = ", ".join(f"{number:,} {reason}" for reason, number in summary.num_rejected.items())
    left_out = f"left out: {reasons} (rejected.csv)" if reasons else "nothing left out"
    noted = ", ".join(f"{number:,} {note}" for note, number in summary.num_notes.items())
    used = [f"used, with a note: {noted} (notes.csv)"] if noted else []
    leaks = map(describe_leak, summary.official_leaks)
    others = summary.passed_over.in_words()
    passed = [f"passed over: {others}"] if others else []
    return "; ".join([made, left_out, *used, *passed, *leaks, *summary.choices, *_classes(summary)])


def _classes(summary: Summary) -> list[str]:
    counts = summary.num_clips_of_class
    return [f"{len(counts):,} classes: {classes_in_words(counts)}"] if counts else []


def describe_leak(leak: str) -> str:
    return f"in the official split, which stays as it is: {leak}"


def count_rejected(
    dataset: str,
    num_rejected: Mapping[str, int],
    num_clips: int | None = None,
    num_notes: Mapping[str, int] | None = None,
) -> None:
    """Show a table of counts. If the shards were finished, `num_clips` is the number of clips in them."""
    counts = [("in shards", num_clips)] if num_clips is not None else []
    counts += [("rejected", sum(num_rejected.values()))]
    counts += [(f"rejected: {reason}", count) for reason, count in num_rejected.items()]
    counts += [(f"note: {note}", count) for note, count in (num_notes or {}).items()]
    prefect_ui.table("shards", dataset, [{"clips": what, "number": count} for what, count in counts])


def about_shards(dataset: str, out: Path, summary: Summary) -> None:
    """Show a table of counts and rejections, and a page with a few spectrograms."""
    count_rejected(dataset, summary.num_rejected, summary.num_clips, summary.num_notes)
    create_markdown_artifact(
        page_of(dataset, summary, out), key=prefect_ui.key_of("shards", dataset, "summary")
    )


def page_of(dataset: str, summary: Summary, folder: Path) -> str:
    num_rejected, num_notes = (sum(counts.values()) for counts in (summary.num_rejected, summary.num_notes))
    rejected = table_of("reason", summary.num_rejected, REASONS)
    rejected += "".join(f"\n- `{rejection.path}`: {rejection.reason}" for rejection in summary.examples)
    notes = table_of("note", summary.num_notes, NOTES)
    notes += "".join(f"\n- `{note.path}`: {note.note}" for note in summary.note_examples)
    passed_over = summary.passed_over
    leaks = "".join(f"- {describe_leak(leak)}\n" for leak in summary.official_leaks)
    choices = "".join(f"- {choice}\n" for choice in (*summary.choices, *_classes(summary)))
    audio = f"{duration(summary.duration_s)} of audio, {summary.num_frames:,} frames"
    return f"""# {dataset}

{summary.num_clips:,} clips in {summary.num_shards:,} shards: {audio}.

{choices}
Mean {summary.mean:.4f}, standard deviation {summary.std:.4f}.

## Rejected: {num_rejected:,}

{rejected if num_rejected else "None."}

## Used, with a note: {num_notes:,}

{notes if num_notes else "None."}

## Passed over: {passed_over.total():,}

{table_of_passed_over(passed_over) if passed_over else "Nothing."}

{leaks}
## A few clips

{pictures(folder)}
"""


def table_of(name: str, counts: Mapping[str, int], meanings: Mapping[str, str]) -> str:
    rows = "".join(f"| {phrase} | {number:,} | {meanings[phrase]} |\n" for phrase, number in counts.items())
    return f"| {name} | clips | what it means |\n|---|---|---|\n{rows}"


def table_of_passed_over(passed_over: PassedOver) -> str:
    rows = ""
    for kind, number in passed_over.by_number().items():
        names = ", ".join(f"`{name}`" for name in passed_over.examples[kind])
        rows += f"| {kind_in_words(kind)} | {number:,} | {names} |\n"
    return f"| kind | number | examples |\n|---|---|---|\n{rows}"


def pictures(folder: Path) -> str:
    """The first seconds of clips from all over the dataset."""
    logmel = read_logmel(folder)
    lines = [
        f"Up to {PICTURE_FRAMES / logmel.frames_per_s:.1f} s from left to right, {logmel.fmin_hz:,.0f} Hz at "
        f"the bottom to {logmel.fmax_hz:,.0f} Hz at the top, darker is louder."
    ]
    for name, frames in sample(folder, NUM_PICTURES):
        image = base64.b64encode(png(darkness(frames[:PICTURE_FRAMES].T))).decode()
        # A data URL holds the picture itself.
        lines += [f"`{name}`", f"![Log-mel spectrogram](data:image/png;base64,{image})"]
    return "\n\n".join(lines)


def darkness(log_mel: Float16[np.ndarray, "mel frame"]) -> UInt8[np.ndarray, "row column"]:
    """Pixels: black is loud, high frequencies at the top, 2 x 2 pixels a value."""
    low, high = np.percentile(log_mel.astype(np.float32), [1, 99.5])
    loudness = np.clip((log_mel[::-1] - low) / max(high - low, 1e-6), 0, 1)
    pixels: UInt8[np.ndarray, "row column"] = np.round(255 * (1 - loudness)).astype(np.uint8)
    return pixels.repeat(2, 0).repeat(2, 1)


def png(grey: UInt8[np.ndarray, "row column"]) -> bytes:
    """Pillow, because importing matplotlib takes as long as converting a hundred clips."""
    content = io.BytesIO()
    Image.fromarray(grey).save(content, format="png")
    return content.getvalue()
