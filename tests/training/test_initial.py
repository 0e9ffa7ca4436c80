"""pretrain.init: whose weights a run begins with, and what is refused."""

import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from matpac.datasets.fingerprints import write_encoders
from matpac.digests import Digests, digests, read_digests, without_names, write_digests
from matpac.encoder.encoder import load_encoder, student_of, untrained_encoder
from matpac.files import checksum, read_json, write_json
from matpac.model.pretext import Pretext
from matpac.model.sizes import Size
from matpac.params import load_params
from matpac.training.initial import begin_with_
from matpac.training.run import pretrain_stage
from matpac.weights.checkpoint import read_meta
from matpac.weights.describe import facts_of, learned_from
from matpac.weights.open import open_weights
from matpac.weights.released import AUDIOSET, PAPER_LOGMEL
from tests.released import TINY_HEADS, released_state, tiny_pretext, write_released

ALL = ("patches.", "student_", "teacher_", "predictor.", "center.")
NOISE = np.random.default_rng(0).normal(scale=0.1, size=100_000)


@pytest.fixture
def released(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_released(tmp_path / "tiny.pt", tiny_pretext())


@pytest.fixture
def params(project, released):
    """presets/released.yaml with a tiny encoder."""
    whole = load_params(project / "presets/released.yaml")
    return whole.model_copy(
        update={
            "model": whole.model.model_copy(update={"size": "tiny", "num_clusters": 64}),
            "pretrain": whole.pretrain.model_copy(update={"init": str(released)}),
        }
    )


def fresh(**changes) -> Pretext:
    values = {"num_mels": 80, "crop_frames": 208, "num_clusters": 64, "num_hypotheses": 1}
    pretext = Pretext(changes.pop("size", tiny_size()), **values | changes, center_momentum=0.9)
    pretext.initialize_(torch.Generator().manual_seed(0))
    return pretext


def tiny_size(**changes) -> Size:
    return Size(128, 4, 4, 96, 2, 4, 256, 64)._replace(**changes)


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_the_preset_is_the_papers_protocol_on_the_released_weights(project):
    params = load_params(project / "presets/released.yaml")
    paper = load_params(project / "presets/paper.yaml")
    assert params.logmel == PAPER_LOGMEL
    assert (params.pretrain.crop_frames, params.pretrain.init) == (608, "matpac_10_2048")
    assert params.model == paper.model
    assert params.probe == paper.probe


def test_golden_weights_embed_as_the_authors_code_after_a_run_has_begun_with_them(golden_folder):
    arch = json.loads((golden_folder / "infer_meta.json").read_text())
    size = Size(arch["embed_dim"], arch["depth"], arch["num_heads"], 24, 2, 4, 40, 256)
    pretext = fresh(size=size, crop_frames=arch["n_t"])
    initial = open_weights(str(golden_folder / "infer_state.pt"))
    begin_with_(pretext, initial, PAPER_LOGMEL)
    encoder = student_of(pretext, initial.logmel, initial.standard, arch["n_t"])
    with (
        np.load(golden_folder / "infer_inputs.npz") as inputs,
        np.load(golden_folder / "infer_outputs.npz") as outputs,
    ):
        wave = inputs["wave_int16"] * inputs["wave_scale"]
        for name, (start, length) in zip(inputs["clip_names"], inputs["clip_start_len"], strict=True):
            [found] = encoder.embed(wave[start : start + length], 16_000, layers=True)
            np.testing.assert_allclose(found, outputs[f"precise_pooled_{name}"].squeeze(), atol=1e-5)


def test_the_teacher_begins_as_the_student_where_the_file_has_none(released):
    pretext, before = fresh(), fresh()
    begin_with_(pretext, open_weights(str(released)), PAPER_LOGMEL)
    assert equal(pretext.student_encoder, tiny_pretext().student_encoder)
    assert equal(pretext.teacher_encoder, pretext.student_encoder)
    assert equal(pretext.patches, tiny_pretext().patches)
    assert equal(pretext.predictor, before.predictor)
    assert equal(pretext.teacher_head, before.teacher_head)


def test_all_networks_that_a_file_has_are_taken(tmp_path):
    whole = tiny_pretext()
    path = write_released(tmp_path / "state.pt", whole, ALL)
    pretext = fresh()
    begin_with_(pretext, open_weights(str(path)), PAPER_LOGMEL)
    assert equal(pretext, whole)
    assert not equal(pretext.teacher_encoder, pretext.student_encoder)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"size": tiny_size(encoder_dim=64)}, "model.size"),
        ({"size": tiny_size(encoder_depth=3)}, "model.size"),
        ({"size": tiny_size(encoder_depth=5)}, "model.size"),
        ({"size": tiny_size(head_hidden=128)}, "model.size"),
        ({"num_clusters": 32}, "model.num_clusters"),
        ({"num_hypotheses": 5}, "model.num_predictor_heads"),
    ],
)
def test_other_sizes_are_one_line_that_names_the_field(tmp_path, changes, field):
    initial = open_weights(str(write_released(tmp_path / "state.pt", tiny_pretext(), ALL)))
    with pytest.raises(ValueError, match=rf"^{field}: the weights of pretrain.init \(.*state.pt\)") as said:
        begin_with_(fresh(**changes), initial, PAPER_LOGMEL)
    assert "\n" not in str(said.value)


def test_another_front_end_is_one_line_that_names_the_field(released):
    other = PAPER_LOGMEL.model_copy(update={"resampler": "soxr_hq"})
    with pytest.raises(ValueError, match=r"^logmel.resampler: need kaiser_best, .* got soxr_hq$"):
        begin_with_(fresh(), open_weights(str(released)), other)


def test_without_epochs_the_checkpoint_is_the_released_encoder(params, released, tmp_path):
    out = tmp_path / "data/checkpoints/pretrained"
    pretrain_stage(tmp_path / "shards", out, params, tmp_path / "corpus.json")
    meta = read_meta(out)
    assert (meta.standard, meta.update, meta.total_updates) == (AUDIOSET, 0, 0)
    assert meta.init_digest == open_weights(str(released)).digest
    ours, theirs = load_encoder(out, "cpu"), load_encoder(released, "cpu", num_heads=TINY_HEADS)
    assert np.array_equal(ours.embed(NOISE, 16_000), theirs.embed(NOISE, 16_000))
    untrained = untrained_encoder(out, "cpu").embed(NOISE, 16_000)
    assert not np.allclose(ours.embed(NOISE, 16_000), untrained, atol=0.01)
    assert not list((tmp_path / "data/.work/pretrain").glob("*/"))


def test_a_run_can_begin_with_a_checkpoint_of_ours(params, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    pretrain_stage(tmp_path, first, params, tmp_path / "corpus.json")
    again = params.model_copy(
        update={"pretrain": params.pretrain.model_copy(update={"init": str(first), "seed": 1})}
    )
    pretrain_stage(tmp_path, second, again, tmp_path / "corpus.json")
    networks = [load_file(folder / "networks.safetensors") for folder in (first, second)]
    assert all(torch.equal(value, networks[1][key]) for key, value in networks[0].items())


@pytest.fixture
def saved(released, tmp_path):
    """The released encoder, as `save_pretrained` writes it."""
    load_encoder(released, "cpu", num_heads=TINY_HEADS).save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def test_a_run_can_begin_with_a_saved_encoder(params, released, saved, tmp_path):
    out = tmp_path / "data/checkpoints/pretrained"
    begun = params.model_copy(update={"pretrain": params.pretrain.model_copy(update={"init": str(saved)})})
    pretrain_stage(tmp_path / "shards", out, begun, tmp_path / "corpus.json")
    meta = read_meta(out)
    assert meta.standard == AUDIOSET
    assert meta.init_digest == checksum(saved / "model.safetensors")
    ours, theirs = load_encoder(out, "cpu"), load_encoder(saved, "cpu")
    assert np.array_equal(ours.embed(NOISE, 16_000), theirs.embed(NOISE, 16_000))
    pretext = fresh()
    begin_with_(pretext, open_weights(str(saved)), PAPER_LOGMEL)
    assert equal(pretext.teacher_encoder, pretext.student_encoder)
    assert (meta.num_recordings, meta.unknown_recordings) == ({}, (saved.name,))


def test_a_run_inherits_what_its_initial_weights_have_learned_from(params, saved, tmp_path):
    ids, content = pa.array(["b1", "b2"]), pa.array([1, 2], pa.uint64())
    write_digests(saved, without_names(Digests(digests("birds", ids, content), ("released",))))
    begun = params.model_copy(update={"pretrain": params.pretrain.model_copy(update={"init": str(saved)})})
    pretrain_stage(tmp_path / "shards", tmp_path / "out", begun, tmp_path / "corpus.json")
    meta = read_meta(tmp_path / "out")
    assert (meta.num_recordings, meta.unknown_recordings) == ({"birds": 2}, ("released",))
    assert read_digests(tmp_path / "out").table.equals(read_digests(saved).table)
    facts = facts_of(tmp_path / "out")
    assert learned_from(facts) == "2 recordings of birds, after unknown ones by released"


def test_a_saved_encoder_brings_its_statistics_and_needs_its_front_end(saved):
    config = read_json(saved / "config.json")
    config["standard"]["mean"], config["logmel"]["hop_ms"] = -3.0, 20
    write_json(saved / "config.json", config)
    initial = open_weights(str(saved))
    assert initial.standard.mean == -3.0
    with pytest.raises(ValueError, match=r"^logmel.hop_ms: need 20.0, .* got 10.0$"):
        begin_with_(fresh(), initial, PAPER_LOGMEL)


def test_another_number_of_attention_heads_is_refused_though_no_shape_tells(released, tmp_path):
    load_encoder(released, "cpu", num_heads=2).save_pretrained(tmp_path / "two")
    with pytest.raises(ValueError, match=r"^model.size: .*two\) .*: 2 attention heads, 4 in this run$"):
        begin_with_(fresh(), open_weights(str(tmp_path / "two")), PAPER_LOGMEL)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_changed_contents_of_a_saved_encoder_show_to_the_pipeline(saved, tmp_path, file):
    def noted():
        write_encoders(tmp_path / "sources", str(saved), {})
        return read_json(tmp_path / "sources/initial-weights.json")

    before = noted()
    (saved / "README.md").write_text("another card")
    assert noted() == before
    (saved / file).write_bytes((saved / file).read_bytes() + b" ")
    assert noted() != before


def test_the_released_names_cover_every_network():
    assert len(released_state(tiny_pretext(), ALL)) == len(tiny_pretext().state_dict()) + 1
