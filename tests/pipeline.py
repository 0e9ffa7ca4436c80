"""A copy of this project in a folder of its own, in which `dvc repro` runs with tiny parameters."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from tests.recordings import NETWORKS

REPOSITORY = Path(__file__).resolve().parent.parent
IN_GIT = (REPOSITORY / ".git").exists()
DATASETS = {"demo_corpus": 16, "demo_melodies": 48}
"""Datasets of presets/demo.yaml that are used, with their number of clips."""


def sources() -> list[str]:
    """Files that a clone or an archive of this project holds."""
    if IN_GIT:
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        return subprocess.check_output(command, cwd=REPOSITORY, text=True).splitlines()
    made_here = {".venv", ".venv-hear", ".prefect", "data", "site", "dvc_plots", "dvc.lock"}
    tops = [top for top in REPOSITORY.iterdir() if top.name not in made_here]
    paths = [path for top in tops for path in (top, *top.rglob("*")) if "__pycache__" not in path.parts]
    unfinished = (REPOSITORY / ".dvc/cache", REPOSITORY / ".dvc/tmp")
    return [str(path.relative_to(REPOSITORY)) for path in paths if not set(unfinished) & set(path.parents)]


class Pipeline:
    """The project in `folder`; `temporary` beside it is where its processes put temporary files.

    A server that stops within `server_idle_s` between two stages is started again by the next one, which
    takes ten seconds on a busy machine.
    """

    def __init__(self, folder: Path, *, server_idle_s: int = 30) -> None:
        self.folder, self.temporary = folder / "project", folder / "temporary"
        self.temporary.mkdir()
        for name in sources():
            if (REPOSITORY / name).is_file():
                target = self.folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(REPOSITORY / name, target)
        self.environment = {name: value for name, value in os.environ.items() if "PREFECT" not in name} | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(self.folder),
            "OMP_NUM_THREADS": "1",
            "MATPAC_SERVER_IDLE_S": str(server_idle_s),
            "TMPDIR": str(self.temporary),
            # The same commit in every copy: its revision is part of results.
            "GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z",
            "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z",
        }
        self.original = yaml.safe_load((REPOSITORY / "presets/demo.yaml").read_text())
        every = self.original["datasets"]
        self.original["datasets"] = {
            name: every[name] | {"num_clips": num_clips} for name, num_clips in DATASETS.items()
        }
        self.original["shards"]["clips_per_shard"] = 8
        self.original["model"] |= {"size": "custom", "custom": NETWORKS, "num_clusters": 16}
        self.original["pretrain"] |= {"batch_size": 8, "num_epochs": 20}
        self.original["pretrain"] |= {"warmup_epochs": 1, "teacher_temperature_epochs": 2}
        self.original["compute"] |= {"num_processes": 2, "micro_batch_size": 8, "save_every_s": 0.05}
        self.original["online"] |= {"every_updates": 20, "num_clips": 48, "k": 2}
        self.original["probe"] |= {"datasets": ["demo_melodies"], "max_epochs": 3, "num_repeats": 2}
        self.change()
        # A staged dvc.lock would count as a change of the code whose revision results name.
        (self.folder / ".dvc/config.local").write_text("[core]\n    autostage = false\n")
        commands = (
            ["init", "--quiet"],
            ["add", "--all"],
            ["-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "--quiet", "--message=a"],
        )
        for command in commands if IN_GIT else ():
            subprocess.run(["git", *command], cwd=self.folder, env=self.environment, check=True)

    def change(self, key: str | None = None, value: object = None) -> None:
        """Write params.yaml with one value changed, or none."""
        params = json.loads(json.dumps(self.original))
        if key is not None:
            *sections, last = key.split(".")
            section = params
            for name in sections:
                section = section[name]
            section[last] = value
        (self.folder / "params.yaml").write_text(yaml.safe_dump(params))

    def start(self, *arguments: str, stdout: int | None = subprocess.PIPE) -> subprocess.Popen:
        return subprocess.Popen(
            ["dvc", *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=stdout,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def dvc(self, *arguments: str) -> str:
        process = self.start(*arguments)
        said, _ = process.communicate(timeout=600)
        assert process.returncode == 0, said
        return said

    def would_run(self) -> set[str]:
        """Stages that are stale themselves, without what follows from them."""
        stale = json.loads(self.dvc("status", "--json"))
        own = {
            name: reasons
            for name, reasons in stale.items()
            if any(
                "params.yaml" in str(reason) or "deleted" in str(reason) or "new" in str(reason)
                for reason in reasons
            )
        }
        return {name.split("@")[0] for name in own}

    def digest(self, path: str) -> bytes:
        return (self.folder / path).read_bytes()
