import io
import json

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from matpac.datasets.inventory import read_bytes, read_recordings, take_inventory, write_recordings
from matpac.datasets.own import labels, parquet
from matpac.params import Parquet


def params(labels="label", **changes) -> Parquet:
    fields = {"multi_label": False, "num_folds": 3, "split_fractions": None} | changes
    return Parquet(kind="parquet", source=".", labels=labels, **fields)


def flac(seed):
    samples = np.random.default_rng(seed).normal(scale=0.1, size=1600)
    file = io.BytesIO()
    soundfile.write(file, samples, 16000, format="FLAC")
    return file.getvalue()


def write_rows(root, **columns):
    """As Hugging Face writes audio: a struct of bytes and path, beside the other columns."""
    num_rows = len(next(iter(columns.values())))
    cells = [{"bytes": flac(number), "path": f"{number}.flac"} for number in range(num_rows)]
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"audio": pa.array(cells, struct), **columns})
    pa.parquet.write_table(table, root / "train-00000-of-00001.parquet", row_group_size=5)


def clips_of(params, root):
    """Through the table of recordings, as it is in the pipeline."""
    write_recordings(root, take_inventory(root, ("parquet",)))
    recordings = list(read_recordings(root))
    clips = list(parquet.clips(params, root, recordings))
    assert [clip.path for clip in clips] == [recording.path for recording in recordings]
    return clips


def test_labels_splits_and_groups_come_from_columns(tmp_path):
    write_rows(
        tmp_path,
        label=pa.array([0, 1, 1, None], pa.int8()),
        split=["train", "validation", "test", None],
        group=pa.array([1, 2, None, None], pa.float64()),
    )
    clips = clips_of(params(), tmp_path)
    assert [clip.labels for clip in clips] == [("0",), ("1",), ("1",), ()]
    assert [clip.split for clip in clips] == ["train", "validation", "test", None]
    assert [clip.group for clip in clips] == ["1", "2", None, None]
    assert clips[2].id.startswith("train-00000-of-00001_parquet_2-")
    assert labels.task(params(), tmp_path, {"0", "1"}, None).classes == ("0", "1")


def test_lists_are_several_labels_and_are_dealt_into_folds(tmp_path):
    write_rows(tmp_path, tags=[["a", "b"], ["b"], [], None, ["a"], ["b", "a"]])
    clips = clips_of(params("tags", multi_label=True), tmp_path)
    assert [clip.labels for clip in clips] == [("a", "b"), ("b",), (), (), ("a",), ("b", "a")]
    assert [clip.fold is None for clip in clips] == [False, False, False, True, False, False]
    assert {clip.fold for clip in clips} == {1, 2, 3, None}


def test_a_column_that_is_not_there_is_named(tmp_path):
    write_rows(tmp_path, category=["cat", "dog"])
    with pytest.raises(ValueError, match=r"labels: label: need .* the first one has {.category.: .cat."):
        clips_of(params("label"), tmp_path)
    assert [clip.labels for clip in clips_of(params("none"), tmp_path)] == [(), ()]


def test_the_sound_of_a_row_can_be_decoded(tmp_path):
    write_rows(tmp_path, label=["cat"] * 12)
    for number, recording in enumerate(take_inventory(tmp_path, ("parquet",))):
        samples, rate_hz = soundfile.read(io.BytesIO(read_bytes(tmp_path, recording)))
        expected = np.random.default_rng(number).normal(scale=0.1, size=1600)
        assert rate_hz == 16000
        np.testing.assert_allclose(samples, expected, atol=2**-15)


def named_classes(**features):
    """The note of Hugging Face's `datasets` in a schema."""
    return {"huggingface": json.dumps({"info": {"features": features}})}


def cached(table):
    content = io.BytesIO()
    with pa.ipc.new_stream(content, table.schema) as file:
        file.write_table(table)
    return content.getvalue()


@pytest.mark.parametrize("write", ["parquet", "stream", "file"])
def test_numbers_of_classes_become_their_names(tmp_path, write):
    names = {"names": ["wren", "robin"], "_type": "ClassLabel"}
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = [{"bytes": flac(number), "path": None} for number in range(20)]
    table = pa.table(
        {
            "audio": pa.array(cells, struct),
            "species": pa.array([-1, 0, 1, None] * 5, pa.int64()),
            "heard": [[0, 1], [], [1], None] * 5,
        }
    ).replace_schema_metadata(named_classes(species=names, heard={"feature": names, "_type": "Sequence"}))
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        if write == "parquet":
            pa.parquet.write_table(table, tmp_path / split / "0.parquet")
            continue
        # Left by `datasets.Dataset.map`.
        (tmp_path / split / "cache-0a1b.arrow").write_bytes(cached(table))
        new = pa.ipc.new_stream if write == "stream" else pa.ipc.new_file
        with new(tmp_path / split / "data-00000-of-00001.arrow", table.schema) as file:
            file.write_table(table, max_chunksize=7)
    recordings = list(take_inventory(tmp_path, ("parquet",)))
    abouts = [json.loads(recording.about) for recording in recordings]
    assert [about["species"] for about in abouts] == [None, "wren", "robin", None] * 10
    assert [about["heard"] for about in abouts] == [["wren", "robin"], [], ["robin"], None] * 10
    for number in (39, 3, 4, 18, 0, 27):
        assert read_bytes(tmp_path, recordings[number]) == flac(number % 20)


def test_rows_before_a_damage_of_an_arrow_file_are_used(tmp_path):
    table = pa.table({"audio": [flac(number) for number in range(20)]})
    path = tmp_path / "data-00000-of-00001.arrow"
    with pa.ipc.new_stream(path, table.schema) as file:
        file.write_table(table, max_chunksize=5)
    path.write_bytes(path.read_bytes()[: -path.stat().st_size // 3])
    *whole, rest = take_inventory(tmp_path, ("parquet",))
    assert (len(whole), rest.path, rest.sha256) == (10, path.name, "")
    assert read_bytes(tmp_path, whole[-1]) == flac(9)
