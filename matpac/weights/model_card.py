"""What is known of an encoder -> a model card (https://huggingface.co/docs/hub/model-cards)."""

from collections.abc import Mapping
from typing import Any

import yaml

from matpac.weights import describe as facts

USE = """\
```python
import matpac

encoder = matpac.AudioEncoder.from_pretrained("{repository}")
embeddings = encoder.embed(waveform, sample_rate)  # [clip, {dim}], any rate, any length
[clip] = encoder.embed_in_time(waveform, sample_rate)  # clip.embeddings [step, {dim}], clip.centers_ms [step]
```"""
NO_LICENSE = (
    "Not stated. Weights may be bound by the terms of what they were trained on; whoever publishes them says "
    "which licence they are under (`license` in the head of this file)."
)


PLACEHOLDER = "a folder, or user/repository"


def model_card(
    known: Mapping[str, Any],
    *,
    license: str | None = None,
    scores: str | None = None,
    repo_id: str | None = None,
) -> str:
    """Markdown with a head of YAML.

    `license`: an identifier of the hub (`cc-by-4.0`); without one the card says that none is stated.
    `scores`: Markdown about how good it is, and measured how.
    `repo_id`: what the code of the card opens; without one, that is left to the reader.
    """
    head = {
        "library_name": "matpac",
        **({"license": license} if license else {}),
        "pipeline_tag": "feature-extraction",
        "tags": ["audio", "audio-embeddings", "matpac", "self-supervised-learning"],
    }
    rows = [f"| {label} | {_cell(words)} |" for label, words in facts.in_words(known).items()]
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---",
        "# Audio encoder (MATPAC)",
        _summary(known),
        "## Use",
        USE.format(dim=known["embedding_dim"], repository=repo_id or PLACEHOLDER),
        "Samples are floats in -1 to 1. Front end and statistics of the training data belong to the encoder.",
        *(["## Scores", scores] if scores else []),
        "## What is known of it",
        "\n".join(["| | |", "|---|---|", *rows]),
        "## Licence",
        license or NO_LICENSE,
        "## Method",
        "A. Quelennec, P. Chouteau, G. Peeters, S. Essid: *Masked Latent Prediction and Classification for "
        "Self-Supervised Audio Representation Learning*, ICASSP 2025 "
        "([arXiv:2502.12031](https://arxiv.org/abs/2502.12031)).",
    ]
    return "\n\n".join(parts) + "\n"


def _summary(known: Mapping[str, Any]) -> str:
    trained_on, init = facts.in_words(known).get("trained on"), known.get("init")
    how = [
        *([f"begins with the weights of {init}"] if init else []),
        *([f"pre-trained without labels on {trained_on}"] if trained_on else []),
    ]
    return (
        f"Turns sound of any length and rate into embeddings of {known['embedding_dim']:,} dimensions; "
        f"{', '.join(how) or 'not trained, as far as is known'}."
    )


def _cell(words: str) -> str:
    return " ".join(words.split()).replace("|", "\\|")
