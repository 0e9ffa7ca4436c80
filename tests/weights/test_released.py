"""What is taken for released weights, and what is refused."""

import argparse
import os
import pickle

import pytest
import torch

from matpac.weights.released import Released, read_released
from tests.released import released_state, tiny_pretext, write_released


class Evil:
    """What runs a command when it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.fixture(scope="module")
def state():
    return released_state(tiny_pretext())


def test_names_sizes_and_values_are_those_of_the_file(tmp_path):
    pretext = tiny_pretext()
    released = read_released(write_released(tmp_path / "a.pt", pretext), num_mels=80)
    assert (released.dim, released.depth, released.crop_frames) == (128, 4, 608)
    ours = pretext.state_dict()
    assert set(released.networks) == {key for key in ours if key.startswith(("patches.", "student_encoder."))}
    assert all(torch.equal(value, ours[key]) for key, value in released.networks.items())


@pytest.mark.parametrize("way", ["zip", "legacy", "pickle", "old pickle"])
def test_a_pickled_object_is_refused_before_anything_is_run(tmp_path, state, way):
    path, trace = tmp_path / "evil.pt", tmp_path / "trace"
    content = state | {"extra": Evil(f"touch {trace}")}
    if "pickle" in way:
        path.write_bytes(pickle.dumps({"a": content["extra"]}, protocol=2 if way == "old pickle" else None))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=way == "zip")
    with pytest.raises(
        ValueError, match=r"evil\.pt: need plain tensors, found .*pickled object.*Refused"
    ) as said:
        read_released(path, num_mels=80)
    assert "\n" not in str(said.value)
    assert not trace.exists()
    pickle.loads(path.read_bytes()) if "pickle" in way else torch.load(path, weights_only=False)
    assert trace.exists(), "the file was no danger, so the test would prove nothing"


def test_the_object_is_named(tmp_path, state):
    torch.save(state | {"args": argparse.Namespace(a=1)}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"found a pickled object \(argparse.Namespace\)"):
        read_released(tmp_path / "a.pt", num_mels=80)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda state: {"model": state}, "need a flat dictionary of tensors, found dict at 'model'"),
        (lambda state: [state["cls_token"]], "need a flat dictionary of tensors, found list"),
        (lambda state: state | {"epoch": 3}, "need a flat dictionary of tensors, found int at 'epoch'"),
        (
            lambda state: state | {"head.weight": torch.ones(527, 128)},
            r"unknown key head.weight \(527, 128\)",
        ),
        (lambda state: {"cls_token": state["cls_token"]}, "found no pos_embed"),
        (lambda state: state | {"pos_embed": state["pos_embed"] + 0.1}, "need fixed sine-cosine positions"),
        (lambda state: state | {"pos_embed": state["pos_embed"][:, :-1]}, "need fixed sine-cosine positions"),
    ],
)
def test_anything_else_is_one_line_that_names_file_and_key(tmp_path, state, change, complaint):
    torch.save(change(state), tmp_path / "a.pt")
    with pytest.raises(ValueError, match=rf"a\.pt: .*{complaint}") as said:
        read_released(tmp_path / "a.pt", num_mels=80)
    assert "\n" not in str(said.value)


@pytest.mark.parametrize(
    ("dim", "heads"), [(192, 3), (384, 6), (768, 12), (1024, 16), (128, None), (1280, None)]
)
def test_heads_are_those_of_a_usual_vit_or_not_known(dim, heads):
    assert Released({}, dim, depth=12, crop_frames=608).usual_heads == heads


@pytest.mark.parametrize("content", [b"\x08\x08\x12\x07pytorch", b"hello, world", b"{}", b"0."])
def test_a_file_of_another_program_is_not_called_a_danger(tmp_path, content):
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(
        ValueError, match=r"a\.onnx: need weights written by torch.save, found a damaged or oth"
    ):
        read_released(tmp_path / "a.onnx", num_mels=80)


@pytest.mark.parametrize("size", [0, 5, 100_000])
def test_a_damaged_file_is_one_line(tmp_path, size):
    path = write_released(tmp_path / "a.pt", tiny_pretext())
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"a\.pt: need weights written by torch.save, found a damaged"):
        read_released(path, num_mels=80)
