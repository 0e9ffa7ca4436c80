"""shards and embeddings -> spectrograms with their mask, and maps of the embeddings."""

import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, UInt8
from matplotlib.figure import Figure

from matpac.model.masking import random_split
from matpac.model.sizes import PATCH
from matpac.params import Params
from matpac.probing.store import EmbeddedClips, read_clips, read_feature
from matpac.report.markup import figure, grid, paragraph, picture, section
from matpac.report.svg import styled, svg_of

NUM_CROPS = 4
MIN_POINTS, MAX_POINTS = 10, 400
"""Clips in a map; more make neither a clearer picture nor a faster report."""
MAX_CLASSES_IN_LEGEND = 20
MAX_HEIGHT_PX = 160
"""Of a spectrogram: short crops are higher than wide, and would fill screens."""
HIDDEN = (0.87, 0.89, 0.91, 1.0)
SEVERAL_LABELS = "#ced4da"


def spectrograms(shards: Path, params: Params) -> str:
    """A few crops of the first pre-training dataset, as the networks get them."""
    import torch

    from matpac.shards.crops import Crops

    if not params.pretrain.num_epochs:
        return ""
    name, pretrain, logmel = params.pretrain.datasets[0], params.pretrain, params.logmel
    if not (shards / name / "index.parquet").exists():
        return ""
    crops = Crops([shards / name], pretrain.crop_frames, pretrain.short_clips, pretrain.seed)
    batch = crops.batch(0, NUM_CROPS)
    rows, columns = logmel.num_mels // PATCH, pretrain.crop_frames // PATCH
    max_width_px = round(MAX_HEIGHT_PX * pretrain.crop_frames / logmel.num_mels)
    generator = torch.Generator().manual_seed(pretrain.seed)
    split = random_split(NUM_CROPS, rows * columns, params.model.mask_ratio, generator)
    figures = []
    for clip, log_mel, masked in zip(
        crops.ids(batch.clips), batch.log_mel, split.masked.numpy(), strict=True
    ):
        colours = coloured(log_mel.T.astype(np.float32))
        hidden = np.zeros(rows * columns, dtype=bool)
        hidden[masked] = True
        seen = colours.copy()
        seen[hidden.reshape(rows, columns).repeat(PATCH, 0).repeat(PATCH, 1)] = HIDDEN
        content = picture(png(colours), "image/png", f"Spectrogram of {clip}", max_width_px)
        content += picture(png(seen), "image/png", "The same with hidden patches", max_width_px)
        figures.append(figure(f'<div class="pair">{content}</div>', clip))
    seconds = pretrain.crop_frames / logmel.frames_per_s
    return section(
        "What the networks hear",
        paragraph(
            f"Random crops of {name}: {seconds:.1f} s from left to right, {logmel.fmin_hz:,.0f} Hz at the "
            f"bottom to {logmel.fmax_hz:,.0f} Hz at the top, brighter is louder. First the whole crop, then "
            f"what the student gets: {params.model.mask_ratio:.0%} of the patches are hidden (grey), anew "
            "for every crop, and training means predicting what the teacher makes of them. Crops should "
            "look like sound: black or uniform ones mean silent or broken recordings.",
            "note",
        ),
        grid(figures, "two"),
    )


def coloured(log_mel: Float32[np.ndarray, "mel frame"]) -> Float[np.ndarray, "mel frame 4"]:
    from matplotlib import colormaps

    low, high = np.percentile(log_mel, [1, 99.5])
    return colormaps["magma"](np.clip((log_mel - low) / max(high - low, 1e-6), 0, 1))


def png(colours: Float[np.ndarray, "mel frame 4"]) -> bytes:
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    imsave(buffer, colours[::-1], format="png")
    return buffer.getvalue()


def maps(embeddings: Path, datasets: Sequence[str]) -> str:
    parts = []
    for name in datasets:
        store = embeddings / name
        if not store.exists():
            continue
        clips = read_clips(store)
        if len(clips.ids) < MIN_POINTS:
            continue
        random = np.random.default_rng(0)
        count = min(len(clips.ids), MAX_POINTS)
        chosen = np.sort(random.choice(len(clips.ids), count, replace=False))
        colours = class_colours(len(clips.task.classes))
        dots = [colour_of(clips.labels[clip], colours) for clip in chosen]
        figures = [
            figure(
                picture(
                    scatter(flattened(read_feature(store, feature, chosen)), dots), "image/svg+xml", title
                ),
                title=title,
            )
            for feature, title in (
                ("pretrained", "Encoder"),
                ("random_init", "Untrained encoder, for comparison"),
            )
        ]
        parts += [f"<h3>{escape(clips.dataset)}</h3>", legend(clips, colours), grid(figures, "two")]
    explained = paragraph(
        f"One dot per clip (up to {MAX_POINTS} per dataset), placed by t-SNE so that clips with similar "
        "embeddings lie together; axes have no meaning. Labels only colour the dots. Good embeddings "
        "gather each colour in places of its own, more so than those of the untrained encoder.",
        "note",
    )
    return section("A map of the embeddings", explained if parts else "", *parts)


def flattened(values: Float32[np.ndarray, "clip dim"]) -> Float[np.ndarray, "clip 2"]:
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    principal = PCA(min(30, *values.shape), random_state=0).fit_transform(values)
    perplexity = min(30.0, (len(values) - 1) / 3)
    # One thread: the order of sums decides where dots end up, and a busy machine cannot stall it.
    with threadpool_limits(1):
        return TSNE(random_state=0, init="random", perplexity=perplexity).fit_transform(principal)


def class_colours(num_classes: int) -> list[str]:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    palette = colormaps["tab10" if num_classes <= 10 else "tab20"]
    return [to_hex(palette(index % palette.N)) for index in range(num_classes)]


def colour_of(labels: UInt8[np.ndarray, " class"], colours: list[str]) -> str:
    [present] = np.nonzero(labels)
    return colours[present[0]] if len(present) == 1 else SEVERAL_LABELS


@styled()
def scatter(places: Float[np.ndarray, "clip 2"], colours: list[str]) -> bytes:
    drawing = Figure(figsize=(4.4, 2.9))
    axes = drawing.add_axes((0, 0, 1, 1))
    axes.scatter(places[:, 0], places[:, 1], s=13, c=colours, alpha=0.85, linewidths=0)
    axes.set_axis_off()
    return svg_of(drawing)


def legend(clips: EmbeddedClips, colours: list[str]) -> str:
    if len(colours) > MAX_CLASSES_IN_LEGEND:
        return paragraph(f"{len(colours)} classes; colours repeat.", "note")
    names = list(zip(colours, clips.task.classes, strict=True))
    if clips.task.multi_label:
        names.append((SEVERAL_LABELS, "several labels, or none"))
    items = "".join(
        f'<li><span style="background:{colour}"></span>{escape(name)}</li>' for colour, name in names
    )
    return f'<ul class="legend">{items}</ul>'
