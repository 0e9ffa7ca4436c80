"""shards and embeddings -> spectrograms with their mask, and maps of the embeddings."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, UInt8
from matplotlib.figure import Figure

from matpac.model.sizes import PATCH, num_visible
from matpac.params import Params
from matpac.probing.store import EmbeddedClips, read_clips, read_feature
from matpac.report.html import Section, data_url, section, styled, svg_of

NUM_CROPS = 4
MIN_POINTS, MAX_POINTS = 10, 400
"""Clips in a map; more would make the report slower and the picture no clearer."""
MAX_CLASSES_IN_LEGEND = 20
MAX_HEIGHT_PX = 160
"""Height of a spectrogram; short crops are higher than wide, and would fill screens."""
HIDDEN = (0.87, 0.89, 0.91, 1.0)
SEVERAL_LABELS = "#ced4da"


class Crop(NamedTuple):
    clip: str
    whole: str
    """Picture of the crop, a data URL."""
    seen: str
    """The same with hidden patches."""


class EmbeddingMap(NamedTuple):
    dataset: str
    num_classes: int
    legend: list[tuple[str, str]]
    """Color and name of each class; empty if there are too many."""
    pictures: dict[str, str]
    """Data URLs by title."""


def crops_section(shards: Path, params: Params) -> Section | None:
    """A few crops of the first pre-training dataset, as the networks get them."""
    from matpac.shards.crops import Crops

    if not params.pretrain.num_epochs:
        return None
    name, pretrain, logmel = params.pretrain.datasets[0], params.pretrain, params.logmel
    if not (shards / name / "index.parquet").exists():
        return None
    crops = Crops([shards / name], pretrain.crop_frames, pretrain.short_clips, pretrain.seed)
    batch = crops.batch(0, NUM_CROPS)
    rows, columns = logmel.num_mels // PATCH, pretrain.crop_frames // PATCH
    # Splits like those of training, without loading PyTorch for four pictures.
    noise = np.random.default_rng(pretrain.seed).random((NUM_CROPS, rows * columns))
    masked_patches = noise.argsort(axis=1)[:, num_visible(rows * columns, params.model.mask_ratio) :]
    shown = []
    for clip, log_mel, masked in zip(crops.ids(batch.clips), batch.log_mel, masked_patches, strict=True):
        colors = colored(log_mel.T.astype(np.float32))
        hidden = np.zeros(rows * columns, dtype=bool)
        hidden[masked] = True
        seen = colors.copy()
        seen[hidden.reshape(rows, columns).repeat(PATCH, 0).repeat(PATCH, 1)] = HIDDEN
        shown.append(Crop(clip, data_url(png(colors), "image/png"), data_url(png(seen), "image/png")))
    return section(
        "What the networks hear",
        "crops.html.j2",
        dataset=name,
        crops=shown,
        seconds=pretrain.crop_frames / logmel.frames_per_s,
        logmel=logmel,
        mask_ratio=params.model.mask_ratio,
        max_width_px=round(MAX_HEIGHT_PX * pretrain.crop_frames / logmel.num_mels),
    )


def colored(log_mel: Float32[np.ndarray, "mel frame"]) -> Float[np.ndarray, "mel frame 4"]:
    from matplotlib import colormaps

    low, high = np.percentile(log_mel, [1, 99.5])
    colors: np.ndarray = colormaps["magma"](np.clip((log_mel - low) / max(high - low, 1e-6), 0, 1))
    return colors


def png(colors: Float[np.ndarray, "mel frame 4"]) -> bytes:
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    imsave(buffer, colors[::-1], format="png")
    return buffer.getvalue()


def maps_section(embeddings: Path, datasets: Sequence[str]) -> Section | None:
    maps = []
    for name in datasets:
        store = embeddings / name
        if not store.exists():
            continue
        clips = read_clips(store)
        if len(clips.ids) >= MIN_POINTS:
            maps.append(map_of(store, clips))
    return (
        section("A map of the embeddings", "maps.html.j2", maps=maps, max_points=MAX_POINTS) if maps else None
    )


def map_of(store: Path, clips: EmbeddedClips) -> EmbeddingMap:
    random = np.random.default_rng(0)
    count = min(len(clips.ids), MAX_POINTS)
    chosen = np.sort(random.choice(len(clips.ids), count, replace=False))
    palette = class_colors(len(clips.task.classes))
    dots = [color_of(clips.labels[clip], palette) for clip in chosen]
    pictures = {
        title: data_url(scatter(flattened(read_feature(store, feature, chosen)), dots), "image/svg+xml")
        for feature, title in (
            ("pretrained", "Encoder"),
            ("random_init", "Untrained encoder, for comparison"),
        )
    }
    return EmbeddingMap(clips.dataset, len(palette), legend(clips, palette), pictures)


def flattened(values: Float32[np.ndarray, "clip dim"]) -> Float[np.ndarray, "clip 2"]:
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    principal = PCA(min(30, *values.shape), random_state=0).fit_transform(values)
    perplexity = min(30.0, (len(values) - 1) / 3)
    # One thread: the order of sums decides the places of the dots.
    with threadpool_limits(1):
        places: np.ndarray = TSNE(random_state=0, init="random", perplexity=perplexity).fit_transform(
            principal
        )
    return places


def class_colors(num_classes: int) -> list[str]:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    palette = colormaps["tab10" if num_classes <= 10 else "tab20"]
    return [to_hex(palette(index % palette.N)) for index in range(num_classes)]


def color_of(labels: UInt8[np.ndarray, " class"], colors: list[str]) -> str:
    [present] = np.nonzero(labels)
    return colors[present[0]] if len(present) == 1 else SEVERAL_LABELS


@styled()
def scatter(places: Float[np.ndarray, "clip 2"], colors: list[str]) -> bytes:
    drawing = Figure(figsize=(4.4, 2.9))
    axes = drawing.add_axes((0, 0, 1, 1))
    axes.scatter(places[:, 0], places[:, 1], s=13, c=colors, alpha=0.85, linewidths=0)
    axes.set_axis_off()
    return svg_of(drawing)


def legend(clips: EmbeddedClips, colors: list[str]) -> list[tuple[str, str]]:
    """Color and name of each class; empty if there are too many."""
    if len(colors) > MAX_CLASSES_IN_LEGEND:
        return []
    names = list(zip(colors, clips.task.classes, strict=True))
    return [*names, (SEVERAL_LABELS, "several labels, or none")] if clips.task.multi_label else names
