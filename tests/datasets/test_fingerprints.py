import errno
import os
from pathlib import Path

import pytest

from matpac.datasets.fingerprints import code_of, fingerprint, weights, write_encoders, write_sources
from matpac.datasets.registry import recordings_root
from matpac.files import read_json
from matpac.params import Folder, Other, Public, load_params


def folder(source: Path, labels: str = "folders") -> Folder:
    return Folder(
        kind="folder",
        source=str(source),
        labels=labels,
        multi_label=False,
        num_folds=3,
        split_fractions=None,
    )


@pytest.fixture
def source(tmp_path):
    for name in ("dog/a.wav", "dog/b.wav", "cat/a.wav"):
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / name).write_bytes(name.encode())
    return tmp_path / "mine"


def test_a_fingerprint_stays_where_nothing_changes(source):
    assert fingerprint(folder(source)) == fingerprint(folder(source))
    (source / "cat/a.wav").read_bytes()
    assert fingerprint(folder(source))["files"] == 3


@pytest.mark.parametrize("change", ["content", "time", "name", "added", "removed", "dead link"])
def test_every_change_shows_in_the_fingerprint(source, change):
    before = fingerprint(folder(source))
    path = source / "dog/a.wav"
    match change:
        case "content":
            path.write_bytes(b"another length")
        case "time":
            os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
        case "name":
            path.rename(source / "dog/c.wav")
        case "added":
            (source / "dog/c.wav").write_bytes(b"")
        case "removed":
            path.unlink()
        case "dead link":
            path.unlink()
            path.symlink_to("nowhere.wav")
    assert fingerprint(folder(source)) != before


def test_a_new_file_in_a_linked_folder_shows_in_the_fingerprint(source, tmp_path):
    (tmp_path / "far").mkdir()
    (source / "bird").symlink_to(tmp_path / "far")
    (source / "bird/up").symlink_to(source)
    before = fingerprint(folder(source))
    (tmp_path / "far/a.wav").write_bytes(b"new")
    assert fingerprint(folder(source)) != before


def test_a_failing_disk_stops_no_other_dataset(source, monkeypatch):
    def scandir(path):
        raise OSError(errno.EIO, "Input/output error", str(path))

    before = fingerprint(folder(source))
    monkeypatch.setattr(os, "scandir", scandir)
    assert fingerprint(folder(source)) != before


def test_hidden_files_leave_the_fingerprint_as_it_is(source):
    before = fingerprint(folder(source))
    (source / "dog/.DS_Store").write_bytes(b"opened in a file manager")
    assert fingerprint(folder(source)) == before


def test_a_table_outside_the_folder_counts_too(source, tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("path,label\n")
    before = fingerprint(folder(source, str(table)))
    table.write_text("path,label\ndog/a.wav,dog\n")
    assert fingerprint(folder(source, str(table))) != before


def test_what_is_not_read_in_place_never_changes(project, tmp_path):
    datasets = load_params(project / "presets/demo.yaml").datasets
    write_sources(tmp_path, datasets)
    assert {path.stem: read_json(path) for path in tmp_path.iterdir()} == {name: {} for name in datasets}


@pytest.fixture
def encoders(tmp_path, monkeypatch):
    """A module, its weights in a folder, and a file to begin with."""
    (tmp_path / "weights").mkdir()
    for name in ("hear_own.py", "weights/a.pt", "init.pt"):
        (tmp_path / name).write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    others = {"own": Other(module="hear_own", model=str(tmp_path / "weights"))}

    def noted():
        write_encoders(tmp_path / "sources", str(tmp_path / "init.pt"), others)
        return {path.name: read_json(path) for path in (tmp_path / "sources").iterdir()}

    return noted


@pytest.mark.parametrize(
    ("changed", "noted_in"),
    [
        ("hear_own.py", "other-encoders.json"),
        ("weights/a.pt", "other-encoders.json"),
        ("init.pt", "initial-weights.json"),
    ],
)
def test_every_change_of_an_encoder_shows(encoders, tmp_path, changed, noted_in):
    before = encoders()
    assert encoders() == before
    (tmp_path / changed).write_text("pass")
    after = encoders()
    assert {name for name in before if before[name] != after[name]} == {noted_in}


def test_equal_copies_of_weights_and_code_are_no_change(encoders, tmp_path):
    before = encoders()
    for name in ("hear_own.py", "weights/a.pt", "init.pt"):
        copy = tmp_path / "copy"
        copy.write_bytes((tmp_path / name).read_bytes())
        os.utime(copy, ns=(0, 1))
        copy.replace(tmp_path / name)
    assert encoders() == before


def test_what_a_checkpoint_says_of_its_training_is_no_change_of_weights(tmp_path):
    (tmp_path / "networks.safetensors").write_bytes(b"weights")
    before = weights(str(tmp_path))
    (tmp_path / "history.csv").write_text("epoch\n")
    assert weights(str(tmp_path)) == before
    (tmp_path / "networks.safetensors").write_bytes(b"changed")
    assert weights(str(tmp_path)) != before


@pytest.mark.parametrize(
    ("written", "counts"),
    [
        ("model.safetensors", True),
        ("config.json", True),
        ("README.md", False),
        (".cache/huggingface/download/config.json.metadata", False),
    ],
)
def test_of_a_saved_folder_counts_what_embeddings_depend_on(tmp_path, written, counts):
    for name in ("model.safetensors", "config.json"):
        (tmp_path / name).write_text("{}")
    before = weights(str(tmp_path))
    (tmp_path / written).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / written).write_text("another")
    assert (weights(str(tmp_path)) != before) == counts


@pytest.mark.parametrize("begins", ["__init__.py", "encoder.py"])
def test_a_package_counts_whole_and_nothing_of_it_runs(tmp_path, monkeypatch, begins):
    """Without an __init__.py it is a namespace package."""
    package = tmp_path / "hear_package"
    (package / "layers").mkdir(parents=True)
    (package / begins).write_text("raise RuntimeError('this runs')")
    (package / "layers/block.py").write_text("depth = 12")
    monkeypatch.syspath_prepend(str(tmp_path))
    others = {"own": Other(module="hear_package.encoder", model=None)}

    def noted():
        write_encoders(tmp_path / "sources", None, others)
        return read_json(tmp_path / "sources/other-encoders.json")

    before = noted()
    assert before["own"]["code"]
    (package / "notes.txt").write_text("no code")
    assert noted() == before
    (package / "layers/block.py").write_text("depth = 24")
    assert noted() != before


def test_of_our_own_modules_no_code_is_noted():
    assert code_of("matpac.hear") == ""


def test_nothing_is_noted_of_names_that_are_no_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("data/checkpoints/pretrained").mkdir(parents=True)
    others = {
        "missing": Other(module="no_such.module", model=None),
        "by_name": Other(module="no_such_module", model="base"),
        # What the pipeline trains is a dependency already.
        "own": Other(module="no_such_module", model="data/checkpoints/pretrained"),
    }
    write_encoders(Path("sources"), "matpac_10_2048", others)
    assert read_json(Path("sources/initial-weights.json")) == {}
    assert read_json(Path("sources/other-encoders.json")) == {
        name: {"code": "", "model": {}} for name in others
    }


def test_a_mended_archive_is_unpacked_into_another_folder(tmp_path):
    archive = tmp_path / "mine.zip"
    archive.write_bytes(b"damaged")
    params = Public(kind="esc50", source=str(archive))
    before = recordings_root("mine", params)
    assert recordings_root("mine", params) == before
    archive.write_bytes(b"mended, at last")
    assert recordings_root("mine", params) != before
