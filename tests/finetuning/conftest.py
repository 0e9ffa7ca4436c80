"""A tiny labelled dataset whose two classes can be told apart, and an encoder for it."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from matpac.encoder.encoder import load_encoder
from matpac.params import Custom, Model, Params, load_params
from matpac.probing.labelled import Labelled, open_labelled
from matpac.weights.open import open_checkpoint
from tests.checkpoints import untrained_checkpoint
from tests.recordings import LOGMEL, NETWORKS, build, plan_of

NUM_CLIPS = 24


@pytest.fixture(scope="package")
def params() -> Params:
    params = load_params(Path(__file__).resolve().parents[2] / "presets/demo.yaml")
    changes = {"num_repeats": 2, "num_epochs": 3, "warmup_epochs": 1, "batch_size": 4}
    changes |= {"learning_rate": 0.01, "layer_decay": 0.75, "crop_frames": 40}
    changes |= {"spec_augment": None, "label_smoothing": 0.0}
    compute = params.compute.model_copy(update={"save_every_s": 1000.0, "num_processes": 1})
    finetune = params.finetune.model_copy(update=changes)
    return params.model_copy(update={"finetune": finetune, "compute": compute})


@pytest.fixture(scope="package")
def shards(tmp_path_factory) -> Path:
    """Clips of 0.4 to 0.9 s in three folds: noise, or with a tone in it."""
    folder = tmp_path_factory.mktemp("finetuning")
    (folder / "audio").mkdir()
    random = np.random.default_rng(0)
    for number in range(NUM_CLIPS):
        length = int(16_000 * random.uniform(0.4, 0.9))
        tone = 0.3 * (number % 2) * np.sin(2 * np.pi * 1_000 * np.arange(length) / 16_000)
        noise = random.normal(scale=0.1, size=length)
        soundfile.write(folder / f"audio/{number:03d}.wav", tone + noise, 16_000, subtype="PCM_16")
    build(plan_of(folder / "audio", folder / "work"), folder / "shards/tones")
    return folder / "shards/tones"


@pytest.fixture(scope="package")
def checkpoint(tmp_path_factory) -> Path:
    model = load_params(Path(__file__).resolve().parents[2] / "presets/demo.yaml").model
    tiny = Model(
        **model.model_dump() | {"size": "custom", "custom": Custom(**NETWORKS | {"encoder_depth": 2})}
    )
    return untrained_checkpoint(tmp_path_factory.mktemp("checkpoint"), LOGMEL, tiny)


@pytest.fixture
def encoder(checkpoint):
    return load_encoder(checkpoint, "cpu")


@pytest.fixture(scope="package")
def labelled(shards, checkpoint) -> Labelled:
    return open_labelled(shards, open_checkpoint(checkpoint), "finetune.datasets")
