"""Splits that the names of folders and files tell, for all kinds of own data."""

from collections import Counter
from pathlib import Path

import pytest

from matpac.datasets.inventory import Recording
from matpac.datasets.own import folder, parquet, tar
from matpac.params import Folder, Parquet, Tar

KINDS = {"folder": (Folder, folder), "tar": (Tar, tar), "parquet": (Parquet, parquet)}
SPLITS = ("train", "validation", "test")


def read(paths, kind="folder", *, table=None, **keys):
    """Clips by path, and the lines that say what is taken for labels and splits."""
    section, module = KINDS[kind]
    recordings = [
        Recording(
            path, 1, f"{number:064x}", path, about='{"label": "cat"}' if number % 2 else '{"label": "dog"}'
        )
        for number, path in enumerate(paths)
    ]
    root = Path("recordings")
    if table is not None:
        (table / "labels.csv").write_text(
            "path,label\n" + "".join(f"{path},{'cd'[n % 2]}\n" for n, path in enumerate(paths))
        )
        root = table
    params = section(kind=kind, source=str(root), **keys)
    clips = {clip.path: clip for clip in module.clips(params, root, recordings)}
    return clips, "; ".join(module.choices(params, root, recordings))


def parts_of(clips):
    return [clip.split for clip in clips.values()]


@pytest.mark.parametrize(
    "pattern",
    [
        "{split}/{label}/1.wav",
        "{label}/{split}/1.wav",
        "Data/{split}/{label}/1.wav",
        "Data/{label}/{split}/1.wav",
        "{split}/park/{label}/1.wav",
    ],
)
@pytest.mark.parametrize("names", [SPLITS, ("Training", "val", "TEST"), ("train", "dev", "testing")])
def test_folders_above_or_below_the_classes_are_splits(pattern, names):
    paths = [pattern.format(split=split, label=label) for split in names for label in ("cat", "dog")]
    clips, said = read(paths, labels="folders")
    assert parts_of(clips) == [split for split in SPLITS for _ in range(2)]
    assert {clip.labels for clip in clips.values()} == {("cat",), ("dog",)}
    assert "the names of folders or files tell them" in said
    assert names[0] in said


def test_a_class_called_train_is_no_split():
    paths = [f"{label}/{number}.wav" for label in ("train", "bus", "dog") for number in range(5)]
    clips, said = read(paths, labels="folders")
    assert {clip.labels for clip in clips.values()} == {("train",), ("bus",), ("dog",)}
    assert "none found, so the labelled clips are divided: num_folds: 5 (default)" in said


def test_one_split_around_all_divides_nothing():
    paths = [f"train/{label}/{number}.wav" for label in ("cat", "dog") for number in range(5)]
    clips, said = read(paths, labels="folders")
    assert {clip.labels for clip in clips.values()} == {("cat",), ("dog",)}
    assert {clip.fold for clip in clips.values()} == {1, 2, 3, 4, 5}
    assert "all recordings are in train, so the labelled clips are divided" in said


@pytest.mark.parametrize("by", ["folders", "table"])
def test_a_share_of_train_validates_if_only_train_and_test_are_given(tmp_path, by):
    paths = [f"{split}/{label}/{n}.wav" for split in ("train", "test") for label in "cd" for n in range(20)]
    clips, said = read(paths, labels="folders")
    if by == "table":
        rows = [",".join((path, path.split("/")[1], path.split("/")[0])) for path in paths]
        (tmp_path / "t.csv").write_text("\n".join(["path,label,split", *rows]))
        clips, said = read(paths, labels=str(tmp_path / "t.csv"))
    found = Counter((clip.split, *clip.labels) for clip in clips.values())
    assert found == {
        **{("train", label): 17 for label in "cd"},
        **{("validation", label): 3 for label in "cd"},
        **{("test", label): 20 for label in "cd"},
    }
    assert {path for path, clip in clips.items() if clip.split == "test"} == set(paths[40:])
    assert said.endswith("; none for validation, so 15% of train validates")


def test_groups_stay_whole_where_train_validates(tmp_path):
    paths = [f"{n}.wav" for n in range(60)]
    rows = [f"{path},{'cd'[n % 2]},{'test' if n < 20 else 'train'},g{n // 4}" for n, path in enumerate(paths)]
    (tmp_path / "t.csv").write_text("\n".join(["path,label,split,group", *rows]))
    clips, _ = read(paths, labels=str(tmp_path / "t.csv"))
    assert len({(clip.group, clip.split) for clip in clips.values()}) == 15
    assert {clip.split for clip in clips.values()} == set(SPLITS)
    rows = [f"{path},{'cd'[n % 2]},{'test' if n < 20 else 'train'},{n < 20}" for n, path in enumerate(paths)]
    (tmp_path / "t.csv").write_text("\n".join(["path,label,split,group", *rows]))
    with pytest.raises(
        ValueError, match="need two groups of train clips at least, one to validate, found one"
    ):
        read(paths, labels=str(tmp_path / "t.csv"))


def test_splits_beside_other_folders_are_a_question():
    paths = [f"{part}/{label}/1.wav" for part in (*SPLITS, "extra") for label in ("cat", "dog")]
    line = r"^recordings: splits: need all recordings below test, train, validation, or none, found 6 of 8\. "
    with pytest.raises(ValueError, match=line):
        read(paths, labels="folders")
    clips, said = read(paths, labels="folders", splits="none")
    assert {clip.labels for clip in clips.values()} == {("cat",), ("dog",)}
    assert parts_of(clips) == [None] * 8
    assert "splits: none; the labelled clips are divided" in said


def test_with_splits_none_folders_called_train_are_classes():
    paths = [f"{label}/{number}.wav" for label in SPLITS for number in range(5)]
    clips, _ = read(paths, labels="folders", splits="none")
    assert {clip.labels for clip in clips.values()} == {(label,) for label in SPLITS}


def test_folders_split_what_a_table_labels(tmp_path):
    paths = [f"{split}/{number}.wav" for split in SPLITS for number in range(2)]
    clips, said = read(paths, table=tmp_path, labels="labels.csv", splits="given")
    assert parts_of(clips) == [split for split in SPLITS for _ in range(2)]
    assert said.startswith("labels: labels.csv; multi_label: false (default); splits: given; the names of")


def test_splits_that_must_be_given_are_never_dealt():
    paths = [f"{label}/{number}.wav" for label in ("cat", "dog") for number in range(5)]
    with pytest.raises(
        ValueError, match=r"splits: given: need splits or folds in .*, found none\. Set splits to"
    ):
        read(paths, labels="folders", splits="given")


@pytest.mark.parametrize("kind", ["tar", "parquet"])
@pytest.mark.parametrize(
    "pattern",
    [
        "data/{}-00000-of-00003.{}",
        "{}/shard-000000.{}",
        "{}.{}",
        "esc50-{}-000.{}",
    ],
)
def test_containers_and_their_folders_name_splits(kind, pattern):
    paths = [f"{pattern.format(split, kind)}/{number}" for split in SPLITS for number in range(2)]
    clips, said = read(paths, kind, labels="label")
    assert parts_of(clips) == [split for split in SPLITS for _ in range(2)]
    assert "the names of folders or files tell them" in said


def test_containers_without_splits_are_divided():
    clips, said = read([f"shard-{number}.tar/a.wav" for number in range(10)], "tar", labels="label")
    assert {clip.fold for clip in clips.values()} == {1, 2, 3, 4, 5}
    assert "none found" in said


@pytest.mark.parametrize(
    ("kind", "there"), [("folder", "`folders` would make a class of each of 2 folders"), ("tar", "label")]
)
def test_without_labels_the_default_and_what_there_is_are_said(kind, there):
    paths = [f"{label}/1.wav" for label in ("cat", "dog")]
    clips, said = read(paths, kind)
    assert {clip.labels for clip in clips.values()} == {()}
    assert said.startswith("labels: none (default); ")
    assert said.endswith(there)
