"""FSD50K in miniature: its archives, two of them split zips; 36 clips of 0.3 s, three classes in use."""

import csv
import io
import json
import shutil
import struct
import subprocess
import zipfile
from pathlib import Path

from tests.datasets.public.miniatures import tone, wav, write_zip

CLASSES = {"Bark": ["Dog"], "Meow": ["Cat"], "Rain": []}
"""And what each of them is as well, in the ontology."""
NAMED = ("Bark", "Cat", "Dog", "Meow", "Rain", "Zipper_(clothing)")
VOCABULARY = sorted([*NAMED, *(f"Sound_{number:03}" for number in range(200 - len(NAMED)))])
CLIPS_PER_SPLIT = 12
NUM_CLIPS = NUM_RECORDINGS = 3 * CLIPS_PER_SPLIT
RATE_HZ = 44_100
NUM_PARTS = {"FSD50K.dev_audio": 6, "FSD50K.eval_audio": 2}


def make(folder: Path) -> dict[str, Path]:
    tables = {
        "dev": [["fname", "labels", "mids", "split"]],
        "eval": [["fname", "labels", "mids"]],
        "vocabulary": [[str(index), label, _mid(label)] for index, label in enumerate(VOCABULARY)],
    }
    for first, split in ((100, "train"), (200, "val"), (300, "test")):
        part = "eval" if split == "test" else "dev"
        audio = folder / f"FSD50K.{part}_audio"
        audio.mkdir(exist_ok=True)
        for number in range(first, first + CLIPS_PER_SPLIT):
            sound = number % len(CLASSES)
            (audio / f"{number}.wav").write_bytes(wav(tone(4 * sound, number, RATE_HZ, 0.3), RATE_HZ))
            name, parents = list(CLASSES.items())[sound]
            labels = [name, *parents]
            row = [str(number), ",".join(labels), ",".join(map(_mid, labels))]
            tables[part].append(row if split == "test" else [*row, split])
    infos = {part: {row[0]: {"license": "CC0"} for row in tables[part][1:]} for part in ("dev", "eval")}
    archives = [
        *_split_zip(folder, "FSD50K.dev_audio"),
        *_split_zip(folder, "FSD50K.eval_audio"),
        write_zip(
            folder / "FSD50K.ground_truth.zip",
            {f"FSD50K.ground_truth/{name}.csv": _csv(rows) for name, rows in tables.items()},
        ),
        write_zip(
            folder / "FSD50K.metadata.zip",
            {
                f"FSD50K.metadata/{part}_clips_info_FSD50K.json": json.dumps(info).encode()
                for part, info in infos.items()
            },
        ),
    ]
    return {path.name: path for path in archives}


def _mid(label: str) -> str:
    return f"/m/{label.lower()}"


def _csv(rows: list[list[str]]) -> bytes:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue().encode()


def _split_zip(folder: Path, name: str) -> list[Path]:
    """<name>.z01, ..., <name>.zip, by Info-ZIP where it is installed, else by the code below."""
    size = sum(path.stat().st_size for path in (folder / name).iterdir())
    part_kib = size // NUM_PARTS[name] // 1024 + 3  # A few more than the recordings, for the names.
    if shutil.which("zip"):
        command = ["zip", "-q", "-r", "-0", "-s", f"{part_kib}k", f"{name}.zip", name]
        subprocess.run(command, cwd=folder, check=True)
    else:
        write_split_zip(folder, name, part_kib * 1024)
    shutil.rmtree(folder / name)
    parts = [*sorted(folder.glob(f"{name}.z[0-9]*")), folder / f"{name}.zip"]
    assert len(parts) == NUM_PARTS[name]
    return parts


def write_split_zip(folder: Path, name: str, part_bytes: int) -> None:
    """A zip of folder/name, cut into parts and its offsets made relative to them, as the format has it."""
    packed = io.BytesIO(b"PK\x07\x08")  # A split archive begins with this mark.
    packed.seek(4)
    with zipfile.ZipFile(packed, "a") as archive:
        for path in sorted((folder / name).iterdir()):
            archive.write(path, f"{name}/{path.name}")
    content, position = packed.getbuffer(), archive.start_dir
    disk, offset = divmod(position, part_bytes)
    last_disk = (len(content) - 1) // part_bytes
    for _ in archive.infolist():
        sizes = struct.unpack_from(
            "<3H", content, position + 28
        )  # Of the name, the extra field, the comment.
        [absolute] = struct.unpack_from("<I", content, position + 42)
        struct.pack_into("<H", content, position + 34, absolute // part_bytes)
        struct.pack_into("<I", content, position + 42, absolute % part_bytes)
        position += 46 + sum(sizes)
    on_last_disk = len(archive.infolist()) if disk == last_disk else 0
    struct.pack_into("<3H", content, position + 4, last_disk, disk, on_last_disk)
    struct.pack_into("<I", content, position + 16, offset)
    for number in range(last_disk + 1):
        suffix = "zip" if number == last_disk else f"z{number + 1:02}"
        part = content[number * part_bytes : (number + 1) * part_bytes]
        (folder / f"{name}.{suffix}").write_bytes(part)
