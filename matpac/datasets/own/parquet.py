"""parquet: your own recordings in parquet or arrow files, as Hugging Face keeps them, read in place.

Layout   Any tree of `.parquet` files, or of `.arrow` files as `save_to_disk` writes them, with a
         column of audio files as bytes: a struct with a field `bytes`, or a binary column named
         `audio`. Files without one are passed over.
Labels   `labels: none`, or the column with the label: a text, a number, or a list of them. The
         columns `split`, `fold` and `group` count too. See matpac/datasets/own/labels.py. Numbers
         of classes that Hugging Face has named (`ClassLabel`) become their names.
Defects  The rows before a damage are used, and a line in rejected.csv names the file. A row group
         is read from its start: files with few, large row groups are slow if shards are small.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from matpac.clip import Clip
from matpac.datasets.inventory import Recording
from matpac.datasets.own.labels import annotate_from_about, annotated_clips, choices_of
from matpac.params import Parquet
from matpac.walk import Storage

STORED_AS: tuple[Storage, ...] = ("parquet",)


def clips(params: Parquet, root: Path, recordings: Iterable[Recording]) -> Iterator[Clip]:
    annotate = annotate_from_about(params.labels, multi_label=params.multi_label)
    return annotated_clips(params, root, recordings, annotate)


def choices(params: Parquet, root: Path, recordings: Iterable[Recording]) -> tuple[str, ...]:
    annotate = annotate_from_about(params.labels, multi_label=params.multi_label)
    return choices_of(params, root, recordings, annotate)
