from collections import Counter
from pathlib import Path

import pytest

from matpac.datasets import folder
from matpac.params import Folder

PATHS = ["cat/a.wav", "cat/b.wav", "dog/a.wav", "dog/b.wav", "loose.wav"]


def params(labels, *, multi_label=False, num_folds=3) -> Folder:
    return Folder(kind="folder", source=".", labels=labels, multi_label=multi_label, num_folds=num_folds)


def clips(params, root, paths=PATHS):
    return {clip.path: clip for clip in folder.clips(params, root, paths)}


@pytest.fixture
def table(tmp_path):
    def write(text):
        (tmp_path / "labels.csv").write_text(text, encoding="utf-8-sig")
        return tmp_path

    return write


def test_without_labels_there_is_no_task(tmp_path):
    found = clips(params("none"), tmp_path)
    assert list(found) == PATHS
    assert {clip.labels for clip in found.values()} == {()}
    assert folder.task(params("none"), list(found.values())) is None


def test_the_innermost_folder_is_the_class_and_loose_files_are_unlabelled(tmp_path):
    found = clips(params("folders"), tmp_path, [*PATHS, "park/dog/c.wav"])
    assert found["park/dog/c.wav"].labels == ("dog",)
    assert (found["loose.wav"].labels, found["loose.wav"].fold) == ((), None)
    task = folder.task(params("folders"), list(found.values()))
    assert (task.classes, task.metric, task.num_folds) == (("cat", "dog"), "accuracy", 3)


def test_the_outermost_folder_may_be_the_split(tmp_path):
    paths = [f"{split}/{name}/1.wav" for split in ("train", "Val", "test") for name in ("cat", "dog")]
    found = clips(params("folders"), tmp_path, paths)
    assert [found[path].split for path in paths[::2]] == ["train", "validation", "test"]
    assert {clip.labels[0] for clip in found.values()} == {"cat", "dog"}
    assert folder.task(params("folders"), list(found.values())).num_folds is None


def test_a_missing_split_is_named(tmp_path):
    paths = ["train/cat/1.wav", "train/dog/1.wav", "test/dog/1.wav"]
    with pytest.raises(ValueError, match="found 2 train, 1 test"):
        clips(params("folders"), tmp_path, paths)


def test_a_table_gives_labels_splits_and_groups(table):
    root = table(
        "path,label,split,group,remark\n"
        'cat/a.wav,"cat, black",train,x,\n./cat/b.wav,dog,valid,x,\ndog/a.wav,dog,test,,good\n'
    )
    found = clips(params("labels.csv"), root)
    assert found["cat/a.wav"].labels == ("cat, black",)
    assert found["cat/a.wav"].group == "x"
    assert [found[path].split for path in PATHS] == ["train", "validation", "test", None, None]


def test_a_table_gives_several_labels_and_clips_without_any(table):
    root = table(
        "path,label,fold\ncat/a.wav,cat; rain,10\ncat/b.wav,,20\ndog/a.wav,dog,30\ndog/b.wav,dog,10\n"
    )
    found = clips(params("labels.csv", multi_label=True), root)
    assert found["cat/a.wav"].labels == ("cat", "rain")
    assert [found[path].fold for path in PATHS] == [1, 2, 3, 1, None]
    task = folder.task(params("labels.csv", multi_label=True), list(found.values()))
    assert (task.classes, task.metric, task.num_folds) == (("cat", "dog", "rain"), "mAP", 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file;class\n", "need columns path and label .* found file;class"),
        ("", "found nothing"),
        ("path,label\ncat/x.wav,cat\n", r"found 1 that do not: cat/x.wav \(line 2\)"),
        ("path,label\ncat/a.wav,cat\ncat/a.wav,dog\n", "line 3: need one row per recording"),
        ("path,label\ncat/a.wav,\n", "line 2: need a label"),
        ("path,label,split\ncat/a.wav,cat,later\n", "need train, validation or test, got later"),
        ("path,label,fold\ncat/a.wav,cat,one\n", "need a whole number, got one"),
        ("path,label,split,fold\ncat/a.wav,cat,test,1\n", "need a split or a fold, got both"),
        ("path,label,fold\ncat/a.wav,cat,1\ncat/b.wav,cat,\n", "at least 3 folds, found 1 folds"),
    ],
)
def test_a_wrong_table_is_refused_with_the_place(table, text, message):
    with pytest.raises(ValueError, match=message):
        clips(params("labels.csv"), table(text))


def test_a_missing_table_and_missing_folds_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"found no tags.csv"):
        clips(params("tags.csv"), tmp_path)
    with pytest.raises(ValueError, match="need num_folds"):
        clips(params("folders", num_folds=None), tmp_path)


def test_one_class_is_no_task(tmp_path):
    found = clips(params("folders"), tmp_path, ["cat/a.wav"])
    with pytest.raises(ValueError, match="at least two classes, found 1"):
        folder.task(params("folders"), list(found.values()))


def test_folds_spread_classes_and_keep_groups_whole():
    annotations = {
        f"{label}/{number}.wav": folder.Annotation((label,), group=f"{label}{number // 4}")
        for label, num_clips in (("cat", 100), ("dog", 40))
        for number in range(num_clips)
    }
    dealt = folder.deal_folds(annotations, 5)
    counts = Counter((annotation.labels, annotation.fold) for annotation in dealt.values())
    assert {count for (labels, _), count in counts.items() if labels == ("cat",)} == {20}
    assert {count for (labels, _), count in counts.items() if labels == ("dog",)} == {8}
    assert len({(annotation.group, annotation.fold) for annotation in dealt.values()}) == 35


def test_folds_do_not_depend_on_the_order_of_the_recordings():
    annotations = {f"{number}.wav": folder.Annotation((str(number % 3),)) for number in range(50)}
    backwards = dict(reversed(annotations.items()))
    assert folder.deal_folds(annotations, 4) == folder.deal_folds(backwards, 4)


def test_a_real_tree(audio_folder):
    root = Path(audio_folder, "esc10")
    paths = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.ogg"))
    found = clips(params("folders", num_folds=5), root, paths)
    assert len({clip.id for clip in found.values()}) == 400
    assert set(Counter((clip.labels, clip.fold) for clip in found.values()).values()) == {8}
    by_table = clips(params("labels.csv"), root, paths)
    assert set(Counter(clip.fold for clip in by_table.values()).values()) == {80}
