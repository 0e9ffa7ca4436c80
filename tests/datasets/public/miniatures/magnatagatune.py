"""MagnaTagATune in miniature: 65 clips of half a second with three tags, and the three without bytes.

Every folder in use has four clips of each of the three tags, and one without any of the 50.
"""

import csv
from pathlib import Path

from matpac.datasets.public.magnatagatune import BROKEN
from tests.datasets.public.miniatures import tone, wav, write_zip

TAGS = ("drums", "flute", "techno")
# fmt: off
TOP_TAGS = (
    "guitar", "classical", "slow", "techno", "strings", "drums", "electronic", "rock", "fast", "piano",
    "ambient", "beat", "violin", "vocal", "synth", "female", "indian", "opera", "male", "singing", "vocals",
    "no vocals", "harpsichord", "loud", "quiet", "flute", "woman", "male vocal", "pop", "no vocal", "soft",
    "sitar", "solo", "man", "classic", "choir", "voice", "new age", "dance", "male voice", "female vocal",
    "beats", "harp", "cello", "no voice", "weird", "country", "female voice", "metal", "choral",
)
# fmt: on
RARE_TAGS = tuple(f"rare tag {number:03}" for number in range(188 - len(TOP_TAGS)))
FOLDERS = "0bcdf"
CLIPS_PER_TAG = 4
NUM_CLIPS = len(FOLDERS) * (CLIPS_PER_TAG * len(TAGS) + 1)
NUM_RECORDINGS = NUM_CLIPS + len(BROKEN)
NUM_PARTS = 3


def make(folder: Path) -> dict[str, Path]:
    members = {"b/._artist_b-some_album-00-a_title-0-29.mp3": b"not a recording"}
    tags_of: dict[str, set[str]] = {}
    for first in FOLDERS:
        for number in range(CLIPS_PER_TAG * len(TAGS) + 1):
            name = f"{first}/artist_{first}-some_album-{number:02}-a_title-0-29.mp3"
            tags_of[name] = {TAGS[number % 3]} if number < CLIPS_PER_TAG * len(TAGS) else set()
            samples = tone(4 * (number % 3), len(tags_of), 16_000, 0.5)
            members[name] = wav(samples, 16_000, "MPEG_LAYER_III", "MP3")
    for name in sorted(BROKEN):
        members[name] = b""
        tags_of[name] = set(TOP_TAGS)
    # Fewer than any of the 50 has.
    tags_of[f"{FOLDERS[0]}/artist_{FOLDERS[0]}-some_album-12-a_title-0-29.mp3"] = set(RARE_TAGS[:1])
    files = _parts(write_zip(folder / "mp3.zip", members))
    annotations, info = folder / "annotations_final.csv", folder / "clip_info_final.csv"
    all_tags = (*RARE_TAGS, *TOP_TAGS)
    _write_tsv(
        annotations,
        ["clip_id", *all_tags, "mp3_path"],
        [
            [clip_id, *(int(tag in tags) for tag in all_tags), name]
            for clip_id, (name, tags) in enumerate(tags_of.items(), start=2)
        ],
    )
    _write_tsv(
        info,
        ["clip_id", "track_number", "artist", "album", "mp3_path"],
        [[clip_id, 1, name[2:10], "Some album", name] for clip_id, name in enumerate(tags_of, start=2)],
    )
    return files | {annotations.name: annotations, info.name: info}


def _parts(path: Path) -> dict[str, Path]:
    """The file cut into three, without any regard to what is in it."""
    content = path.read_bytes()
    path.unlink()
    part_bytes = len(content) // NUM_PARTS + 1
    parts = {}
    for number in range(NUM_PARTS):
        part = path.with_name(f"{path.name}.{number + 1:03}")
        part.write_bytes(content[number * part_bytes : (number + 1) * part_bytes])
        parts[part.name] = part
    return parts


def _write_tsv(path: Path, header: list[str], rows: list[list[object]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerows([header, *rows])
