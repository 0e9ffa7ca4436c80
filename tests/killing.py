"""Kill processes of a pipeline at random, and tell whether what they left behind is as it should be."""

import csv
import io
import json
import random
import re
import shutil
import sys
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import psutil

from flows.server import is_locked
from matpac.files import SUMS
from matpac.training.gradients import IN_MEMORY
from tests.pipeline import Pipeline

IN_USE = "is in use by another process"
"""What a run says that meets a stage whose DVC was killed."""
CLOCK = {"crops_per_s", "tflop_per_s", "waiting_for_data", "seconds", "duration_s", "recorded"}
"""Columns and keys of results that hold times or dates."""
CLOCK_OF_THE_REPORT = re.compile(
    r"<dt>Time</dt><dd>[^<]*</dd>|which took [\d.,]+ s|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    r'|<h3>Speed</h3>\s*<img src="[^"]*"'
)

KILLS_AT_MOST = 6
"""Kills until all is made; more, and the first stages would have most of them."""
STAGES = {"sources", "download", "shards", "corpus", "pretrain", "embed", "probe", "record", "report"}
SERVER_LOCKS = {"server.lock", "users.lock"}


class Left(NamedTuple):
    """What a run leaves behind."""

    results: dict[str, bytes]
    names: set[str]
    temporary: set[str]
    num_stages: int
    seconds: float
    """How long it took."""


def what_is_left(project: Pipeline, seconds: float) -> Left:
    return Left(results(project), names(project), temporary(project), num_stages(project), seconds)


def kill_at_random(project: Pipeline, whole: Left, num_kills: int, seed: int) -> list[str]:
    """Run `dvc repro` and kill one of its processes, again and again; begin anew once all is made.

    Moments are spread over all stages. Whenever all is made it must be what the undisturbed run has
    made, and nothing else may be left. Returns what was killed.
    """
    chance, killed, log = random.Random(seed), [], project.folder.with_name("log")
    total = whole.num_stages
    due: list[int] = []
    while True:
        if not due and not num_stages(project):
            due = sorted(chance.choices(range(total - 1), k=min(KILLS_AT_MOST, num_kills - len(killed))))
        with log.open("w") as file:
            process = project.start("repro", stdout=file)
        undisturbed, moment = True, None
        while process.poll() is None:
            time.sleep(0.02)
            if not due or num_stages(project) < due[0]:
                continue
            if moment is None:
                moment = time.monotonic() + chance.uniform(0, whole.seconds / total)
            elif time.monotonic() > moment and (victim := kill_one(project, chance, killed)):
                undisturbed, moment = False, None
                killed.append(victim)
                del due[0]
                sys.stdout.write(f"kill {len(killed)}: {victim}\n")
        said = log.read_text()
        if process.returncode == 0:
            expect(project, whole)
            if len(killed) == num_kills:
                return killed
            begin_anew(project)
            due = []
        elif IN_USE in said:
            wait_for_orphans(project)
        elif cut := cut_files_of_dvc(said):
            (project.folder / cut).unlink()
        else:
            assert not undisturbed, f"seed {seed}, after {killed[-1:]}: {said}"


def cut_files_of_dvc(said: str) -> str | None:
    """The file that a killed DVC has written in part, and that docs/faults.md says to remove."""
    line = " ".join(said.split())
    if re.search(r"RWLock-file .* (corrupted|format error)", line):
        return ".dvc/tmp/rwlock"
    return "dvc.lock" if re.search(r"dvc\.lock' (validation failed|is invalid)", line) else None


def num_stages(project: Pipeline) -> int:
    """Number of stages that DVC has noted as done."""
    lock = project.folder / "dvc.lock"
    return len(re.findall(r"^  \S+:$", lock.read_text(), re.MULTILINE)) if lock.exists() else 0


def expect(project: Pipeline, whole: Left) -> None:
    wait_for_orphans(project)
    found = results(project)
    differ = [path for path in found.keys() | whole.results if found.get(path) != whole.results.get(path)]
    assert not differ, f"other bytes in {sorted(differ)}"
    assert names(project) == whole.names, f"one has, the other not: {names(project) ^ whole.names}"
    assert temporary(project) == whole.temporary, f"left behind: {temporary(project) ^ whole.temporary}"
    locks = [path for path in project.folder.rglob("*.lock") if path.name not in SERVER_LOCKS]
    held = [path for path in locks if is_locked(path)]
    assert not held, f"still locked: {held}"


def begin_anew(project: Pipeline) -> None:
    """Remove all results, and DVC's copies of them."""
    shutil.rmtree(project.folder / ".dvc/cache")
    (project.folder / "dvc.lock").unlink()
    for path in (project.folder / "data").iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "README.md":
            path.unlink()


def names(project: Pipeline) -> set[str]:
    """Names of all files and folders, but not those that DVC, git, Prefect and Python keep for themselves."""
    theirs = {".dvc", ".git", ".prefect", "__pycache__"}
    paths = (path.relative_to(project.folder) for path in project.folder.rglob("*"))
    return {str(path) for path in paths if not theirs & set(path.parts)}


def temporary(project: Pipeline) -> set[str]:
    """Names of temporary files, those in memory, too, but not PyTorch's lasting cache."""
    paths = (*project.temporary.iterdir(), *IN_MEMORY.glob("matpac-*"))
    return {path.name for path in paths if not path.name.startswith("torchinductor_")}


def family(project: Pipeline) -> dict[str, list[psutil.Process]]:
    """Living processes of a project by their roles: `dvc`, `server`, `shards`, `worker`, `pretrain rank` ...

    They are known by the folder for temporary files that they have inherited, even as orphans.
    """
    found: dict[str, list[psutil.Process]] = {}
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            if environment.get("TMPDIR") != str(project.temporary):
                continue
            found.setdefault(role_of(process, environment), []).append(process)
        except psutil.Error:  # It has ended, or is another user's.
            continue
    return found


def role_of(process: psutil.Process, environment: dict[str, str]) -> str:
    words = process.cmdline()
    if "flows.server" in words:
        return "server"
    if any(Path(word).name == "dvc" for word in words[:2]):
        return "dvc"
    for word, following in pairwise(words):
        if word.startswith("flows."):
            return word.removeprefix("flows.")
        if word == "matpac":
            return f"{following} rank" if "WORLD_SIZE" in environment else following
    return "worker" if any("multiprocessing" in word for word in words) else "other"


def kill_one(project: Pipeline, chance: random.Random, killed: list[str]) -> str | None:
    """Kill a living process, or all at once; return what was killed.

    Drawn by `chance` from what was killed least often before, such as `dvc in shards`, so that few
    kills hit many kinds.
    """
    alive = family(project)
    if not alive:
        return None
    stage = next((role for role in sorted(alive) if role in STAGES), "between")
    victims = {f"{role} in {stage}": [chance.choice(found)] for role, found in sorted(alive.items())}
    victims[f"everything in {stage}"] = [process for found in alive.values() for process in found]
    least = min(map(killed.count, victims))
    name = chance.choice([name for name in victims if killed.count(name) == least])
    for victim in victims[name]:
        with suppress(psutil.NoSuchProcess):
            victim.kill()
    return name


def wait_for_orphans(project: Pipeline, *, server: bool = False, timeout_s: float = 120) -> None:
    """Wait until no process of the project lives; its server too, or not."""
    give_up = time.monotonic() + timeout_s
    while set(alive := family(project)) - (set() if server else {"server"}):
        assert time.monotonic() < give_up, alive
        time.sleep(0.1)


def results(project: Pipeline) -> dict[str, bytes]:
    """Contents of all results and recordings, without times and dates."""
    data = project.folder / "data"
    return {
        str(path.relative_to(data)): timeless(path)
        for path in sorted(data.rglob("*"))
        if path.is_file() and ".work" not in path.parts
    }


def timeless(path: Path) -> bytes:
    content = path.read_bytes()
    if path.parts[-3:-1] == ("plots", "metrics") and path.stem in CLOCK:
        return b""
    if "checkpoints" in path.parts and path.suffix == ".csv":
        rows = csv.DictReader(io.StringIO(content.decode()))
        return json.dumps([without_clock(row) for row in rows]).encode()
    if path.suffix == ".json" and {"checkpoints", "experiments"} & set(path.parts):
        return json.dumps(without_clock(json.loads(content))).encode()
    if path.name == SUMS and "checkpoints" in path.parts:
        # Most of its files hold times; they are compared themselves.
        return b"".join(sorted(line.split()[-1] for line in content.splitlines()))
    if path.suffix == ".html":
        return CLOCK_OF_THE_REPORT.sub("", content.decode()).encode()
    return content


def without_clock(value: object) -> object:
    if isinstance(value, dict):
        return {key: without_clock(one) for key, one in value.items() if key not in CLOCK}
    return value
