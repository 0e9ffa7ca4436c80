"""shard folder -> what a person wants to see of it, as artifacts of the run."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from prefect.artifacts import create_markdown_artifact

from flows import artifacts
from matpac.datasets.reasons import REASONS
from matpac.files import read_json
from matpac.params import LogMel
from matpac.progress import duration
from matpac.shards.finish import Summary
from matpac.shards.folder import sample

NUM_PICTURES = 6
PICTURE_FRAMES = 400


def in_words(summary: Summary) -> str:
    """One line for the terminal."""
    made = f"{summary.num_clips:,} clips, {duration(summary.duration_s)}, in {summary.num_shards:,} shards"
    reasons = ", ".join(f"{number:,} {reason}" for reason, number in summary.num_rejected.items())
    return f"{made}; left out: {reasons} (rejected.csv)" if reasons else f"{made}; nothing left out"


def count_rejected(dataset: str, num_rejected: Mapping[str, int], num_clips: int | None = None) -> None:
    """`num_clips`: in the shards, where there are any."""
    counts = [("in shards", num_clips)] if num_clips is not None else []
    counts += [("rejected", sum(num_rejected.values()))]
    counts += [(f"rejected: {reason}", count) for reason, count in num_rejected.items()]
    artifacts.table("shards", dataset, [{"clips": what, "number": count} for what, count in counts])


def about_shards(dataset: str, out: Path, summary: Summary) -> None:
    """A table of counts and rejections, and a page with a few spectrograms."""
    count_rejected(dataset, summary.num_rejected, summary.num_clips)
    create_markdown_artifact(page(dataset, summary, out), key=artifacts.key_of("shards", dataset, "summary"))


def page(dataset: str, summary: Summary, folder: Path) -> str:
    num_rejected = sum(summary.num_rejected.values())
    reasons = "\n".join(
        f"| {reason} | {number:,} | {REASONS[reason]} |" for reason, number in summary.num_rejected.items()
    )
    examples = "\n".join(f"- `{rejection.path}`: {rejection.reason}" for rejection in summary.examples)
    rejected = f"| reason | clips | what it means |\n|---|---|---|\n{reasons}\n\n{examples}"
    audio = f"{duration(summary.duration_s)} of audio, {summary.num_frames:,} frames"
    return f"""# {dataset}

{summary.num_clips:,} clips in {summary.num_shards:,} shards: {audio}.

Mean {summary.mean:.4f}, standard deviation {summary.std:.4f}.

## Rejected: {num_rejected:,}

{rejected if num_rejected else "None."}

## A few clips

![Log-mel spectrograms]({picture(folder)})
"""


def picture(folder: Path) -> str:
    """Beginnings of clips from all over the dataset: a PNG as an address that holds the data itself."""
    from matplotlib.figure import Figure

    logmel = LogMel.model_validate(read_json(folder / "logmel.json"))
    chosen = sample(folder, NUM_PICTURES)
    figure = Figure(figsize=(9, 1.4 * len(chosen)), layout="constrained")
    plots = figure.subplots(len(chosen), squeeze=False)[:, 0]
    for (name, frames), axes in zip(chosen, plots, strict=True):
        log_mel = frames[:PICTURE_FRAMES].astype(np.float32)
        extent = (0, len(log_mel) / logmel.frames_per_s, 0, logmel.num_mels)
        axes.imshow(log_mel.T, origin="lower", aspect="auto", extent=extent, interpolation="nearest")
        axes.set_title(name, fontsize=8, loc="left")
        axes.set_ylabel("mel", fontsize=8)
    plots[-1].set_xlabel("seconds", fontsize=8)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=80)
    return "data:image/png;base64," + base64.b64encode(png.getvalue()).decode()
