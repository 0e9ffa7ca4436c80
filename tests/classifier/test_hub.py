"""A classifier that is published opens elsewhere."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.classifiers import tiny_classifier, tiny_encoder
from tests.encoder.hub_server import hub

PUSH_AND_OPEN = """
import json, sys, numpy as np, matpac
about = {"license": "cc-by-4.0"}
mine = matpac.load_classifier(sys.argv[1], device="cpu")
mine.push_to_hub("somebody/birds", token="secret", model_card_kwargs=about)
opened = matpac.Classifier.from_pretrained("somebody/birds", device="cpu")
waveform = np.random.default_rng(0).normal(scale=0.1, size=30_000)
print(json.dumps([opened.predict(waveform, 22_050).tolist(), opened.digest()]))
"""


@pytest.mark.slow
def test_what_is_published_opens_with_the_same_bits(project, tmp_path):
    classifier = tiny_classifier(tiny_encoder(tmp_path / "checkpoint"))
    classifier.save_pretrained(tmp_path / "saved")
    with hub() as server:
        environment = os.environ | {
            "PYTHONPATH": str(project),
            "HF_ENDPOINT": server.url,
            "HF_HOME": str(tmp_path / "hub"),
            "HF_HUB_DISABLE_XET": "1",
        }
        command = [sys.executable, "-c", PUSH_AND_OPEN, str(tmp_path / "saved")]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        names = set(server.repositories["somebody/birds"])
        card = server.repositories["somebody/birds"]["README.md"].decode()
    assert names >= {"README.md", "config.json", "model.safetensors"}
    assert names >= {"classifier.json", "classifier.safetensors"}
    assert 'Classifier.from_pretrained("somebody/birds")' in card
    probabilities, digest = json.loads(done.stdout.splitlines()[-1])
    waveform = np.random.default_rng(0).normal(scale=0.1, size=30_000)
    np.testing.assert_array_equal(np.float32(probabilities), classifier.predict(waveform, 22_050))
    assert digest == classifier.digest()
