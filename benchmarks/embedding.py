"""Embeddings of whole clips: clips per second.

Clips of 0.5 to 30 s are embedded as the paper does: the log-mel is standardised, filled to whole
patches, cut into chunks of 608 frames; the frequency patches are put side by side, the chunks
joined, the mean taken over time. Ours is `AudioEncoder.embed_log_mels`. The peer does it in the
released manner, clip by clip and chunk by chunk. Both have the same untrained weights and float32,
on a GPU if there is one.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.claims import Claim, run, seconds
from matpac.devices import device_or_default
from matpac.encoder.encoder import AudioEncoder
from matpac.model.encoder import Encoder
from matpac.model.patches import Patches
from matpac.model.sizes import PATCH, SIZES
from matpac.signal.mel import mel_filters
from matpac.weights.released import AUDIOSET, PAPER_LOGMEL

DEVICE = device_or_default()
ROUNDS = 3
CHUNK_FRAMES = 608
SHORTEST_S, LONGEST_S = 0.5, 30.0
FRAMES_PER_S = 100
NUM_CLIPS = {"tiny": 256, "base": 12} if DEVICE.type == "cpu" else {"tiny": 1024, "base": 1024}
GOALS = {"tiny": 1.3, "base": 1.0}
TOLERANCE = 1e-5


def measure() -> list[Claim]:
    claims = []
    for size, num_clips in NUM_CLIPS.items():
        encoder, log_mels = untrained(size), clips(num_clips)
        expected, found = released_manner(encoder, log_mels), ours(encoder, log_mels)
        if not np.allclose(found, expected, rtol=0, atol=TOLERANCE):
            raise RuntimeError(f"{size}: embeddings differ by {np.abs(found - expected).max():.2g}")
        spent = seconds(
            {
                "ours": lambda: ours(encoder, log_mels),  # noqa: B023 - called at once
                "theirs": lambda: released_manner(encoder, log_mels),  # noqa: B023
            },
            ROUNDS,
        )
        claims.append(
            Claim(
                f"embed clips of {SHORTEST_S:g} to {LONGEST_S:g} s, {size} model, {DEVICE.type.upper()}",
                "clips/s",
                num_clips / spent["ours"],
                "one clip at a time, as released",
                num_clips / spent["theirs"],
                GOALS[size],
            )
        )
    return claims


def untrained(size: str) -> AudioEncoder:
    torch.manual_seed(0)
    dim, depth, num_heads, *_ = SIZES[size]
    patches, encoder = Patches(80, CHUNK_FRAMES, dim), Encoder(dim, depth, num_heads)
    return AudioEncoder(
        patches.to(DEVICE).eval(),
        encoder.to(DEVICE).eval(),
        PAPER_LOGMEL,
        mel_filters(PAPER_LOGMEL),
        AUDIOSET,
        CHUNK_FRAMES,
    )


def clips(number: int) -> list[NDArray[np.float16]]:
    """Log-mels `[frame, mel]` as in shards, with lengths spread evenly on a logarithmic scale."""
    random = np.random.default_rng(0)
    lengths_s = np.geomspace(SHORTEST_S, LONGEST_S, number)
    random.shuffle(lengths_s)
    return [
        random.normal(AUDIOSET.mean, AUDIOSET.std, (int(length_s * FRAMES_PER_S), 80)).astype(np.float16)
        for length_s in lengths_s
    ]


def ours(encoder: AudioEncoder, log_mels: Sequence[NDArray[np.float16]]) -> NDArray[np.float32]:
    return np.stack(list(encoder.embed_log_mels(log_mels)))


@torch.inference_mode()
def released_manner(encoder: AudioEncoder, log_mels: Sequence[NDArray[np.float16]]) -> NDArray[np.float32]:
    """The same steps with the same modules, for one clip after the other."""
    embeddings = []
    for log_mel in log_mels:
        clip = torch.from_numpy(log_mel).to(DEVICE).float().T[None]
        clip = (clip - AUDIOSET.mean) / AUDIOSET.std
        clip = torch.nn.functional.pad(clip, (0, -clip.shape[2] % PATCH))
        over_time = []
        for chunk in clip.split(CHUNK_FRAMES, dim=2):
            latents = encoder.encoder(encoder.patches.with_cls(encoder.patches(chunk)))[:, 1:]
            num_time = chunk.shape[2] // PATCH
            by_freq = latents.reshape(1, -1, num_time, latents.shape[2])
            over_time.append(by_freq.permute(0, 2, 1, 3).reshape(num_time, -1))
        embeddings.append(torch.cat(over_time).mean(0).cpu().numpy())
    return np.stack(embeddings)


if __name__ == "__main__":
    run(measure, __doc__)
