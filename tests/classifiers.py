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
from matpac.params import Model, Pooling
from tests.checkpoints import untrained_checkpoint
from tests.recordings import NETWORKS

CLASSES = ("low", "high, loud", "hiss")


def head_of(kind: str, dim: int, pooling: Pooling = "mean") -> LinearHead | AttentiveHead:
    generator = torch.Generator().manual_seed(0)
    dim = dim if pooling == "mean" else 2 * dim
    tensors = {
        "weight": torch.randn(len(CLASSES), dim, generator=generator),
        "bias": torch.randn(len(CLASSES), generator=generator),
        "mean": torch.randn(dim, generator=generator),
        "factor": torch.rand(dim, generator=generator) + 0.5,
    }
    if kind == "linear":
        return LinearHead(**tensors, pooling=pooling)
    queries = torch.randn(2, dim, generator=generator)
    return AttentiveHead(queries=queries, step_factor=torch.rand(dim, generator=generator), **tensors)


def tiny_checkpoint(folder: Path) -> Path:
    sizes = {"size": "custom", "custom": NETWORKS, "mask_ratio": 0.5, "num_clusters": 4}
    model = Model.model_validate(sizes | {"num_predictor_heads": 1})
    return untrained_checkpoint(folder, model=model)


def tiny_encoder(folder: Path) -> AudioEncoder:
    return matpac.load(tiny_checkpoint(folder), device="cpu")


def tiny_classifier(
    encoder: AudioEncoder, kind: str = "linear", pooling: Pooling = "mean", **changes: Any
) -> Classifier:
    head = head_of(kind, encoder.dim, pooling)
    random = np.random.default_rng(0)
    means = torch.from_numpy(random.normal(size=(12, len(head.mean))).astype(np.float32))
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
