"""UrbanSound8K in miniature: 10 folds, 3 clips in each of drilling (4) and siren (8), in all its formats."""

import csv
import io
from itertools import count
from pathlib import Path

from tests.datasets.public.miniatures import tone, wav, write_tar_gz

CLASSES = {4: "drilling", 8: "siren"}
SLICES_PER_FOLD = 3
NUM_CLIPS = 10 * len(CLASSES) * SLICES_PER_FOLD
NUM_RECORDINGS = NUM_CLIPS + 1
"""One file is not in the table."""
RATES_HZ = (8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000, 192_000)
FORMATS = (
    ("PCM_16", "WAV"),
    ("PCM_U8", "WAV"),
    ("PCM_24", "WAV"),
    ("PCM_32", "WAV"),
    ("FLOAT", "WAV"),
    ("MS_ADPCM", "WAV"),
    ("IMA_ADPCM", "WAV"),
    ("PCM_16", "WAVEX"),
    ("PCM_24", "WAVEX"),
)
SHORTEST_S = 0.05


def make(folder: Path) -> dict[str, Path]:
    top = "UrbanSound8K"
    finder = b"\0\0\0\1Bud1"
    members = {
        f"{top}/UrbanSound8K_README.txt": b"UrbanSound8K\n",
        f"{top}/audio/.DS_Store": finder,
        f"{top}/audio/fold1/.DS_Store": finder,
        f"{top}/audio/fold1/99999-4-0-0.wav": wav(tone(4, 99_999, 8_000, 0.3), 8_000),
    }
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["slice_file_name", "fsID", "start", "end", "salience", "fold", "classID", "class"])
    numbers = count()
    for fold in range(1, 11):
        for index, name in CLASSES.items():
            source = 20_000 + 100 * fold + index
            for cut in range(SLICES_PER_FOLD):
                number = next(numbers)
                rate_hz = RATES_HZ[number % len(RATES_HZ)]
                subtype, container = FORMATS[number % len(FORMATS)]
                seconds = SHORTEST_S if number == 0 else 0.4
                samples = tone(index, number, rate_hz, seconds, channels=1 + number % 2)
                file_name = f"{source}-{index}-0-{cut}.wav"
                rows.writerow([file_name, source, cut, cut + seconds, 1 + number % 2, fold, index, name])
                members[f"{top}/audio/fold{fold}/{file_name}"] = wav(samples, rate_hz, subtype, container)
    members[f"{top}/metadata/UrbanSound8K.csv"] = table.getvalue().encode()
    name = "UrbanSound8K.tar.gz"
    return {name: write_tar_gz(folder / name, members)}
