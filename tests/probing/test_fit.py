"""From recordings to a classifier: its scores are the probe's, and thresholds never see test clips."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

import matpac
from matpac.cli import app
from matpac.clip import Task
from matpac.params import Probe
from matpac.probing.fit import fit, held_out
from matpac.probing.probe import probe
from matpac.probing.scores import accuracy, average_precisions, confusion_matrix
from matpac.probing.store import EmbeddedClips, write_embeddings
from matpac.signal.recording import convert, whole_log_mel
from matpac.weights.open import open_checkpoint
from tests.classifiers import tiny_checkpoint

NUM_CLIPS, CLASSES = 36, ("low", "middle", "high")
PARAMS = Probe(
    datasets=(),
    num_repeats=2,
    batch_size=8,
    learning_rate=0.01,
    max_epochs=8,
    patience_epochs=4,
    score_on="test",
    pooling="mean",
    standardize=True,
    knn=None,
    attentive=None,
    seed=0,
)
PREDICT = """
import json, sys, numpy as np, soundfile, matpac
for folder, paths in json.loads(sys.argv[1]):
    classifier = matpac.load_classifier(folder, device="cpu")
    sounds = [soundfile.read(path) for path in paths]
    found = classifier.predict([samples.T for samples, _ in sounds], [rate for _, rate in sounds])
    print(json.dumps(found.tolist()))
"""


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Tones in noise, in stereo at three rates: classes that are hard to tell apart."""
    folder, random = tmp_path_factory.mktemp("recordings"), np.random.default_rng(0)
    paths = []
    for number in range(NUM_CLIPS):
        rate = (16_000, 22_050, 8_000)[number // 3 % 3]
        time = np.arange(int(rate * random.uniform(0.4, 1.5))) / rate
        pitch = 700 * 1.4 ** (number % 3) * random.uniform(0.8, 1.25)
        noise = random.normal(scale=0.05, size=(len(time), 2))
        paths.append(folder / f"{number:02}.wav")
        soundfile.write(paths[-1], noise + 0.1 * np.sin(2 * np.pi * pitch * time)[:, None], rate)
    return paths


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def embedded(recordings, checkpoint):
    """Embeddings of what shards hold."""
    encoder = matpac.load(checkpoint, device="cpu")
    front_end = encoder.logmel, encoder.mel_filters
    log_mels = [whole_log_mel(convert(path, *front_end).blocks) for path in recordings]
    return list(encoder.embed_log_mels_in_time(log_mels))


def clips_of(checkpoint, *, num_folds=3, multi_label=False):
    labels = np.eye(3, dtype=np.uint8)[np.arange(NUM_CLIPS) % 3]
    if multi_label:
        labels[:, 0] |= labels[:, 1]
    parts = ["train", "train", "validation", "test"]
    return EmbeddedClips(
        dataset="tones",
        checkpoint=open_checkpoint(checkpoint).digest,
        task=Task(CLASSES, multi_label, "mAP" if multi_label else "accuracy", num_folds),
        ids=[f"{number:02}" for number in range(NUM_CLIPS)],
        splits=[""] * NUM_CLIPS if num_folds else [parts[number // 3 % 4] for number in range(NUM_CLIPS)],
        folds=np.arange(NUM_CLIPS) // 3 % 3 + 1 if num_folds else np.zeros(NUM_CLIPS, dtype=np.int64),
        labels=labels,
        observed=np.ones_like(labels),
    )


def stored(folder, clips, embedded):
    random = np.random.default_rng(1).normal(size=(2, NUM_CLIPS, 4)).astype(np.float32)
    rows = {"pretrained": embedded, "random_init": embedded[::-1], "logmel_statistics": random[0]}
    write_embeddings(folder, clips, rows)
    return folder


def score_of(probabilities, clips, test):
    labels, observed = clips.labels[test], clips.observed[test]
    if clips.task.metric == "accuracy":
        return accuracy(confusion_matrix(probabilities, labels))
    return float(np.nanmean(average_precisions(probabilities, labels, observed)))


def predicted(folder, paths):
    classifier = matpac.load_classifier(folder, device="cpu")
    sounds = [soundfile.read(path) for path in paths]
    return classifier.predict([samples.T for samples, _ in sounds], [rate for _, rate in sounds])


@pytest.mark.parametrize(
    ("num_heads", "multi_label", "pooling"),
    [
        (None, False, "mean"),
        (None, False, "mean_and_deviation"),
        (4, False, "mean_and_deviation"),
        (None, True, "mean"),
    ],
    ids=["linear", "deviations", "attentive", "tags"],
)
def test_the_classifier_of_a_fold_scores_on_its_recordings_what_the_probe_reported(
    recordings, checkpoint, embedded, tmp_path, num_heads, multi_label, pooling
):
    clips = clips_of(checkpoint, multi_label=multi_label)
    store = stored(tmp_path / "tones", clips, embedded)
    params = PARAMS.model_copy(update={"attentive": num_heads, "pooling": pooling})
    probe("tones", store, tmp_path / "scores.json", params)
    details = json.loads((tmp_path / "scores.details.json").read_text())
    reported = details["second_reading"]["attentive"] if num_heads else details["features"]
    found = held_out(store, checkpoint, params, num_heads=num_heads)
    assert found.scores()["folds"] == reported["pretrained"]["scores"]
    for fit_of_fold in found.fits[:3]:  # The first repeat.
        test = found.folds[fit_of_fold.fold].test
        found.classifier_of(fit_of_fold).save_pretrained(tmp_path / "saved")
        probabilities = predicted(tmp_path / "saved", [recordings[clip] for clip in test])
        score = score_of(probabilities, clips, test)
        assert score == reported["pretrained"]["scores"][0][fit_of_fold.fold]
    assert 0.4 < np.mean(reported["pretrained"]["scores"]) < 1


@pytest.mark.slow
def test_so_does_it_in_a_fresh_process(recordings, checkpoint, embedded, tmp_path, project):
    clips = clips_of(checkpoint)
    store = stored(tmp_path / "tones", clips, embedded)
    found, jobs = held_out(store, checkpoint, PARAMS), []
    for fit_of_fold in found.fits[:3]:
        folder = tmp_path / str(fit_of_fold.fold)
        found.classifier_of(fit_of_fold).save_pretrained(folder)
        jobs.append((str(folder), [str(recordings[clip]) for clip in found.folds[fit_of_fold.fold].test]))
    done = subprocess.run(
        [sys.executable, "-c", PREDICT, json.dumps(jobs)],
        env=os.environ | {"PYTHONPATH": str(project)},
        capture_output=True,
        text=True,
        check=True,
    )
    scores = [
        score_of(np.array(json.loads(line)), clips, fold.test)
        for line, fold in zip(done.stdout.splitlines(), found.folds, strict=True)
    ]
    assert scores == found.scores()["folds"][0]


def test_neither_thresholds_nor_temperature_see_test_clips(checkpoint, embedded, tmp_path):
    clips = clips_of(checkpoint, num_folds=None)
    one = fit(stored(tmp_path / "tones", clips, embedded), checkpoint, PARAMS)
    test = np.flatnonzero(np.array(clips.splits) == "test")
    labels = clips.labels.copy()
    labels[test] = np.roll(labels[test], 1, axis=1)
    other = fit(
        stored(tmp_path / "rolled/tones", replace(clips, labels=labels), embedded), checkpoint, PARAMS
    )
    assert other.scores["mean"] != one.scores["mean"]
    assert other.scores["calibration_error"] != one.scores["calibration_error"]
    assert other.temperature == one.temperature
    np.testing.assert_array_equal(other.thresholds, one.thresholds)
    assert other.usual_distance == one.usual_distance
    # Only the last training reads them.
    assert other.origin == one.origin
    assert not np.array_equal(other.head.weight.detach(), one.head.weight.detach())


def test_the_last_training_takes_all_clips_for_the_median_of_the_best_epochs(checkpoint, embedded, tmp_path):
    clips = clips_of(checkpoint)
    store = stored(tmp_path / "tones", clips, embedded)
    best = [fit.best_epoch for fit in held_out(store, checkpoint, PARAMS).fits]
    classifier = fit(store, checkpoint, PARAMS)
    assert classifier.origin["num_epochs"] == round(np.median(best))
    assert classifier.origin["num_clips"] == NUM_CLIPS
    means = np.stack([one.mean for one in embedded])
    np.testing.assert_allclose(classifier.head.mean, means.mean(0), rtol=1e-4, atol=1e-5)
    assert len(classifier.references) == NUM_CLIPS


@pytest.mark.parametrize("num_heads", [None, 4])
def test_an_attentive_classifier_does_not_say_that_it_reads_deviations(
    checkpoint, embedded, tmp_path, num_heads
):
    store = stored(tmp_path / "tones", clips_of(checkpoint), embedded)
    params = PARAMS.model_copy(update={"pooling": "mean_and_deviation", "max_epochs": 1})
    card = str(fit(store, checkpoint, params, num_heads=num_heads).generate_model_card())
    assert ("mean_and_deviation" in card) == (num_heads is None)
    assert ("| pooling | mean and deviation |" in card) == (num_heads is None)


def test_embeddings_of_another_checkpoint_are_refused(checkpoint, embedded, tmp_path):
    clips = replace(clips_of(checkpoint), checkpoint="0" * 64)
    with pytest.raises(ValueError, match=r"tones: need embeddings of the encoder in .* \(00000000\.\.\.\)"):
        fit(stored(tmp_path / "tones", clips, embedded), checkpoint, PARAMS)


def test_the_command_writes_a_folder_that_is_whole(project, checkpoint, embedded, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stored(tmp_path / "data/embeddings/tones", clips_of(checkpoint), embedded)
    text = (project / "presets/demo.yaml").read_text()
    changed = text.replace("max_epochs: 500", "max_epochs: 5").replace("num_repeats: 5", "num_repeats: 2")
    (tmp_path / "params.yaml").write_text(changed)
    command = ["fit", "tones", "--checkpoint", str(checkpoint)]
    for _ in range(2):
        done = CliRunner().invoke(app, command, catch_exceptions=False)
        last = done.output.splitlines()[-1]
        assert last.startswith("data/classifiers/tones: 3 classes, "), done.output
    said = CliRunner().invoke(app, ["info", "data/classifiers/tones"], catch_exceptions=False).output
    assert re.search(r"^held out score +[\d.]+ ± [\d.]+ % accuracy \(3-fold\)$", said, re.MULTILINE)
    assert re.search(r"^classes +low, middle, high$", said, re.MULTILINE)
    assert re.search(r"^embedding dim +16$", said, re.MULTILINE)
    assert matpac.load_classifier("data/classifiers/tones").classes == CLASSES
    assert [path.name for path in (tmp_path / "data/classifiers").iterdir()] == ["tones"]
    (tmp_path / "taken").mkdir()
    with pytest.raises(ValueError, match=r"^--out: need a new name .*, found something else at taken$"):
        CliRunner().invoke(app, [*command, "--out", "taken"], catch_exceptions=False)
