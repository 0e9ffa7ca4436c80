"""Miniatures of the official archives: real layouts and formats, a few short tones per class and split.

Each module offers `make(folder) -> {file name: path}`, which writes the archives under the names of the
dataset's PAGE, and what a complete copy of them holds: NUM_RECORDINGS (audio files that are not hidden),
NUM_CLIPS (of them, those that the dataset lists).
"""

import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import soundfile


def tone(class_index: int, take: int, rate_hz: int, seconds: float, channels: int = 1) -> np.ndarray:
    """[time, channel]: a tone whose pitch tells the class, with a little noise; no two takes are alike."""
    random = np.random.default_rng([class_index, take])
    time_s = np.arange(round(rate_hz * seconds)) / rate_hz
    pitch_hz = 400 * 2 ** (class_index % 11 / 5) * random.uniform(0.98, 1.02)
    mono = 0.4 * np.sin(2 * np.pi * pitch_hz * time_s) + 0.02 * random.standard_normal(len(time_s))
    return np.stack([mono * gain for gain in (1.0, 0.5)[:channels]], axis=1)


def wav(samples: np.ndarray, rate_hz: int, subtype: str = "PCM_16", container: str = "WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, subtype=subtype, format=container)
    return file.getvalue()


def write_zip(path: Path, members: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def write_tar_gz(path: Path, members: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path
