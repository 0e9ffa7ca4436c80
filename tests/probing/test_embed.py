"""Rows of an index -> labels for probes; the whole stage on shards of noise."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from matpac.clip import Task
from matpac.digests import Digests, digests, write_digests
from matpac.encoder.encoder import load_encoder
from matpac.files import seal, write_json
from matpac.params import Embed
from matpac.probing.embed import embed_stage, statistics
from matpac.probing.external import Located
from matpac.probing.folds import folds_of
from matpac.probing.heard import heard_in_words, heard_of
from matpac.probing.held_out import scores_of
from matpac.probing.labelled import annotated, check_front_end
from matpac.probing.scores import Fit
from matpac.probing.steps import Steps
from matpac.probing.store import FEATURES, read_clips, read_feature
from matpac.shards.folder import ShardFolder
from matpac.shards.index import SCHEMA, write_index
from matpac.shards.tar import StoredClip, tar_name, write_tar
from matpac.weights.released import PAPER_LOGMEL
from tests.checkpoints import untrained_checkpoint
from tests.recordings import LOGMEL

NOWHERE = Located(Path("no/inventory"), Path("no/recordings"))
"""Folders that do not exist: only other encoders read recordings."""
PARAMS = Embed(precision="float32", batch_size=4, over_time=False, others={})
TAGS = Task(classes=("drums", "flute", "voice"), multi_label=True, metric="mAP", num_folds=None)


def test_shards_of_another_front_end_are_refused_by_field():
    other = PAPER_LOGMEL.model_copy(update={"num_mels": 64})
    with pytest.raises(ValueError, match=r"^logmel.num_mels: the checkpoint was trained with 80"):
        check_front_end(other, PAPER_LOGMEL, Path("shards"))
    check_front_end(PAPER_LOGMEL, PAPER_LOGMEL, Path("shards"))


def rows(*annotations, split="train"):
    return pa.table(
        {
            "id": [f"clip{number}" for number in range(len(annotations))],
            "split": pa.array([split] * len(annotations), pa.string()),
            "fold": pa.array([None] * len(annotations), pa.int32()),
            "labels": pa.array([list(present) for present, _ in annotations], pa.list_(pa.string())),
            "absent": pa.array([absent for _, absent in annotations], pa.list_(pa.string())),
        }
    )


def test_labels_neither_present_nor_absent_were_not_observed():
    clips = annotated(
        rows(
            (["flute"], None), ([], None), (["flute"], ["drums"]), (["voice"], []), ([], ["drums", "voice"])
        ),
        TAGS,
        "openmic",
        "abc",
    )
    assert clips.labels.tolist() == [[0, 1, 0], [0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]
    assert clips.observed.tolist() == [[1, 1, 1], [1, 1, 1], [1, 1, 0], [0, 0, 1], [1, 0, 1]]
    assert clips.ids[2] == "clip2"


@pytest.mark.parametrize("annotation", [(["drums", "banjo"], None), (["drums"], ["banjo"])])
def test_a_label_that_is_no_class_is_refused_by_clip(annotation):
    with pytest.raises(ValueError, match=r"^openmic: .* got 'banjo' for clip1$"):
        annotated(rows((["flute"], None), annotation), TAGS, "openmic", "abc")


def test_a_label_cannot_be_present_and_absent():
    with pytest.raises(ValueError, match=r"^openmic: clip0: .* got 'drums' in both$"):
        annotated(rows((["drums"], ["voice", "drums"])), TAGS, "openmic", "abc")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return untrained_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def shards(tmp_path):
    """Nine labelled clips in three folds; clips 2 and 6 are in no fold."""
    folder, random = tmp_path / "birds", np.random.default_rng(0)
    log_mels = [random.normal(-7, 4, (40 + 20 * (n % 3), 16)).astype(np.float16) for n in range(9)]
    offsets = write_tar(folder / tar_name(0), [StoredClip(f"clip{n}", log_mels[n], {}) for n in range(9)])
    rows = [
        {"id": f"clip{n}", "shard": 0, "offset": offsets[n], "num_frames": len(log_mels[n])}
        | {"labels": ["odd" if n % 2 else "even"], "fold": None if n in (2, 6) else n % 3 + 1}
        for n in range(9)
    ]
    write_index(folder / "index.parquet", pa.Table.from_pylist(rows, SCHEMA))
    counts = {"num_clips": 9, "num_frames": 540, "num_rejected": {}, "duration_s": 5.4}
    sums = {"num_values": 8640, "sum": -60480.0, "sum_of_squares": 561600.0}
    write_json(folder / "statistics.json", {"mean": -7.0, "std": 4.0, **counts, **sums})
    write_json(folder / "logmel.json", LOGMEL.model_dump(mode="json"))
    write_task(folder, num_folds=3)
    return folder


def write_task(folder, num_folds):
    task = {"classes": ["even", "odd"], "multi_label": False, "metric": "accuracy", "num_folds": num_folds}
    write_json(folder / "task.json", task)
    seal(folder)


def test_clips_without_a_fold_are_not_embedded(shards, checkpoint, tmp_path):
    embed_stage(shards, NOWHERE, checkpoint, tmp_path / "embeddings", PARAMS)
    clips = read_clips(tmp_path / "embeddings")
    assert clips.ids == [f"clip{number}" for number in (0, 1, 3, 4, 5, 7, 8)]
    assert clips.folds.tolist() == [1, 2, 1, 2, 3, 2, 3]
    assert clips.labels.argmax(1).tolist() == [0, 1, 1, 0, 1, 1, 0]
    assert clips.observed.all()

    folder, encoder = ShardFolder(shards), load_encoder(checkpoint)
    log_mels = [folder.read_clip(clip) for clip in (0, 1, 3, 4, 5, 7, 8)]
    [ours, untrained, plain] = (read_feature(tmp_path / "embeddings", name) for name in FEATURES)
    assert np.array_equal(ours, np.stack(list(encoder.embed_log_mels(log_mels, batch_size=4))))
    assert np.array_equal(plain, np.stack([statistics(log_mel) for log_mel in log_mels]))
    assert ours.shape == untrained.shape
    assert not np.allclose(ours, untrained)


def test_steps_come_on_top_and_change_no_mean(shards, checkpoint, tmp_path):
    for over_time in (False, True):
        params = PARAMS.model_copy(update={"over_time": over_time})
        embed_stage(shards, NOWHERE, checkpoint, tmp_path / str(over_time), params)
    for name in FEATURES:
        without, with_steps = (read_feature(tmp_path / str(over_time), name) for over_time in (False, True))
        assert np.array_equal(without, with_steps)
    folder, encoder = ShardFolder(shards), load_encoder(checkpoint)
    steps, present = Steps(tmp_path / "True", "pretrained").padded(np.array([6, 0]))
    # 80 and 40 frames, 16 per step.
    assert present.sum(1).tolist() == [5, 3]
    for clip, found, here in zip((8, 0), steps, present, strict=True):
        [alone] = encoder.embed_log_mels_in_time([folder.read_clip(clip)])
        np.testing.assert_allclose(found[here], alone.steps, rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match=r"Set embed\.over_time: true"):
        Steps(tmp_path / "False", "pretrained")


def test_a_dataset_with_an_empty_split_is_refused_before_anything_is_embedded(shards, checkpoint, tmp_path):
    write_task(shards, num_folds=None)
    with pytest.raises(ValueError, match=r"^birds: need clips in the train split, found none"):
        embed_stage(shards, NOWHERE, checkpoint, tmp_path / "embeddings", PARAMS)
    assert not (tmp_path / "embeddings").exists()


def test_a_group_in_two_folds_is_refused_before_anything_is_embedded(shards, checkpoint, tmp_path):
    index = shards / "index.parquet"
    rows = pq.read_table(index).to_pylist()
    rows[0]["group"] = rows[1]["group"] = "rex"
    write_index(index, pa.Table.from_pylist(rows, SCHEMA))
    seal(shards)
    with pytest.raises(ValueError, match=r"^birds: .* found 'rex' in fold 1, fold 2 \(2 clips\)"):
        embed_stage(shards, NOWHERE, checkpoint, tmp_path / "embeddings", PARAMS)
    assert not (tmp_path / "embeddings").exists()


def test_an_id_in_two_folds_is_refused_before_anything_is_embedded(shards, checkpoint, tmp_path):
    index = shards / "index.parquet"
    rows = pq.read_table(index).to_pylist()
    rows[1]["id"] = rows[0]["id"]
    write_index(index, pa.Table.from_pylist(rows, SCHEMA))
    seal(shards)
    with pytest.raises(ValueError, match=r"^birds: need ids that occur once, got clip0 twice"):
        embed_stage(shards, NOWHERE, checkpoint, tmp_path / "embeddings", PARAMS)
    assert not (tmp_path / "embeddings").exists()


def test_test_clips_that_were_in_pre_training_are_said_and_kept(shards, checkpoint, tmp_path, capsys):
    learned = shutil.copytree(checkpoint, tmp_path / "pretrained")
    ids = pa.array(["clip0", "clip1", "clip2", "other"])
    write_digests(learned, Digests(digests("birds", ids, pa.nulls(4, pa.uint64())), ("released",)))
    embed_stage(shards, NOWHERE, learned, tmp_path / "embeddings", PARAMS)
    said = capsys.readouterr().err
    assert "Test clips that were in pre-training, without their labels: birds 2 of 7." in said
    assert "Not known what the initial weights learned from: released." in said
    clips = read_clips(tmp_path / "embeddings")
    assert clips.heard.tolist() == [1, 1, 0, 0, 0, 0, 0]
    heard = heard_of(clips, folds_of(clips))
    assert heard == {"heard": 2, "tested": 7, "unknown": ["released"]}
    assert scores_of(fits_of(clips), clips, folds_of(clips))["heard"] == heard


def test_a_clip_of_another_dataset_with_the_same_id_was_not_in_pre_training(shards, checkpoint, tmp_path):
    learned = shutil.copytree(checkpoint, tmp_path / "pretrained")
    write_digests(
        learned, Digests(digests("frogs", pa.array(["clip0", "clip1"]), pa.array([1, 2], pa.uint64())))
    )
    embed_stage(shards, NOWHERE, learned, tmp_path / "embeddings", PARAMS)
    assert read_clips(tmp_path / "embeddings").heard.tolist() == [0] * 7


def fits_of(clips):
    """Two repeats of probes that answer at random."""
    random = np.random.default_rng(0)
    return [
        Fit(repeat, number, [1.0], [1.0], 1, {}, *(random.normal(size=(len(part), 2)) for part in fold[1:]))
        for repeat in range(2)
        for number, fold in enumerate(folds_of(clips))
    ]


def test_of_a_checkpoint_without_a_list_nothing_is_known(shards, checkpoint, tmp_path, capsys):
    embed_stage(shards, NOWHERE, checkpoint, tmp_path / "embeddings", PARAMS)
    assert "Not known whether test clips were in pre-training: birds." in capsys.readouterr().err
    clips = read_clips(tmp_path / "embeddings")
    assert clips.heard is None
    assert heard_of(clips, folds_of(clips)) is None


def test_the_sentences_name_each_dataset_once():
    nothing = {"heard": 0, "tested": 9, "unknown": []}
    assert heard_in_words({"frogs": nothing}) == []
    assert heard_in_words(
        {"a": nothing | {"heard": 9}, "b": nothing, "c": nothing | {"heard": 1}, "d": None}
    ) == [
        "Test clips that were in pre-training, without their labels: a 9 of 9, c 1 of 9.",
        "Not known whether test clips were in pre-training: d.",
    ]
