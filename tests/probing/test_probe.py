import dataclasses
import json
import math

import numpy as np
import pytest

from matpac.clip import Task
from matpac.encoder.over_time import OverTime
from matpac.params import Probe
from matpac.probing.probe import probe
from matpac.probing.scores import DETAILS, beats_random_init, read_summaries, score_table
from matpac.probing.store import EmbeddedClips, write_embeddings

PARAMS = Probe(
    datasets=(),
    num_repeats=3,
    batch_size=16,
    learning_rate=0.05,
    max_epochs=40,
    patience_epochs=10,
    score_on="test",
    pooling="mean",
    standardize=False,
    knn=None,
    attentive=None,
    seed=0,
)


def toy(name, *, num_folds=None, multi_label=False, share_observed=1.0):
    """Embeddings that hold the label, and those of a random encoder, which do not."""
    random = np.random.default_rng(7)
    labels = np.eye(3, dtype=np.uint8)[np.arange(90) % 3]
    if multi_label:
        labels = random.integers(0, 2, (90, 3)).astype(np.uint8)
        labels[:, 2] = 0
        labels[0, 2] = 1
    noise = random.normal(size=(3, 90, 4)).astype(np.float32)
    seen = np.pad(2 * labels.astype(np.float32), ((0, 0), (0, 1)))
    observed = np.random.default_rng(8).random(labels.shape) < share_observed
    clips = EmbeddedClips(
        dataset=name,
        checkpoint="abc",
        task=Task(
            classes=("low", "middle", "high"),
            multi_label=multi_label,
            metric="mAP" if multi_label else "accuracy",
            num_folds=num_folds,
        ),
        ids=[str(index) for index in range(90)],
        splits=[""] * 90 if num_folds else ["train"] * 50 + ["validation"] * 20 + ["test"] * 20,
        folds=np.arange(90) // 3 % num_folds + 1 if num_folds else np.zeros(90, dtype=np.int64),
        labels=labels * observed.astype(np.uint8),
        observed=observed.astype(np.uint8),
    )
    features = {
        "pretrained": seen + 0.01 * noise[0],
        "random_init": noise[1],
        "logmel_statistics": noise[2, :, :2],
    }
    return clips, features


def probed(tmp_path, embedded):
    clips, features = embedded
    name = clips.dataset
    write_embeddings(tmp_path / "embeddings" / name, clips, features)
    probe(name, tmp_path / "embeddings" / name, tmp_path / "scores" / f"{name}.json", PARAMS)
    details = json.loads((tmp_path / "scores" / f"{name}.details.json").read_text())
    return details["summary"], details


def test_cross_validation_scores_every_clip_once_a_repeat(tmp_path):
    summary, details = probed(tmp_path, toy("voices", num_folds=5))
    assert summary["protocol"] == "5-fold"
    assert summary["pretrained"] == {"mean": 1.0, "interval": 0.0}
    assert summary["random_init"]["mean"] < 0.6
    assert beats_random_init(summary)
    confusion = np.array(details["features"]["random_init"]["confusion"])
    assert confusion.sum(axis=1).tolist() == [3 * 30, 3 * 30, 3 * 30]
    scores = details["features"]["random_init"]["scores"]
    assert np.shape(scores) == (3, 5)
    assert summary["random_init"]["mean"] == pytest.approx(np.mean(scores))
    assert np.mean(scores) == pytest.approx(confusion.trace() / confusion.sum())


def test_gain_is_taken_repeat_by_repeat(tmp_path):
    summary, details = probed(tmp_path, toy("voices"))
    ours, floor = (np.ravel(details["features"][name]["scores"]) for name in ("pretrained", "random_init"))
    spread = np.std(ours - floor, ddof=1)
    # Student's t for 2 degrees of freedom is 4.302653.
    assert summary["gain_over_random_init"]["mean"] == pytest.approx(np.mean(ours - floor))
    assert summary["gain_over_random_init"]["interval"] == pytest.approx(
        4.302653 * spread / math.sqrt(3), rel=1e-6
    )


def test_classes_without_test_clips_are_left_out_and_counted(tmp_path):
    summary, details = probed(tmp_path, toy("tags", multi_label=True))
    assert (summary["num_classes"], summary["num_classes_scored"]) == (3, 2)
    assert summary["observed"] == 1.0
    assert details["features"]["pretrained"]["per_class"][2] is None
    assert details["num_clips_scored"][2] == 0
    assert summary["pretrained"]["mean"] == pytest.approx(1.0)


def test_only_what_was_observed_is_learned_and_scored(tmp_path):
    """Embeddings hold all labels; labels that were not observed are stored as 0, which is often wrong."""
    clips, features = toy("tags", multi_label=True, share_observed=0.4)
    summary, details = probed(tmp_path, (clips, features))
    assert summary["pretrained"]["mean"] == pytest.approx(1.0)
    test = np.array(clips.splits) == "test"
    assert summary["observed"] == pytest.approx(clips.observed[test].mean())
    assert details["num_observed_clips_scored"] == clips.observed[test].sum(0).tolist()
    assert details["num_clips_scored"] == clips.labels[test].sum(0).tolist()
    taken_as_absent, _ = probed(
        tmp_path, (dataclasses.replace(clips, observed=np.ones_like(clips.labels)), features)
    )
    assert taken_as_absent["pretrained"]["mean"] < 0.8


def test_accuracy_is_defined_if_classes_lack_test_or_training_clips(tmp_path):
    clips, features = toy("voices")
    high, split = clips.labels[:, 2] == 1, np.array(clips.splits)
    # The last class occurs in training only, the first one in validation and test only.
    split[high] = "train"
    split[(clips.labels[:, 0] == 1) & (split == "train")] = ""
    summary, details = probed(tmp_path, (dataclasses.replace(clips, splits=split.tolist()), features))
    assert (summary["num_classes"], summary["num_classes_scored"]) == (3, 2)
    assert details["features"]["pretrained"]["per_class"][2] is None
    unheard, heard, _ = details["features"]["pretrained"]["per_class"]
    assert heard == 1.0
    num_unheard, num_heard, _ = details["num_clips_scored"]
    right = unheard * num_unheard + num_heard
    assert summary["pretrained"]["mean"] == pytest.approx(right / (num_unheard + num_heard))


def test_dvc_compares_the_means_of_the_summary(tmp_path):
    summary, _ = probed(tmp_path, toy("voices"))
    means = {name: summary[name]["mean"] for name in ("pretrained", "random_init", "logmel_statistics")}
    assert json.loads((tmp_path / "scores/voices.json").read_text()) == {
        "chance": summary["chance"],
        **means,
        "gain": pytest.approx(means["pretrained"] - means["random_init"]),
    }


def test_the_table_has_a_line_per_task_and_marks_what_is_clearly_ahead(tmp_path):
    probed(tmp_path, toy("voices"))
    probed(tmp_path, toy("tags", multi_label=True))
    assert [summary["dataset"] for summary in read_summaries(tmp_path / "scores")] == [
        "tags",
        "voices",
    ]
    assert "tags" not in score_table(tmp_path / "scores", ["voices", "never_probed"])
    lines = score_table(tmp_path / "scores").splitlines()
    [voices] = [line for line in lines if line.startswith("voices")]
    assert "100.0 ± 0.0" in voices
    assert voices.endswith("*")


def test_a_second_run_gives_the_same_bytes(tmp_path):
    probed(tmp_path, toy("voices", num_folds=3))
    first = [path.read_bytes() for path in sorted((tmp_path / "scores").iterdir())]
    probed(tmp_path, toy("voices", num_folds=3))
    assert [path.read_bytes() for path in sorted((tmp_path / "scores").iterdir())] == first


def test_no_score_comes_from_a_store_with_zeros_for_rows(tmp_path):
    clips, features = toy("voices")
    store = tmp_path / "embeddings"
    write_embeddings(store, clips, features)
    path = store / "pretrained/c/0/0"
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(ValueError, match="found other bytes in pretrained/c/0/0"):
        probe("voices", store, tmp_path / "scores" / "voices.json", PARAMS)
    assert not (tmp_path / "scores").exists()


@pytest.mark.parametrize(
    ("over_time", "message"),
    [
        (True, r"^probe.attentive: need a number of heads that divides the 4 dimensions .* got 3$"),
        (False, r"need embeddings over time \(pretrained_steps\), found none"),
    ],
)
def test_an_impossible_attentive_probe_is_refused_before_any_probe_is_trained(
    tmp_path, capsys, over_time, message
):
    clips, features = toy("voices")
    rows = {name: list(values) for name, values in features.items()}
    if over_time:
        rows = {name: [OverTime(row, 0 * row, row[None]) for row in rows[name]] for name in rows}
    write_embeddings(tmp_path / "embeddings", clips, rows)
    params = PARAMS.model_copy(update={"attentive": 3})
    with pytest.raises(ValueError, match=message):
        probe("voices", tmp_path / "embeddings", tmp_path / "scores" / "voices.json", params)
    # A finished feature would have printed its progress.
    assert capsys.readouterr().err == ""
    assert not (tmp_path / "scores").exists()


def validated(tmp_path, embedded, **changes):
    """Everything that a probe on validation clips writes and prints."""
    clips, features = embedded
    folder, out = tmp_path / "embeddings" / clips.dataset, tmp_path / "scores" / f"{clips.dataset}.json"
    write_embeddings(folder, clips, features)
    probe(clips.dataset, folder, out, PARAMS.model_copy(update={"score_on": "validation"} | changes))
    return [out.read_text(), out.with_suffix(DETAILS).read_text(), score_table(out.parent)]


@pytest.mark.parametrize("multi_label", [False, True])
def test_scored_on_validation_clips_a_probe_never_reads_test_clips(tmp_path, multi_label):
    clips, features = toy("voices", multi_label=multi_label)
    over_time = {name: [OverTime(row, 0 * row, row[None]) for row in features[name]] for name in features}
    changes = {"knn": 3, "attentive": 2, "max_epochs": 4, "num_repeats": 2}
    first = validated(tmp_path / "first", (clips, features | over_time), **changes)

    test, random = np.array(clips.splits) == "test", np.random.default_rng(1)
    labels = clips.labels.copy()
    labels[test] = random.permutation(labels[test])
    noise = {name: random.normal(0, 1000, rows.shape) for name, rows in features.items()}
    spoilt = {
        name: np.where(test[:, None], noise[name], rows).astype(np.float32) for name, rows in features.items()
    }
    over_time = {name: [OverTime(row, 0 * row, row[None]) for row in rows] for name, rows in spoilt.items()}
    changed = dataclasses.replace(clips, labels=labels)
    assert not np.array_equal(changed.labels, clips.labels)
    assert validated(tmp_path / "second", (changed, spoilt | over_time), **changes) == first
    on_test = [
        validated(tmp_path / name, embedded, score_on="test", max_epochs=4)
        for name, embedded in (("third", (clips, features)), ("fourth", (changed, spoilt)))
    ]
    assert on_test[0] != on_test[1]


def test_scores_on_validation_clips_say_so_wherever_they_stand(tmp_path):
    metrics, details, table = validated(tmp_path, toy("voices"))
    assert {name.split(".")[0] for name in json.loads(metrics)} == {"validation"}
    summary = json.loads(details)["summary"]
    assert (summary["score_on"], summary["num_clips"]) == ("validation", {"train": 50, "validation": 20})
    assert "accuracy on VALIDATION" in table
    assert "for choosing settings, not results" in table
    assert "is a test clip of another" not in table


def test_validation_clips_that_pre_training_heard_are_not_called_test_clips(tmp_path):
    clips, features = toy("voices")
    heard = np.array([split == "validation" for split in clips.splits], dtype=np.uint8)
    *_, table = validated(tmp_path, (dataclasses.replace(clips, heard=heard), features))
    assert "Validation clips that were in pre-training, without their labels: voices 20 of 20." in table
    assert "Test clips" not in table


def test_with_folds_the_table_says_whose_test_scores_the_choice_favours(tmp_path):
    *_, table = validated(tmp_path, toy("notes", num_folds=5))
    assert "notes: a validation clip of one fold is a test clip of another" in table


def test_a_score_on_validation_clips_is_that_of_the_kept_epoch_on_these_clips(tmp_path):
    """By hand: 20 validation clips, so every score is a number of twentieths."""
    clips, features = toy("voices")
    validated(tmp_path, (clips, features))
    details = json.loads((tmp_path / "scores/voices.details.json").read_text())
    confusion = np.array(details["features"]["random_init"]["confusion"])
    validation = np.array(clips.splits) == "validation"
    assert details["num_clips_scored"] == clips.labels[validation].sum(0).tolist()
    assert confusion.sum(1).tolist() == (3 * clips.labels[validation].sum(0)).tolist()
    assert details["folds"] == [{"train": 50, "validation": 20}]


def test_a_class_that_only_deviations_hold_is_found_by_the_pooling_that_reads_them(tmp_path):
    clips, features = toy("voices")
    for name in ("pretrained", "random_init"):
        features[name] = [OverTime(np.zeros(4, np.float32), row, None) for row in features[name]]
    folder, out = tmp_path / "embeddings" / "voices", tmp_path / "scores" / "voices.json"
    write_embeddings(folder, clips, features)
    accuracy = {}
    for pooling in ("mean", "mean_and_deviation"):
        probe("voices", folder, out, PARAMS.model_copy(update={"pooling": pooling}))
        [summary] = read_summaries(out.parent)
        accuracy[pooling] = summary["pretrained"]["mean"]
    assert accuracy["mean"] < 0.6
    assert accuracy["mean_and_deviation"] > 0.95


def test_a_store_without_deviations_is_made_again(tmp_path):
    clips, features = toy("voices")
    folder = tmp_path / "embeddings" / "voices"
    write_embeddings(folder, clips, features)
    params = PARAMS.model_copy(update={"pooling": "mean_and_deviation"})
    with pytest.raises(ValueError, match=r"need deviations for probe.pooling: .* `dvc repro .*embed@voices"):
        probe("voices", folder, tmp_path / "scores" / "voices.json", params)
