"""a classifier <-> a folder.

config.json, model.safetensors   the encoder: see matpac/weights/pretrained.py
classifier.json                  classes, thresholds, calibration, scores, where it comes from
classifier.safetensors           head and reference embeddings

The folder is complete by itself, and no file holds code.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PositiveFloat, field_validator, model_validator
from torch import Tensor

from matpac.classifier.heads import Kind
from matpac.files import check_place, move_into_place, partial_path, room_for, write_json
from matpac.params import Channels, Fraction, Pooling, Precision, Section, read_section
from matpac.weights.pretrained import HEAD
from matpac.weights.tensors import first_misfit, read_tensors, shapes_of, write_tensors

DESCRIPTION, TENSORS = "classifier.json", "classifier.safetensors"
FILES = (DESCRIPTION, TENSORS)
REFERENCES = "references"


class Description(Section):
    """classifier.json."""

    head: Kind
    pooling: Pooling = "mean"
    """What a linear head reads of a clip's steps; older files do not say."""
    classes: Annotated[tuple[str, ...], Field(min_length=1)]
    multi_label: bool
    """Whether a clip can have several classes."""
    temperature: PositiveFloat
    """Divides the logits."""
    thresholds: tuple[Fraction, ...]
    """Lowest probability at which each class counts as heard."""
    usual_distance: PositiveFloat | None
    """Distance to the nearest training clips that is usual for held-out clips; null without references."""
    precision: Precision
    """Precision of the encoder's matrix products that the head was trained with."""
    channels: Channels
    """What becomes of several channels of a file."""
    encoder: str
    """Digest of the encoder, `AudioEncoder.digest`."""
    scores: dict[str, Any]
    """What was measured, on clips that the measured models did not train on."""
    origin: dict[str, Any]
    """Dataset, checkpoint and training."""

    @field_validator("classes")
    @classmethod
    def _classes_differ(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(classes)) < len(classes):
            twice = next(name for name in classes if classes.count(name) > 1)
            raise ValueError(f"need names that occur once, got {twice!r} twice")
        return classes

    @model_validator(mode="after")
    def _a_threshold_each(self) -> "Description":
        if len(self.thresholds) != len(self.classes):
            raise ValueError(
                f"thresholds: need one for each of {len(self.classes)} classes, got {len(self.thresholds)}"
            )
        return self


def check_folder(out: Path) -> None:
    """Refuse a place for a classifier, before the work.

    Raises:
        ValueError: Something else is there, or no folder can be made there.
    """
    if os.path.lexists(out) and not (out / DESCRIPTION).is_file():
        raise ValueError(f"--out: need a new name or a classifier to replace, found something else at {out}")
    check_place(out)


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Yield a new folder beside the target; on success it takes the target's place."""
    partial = partial_path(folder)
    try:
        with room_for(folder):
            partial.mkdir(parents=True)
            yield partial
            move_into_place(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_classifier(folder: Path, description: Description, tensors: dict[str, Tensor]) -> None:
    """Write into the folder of the encoder."""
    write_tensors(folder / TENSORS, tensors, {"format": "pt"})
    # Written last, so that a folder with this file is whole.
    write_json(folder / DESCRIPTION, HEAD | description.model_dump(mode="json"))


def read_description(folder: Path) -> Description:
    """Read classifier.json.

    Raises:
        ValueError: The file is missing or damaged, or a value of it is wrong; one line names it.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        raise ValueError(
            f"{folder}: need a classifier that `matpac fit` or save_pretrained wrote, found no {DESCRIPTION}"
        )
    return read_section(Description, path, HEAD)


def facts_of_classifier(folder: Path) -> dict[str, Any]:
    """Facts by name, as JSON can hold them; none if the folder holds no classifier."""
    if not (folder / DESCRIPTION).is_file():
        return {}
    about = read_description(folder)
    how = "any of them in a clip" if about.multi_label else "one of them in a clip"
    known = {name: about.origin.get(name) for name in ("dataset", "trained")}
    return {
        "classifier": f"{len(about.classes):,} classes, {how}",
        "classes": list(about.classes),
        **{name: value for name, value in known.items() if value},
        **({"held_out_score": said} if (said := score_in_words(about.scores)) else {}),
    }


def score_in_words(scores: Mapping[str, Any]) -> str:
    """Mean and interval of what was measured on held-out clips; empty if it is not there."""
    if not {"metric", "mean", "interval", "protocol"} <= scores.keys():
        return ""
    mean, interval = 100 * scores["mean"], 100 * scores["interval"]
    return f"{mean:.1f} ± {interval:.1f} % {scores['metric']} ({scores['protocol']})"


def read_classifier_tensors(folder: Path, description: Description, dim: int) -> dict[str, Tensor]:
    """Read and check classifier.safetensors: tensors of the head and, if there are any, `references`.

    Args:
        folder: Folder of the classifier.
        description: Contents of its classifier.json.
        dim: Dimensions of the encoder's embeddings.

    Raises:
        ValueError: A tensor is missing, not finite or of another shape; one line names file and tensor.
    """
    path = folder / TENSORS
    tensors = read_tensors(path)
    found, num_classes = shapes_of(tensors), len(description.classes)
    pooled = dim if description.pooling == "mean" else 2 * dim
    needed = {"weight": [num_classes, pooled], "bias": [num_classes], "mean": [pooled], "factor": [pooled]}
    if description.head == "attentive":
        num_heads = _rows(found, "queries")
        if dim % num_heads:
            raise ValueError(f"{path}: queries: need a number that divides {dim}, found {num_heads}")
        needed |= {"queries": [num_heads, dim], "step_factor": [dim]}
    if description.usual_distance is not None:
        needed[REFERENCES] = [_rows(found, REFERENCES), pooled]
    if misfit := first_misfit(needed, found):
        raise ValueError(
            f"{path}: {misfit.name}: need {misfit.needed}, which fits {DESCRIPTION} and the encoder, "
            f"found {misfit.found}. Get a whole copy of the folder."
        )
    return tensors


def _rows(shapes: dict[str, list[int]], name: str) -> int:
    """Rows of a matrix that may have any number but 0."""
    shape = shapes.get(name, [])
    return max(shape[0], 1) if shape else 1
