"""Embeddings of a dataset -> scores of linear probes on them, with their baselines."""

from pathlib import Path

import numpy as np
import torch

from matpac.files import write_json
from matpac.params import Probe
from matpac.probing.embeddings import read_clips, read_feature
from matpac.probing.folds import folds_of
from matpac.probing.knn import neighbour_votes
from matpac.probing.linear import fit_probes
from matpac.probing.scores import DETAILS, compared, details_of, fold_scores, summary_of
from matpac.progress import Progress


def probe(dataset: str, embeddings: Path, out: Path, params: Probe) -> None:
    """Read the store `embeddings`; write the scores to `out` and `<dataset>.details.json` beside it.

    A repeat begins with the same weights and sees the clips in the same order for features of equal length,
    those of the trained and the untrained encoder above all, so their differences are paired. A second
    reading (`params.knn`) stands beside the probes in the details, and in no score.
    Raises ValueError where the store cannot be probed (no validation clips, for example).
    """
    clips = read_clips(embeddings)
    folds = folds_of(clips)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
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
        num_epochs = max(len(fit.validation_losses) for fit in fits)
        if num_epochs < params.max_epochs:
            progress.advance(params.max_epochs - num_epochs)

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
            "second_reading": {"knn": {"num_neighbours": params.knn, **neighbours}} if neighbours else {},
        },
    )
    write_json(out, compared(summary))
