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
from matpac.clip import REASONS
from matpac.prepare.publish import Summary
from matpac.progress import duration
from matpac.shards.folder import read_logmel, sample

NUM_PICTURES = 6
PICTURE_FRAMES = 400


def describe(summary: Summary) -> str:
    """One line for the terminal."""
    made = f"{summary.num_clips:,} clips, {duration(summary.duration_s)}, in {summary.num_shards:,} shards"
    reasons = ", ".join(f"{number:,} {reason}" for reason, number in summary.num_rejected.items())
    left_out = f"left out: {reasons} (rejected.csv)" if reasons else "nothing left out"
    return "; ".join([made, left_out, *map(describe_leak, summary.official_leaks)])


def describe_leak(leak: str) -> str:
    return f"in the official split, which stays as it is: {leak}"


def count_rejected(dataset: str, num_rejected: Mapping[str, int], num_clips: int | None = None) -> None:
    """Show a table of counts; `num_clips` is the number in the shards, if they were finished."""
    counts = [("in shards", num_clips)] if num_clips is not None else []
    counts += [("rejected", sum(num_rejected.values()))]
    counts += [(f"rejected: {reason}", count) for reason, count in num_rejected.items()]
    prefect_ui.table("shards", dataset, [{"clips": what, "number": count} for what, count in counts])


def about_shards(dataset: str, out: Path, summary: Summary) -> None:
    """Show a table of counts and rejections, and a page with a few spectrograms."""
    count_rejected(dataset, summary.num_rejected, summary.num_clips)
    create_markdown_artifact(
        page_of(dataset, summary, out), key=prefect_ui.key_of("shards", dataset, "summary")
    )


def page_of(dataset: str, summary: Summary, folder: Path) -> str:
    num_rejected = sum(summary.num_rejected.values())
    reasons = "\n".join(
        f"| {reason} | {number:,} | {REASONS[reason]} |" for reason, number in summary.num_rejected.items()
    )
    examples = "\n".join(f"- `{rejection.path}`: {rejection.reason}" for rejection in summary.examples)
    rejected = f"| reason | clips | what it means |\n|---|---|---|\n{reasons}\n\n{examples}"
    leaks = "".join(f"- {describe_leak(leak)}\n" for leak in summary.official_leaks)
    audio = f"{duration(summary.duration_s)} of audio, {summary.num_frames:,} frames"
    return f"""# {dataset}

{summary.num_clips:,} clips in {summary.num_shards:,} shards: {audio}.

Mean {summary.mean:.4f}, standard deviation {summary.std:.4f}.

## Rejected: {num_rejected:,}

{rejected if num_rejected else "None."}

{leaks}
## A few clips

{pictures(folder)}
"""


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
