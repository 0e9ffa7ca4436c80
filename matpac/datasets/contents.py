"""a path, the name of a module -> checksums of what lies there, whenever it was written."""

from importlib.util import find_spec
from pathlib import Path

from matpac.files import checksum
from matpac.params import digest

OURS = __name__.partition(".")[0]


def content_of(path: Path) -> dict[str, str]:
    """Checksums of a file, or of the files in a folder; none where a name is no path.

    Of a checkpoint of ours its networks: other files in it say how long training took. Of other folders, as
    `save_pretrained` writes them, all but what decides about no embedding: README.md, and what is hidden,
    such as the times that downloads from a hub are noted with.
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
    """Digest of a module's file, or of every *.py of the whole package it is in; nothing of it is imported.

    Empty where Python finds nothing of that name: whoever needs it will say so. Empty for modules of our own
    too: the pipeline depends on our code anyway, and its results are namesakes whichever version made them.
    """
    # Of a name with dots, find_spec would import the packages that it begins with.
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
