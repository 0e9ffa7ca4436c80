"""Embeddings of a dataset -> scores of linear probes on them, with their baselines."""

from pathlib import Path

import torch

from matpac.files import write_json
from matpac.params import Probe
from matpac.probing.embeddings import FEATURES, read_embeddings
from matpac.probing.folds import folds_of
from matpac.probing.linear import fit_probes
from matpac.probing.scores import DETAILS, compared, details_of, summary_of
from matpac.progress import Progress


def probe(dataset: str, embeddings: Path, out: Path, params: Probe) -> None:
    """Read the store `embeddings`; write the scores to `out` and `<dataset>.details.json` beside it.

    A repeat begins with the same weights and sees the clips in the same order for the trained and the
    untrained encoder, so their differences are paired.
    Raises ValueError where the store cannot be probed (no validation clips, for example).
    """
    stored = read_embeddings(embeddings)
    folds = folds_of(stored)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    labels = torch.from_numpy(stored.labels).to(device, torch.float32)
    progress = Progress(f"probe {dataset}", len(FEATURES) * params.max_epochs, "epochs at most")

    details = {}
    for name in FEATURES:
        fits = fit_probes(
            torch.from_numpy(stored.features[name]).to(device),
            labels,
            folds,
            params,
            multi_label=stored.task.multi_label,
            on_epoch=progress.advance,
        )
        details[name] = details_of(fits, stored, folds)
        num_epochs = max(len(fit.validation_losses) for fit in fits)
        if num_epochs < params.max_epochs:
            progress.advance(params.max_epochs - num_epochs)

    summary = summary_of(details, stored, folds)
    write_json(
        out.with_suffix(DETAILS),
        {
            "summary": summary,
            "classes": list(stored.task.classes),
            "num_test_clips": sum(stored.labels[fold.test].sum(0) for fold in folds).tolist(),
            "folds": [{part: len(clips) for part, clips in fold._asdict().items()} for fold in folds],
            "checkpoint": stored.checkpoint,
            "features": details,
        },
    )
    write_json(out, compared(summary))
