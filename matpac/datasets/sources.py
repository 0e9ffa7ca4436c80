"""datasets read in place -> data/sources/<dataset>.json: a fingerprint that changes when the user's files do.

The pipeline cannot name the folders of params.yaml as dependencies, since most datasets have none. It looks
at these small files instead. Names, sizes and times are read, not contents: seconds for many thousand files.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from matpac.files import write_json
from matpac.params import AudioSet, Dataset, Own, Public


def write_sources(out: Path, datasets: Mapping[str, Dataset]) -> None:
    """One file per dataset; those that are not read in place never change."""
    for name, params in datasets.items():
        write_json(out / f"{name}.json", fingerprint(params))


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
