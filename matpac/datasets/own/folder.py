"""folder: your own recordings in any tree of audio files, read in place.

labels: none      No labels, for pre-training.
labels: folders   The innermost folder is the class: `dog/a.wav`, `park/dog/a.wav`. An outermost
                  folder named train, validation (valid, val, dev) or test is the split.
labels: <file>    A CSV or parquet table, in the source or relative to the project's folder.
                  Columns: `path` (relative to the source), `label`, and optionally `split`, `fold`
                  and `group`. See matpac/datasets/own/labels.py.

Recordings outside every folder, or not in the table, have no label.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from matpac.clip import Clip
from matpac.datasets.inventory import Recording
from matpac.datasets.own.label_table import read_table
from matpac.datasets.own.labels import SPLITS, Annotation, annotated_clips
from matpac.params import Folder


def tables(params: Folder, root: Path) -> list[Path]:
    """The table of labels, if there is to be one. Raises ValueError if it is missing."""
    if params.labels in ("none", "folders"):
        return []
    for path in (root / params.labels, Path(params.labels).expanduser()):
        if path.is_file():
            return [path]
    raise ValueError(
        f"labels: need `none`, `folders` or a CSV or parquet file in {root} or here, found no {params.labels}"
    )


def clips(params: Folder, root: Path, recordings: Iterable[Recording]) -> Iterator[Clip]:
    if params.labels == "none":
        return annotated_clips(params, root, recordings, None)
    if params.labels == "folders":
        return annotated_clips(params, root, recordings, _from_folders)
    [table] = tables(params, root)
    annotations = read_table(table, recordings, multi_label=params.multi_label)
    return annotated_clips(params, root, recordings, lambda recording: annotations.get(recording.path))


def _from_folders(recording: Recording) -> Annotation | None:
    folders = PurePosixPath(recording.path).parts[:-1]
    split = SPLITS.get(folders[0].lower()) if folders else None
    return Annotation((folders[-1],), split) if len(folders) > (split is not None) else None
