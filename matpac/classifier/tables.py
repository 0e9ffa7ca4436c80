"""what a classifier says of files -> a table (.csv or .parquet), or a folder of label files.

tags     a row per file: path, labels, unlike, note, left_out, and a probability `p_<class>` of each class
events   a row per event: path, label, onset_s, offset_s, score, unlike
labels   a file per recording, `<path>.txt` for Audacity or `<path>.selections.txt` for Raven

Facts about the whole (classifier, thresholds, files left out, `made_from`) are metadata in .parquet, and
stand in `<name>.csv.json` beside a .csv and in `about.json` in a folder.
"""

import csv
import json
import os
from collections.abc import Iterable, Sequence
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

from matpac.classifier.events import Event
from matpac.files import check_place, read_json, write_json, write_text
from matpac.params import LogMel

Program = Literal["audacity", "raven"]
ABOUT = "about.json"
ROWS_AT_ONCE = 10_000
RAVEN = (
    *("Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)"),
    *("Annotation", "Score"),
)


class Table(NamedTuple):
    columns: dict[str, type]
    """str or float by name."""
    rows: Iterable[Sequence[str | float | None]]
    """None for cells without a value."""


def check_out(out: Path, program: Program | None) -> None:
    """Refuse a place for the result, before the work.

    Raises:
        ValueError: The ending names no format, or something else is in the way.
        ModuleNotFoundError: The package that writes this format is not installed.
    """
    if program is not None:
        if out.suffix in (".csv", ".parquet"):
            raise ValueError(f"--out: need a folder for label files, got {out}")
        in_the_way = os.path.lexists(out) and not (out / ABOUT).is_file()
    else:
        if out.suffix not in (".csv", ".parquet"):
            raise ValueError(f"--out: need a name that ends in .csv or .parquet, got {out}")
        in_the_way = out.is_dir()
    if in_the_way:
        raise ValueError(f"--out: need a new name or one to replace, found something else at {out}")
    check_place(out)
    if out.suffix == ".parquet":
        import_module("pyarrow")


def made_from(out: Path) -> str | None:
    """The digest in the facts about a result; None if there is none."""
    try:
        if out.suffix == ".parquet":
            import pyarrow.parquet as pq

            return str(pq.read_schema(out).metadata[b"made_from"], "utf-8")
        place = about_of(out)
        return str(read_json(place)["made_from"]) if out.exists() else None
    except Exception:  # other programs' files raise whatever their bytes lead to
        return None


def about_of(out: Path) -> Path:
    """Where the facts about a .csv or a folder stand."""
    return out.with_name(f"{out.name}.json") if out.suffix == ".csv" else out / ABOUT


def write_table(path: Path, table: Table, about: dict[str, Any]) -> None:
    """Write .csv, whose facts the caller writes beside it, or .parquet."""
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(table.columns)
            writer.writerows(table.rows)
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {str: pa.string(), float: pa.float64()}
    facts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in about.items()}
    schema = pa.schema([(name, types[kind]) for name, kind in table.columns.items()], facts)
    with pq.ParquetWriter(path, schema) as writer:
        rest = iter(table.rows)
        while rows := list(islice(rest, ROWS_AT_ONCE)):
            columns = [
                pa.array(values, kind)
                for values, kind in zip(zip(*rows, strict=True), schema.types, strict=True)
            ]
            writer.write_table(pa.table(columns, schema=schema))


def write_labels(
    folder: Path,
    program: Program,
    events: Iterable[tuple[str, Sequence[Event]]],
    paths: Sequence[str],
    logmel: LogMel,
    about: dict[str, Any],
) -> None:
    """Write a file for each recording, in folders as they have below the one that holds all of them.

    Args:
        folder: Folder to make.
        program: Whose files to write.
        events: Path and events of each recording.
        paths: All these paths.
        logmel: Front end, whose band Raven shows.
        about: Facts about the whole.
    """
    whole = {path: Path(os.path.normpath(Path(path).absolute())) for path in paths}
    top = os.path.commonpath([path.parent for path in whole.values()])
    band = f"{logmel.fmin_hz:g}", f"{logmel.fmax_hz:g}"
    folder.mkdir()
    for path, of_file in events:
        lines = [_audacity(one) for one in of_file]
        if program == "raven":
            numbered = enumerate(of_file, start=1)
            lines = [RAVEN, *(_raven(number, one, band) for number, one in numbered)]
        ending = ".txt" if program == "audacity" else ".selections.txt"
        text = "".join("\t".join(line) + "\n" for line in lines)
        write_text(folder / f"{whole[path].relative_to(top)}{ending}", text)
    write_json(folder / ABOUT, about)


def _audacity(event: Event) -> tuple[str, ...]:
    return f"{event.onset_s:.3f}", f"{event.offset_s:.3f}", _cell(event.label)


def _raven(number: int, event: Event, band: tuple[str, str]) -> tuple[str, ...]:
    onset, offset, label = _audacity(event)
    return str(number), "Spectrogram 1", "1", onset, offset, *band, label, f"{event.score:.4f}"


def _cell(label: str) -> str:
    """Tabs and line ends would begin another cell or line."""
    return " ".join(label.split())
