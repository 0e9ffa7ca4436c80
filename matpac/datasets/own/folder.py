"""folder: your own recordings, any tree of audio files, read where they are.

labels: none      No labels: for pre-training.
labels: folders   The innermost folder is the class: `dog/a.wav`, `park/dog/a.wav`. Where the outermost
                  one is called train, validation (valid, val, dev) or test, it is the split.
labels: <file>    A CSV or parquet table, looked for in the source and then from the project's folder, with
                  the columns `path` (relative to the source) and `label`, and if you like `split`, `fold`
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
    """The table that the labels come from, if they do. Raises ValueError where it is missing."""
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
