"""A shard folder whose descriptions are damaged says which file, which key, and how it is made again."""

import pytest

from matpac.files import read_json, write_json
from matpac.shards.folder import ShardFolder, read_task
from matpac.shards.index import table_of, write_index
from tests.recordings import LOGMEL


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "birds"
    write_index(folder / "index.parquet", table_of([{"id": "a", "shard": 0, "offset": 0, "num_frames": 9}]))
    write_json(folder / "logmel.json", LOGMEL.model_dump(mode="json"))
    sums = {"num_values": 144, "sum": -900.0, "sum_of_squares": 9000.0}
    write_json(folder / "statistics.json", {"mean": -6.25, **sums})
    classes = {"classes": ["wren"], "multi_label": False, "metric": "accuracy", "num_folds": None}
    write_json(folder / "task.json", classes)
    return folder


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("logmel.json", {"hop_ms": "10"}, "logmel.json: hop_ms: input should be a valid number, got '10'"),
        ("logmel.json", {"hop": 10}, "logmel.json: hop: unknown key"),
        ("statistics.json", {"num_values": 0}, "statistics.json: num_values: input should be greater than 0"),
        ("statistics.json", {"sum": float("nan")}, "statistics.json: sum: input should be a finite number"),
        ("statistics.json", {"sum": None}, "statistics.json: sum: input should be a valid number"),
    ],
)
def test_an_edited_description_is_named(folder, file, change, said):
    write_json(folder / file, read_json(folder / file) | change)
    with pytest.raises(ValueError, match="--force --single-item shards@birds`") as raised:
        ShardFolder(folder)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_edited_task_is_named(folder):
    assert read_task(folder).classes == ("wren",)
    write_json(folder / "task.json", read_json(folder / "task.json") | {"metric": "f1"})
    with pytest.raises(
        ValueError, match=r"task\.json: metric: input should be 'accuracy' or 'mAP', got 'f1'"
    ):
        read_task(folder)
    write_json(folder / "task.json", None)
    assert read_task(folder) is None


@pytest.mark.parametrize("damage", ["half", "empty", "text", "column", "kind"])
def test_a_damaged_index_is_named(folder, damage):
    path = folder / "index.parquet"
    whole, table = path.read_bytes(), table_of([])
    if damage == "column":
        write_index(path, table.drop_columns("offset"))
    elif damage == "kind":
        write_index(path, table.set_column(1, "shard", table["id"]))
    else:
        path.write_bytes({"half": whole[: len(whole) // 2], "empty": b"", "text": b"hello" * 40}[damage])
    said = (
        r"index\.parquet: (need a whole table|offset: need a column of int64, found none|shard: need a col)"
    )
    with pytest.raises(ValueError, match=said) as raised:
        ShardFolder(folder)
    assert "\n" not in str(raised.value)
    assert type(raised.value) is ValueError
