"""Clips of two pitches: an encoder places those of one label near each other."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from matpac.clip import Clip, Task
from matpac.model.pretext import Pretext
from matpac.model.sizes import Size
from matpac.params import Online
from matpac.prepare.plan import plan_shards
from matpac.prepare.workspace import Workspace
from matpac.training.online import OnlineProbe, nearest_label
from matpac.weights.checkpoint import Standard
from tests.recordings import LOGMEL, build, recording_of, shards_params

NANO = Size(16, 1, 2, 16, 1, 2, 16, 8)
HERTZ = {"low": 200, "high": 4000}
PARAMS = Online(dataset="tones", every_updates=20, num_clips=100, k=3)


def write_tones(root: Path, *, num_folds: int | None, multi_label: bool = False) -> Path:
    """Low and high tones of 0.4 to 0.8 s, eight in every fold or split."""
    clips = []
    (root / "audio").mkdir(parents=True)
    for number in range(24):
        part, label = number // 8, ("low", "high")[number % 2]
        time_s = np.arange(int(16000 * (0.4 + 0.2 * (number % 3)))) / 16000
        noise = np.random.default_rng(number).normal(scale=0.01, size=len(time_s))
        tone = 0.3 * np.sin(2 * np.pi * HERTZ[label] * time_s) + noise
        soundfile.write(root / f"audio/{number}.wav", tone, 16000)
        split = None if num_folds else ("train", "validation", "test")[part]
        fold = part + 1 if num_folds else None
        clips.append(Clip(f"c{number}", f"{number}.wav", labels=(label,), split=split, fold=fold))
    recordings = [recording_of(root / "audio", clip.path) for clip in clips]
    task = Task(("low", "high"), multi_label, "mAP" if multi_label else "accuracy", num_folds)
    workspace = Workspace(root / "work")
    plan = plan_shards(clips, recordings, root / "audio", workspace, lambda _: task, LOGMEL, shards_params())
    build(plan, root / "shards")
    return root / "shards"


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    return write_tones(tmp_path_factory.mktemp("tones"), num_folds=None)


@pytest.fixture
def pretext():
    pretext = Pretext(
        NANO, num_mels=16, crop_frames=64, num_clusters=8, num_hypotheses=1, center_momentum=0.9
    )
    pretext.initialize_(torch.Generator().manual_seed(1))
    return pretext


def probe_of(shards, **changed):
    return OnlineProbe(
        shards, PARAMS.model_copy(update=changed), Standard(mean=-7.0, std=4.0), crop_frames=64
    )


def test_tones_are_told_apart_by_their_neighbours(tones, pretext):
    row = probe_of(tones).evaluate(pretext, 7)
    assert row["step"] == 7
    assert row["knn_accuracy"] == 1
    assert 1 < row["rankme"] < 8
    assert 0 < row["variance_least"] <= row["variance_median"] <= row["variance_most"]


def test_two_evaluations_are_the_same_and_draw_nothing(tones, pretext):
    before = {name: value.clone() for name, value in pretext.state_dict().items()}
    random = torch.get_rng_state()
    first, second = (probe_of(tones, num_clips=6).evaluate(pretext, 0) for _ in range(2))
    assert first | {"seconds": 0} == second | {"seconds": 0}
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in pretext.state_dict().items())
    assert all(weight.grad is None for weight in pretext.parameters())


def test_clips_of_the_test_split_are_never_read(tones):
    probe = probe_of(tones)
    assert len(probe.train.labels) == len(probe.validation.labels) == 8
    read = {clip.tobytes() for part in (probe.train, probe.validation) for clip in part.log_mel}
    assert len(read) == 16


def test_of_folds_the_second_validates_and_the_first_is_left_out(tmp_path, pretext):
    folded = probe_of(write_tones(tmp_path, num_folds=3))
    assert len(folded.train.labels) == len(folded.validation.labels) == 8
    assert folded.evaluate(pretext, 0)["knn_accuracy"] == 1


def test_frames_after_the_end_of_a_clip_are_in_no_mean(tones, pretext):
    """With an encoder that keeps patches apart, so that no latent depends on another patch."""
    probe = probe_of(tones)
    pretext.student_encoder = torch.nn.Identity()
    expected = probe.embeddings(pretext, probe.validation)
    for log_mel, length in zip(probe.validation.log_mel, probe.validation.num_frames, strict=True):
        log_mel[-(-length // 16) * 16 :] = 9.0
    assert probe.validation.num_frames.min() < 48
    assert torch.equal(probe.embeddings(pretext, probe.validation), expected)


def test_a_set_with_several_labels_a_clip_is_refused(tmp_path):
    shards = write_tones(tmp_path, num_folds=None, multi_label=True)
    with pytest.raises(ValueError, match=r"^online.dataset: need a dataset whose clips have one label each"):
        probe_of(shards)


def test_fewer_clips_than_vote_are_refused(tones):
    with pytest.raises(ValueError, match=r"need at least 9 clips of the train split.*found 8 in shards"):
        probe_of(tones, k=9)


def test_the_nearer_clips_have_the_larger_vote():
    memory = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.1, 1.0], [-1.1, -2.0]])
    labels = torch.tensor([2, 0, 0, 1])
    query = torch.tensor([[1.0, 0.1]])
    assert nearest_label(query, memory, labels, 1).item() == 2
    assert nearest_label(query, memory, labels, 3).item() == 2, "two far ones do not outvote it"
    votes_of_two_near = nearest_label(torch.tensor([[0.05, 1.0]]), memory, labels, 4)
    assert votes_of_two_near.item() == 0
