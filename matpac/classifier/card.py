"""a classifier's description -> its model card."""

from collections.abc import Mapping
from typing import Any

from matpac.classifier.saved import Description, score_in_words
from matpac.weights.describe import PLACEHOLDER, card_of, cell, in_words

USE = """\
```python
import matpac

classifier = matpac.Classifier.from_pretrained("{repository}")
probabilities = classifier.predict(waveform, sample_rate)  # [clip, {num_classes}], any rate, any length
[in_time] = classifier.predict_in_time(waveform, sample_rate)  # in_time.events: label, onset_s, ...
unlike = classifier.unlike(waveform, sample_rate)  # [clip], above 1: unlike the training data
```"""


def model_card(
    about: Description,
    facts: Mapping[str, Any],
    *,
    license: str | None = None,
    scores: str | None = None,
    repo_id: str | None = None,
) -> str:
    """Write a model card (https://huggingface.co/docs/hub/model-cards).

    Args:
        about: The classifier's own description.
        facts: Facts about its encoder, from `AudioEncoder.facts`.
        license: Identifier of the Hub (`cc-by-4.0`); None makes the card say that none is stated.
        scores: Markdown about the scores, in place of what the description holds.
        repo_id: Repository or folder that the card's code opens; None leaves a placeholder.

    Returns:
        Markdown with a head of YAML.
    """
    measured = scores or _measured(about.scores)
    kind = "any of" if about.multi_label else "one of"
    parts = [
        "# Audio classifier (MATPAC)",
        f"Says which sounds a recording of any length and rate holds: {kind} {len(about.classes):,} classes.",
        "## Use",
        USE.format(num_classes=len(about.classes), repository=repo_id or PLACEHOLDER),
        *(["## Scores", measured] if measured else []),
        "## Classes",
        _table(["class", "threshold"], [(name, f"{at:.3f}") for name, at in _thresholds(about)]),
        "## What is known of it",
        _table(
            ["", ""],
            [
                *in_words(about.origin).items(),
                ("pooling", about.pooling.replace("_", " ")),
                *in_words(facts).items(),
            ],
        ),
    ]
    return card_of("audio-classification", ["audio", "audio-classification", "matpac"], license, parts)


def _measured(scores: Mapping[str, Any]) -> str:
    """What was measured, in words; empty if the scores are not those of `matpac fit`."""
    said = score_in_words(scores)
    if not said:
        return ""
    heard = scores.get("heard") or {}
    transductive = (
        f" Of the {heard['tested']:,} test clips, {heard['heard']:,} were in pre-training, without labels."
        if heard.get("heard")
        else ""
    )
    return (
        f"{said} on clips that were held out, mean and 95 % interval over repeats, by models that were "
        f"trained in the same way.{transductive} This one was trained on all clips afterwards."
    )


def _thresholds(about: Description) -> list[tuple[str, float]]:
    return list(zip(about.classes, about.thresholds, strict=True))


def _table(head: list[str], rows: list[tuple[str, str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell(words) for words in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
