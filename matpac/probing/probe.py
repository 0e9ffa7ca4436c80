"""Embeddings of a dataset -> scores of linear probes on them, with their baselines."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from matpac.devices import device_or_default
from matpac.files import write_json
from matpac.params import Probe
from matpac.probing.attentive import check_heads, fit_attentive_probes
from matpac.probing.folds import Fold, folds_of
from matpac.probing.knn import neighbour_votes
from matpac.probing.linear import fit_probes
from matpac.probing.scores import (
    DETAILS,
    Fit,
    compared,
    details_of,
    fold_scores,
    mean_and_interval,
    repeat_scores,
    summary_of,
)
from matpac.probing.steps import Steps
from matpac.probing.store import EmbeddedClips, read_clips, read_feature
from matpac.progress import Progress

OVER_TIME = ("pretrained", "random_init")
"""Features that have steps, of which an attentive probe can choose."""


def probe(dataset: str, embeddings: Path, out: Path, params: Probe) -> None:
    """Read the store `embeddings`; write the scores to `out` and `<dataset>.details.json` beside it.

    A repeat sees the clips in the same order for all features, and begins with the same weights for those of
    equal length, the trained and the untrained encoder's above all, so differences are paired. Second
    readings (`params.knn`, `params.attentive`) stand beside the probes in the details, and in no score.
    Raises ValueError, before anything is trained, where the store cannot be probed (no validation clips, for
    example, or no embeddings over time for an attentive probe).
    """
    clips = read_clips(embeddings)
    folds = folds_of(clips)
    over_time = {}
    if params.attentive is not None:
        over_time = {name: Steps(embeddings, name) for name in OVER_TIME}
        for steps in over_time.values():
            check_heads(steps, params.attentive)
    device = device_or_default()
    labels, observed = (
        torch.from_numpy(values).to(device, torch.float32) for values in (clips.labels, clips.observed)
    )
    progress = Progress(f"probe {dataset}", len(clips.features) * params.max_epochs, "epochs at most")

    details, neighbours = {}, {}
    for name in clips.features:
        features = torch.from_numpy(read_feature(embeddings, name)).to(device)
        if params.knn is not None:
            votes = neighbour_votes(
                features, labels, observed, folds, params.knn, standardize=params.standardize
            )
            neighbours[name] = fold_scores(votes, clips, folds)
        fits = fit_probes(
            features,
            labels,
            observed,
            folds,
            params,
            multi_label=clips.task.multi_label,
            on_epoch=progress.advance,
        )
        details[name] = details_of(fits, clips, folds)
        count_spared(progress, fits, params)

    second_reading = {}
    if params.knn is not None:
        second_reading["knn"] = {"num_neighbours": params.knn, **neighbours}
    if params.attentive is not None:
        listened = attentive_scores(dataset, over_time, clips, folds, params, labels, observed)
        second_reading["attentive"] = {"num_heads": params.attentive, **listened}

    write_scores(out, details, second_reading, clips, folds)


def attentive_scores(
    dataset: str,
    over_time: Mapping[str, Steps],
    clips: EmbeddedClips,
    folds: Sequence[Fold],
    params: Probe,
    labels: Float[Tensor, "clip class"],
    observed: Float[Tensor, "clip class"],
) -> dict[str, dict[str, Any]]:
    """By feature: mean and interval over repeats, and all repeats and folds."""
    assert params.attentive is not None
    num_epochs = len(over_time) * params.max_epochs
    progress = Progress(f"probe {dataset}, attentive", num_epochs, "epochs at most")
    found = {}
    for name, steps in over_time.items():
        fits = fit_attentive_probes(
            steps,
            labels,
            observed,
            folds,
            params,
            params.attentive,
            multi_label=clips.task.multi_label,
            on_epoch=progress.advance,
        )
        details = details_of(fits, clips, folds)
        kept = {key: details[key] for key in ("scores", "best_epochs")}
        found[name] = mean_and_interval(repeat_scores(details["scores"])) | kept
        count_spared(progress, fits, params)
    return found


def count_spared(progress: Progress, fits: Sequence[Fit], params: Probe) -> None:
    """Epochs that stopping early has spared are done, too."""
    num_epochs = max(len(fit.validation_losses) for fit in fits)
    if num_epochs < params.max_epochs:
        progress.advance(params.max_epochs - num_epochs)


def write_scores(
    out: Path,
    details: dict[str, dict[str, Any]],
    second_reading: dict[str, dict[str, Any]],
    clips: EmbeddedClips,
    folds: Sequence[Fold],
) -> None:
    """The few numbers that `dvc metrics` compares in `out`, and everything beside it."""
    tested = np.concatenate([fold.test for fold in folds])
    summary = summary_of(details, clips, folds)
    write_json(
        out.with_suffix(DETAILS),
        {
            "summary": summary,
            "classes": list(clips.task.classes),
            "num_test_clips": clips.labels[tested].sum(0).tolist(),
            "num_observed_test_clips": clips.observed[tested].sum(0).tolist(),
            "folds": [{part: len(members) for part, members in fold._asdict().items()} for fold in folds],
            "checkpoint": clips.checkpoint,
            "others": {name: origin._asdict() for name, origin in clips.others.items()},
            "features": details,
            "second_reading": second_reading,
        },
    )
    write_json(out, compared(summary))
