import json
import os
import subprocess
import sys

import pyarrow as pa
import pytest
import yaml
from pyarrow import parquet

from matpac.datasets.preview import Prospect
from matpac.params import Folder, Parquet, Public, load_params
from matpac.prepare.inspect import inspect_dataset
from matpac.prepare.inspect_text import json_of, text_of, warnings_of
from tests.recordings import LOGMEL, shards_params, write_noise

CROP_FRAMES = 48
"""0.48 s at a hop of 10 ms."""


@pytest.fixture
def pretrain(project):
    return load_params(project / "presets/demo.yaml").pretrain.model_copy(update={"datasets": ("mine",)})


def own(root, labels="labels.csv", *, multi_label=False, num_folds=None) -> Folder:
    return Folder(
        kind="folder",
        source=str(root),
        labels=labels,
        multi_label=multi_label,
        num_folds=num_folds,
        split_fractions=None,
    )


def inspected(root, **changes):
    return inspect_dataset("mine", own(root, **changes), LOGMEL, shards_params(), CROP_FRAMES)


def flat(text) -> str:
    return " ".join(text.split())


@pytest.fixture
def messy(tmp_path):
    """A dog with the bytes of a cat, a group in two splits, and unusable files."""
    for number in range(6):
        write_noise(
            tmp_path / f"{number}.wav", 0.3 + 0.1 * number, seed=number, rate_hz=8000 + 8000 * (number > 3)
        )
    write_noise(tmp_path / "short.wav", 0.01, seed=7)
    (tmp_path / "copy.wav").write_bytes((tmp_path / "0.wav").read_bytes())
    (tmp_path / "cut.wav").write_bytes((tmp_path / "5.wav").read_bytes()[:4000])
    (tmp_path / "noise.mp3").write_bytes(b"this is no music" * 99)
    (tmp_path / "empty.flac").touch()
    (tmp_path / "labels.csv").write_text(
        "path,label,split,group\n"
        "0.wav,dog,train,rex\n1.wav,cat,train,tom\n2.wav,dog,valid,rex\n"
        "3.wav,cat,valid,kit\n4.wav,dog,test,ace\ncopy.wav,cat,test,\n"
    )
    return tmp_path


def test_what_would_happen_is_counted(messy):
    found = inspected(messy)
    assert (found.num_recordings, found.num_clips) == (11, 6)
    assert found.num_rejected == {
        "cannot be decoded": 2,
        "duplicate": 1,
        "truncated": 1,
        "too short": 1,
    }
    assert found.rejected_examples["duplicate"] == ("copy.wav (of 0.wav)",)
    assert found.duration_s == pytest.approx(sum(0.3 + 0.1 * number for number in range(6)))
    assert found.native_rates_hz == {8000: 4, 16000: 2}
    assert found.channels == {1: 6}
    assert found.formats == {"WAV PCM_16": 6}
    assert (found.lengths_s.min, found.lengths_s.median) == pytest.approx((0.3, 0.55))
    # 0.3 s and 0.4 s give 28 and 38 frames.
    assert found.num_shorter_than_crop == 2
    assert (found.num_shards, found.num_without_part) == (2, 1)


def test_splits_and_classes_are_counted_without_what_is_left_out(messy):
    found = inspected(messy)
    assert [(part.name, part.num_clips, part.num_classes) for part in found.parts] == [
        ("train", 2, 2),
        ("validation", 2, 2),
        ("test", 1, 1),
    ]
    assert found.num_clips_of_class == {"cat": 2, "dog": 3}


def test_leaks_are_found_with_examples(messy):
    found = inspected(messy)
    groups, contents = found.groups_in_several_parts, found.contents_in_several_parts
    assert (groups.num_keys, groups.num_clips, groups.examples) == (1, 2, ("rex (train, validation)",))
    assert (contents.num_keys, contents.num_clips) == (1, 2)
    assert contents.examples == ("0.wav (train) = copy.wav (test)",)
    assert found.contents_with_several_labels.examples == ("0.wav (dog) = copy.wav (cat)",)


def test_warnings_come_first_and_say_what_to_do(messy, pretrain):
    shards = shards_params(max_rejected_fraction=0.01)
    found = inspect_dataset("mine", own(messy), LOGMEL, shards, CROP_FRAMES)
    text = flat(text_of(found, shards, pretrain))
    facts = text.index("recordings 11")
    for warning in (
        "! 4 of 10 clips (40.0%) cannot be used and would be left out; 4 have no label and do not count",
        "! Leak: 1 recording in several splits (2 clips): 0.wav (train) = copy.wav (test). The stage",
        "! Leak: 1 group in several splits (2 clips): rex (train, validation). The stage `shards` would",
        "! 1 recording with different labels (2 clips): 0.wav (dog) = copy.wav (cat). Correct the labels.",
        "! Classes without a clip: 1 in test, of 2.",
        "! Pre-training would drop 2 of 6 clips, which are shorter than a crop (0.48 s).",
    ):
        assert 0 < text.index(warning) < facts


def test_labelled_clips_that_cannot_be_used_count_against_the_limit(messy, pretrain):
    shards = shards_params(max_rejected_fraction=0.01)
    rows = "".join(f"{name},dog,train,\n" for name in ("cut.wav", "noise.mp3", "empty.flac"))
    with (messy / "labels.csv").open("a") as table:
        table.write(rows)
    found = inspect_dataset("mine", own(messy), LOGMEL, shards, CROP_FRAMES)
    assert found.num_counted == 3
    warning = next(warnings_of(found, shards, pretrain))
    assert warning.startswith("4 of 10 clips (40.0%) cannot be used, over the limit of 1.0%")


def test_what_is_passed_over_is_counted_and_archives_are_named(tmp_path, pretrain):
    far = tmp_path / "far"
    for number in range(3):
        write_noise(tmp_path / f"mine/dog/{number}.wav", 0.6, seed=number)
        write_noise(far / f"{number}.wav", 0.6, seed=9 + number)
    root = tmp_path / "mine"
    (root / "cat").symlink_to(far)
    (root / "dog/up").symlink_to(root)
    for name in ("a.pdf", "b.PDF", "cat/c.tar.gz"):
        (root / name).write_bytes(b"x")
    (root / "labels.csv").write_text("path,label\n")
    found = inspected(root, labels="folders", num_folds=3)
    assert found.num_clips == 6
    assert found.num_clips_of_class == {"cat": 3, "dog": 3}
    assert found.passed_over.number == {
        ".pdf": 2,
        ".csv": 1,
        ".tar.gz": 1,
        "link to a folder above itself": 1,
    }
    text = flat(text_of(found, shards_params(), pretrain))
    assert "! Archives are not read: 1 .tar.gz (cat/c.tar.gz). Unpack those" in text
    assert "4 files of other kinds: 2 .pdf, 1 .csv, 1 .tar.gz (archives)" in text
    assert json.loads(json_of(found, shards_params(), pretrain))["passed_over"]["number"][".pdf"] == 2


def test_a_table_of_labels_is_not_passed_over(messy):
    assert inspected(messy).passed_over.number == {}


def test_clean_recordings_give_no_warning(tmp_path, pretrain):
    for name in ("cat", "dog"):
        for number in range(3):
            write_noise(tmp_path / name / f"{number}.wav", 0.6, seed=hash((name, number)) % 2**32)
    found = inspected(tmp_path, labels="folders", num_folds=3)
    assert list(warnings_of(found, shards_params(), pretrain)) == []
    text = text_of(found, shards_params(), pretrain)
    assert text.endswith("\n\nNo warnings.")
    assert "lengths     0.60 s each" in text
    assert [part.name for part in found.parts] == ["fold 1", "fold 2", "fold 3"]
    assert "read as labels: folders; multi_label: false; splits: auto (default); none found, so" in flat(text)


def test_a_recorder_that_crashed_is_a_note_and_a_warning(tmp_path, pretrain):
    for number in range(3):
        write_noise(tmp_path / f"{number}.wav", 0.6, seed=number)
    with (tmp_path / "1.wav").open("r+b") as file:
        file.seek(40)
        file.write(bytes(4))
    found = inspected(tmp_path, labels="none")
    assert (found.num_clips, found.duration_s) == (3, pytest.approx(1.8))
    assert found.num_notes == {"longer than its header says": 1}
    text = flat(text_of(found, shards_params(), pretrain))
    assert "! Some clips are odd and would be used all the same. The notes stand below." in text
    assert (
        "Used, with a note: 1 longer than its header says 1.wav (the header promises 0.00 s, the file holds "
        "0.60 s)" in text
    )


def test_labels_of_a_multi_label_dataset_are_counted_per_clip(tmp_path, pretrain):
    labels = ["rain;wind", "rain", "", "wind", "rain;wind", "wind"]
    rows = [f"{number}.wav,{label},{number % 3 + 1}" for number, label in enumerate(labels)]
    for number in range(6):
        write_noise(tmp_path / f"{number}.wav", 0.6, seed=number)
    (tmp_path / "labels.csv").write_text("\n".join(["path,label,fold", *rows]))
    found = inspected(tmp_path, multi_label=True)
    assert found.labels_per_clip == {0: 1, 1: 3, 2: 2}
    assert found.num_clips_of_class == {"rain": 3, "wind": 4}
    said = flat(text_of(found, shards_params(), pretrain))
    assert "1.17 per clip, at most 2; 1 clips without any" in said


def test_json_holds_the_counts_and_the_warnings(messy, pretrain):
    found = inspected(messy)
    content = json.loads(json_of(found, shards_params(), pretrain))
    assert content["here"] is True
    assert content["native_rates_hz"] == {"8000": 4, "16000": 2}
    assert content["task"]["classes"] == ["cat", "dog"]
    assert content["groups_in_several_parts"]["num_keys"] == 1
    assert content["warnings"] == list(warnings_of(found, shards_params(), pretrain))


def test_the_command_writes_json_alone_to_standard_output(messy, project, tmp_path):
    """Progress and the complaints of decoders go to standard error."""
    params = yaml.safe_load((project / "presets/demo.yaml").read_text())
    params["datasets"]["mine"] = own(messy).model_dump()
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(params))
    command = [sys.executable, "-m", "matpac", "inspect", "mine", "--json", "--params", "mine.yaml"]
    environment = os.environ | {"PYTHONPATH": str(project)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["num_clips"] == 6
    assert "mine: headers: 10/10 recordings (100%)" in done.stderr


def test_nothing_is_left_behind(messy):
    before = sorted(messy.rglob("*"))
    inspected(messy)
    assert sorted(messy.rglob("*")) == before


def test_rows_of_parquet_files_are_inspected(tmp_path):
    rows = []
    for number in range(70):
        path = tmp_path / "one.wav"
        write_noise(path, 0.5, seed=number)
        rows.append(
            {"audio": {"bytes": path.read_bytes(), "path": f"{number}.wav"}, "word": "ab"[number % 2]}
        )
    (tmp_path / "rows").mkdir()
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "rows" / "all.parquet")
    source = Parquet(
        kind="parquet",
        source=str(tmp_path / "rows"),
        labels="word",
        multi_label=False,
        num_folds=3,
        split_fractions=None,
    )
    found = inspect_dataset("rows", source, LOGMEL, shards_params(), CROP_FRAMES)
    assert (found.num_clips, found.formats) == (70, {"WAV PCM_16": 70})
    assert found.num_clips_of_class == {"a": 35, "b": 35}


def test_a_dataset_that_is_not_here_yet_is_described_from_its_page(in_tmp, pretrain):
    found = inspect_dataset("esc10", Public(kind="esc10", source=None), LOGMEL, shards_params(), CROP_FRAMES)
    assert isinstance(found, Prospect)
    assert not list(in_tmp.iterdir())
    said = flat(text_of(found, shards_params(), pretrain))
    assert "Not here yet." in said
    assert "clips 400" in said
    assert "python -m flows.download esc10" in said


def test_a_wrong_table_is_one_error(tmp_path):
    write_noise(tmp_path / "a.wav", 0.5, seed=0)
    (tmp_path / "labels.csv").write_text("name,label\na.wav,dog\n")
    with pytest.raises(ValueError, match=r"need columns path .* rename name to path"):
        inspected(tmp_path)
    with pytest.raises(ValueError, match="need a folder of recordings"):
        inspected(tmp_path / "nowhere", labels="none")


def test_missing_recordings_are_counted_where_the_page_knows_how_many(audio_folder, pretrain):
    source = Public(kind="esc10", source=str(audio_folder / "esc10"))
    found = inspect_dataset("esc10", source, LOGMEL, shards_params(), CROP_FRAMES)
    assert (found.num_clips, found.num_missing, found.num_rejected) == (400, {}, {})
    assert [part.num_clips for part in found.parts] == [80] * 5
    assert set(found.num_clips_of_class.values()) == {40}
