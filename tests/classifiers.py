"""A tiny classifier that was not trained."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

import matpac
from matpac.classifier.classifier import Classifier
from matpac.classifier.distances import references_of
from matpac.classifier.heads import AttentiveHead, LinearHead
from matpac.encoder.encoder import AudioEncoder
from tests.checkpoints import untrained_checkpoint

CLASSES = ("low", "high, loud", "hiss")


def head_of(kind: str, dim: int) -> LinearHead | AttentiveHead:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "weight": torch.randn(len(CLASSES), dim, generator=generator),
        "bias": torch.randn(len(CLASSES), generator=generator),
        "mean": torch.randn(dim, generator=generator),
        "factor": torch.rand(dim, generator=generator) + 0.5,
    }
    if kind == "linear":
        return LinearHead(**tensors)
    queries = torch.randn(2, dim, generator=generator)
    return AttentiveHead(queries=queries, step_factor=torch.rand(dim, generator=generator), **tensors)


def tiny_encoder(folder: Path) -> AudioEncoder:
    return matpac.load(untrained_checkpoint(folder), device="cpu")


def tiny_classifier(encoder: AudioEncoder, kind: str = "linear", **changes: Any) -> Classifier:
    head = head_of(kind, encoder.dim)
    random = np.random.default_rng(0)
    means = torch.from_numpy(random.normal(size=(12, encoder.dim)).astype(np.float32))
    about: dict[str, Any] = {
        "classes": CLASSES,
        "multi_label": False,
        "temperature": 1.5,
        "thresholds": np.array([0.3, 0.4, 0.5], dtype=np.float32),
        "references": references_of(means, head, random),
        "usual_distance": 0.25,
        "scores": {"metric": "accuracy", "mean": 0.9},
        "origin": {"dataset": "birds"},
    }
    return Classifier(encoder, head, **(about | changes))
