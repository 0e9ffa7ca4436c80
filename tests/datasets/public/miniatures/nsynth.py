"""NSynth in miniature: three archives; 3 notes of two families in each split, of synth_lead not in test."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.datasets.public.miniatures import tone, wav, write_tar_gz

FAMILIES = (
    *("bass", "brass", "flute", "guitar", "keyboard", "mallet"),
    *("organ", "reed", "string", "synth_lead", "vocal"),
)
SOURCES = ("acoustic", "electronic", "synthetic")
INSTRUMENTS = {
    "train": ("bass_synthetic_000", "reed_acoustic_001", "synth_lead_synthetic_000"),
    "valid": ("bass_synthetic_134", "reed_acoustic_011", "synth_lead_synthetic_011"),
    "test": ("bass_synthetic_098", "reed_acoustic_018"),
}
VELOCITIES = (25, 75, 127)
NUM_CLIPS = NUM_RECORDINGS = 3 * sum(map(len, INSTRUMENTS.values()))
RATE_HZ = 16_000


def make(folder: Path) -> dict[str, Path]:
    paths = {}
    for split in INSTRUMENTS:
        name, top = f"nsynth-{split}.jsonwav.tar.gz", f"nsynth-{split}"
        notes = {note["note_str"]: note for note in notes_of(split)}
        members = {
            f"{top}/audio/{note_str}.wav": wav(
                tone(note["instrument_family"], note["note"], RATE_HZ, 0.5), RATE_HZ
            )
            for note_str, note in notes.items()
        }
        members[f"{top}/examples.json"] = json.dumps(notes, indent=1).encode()
        paths[name] = write_tar_gz(folder / name, members)
    return paths


def notes_of(split: str) -> Iterator[dict[str, Any]]:
    for number, instrument in enumerate(INSTRUMENTS[split]):
        family, source, _ = instrument.rsplit("_", 2)
        for velocity in VELOCITIES:
            yield {
                "note": 10_000 * list(INSTRUMENTS).index(split) + 1_000 * number + velocity,
                "note_str": f"{instrument}-060-{velocity:03d}",
                "instrument": 100 * list(INSTRUMENTS).index(split) + number,
                "instrument_str": instrument,
                "pitch": 60,
                "velocity": velocity,
                "sample_rate": RATE_HZ,
                "qualities": [0] * 10,
                "qualities_str": [],
                "instrument_family": FAMILIES.index(family),
                "instrument_family_str": family,
                "instrument_source": SOURCES.index(source),
                "instrument_source_str": source,
            }
