"""pretrain.datasets, online.dataset -> data/corpus.json: what pre-training reads, and a fingerprint of it.

A stage of its own, because a pipeline stage cannot list the items of a parameter as its dependencies:
this one looks at all shards and costs nothing, and pre-training depends on its small result.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from matpac.files import read_json, write_json

DESCRIPTIONS = ("index.parquet", "statistics.json", "logmel.json")
"""The files of a shard folder that together identify its content."""


def write_corpus(shards: Path, datasets: Sequence[str], online: Sequence[str], out: Path) -> None:
    """`datasets` are learned from, `online` (one or none) is looked at while training.

    Raises ValueError where a dataset has no finished shards.
    """
    write_json(out, _corpus(shards, datasets, online))


def read_corpus(shards: Path, datasets: Sequence[str], online: Sequence[str], path: Path) -> dict[str, str]:
    """Fingerprints of the datasets that are learned from, by name.

    Raises ValueError where the corpus is not, or no longer, that of these shards.
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
        # Learned from, and only looked at.
        "datasets": fingerprints(datasets),
        "online": fingerprints(online),
    }


def fingerprint(folder: Path) -> str:
    whole = hashlib.sha256()
    for name in DESCRIPTIONS:
        path = folder / name
        if not path.exists():
            raise ValueError(
                f"{folder}: need finished shards, found no {name} in it. Make them with `dvc repro`."
            )
        whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()
