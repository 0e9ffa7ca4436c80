"""classifier -> ONNX file, front end and encoder included."""

import json
from copy import deepcopy
from pathlib import Path

from jaxtyping import Float
from torch import Tensor, nn

from matpac.classifier.classifier import Classifier
from matpac.encoder.onnx import exportable, write_graph


def export_classifier(classifier: Classifier, out: Path) -> None:
    """Write a classifier as a graph from `waveform` `[batch, time]` to `probabilities` `[batch, class]`.

    The graph takes any number of clips of any length, as float32 samples in -1 to 1. The metadata of
    the file hold `sample_rate_hz` and, as JSON, `classes`, `thresholds` and `multi_label`.

    Args:
        classifier: Classifier to export.
        out: File to write; its name ends in .onnx.

    Raises:
        ValueError: The packages of the extra `onnx` are missing, or no such file can be made at `out`.
        OSError: The disk is full; the error names `out`.
    """
    about = {
        "sample_rate_hz": str(classifier.encoder.sample_rate),
        "classes": json.dumps(classifier.classes),
        "thresholds": json.dumps(classifier.thresholds.tolist()),
        "multi_label": json.dumps(classifier.multi_label),
    }
    write_graph(Graph(classifier), "probabilities", about, out)


class Graph(nn.Module):
    """What the file computes."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.encoder, self.head = exportable(classifier.encoder), deepcopy(classifier.head)
        self.temperature, self.multi_label = classifier.temperature, classifier.multi_label

    def forward(self, waveform: Float[Tensor, "batch time"]) -> Float[Tensor, "batch class"]:
        encoded = self.encoder(waveform)
        logits: Tensor = self.head(encoded.steps, encoded.mask) / self.temperature
        return logits.sigmoid() if self.multi_label else logits.softmax(1)
