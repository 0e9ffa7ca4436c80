"""audio files -> a table of embeddings, resumable."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from matpac.clip import REJECT
from matpac.encoder.encoder import AudioEncoder, check_hop, check_pooling, load_encoder
from matpac.encoder.rows import Found, Job, list_files, write_for_files
from matpac.encoder.tables import Table, format_for
from matpac.params import Pooling, Precision
from matpac.progress import say
from matpac.walk import PassedOver


def embed_files(
    sources: Sequence[Path],
    checkpoint: str | Path,
    out: Path,
    *,
    in_time: bool = False,
    hop_ms: float | None = None,
    pooling: Pooling = "mean",
    precision: Precision = "float32",
    reject: Collection[str] = REJECT,
) -> None:
    """Write the embeddings of files, and of all audio files below folders, to a table.

    A file that cannot be used is named on standard error, left out, and listed in the table with the
    reason; one that is odd is listed with a note. If the call is killed, the same call resumes; once
    the table is whole, it does nothing.

    Args:
        sources: Audio files, and folders to search for some.
        checkpoint: Path or name that `matpac.load` opens.
        out: Table to write: .npz, .parquet or .zarr (see `matpac.encoder.tables`).
        in_time: Whether to write one row every 16 frames, with its time in ms, instead of one per file.
        hop_ms: Time from row to row of a file, as for `AudioEncoder.embed_in_time`; needs `in_time`.
        pooling: As for `AudioEncoder.embed`; only without `in_time`.
        precision: Precision of the encoder's matrix products, as for `matpac.load`.
        reject: Reasons to leave out audio that can be decoded, as shards do: "truncated", "silent".

    Raises:
        ValueError: A source is missing, a folder holds no audio, a name is not UTF-8, no file can be
            used, `hop_ms` or `pooling` is impossible, or `out` has another ending or cannot be written.
        ModuleNotFoundError: The package for this format is not installed (extra `pipeline`).
        RuntimeError: Another process writes the same `out`.
        OSError: The disk is full; the error names `out`.
    """
    kind = format_for(out)
    passed_over = PassedOver()
    files = list_files(sources, passed_over)
    encoder = load_encoder(checkpoint, precision=precision)
    check_hop(encoder, hop_ms, in_time=in_time)
    check_pooling(pooling, in_time=in_time)
    width = encoder.dim if pooling == "mean" else 2 * encoder.dim
    digest = encoder.digest()
    job = Job(
        name="embed",
        by="encoder",
        encoder=encoder,
        compute=partial(encoder.embed_pieces, in_time=in_time, hop_ms=hop_ms, pooling=pooling),
        width=width,
        dtype=np.dtype("<f4"),
        key=[digest, in_time, hop_ms, *([pooling] if pooling != "mean" else [])],
        reject=reject,
    )

    def table(found: Found) -> Table:
        whole = _table(found, encoder, digest, in_time, hop_ms)
        return replace(whole, dim=width, pooling=pooling)

    found = write_for_files(
        files,
        passed_over,
        out,
        job,
        kind.made_from,
        lambda path, found: kind.write(path, table(found), found.blocks()),
    )
    if found is not None:
        rows = f"{sum(found.num_rows):,} embeddings of {width:,} dimensions"
        say(f"{out}: {rows} from {len(found.paths):,} files; {found.in_words()}")


def _table(found: Found, encoder: AudioEncoder, digest: str, in_time: bool, hop_ms: float | None) -> Table:
    table = Table(
        paths=found.paths,
        num_rows=sum(found.num_rows),
        dim=encoder.dim,
        left_out=found.left_out,
        noted=found.noted,
        checkpoint=digest,
        made_from=found.made_from,
    )
    if not in_time:
        return table
    times_ms = encoder.step_centers_ms(max(found.num_rows, default=0), hop_ms)
    return replace(
        table,
        file=np.repeat(np.arange(len(found.paths)), found.num_rows),
        time_ms=np.concatenate([times_ms[:0], *(times_ms[:num_steps] for num_steps in found.num_rows)]),
    )
