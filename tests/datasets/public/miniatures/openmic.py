"""OpenMIC-2018 in miniature: 60 clips of half a second, 12 of each of five artists, three instruments.

Clip n of an artist is a tone of instrument n % 3, which was heard; the next instrument was looked for and not
heard; the third was not observed.
"""

import csv
import io
import json
from pathlib import Path

from matpac.datasets.public.openmic import CLASSES, LABELS, METADATA
from tests.datasets.public.miniatures import tone, wav, write_tar_gz

INSTRUMENTS = ("bass", "flute", "voice")
ARTISTS = {11: "train", 12: "train", 13: "train", 14: "train", 21: "test"}
"""15 % of the clips that train are fewer than an artist's: one artist validates."""
CLIPS_PER_ARTIST = 12
NUM_CLIPS = NUM_RECORDINGS = CLIPS_PER_ARTIST * len(ARTISTS)
# Both sides of the border, which is itself a positive.
HEARD, NOT_HEARD = ("1.0", "0.5"), ("0.0", "0.49")


def make(folder: Path) -> dict[str, Path]:
    top = "openmic-2018"
    labels = [["sample_key", "instrument", "relevance", "num_responses"]]
    metadata = [["sample_key", "start_time", "track_id", "artist_id", "artist_name", "license_title"]]
    partitions: dict[str, list[str]] = {"train": [], "test": []}
    members = {f"{top}/class-map.json": json.dumps({name: i for i, name in enumerate(CLASSES)}).encode()}
    for artist, split in ARTISTS.items():
        for number in range(CLIPS_PER_ARTIST):
            key = f"{artist * 100 + number:06}_{number * 3840}"
            sounding = number % len(INSTRUMENTS)
            silent = (number + 1) % len(INSTRUMENTS)
            labels.append([key, INSTRUMENTS[sounding], HEARD[number % 2], "3"])
            labels.append([key, INSTRUMENTS[silent], NOT_HEARD[number % 2], "3"])
            metadata.append([key, "0.0", key[:6], str(artist), f"Artist, No. {artist}", "CC BY-NC-ND 3.0"])
            partitions[split].append(key)
            samples = tone(4 * sounding, int(key[:6]), 44_100, 0.5, channels=1 + number % 2)
            members[f"{top}/audio/{key[:3]}/{key}.ogg"] = wav(samples, 44_100, "VORBIS", "OGG")
    members[f"{top}/{LABELS}"] = _csv(labels)
    members[f"{top}/{METADATA}"] = _csv(metadata)
    for split, keys in partitions.items():
        members[f"{top}/partitions/split01_{split}.csv"] = "".join(f"{key}\n" for key in keys).encode()
    name = "openmic-2018-v1.0.0.tgz"
    return {name: write_tar_gz(folder / name, members)}


def _csv(rows: list[list[str]]) -> bytes:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue().encode()
