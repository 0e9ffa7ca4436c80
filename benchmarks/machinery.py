"""What DVC and Prefect cost: the default run as `dvc repro`, beside the same work as plain Python
calls.

The project is copied to a new folder and reduced to an eighth of the clips, in as many shards, and
short training. Of the machinery only DVC's hashing grows with the data, by 0.3 s in the default
run. `dvc repro` runs there, and a stage counts from the line in which DVC announces it to the next
such line. That holds the work, and the machinery: DVC's hashes and locks, starts of processes,
imports, the start of Prefect's server with a new database, its bookkeeping of flows and tasks,
artifacts. The peer is one Python process that calls the functions of `matpac` one after another, on
another copy of the project; its imports count, too, once. The difference is the cost of the
machinery. Both must end with the same shards, weights and scores.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import psutil
import yaml

from benchmarks.claims import Claim, run

if TYPE_CHECKING:
    from matpac.params import Dataset, Params

PROJECT = Path(__file__).resolve().parent.parent
NEEDED = (
    ".dvc",
    ".dvcignore",
    "dvc.yaml",
    "flows",
    "matpac",
    "prefect.toml",
    "pyproject.toml",
)
SMALLER = 8
SHORT = {
    "pretrain": {"num_epochs": 1, "warmup_epochs": 0, "teacher_temperature_epochs": 1},
    "online": {"dataset": None},
    "probe": {"max_epochs": 20},
}
ROUNDS = 1
NEXT_STAGE = re.compile(r"Running stage '(?P<kind>\w+)")
BEFORE = "start and end"
GOAL_S = 60
IDLE_S = 20
SAME = (
    "shards/*/*",
    "corpus.json",
    "checkpoints/pretrained/networks.safetensors",
    "scores/*.json",
)


def measure() -> list[Claim]:
    theirs, ours, idle = [], [], []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as name:
            plain, piped = copied(Path(name, "plain")), copied(Path(name, "piped"))
            theirs.append(seconds_of_calls(plain))
            try:
                seconds, num_stages = seconds_of_dvc(piped)
                idle.append(share_of_a_core(piped / ".prefect"))
            finally:
                stop_server(piped / ".prefect")
            ours.append(seconds)
            check_same(plain / "data", piped / "data")

    def more(kind: str) -> float:
        return median(one[kind] for one in ours) - median(one[kind] for one in theirs)

    claims = [
        Claim(f"machinery of {kind}, {number} x", "s", more(kind), less_is_better=True)
        for kind, number in num_stages.items()
    ]
    whole, work = median(sum(one.values()) for one in ours), median(sum(one.values()) for one in theirs)
    return [
        *claims,
        Claim("the default run with little work", "s", whole, "plain Python", work, less_is_better=True),
        Claim("machinery of the default run", "s", whole - work, goal=GOAL_S, less_is_better=True),
        Claim("Prefect's server while idle, of a core", "%", median(idle), goal=2, less_is_better=True),
    ]


def copied(folder: Path) -> Path:
    """The project as it stands, as a repository of its own, with little work."""
    folder.mkdir()
    for name in NEEDED:
        path = PROJECT / name
        if path.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "tmp", "cache", "config.local")
            shutil.copytree(path, folder / name, ignore=ignored)
        else:
            shutil.copy(path, folder)
    params = yaml.safe_load((PROJECT / "presets/demo.yaml").read_text())
    for section, values in SHORT.items():
        params[section] |= values
    for dataset in params["datasets"].values():
        dataset["num_clips"] //= SMALLER
    params["shards"]["clips_per_shard"] //= SMALLER
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    (folder / ".gitignore").write_text("__pycache__/\n.prefect/\n/data/\n")
    subprocess.run([sys.executable, "-m", "compileall", "-q", "."], cwd=folder, check=True)
    # With an identity of its own, since the machine's settings may have none.
    git = ["git", "-c", "user.name=benchmark", "-c", "user.email=benchmark@localhost"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "The project"]):
        subprocess.run([*git, *command], cwd=folder, check=True)
    return folder


def environment() -> dict[str, str]:
    """A fresh shell's environment: none of Prefect's variables, this `python`, one thread.

    The server waits long enough to be looked at when all stages are done.
    """
    kept = {
        name: value for name, value in os.environ.items() if "PREFECT" not in name and "MATPAC" not in name
    }
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    ours = {"PATH": path, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", "MATPAC_SERVER_IDLE_S": "600"}
    return kept | ours


def seconds_of_dvc(folder: Path) -> tuple[dict[str, float], Counter[str]]:
    """Seconds and number of the stages of each kind, `dvc repro` seen from outside."""
    seconds: dict[str, float] = defaultdict(float)
    number = Counter([BEFORE])
    kind, since, said = BEFORE, time.monotonic(), []
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro"],
        cwd=folder,
        env=environment() | {"PYTHONPATH": ""},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)
        if found := NEXT_STAGE.match(line):
            now = time.monotonic()
            seconds[kind] += now - since
            kind, since = found["kind"], now
            number[kind] += 1
    if process.wait() != 0:
        raise RuntimeError("".join(said[-40:]))
    seconds[kind] += time.monotonic() - since
    return seconds, number


def seconds_of_calls(folder: Path) -> dict[str, float]:
    """Seconds of the same kinds of stages, called in one process."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", "from benchmarks.machinery import call_all; call_all()"],
        cwd=folder,
        env=environment() | {"PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )
    spent_s = time.monotonic() - started
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    seconds: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    seconds[BEFORE] = spent_s - sum(seconds.values())
    return seconds


def call_all() -> None:
    """The whole pipeline in the current folder; the last line says the seconds by kind of stage."""
    seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def timed(kind: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        seconds[kind] += time.monotonic() - started

    data = Path("data")
    shards, embeddings, scores = data / "shards", data / "embeddings", data / "scores"
    checkpoint, corpus = data / "checkpoints/pretrained", data / "corpus.json"

    with timed("sources"):
        from matpac.datasets.fingerprints import write_sources
        from matpac.params import load_params

        params = load_params(Path("params.yaml"))
        write_sources(data / "sources", params.datasets)
    for name, source in params.datasets.items():
        with timed("download"):
            list_recordings(name, source, data / "raw" / name)
    for name, source in params.datasets.items():
        with timed("shards"):
            convert(name, source, data / "raw" / name, shards / name, params)
    for name in params.pretrain.datasets:
        with timed("fingerprint"):
            from matpac.shards.corpus import write_corpus

            write_corpus(shards, [name], [], data / "corpus" / f"{name}.json")
    with timed("corpus"):
        write_corpus(shards, params.pretrain.datasets, params.online_datasets, corpus)
    with timed("pretrain"):
        from matpac.training.run import pretrain_stage

        pretrain_stage(shards, checkpoint, params, corpus)
    for name in params.probe.datasets:
        with timed("embed"):
            from matpac.datasets.registry import recordings_root
            from matpac.probing.embed import embed_stage
            from matpac.probing.external import Located

            located = Located(data / "raw" / name, recordings_root(name, params.datasets[name]))
            embed_stage(shards / name, located, checkpoint, embeddings / name, params.embed)
    for name in params.probe.datasets:
        with timed("probe"):
            from matpac.probing.probe import probe

            scores.mkdir(exist_ok=True)
            probe(name, embeddings / name, scores / f"{name}.json", params.probe)
    for name in params.finetune.datasets:
        with timed("finetune"):
            from matpac.finetuning.stage import finetune_stage

            finetune_stage(shards / name, checkpoint, data / "finetuned" / name, params)
    with timed("record"):
        from matpac.report.experiments import record_run

        record_run(Path(), params)
    with timed("report"):
        from matpac.report.page import write_report

        write_report(Path(), data / "report", params)
    sys.stdout.write(f"{json.dumps(seconds)}\n")


def list_recordings(name: str, source: "Dataset", raw: Path) -> None:
    from matpac.datasets.inventory import take_inventory, write_recordings
    from matpac.datasets.registry import READERS, recordings_root
    from matpac.files import checksum, write_json

    reader, root = READERS[source.kind], recordings_root(name, source)
    reader.fetch(source, root, None)
    write_recordings(raw, take_inventory(root, reader.stored_as))
    write_json(raw / "tables.json", {path.name: checksum(path) for path in reader.tables(source, root)})


def convert(name: str, source: "Dataset", raw: Path, out: Path, params: "Params") -> None:
    from matpac.prepare.build import build_shard
    from matpac.prepare.plan import plan_dataset
    from matpac.prepare.publish import publish
    from matpac.prepare.workers import Workers
    from matpac.signal.audio import mute_c_libraries

    plan = plan_dataset(name, source, raw, params.logmel, params.shards)
    number = params.shards.num_workers
    with closing(Workers(number, mute_c_libraries)) as workers, ThreadPoolExecutor(number) as threads:
        jobs = [plan.job(shard) for shard in range(len(plan.shards))]
        list(threads.map(lambda job: workers.run(build_shard, job), jobs))
    publish(plan, out)


def check_same(plain: Path, piped: Path) -> None:
    """Raises AssertionError if a result differs."""
    found = [
        sorted(path.relative_to(root) for name in SAME for path in root.glob(name)) for root in (plain, piped)
    ]
    assert found[0] == found[1], found
    for name in found[0]:
        assert (plain / name).read_bytes() == (piped / name).read_bytes(), f"{name} differs"


def share_of_a_core(home: Path) -> float:
    """CPU time of the server that nobody uses, in percent of a core."""
    server = psutil.Process(json.loads((home / "server.json").read_text())["pid"])
    time.sleep(5)
    before = sum(server.cpu_times()[:2])
    time.sleep(IDLE_S)
    return 100 * (sum(server.cpu_times()[:2]) - before) / IDLE_S


def stop_server(home: Path) -> None:
    """Stop the server, which would wait a minute for more stages in a folder that is removed."""
    from flows.server import is_locked  # imports Prefect, which the plain calls do without

    with suppress(OSError):
        os.kill(json.loads((home / "server.json").read_text())["pid"], signal.SIGTERM)
    give_up = time.monotonic() + 60
    while home.exists() and is_locked(home / "server.lock") and time.monotonic() < give_up:
        time.sleep(0.2)


if __name__ == "__main__":
    run(measure, __doc__)
