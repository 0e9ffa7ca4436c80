from pathlib import Path

import pytest

from matpac.files import read_json, write_json
from matpac.params import BEFORE
from matpac.training.checkpoint import Meta, load_networks, read_meta
from tests.probing.conftest import untrained_checkpoint


def test_a_checkpoint_that_is_older_than_a_key_did_what_was_done_before(tmp_path):
    folder = untrained_checkpoint(tmp_path)
    new = read_meta(folder)
    raw = read_json(folder / "meta.json")
    for key in BEFORE:
        del raw["pretrain"][key]
    write_json(folder / "meta.json", raw)
    assert read_meta(folder) == new
    assert load_networks(folder).standardize_targets is False


def test_another_format_is_one_line_that_names_the_file():
    with pytest.raises(ValueError, match=r"^old: need checkpoint format 2, got 1$"):
        Meta.from_json({"format": 1}, Path("old"))
