"""What is known of an encoder: facts by name, as JSON can hold them, and the words for them."""

import json
from collections.abc import Mapping
from typing import Any

from matpac.model.sizes import PATCH
from matpac.params import LogMel
from matpac.weights.checkpoint import Meta, Standard
from matpac.weights.names import RELEASED

LABELS = {
    "crop_frames": "longest input (frames)",
    "crop_s": "longest input (s)",
    "num_clips": "clips trained on",
    "heard_hours": "hours of crops heard",
    "duration_hours": "hours of training",
    "init_digest": "initial weights (sha256)",
    "init": "initial weights",
}


def of_encoder(dim: int, depth: int, logmel: LogMel) -> dict[str, Any]:
    return {
        "encoder": f"{depth} blocks of {dim} dimensions",
        "embedding_dim": logmel.num_mels // PATCH * dim,
    }


def of_front_end(logmel: LogMel, standard: Standard) -> dict[str, Any]:
    return {"front_end": logmel.model_dump(mode="json"), "statistics": standard._asdict()}


def of_input(crop_frames: int, logmel: LogMel) -> dict[str, Any]:
    return {"crop_frames": crop_frames, "crop_s": round(crop_frames / logmel.frames_per_s, 3)}


def of_run(meta: Meta) -> dict[str, Any]:
    """How a run of ours trained it, and on what."""
    pretrain, crop_s = meta.pretrain, meta.pretrain.crop_frames / meta.logmel.frames_per_s
    return {
        "model": f"MATPAC, {meta.model.size}, {meta.model.num_clusters:,} classes, "
        f"{meta.model.num_predictor_heads} predictor head(s)",
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


def of_release(name: str) -> dict[str, Any]:
    """What the authors say of a file."""
    known = RELEASED.get(name)
    return {
        "model": known.model if known else "in the authors' format",
        "trained_on": known.trained_on if known else "unknown",
        "url": known.url if known else "",
    }


def json_of(known: Mapping[str, Any]) -> str:
    return json.dumps(known, indent=2, ensure_ascii=False)


def text_of(known: Mapping[str, Any]) -> str:
    """A line for each fact that is known; without training, none about it."""
    lines = in_words(known)
    width = max(map(len, lines))
    return "\n".join(f"{label:{width}}  {words}" for label, words in lines.items())


def in_words(known: Mapping[str, Any]) -> dict[str, str]:
    """Label and words of each fact that is known."""
    return {
        LABELS.get(key, key.replace("_", " ")): _words(value)
        for key, value in known.items()
        if value or key == "updates"
    }


def _words(value: Any) -> str:  # noqa: ANN401 - whatever JSON can hold
    match value:
        case dict():
            return ", ".join(f"{key} {_words(item)}" for key, item in value.items())
        case list():
            return ", ".join(map(_words, value))
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.6g}"
        case _:
            return str(value)
