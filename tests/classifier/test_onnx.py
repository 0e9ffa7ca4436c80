"""ONNX Runtime gives the probabilities that torch gives."""

import json

import numpy as np
import pytest
import torch
from scipy.special import softmax

from matpac.cli import app
from tests.classifiers import CLASSES, tiny_classifier, tiny_encoder

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "pooling"), [("attentive", "mean"), ("linear", "mean_and_deviation")])
def test_one_file_hears_and_names_the_classes(tmp_path, capfd, kind, pooling):
    classifier = tiny_classifier(tiny_encoder(tmp_path / "checkpoint"), kind, pooling)
    classifier.head.weight.data /= 10
    classifier.save_pretrained(tmp_path / "classifier")
    out = tmp_path / "classifier.onnx"
    app(["export", "--classifier", str(tmp_path / "classifier"), "--out", str(out)], standalone_mode=False)
    assert "16000 Hz -> probabilities [batch, 3]" in capfd.readouterr().out
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    assert tuple(json.loads(about["classes"])) == CLASSES
    assert (about["sample_rate_hz"], json.loads(about["multi_label"])) == ("16000", False)
    random = np.random.default_rng(0)
    for num_clips, length in ((1, 3_000), (3, 16_000), (2, 70_001)):
        waveform = random.normal(scale=0.1, size=(num_clips, length)).astype(np.float32)
        [found] = session.run(["probabilities"], {"waveform": waveform})
        with torch.no_grad():
            logits = classifier(torch.from_numpy(waveform)).numpy() / classifier.temperature
        np.testing.assert_allclose(found, softmax(logits, axis=1), atol=1e-4)
        # Log-mels are rounded there.
        np.testing.assert_allclose(found, classifier.predict(waveform, 16_000), atol=2e-3)
