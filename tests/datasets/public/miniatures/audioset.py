"""AudioSet in miniature: the official lists, and a part of their recordings in every form people have."""

import base64
import csv
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path

import numpy as np
import pyarrow as pa
import soundfile
from pyarrow import parquet

from matpac.datasets.public.audioset import BALANCED, CLASSES, EVAL, UNBALANCED, VALIDATES_ONE_IN
from tests.datasets.public.miniatures import tone, wav

NAMES = {"/m/09x0r": "Speech", "/m/05zppz": "Male speech, man speaking", "/m/04rlf": "Music"}
NUM_CLASSES = 527
PER_PART = 12
"""Recordings that test, that train and that validate; a third of them for each sound."""
NUM_MISSING = {EVAL: 3, BALANCED: 2, UNBALANCED: 5}
"""Segments that are listed and whose recordings nobody has any more."""
EMPTY, SILENT, UNLISTED = "-EMPTY_FILE", "_silent-_-_", "__unlisted-"
"""YouTube ids of what is odd; the first two are in the unbalanced list."""
NUM_RECORDINGS = NUM_CLIPS = 4 * PER_PART + 3
"""Of these two cannot be used: one is empty, one silent."""


@dataclass(frozen=True)
class Item:
    youtube_id: str
    found_in: str
    mids: tuple[str, ...]
    audio: bytes


def make(folder: Path) -> dict[str, Path]:
    """The four official lists."""
    listed = [(item.youtube_id, item.found_in, item.mids) for item in items() if item.found_in]
    for name, num_missing in NUM_MISSING.items():
        listed += [(f"{name[:7]}-__{number}", name, ("/m/09x0r",)) for number in range(num_missing)]
    files = {name: folder / name for name in (CLASSES, EVAL, BALANCED, UNBALANCED)}
    for name in (EVAL, BALANCED, UNBALANCED):
        rows = sorted((youtube_id, mids) for youtube_id, found_in, mids in listed if found_in == name)
        num_labels = sum(len(mids) for _, mids in rows)
        header = [
            "# Segments csv created Sun Mar  5 10:54:31 2017",
            f"# num_ytids={len(rows)}, num_segs={len(rows)}, num_unique_labels=3, "
            f"num_positive_labels={num_labels}",
            "# YTID, start_seconds, end_seconds, positive_labels",
        ]
        lines = [f'{youtube_id}, 30.000, 40.000, "{",".join(mids)}"' for youtube_id, mids in rows]
        files[name].write_text("\n".join([*header, *lines]) + "\n")
    with files[CLASSES].open("w", newline="") as file:
        classes = [*NAMES.items(), *((f"/m/other{n}", f"Sound {n}") for n in range(NUM_CLASSES - len(NAMES)))]
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["index", "mid", "display_name"])
        writer.writerows([index, mid, name] for index, (mid, name) in enumerate(classes))
    return files


def make_audio(folder: Path) -> dict[str, Path]:
    """The same recordings three times: `files` with names met in the wild, `tars` and `parquet` files."""
    forms = {name: folder / name for name in ("files", "tars", "parquet")}
    _write_files(forms["files"])
    _write_tars(forms["tars"])
    _write_parquet(forms["parquet"])
    return forms


@cache
def items() -> tuple[Item, ...]:
    """FLAC, 16 and 24 bits, one and two channels, 44.1 and 48 kHz; one of them empty, one silent."""
    parts = {"test": EVAL, "train": BALANCED, "validation": BALANCED, "": UNBALANCED}
    numbers = count()
    found = [
        Item(youtube_id, found_in, (mid,), _flac(sound, next(numbers)))
        for part, found_in in parts.items()
        for youtube_id, (sound, mid) in zip(_ids(part), PER_PART // 3 * [*enumerate(NAMES)], strict=False)
    ]
    silence = wav(np.zeros((24_000, 1)), 48_000, container="FLAC")
    return (
        *found,
        Item(EMPTY, UNBALANCED, ("/m/04rlf",), b""),
        Item(SILENT, UNBALANCED, ("/m/04rlf",), silence),
        Item(UNLISTED, "", (), _flac(0, next(numbers))),
    )


def _ids(part: str) -> Iterator[str]:
    """Ids whose hash puts them into the part, as far as a hash decides."""
    for number in count():
        digest = hashlib.sha256(f"{part} {number}".encode()).digest()
        youtube_id = f"{'-_Aa'[number % 4]}{base64.urlsafe_b64encode(digest).decode()[:10]}"
        validates = int(hashlib.sha256(youtube_id.encode()).hexdigest(), 16) % VALIDATES_ONE_IN == 0
        if validates == (part == "validation"):
            yield youtube_id


def _flac(sound: int, number: int) -> bytes:
    rate_hz = 44_100 if number % 10 == 3 else 48_000
    samples = tone(4 * sound, number, rate_hz, 0.5, channels=1 + number % 2)
    return wav(samples, rate_hz, "PCM_16" if number % 4 == 2 else "PCM_24", "FLAC")


def _write_files(folder: Path) -> None:
    names = ("{}.flac", "Y{}.flac", "{}_30.000.flac", "{}_30.000_40.000.flac", "{}_30.wav", "Y{}.wav")
    for number, item in enumerate(items()):
        name = names[number % len(names)].format(item.youtube_id)
        path = folder / (item.found_in.removesuffix(".csv") or "others") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".wav" and item.audio:
            samples, rate_hz = soundfile.read(io.BytesIO(item.audio))
            path.write_bytes(wav(samples, rate_hz, "PCM_24"))
        else:
            path.write_bytes(item.audio)


def _write_tars(folder: Path) -> None:
    folder.mkdir(parents=True)
    for number in range(2):
        with tarfile.open(folder / f"shard-{number:05}.tar", "w") as tar:
            for item in items()[number::2]:
                about = json.dumps({"video_id": item.youtube_id, "labels": item.mids}).encode()
                for suffix, content in (("flac", item.audio), ("json", about)):
                    member = tarfile.TarInfo(f"{item.youtube_id}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))


def _write_parquet(folder: Path) -> None:
    parts = {"data/eval": {EVAL}, "data/bal_train": {BALANCED}, "data/unbal_train": {UNBALANCED, ""}}
    for name, lists in parts.items():
        rows = [
            {
                "video_id": item.youtube_id,
                "audio": {"bytes": item.audio, "path": f"{item.youtube_id}.flac"},
                "labels": list(item.mids),
                "human_labels": [NAMES[mid] for mid in item.mids],
            }
            for item in items()
            if item.found_in in lists
        ]
        (folder / name).mkdir(parents=True)
        parquet.write_table(pa.Table.from_pylist(rows), folder / name / "00.parquet", row_group_size=8)
