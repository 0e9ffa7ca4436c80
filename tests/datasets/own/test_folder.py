import json
from collections import Counter

import pyarrow as pa
import pytest
from pyarrow import parquet

from matpac.datasets.inventory import Recording
from matpac.datasets.own import folder, labels
from matpac.params import Folder
from matpac.walk import audio_files

PATHS = ["cat/a.wav", "cat/b.wav", "dog/a.wav", "dog/b.wav", "loose.wav"]


def params(labels, *, multi_label=False, num_folds=3, split_fractions=None, splits="auto") -> Folder:
    return Folder(
        kind="folder",
        source=".",
        labels=labels,
        multi_label=multi_label,
        splits=splits,
        num_folds=num_folds,
        split_fractions=split_fractions,
    )


def clips(params, root, paths=PATHS):
    recordings = [Recording(path, 1, f"{number:064x}", path) for number, path in enumerate(paths)]
    found = list(folder.clips(params, root, recordings))
    assert [clip.path for clip in found] == list(paths)
    return {clip.path: clip for clip in found}


def task(params, root, clips):
    found = {label for clip in clips.values() for label in clip.labels}
    folds = [clip.fold for clip in clips.values() if clip.fold is not None]
    return labels.task(params, root, found, max(folds, default=None))


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
    assert task(params("none"), tmp_path, found) is None


def test_the_innermost_folder_is_the_class_and_loose_files_are_unlabelled(tmp_path):
    found = clips(params("folders"), tmp_path, [*PATHS, "park/dog/c.wav"])
    assert found["park/dog/c.wav"].labels == ("dog",)
    assert (found["loose.wav"].labels, found["loose.wav"].fold) == ((), None)
    asked = task(params("folders"), tmp_path, found)
    assert (asked.classes, asked.metric, asked.num_folds) == (("cat", "dog"), "accuracy", 3)


def test_the_outermost_folder_may_be_the_split(tmp_path):
    paths = [f"{split}/{name}/1.wav" for split in ("train", "Val", "test") for name in ("cat", "dog")]
    found = clips(params("folders"), tmp_path, paths)
    assert [found[path].split for path in paths[::2]] == ["train", "validation", "test"]
    assert {clip.labels[0] for clip in found.values()} == {"cat", "dog"}
    assert task(params("folders"), tmp_path, found).num_folds is None


def test_a_missing_split_is_named(tmp_path):
    paths = ["train/cat/1.wav", "train/dog/1.wav", "val/dog/1.wav"]
    with pytest.raises(ValueError, match=r"found 2 train, 1 validation\. With `splits: none` all"):
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
    asked = task(params("labels.csv", multi_label=True), root, found)
    assert (asked.classes, asked.metric, asked.num_folds) == (("cat", "dog", "rain"), "mAP", 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file;class\n", r"need columns path \(or file_name\) and label .* found file;class"),
        ("", "found nothing"),
        ("path,label\ncat/x.wav,cat\n", r"found 1 that do not: cat/x.wav \(line 2\)"),
        ("path,label\ncat/a.wav,cat\ncat/a.wav,dog\n", "line 3: need one row per recording"),
        ("path,label\ncat/a.wav,\n", "line 2: need a label"),
        ("path,label,split\ncat/a.wav,cat,later\n", "need train, validation or test, got later"),
        ("path,label,fold\ncat/a.wav,cat,one\n", "need a whole number, got one"),
        ("path,label,split,fold\ncat/a.wav,cat,test,1\n", "need a split or a fold, got both"),
        ("path,label,fold\ncat/a.wav,cat,1\ncat/b.wav,cat,\n", "at least 3 folds, found 1 folds"),
        ("path,label\n", "need recordings with a label, found none"),
        ("path,label\n\n" + 'cat/a.wav,"two\nlines"\ncat/b.wav,\n', "line 5: need a label"),
        ("path,label\n" + "".join(f"{number}.wav,cat\n" for number in range(5)), r"found 5 that .*\.\.\."),
    ],
)
def test_a_wrong_table_is_refused_with_the_place(table, text, message):
    with pytest.raises(ValueError, match=message):
        clips(params("labels.csv"), table(text))


def test_a_parquet_table_gives_lists_and_numbers(tmp_path):
    table = pa.table(
        {
            "path": PATHS[:4],
            "label": [["cat", "rain"], [], None, ["dog"]],
            "fold": [1.0, 2.0, 3.0, 1.0],
            "group": pa.array([7, None, None, 8], pa.int64()),
            "remark": ["x"] * 4,
        }
    )
    parquet.write_table(table, tmp_path / "labels.parquet")
    found = clips(params("labels.parquet", multi_label=True), tmp_path)
    assert [found[path].labels for path in PATHS] == [("cat", "rain"), (), (), ("dog",), ()]
    assert [found[path].fold for path in PATHS] == [1, 2, 3, 1, None]
    assert [found[path].group for path in PATHS] == ["7", None, None, "8", None]
    with pytest.raises(ValueError, match=r"labels.parquet, row 1: need a label, found 2: set multi_label"):
        clips(params("labels.parquet"), tmp_path)


def test_tables_that_cannot_be_read_are_refused_by_name(tmp_path):
    (tmp_path / "latin.csv").write_bytes("path,label\na.wav,Täubchen\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin.csv, line 2, byte 8: need text in UTF-8, found b'\\xe4'"):
        clips(params("latin.csv"), tmp_path)
    (tmp_path / "no.parquet").write_bytes(b"path,label\n")
    with pytest.raises(ValueError, match=r"no.parquet: cannot be read"):
        clips(params("no.parquet"), tmp_path)


def test_the_table_is_what_the_labels_depend_on(table):
    root = table("path,label\ncat/a.wav,cat\n")
    assert folder.tables(params("labels.csv"), root) == [root / "labels.csv"]
    assert folder.tables(params("folders"), root) == folder.tables(params("none"), root) == []


def test_fractions_give_splits_and_keep_groups_whole(table):
    paths = [f"{label}/{number}.wav" for label in ("cat", "dog") for number in range(40)]
    rows = "".join(f"{path},{path[:3]},{path[:3]}{number // 2}\n" for number, path in enumerate(paths))
    root = table(f"path,label,group\n{rows}")
    fractions = {"validation": 0.1, "test": 0.2}
    by_fractions = params("labels.csv", num_folds=None, split_fractions=fractions)
    found = clips(by_fractions, root, [*paths, "loose.wav"])
    counts = Counter((clip.labels, clip.split) for clip in found.values())
    for label in ("cat", "dog"):
        assert [counts[(label,), split] for split in ("train", "validation", "test")] == [28, 4, 8]
    assert counts[(), None] == 1
    assert len({(clip.group, clip.split) for clip in found.values() if clip.labels}) == 40
    assert task(by_fractions, root, found).num_folds is None


def test_a_missing_table_and_missing_folds_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"found no tags.csv"):
        clips(params("tags.csv"), tmp_path)
    with pytest.raises(ValueError, match=r"need num_folds or split_fractions in params.yaml"):
        clips(params("folders", num_folds=None), tmp_path)


def test_one_class_is_no_task(tmp_path):
    found = clips(params("folders"), tmp_path, [f"cat/{name}.wav" for name in "abcde"])
    with pytest.raises(ValueError, match="at least two classes, found 1"):
        task(params("folders"), tmp_path, found)


def test_a_real_tree(audio_folder):
    root = audio_folder / "esc10"
    paths = audio_files(root)
    found = clips(params("folders", num_folds=5), root, paths)
    assert len({clip.id for clip in found.values()}) == 400
    assert set(Counter((clip.labels, clip.fold) for clip in found.values()).values()) == {8}
    by_table = clips(params("labels.csv"), root, paths)
    assert set(Counter(clip.fold for clip in by_table.values()).values()) == {80}


def test_fewer_groups_than_folds_are_refused(tmp_path):
    with pytest.raises(ValueError, match="need 3 groups of labelled clips at least, found 2"):
        clips(params("folders", num_folds=3), tmp_path, ["cat/a.wav", "dog/b.wav"])


def write_metadata(folder, name, rows):
    """As Hugging Face's audiofolder keeps labels: `file_name` is relative to the table's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    if name.endswith(".jsonl"):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return
    lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
    (folder / name).write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
@pytest.mark.parametrize("where", ["root", "splits"])
def test_an_audiofolder_is_read_as_it_is(tmp_path, name, where):
    splits = ("train", "validation", "test")
    rows = [
        {"file_name": f"{split}/{number}.wav", "species": ("wren", "robin")[number]}
        for split in splits
        for number in range(2)
    ]
    paths = [row["file_name"] for row in rows]
    if where == "root":
        write_metadata(tmp_path, name, rows)
    else:
        for split in splits:
            own = [row for row in rows if row["file_name"].startswith(split)]
            write_metadata(
                tmp_path / split, name, [row | {"file_name": row["file_name"][-5:]} for row in own]
            )
    section = params(name).model_copy(update={"label_column": "species"})
    found = clips(section, tmp_path, paths)
    assert [clip.labels for clip in found.values()] == [("wren",), ("robin",)] * 3
    assert [clip.split for clip in found.values()] == [split for split in splits for _ in range(2)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            '{"file_name": "cat/a.wav", "label": "cat"}\n["cat"]',
            r"line 2: need a JSON object, found \[.cat.\]",
        ),
        (
            '{"file_name": "cat/a.wav", "species": "cat"}',
            "need columns path .or file_name. and label .* found file_name",
        ),
    ],
)
def test_wrong_json_lines_are_refused_with_the_place(tmp_path, line, message):
    (tmp_path / "metadata.jsonl").write_text(line)
    with pytest.raises(ValueError, match=message):
        clips(params("metadata.jsonl"), tmp_path)


def test_folders_that_differ_in_the_form_of_a_letter_are_one_class(tmp_path):
    found = clips(params("folders"), tmp_path, ["\u00e4/a.wav", "a\u0308/b.wav", "\u00e4/c.wav", "b/d.wav"])
    assert {clip.labels for clip in found.values()} == {("\u00e4",), ("b",)}
