"""what is read in place -> data/sources: fingerprints that change when the user's files do.

<dataset>.json             recordings and labels
initial-weights.json       what `pretrain.init` names
other-encoders.json        what `embed.others` names: modules and their weights

The pipeline cannot name the paths of params.yaml as dependencies, since most runs have none. It looks
at these small files instead. Of recordings names, sizes and times are read: seconds for many thousand files.
Of weights and code it is contents: a copy of equal weights shall not repeat a long training.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from matpac.datasets.contents import code_of, content_of
from matpac.files import write_json
from matpac.params import AudioSet, Dataset, Other, Own, Public, digest

PRETRAINED = Path("data/checkpoints/pretrained")
"""What the pipeline makes; it knows by itself when that changes."""


def write_sources(out: Path, datasets: Mapping[str, Dataset]) -> None:
    """One file per dataset; those that are not read in place never change."""
    for name, params in datasets.items():
        write_json(out / f"{name}.json", fingerprint(params))


def write_encoders(out: Path, init: str | None, others: Mapping[str, Other]) -> None:
    """Of names that are no path, and of the pipeline's own checkpoint, nothing is noted."""
    write_json(out / "initial-weights.json", weights(init))
    noted = {
        name: {"code": code_of(other.module), "model": weights(other.model)} for name, other in others.items()
    }
    write_json(out / "other-encoders.json", noted)


def weights(name: str | None) -> dict[str, str]:
    """Digest of the contents of a file or a folder; empty where nothing is noted."""
    if name is None or not Path(name).exists() or Path(name).resolve() == PRETRAINED.resolve():
        return {}
    return {"source": name, "digest": digest(content_of(Path(name)))}


def fingerprint(params: Dataset) -> dict[str, str | int]:
    if not isinstance(params, Own | AudioSet | Public) or params.source is None:
        return {}
    found = hashlib.sha256()
    num_files = 0
    for line in _files(Path(params.source).expanduser()):
        found.update(line.encode(errors="surrogateescape"))
        num_files += 1
    table = Path(getattr(params, "labels", "none")).expanduser()
    if table.is_file():
        found.update(_line(str(table), table.stat()).encode(errors="surrogateescape"))
    return {"source": params.source, "files": num_files, "digest": found.hexdigest()}


def _files(root: Path) -> Iterator[str]:
    """A line per file, in an order that does not depend on the file system; nothing where nothing is."""
    if root.is_file():
        yield _line(root.name, root.stat())
    for folder, subfolders, files in os.walk(root):
        subfolders.sort()
        for name in sorted(files):
            path = Path(folder, name)
            try:
                yield _line(str(path.relative_to(root)), path.stat())
            except OSError as error:
                yield f"{path} {error.errno}\n"


def _line(path: str, status: os.stat_result) -> str:
    return f"{path} {status.st_size} {status.st_mtime_ns}\n"
