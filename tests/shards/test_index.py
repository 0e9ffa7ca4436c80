from dataclasses import fields

import numpy as np
import pytest

from matpac.clip import Clip
from matpac.shards.index import ABOUT, CLIP_COLUMNS, Index, IndexWriter, table_of, write_index


def rows(number, prefix="a"):
    return [
        {
            "id": f"{prefix}{clip}",
            "shard": clip // 2,
            "offset": 640 * clip,
            "num_frames": 10 + clip,
            "labels": [],
        }
        for clip in range(number)
    ]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "index.parquet"
    writer = IndexWriter(path)
    writer.add(rows(5)[:3])
    writer.add(rows(5)[3:])
    writer.close()
    return path


def test_an_index_has_the_rows_that_were_added(path):
    index = Index(path)
    assert len(index) == 5
    assert index.shard.tolist() == [0, 0, 1, 1, 2]
    assert index.offset.tolist() == [0, 640, 1280, 1920, 2560]
    assert index.num_frames.tolist() == [10, 11, 12, 13, 14]
    assert index.table.equals(table_of(rows(5)))


def test_ids_come_in_the_order_of_the_question(path):
    assert Index(path).ids_of(np.array([4, 0, 4])) == ["a4", "a0", "a4"]


def test_an_open_index_stays_what_it_was(path):
    index = Index(path)
    write_index(path, table_of(rows(3, prefix="new")))
    assert index.column("id") == ["a0", "a1", "a2", "a3", "a4"]
    assert Index(path).column("id") == ["new0", "new1", "new2"]


def test_every_field_of_a_clip_has_a_column():
    assert list(CLIP_COLUMNS) == [field.name for field in fields(Clip)]
    assert set(ABOUT) == set(CLIP_COLUMNS) - {"id"}
