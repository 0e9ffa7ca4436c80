"""Released weights: found by name, downloaded once; and what a file may hold."""

import argparse
import hashlib
import os
import pickle

import pytest
import torch

from matpac.fetch.http import Patience
from matpac.weights.released import RELEASED, Released, ReleasedFile, find_weights, read_released
from tests.fetch.hostile import Fault, serve
from tests.released import released_state, tiny_pretext, write_released

CONTENT, OTHER = b"weights" * 50_000, b"others"
QUICK = Patience(attempts=2, first_wait_s=0.01, longest_wait_s=0.05, silence_s=0.5)
NAME = "matpac_10_2048"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MATPAC_HOME", str(tmp_path / "home/matpac"))
    return tmp_path / "home/matpac"


@pytest.fixture
def site(tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / f"{NAME}.pt").write_bytes(CONTENT)
    with serve(tmp_path / "site") as site:
        yield site


def find(site):
    return find_weights(NAME, {NAME: ReleasedFile(f"{site.url}/{NAME}.pt", "", "")}, patience=QUICK)


def test_a_name_is_downloaded_once_and_its_digest_is_noted(site, cache):
    assert find(site).read_bytes() == CONTENT
    assert find(site) == cache / f"{NAME}.pt"
    assert len(site.asked_for(f"{NAME}.pt")) == 1
    note = (cache / f"{NAME}.pt.sha256").read_text()
    assert note == f"{hashlib.sha256(CONTENT).hexdigest()}  {NAME}.pt\n"


def test_a_download_goes_on_where_it_was_cut(site):
    site.misbehave(f"{NAME}.pt", Fault(cut_after=200_000))
    assert find(site).read_bytes() == CONTENT
    assert [bool(request.range) for request in site.asked_for(f"{NAME}.pt")] == [False, True]


@pytest.mark.parametrize("folder", [".", "data/checkpoints", "home/matpac"])
def test_a_file_that_is_here_is_not_downloaded(site, tmp_path, cache, folder):
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / folder / f"{NAME}.pt").write_bytes(OTHER)
    assert find(site).read_bytes() == OTHER
    assert site.requests == []
    assert (cache / f"{NAME}.pt.sha256").read_text().startswith(hashlib.sha256(OTHER).hexdigest())


@pytest.mark.parametrize("folder", [".", "home/matpac"])
def test_a_file_that_has_changed_since_its_first_use_is_refused(site, tmp_path, folder):
    find(site)
    (tmp_path / folder / f"{NAME}.pt").write_bytes(OTHER)
    with pytest.raises(ValueError, match=rf"{NAME}\.pt: need the file of the first use .* found ") as said:
        find(site)
    assert hashlib.sha256(CONTENT).hexdigest() in str(said.value)
    assert hashlib.sha256(OTHER).hexdigest() in str(said.value)
    assert "\n" not in str(said.value)


def test_without_a_network_it_says_where_to_put_a_copy(site, cache):
    site.always(f"{NAME}.pt", Fault(status=404))
    with pytest.raises(ValueError, match=rf"cannot be downloaded .* put a copy of it into .*{cache}"):
        find(site)


def test_a_path_that_exists_wins_and_others_are_told_the_names(tmp_path):
    (tmp_path / NAME).mkdir()
    assert find_weights(NAME) == find_weights(tmp_path / NAME).relative_to(tmp_path)
    with pytest.raises(
        ValueError, match=r"need a checkpoint, a saved folder or a released .*, matpac_plus_6s_2048_enconly"
    ):
        find_weights("matpac_11_2048")


def test_the_names_are_those_of_the_files():
    for name, file in RELEASED.items():
        assert file.url.endswith(f"/{name}.pt")


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
