"""embeddings of a dataset -> scores of probes on them, baselines included."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from matpac.devices import device_or_default
from matpac.files import write_json
from matpac.params import Probe
from matpac.probing.attentive import check_heads, fit_attentive_probes
from matpac.probing.folds import Fold, folds_of
from matpac.probing.knn import neighbor_votes
from matpac.probing.linear import fit_probes
from matpac.probing.scores import (
    DETAILS,
    Fit,
    compared,
    details_of,
    fold_scores,
    mean_and_interval,
    num_members,
    repeat_scores,
    summary_of,
)
from matpac.probing.steps import Steps
from matpac.probing.store import OVER_TIME, EmbeddedClips, read_clips, read_feature
from matpac.progress import Progress


def probe(dataset: str, embeddings: Path, out: Path, params: Probe) -> None:
    """Probe the store `embeddings`; write scores to `out` and `<dataset>.details.json` beside it.

    In each repeat, all features share the order of clips, and features of equal length (those of
    the trained and the untrained encoder) share the first weights, so differences are paired.
    Second readings (`params.knn`, `params.attentive`) appear in the details and in no score. With
    `params.score_on: validation`, validation clips stand for test clips in all of them. Raises
    ValueError, before any training, if the store cannot be probed: without validation clips, for
    example, or without embeddings over time for an attentive probe.
    """
    clips = read_clips(embeddings)
    folds = folds_of(clips, params.score_on)
    over_time = {}
    if params.attentive is not None:
        over_time = {name: Steps(embeddings, name) for name in OVER_TIME}
        for steps in over_time.values():
            check_heads(steps, params.attentive)
    device = device_or_default()
    labels, observed = (
        torch.from_numpy(values).to(device, torch.float32) for values in (clips.labels, clips.observed)
    )

    def trained(
        fit: Callable[..., list[Fit]], inputs: Tensor | Steps, progress: Progress, *more: int
    ) -> dict[str, Any]:
        fits = fit(
            inputs,
            labels,
            observed,
            folds,
            params,
            *more,
            multi_label=clips.task.multi_label,
            on_epoch=progress.advance,
        )
        count_spared(progress, fits, params)
        return details_of(fits, clips, folds)

    progress = Progress(f"probe {dataset}", len(clips.features) * params.max_epochs, "epochs at most")
    details: dict[str, dict[str, Any]] = {}
    second_reading: dict[str, dict[str, Any]] = {}
    if params.knn is not None:
        second_reading["knn"] = {"num_neighbours": params.knn}
    for name in clips.features:
        features = torch.from_numpy(read_feature(embeddings, name, pooling=params.pooling)).to(device)
        if params.knn is not None:
            votes = neighbor_votes(
                features, labels, observed, folds, params.knn, standardize=params.standardize
            )
            second_reading["knn"][name] = fold_scores(votes, clips, folds)
        details[name] = trained(fit_probes, features, progress)

    if params.attentive is not None:
        num_epochs = len(over_time) * params.max_epochs
        progress = Progress(f"probe {dataset}, attentive", num_epochs, "epochs at most")
        second_reading["attentive"] = {"num_heads": params.attentive}
        for name, steps in over_time.items():
            found = trained(fit_attentive_probes, steps, progress, params.attentive)
            kept = {key: found[key] for key in ("scores", "best_epochs")}
            second_reading["attentive"][name] = mean_and_interval(repeat_scores(found["scores"])) | kept

    write_scores(out, details, second_reading, clips, folds, params)


def count_spared(progress: Progress, fits: Sequence[Fit], params: Probe) -> None:
    """Count epochs that early stopping spared as done."""
    num_epochs = max(len(fit.validation_losses) for fit in fits)
    if num_epochs < params.max_epochs:
        progress.advance(params.max_epochs - num_epochs)


def write_scores(
    out: Path,
    details: dict[str, dict[str, Any]],
    second_reading: dict[str, dict[str, Any]],
    clips: EmbeddedClips,
    folds: Sequence[Fold],
    params: Probe,
) -> None:
    """Write `out`, the few numbers that `dvc metrics` compares, and the details beside it."""
    scored = np.concatenate([fold.test for fold in folds])
    summary = summary_of(details, clips, folds, params.score_on)
    write_json(
        out.with_suffix(DETAILS),
        {
            "probe": params.model_dump(mode="json", exclude={"datasets"}),
            "summary": summary,
            "classes": list(clips.task.classes),
            "num_clips_scored": clips.labels[scored].sum(0).tolist(),
            "num_observed_clips_scored": clips.observed[scored].sum(0).tolist(),
            "folds": [num_members(fold, params.score_on) for fold in folds],
            "checkpoint": clips.checkpoint,
            "others": {name: origin._asdict() for name, origin in clips.others.items()},
            "features": details,
            "second_reading": second_reading,
        },
    )
    write_json(out, compared(summary))
