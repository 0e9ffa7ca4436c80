"""urls -> verified files."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RemoteFile:
    """A file to download, by any of several addresses."""

    name: str
    urls: tuple[str, ...]
    """Mirrors in the order in which they are tried."""
    checksum: str | None
    """`md5:...` or `sha256:...`; None where the bytes vary, and the unpacked contents are checked instead."""
    num_bytes: int | None = None
    """Where it is known exactly."""
