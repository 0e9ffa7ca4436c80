"""`matpac init`: a folder becomes a params.yaml that the pipeline takes as it is."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from matpac.params import load_params
from matpac.prepare.inspect import inspect_dataset
from matpac.prepare.proposal import Choice, name_of, propose, refuse_edited, with_choice
from matpac.prepare.survey import survey


def write_tones(folder, names, *, length_s=1.0, rate_hz=8000):
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).normal(scale=0.1, size=round(length_s * rate_hz))
        soundfile.write(path, noise, rate_hz, subtype="PCM_16")
    return folder


@pytest.fixture
def logmel(project):
    return load_params(project / "presets/demo.yaml").logmel


@pytest.fixture
def proposed(project, logmel, tmp_path):
    """The proposal for a folder: its parameters, the dataset's inspection, the text, and what is said."""

    def propose_for(folder):
        proposal = propose("mine", folder, survey(folder, logmel), project / "presets")
        path = tmp_path / "proposed.yaml"
        path.write_text(proposal.text, encoding="utf-8")
        params = load_params(path)
        crop = params.pretrain.crop_frames
        found = inspect_dataset("mine", params.datasets["mine"], params.logmel, params.shards, crop)
        return params, found, proposal.text, " ".join(proposal.summary)

    return propose_for


def classes(number, *, split="", names=("cat", "dog")):
    return [f"{split}{name}/{take}.wav" for name in names for take in range(number)]


def test_class_folders_are_probed(tmp_path, proposed):
    params, found, text, said = proposed(write_tones(tmp_path / "mine", classes(30)))
    assert (params.datasets["mine"].labels, params.probe.datasets) == ("folders", ("mine",))
    assert params.online.dataset == "mine"
    assert (found.task.classes, found.task.num_folds) == (("cat", "dog"), 5)
    assert (params.pretrain.crop_frames, params.pretrain.short_clips) == (96, "drop")
    assert params.pretrain.batch_size <= found.num_clips
    assert "\n    # 2 folders hold recordings: cat, dog." in text
    assert "60 recordings in files, about 1 min 00 s." in said
    assert max(len(line) for line in text.splitlines() if line.startswith("  # ")) <= 100


def test_other_numbers_and_comments_are_those_of_the_preset(tmp_path, proposed, project):
    params, _, text, _ = proposed(write_tones(tmp_path / "mine", classes(30)))
    preset = load_params(project / "presets/demo.yaml")
    chosen = {"datasets", "crop_frames", "short_clips", "batch_size", "num_epochs"}
    assert params.pretrain.model_dump(exclude=chosen) == preset.pretrain.model_dump(exclude=chosen)
    assert params.compute == preset.compute
    assert "compute: # how, not what: an interrupted run can go on with other values\n" in text


def test_recordings_without_labels_serve_pre_training(tmp_path, proposed):
    params, found, text, _ = proposed(write_tones(tmp_path / "mine", [f"{n}.wav" for n in range(12)]))
    assert (params.pretrain.datasets, params.probe.datasets, params.online.dataset) == (("mine",), (), None)
    assert found.task is None
    assert "# Nothing is probed, since there are no labels.\n  datasets: []\n" in text


def test_days_with_few_recordings_are_no_classes(tmp_path, proposed):
    names = [f"2026-{month:02}/{take}.wav" for month in range(1, 13) for take in range(2)]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.pdf").write_text("")
    params, _, _, said = proposed(write_tones(tmp_path / "mine", names))
    assert params.datasets["mine"].labels == "none"
    assert "Not taken for recordings: 1 file of other kinds: 1 .pdf." in said
    assert "Most hold too few for classes. If they are, write folders." in said


def test_splits_of_folders_are_used(tmp_path, proposed):
    names = [name for split in ("train", "val", "test") for name in classes(5, split=f"{split}/")]
    _, found, _, said = proposed(write_tones(tmp_path / "mine", names))
    assert [part.name for part in found.parts] == ["train", "validation", "test"]
    assert "tell the splits: test, train, val." in said


def test_folders_beside_splits_are_said_and_divided(tmp_path, proposed):
    names = [name for split in ("train", "test", "more") for name in classes(5, split=f"{split}/")]
    params, found, text, _ = proposed(write_tones(tmp_path / "mine", names))
    assert (params.datasets["mine"].splits, found.task.num_folds) == ("none", 5)
    assert "# Some names of folders look like splits." in text


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_an_audiofolder_is_probed(tmp_path, proposed, suffix):
    folder = write_tones(
        tmp_path / "mine", [f"{split}/{n}.wav" for split in ("train", "dev", "test") for n in range(8)]
    )
    for split in ("train", "dev", "test"):
        rows = [
            {"file_name": f"{n}.wav", "title": f"take {n}", "species": ("wren", "robin")[n % 2]}
            for n in range(8)
        ]
        lines = [json.dumps(row) for row in rows]
        if suffix == "csv":
            lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
        (folder / split / f"metadata.{suffix}").write_text("\n".join(lines))
    params, found, _, _ = proposed(folder)
    assert (params.datasets["mine"].labels, params.datasets["mine"].label_column) == (
        f"metadata.{suffix}",
        "species",
    )
    assert found.task.classes == ("robin", "wren")
    assert [part.num_clips for part in found.parts] == [8, 8, 8]


@pytest.mark.parametrize("row", ["missing.wav,dog", "cat/0.wav,"])
def test_a_table_that_could_not_be_read_is_not_proposed(tmp_path, proposed, row):
    folder = write_tones(tmp_path / "mine", classes(8))
    rows = [f"cat/{n}.wav,{('cat', 'dog')[n % 2]}" for n in range(1, 8)]
    (folder / "labels.csv").write_text("\n".join(["path,label", *rows, row]))
    params, _, _, _ = proposed(folder)
    assert params.datasets["mine"].labels == "folders"


def test_a_dataset_of_save_to_disk_is_probed(tmp_path, proposed):
    names = {"names": ["wren", "robin"], "_type": "ClassLabel"}
    note = {"huggingface": json.dumps({"info": {"features": {"species": names}}})}
    for split, seed in (("train", 0), ("validation", 1), ("test", 2)):
        folder = write_tones(
            tmp_path / f"wavs{seed}", [f"{seed}{n}.wav" for n in range(8)], length_s=1 + seed / 10
        )
        cells = [{"bytes": (folder / f"{seed}{n}.wav").read_bytes(), "path": f"{n}.wav"} for n in range(8)]
        struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        table = pa.table({"audio": pa.array(cells, struct), "species": [n % 2 for n in range(8)]})
        table = table.replace_schema_metadata(note)
        (tmp_path / "mine" / split).mkdir(parents=True)
        with pa.ipc.new_stream(tmp_path / "mine" / split / "data-00000-of-00001.arrow", table.schema) as file:
            file.write_table(table)
    params, found, _, _ = proposed(tmp_path / "mine")
    assert (params.datasets["mine"].kind, params.datasets["mine"].labels) == ("parquet", "species")
    assert found.task.classes == ("robin", "wren")
    assert [part.num_clips for part in found.parts] == [8, 8, 8]


def test_tars_are_found_with_their_key(tmp_path, proposed):
    import tarfile

    folder = write_tones(tmp_path / "wavs", [f"{n}.wav" for n in range(12)])
    for n in range(12):
        (folder / f"{n}.json").write_text(json.dumps({"id": f"x{n}", "bird": ("wren", "robin")[n % 2]}))
    (tmp_path / "mine").mkdir()
    with tarfile.open(tmp_path / "mine/shard-000000.tar", "w") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, path.name)
    params, found, _, _ = proposed(tmp_path / "mine")
    assert (params.datasets["mine"].kind, params.datasets["mine"].labels) == ("tar", "bird")
    assert found.task.num_folds == 5


def test_short_clips_are_padded_and_unusable_ones_raise_the_limit(tmp_path, proposed):
    folder = write_tones(tmp_path / "mine", [f"{n}.wav" for n in range(10)], length_s=0.2)
    write_tones(folder, [f"long{n}.wav" for n in range(10)], length_s=1.0)
    (folder / "broken.wav").write_text("no audio")
    params, found, text, _ = proposed(folder)
    assert (params.pretrain.crop_frames, params.pretrain.short_clips) == (32, "pad")
    assert found.num_rejected == {"cannot be decoded": 1}
    assert params.shards.max_rejected_fraction >= 1 / 21
    assert "# 1 of 21 sampled recordings cannot be used." in text


def test_a_large_collection_gets_a_larger_model(tmp_path, logmel, project):
    from dataclasses import replace

    found = survey(write_tones(tmp_path / "mine", classes(10)), logmel)
    sizes = [
        propose(
            "mine", tmp_path, replace(found, num_recordings=round(hours * 3600)), project / "presets"
        ).text
        for hours in (99, 101, 2001)
    ]
    for text, size, batch in zip(sizes, ("tiny", "small", "base"), (64, 512, 2048), strict=True):
        assert f"\n  size: {size}\n" in text
        assert f"\n  batch_size: {batch}\n" in text


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "need audio files .* found none$"),
        (["a.wav"], "need two recordings at least .* found one. Cut it"),
    ],
)
def test_too_few_recordings_are_refused(tmp_path, proposed, names, message):
    (tmp_path / "mine").mkdir()
    with pytest.raises(ValueError, match=message):
        proposed(write_tones(tmp_path / "mine", names))


def test_nothing_usable_and_no_folder_are_refused(tmp_path, proposed):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/a.wav").write_text("no audio")
    with pytest.raises(ValueError, match=r"found none in 1\. a\.wav: cannot be decoded"):
        proposed(tmp_path / "mine")
    with pytest.raises(ValueError, match="need a folder of recordings, found a file"):
        proposed(tmp_path / "mine/a.wav")


def test_only_a_copy_of_a_preset_is_replaced(tmp_path, project):
    out = tmp_path / "params.yaml"
    refuse_edited(out, project / "presets")
    shutil.copy(project / "presets/paper.yaml", out)
    refuse_edited(out, project / "presets")
    out.write_text(out.read_text() + "# mine\n")
    with pytest.raises(
        ValueError, match=r"found one that was edited\. Name another file with --out, or replace"
    ):
        refuse_edited(out, project / "presets")


def test_names_of_folders_become_names_of_datasets():
    assert [name_of(name) for name in ("My Birds (2026)", "études", "...")] == [
        "my_birds_2026",
        "tudes",
        "mine",
    ]


def test_a_list_is_replaced_as_a_whole():
    text = "a:\n  b: 1\n  c:\n    - x\n    - y\n  d: 2 # why\n\ne:\n  c: 3\n"
    expected = "a:\n  b: 1\n  # Because.\n  c:\n    - z\n  d: 2 # why\n\ne:\n  c: 3\n"
    assert with_choice(text, Choice("a.c", ["z"], "Because.")) == expected
    assert with_choice(text, Choice("e.c", [])) == text.replace("  c: 3", "  c: []")
