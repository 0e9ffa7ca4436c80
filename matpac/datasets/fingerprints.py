"""files of the user that are read in place -> data/sources: fingerprints that change when they do.

<dataset>.json             recordings and labels
initial-weights.json       `pretrain.init`
other-encoders.json        `embed.others`: modules and their weights

The pipeline cannot name the paths of params.yaml as dependencies, since most runs have none. It
looks at these small files instead. For recordings we read names, sizes and times, which takes
seconds for many thousand files. For weights and code we read the contents: a copy of the same
weights must not repeat a long training.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from matpac.files import checksum, write_json
from matpac.params import Dataset, Demo, Other, digest
from matpac.walk import walk

PRETRAINED = Path("data/checkpoints/pretrained")
"""The pipeline's own checkpoint; DVC knows when that changes."""
OURS = __name__.partition(".")[0]


def write_sources(out: Path, datasets: Mapping[str, Dataset]) -> None:
    """Write one file per dataset; it never changes for a dataset that is not read in place."""
    for name, params in datasets.items():
        write_json(out / f"{name}.json", fingerprint(params))


def write_encoders(out: Path, init: str | None, others: Mapping[str, Other]) -> None:
    """Note nothing for names that are no path, and for the pipeline's own checkpoint."""
    write_json(out / "initial-weights.json", weights(init))
    noted = {
        name: {"code": code_of(other.module), "model": weights(other.model)} for name, other in others.items()
    }
    write_json(out / "other-encoders.json", noted)


def weights(name: str | None) -> dict[str, str]:
    """Digest of the contents of a file or a folder; empty if nothing is noted."""
    if name is None or not Path(name).exists() or Path(name).resolve() == PRETRAINED.resolve():
        return {}
    return {"source": name, "digest": digest(content_of(Path(name)))}


def content_of(path: Path) -> dict[str, str]:
    """Checksums of a file, or of the files in a folder; none if a name is no path.

    In one of our checkpoints only the networks count: other files say how long training took. In
    other folders, such as those of `save_pretrained`, README.md and hidden files do not count: they
    decide about no embedding, and a hub notes the times of its downloads there.
    """
    networks = path / "networks.safetensors"
    if networks.is_file():
        return content_of(networks)
    if path.is_file():
        return {"": checksum(path)}
    files = {file.relative_to(path): file for file in path.rglob("*")} if path != Path() else {}
    return {
        name.as_posix(): checksum(file)
        for name, file in sorted(files.items())
        if file.is_file()
        and name != Path("README.md")
        and not any(part.startswith(".") for part in name.parts)
    }


def code_of(module: str) -> str:
    """Digest of a module's file, or of every *.py of the whole package it is in; imports nothing.

    Empty if Python finds no such module: whoever needs it will say so. Empty for our own modules:
    the pipeline depends on our code anyway.
    """
    # find_spec would import the packages at the beginning of a dotted name.
    package = module.partition(".")[0]
    try:
        spec = find_spec(package) if package != OURS else None
    except ValueError:
        return ""
    if spec is None:
        return ""
    if spec.submodule_search_locations is None:
        file = Path(spec.origin or "")
        return digest(checksum(file)) if file.is_file() else ""
    folders = [Path(folder) for folder in spec.submodule_search_locations]
    return digest(
        [
            {file.relative_to(folder).as_posix(): checksum(file)}
            for folder in folders
            for file in sorted(folder.rglob("*.py"))
            if file.is_file()
        ]
    )


def fingerprint(params: Dataset) -> dict[str, str | int]:
    """Digest of names, sizes and times of the files under `source`; empty if it names nothing."""
    if isinstance(params, Demo) or params.source is None:
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
    """A line per file that the inventory would see, in the same order on all file systems."""
    if root.is_file():
        yield _line(root.name, root.stat())
    if not root.is_dir():
        return
    try:
        for path, trouble in walk(root):
            yield f"{path} {trouble}\n" if trouble else _line_of(root, path)
    except OSError as error:
        # The stage that reads the recordings says so; other datasets go on.
        yield f"{error}\n"


def _line_of(root: Path, path: str) -> str:
    try:
        return _line(path, (root / path).stat())
    except OSError as error:
        return f"{path} {error.errno}\n"


def _line(path: str, status: os.stat_result) -> str:
    return f"{path} {status.st_size} {status.st_mtime_ns}\n"
