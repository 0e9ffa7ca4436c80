"""test clips that the encoder was pre-trained on, in numbers and words.

Pre-training sees no label, so self-supervised work may include them. But a score on sounds that the encoder
has never heard may be lower, so every score says how many it has.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from matpac.params import ScoreOn
from matpac.probing.folds import Fold, folds_of
from matpac.probing.store import EmbeddedClips
from matpac.progress import printable, say


def heard_of(clips: EmbeddedClips, folds: Sequence[Fold]) -> dict[str, Any] | None:
    """Number of scored clips that pre-training heard (`heard`), and of all (`tested`); None if unknown.

    These are the test clips or, with `probe.score_on: validation`, the validation clips. `unknown` names
    initial weights that may have heard more.
    """
    if clips.heard is None:
        return None
    tested = np.unique(np.concatenate([fold.test for fold in folds]))
    return {
        "heard": int(clips.heard[tested].sum()),
        "tested": len(tested),
        "unknown": list(clips.also_heard),
    }


def heard_in_words(found: Mapping[str, Mapping[str, Any] | None], score_on: ScoreOn = "test") -> list[str]:
    """Sentences about the datasets, from `heard_of`; none if pre-training heard none of the scored clips."""
    heard = {name: one for name, one in found.items() if one and one["heard"]}
    sentences = []
    if heard:
        counts = (f"{name} {one['heard']:,} of {one['tested']:,}" for name, one in heard.items())
        clips = f"{score_on.capitalize()} clips"
        sentences.append(f"{clips} that were in pre-training, without their labels: {', '.join(counts)}.")
    if unknown := [name for name, one in found.items() if one is None]:
        sentences.append(f"Not known whether {score_on} clips were in pre-training: {', '.join(unknown)}.")
    if weights := dict.fromkeys(name for one in found.values() if one for name in one["unknown"]):
        sentences.append(f"Not known what the initial weights learned from: {', '.join(weights)}.")
    return sentences


def say_heard(clips: EmbeddedClips) -> None:
    """Say it on the terminal, once for a dataset."""
    for sentence in heard_in_words({clips.dataset: heard_of(clips, folds_of(clips))}):
        say(printable(sentence))
