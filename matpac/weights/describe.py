"""weights -> facts by name, as JSON can hold them; facts -> words, JSON, a model card."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from matpac.model.sizes import PATCH
from matpac.params import LogMel
from matpac.progress import printable
from matpac.weights.checkpoint import Meta, Standard
from matpac.weights.open import Weights, open_weights
from matpac.weights.released import AUDIOSET, PAPER_LOGMEL, RELEASED, ReleasedFile, on_disk

LABELS = {
    "crop_frames": "longest input (frames)",
    "crop_s": "longest input (s)",
    "num_clips": "clips trained on",
    "recordings": "recordings learned from",
    "unknown_recordings": "and unknown ones, with",
    "heard_hours": "hours of crops heard",
    "duration_hours": "hours of training",
    "init_digest": "initial weights (sha256)",
    "init": "initial weights",
}

UNKNOWN = "unknown"


def facts_of(name: str | Path) -> dict[str, Any]:
    """Collect the facts about an encoder: sizes, front end, statistics, training.

    Nothing is downloaded: about a released file that is not on this disk, less is known.

    Args:
        name: Checkpoint folder, folder of `save_pretrained`, released `.pt` file or released name.

    Returns:
        Facts by name, as JSON can hold them: `embedding_dim`, `crop_s` (seconds), `num_clips`, ...

    Raises:
        ValueError: `name` is none of these, or its files are damaged.
    """
    release = RELEASED.get(str(name))
    if release is not None and not Path(name).exists() and on_disk(str(name)) is None:
        return {
            **facts_of_training(release),
            **_facts_of_front_end(PAPER_LOGMEL, AUDIOSET),
            "file": "not here yet: matpac.load downloads it",
        }
    weights = open_weights(name)
    file = {"file": str(weights.path)} | ({"sha256": weights.digest} if weights.path.is_file() else {})
    sizes = facts_of_sizes(weights.dim, weights.depth, weights.logmel) | _num_weights(weights)
    return {
        **file,
        **sizes,
        **facts_of_input(weights.logmel, weights.standard, weights.chunk_frames),
        **facts_of_training(weights.origin),
    }


def facts_of_sizes(dim: int, depth: int, logmel: LogMel) -> dict[str, Any]:
    return {
        "encoder": f"{depth} blocks of {dim} dimensions",
        "embedding_dim": logmel.num_mels // PATCH * dim,
    }


def facts_of_input(logmel: LogMel, standard: Standard, chunk_frames: int) -> dict[str, Any]:
    return {
        **_facts_of_front_end(logmel, standard),
        "crop_frames": chunk_frames,
        "crop_s": round(chunk_frames / logmel.frames_per_s, 3),
    }


def _facts_of_front_end(logmel: LogMel, standard: Standard) -> dict[str, Any]:
    return {"front_end": logmel.model_dump(mode="json"), "statistics": standard.model_dump()}


def facts_of_training(origin: Meta | ReleasedFile | Mapping[str, Any] | None) -> dict[str, Any]:
    """How the weights were trained and on what, from `Weights.origin`."""
    match origin:
        case Meta():
            return _facts_of_run(origin)
        case ReleasedFile():
            return {"model": origin.model, "trained_on": origin.trained_on, "url": origin.url}
        case None:
            return {"model": "in the authors' format", "trained_on": UNKNOWN, "url": ""}
        case _:
            return dict(origin)


def _facts_of_run(meta: Meta) -> dict[str, Any]:
    pretrain, crop_s = meta.pretrain, meta.pretrain.crop_frames / meta.logmel.frames_per_s
    return {
        "model": f"MATPAC, {meta.model.size}, {meta.model.num_clusters:,} classes, "
        f"{meta.model.num_predictor_heads} predictor head(s)",
        "trained_on": list(pretrain.datasets) if meta.update else [],
        "num_clips": meta.num_clips,
        "recordings": UNKNOWN if meta.num_recordings is None else meta.num_recordings,
        "unknown_recordings": list(meta.unknown_recordings),
        "updates": meta.update,
        "planned_updates": meta.total_updates,
        "batch_size": pretrain.batch_size,
        "heard_hours": round(meta.update * pretrain.batch_size * crop_s / 3600, 3),
        "duration_hours": round(meta.duration_s / 3600, 3),
        "hardware": meta.hardware,
        # Facts are published, and names of local folders are private.
        "init": pretrain.init and Path(pretrain.init).name,
        "init_digest": meta.init_digest,
        "data_digest": meta.data_digest,
        "git_revision": meta.git_revision,
        "versions": meta.versions,
    }


def _num_weights(weights: Weights) -> dict[str, int]:
    sizes = {name: math.prod(shape) for name, shape in weights.shapes().items()}
    encoder = sum(size for name, size in sizes.items() if name.startswith(("patches.", "student_encoder.")))
    return {"weights_of_encoder": encoder, "weights_of_all_networks": sum(sizes.values())}


def json_of(facts: Mapping[str, Any]) -> str:
    return json.dumps(facts, indent=2)


def text_of(facts: Mapping[str, Any]) -> str:
    """One aligned line for each known fact."""
    lines = in_words(facts)
    width = max(map(len, lines))
    return "\n".join(printable(f"{label:{width}}  {words}") for label, words in lines.items())


def in_words(facts: Mapping[str, Any]) -> dict[str, str]:
    """Label and words of each known fact; empty values are unknown."""
    return {
        LABELS.get(key, key.replace("_", " ")): _words(value)
        for key, value in facts.items()
        if value or key == "updates"
    }


def _words(value: Any) -> str:  # noqa: ANN401 - any JSON value
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


USE = """\
```python
import matpac

encoder = matpac.AudioEncoder.from_pretrained("{repository}")
embeddings = encoder.embed(waveform, sample_rate)  # [clip, {dim}], any rate, any length
[clip] = encoder.embed_in_time(waveform, sample_rate)  # clip.embeddings [step, {dim}], clip.centers_ms [step]
```"""
PLACEHOLDER = "a folder, or user/repository"
NO_LICENSE = (
    "Not stated. Weights may be bound by the terms of what they were trained on; whoever publishes them says "
    "which licence they are under (`license` in the head of this file)."
)
METHOD = (
    "A. Quelennec, P. Chouteau, G. Peeters, S. Essid: *Masked Latent Prediction and Classification for "
    "Self-Supervised Audio Representation Learning*, ICASSP 2025 "
    "([arXiv:2502.12031](https://arxiv.org/abs/2502.12031))."
)


def model_card(
    facts: Mapping[str, Any],
    *,
    license: str | None = None,
    scores: str | None = None,
    repo_id: str | None = None,
) -> str:
    """Write a model card (https://huggingface.co/docs/hub/model-cards).

    Args:
        facts: Facts by name, from `AudioEncoder.facts` or `facts_of`.
        license: Identifier of the Hub (`cc-by-4.0`); None makes the card say that none is stated.
        scores: Markdown about the scores and how they were measured.
        repo_id: Repository or folder that the card's code opens; None leaves a placeholder.

    Returns:
        Markdown with a head of YAML.
    """
    rows = [f"| {label} | {cell(words)} |" for label, words in in_words(facts).items()]
    parts = [
        "# Audio encoder (MATPAC)",
        _summary(facts),
        "## Use",
        USE.format(dim=facts["embedding_dim"], repository=repo_id or PLACEHOLDER),
        "Samples are floats in -1 to 1. Front end and statistics of the training data belong to the encoder.",
        *(["## Scores", scores] if scores else []),
        "## What is known of it",
        "\n".join(["| | |", "|---|---|", *rows]),
    ]
    tags = ["audio", "audio-embeddings", "matpac", "self-supervised-learning"]
    return card_of("feature-extraction", tags, license, parts)


def card_of(pipeline_tag: str, tags: Sequence[str], license: str | None, parts: Sequence[str]) -> str:
    """A model card: its head of YAML, `parts`, then license and method, which are those of every card."""
    head = {
        "library_name": "matpac",
        **({"license": license} if license else {}),
        "pipeline_tag": pipeline_tag,
        "tags": list(tags),
    }
    known = [f"---\n{yaml.safe_dump(head, sort_keys=False)}---", *parts]
    return "\n\n".join([*known, "## Licence", license or NO_LICENSE, "## Method", METHOD]) + "\n"


def _summary(facts: Mapping[str, Any]) -> str:
    trained_on, init = learned_from(facts), facts.get("init")
    how = [
        *([f"begins with the weights of {init}"] if init else []),
        *([f"pre-trained without labels on {trained_on}"] if trained_on else []),
    ]
    return (
        f"Turns sound of any length and rate into embeddings of {facts['embedding_dim']:,} dimensions; "
        f"{', '.join(how) or 'not trained, as far as is known'}."
    )


def learned_from(facts: Mapping[str, Any]) -> str | None:
    """`12,623 recordings of birds and frogs`, or the names of the datasets; None for nothing."""
    recordings = facts.get("recordings")
    if not isinstance(recordings, dict) or not recordings:
        return in_words(facts).get("trained on")
    said = f"{sum(recordings.values()):,} recordings of {', '.join(recordings)}"
    unknown = facts.get("unknown_recordings") or []
    return f"{said}, after unknown ones by {', '.join(unknown)}" if unknown else said


def cell(words: str) -> str:
    """Words as a cell of a Markdown table."""
    return " ".join(words.split()).replace("|", "\\|")
