"""ESC-50 in miniature: 5 folds, 3 clips in each of dog (0) and rain (10); a zip as a code host packs it."""

import csv
import io
from pathlib import Path

import numpy as np

from tests.datasets.public.miniatures import tone, wav, write_zip

CLASSES = {0: "dog", 10: "rain"}
TAKES_PER_FOLD = 3
NUM_CLIPS = NUM_RECORDINGS = 5 * len(CLASSES) * TAKES_PER_FOLD
RATE_HZ = 44_100


def make(folder: Path) -> dict[str, Path]:
    top = "ESC-50-master"
    members = {f"{top}/README.md": b"# ESC-50\n", f"{top}/LICENSE": b"CC BY-NC 3.0\n"}
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["filename", "fold", "target", "category", "esc10", "src_file", "take"])
    for fold in range(1, 6):
        for target, category in CLASSES.items():
            source = 100_000 + 100 * fold + target
            for number, take in enumerate("ABC"):
                name = f"{fold}-{source}-{take}-{target}.wav"
                rows.writerow([name, fold, target, category, True, source, take])
                # Short sounds are filled up with digital silence.
                silence = np.zeros((RATE_HZ // 10, 1))
                samples = np.concatenate([tone(target, 10 * fold + number, RATE_HZ, 0.5), silence])
                members[f"{top}/audio/{name}"] = wav(samples, RATE_HZ)
    members[f"{top}/meta/esc50.csv"] = table.getvalue().encode()
    name = "ESC-50-master.zip"
    return {name: write_zip(folder / name, members)}
