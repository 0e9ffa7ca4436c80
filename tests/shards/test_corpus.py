import json

import pytest

from matpac.shards.corpus import fingerprint, read_corpus, write_corpus
from tests.files import flip_a_bit
from tests.recordings import build, plan_of, write_recordings


@pytest.fixture
def shards(tmp_path):
    for name, duration_s in (("first", 0.5), ("second", 0.7)):
        write_recordings(tmp_path / name, [duration_s] * 3)
        build(plan_of(tmp_path / name, tmp_path / f"work-{name}"), tmp_path / "shards" / name)
    return tmp_path / "shards"


def test_the_corpus_names_what_pre_training_reads_and_nothing_else(shards, tmp_path):
    write_corpus(shards, ["first"], ["second"], tmp_path / "corpus.json")
    corpus = read_corpus(shards, ["first"], ["second"], tmp_path / "corpus.json")
    assert corpus == {"first": fingerprint(shards / "first")}
    written = json.loads((tmp_path / "corpus.json").read_text())
    assert written == {"datasets": corpus, "online": {"second": fingerprint(shards / "second")}}
    assert fingerprint(shards / "first") != fingerprint(shards / "second")


def test_other_datasets_than_the_corpus_names_are_refused(shards, tmp_path):
    write_corpus(shards, ["first"], ["second"], tmp_path / "corpus.json")
    with pytest.raises(ValueError, match=r"need the corpus of first, second .* found another"):
        read_corpus(shards, ["first", "second"], [], tmp_path / "corpus.json")


def test_a_dataset_without_shards_is_named(shards, tmp_path):
    with pytest.raises(ValueError, match=r"third: need finished shards"):
        write_corpus(shards, ["first"], ["third"], tmp_path / "corpus.json")


def test_a_damaged_description_is_named_and_damaged_frames_are_left_to_verify(shards):
    before = fingerprint(shards / "first")
    flip_a_bit(shards / "first/shard-000000.tar")
    assert fingerprint(shards / "first") == before
    flip_a_bit(shards / "first/statistics.json")
    with pytest.raises(ValueError, match=r"found other bytes in statistics\.json.*shards@first"):
        fingerprint(shards / "first")
