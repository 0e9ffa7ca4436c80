"""pretrain.datasets, online.dataset -> data/corpus.json: fingerprints of the shards that pre-training reads.

A stage cannot list the items of a parameter as its dependencies. So `fingerprint@<dataset>` makes
data/corpus/<dataset>.json for each dataset to learn from, `corpus` depends on that folder, and pre-training
on its small result. A dataset that pre-training does not read can be broken or unfinished.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from matpac.files import SUMS, check_seal, read_json, sums_of, write_json

DESCRIPTIONS = ("index.parquet", "statistics.json", "logmel.json")
"""The files of a shard folder that together identify its content."""


def write_corpus(shards: Path, datasets: Sequence[str], online: Sequence[str], out: Path) -> None:
    """Write the fingerprints of `datasets`, to learn from, and `online` (one or none), for evaluation.

    Raises ValueError if a dataset has no finished shards.
    """
    write_json(out, _corpus(shards, datasets, online))


def read_corpus(shards: Path, datasets: Sequence[str], online: Sequence[str], path: Path) -> dict[str, str]:
    """Fingerprints of the datasets to learn from, by name.

    Raises ValueError if the corpus is not that of the present shards.
    """
    found, needed = read_json(path) if path.exists() else None, _corpus(shards, datasets, online)
    if found != needed:
        names = [*datasets, *online]
        raise ValueError(
            f"{path}: need the corpus of {', '.join(names)} as it is in {shards} now, "
            f"found {'another' if found else 'none'}. Run `matpac corpus`, or `dvc repro`."
        )
    return needed["datasets"]


def _corpus(shards: Path, datasets: Sequence[str], online: Sequence[str]) -> dict[str, dict[str, str]]:
    def fingerprints(names: Sequence[str]) -> dict[str, str]:
        return {name: fingerprint(shards / name) for name in names}

    return {
        "datasets": fingerprints(datasets),
        "online": fingerprints(online),
    }


def fingerprint(folder: Path) -> str:
    """Digest of the files that identify the content of a folder of shards.

    Raises:
        ValueError: The folder holds no finished shards, or one of these files is damaged.
    """
    sums = sums_of(folder)
    if sums is None:
        raise ValueError(
            f"{folder}: need finished shards, found no {SUMS} in it. Make them with `dvc repro`."
        )
    check_seal(folder, f"shards@{folder.name}", DESCRIPTIONS)
    whole = hashlib.sha256()
    for name in DESCRIPTIONS:
        whole.update(bytes.fromhex(sums[name]))
    return whole.hexdigest()
