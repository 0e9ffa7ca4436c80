"""10,000 short clips under each task runner: python -m benchmarks.runners --audio <folder>

Real recordings below that folder (WAV, FLAC, Ogg, MP3, ... of any length) are cut into clips of 0.3
s, which the flow `shards` converts under `threads`, `processes` and `dask`, each in a new project
folder with a server that runs already. Measured: clips per second of the whole flow and peak memory
of all processes together. The shards must be the same bytes.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from datetime import date
from pathlib import Path

import psutil
import soundfile
import yaml

from benchmarks.claims import Claim, as_text

PROJECT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).parent / "results"
CLIP_S = 0.3
RUNNERS = ("threads", "processes", "dask")


def cut(audio: Path, folder: Path, number: int) -> int:
    """Clips of CLIP_S from the recordings, in turn; their number."""
    folder.mkdir()
    made = 0
    for path in sorted(audio.rglob("*")):
        if made == number:
            break
        try:
            samples, rate_hz = soundfile.read(path, dtype="float32")
        except (soundfile.LibsndfileError, TypeError, IsADirectoryError):
            continue
        length = min(int(CLIP_S * rate_hz), len(samples))
        for first in range(0, len(samples) - length + 1, max(length, 1)):
            part = samples[first : first + length]
            if made == number or length < 0.1 * rate_hz:
                break
            soundfile.write(folder / f"{made:06d}.wav", part, rate_hz, subtype="PCM_16")
            made += 1
    return made


def project(folder: Path, clips: Path, runner: str) -> dict[str, str]:
    """A folder to run the flow in; the environment for it."""
    folder.mkdir()
    shutil.copy(PROJECT / "prefect.toml", folder)
    params = yaml.safe_load((PROJECT / "presets/demo.yaml").read_text())
    params["datasets"]["clips"] = {
        "kind": "folder",
        "source": str(clips),
        "labels": "none",
        "multi_label": False,
        "num_folds": None,
        "split_fractions": None,
    }
    params["shards"] |= {"runner": runner, "max_rejected_fraction": 1.0}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    return {**os.environ, "PYTHONPATH": str(PROJECT), "MATPAC_SERVER_IDLE_S": "20"}


class Memory:
    """Peak memory of a process and its descendants together, sampled ten times a second."""

    def __init__(self, pid: int) -> None:
        self.peak_megabytes = 0.0
        self._process = psutil.Process(pid)
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            try:
                family = [self._process, *self._process.children(recursive=True)]
                held = sum(process.memory_full_info().pss for process in family)
            except psutil.Error:
                if not self._process.is_running():
                    return
                continue
            self.peak_megabytes = max(self.peak_megabytes, held / 1e6)
            time.sleep(0.1)


def run(folder: Path, environment: dict[str, str], stage: str) -> tuple[float, float]:
    """Seconds and peak megabytes, without the server, which runs already."""
    started = time.monotonic()
    command = [sys.executable, "-m", f"flows.{stage}", "clips"]
    with (folder / f"{stage}.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        memory = Memory(process.pid)
        if process.wait() != 0:
            sys.exit((folder / f"{stage}.log").read_text())
    return time.monotonic() - started, memory.peak_megabytes


def digest(folder: Path) -> str:
    whole = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        whole.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()


def measure(audio: Path, wanted: int) -> list[Claim]:
    """Raises RuntimeError if the shards of two runners differ."""
    claims = []
    digests = set()
    with tempfile.TemporaryDirectory() as name:
        clips = Path(name, "clips")
        number = cut(audio, clips, wanted)
        for runner in RUNNERS:
            folder = Path(name, runner)
            environment = project(folder, clips, runner)
            run(folder, environment, "download")
            seconds, megabytes = run(folder, environment, "shards")
            claims.append(Claim(f"{number:,} clips, {runner}", "clips/s", number / seconds))
            claims.append(Claim(f"{number:,} clips, {runner}", "MB", megabytes, less_is_better=True))
            digests.add(digest(folder / "data/shards/clips"))
    if len(digests) != 1:
        raise RuntimeError("need the same bytes from all runners")
    return claims


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--audio", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=10_000)
    arguments = parser.parse_args()
    claims = measure(arguments.audio, arguments.clips)
    sys.stdout.write(f"{as_text(claims)}\n")
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps([claim.as_json() for claim in claims], indent=2)
    (RESULTS / f"{date.today()}-runners.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
