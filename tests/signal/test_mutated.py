"""Thousands of damaged recordings: each becomes samples, or is refused with a documented reason.

The files are made and decoded in another process, because a crash of the C library, an endless loop or
gigabytes of memory would end the process of the tests.
"""

import json
import re
import subprocess
import sys
import time
from collections import Counter
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import soundfile

from matpac.clip import UnusableAudio, phrase_of
from matpac.signal import ffmpeg
from matpac.signal.audio import decode, mute_c_libraries
from tests.media import KINDS, media

NUM_FILES = {"libsndfile": 2_000, "ffmpeg": 80}
MOST_SECONDS_PER_FILE = 5
MOST_MEMORY_MIB, MOST_CHILD_MEMORY_MIB = 256, 1_024
FORMATS = [
    ("WAV", "PCM_U8", 1),
    ("WAV", "PCM_16", 2),
    ("WAV", "PCM_24", 1),
    ("WAV", "FLOAT", 1),
    ("WAV", "DOUBLE", 3),
    ("WAV", "IMA_ADPCM", 1),
    ("WAV", "MS_ADPCM", 2),
    ("WAV", "GSM610", 1),
    ("WAVEX", "PCM_16", 6),
    ("RF64", "PCM_16", 1),
    ("FLAC", "PCM_16", 2),
    ("FLAC", "PCM_24", 1),
    ("OGG", "VORBIS", 1),
    ("OGG", "VORBIS", 2),
    ("OGG", "OPUS", 1),
    ("MP3", "MPEG_LAYER_III", 1),
    ("MP3", "MPEG_LAYER_III", 2),
    ("AIFF", "PCM_16", 1),
    ("AIFF", "FLOAT", 2),
    ("AU", "PCM_16", 1),
    ("AU", "ULAW", 2),
]
HUGE = [
    b"\xff" * 2,
    b"\xff" * 4,
    b"\xff" * 8,
    b"\x7f" + b"\xff" * 7,
    b"\xff\xff\xff\x7f",
    bytes(4),
    b"\x80" * 4,
]


def originals(generator, decoder):
    """A quarter of a second of a tone in noise, in every format."""
    if decoder == "ffmpeg":
        return [media(kind, duration_s=0.25) for kind in KINDS] + [
            media("mp4", has_video=True, duration_s=0.5)
        ]
    originals = []
    for container, subtype, num_channels in FORMATS:
        rate_hz = 8_000 if subtype == "GSM610" else 16_000
        tone = 0.3 * np.sin(np.arange(rate_hz // 4) / 20)
        noise = generator.uniform(-0.3, 0.3, (len(tone), num_channels))
        file = BytesIO()
        soundfile.write(file, tone[:, None] + noise, rate_hz, format=container, subtype=subtype)
        originals.append(file.getvalue())
    return originals


def mutated(original, others, generator):
    """The file after one or two of the ways in which files go bad."""
    data = bytearray(original)
    for _ in range(generator.integers(1, 3)):
        position = int(generator.integers(len(data) + 1))
        in_header = int(generator.integers(min(len(data), 100) + 1))
        match generator.integers(11):
            case 0:
                del data[position:]
            case 1:
                flip(data, generator.integers(0, 100, generator.integers(1, 5)), generator)
            case 2:
                flip(data, generator.integers(0, len(data) + 1, generator.integers(1, 50)), generator)
            case 3:
                huge = HUGE[generator.integers(len(HUGE))]
                data[in_header : in_header + len(huge)] = huge
            case 4:
                data[position:] = bytes(len(data) - position)
            case 5:
                data[position:] = generator.bytes(len(data) - position)
            case 6:
                data += others[generator.integers(len(others))]
            case 7:
                data[:12] = others[generator.integers(len(others))][:12]
            case 8:
                del data[in_header : in_header + int(generator.integers(1, 9))]
            case 9:
                data[in_header:in_header] = generator.bytes(int(generator.integers(1, 9)))
            case 10:
                data = bytearray(generator.bytes(1_000)) if position < 100 else data[: position // 2] + data
    return bytes(data)


def flip(data, positions, generator):
    for position in positions:
        if position < len(data):
            data[position] ^= 1 << generator.integers(8)


def decode_many(seed, num_files, folder, decoder="libsndfile"):
    """Decode `num_files` in the process that may crash; write the outcomes to found.json."""
    mute_c_libraries()
    generator = np.random.default_rng(seed)
    sources = originals(generator, decoder)
    outcomes, slowest, child_kib, num_children = Counter(), 0.0, 0, 0
    before = ()
    suffixes = ["wav", "flac", "ogg", "mp3", "raw", "aiff", "au", "vox", "txt", "gsm", "sd2"]
    for number in range(num_files):
        data = mutated(sources[number % len(sources)], sources, generator)
        source = data
        (folder / "last").write_bytes(data)
        if generator.integers(4) == 0:
            source = folder / f"a.{suffixes[generator.integers(len(suffixes))]}"
            source.write_bytes(data)
        start = time.perf_counter()
        try:
            samples, rate_hz = decode(source, reject=("silent", "truncated"))
        except UnusableAudio as error:
            outcomes[phrase_of(error.reason)] += 1
        else:
            assert len(samples) > 0
            assert np.isfinite(samples).all()
            assert rate_hz > 0
            outcomes["used"] += 1
        slowest = max(slowest, time.perf_counter() - start)
        pids = [child._process.pid for child in ffmpeg._IDLE]
        child_kib = max([child_kib, *map(peak_kib, pids)])
        num_children += len({*pids} - {*before})
        before = pids
    found = {
        "outcomes": outcomes,
        "slowest_s": slowest,
        "memory_mib": peak_kib("self") / 2**10,
        "child_memory_mib": child_kib / 2**10,
        "num_children": num_children,
    }
    with (folder / "found.json").open("w") as file:
        json.dump(found, file)


def peak_kib(pid):
    [kib] = re.findall(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(kib)


@pytest.mark.parametrize("decoder", NUM_FILES)
def test_every_damaged_file_ends_as_samples_or_with_a_documented_reason(tmp_path, project, decoder):
    num_files = NUM_FILES[decoder]
    script = (
        "import sys; from pathlib import Path; from tests.signal.test_mutated import decode_many;"
        f"decode_many(0, {num_files}, Path(sys.argv[1]), {decoder!r})"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, tmp_path],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), "the file is in tmp_path / last"
    found = json.loads((tmp_path / "found.json").read_text())
    assert sum(found["outcomes"].values()) == num_files
    assert found["slowest_s"] < MOST_SECONDS_PER_FILE
    assert found["memory_mib"] < MOST_MEMORY_MIB
    assert found["child_memory_mib"] < MOST_CHILD_MEMORY_MIB
    assert {"used", "cannot be decoded", "truncated"} <= set(found["outcomes"])
