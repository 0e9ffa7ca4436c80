"""checkpoint or released file -> what is known of it."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open

from matpac.files import checksum
from matpac.model.released import read_released
from matpac.model.sizes import PATCH, SIZES
from matpac.params import LogMel
from matpac.training.checkpoint import read_meta
from matpac.training.weights import AUDIOSET, PAPER_LOGMEL, RELEASED, find_weights, on_disk

LABELS = {
    "crop_frames": "longest input (frames)",
    "crop_s": "longest input (s)",
    "num_clips": "clips trained on",
    "heard_hours": "hours of crops heard",
    "duration_hours": "hours of training",
    "init_digest": "initial weights (sha256)",
    "init": "initial weights",
}


def known_of(name: str | Path) -> dict[str, Any]:
    """Facts by name, as JSON can hold them. Nothing is downloaded: of released files that are not here, less.

    Raises ValueError where `name` is neither a checkpoint folder, a released `.pt` file nor a released name.
    """
    if str(name) in RELEASED and not Path(name).exists() and on_disk(str(name)) is None:
        return _published(str(name)) | {"file": "not here yet: matpac.load downloads it"}
    path = find_weights(name)
    return _of_checkpoint(path) if path.is_dir() else _of_released(path)


def _of_checkpoint(folder: Path) -> dict[str, Any]:
    meta = read_meta(folder)
    size, pretrain = SIZES[meta.model.size], meta.pretrain
    with safe_open(folder / "networks.safetensors", framework="pt") as file:
        shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118 - no mapping
    crop_s = pretrain.crop_frames / meta.logmel.frames_per_s
    return {
        "file": str(folder),
        "model": f"MATPAC, {meta.model.size}, {meta.model.num_clusters:,} classes, "
        f"{meta.model.num_predictor_heads} predictor head(s)",
        **_encoder(size.encoder_dim, size.encoder_depth, meta.logmel),
        **_num_weights(shapes),
        "front_end": meta.logmel.model_dump(mode="json"),
        "statistics": meta.standard._asdict(),
        "crop_frames": pretrain.crop_frames,
        "crop_s": round(crop_s, 3),
        "trained_on": list(pretrain.datasets) if meta.update else [],
        "num_clips": meta.num_clips,
        "updates": meta.update,
        "planned_updates": meta.total_updates,
        "batch_size": pretrain.batch_size,
        "heard_hours": round(meta.update * pretrain.batch_size * crop_s / 3600, 3),
        "duration_hours": round(meta.duration_s / 3600, 3),
        "hardware": meta.hardware,
        "init": pretrain.init,
        "init_digest": meta.init_digest,
        "data_digest": meta.data_digest,
        "git_revision": meta.git_revision,
        "versions": meta.versions,
    }


def _of_released(path: Path) -> dict[str, Any]:
    released = read_released(path, PAPER_LOGMEL.num_mels)
    shapes = {key: list(value.shape) for key, value in released.networks.items()}
    return {
        **_published(path.stem),
        "file": str(path),
        "sha256": checksum(path),
        **_encoder(released.dim, released.depth, PAPER_LOGMEL),
        **_num_weights(shapes),
        "crop_frames": released.crop_frames,
        "crop_s": round(released.crop_frames / PAPER_LOGMEL.frames_per_s, 3),
    }


def _published(name: str) -> dict[str, Any]:
    """What the authors say of a file."""
    known = RELEASED.get(name)
    return {
        "model": known.model if known else "in the authors' format",
        "front_end": PAPER_LOGMEL.model_dump(mode="json"),
        "statistics": AUDIOSET._asdict(),
        "trained_on": known.trained_on if known else "unknown",
        "url": known.url if known else "",
    }


def _encoder(dim: int, depth: int, logmel: LogMel) -> dict[str, Any]:
    return {
        "encoder": f"{depth} blocks of {dim} dimensions",
        "embedding_dim": logmel.num_mels // PATCH * dim,
    }


def _num_weights(shapes: Mapping[str, list[int]]) -> dict[str, int]:
    sizes = {key: math.prod(shape) for key, shape in shapes.items()}
    encoder = sum(size for key, size in sizes.items() if key.startswith(("patches.", "student_encoder.")))
    return {"weights_of_encoder": encoder, "weights_of_all_networks": sum(sizes.values())}


def json_of(known: Mapping[str, Any]) -> str:
    return json.dumps(known, indent=2, ensure_ascii=False)


def text_of(known: Mapping[str, Any]) -> str:
    """A line for each fact that is known; without training, none about it."""
    lines = {
        LABELS.get(key, key.replace("_", " ")): _in_words(value)
        for key, value in known.items()
        if value or key == "updates"
    }
    width = max(map(len, lines))
    return "\n".join(f"{label:{width}}  {value}" for label, value in lines.items())


def _in_words(value: Any) -> str:  # noqa: ANN401 - whatever JSON can hold
    match value:
        case dict():
            return ", ".join(f"{key} {_in_words(item)}" for key, item in value.items())
        case list():
            return ", ".join(map(_in_words, value))
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.6g}"
        case _:
            return str(value)
