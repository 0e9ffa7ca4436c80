"""Audio files to shards: clips per second on one core, and on two.

Clips of ten seconds at 44.1 kHz and 16 bits, half of them mono, half stereo, played by the
synthesis of the demo (melodies, rhythms, scenes; FLAC shrinks them to a half, as it does music).
Ours is the whole path of a shard in a worker process: checksum of the file, decoding, checks for
damage and silence, resampling, log-mel, statistics, tar and record flushed to disk. Each gets one
core and finds the files in the page cache.

The limit is libsndfile's decoding alone, into memory that is allocated already: all decode with it.

Peers:
released recipe   What the authors' code does: soundfile, mean of the channels, a sinc under a Kaiser window
                  (width 64) as a strided convolution with a channel per phase, torch.stft, a
                  float32 .npy a clip. It computes its filters for every clip, as torchaudio's
                  function does; with filters that are kept it stands in a line of its own.
librosa           librosa.load (soxr_hq), librosa.feature.melspectrogram, a float32 .npy a clip.

First the log-mels of all clips are compared: ours with kaiser_best and the released recipe's, ours
with soxr_hq and librosa's.
"""

import hashlib
import math
import tarfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import cache
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import librosa
import numpy as np
import soundfile
import torch
from numpy.random import default_rng
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks.claims import Claim, run, seconds
from matpac.clip import Clip
from matpac.datasets.demo import sounds as synthesis
from matpac.datasets.demo.recipes import Stage, play_anything
from matpac.datasets.inventory import Recording
from matpac.params import LogMel, Shards
from matpac.prepare.build import build_shard
from matpac.prepare.plan import plan_shards
from matpac.prepare.workers import Workers
from matpac.prepare.workspace import Workspace
from matpac.signal.audio import mute_c_libraries, read_audio
from matpac.signal.logmel import log_mel
from matpac.signal.mel import mel_filters
from matpac.signal.resample import resample

NUM_CLIPS, DURATION_S, RATE_HZ = 32, 10, 44_100
ROUNDS = 7
SOXR = LogMel(
    sample_rate_hz=16000, window_ms=25, hop_ms=10, num_mels=80, fmin_hz=50, fmax_hz=8000, resampler="soxr_hq"
)
KAISER = SOXR.model_copy(update={"resampler": "kaiser_best"})
SHARDS = Shards(
    format="webdataset",
    clips_per_shard=NUM_CLIPS,
    reject=("silent", "truncated", "duplicate"),
    max_rejected_fraction=0.0,
    runner="threads",
    num_workers=2,
    dask_address=None,
)
EPSILON = 1.1920929e-07
MEAN_DIFFERENCE, LARGEST_DIFFERENCE = 1.2e-4, 2e-3
"""Difference of log-mels in float32; it is largest in nearly silent bands."""


def measure() -> list[Claim]:
    torch.set_num_threads(1)
    with (
        TemporaryDirectory() as name,
        threadpool_limits(1),
        closing(Workers(2, mute_c_libraries)) as workers,
        ThreadPoolExecutor(2) as threads,
    ):
        folder = Path(name)
        flac, wav = make_clips(folder / "flac", "FLAC"), make_clips(folder / "wav", "WAV")
        (folder / "npy").mkdir()

        soxr, second = Shard(folder / "soxr", flac, SOXR), Shard(folder / "second", flac, SOXR)
        kaiser, soxr_of_wav = Shard(folder / "kaiser", flac, KAISER), Shard(folder / "wavs", wav, SOXR)
        check(workers, soxr, librosa_recipe)
        check(workers, kaiser, released_recipe)

        at_48_khz = default_rng(0).uniform(-1, 1, DURATION_S * 48_000).astype(np.float32)
        resampled = convolve(torch.from_numpy(at_48_khz), 48_000, kept_kaiser_filters)
        np.testing.assert_allclose(resample(at_48_khz, 48_000, 16_000, "kaiser_best"), resampled, atol=1e-5)

        def both() -> None:
            for result in threads.map(lambda shard: shard.build(workers), (soxr, second)):
                assert result is None

        def each(files: Sequence[Path], recipe: Callable[[Path], NDArray[np.float32]]) -> Callable[[], None]:
            def convert() -> None:
                for path in files:
                    np.save(folder / "npy" / f"{path.stem}.npy", recipe(path))

            return convert

        spent = seconds(
            {
                "soxr": lambda: soxr.build(workers),
                "kaiser": lambda: kaiser.build(workers),
                "both": both,
                "decoding": lambda: decode(flac),
                "released": each(flac, released_recipe),
                "kept": each(flac, released_recipe_with_kept_filters),
                "librosa": each(flac, librosa_recipe),
                "soxr, wav": lambda: soxr_of_wav.build(workers),
                "released, wav": each(wav, released_recipe),
                "librosa, wav": each(wav, librosa_recipe),
                "48 kHz": lambda: resample(at_48_khz, 48_000, 16_000, "kaiser_best"),
                "48 kHz, convolution": lambda: convolve(
                    torch.from_numpy(at_48_khz), 48_000, kept_kaiser_filters
                ),
            },
            ROUNDS,
        )
    rate = {name: NUM_CLIPS / spent_s for name, spent_s in spent.items()}
    ms = {name: 1000 * spent_s for name, spent_s in spent.items()}
    released, kept, convolution = (
        "released recipe",
        "released recipe, filters kept",
        "its convolution, filters kept",
    )
    unit = "clips/s a core"
    return [
        Claim(
            "FLAC to shard, soxr_hq",
            unit,
            rate["soxr"],
            "decoding alone, by libsndfile",
            rate["decoding"],
            goal=0.6,
            is_limit=True,
        ),
        Claim("FLAC to shard, soxr_hq", unit, rate["soxr"], released, rate["released"], goal=1.3),
        Claim("FLAC to shard, soxr_hq", unit, rate["soxr"], "librosa", rate["librosa"], goal=1.1),
        Claim("FLAC to shard, kaiser_best", unit, rate["kaiser"], released, rate["released"], goal=1.2),
        Claim("FLAC to shard, kaiser_best", unit, rate["kaiser"], kept, rate["kept"]),
        Claim("FLAC to shard, two workers", "x one", 2 * spent["soxr"] / spent["both"], goal=1.8),
        Claim("WAV to shard, soxr_hq", unit, rate["soxr, wav"], released, rate["released, wav"]),
        Claim("WAV to shard, soxr_hq", unit, rate["soxr, wav"], "librosa", rate["librosa, wav"]),
        Claim(
            "10 s from 48 to 16 kHz, kaiser_best",
            "ms",
            ms["48 kHz"],
            convolution,
            ms["48 kHz, convolution"],
            less_is_better=True,
        ),
    ]


def make_clips(folder: Path, container: str) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"{number:03d}.{container.lower()}" for number in range(NUM_CLIPS)]
    for number, path in enumerate(paths):
        soundfile.write(path, clip(number), RATE_HZ, subtype="PCM_16", format=container)
    return paths


def clip(number: int) -> NDArray[np.float32]:
    """Samples [time, channel]: two players at two places in a room, with noise in each channel."""
    generator = default_rng((0, number))
    players = [Stage(np.zeros(DURATION_S * RATE_HZ, np.float32), RATE_HZ, generator) for _ in range(2)]
    for player in players:
        play_anything(player)
    left, right = (synthesis.room(player.mix, generator.uniform(0, 0.5), RATE_HZ) for player in players)
    other = np.float32(0.3)
    channels = [left + other * right, right + other * left] if number % 2 else [left + right]
    gain = np.float32(10 ** generator.uniform(-3, -1.6))
    noisy = [
        channel / np.abs(channel).max()
        + gain * synthesis.smoothed(synthesis.noise(len(channel), generator), 8)
        for channel in channels
    ]
    mix = np.stack(noisy, axis=1)
    return mix * np.float32(10 ** generator.uniform(-1, -0.05) / np.abs(mix).max())


class Shard:
    """One shard of all clips, planned once and built as often as wanted."""

    def __init__(self, work: Path, paths: Sequence[Path], logmel: LogMel) -> None:
        self.paths, self.logmel = paths, logmel
        recordings = [
            Recording(
                path.name, path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest(), path.name
            )
            for path in paths
        ]
        clips = [Clip(id=path.stem, path=path.name, labels=("music",)) for path in paths]
        plan = plan_shards(
            clips, recordings, paths[0].parent, Workspace(work), lambda _: None, logmel, SHARDS
        )
        self.job = plan.job(0)
        self.tar, self.record = (place(self.job.key) for place in (plan.workspace.tar, plan.workspace.record))

    def build(self, workers: Workers) -> None:
        self.tar.unlink(missing_ok=True)
        self.record.unlink(missing_ok=True)
        result = workers.run(build_shard, self.job)
        assert result is not None
        assert result.num_clips == NUM_CLIPS


def check(workers: Workers, shard: Shard, recipe: Callable[[Path], NDArray[np.float32]]) -> None:
    """Ours as it is stored, and before it is rounded to float16, beside the peer's."""
    shard.build(workers)
    with tarfile.open(shard.tar) as tar:
        for path in shard.paths:
            ours = log_mel(read_audio(path, shard.logmel), shard.logmel, mel_filters(shard.logmel))
            theirs = recipe(path).T
            member = tar.extractfile(f"{path.stem}.npy")
            assert member is not None
            stored = np.load(BytesIO(member.read()))
            np.testing.assert_array_equal(stored, ours.astype(np.float16))
            assert ours.shape == theirs.shape
            difference = np.abs(ours - theirs)
            if difference.mean() > MEAN_DIFFERENCE or difference.max() > LARGEST_DIFFERENCE:
                raise ValueError(
                    f"{path.name}: need the same log-mels from {recipe.__name__}; they differ by "
                    f"{difference.mean():.1e} on average and {difference.max():.1e} at most"
                )


def decode(paths: Sequence[Path]) -> None:
    """The limit: decode each file into memory that is allocated already."""
    memory = np.empty(2 * DURATION_S * RATE_HZ, dtype=np.float32)
    for path in paths:
        with soundfile.SoundFile(path) as file:
            file.read(out=memory[: file.frames * file.channels].reshape(file.frames, file.channels))


# The peers: file -> log-mel [mel, frame].

Filters = Callable[[int, int], tuple[torch.Tensor, int]]


def librosa_recipe(path: Path) -> NDArray[np.float32]:
    waveform, _ = librosa.load(path, sr=16_000)
    energies = librosa.feature.melspectrogram(
        y=waveform, sr=16_000, n_fft=400, hop_length=160, center=False, n_mels=80, fmin=50, fmax=8_000
    )
    return np.log(energies + EPSILON)


def released_recipe(path: Path) -> NDArray[np.float32]:
    return recipe_in_torch(path, kaiser_filters)


def released_recipe_with_kept_filters(path: Path) -> NDArray[np.float32]:
    return recipe_in_torch(path, kept_kaiser_filters)


def recipe_in_torch(path: Path, filters: Filters) -> NDArray[np.float32]:
    samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    mono = torch.from_numpy(samples).mean(dim=-1)
    waveform = convolve(mono, rate_hz, filters)
    window, bands = constants()
    spectrum = torch.stft(waveform, 400, 160, window=window, center=False, return_complex=True)
    energies = bands @ spectrum.abs().square()
    return torch.log(energies + EPSILON).numpy()


def convolve(samples: torch.Tensor, rate_hz: int, filters: Filters) -> torch.Tensor:
    """The waveform at 16 kHz."""
    divisor = math.gcd(rate_hz, 16_000)
    step, num_phases = rate_hz // divisor, 16_000 // divisor
    kernels, reach = filters(step, num_phases)
    padded = torch.nn.functional.pad(samples[None, None], (reach, reach + step))
    phases = torch.nn.functional.conv1d(padded, kernels, stride=step)[0]
    return phases.T.reshape(-1)[: math.ceil(len(samples) * num_phases / step)]


def kaiser_filters(step: int, num_phases: int) -> tuple[torch.Tensor, int]:
    """[phase, 1, tap], and how many taps lie before the first sample of a period."""
    beta = torch.tensor(14.769656459379492)
    cutoff = min(step, num_phases) * 0.9475937167399596
    reach = math.ceil(64 * step / cutoff)
    taps = torch.arange(-reach, step + reach) / step
    crossings = cutoff * (taps - torch.arange(num_phases)[:, None] / num_phases)
    crossings = crossings.clamp(-64, 64)
    kaiser = torch.i0(beta * torch.sqrt(1 - (crossings / 64) ** 2)) / torch.i0(beta)
    return (torch.sinc(crossings) * kaiser * cutoff / step)[:, None], reach


kept_kaiser_filters = cache(kaiser_filters)


@cache
def constants() -> tuple[torch.Tensor, torch.Tensor]:
    """The window and the mel filters [mel, bin]."""
    filters = librosa.filters.mel(sr=16_000, n_fft=400, n_mels=80, fmin=50, fmax=8_000)
    return torch.hann_window(400), torch.from_numpy(filters)


if __name__ == "__main__":
    run(measure, __doc__)
