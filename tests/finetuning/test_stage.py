"""The whole stage, on three folds of a tiny dataset."""

import json

import numpy as np
import pytest

import matpac
from matpac.digests import SAME_CONTENT, known, read_digests
from matpac.finetuning import stage
from matpac.finetuning.scores import read_finetuned, score_table
from matpac.finetuning.stage import finetune_stage
from matpac.shards.folder import ShardFolder
from tests.recordings import digests

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def params(params):
    finetune = params.finetune.model_copy(update={"num_epochs": 8, "batch_size": 8})
    return params.model_copy(update={"finetune": finetune})


@pytest.fixture(scope="module")
def finetuned(shards, checkpoint, params, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finetuned")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        finetune_stage(shards, checkpoint, folder / "data/finetuned/tones", params)
    return folder / "data/finetuned"


def test_the_result_is_a_classifier_with_its_scores(finetuned):
    [found] = read_finetuned(finetuned, ["tones", "others"]).values()
    scores = found["scores"]
    assert (scores["metric"], scores["protocol"]) == ("accuracy", "3-fold")
    assert np.shape(scores["folds"]) == (2, 3)
    assert scores["mean"] == pytest.approx(np.mean(scores["folds"]))
    assert scores["mean"] > 0.7
    classifier = matpac.load_classifier(finetuned / "tones")
    assert classifier.classes == ("even", "odd")
    assert classifier.scores == scores
    seconds = np.arange(8_000) / 16_000
    random = np.random.default_rng(5)
    noise = random.normal(scale=0.1, size=(2, 8_000))
    sounds = noise + 0.3 * np.array([[0], [1]]) * np.sin(2 * np.pi * 1_000 * seconds)
    probabilities = classifier.predict(sounds.astype(np.float32), 16_000)
    assert probabilities.argmax(1).tolist() == [0, 1]
    assert "tones  accuracy, 3-fold" in score_table(finetuned, ["tones"])


def test_its_encoder_has_learned_from_the_clips_that_it_was_fine_tuned_on(finetuned, shards, checkpoint):
    learned = read_digests(finetuned / "tones")
    assert (known(ShardFolder(shards).recordings().table, learned.table) == SAME_CONTENT).all()
    assert learned.unknown == (checkpoint.name,), "the checkpoint has no list"


def test_nothing_unfinished_is_left(finetuned):
    work = finetuned.parent / ".work/finetune"
    assert [path.name for path in work.rglob("*")] == ["tones.lock"]


def test_killed_between_fits_it_goes_on_with_the_next(
    finetuned, shards, checkpoint, params, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    done = []
    train = stage.train_

    def train_two(learner, *others):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(learner.plan.name)
        train(learner, *others)

    monkeypatch.setattr(stage, "train_", train_two)
    with pytest.raises(KeyboardInterrupt):
        finetune_stage(shards, checkpoint, tmp_path / "tones", params)
    assert done == ["repeat-1-fold-1", "repeat-1-fold-2"]
    assert not (tmp_path / "tones").exists()
    monkeypatch.setattr(stage, "train_", train)
    finetune_stage(shards, checkpoint, tmp_path / "tones", params)
    assert digests(tmp_path / "tones") == digests(finetuned / "tones")


def test_several_processes_share_the_fits(finetuned, shards, checkpoint, params, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    out = tmp_path / "tones"
    monkeypatch.setenv("RANK", "1")
    finetune_stage(shards, checkpoint, out, params)
    assert len(list(tmp_path.glob("data/.work/finetune/tones/*/repeat-*.safetensors"))) == 6
    assert not out.exists()
    monkeypatch.setenv("RANK", "0")
    finetune_stage(shards, checkpoint, out, params)
    assert json.loads((out / "classifier.json").read_text()) == json.loads(
        (finetuned / "tones/classifier.json").read_text()
    )
