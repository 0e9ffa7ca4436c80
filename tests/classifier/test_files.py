"""Tables, label files and ONNX of a classifier that was not trained."""

import csv
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

import matpac
from matpac.classifier.files import predict_files
from matpac.cli import app
from tests.classifiers import CLASSES, tiny_classifier, tiny_encoder

RATE = 22_050


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return tiny_encoder(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def folder(encoder, tmp_path_factory):
    path = tmp_path_factory.mktemp("classifier")
    tiny_classifier(encoder, multi_label=True, thresholds=np.array([0.0, 1.0, 0.0])).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Three files in two folders; one more is silent."""
    path, random = tmp_path_factory.mktemp("recordings"), np.random.default_rng(0)
    for name, length in (("a.wav", 30_000), ("b/c.flac", 50_000), ("b/d.wav", 12_000)):
        (path / name).parent.mkdir(exist_ok=True)
        soundfile.write(path / name, random.normal(scale=0.1, size=(length, 2)), RATE)
    soundfile.write(path / "b/silent.wav", np.zeros(9_000), RATE)
    return path


def rows_of(path):
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def about(path):
    if path.suffix == ".parquet":
        return {
            name.decode(): value.decode() if name == b"made_from" else json.loads(value)
            for name, value in pq.read_schema(path).metadata.items()
            if name in (b"made_from", b"thresholds", b"left_out")
        }
    return json.loads(path.with_name(f"{path.name}.json").read_text())


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_each_file_has_a_row_with_what_predict_says_of_it(folder, recordings, tmp_path, capsys, ending):
    out = tmp_path / f"tags.{ending}"
    predict_files([recordings], folder, out)
    rows = rows_of(out)
    names = [str(recordings / name) for name in ("a.wav", "b/c.flac", "b/d.wav", "b/silent.wav")]
    assert [row["path"] for row in rows] == names
    classifier = matpac.load_classifier(folder, device="cpu")
    sounds = [soundfile.read(name)[0].T for name in names[:3]]
    found = [[float(row[f"p_{name}"]) for name in CLASSES] for row in rows[:3]]
    np.testing.assert_allclose(found, classifier.predict(sounds, RATE), atol=2e-4)
    unlike = [float(row["unlike"]) for row in rows[:3]]
    np.testing.assert_allclose(unlike, classifier.unlike(sounds, RATE), rtol=1e-3)
    assert {row["labels"] for row in rows[:3]} == {"low;hiss"}
    assert rows[3]["left_out"] == "silent (every sample is 0)"
    assert not rows[3]["p_low"]
    assert about(out)["left_out"] == {names[3]: "silent (every sample is 0)"}
    num_unlike = sum(ratio > 1 for ratio in unlike)
    said = f"{out}: 3 files; {num_unlike} unlike the training data; left out: 1 silent\n"
    assert said in capsys.readouterr().err


def test_events_are_those_of_predict_in_time(folder, recordings, tmp_path, capsys):
    predict_files([recordings], folder, tmp_path / "events.csv", events=True)
    rows = rows_of(tmp_path / "events.csv")
    classifier = matpac.load_classifier(folder, device="cpu")
    path = str(recordings / "a.wav")
    [found] = classifier.predict_in_time([soundfile.read(path)[0].T], RATE)
    of_file = [row for row in rows if row["path"] == path]
    assert [row["label"] for row in of_file] == [event.label for event in found.events] != []
    for row, event in zip(of_file, found.events, strict=True):
        times = [float(row["onset_s"]), float(row["offset_s"])]
        assert times == pytest.approx([event.onset_s, event.offset_s], abs=1e-3)
        assert float(row["score"]) == pytest.approx(event.score, abs=1e-3)
    assert f"{len(rows)} events in 3 files; " in capsys.readouterr().err


def test_label_files_lie_as_the_recordings_do(folder, recordings, tmp_path):
    predict_files([recordings / "b", recordings / "a.wav"], folder, tmp_path / "tracks", labels="audacity")
    files = {str(path.relative_to(tmp_path / "tracks")) for path in (tmp_path / "tracks").rglob("*.*")}
    assert files == {"a.wav.txt", "b/c.flac.txt", "b/d.wav.txt", "about.json"}
    lines = (tmp_path / "tracks/a.wav.txt").read_text().splitlines()
    assert sorted(lines) == ["0.000\t1.355\thiss", "0.000\t1.355\tlow"]
    predict_files([recordings / "a.wav"], folder, tmp_path / "raven", labels="raven")
    head, first, _ = (tmp_path / "raven/a.wav.selections.txt").read_text().splitlines()
    assert head.split("\t")[:5] == ["Selection", "View", "Channel", "Begin Time (s)", "End Time (s)"]
    assert first.split("\t")[:8] == [
        "1",
        "Spectrogram 1",
        "1",
        "0.000",
        "1.355",
        "50",
        "8000",
        first.split("\t")[7],
    ]


@pytest.mark.parametrize("out", ["tags.csv", "tags.parquet", "tracks"])
def test_a_finished_result_is_left_alone_until_something_changes(folder, recordings, tmp_path, capsys, out):
    labels = "audacity" if out == "tracks" else None
    path = tmp_path / out
    predict_files([recordings], folder, path, labels=labels)
    assert not list(tmp_path.glob(".*"))
    capsys.readouterr()
    predict_files([recordings], folder, path, labels=labels)
    said = capsys.readouterr().err
    assert said.startswith(f"{path}: whole, of the same classifier and 4 files: nothing to do. Remove it to ")
    predict_files([recordings], folder, path, labels=labels, reject=())
    assert "left out" not in capsys.readouterr().err.replace("nothing left out", "")


def test_work_goes_on_where_it_was_interrupted(folder, recordings, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("matpac.encoder.rows.FILES_PER_PART", 1)
    predict_files([recordings], folder, tmp_path / "whole.csv", events=True)
    written, real = [], np.savez

    def once(*about, **arrays):
        if written:
            raise KeyboardInterrupt
        written.append(real(*about, **arrays))

    with monkeypatch.context() as patched:
        patched.setattr(np, "savez", once)
        with pytest.raises(KeyboardInterrupt):
            predict_files([recordings], folder, tmp_path / "events.csv", events=True)
    assert not (tmp_path / "events.csv").exists()
    capsys.readouterr()
    predict_files([recordings], folder, tmp_path / "events.csv", events=True)
    assert "predict: 1 of 4 files are done\n" in capsys.readouterr().err
    assert (tmp_path / "events.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_an_attentive_classifier_predicts_files_too(encoder, recordings, tmp_path):
    tiny_classifier(encoder, "attentive").save_pretrained(tmp_path / "c")
    predict_files([recordings], tmp_path / "c", tmp_path / "tags.csv")
    classifier = matpac.load_classifier(tmp_path / "c", device="cpu")
    sound = soundfile.read(recordings / "a.wav")[0].T
    [row, *_] = rows_of(tmp_path / "tags.csv")
    [expected] = classifier.predict([sound], RATE)
    np.testing.assert_allclose([float(row[f"p_{name}"]) for name in CLASSES], expected, atol=2e-4)
    assert row["labels"] == CLASSES[expected.argmax()]


WRONG = {
    "tags.txt": ([], r"--out: need a name that ends in .csv or .parquet, got tags.txt"),
    "tags.csv": (["--labels", "raven"], r"--out: need a folder for label files, got tags.csv"),
    "taken": (
        ["--labels", "raven"],
        r"--out: need a new name or one to replace, found something else at taken",
    ),
}


@pytest.mark.parametrize("out", WRONG)
def test_a_wrong_place_is_said_before_any_work(tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    options, said = WRONG[out]
    command = ["predict", "nowhere", "--classifier", "none", "--out", out, *options]
    with pytest.raises(ValueError, match=f"^{said}$"):
        app(command, standalone_mode=False)
