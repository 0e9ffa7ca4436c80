"""pretrain.datasets, online.dataset -> data/corpus.json: what pre-training reads, and a fingerprint of it.

A stage of its own, because a pipeline stage cannot list the items of a parameter as its dependencies:
this one looks at all shards and costs nothing, and pre-training depends on its small result.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from matpac.files import read_json, write_json
from matpac.params import Params

DESCRIPTIONS = ("index.parquet", "statistics.json", "logmel.json")
"""The files of a shard folder that together identify its content."""


def write_corpus(shards: Path, params: Params, out: Path) -> None:
    """Raises ValueError where a dataset has no finished shards."""
    write_json(out, _corpus(shards, params))


def read_corpus(shards: Path, params: Params, path: Path) -> dict[str, str]:
    """Fingerprints of the datasets that are learned from, by name.

    Raises ValueError where the corpus is not, or no longer, that of these shards.
    """
    found, needed = read_json(path) if path.exists() else None, _corpus(shards, params)
    if found != needed:
        names = [*params.pretrain.datasets, *params.online_datasets]
        raise ValueError(
            f"{path}: need the corpus of {', '.join(names)} as it is in {shards} now, "
            f"found {'another' if found else 'none'}. Run `matpac corpus`, or `dvc repro`."
        )
    return needed["datasets"]


def _corpus(shards: Path, params: Params) -> dict[str, dict[str, str]]:
    def fingerprints(names: Iterable[str]) -> dict[str, str]:
        return {name: fingerprint(shards / name) for name in names}

    return {
        # Learned from, and only looked at.
        "datasets": fingerprints(params.pretrain.datasets),
        "online": fingerprints(params.online_datasets),
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
