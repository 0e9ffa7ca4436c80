"""folder: your own recordings in any tree of audio files, read in place.

labels: none      No labels, for pre-training.
labels: folders   The innermost folder is the class: `dog/a.wav`, `park/dog/a.wav`. Folders named
                  train, validation (valid, val, dev) and test are the splits instead, if all
                  recordings are in them: `train/dog/a.wav`, `dog/train/a.wav`.
labels: <file>    A CSV, JSON Lines or parquet table, in the source or relative to the project's
                  folder; or the name of tables in folders of the source, such as `metadata.csv`.
                  Columns: `path` (relative to the source) or `file_name` (relative to the table,
                  as in Hugging Face's audiofolder), `label` (or `label_column`), and optionally
                  `split`, `fold` and `group`. See matpac/datasets/own/labels.py.

Recordings outside every folder, or not in the table, have no label.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath

from matpac.clip import Clip
from matpac.datasets.inventory import Recording
from matpac.datasets.own.label_table import read_tables
from matpac.datasets.own.labels import Annotate, Annotation, annotated_clips, choices_of, class_name
from matpac.datasets.own.places import Places, names_above, places_of
from matpac.params import Folder
from matpac.walk import walk


def tables(params: Folder, root: Path) -> list[Path]:
    """The tables of labels, if there are to be any. Raises ValueError if they are missing."""
    if params.labels in ("none", "folders"):
        return []
    for path in (root / params.labels, Path(params.labels).expanduser()):
        if path.is_file():
            return [path]
    name = PurePosixPath(params.labels).name
    below = []
    if name == params.labels:
        below = [
            root / path for path, trouble in walk(root) if not trouble and PurePosixPath(path).match(name)
        ]
    if below:
        return below
    raise ValueError(
        f"labels: need `none`, `folders`, or a CSV, JSON Lines or parquet file in {root} or here, "
        f"found no {params.labels}"
    )


def clips(params: Folder, root: Path, recordings: Iterable[Recording]) -> Iterator[Clip]:
    return annotated_clips(params, root, recordings, _annotations(params, root, recordings))


def choices(params: Folder, root: Path, recordings: Iterable[Recording]) -> tuple[str, ...]:
    return choices_of(params, root, recordings, _annotations(params, root, recordings))


def _annotations(params: Folder, root: Path, recordings: Iterable[Recording]) -> Annotate | None:
    if params.labels == "none":
        return None
    if params.labels == "folders":
        places = None if params.splits == "none" else places_of(str(root), recordings)
        return partial(_from_folders, places)
    annotations = read_tables(
        tables(params, root),
        root,
        recordings,
        label=params.label_column,
        multi_label=params.multi_label,
    )
    return lambda recording: annotations.get(recording.path)


def _from_folders(places: Places | None, recording: Recording) -> Annotation | None:
    folders = names_above(recording) if places is None else places.others(recording)
    return Annotation((class_name(folders[-1]),)) if folders else None
