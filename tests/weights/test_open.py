"""One way to open weights, whatever kind of file holds them."""

import json
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from matpac.encoder.encoder import load_encoder
from matpac.signal.mel import mel_filters
from matpac.weights.open import open_weights
from tests.checkpoints import untrained_checkpoint
from tests.recordings import LOGMEL
from tests.released import ENCODER, TINY_HEADS, tiny_pretext, write_released


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The same encoder as a checkpoint and as a saved folder, and a released file."""
    folder = tmp_path_factory.mktemp("weights")
    (folder / "checkpoint").mkdir()
    load_encoder(untrained_checkpoint(folder / "checkpoint"), "cpu").save_pretrained(folder / "saved")
    write_released(folder / "tiny.pt", tiny_pretext())
    return folder


def test_a_saved_encoder_opens_as_the_checkpoint_it_was_saved_from(folder):
    checkpoint, saved = open_weights(folder / "checkpoint"), open_weights(folder / "saved")
    for field in ("dim", "depth", "num_heads", "logmel", "standard", "chunk_frames"):
        assert getattr(checkpoint, field) == getattr(saved, field)
    ours, theirs = checkpoint.networks(ENCODER), saved.networks()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_checkpoint_has_all_networks(folder):
    found = {name.split(".")[0] for name in open_weights(folder / "checkpoint").networks()}
    assert found > {"patches", "student_encoder", "teacher_encoder", "predictor"}


@pytest.mark.parametrize("name", ["checkpoint", "saved", "tiny.pt"])
def test_shapes_are_those_of_the_tensors(folder, name):
    weights = open_weights(folder / name)
    assert weights.shapes() == {name: list(value.shape) for name, value in weights.networks().items()}


@pytest.mark.parametrize(("name", "file"), [("checkpoint", "networks"), ("saved", "model")])
def test_opening_reads_no_tensors(folder, tmp_path, name, file):
    """A description works from the header: behind it, the file may be as large as it likes."""
    copy = tmp_path / name
    copy.mkdir()
    for path in (folder / name).iterdir():
        if path.suffix == ".json":
            (copy / path.name).write_bytes(path.read_bytes())
    whole = (folder / name / f"{file}.safetensors").read_bytes()
    length = 8 + int.from_bytes(whole[:8], "little")
    json.loads(whole[8:length])
    with (copy / f"{file}.safetensors").open("wb") as sparse:
        sparse.write(whole[:length])
        sparse.truncate(len(whole))  # zeros, no values
    assert open_weights(copy).shapes() == open_weights(folder / name).shapes()


def test_a_released_file_does_not_say_how_many_heads_it_has(folder):
    assert open_weights(folder / "tiny.pt").num_heads is None
    with pytest.raises(ValueError, match=r"tiny\.pt: need num_heads: files of this format do not say"):
        load_encoder(folder / "tiny.pt", "cpu")
    assert load_encoder(folder / "tiny.pt", "cpu", num_heads=TINY_HEADS).dim == 640


def test_neither_folder_nor_released_file_is_one_clear_line(tmp_path):
    with pytest.raises(ValueError, match="need a checkpoint, a saved folder or a released"):
        open_weights(tmp_path / "nothing.pt")
    with pytest.raises(ValueError, match=r"meta\.json is missing"):
        open_weights(tmp_path)


NARROW = LOGMEL.model_copy(update={"fmin_hz": 100})


@pytest.fixture
def narrow(tmp_path):
    """A checkpoint with another filterbank than the paper's, and the same encoder saved."""
    (tmp_path / "checkpoint").mkdir()
    encoder = load_encoder(untrained_checkpoint(tmp_path / "checkpoint", NARROW), "cpu")
    encoder.save_pretrained(tmp_path / "saved")
    return tmp_path


@pytest.fixture
def without_librosa(monkeypatch):
    def go():
        mel_filters.cache_clear()
        monkeypatch.setitem(sys.modules, "librosa", None)
        monkeypatch.setitem(sys.modules, "librosa.filters", None)

    return go


def forget_filters(file):
    """Write a file as it was before it held a filterbank."""
    tensors = load_file(file)
    del tensors["mel_filters"]
    save_file(tensors, file)


FILES = {"checkpoint": "networks.safetensors", "saved": "model.safetensors"}


@pytest.mark.parametrize("name", FILES)
def test_the_filterbank_travels_with_the_weights(narrow, without_librosa, name):
    expected = mel_filters(NARROW)
    without_librosa()
    assert np.array_equal(load_encoder(narrow / name, "cpu").mel_filters, expected)


@pytest.mark.parametrize(("name", "file"), FILES.items())
def test_files_without_a_filterbank_open_as_the_same_encoder(narrow, name, file):
    before = load_encoder(narrow / name, "cpu")
    forget_filters(narrow / name / file)
    after = load_encoder(narrow / name, "cpu")
    assert np.array_equal(after.mel_filters, before.mel_filters)
    assert after.digest() == before.digest()


@pytest.mark.parametrize(("name", "file"), FILES.items())
def test_without_filterbank_and_librosa_it_is_one_line_that_says_what_to_install(
    narrow, without_librosa, name, file
):
    forget_filters(narrow / name / file)
    without_librosa()
    with pytest.raises(ValueError, match=r"pip install 'matpac\[pipeline\]'") as said:
        load_encoder(narrow / name, "cpu")
    assert "\n" not in str(said.value)


def test_the_papers_front_end_needs_neither(folder, without_librosa):
    without_librosa()
    encoder = load_encoder(folder / "tiny.pt", "cpu", num_heads=TINY_HEADS)
    assert encoder.mel_filters.shape == (201, 80)


def test_a_filterbank_of_another_shape_is_refused(narrow):
    tensors = load_file(narrow / "saved/model.safetensors")
    tensors["mel_filters"] = torch.zeros(200, 16)
    save_file(tensors, narrow / "saved/model.safetensors")
    with pytest.raises(ValueError, match=r"logmel: .* mel_filters is \[200, 16\] in it, and \[201, 16\] by"):
        load_encoder(narrow / "saved", "cpu")
