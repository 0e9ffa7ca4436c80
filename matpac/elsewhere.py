"""experiments that ran in copies of the workspace (`dvc exp run --temp`, `--queue`) -> their records.

DVC keeps such an experiment as a commit below refs/exps. The commit's dvc.lock names the hash of
what the stage `record` left there, and all copies share the cache that holds it.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

from matpac.progress import say

EXPERIMENT = re.compile(r"refs/exps/[0-9a-f]{2}/[0-9a-f]{38}/.+")
"""The other refs there are DVC's own."""
RECORDED = re.compile(r"path: data/experiments\n\s+hash: md5\n\s+md5: (?P<hash>[0-9a-f]{32})\.dir\n")
"""How dvc.lock names the folder of records."""


def recorded_elsewhere() -> list[str]:
    """DVC's hashes of `data/experiments` in all experiments of this repository; none without Git."""
    refs = _output(["git", "for-each-ref", "--format=%(refname)", "refs/exps"]).splitlines()
    locks = [_output(["git", "show", f"{ref}:./dvc.lock"]) for ref in refs if EXPERIMENT.fullmatch(ref)]
    return sorted({found["hash"] for lock in locks for found in RECORDED.finditer(lock)})


def records_of(hashes: list[str]) -> list[Path]:
    """Files of these folders in DVC's cache, one for each record; folders that are not there are named."""
    cache = (
        Path(_output([sys.executable, "-m", "dvc", "cache", "dir"]).strip(), "files/md5")
        if hashes
        else Path()
    )
    records, missing = [], 0
    for name in hashes:
        folder = cache / name[:2] / f"{name[2:]}.dir"
        try:
            entries = json.loads(folder.read_text())
        except FileNotFoundError:
            missing += 1
            continue
        # Beside the records lies a README.md.
        files = [entry["md5"] for entry in entries if entry["relpath"].endswith(".json")]
        records += [cache / file[:2] / file[2:] for file in files]
    if missing:
        say(
            f"record: {missing:,} experiments have no records in DVC's cache ({cache}). Their rows are "
            "missing in the tables. `dvc exp pull <remote> <name>` or another run brings them."
        )
    return [record for record in dict.fromkeys(records) if record.exists()]


def _output(command: list[str]) -> str:
    """What the command prints; empty if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout
