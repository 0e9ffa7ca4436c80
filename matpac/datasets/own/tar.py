"""tar: your own recordings in tar shards, as WebDataset writes them, read in place.

Layout   Any tree of `.tar` files (not compressed) with audio files, each perhaps with a
         `<key>.json` beside it: `000017.flac`, `000017.json`. `<key>.cls` and `<key>.txt` count as
         further keys, `cls` and `txt`, of that JSON.
Labels   `labels: none`, or the key of the JSON with the label: a text, a number, or a list of them.
         The keys `split`, `fold` and `group` count too. See matpac/datasets/own/labels.py.
Defects  The members before a cut or a damage are used, and a line in rejected.csv names the tar.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from matpac.clip import Clip
from matpac.datasets.inventory import Recording
from matpac.datasets.own.labels import annotate_from_about, annotated_clips, choices_of
from matpac.params import Tar
from matpac.walk import Storage

STORED_AS: tuple[Storage, ...] = ("tars",)


def clips(params: Tar, root: Path, recordings: Iterable[Recording]) -> Iterator[Clip]:
    annotate = annotate_from_about(params.labels, multi_label=params.multi_label)
    return annotated_clips(params, root, recordings, annotate)


def choices(params: Tar, root: Path, recordings: Iterable[Recording]) -> tuple[str, ...]:
    annotate = annotate_from_about(params.labels, multi_label=params.multi_label)
    return choices_of(params, root, recordings, annotate)
