"""One way to open weights, whatever kind of file holds them."""

import json

import pytest
import torch

from matpac.encoder.encoder import load_encoder
from matpac.weights.open import open_weights
from tests.checkpoints import untrained_checkpoint
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
