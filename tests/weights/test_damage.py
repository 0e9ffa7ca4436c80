"""Weights that were damaged or edited are refused in one line that names the file and the field."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import matpac
from matpac import hear
from matpac.encoder.encoder import load_encoder
from matpac.files import SUMS, read_json, write_json
from matpac.params import load_params
from matpac.training.history import read_history
from matpac.training.initial import begin_with_
from matpac.weights.checkpoint import new_pretext, read_meta, resume_, save_checkpoint
from matpac.weights.describe import facts_of
from matpac.weights.open import open_checkpoint, open_weights
from tests.checkpoints import untrained_checkpoint
from tests.files import flip_a_bit
from tests.recordings import LOGMEL
from tests.released import TINY_HEADS, released_state, tiny_pretext

PROJECT = Path(__file__).resolve().parents[2]
FILES = {"checkpoint": "networks.safetensors", "saved": "model.safetensors"}
WEIGHT = "student_encoder.blocks.1.mlp.fc1.weight"


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    (folder / "checkpoint").mkdir()
    load_encoder(untrained_checkpoint(folder / "checkpoint"), "cpu").save_pretrained(folder / "saved")
    return folder


@pytest.fixture
def folder(originals, tmp_path):
    shutil.copytree(originals, tmp_path / "copy")
    return tmp_path / "copy"


def refused(use, *words):
    """Whether it is a ValueError of one line with these words in this order; the line."""
    with pytest.raises(ValueError) as said:  # noqa: PT011 - compared here
        use()
    line = str(said.value)
    assert type(said.value) is ValueError
    assert "\n" not in line
    rest = line
    for word in words:
        assert word in rest, line
        rest = rest.partition(word)[2]
    return line


def edit(path, change):
    raw = read_json(path)
    change(raw)
    write_json(path, raw)


def begun_with(name):
    weights, demo = open_weights(name), load_params(PROJECT / "presets/demo.yaml")
    pretrain = demo.pretrain.model_copy(update={"crop_frames": 64})
    begin_with_(new_pretext(weights.logmel, demo.model, pretrain), weights, weights.logmel)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("use", "value"),
    [(matpac.load, float("nan")), (hear.load_model, float("inf")), (begun_with, float("-inf"))],
)
def test_one_weight_that_is_not_finite_is_named(folder, name, value, use):
    file = folder / name / FILES[name]
    tensors = load_file(file)
    tensors[WEIGHT][3, 5] = value
    save_file(tensors, file)
    refused(
        lambda: use(str(folder / name)), FILES[name], WEIGHT, "need finite numbers, found NaN or inf", "1 of"
    )


@pytest.mark.parametrize("name", FILES)
def test_a_filterbank_that_is_not_finite_is_named(folder, name):
    file = folder / name / FILES[name]
    tensors = load_file(file)
    tensors["mel_filters"][0, 0] = float("nan")
    save_file(tensors, file)
    refused(lambda: matpac.load(folder / name), FILES[name], "mel_filters", "need finite numbers")


def test_weights_that_are_no_fractions_are_named(folder):
    file = folder / "saved/model.safetensors"
    tensors = load_file(file)
    save_file(tensors | {WEIGHT: tensors[WEIGHT].to(torch.int8)}, file)
    refused(lambda: matpac.load(folder / "saved"), "model.safetensors", WEIGHT, "torch.int8")


def test_weights_whose_sum_alone_is_infinite_are_sound(folder):
    file = folder / "saved/model.safetensors"
    tensors = load_file(file)
    tensors[WEIGHT][:2] = 3e38
    save_file(tensors, file)
    assert matpac.load(folder / "saved", device="cpu").dim == 128


def put(**values):
    return lambda raw: raw.update(values)


def within(key, **values):
    return lambda raw: raw[key].update(values)


def without(key):
    return lambda raw: raw.pop(key)


CONFIG = [
    (within("standard", std=0), "standard.std: input should be greater than or equal to", "got 0"),
    (within("standard", std=float("nan")), "standard.std: input should be a finite number"),
    (within("standard", std=float("inf")), "standard.std: input should be a finite number"),
    (within("standard", mean=float("nan")), "standard.mean: input should be a finite number"),
    (within("standard", mean="-7"), "standard.mean: input should be a valid number, got '-7'"),
    (within("standard", maen=1.0), "standard.maen: unknown key"),
    (put(chunk_frames=100), "chunk_frames: input should be a multiple of 16, got 100"),
    (put(chunk_frames=64.5), "chunk_frames: input should be a valid integer"),
    (put(num_heads=3), "num_heads: need a divisor of dim (128), got 3"),
    (put(num_heads=True), "num_heads: input should be a valid integer, got True"),
    (put(dim=64), "dim: need a value that fits model.safetensors.", "[1, 1, 128] in it, and [1, 1, 64] by"),
    (put(dim="128"), "dim: input should be a valid integer, got '128'"),
    (put(depth=5), "depth: need a value that fits model.safetensors.", "blocks.4.", "not there"),
    (
        put(depth=3),
        "depth: need a value that fits model.safetensors.",
        "blocks.3.",
        "not there by this value",
    ),
    (put(depth=10**9), "depth: need a value that fits model.safetensors."),
    (put(depth=0), "depth: input should be greater than 0, got 0"),
    (within("logmel", num_mels=32), "logmel: need a value that fits model.safetensors. mel_filters is"),
    (within("logmel", num_mels=40), "logmel: num_mels: need a multiple of 16"),
    (within("logmel", window_ms=50), "logmel: need a value that fits model.safetensors. mel_filters is"),
    (without("num_heads"), "num_heads: this key is missing"),
    (without("standard"), "standard: this key is missing"),
    (put(standart=1), "standart: unknown key"),
    (put(format=3), "format: need 1, found 3"),
    (put(library_name="timm"), "library_name: need matpac, found timm"),
]
META = [
    (within("standard", std=0.0), "standard.std: input should be greater than or equal to", "got 0.0"),
    (within("standard", mean=None), "standard.mean: input should be a valid number, got None"),
    (within("pretrain", crop_frames=100), "pretrain: crop_frames: need a multiple of 16", "got 100"),
    (within("model", size="base"), "model.size: need a value that fits networks.safetensors."),
    (within("model", size="huge"), "model.size: input should be 'tiny', 'small',"),
    (within("model", num_clusters=7), "model.num_clusters: need a value that fits networks.safetensors."),
    (within("model", num_predictor_heads=2), "model.num_predictor_heads: need a value that fits networks."),
    (within("logmel", num_mels=32), "logmel: need a value that fits networks.safetensors. mel_filters is"),
    (without("standard"), "standard: this key is missing"),
    (without("update"), "update: this key is missing"),
    (put(update=-1), "update: input should be greater than or equal to 0, got -1"),
    (put(update=1.5), "update: input should be a valid integer"),
    (put(updates=1), "updates: unknown key"),
    (put(pretrain=[]), "pretrain: input should be"),
    (without("format"), "format: need 2, found None"),
]


@pytest.mark.parametrize(
    ("name", "file", "change", "words"),
    [("saved", "config.json", change, words) for change, *words in CONFIG]
    + [("checkpoint", "meta.json", change, words) for change, *words in META],
)
def test_an_edited_description_is_refused_in_one_line(folder, name, file, change, words):
    edit(folder / name / file, change)
    refused(lambda: open_weights(folder / name), f"{name}/{file}: {words[0]}", *words[1:])


@pytest.mark.parametrize(
    "use", [matpac.load, hear.load_model, begun_with, facts_of, matpac.AudioEncoder.from_pretrained]
)
def test_whatever_opens_weights_checks_them(folder, use):
    edit(folder / "saved/config.json", put(chunk_frames=100))
    refused(
        lambda: use(str(folder / "saved")), "saved/config.json: chunk_frames: ", "multiple of 16, got 100"
    )


@pytest.mark.parametrize("content", ["[]", "7", '"matpac"', "{", "[" * 100_000, "null"])
@pytest.mark.parametrize(("name", "file"), [("saved", "config.json"), ("checkpoint", "meta.json")])
def test_other_json_or_none_is_one_line(folder, name, file, content):
    (folder / name / file).write_text(content)
    refused(lambda: matpac.load(folder / name), f"{name}/{file}: ", "need")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state["cls_token"].fill_(float("nan")), ["cls_token: need finite numbers"]),
        (lambda state: state.update(pos_embed=torch.zeros(3)), ["pos_embed: need 3 axes, found [3]"]),
        (lambda state: state.update(cls_token=torch.tensor(1.0)), ["cls_token: need 3 axes, found []"]),
        (lambda state: state.update(cls_token=torch.zeros(1, 1, 64)), ["fixed sine-cosine positions"]),
        (
            lambda state: state.pop("student_encoder.blocks.2.norm1.bias"),
            ["student_encoder.blocks.2.norm1.bias (our name): need [128]", "found not there"],
        ),
        (
            lambda state: state.update({"student_encoder.blocks.x.norm1.bias": torch.zeros(128)}),
            ["student_encoder.blocks.x.norm1.bias (our name): need not there"],
        ),
        (
            lambda state: state.update({"student_encoder.blocks.900000000.norm1.bias": torch.zeros(128)}),
            ["student_encoder.blocks.4."],
        ),
        (
            lambda state: state.update(
                {"mcl_heads.mcl_heads.0.a": torch.ones(2), "mcl_heads.mcl_heads.1.a": torch.ones(2)}
            ),
            ["mcl_heads.mcl_heads.0.weight"],
        ),
        (
            lambda state: state.update(cls_token=torch.zeros(1, 1, 128, dtype=torch.int8)),
            ["cls_token", "int8"],
        ),
    ],
)
def test_a_damaged_released_file_is_one_line(tmp_path, change, words):
    state = {name: value.detach().clone() for name, value in released_state(tiny_pretext()).items()}
    change(state)
    torch.save(state, tmp_path / "a.pt")
    for use in (
        lambda: matpac.load(tmp_path / "a.pt", num_heads=TINY_HEADS),
        lambda: facts_of(tmp_path / "a.pt"),
    ):
        refused(use, "a.pt: ", *words)


@pytest.fixture
def state(tmp_path):
    """A saved state after one update, and what resumes from it."""
    folder = tmp_path / "state"
    folder.mkdir()
    meta = read_meta(untrained_checkpoint(folder))
    pretext = new_pretext(LOGMEL, meta.model, meta.pretrain)
    optimizer = torch.optim.AdamW(pretext.parameters())
    sum(weight.sum() for weight in pretext.student_encoder.parameters()).backward()
    optimizer.step()
    save_checkpoint(folder, pretext, optimizer, meta)

    def go():
        resume_(folder, pretext, torch.optim.AdamW(pretext.parameters()))

    go()
    return folder, go


def changed(path, change):
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    (path.parent / SUMS).unlink(missing_ok=True)  # as in states of older versions


def first(tensors, ending):
    return next(name for name in tensors if name.endswith(ending))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state[first(state, ".exp_avg_sq")].fill_(float("inf")), ["exp_avg_sq: need finite"]),
        (lambda state: state.pop(first(state, ".step")), ["step: need [] in this run, found not there"]),
        (
            lambda state: state.update({first(state, ".exp_avg"): torch.zeros(2)}),
            ["exp_avg: need [", "in this run, found [2]"],
        ),
        (lambda state: state.update({"9999.step": torch.tensor(1.0)}), ["9999.step: need not there"]),
        (lambda state: state.update(lr=torch.tensor(1.0)), ["lr: need not there in this run"]),
    ],
)
def test_a_damaged_optimizer_is_one_line(state, change, words):
    folder, resume = state
    changed(folder / "optimizer.safetensors", change)
    refused(resume, "optimizer.safetensors: ", *words)


@pytest.mark.parametrize("file", ["meta.json", "networks.safetensors", "optimizer.safetensors"])
def test_a_flipped_bit_is_seen_before_a_run_resumes(state, file):
    folder, resume = state
    (folder / "dvclive").mkdir()
    (folder / "dvclive/metrics.json").touch()  # which a kill left of a finished run
    resume()
    flip_a_bit(folder / file, place=-1)
    refused(resume, f"found other bytes in {file}")


def test_other_weights_than_the_checksums_beside_them_have_no_digest(state):
    folder, _ = state
    assert len(open_checkpoint(folder).digest) == 64
    flip_a_bit(folder / "networks.safetensors", place=-1)
    refused(lambda: open_checkpoint(folder).digest, "networks.safetensors: need the weights of SHA256SUMS")


def test_networks_of_other_sizes_do_not_resume(state):
    folder, resume = state
    changed(folder / "networks.safetensors", lambda tensors: tensors.update({"center.value": torch.zeros(3)}))
    refused(resume, "networks.safetensors: center.value: need [", "found [3]")


@pytest.mark.parametrize(
    ("content", "line"),
    [("step,loss\n0,1.5\n5,", 3), ("step,loss\n0", 2), ("step,loss\n0,1.5,2\n", 2), ("a\nb\n", 2)],
)
def test_a_damaged_history_is_one_line_that_names_the_place(tmp_path, content, line):
    (tmp_path / "metrics.csv").write_text(content)
    (tmp_path / "online.csv").write_text("")
    refused(lambda: read_history(tmp_path), f"metrics.csv: line {line}: need a number in every column")
