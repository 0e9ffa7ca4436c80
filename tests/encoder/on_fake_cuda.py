"""Embedding on fake CUDA tensors, for test_on_fake_cuda.py."""

from pathlib import Path

import numpy as np
import torch

from matpac.encoder.encoder import student_of
from matpac.params import load_params
from matpac.weights.checkpoint import Standard, blank_pretext
from tests.fake_cuda.watching import NANO, Watching, in_this_thread, move_

PROJECT = Path(__file__).resolve().parents[2]


def embedding(frames: list[int]) -> dict:
    """Clips of these lengths, by their means and then step by step."""
    params = load_params(PROJECT / "presets/demo.yaml")
    pretext = blank_pretext(params.logmel, params.model.model_copy(update={"custom": NANO}), params.pretrain)
    encoder = student_of(pretext, params.logmel, Standard(mean=0.0, std=1.0), params.pretrain.crop_frames)
    log_mels = [np.zeros((length, params.logmel.num_mels), dtype=np.float16) for length in frames]
    move_(encoder)
    # What the caller has put there.
    waveform = torch.zeros(2, 50_000, device="cuda", requires_grad=True)
    lengths = torch.full((2,), 40_000, device="cuda")
    with Watching() as watching, in_this_thread():
        means = list(encoder.embed_log_mels(log_mels, batch_size=2))
        over_time = list(encoder.embed_log_mels_in_time(log_mels, batch_size=2))
        encoded = encoder(waveform, lengths, layers=True, hop_ms=40)
        encoded.mean.sum().backward()
    return {
        "hazards": watching.hazards,
        "num_operations": watching.num_operations,
        "means": [len(mean) for mean in means],
        "steps": [len(clip.steps) for clip in over_time],
        "module": [str(encoded.steps.device), *encoded.steps.shape[:2]],
        "gradient": str(waveform.grad.device),
    }
