"""audio files -> a table of probabilities or events, or label files; resumable."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matpac.classifier.classifier import Classifier, load_classifier
from matpac.classifier.events import Event
from matpac.classifier.tables import (
    Program,
    Table,
    about_of,
    check_out,
    made_from,
    write_labels,
    write_table,
)
from matpac.clip import REJECT
from matpac.encoder.rows import Found, Job, Numbered, list_files, write_for_files
from matpac.files import write_json
from matpac.progress import say
from matpac.walk import PassedOver

OF_FILE = -1
"""In place of a class: the first row of a file, with its duration and how unlike it is."""


def predict_files(
    sources: Sequence[Path],
    classifier: str | Path,
    out: Path,
    *,
    events: bool = False,
    labels: Program | None = None,
    reject: Collection[str] = REJECT,
) -> None:
    """Write what a classifier says of files, and of all audio files below folders.

    A file that cannot be used is named on standard error, left out, and listed with the reason; one
    that is odd is listed with a note. If the call is killed, the same call resumes; once the result is
    whole, it does nothing. `matpac.classifier.tables` says what the results hold.

    Args:
        sources: Audio files, and folders to search for some.
        classifier: Folder that `matpac.load_classifier` opens.
        out: Table to write, .csv or .parquet; a folder for `labels`.
        events: Whether to write events with onset and offset, instead of one row per file.
        labels: Write events as files for `audacity` or `raven` instead of a table.
        reject: Reasons to leave out audio that can be decoded, as shards do: "truncated", "silent".

    Raises:
        ValueError: There is no such classifier, a source is missing, a folder holds no audio, a name is
            not UTF-8, no file can be used, or `out` has another ending or cannot be written.
        ModuleNotFoundError: The package for this format is not installed (extra `pipeline`).
        RuntimeError: Another process writes the same `out`.
        OSError: The disk is full; the error names `out`.
    """
    check_out(out, labels)
    passed_over = PassedOver()
    files = list_files(sources, passed_over, "predict")
    opened = load_classifier(classifier)
    in_time = events or labels is not None
    digest = opened.digest()
    job = Job(
        name="predict",
        by="classifier",
        encoder=opened.encoder,
        compute=partial(_events if in_time else _tags, opened),
        width=4 if in_time else len(opened.classes) + 1,
        dtype=np.dtype("<f8"),
        key=[digest, in_time, labels],
        reject=reject,
        channels=opened.channels,
    )

    def about(found: Found) -> dict[str, Any]:
        return {
            "made_from": found.made_from,
            "classifier": digest,
            "thresholds": dict(zip(opened.classes, opened.thresholds.tolist(), strict=True)),
            "left_out": found.left_out,
            "noted": found.noted,
        }

    ratios: list[float] = []

    def write(path: Path, found: Found) -> None:
        of_files = _by_file(found, ratios)
        if labels is not None:
            events = ((name, _events_in(rows, opened)) for name, rows in of_files)
            write_labels(path, labels, events, found.paths, opened.encoder.logmel, about(found))
        else:
            make = _table_of_events if in_time else _table_of_tags
            write_table(path, make(of_files, found, opened), about(found))

    found = write_for_files(files, passed_over, out, job, made_from, write)
    if found is None:
        return
    if out.suffix == ".csv":
        write_json(about_of(out), about(found))
    num_unlike = sum(ratio > 1 for ratio in ratios)
    unlike = f"; {num_unlike:,} unlike the training data" if np.isfinite(ratios).all() else ""
    num_events = sum(found.num_rows) - len(found.paths)
    what = (
        f"{num_events:,} events in {len(found.paths):,} files" if in_time else f"{len(found.paths):,} files"
    )
    say(f"{out}: {what}{unlike}; {found.in_words()}")


def _tags(classifier: Classifier, pieces: Numbered) -> Numbered:
    """For each file a row: probabilities of the classes, and how unlike the training data it is."""
    for number, answer in classifier.answers(pieces):
        yield number, np.append(answer.probabilities, answer.unlike)[None]


def _events(classifier: Classifier, pieces: Numbered) -> Numbered:
    """For each file a row (OF_FILE, 0, duration, unlike), then (class, onset, offset, score) per event."""
    num_frames = Counter[int]()

    def counted() -> Numbered:
        for number, piece in pieces:
            num_frames[number] += len(piece)
            yield number, piece

    for number, heard in classifier.heard(counted()):
        duration_s = classifier.duration_s(num_frames.pop(number))
        found = classifier.in_time(heard.logits, duration_s).events
        rows = [
            (OF_FILE, 0, duration_s, heard.unlike),
            *((classifier.classes.index(one.label), *one[1:]) for one in found),
        ]
        yield number, np.array(rows, dtype=np.float64)


def _by_file(found: Found, ratios: list[float]) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Path and rows of each file; `ratios` receives how unlike the training data each is."""
    rows = (row for block in found.blocks() for row in block)
    for path, num_rows in zip(found.paths, found.num_rows, strict=True):
        of_file = np.stack([next(rows) for _ in range(num_rows)])
        ratios.append(float(of_file[0, -1]))
        yield path, of_file


def _events_in(rows: NDArray[np.float64], classifier: Classifier) -> list[Event]:
    return [Event(classifier.classes[int(number)], *times) for number, *times in rows[1:].tolist()]


Files = Iterable[tuple[str, NDArray[np.float64]]]


def _table_of_tags(files: Files, found: Found, classifier: Classifier) -> Table:
    named = dict.fromkeys((f"p_{name}" for name in classifier.classes), float)
    columns = {"path": str, "labels": str, "unlike": float, "note": str, "left_out": str} | named

    def rows() -> Iterator[list[str | float | None]]:
        for path, [row] in files:
            *probabilities, unlike = row.tolist()
            labels = ";".join(_labels(row[:-1], classifier))
            note = found.noted.get(path)
            yield [path, labels, _rounded(unlike), note, None, *map(_rounded, probabilities)]
        for path, reason in found.left_out.items():
            yield [path, None, None, None, reason, *[None] * len(classifier.classes)]

    return Table(columns, rows())


def _table_of_events(files: Files, found: Found, classifier: Classifier) -> Table:
    columns = {
        "path": str,
        "label": str,
        "onset_s": float,
        "offset_s": float,
        "score": float,
        "unlike": float,
    }

    def rows() -> Iterator[list[str | float | None]]:
        for path, of_file in files:
            for one in _events_in(of_file, classifier):
                times = round(one.onset_s, 3), round(one.offset_s, 3)
                yield [path, one.label, *times, _rounded(one.score), _rounded(of_file[0, -1])]

    return Table(columns, rows())


def _labels(probabilities: NDArray[np.float64], classifier: Classifier) -> list[str]:
    """The most probable class; if there may be several, those at or above their thresholds."""
    if not classifier.multi_label:
        return [classifier.classes[int(probabilities.argmax())]]
    return [classifier.classes[number] for number in np.flatnonzero(probabilities >= classifier.thresholds)]


def _rounded(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None
