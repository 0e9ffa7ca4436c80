# %% [markdown]
# # First steps with an encoder
#
# Cells as Jupyter, VS Code and Spyder show them; as a script it runs from top to bottom:
#
#     python docs/examples/first_steps.py                       # synthesised sounds, untrained weights
#     python docs/examples/first_steps.py <checkpoint> <folder>   # yours
#
# What it makes goes to `first_steps/`.

# %%
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import soundfile

import matpac
from matpac.encoder.files import embed_files
from matpac.walk import audio_files
from matpac.weights.describe import text_of

OUT = Path("first_steps")
OUT.mkdir(exist_ok=True)
arguments = sys.argv[1:] if Path(sys.argv[0]).name == "first_steps.py" else []  # none in a notebook

# %% [markdown]
# ## Sounds
#
# A folder of recordings, of any rates and lengths. Without one: three kinds of sounds, four of each.


# %%
def synthesise(folder: Path) -> Path:
    random = np.random.default_rng(0)
    for number in range(4):
        rate_hz = [8_000, 16_000, 22_050, 44_100][number]
        time_s = np.arange(int((2 + number) * rate_hz)) / rate_hz
        base_hz = random.uniform(300, 600)
        knocks = np.exp(-30 * (time_s % random.uniform(0.3, 0.5)))
        sounds = {
            "tone": sum(np.sin(2 * np.pi * base_hz * harmonic * time_s) / harmonic for harmonic in (1, 2, 3)),
            "rain": random.normal(scale=0.3, size=len(time_s)),
            "knock": knocks * random.normal(size=len(time_s)),
        }
        for name, samples in sounds.items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            soundfile.write(folder / name / f"{number}.wav", 0.2 * samples, rate_hz)
    return folder


folder = Path(arguments[1]) if len(arguments) > 1 else synthesise(OUT / "sounds")
print(f"{len(audio_files(folder))} recordings in {folder}")

# %% [markdown]
# ## An encoder
#
# `matpac.load` opens a checkpoint, a saved encoder, or by name the authors' weights (`matpac_10_2048`).
# Without any: networks as they are before training, which already tell noise from tones.


# %%
def untrained() -> "matpac.AudioEncoder":
    import torch

    from matpac.encoder.encoder import student_of
    from matpac.model.pretext import Pretext
    from matpac.model.sizes import SIZES
    from matpac.weights.released import AUDIOSET, PAPER_LOGMEL

    pretext = Pretext(
        SIZES["tiny"], num_mels=80, crop_frames=608, num_clusters=64, num_hypotheses=1, center_momentum=0.9
    )
    pretext.initialize_(torch.Generator().manual_seed(0))
    return student_of(pretext, PAPER_LOGMEL, AUDIOSET, chunk_frames=608)


encoder = matpac.load(arguments[0]) if arguments else untrained()
encoder.save_pretrained(OUT / "encoder")  # and matpac.load(OUT / "encoder") opens it again
print(text_of(encoder.facts()))

# %% [markdown]
# ## A folder, to a table
#
# In a shell: `matpac embed <folder> --out embeddings.parquet`. Interrupted, the same call goes on.

# %%
embed_files([folder], OUT / "encoder", OUT / "embeddings.npz")
table = np.load(OUT / "embeddings.npz")
embeddings, paths = table["embeddings"], table["paths"]

# %% [markdown]
# ## Nearest neighbours
#
# Of centred embeddings, by the angle between them.

# %%
centred = embeddings - embeddings.mean(axis=0)
units = centred / np.linalg.norm(centred, axis=1, keepdims=True)
similarity = units @ units.T - 2 * np.eye(len(units))
for row, nearest in enumerate(similarity.argmax(axis=1)):
    ours, theirs = (Path(paths[number]).relative_to(folder) for number in (row, nearest))
    print(f"{ours!s:20} is most like {theirs!s:20} ({similarity[row, nearest]:.2f})")

# %% [markdown]
# ## One recording
#
# A list of clips `[time]` or `[channel, time]`, floats in -1 to 1; soundfile gives `[time, channel]`.

# %%
name = Path(paths[0]).relative_to(folder)
waveform, rate_hz = soundfile.read(paths[0], always_2d=True)
embedding = encoder.embed([waveform.T], rate_hz)
print(f"{name}: {len(waveform) / rate_hz:.1f} s -> {embedding.shape}")
assert np.allclose(embedding[0], encoder.embed_file(paths[0]), atol=1e-4)

# %% [markdown]
# ## In time
#
# An embedding every 160 ms, and what each frequency patch says: `[freq, step, dim / freq]`, the lowest first.

# %%
[steps] = encoder.embed_in_time([waveform.T], rate_hz)
[patches] = encoder.embed_in_time([waveform.T], rate_hz, patches=True)
figure, (above, below) = plt.subplots(2, sharex=True, figsize=(8, 5), layout="constrained")
above.plot(np.arange(len(waveform)) / rate_hz, waveform.mean(axis=1), linewidth=0.5)
above.set_title(str(name))
change = np.linalg.norm(np.diff(patches.embeddings, axis=1), axis=2)
for freq, of_freq in enumerate(change):
    below.plot(steps.centers_ms[1:] / 1000, of_freq, label=f"patch {freq}")
below.set(xlabel="time (s)", ylabel="change from step to step")
below.legend(fontsize="small")
figure.savefig(OUT / "in_time.png", dpi=100)

# %% [markdown]
# ## Elsewhere
#
# The folder opens anywhere, bit for bit the same. `encoder.push_to_hub("user/repository")` publishes it,
# `matpac.AudioEncoder.from_pretrained("user/repository")` opens it there; `matpac export` writes ONNX.

# %%
again = matpac.load(OUT / "encoder", device=str(encoder.device))
assert np.array_equal(again.embed([waveform.T], rate_hz), embedding)
