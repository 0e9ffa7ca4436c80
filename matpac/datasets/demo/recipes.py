"""demo: short recordings synthesised from a seed, to try everything without a network.

Source   None: matpac/datasets/demo/sounds.py makes a clip from (seed, recipe, number of the clip).
License  None needed.
Layout   clip-000000.wav ... (16-bit WAV; 16, 22.05 or 44.1 kHz; mono or stereo) and labels.csv

Four recipes:
corpus     2.5-4 s, unlabelled: melodies, rhythms and scenes of any kind, for pre-training.
melodies   One of three instruments plays five notes upwards, downwards, in an arch or a valley: 12
           classes. All contours have the same five notes; only the order differs. 60 % train, 15 %
           validation, 25 % test.
rhythms    Four low and four high hits in eight patterns: which come first, getting faster or
           slower, louder or softer. 8 classes, five folds.
scenes     One to four of ten sources at once. Three pairs of sources differ in direction only (a
           siren that rises or falls, bells up or down, wind that grows or dies). Splits as for
           melodies.
"""

import csv
import io
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32
from numpy.random import Generator, default_rng

from matpac.clip import Clip, Rejection, SplitName, Task
from matpac.datasets.demo import sounds as synthesis
from matpac.datasets.demo.sounds import Signal
from matpac.datasets.inventory import Recording
from matpac.files import flush_to_disk, locked, move_into_place
from matpac.params import Demo

RELEASE = "1"
"""Version of the sounds. Raise it with every change: recordings of another release are made
again."""
TABLE, RELEASE_FILE = "labels.csv", "release.txt"
NUM_FOLDS = 5
SPLIT_CYCLE: tuple[SplitName, ...] = (
    *("train", "test", "train", "validation", "train", "test", "train", "train", "test", "train"),
    *("validation", "train", "test", "train", "train", "validation", "train", "test"),
    *("train", "train"),
)
"""Splits of every 20 clips of a class: 12 train, 3 validation, 5 test."""

INSTRUMENTS = ("organ", "clarinet", "pluck")
CONTOURS = {
    "rising": (0, 1, 2, 3, 4),
    "falling": (4, 3, 2, 1, 0),
    "arch": (0, 2, 4, 3, 1),
    "valley": (4, 2, 0, 1, 3),
}
MELODIES = tuple(f"{instrument}_{contour}" for instrument in INSTRUMENTS for contour in CONTOURS)


class Pattern(NamedTuple):
    """Low (L) and high (H) hits, and the factors by which intervals and loudness grow."""

    hits: str
    slowing: float = 1.0
    swelling: float = 1.0


PATTERNS = {
    "low_then_high": Pattern("LLLLHHHH"),
    "high_then_low": Pattern("HHHHLLLL"),
    "high_inside": Pattern("LLHHHHLL"),
    "low_inside": Pattern("HHLLLLHH"),
    "speeding_up": Pattern("LHLHLHLH", slowing=1 / 1.25),
    "slowing_down": Pattern("LHLHLHLH", slowing=1.25),
    "swelling": Pattern("LHLHLHLH", swelling=1.35),
    "fading": Pattern("LHLHLHLH", swelling=1 / 1.35),
}


class Stage(NamedTuple):
    """The clip in the making."""

    mix: Signal
    rate_hz: int
    generator: Generator

    @property
    def duration_s(self) -> float:
        return len(self.mix) / self.rate_hz

    def play(self, sound: Signal, start_s: float, gain: float = 1.0) -> None:
        synthesis.add(self.mix, sound, start_s, self.rate_hz, gain)


def fetch(params: Demo, root: Path, report: Callable[[int, int], None] | None) -> None:
    """Synthesise the recordings; `report` receives (clips done, clips in all).

    A call goes on after an interrupted one, and waits while another process works on the same root.
    The root appears when it is complete.
    """
    release = root / RELEASE_FILE
    if not (release.exists() and release.read_text() == RELEASE):
        with locked(root.with_name(f".{root.name}.lock"), wait=True):
            _synthesise(params, root, report)


def _synthesise(params: Demo, root: Path, report: Callable[[int, int], None] | None) -> None:
    release = root / RELEASE_FILE
    if release.exists() and release.read_text() == RELEASE:
        return  # The process that was waited for has done it.
    # Kept if the disk is full: the next call goes on with the clips that are whole.
    unfinished = root.with_name(f".{root.name}.release-{RELEASE}.partial")
    unfinished.mkdir(parents=True, exist_ok=True)
    for number in range(params.num_clips):
        path = unfinished / _file_name(number)
        if not path.exists():
            beginning = path.with_suffix(".partial")
            try:
                _write_clip(beginning, params, number)
                beginning.replace(path)
            finally:
                beginning.unlink(missing_ok=True)
        if report is not None:
            report(number + 1, params.num_clips)
    _write_table(unfinished / TABLE, params)
    (unfinished / RELEASE_FILE).write_text(RELEASE)
    for path in unfinished.iterdir():
        flush_to_disk(path)
    move_into_place(unfinished, root)


def tables(params: Demo, root: Path) -> list[Path]:
    return [root / TABLE]


def clips(params: Demo, root: Path, recordings: Iterable[Recording]) -> Iterator[Clip | Rejection]:
    with (root / TABLE).open(newline="", encoding="utf-8") as table:
        rows = {row["path"]: row for row in csv.DictReader(table)}
    for recording in recordings:
        row = rows.get(recording.path)
        if row is None:
            yield Rejection(recording.path, f"not listed (in {TABLE})")
            continue
        yield Clip(
            id=Path(recording.path).stem,
            path=recording.path,
            labels=tuple(filter(None, row["labels"].split(";"))),
            split=row["split"] or None,  # type: ignore[arg-type] # written from SPLIT_CYCLE
            fold=int(row["fold"]) if row["fold"] else None,
        )


def task(params: Demo, root: Path, labels: Collection[str], num_folds: int | None) -> Task | None:
    match params.recipe:
        case "corpus":
            return None
        case "melodies":
            return Task(MELODIES, multi_label=False, metric="accuracy", num_folds=None)
        case "rhythms":
            return Task(tuple(PATTERNS), multi_label=False, metric="accuracy", num_folds=NUM_FOLDS)
        case "scenes":
            return Task(tuple(SOURCES), multi_label=True, metric="mAP", num_folds=None)


def _file_name(number: int) -> str:
    return f"clip-{number:06d}.wav"


def _write_table(path: Path, params: Demo) -> None:
    with path.open("w", newline="", encoding="utf-8") as table:
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(("path", "labels", "split", "fold"))
        for number in range(params.num_clips):
            split, fold = split_and_fold(params, number)
            labels = ";".join(labels_of(params, number))
            writer.writerow((_file_name(number), labels, split or "", fold or ""))


def labels_of(params: Demo, number: int) -> tuple[str, ...]:
    match params.recipe:
        case "corpus":
            return ()
        case "melodies":
            return (MELODIES[number % len(MELODIES)],)
        case "rhythms":
            return (tuple(PATTERNS)[number % len(PATTERNS)],)
        case "scenes":
            # A generator of its own, so that the table can be written without making the sound.
            generator = default_rng((params.seed, number, 0))
            chosen = generator.permutation(len(SOURCES))[: generator.integers(1, 5)]
            return tuple(tuple(SOURCES)[index] for index in sorted(chosen))


def split_and_fold(params: Demo, number: int) -> tuple[SplitName | None, int | None]:
    match params.recipe:
        case "corpus":
            return None, None
        case "rhythms":
            # Neighboring classes start in different folds, so that a few clips fill all folds.
            place, index = divmod(number, len(PATTERNS))
            return None, (place + index) % NUM_FOLDS + 1
        case "melodies":
            place, index = divmod(number, len(MELODIES))
            return SPLIT_CYCLE[(place + 7 * index) % len(SPLIT_CYCLE)], None
        case "scenes":
            return SPLIT_CYCLE[number % len(SPLIT_CYCLE)], None


def _write_clip(path: Path, params: Demo, number: int) -> None:
    import soundfile

    generator = default_rng((params.seed, number, 1))
    rate_hz = int(generator.choice((16_000, 22_050, 44_100), p=(0.6, 0.25, 0.15)))
    shortest_s, longest_s = (2.5, 4.0) if params.recipe == "corpus" else (2.2, 2.5)
    num_samples = round(generator.uniform(shortest_s, longest_s) * rate_hz)
    stage = Stage(np.zeros(num_samples, np.float32), rate_hz, generator)
    perform(stage, params.recipe, labels_of(params, number))
    # Into memory first: libsndfile does not say that a disk is full.
    content = io.BytesIO()
    soundfile.write(content, _finished(stage), rate_hz, subtype="PCM_16", format="WAV")
    path.write_bytes(content.getvalue())


def perform(stage: Stage, recipe: str, labels: tuple[str, ...]) -> None:
    generator = stage.generator
    match recipe:
        case "corpus":
            play_anything(stage)
        case "melodies":
            instrument, contour = labels[0].split("_")
            note_s = generator.uniform(0.32, 0.38)
            play_melody(stage, instrument, CONTOURS[contour], note_s)
        case "rhythms":
            play_rhythm(stage, PATTERNS[labels[0]], generator.uniform(0.215, 0.245))
        case "scenes":
            for label in labels:
                SOURCES[label](stage)


def _finished(stage: Stage) -> Float32[np.ndarray, "time channel"]:
    """The clip in a room, over background noise, at some level, on one or two channels."""
    mix, rate_hz, generator = stage
    mix = synthesis.room(mix, generator.uniform(0.0, 0.5), rate_hz)
    mix = mix / np.abs(mix).max()
    white = synthesis.noise(len(mix), generator)
    dull = synthesis.smoothed(white, int(generator.integers(1, rate_hz // 2000)))
    hiss = dull + np.float32(0.3) * white
    mix = mix + np.float32(10 ** generator.uniform(-2.5, -1.2)) * hiss
    mix = mix * np.float32(10 ** generator.uniform(-1.2, -0.05) / np.abs(mix).max())
    channels: Float32[np.ndarray, "time channel"] = mix[:, None]
    if generator.random() >= 0.7:
        balance = generator.uniform(0.3, 1.0, size=2).astype(np.float32)
        channels = channels * balance / balance.max()
    return channels


# What is played.


def play_melody(stage: Stage, instrument: str, contour: Sequence[int], note_s: float) -> None:
    """Play notes of a random key; `contour` counts steps above its lowest note."""
    generator = stage.generator
    lowest_hz = generator.uniform(170, 300)
    step_semitones = generator.uniform(3.5, 5.0)
    start_s = generator.uniform(0.02, 0.15)
    for place, steps in enumerate(contour):
        pitch_hz = lowest_hz * 2 ** ((steps * step_semitones + generator.normal(0, 0.3)) / 12)
        length_s = note_s * generator.uniform(0.8, 1.0)
        sound = synthesis.VOICES[instrument](pitch_hz, length_s, stage.rate_hz, generator)
        stage.play(sound, start_s + place * note_s, gain=generator.uniform(0.6, 1.0))


def play_rhythm(stage: Stage, pattern: Pattern, interval_s: float) -> None:
    """Play one low and one high sound; `interval_s` is the mean time between hits."""
    generator = stage.generator
    low = synthesis.LOW_HITS[generator.integers(len(synthesis.LOW_HITS))]
    high = synthesis.HIGH_HITS[generator.integers(len(synthesis.HIGH_HITS))]
    num_hits = len(pattern.hits)
    intervals = pattern.slowing ** np.arange(num_hits - 1)
    intervals *= interval_s / intervals.mean()
    gains = pattern.swelling ** np.arange(num_hits)
    gains /= gains.max()
    times = generator.uniform(0.02, 0.2) + np.concatenate([[0], np.cumsum(intervals)])
    for hit, time_s, gain in zip(pattern.hits, times, gains, strict=True):
        sound = (low if hit == "L" else high)(stage.rate_hz, generator)
        late_s = max(generator.normal(0, 0.008), -0.02)
        stage.play(sound, time_s + late_s, gain=gain * generator.uniform(0.75, 1.0))


def play_anything(stage: Stage) -> None:
    """Play sounds of the labelled recipes, combined freely but in a predictable course."""
    generator = stage.generator
    kind = generator.choice(("melody", "rhythm", "scene"))
    if kind == "melody":
        note_s = generator.uniform(0.25, 0.42)
        contour = wandering_contour(int(stage.duration_s / note_s), generator)
        play_melody(stage, str(generator.choice(tuple(synthesis.VOICES))), contour, note_s)
    elif kind == "rhythm":
        interval_s = generator.uniform(0.19, 0.3)
        hits = runs_of_hits(int(stage.duration_s / interval_s), generator)
        slowing, swelling = np.exp(generator.normal(0, (0.1, 0.15)))
        play_rhythm(stage, Pattern(hits, slowing, swelling), interval_s)
    else:
        for name in generator.permutation(tuple(SOURCES))[: generator.integers(1, 5)]:
            SOURCES[str(name)](stage)


def wandering_contour(num_notes: int, generator: Generator) -> list[int]:
    """Steps within five notes that mostly keep their direction."""
    steps, direction = int(generator.integers(5)), int(generator.choice((-1, 1)))
    contour = []
    for _ in range(num_notes):
        contour.append(steps)
        if generator.random() < 0.15 or not 0 <= steps + direction <= 4:
            direction = -direction
        steps = min(max(steps + direction, 0), 4)
    return contour


def runs_of_hits(num_hits: int, generator: Generator) -> str:
    """Low and high hits in runs of equal length."""
    length = int(generator.choice((1, 2, 3, 4)))
    first = str(generator.choice(("LH", "HL")))
    run = first[0] * length + first[1] * length
    return (run * num_hits)[:num_hits]


def play_siren(stage: Stage, *, rising: bool) -> None:
    generator = stage.generator
    low_hz, length_s = generator.uniform(250, 400), generator.uniform(0.9, 1.4)
    high_hz = low_hz * generator.uniform(2.2, 3.5)
    start_hz, end_hz = (low_hz, high_hz) if rising else (high_hz, low_hz)
    phase = synthesis.sweep(start_hz, end_hz, length_s, stage.rate_hz)
    tone = synthesis.oscillate(synthesis.ORGAN, phase)
    sound = synthesis.faded(tone, 0.05, 0.08, stage.rate_hz)
    start_s = generator.uniform(0, 2.1 - length_s)
    stage.play(sound, start_s, gain=generator.uniform(0.4, 0.8))


def play_bells(stage: Stage, *, rising: bool) -> None:
    """Three strokes, each on another bell."""
    generator = stage.generator
    interval_s, ratio = generator.uniform(0.35, 0.5), generator.uniform(1.3, 1.5)
    start_s, lowest_hz = generator.uniform(0, 0.7), generator.uniform(400, 800)
    for place, steps in enumerate((0, 1, 2) if rising else (2, 1, 0)):
        sound = synthesis.bell(lowest_hz * ratio**steps, 1.0, stage.rate_hz, generator)
        gain = generator.uniform(0.5, 0.9)
        stage.play(sound, start_s + place * interval_s, gain)


def play_wind(stage: Stage, *, growing: bool) -> None:
    """Dull noise in gusts, over a level that goes up or down by 15 dB."""
    generator = stage.generator
    num_samples = len(stage.mix)
    air = synthesis.noise(num_samples, generator)
    air = synthesis.smoothed(air, round(stage.rate_hz / 900))
    turns = generator.uniform(0.5, 1.0) * synthesis.time_s(stage.duration_s, stage.rate_hz)
    gusts = 0.7 + 0.3 * synthesis.oscillate(synthesis.SINE, turns + generator.random())
    level = np.exp(np.linspace(-1.75, 0, num_samples)).astype(np.float32)
    sound = air * gusts * (level if growing else level[::-1])
    stage.play(sound, 0.0, gain=generator.uniform(0.2, 0.4))


def play_birds(stage: Stage) -> None:
    """Calls of a few short chirps."""
    generator = stage.generator
    start_s, end_s = sorted(generator.uniform(0, stage.duration_s - 0.3, size=2))
    while start_s <= end_s + 0.3:
        pitch_hz, length_s = generator.uniform(2500, 4500), generator.uniform(0.06, 0.12)
        phase = synthesis.sweep(pitch_hz, pitch_hz * 1.3, length_s, stage.rate_hz)
        chirp = synthesis.oscillate(synthesis.SINE, phase)
        stage.play(synthesis.faded(chirp, 0.02, 0.04, stage.rate_hz), start_s, gain=0.5)
        start_s += length_s + generator.uniform(0.03, 0.15)


def play_clock(stage: Stage) -> None:
    generator = stage.generator
    interval_s, gain = generator.uniform(0.3, 0.5), generator.uniform(0.4, 0.8)
    for start_s in np.arange(generator.uniform(0, 0.3), stage.duration_s, interval_s):
        stage.play(synthesis.block(stage.rate_hz, generator), start_s, gain)


def play_drum(stage: Stage) -> None:
    generator = stage.generator
    start_s = generator.uniform(0, 0.3)
    while start_s < stage.duration_s - 0.1:
        stage.play(synthesis.kick(stage.rate_hz, generator), start_s, generator.uniform(0.6, 1.0))
        start_s += generator.choice((0.25, 0.375, 0.5))


def play_engine(stage: Stage) -> None:
    """A low buzz that trembles."""
    generator = stage.generator
    seconds = synthesis.time_s(stage.duration_s, stage.rate_hz)
    buzz = synthesis.oscillate(synthesis.BRIGHT_STRING, generator.uniform(70, 110) * seconds)
    tremble = 0.7 + 0.3 * synthesis.oscillate(synthesis.SINE, generator.uniform(9, 15) * seconds)
    stage.play(buzz * tremble, 0.0, gain=generator.uniform(0.3, 0.6))


SOURCES: dict[str, Callable[[Stage], None]] = {
    "rising_siren": partial(play_siren, rising=True),
    "falling_siren": partial(play_siren, rising=False),
    "rising_bells": partial(play_bells, rising=True),
    "falling_bells": partial(play_bells, rising=False),
    "growing_wind": partial(play_wind, growing=True),
    "dying_wind": partial(play_wind, growing=False),
    "birds": play_birds,
    "clock": play_clock,
    "drum": play_drum,
    "engine": play_engine,
}
