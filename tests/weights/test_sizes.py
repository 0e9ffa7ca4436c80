"""Sizes with a name, and dimensions given in params.yaml, from the parameters to what is saved."""

import pytest

from matpac.encoder.encoder import load_encoder
from matpac.files import read_json, write_json
from matpac.model.sizes import SIZES
from matpac.params import Custom, Model, digest, load_params, parse_params
from matpac.weights.checkpoint import read_meta, size_of
from matpac.weights.describe import facts_of
from matpac.weights.open import open_checkpoint
from tests.checkpoints import untrained_checkpoint
from tests.recordings import LOGMEL

DIMENSIONS = {
    "encoder_dim": 24,
    "encoder_depth": 3,
    "encoder_heads": 3,
    "predictor_dim": 16,
    "predictor_depth": 1,
    "predictor_heads": 2,
    "head_hidden": 20,
    "head_bottleneck": 10,
}


@pytest.fixture(scope="module")
def params(project):
    return load_params(project / "presets/demo.yaml")


def sized(params, size, custom=None):
    plain = params.model_dump(mode="json")
    plain["model"] |= {"size": size, "custom": custom}
    return parse_params(plain)


def test_every_name_is_a_size(params):
    for name, size in SIZES.items():
        assert size_of(sized(params, name).model) == size
    assert size_of(sized(params, "custom", DIMENSIONS).model)._asdict() == DIMENSIONS


@pytest.mark.parametrize(
    ("size", "custom", "complaint"),
    [
        ("custom", None, "params: model: custom: need encoder_dim, encoder_depth, "),
        (
            "tiny",
            DIMENSIONS,
            "params: model: custom: need null for size tiny, or size custom, got dimensions",
        ),
        (
            "custom",
            DIMENSIONS | {"encoder_heads": 5},
            "params: model.custom: encoder_heads: need a divisor of encoder_dim (24), got 5",
        ),
        (
            "custom",
            DIMENSIONS | {"predictor_dim": 18},
            "params: model.custom: predictor_dim: need a multiple of 4 (for the positions of patches), got",
        ),
        ("custom", {"encoder_depht": 3} | DIMENSIONS, "params: model.custom.encoder_depht: unknown key"),
        (
            "custom",
            {key: value for key, value in DIMENSIONS.items() if key != "head_hidden"},
            "params: model.custom.head_hidden: this key is missing",
        ),
    ],
)
def test_wrong_dimensions_are_one_line_that_says_what_fits(params, size, custom, complaint):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is compared below
        sized(params, size, custom)
    assert str(caught.value).startswith(complaint)
    assert "\n" not in str(caught.value)


def test_a_size_with_a_name_leaves_no_trace_of_the_key(params):
    """Otherwise runs that were interrupted would begin again, and records would be other experiments."""
    known = {"size": "tiny", "mask_ratio": 0.6, "num_clusters": 64, "num_predictor_heads": 1}
    assert params.model.model_dump(mode="json") == known
    assert digest(sized(params, "tiny").model) == digest(known)
    assert digest(sized(params, "custom", DIMENSIONS).model) != digest(known)


def test_dimensions_survive_the_file_that_explains_a_checkpoint(params, tmp_path):
    folder = untrained_checkpoint(tmp_path, model=sized(params, "custom", DIMENSIONS).model)
    assert read_meta(folder).model.custom == Custom(**DIMENSIONS)
    weights = open_checkpoint(folder)
    assert (weights.dim, weights.depth, weights.num_heads) == (24, 3, 3)
    facts = facts_of(folder)
    assert facts["encoder"] == "3 blocks of 24 dimensions"
    assert facts["embedding_dim"] == LOGMEL.num_mels // 16 * 24
    assert facts["model"].startswith("MATPAC, custom, ")


def test_an_encoder_of_given_dimensions_is_saved_with_them(params, tmp_path):
    folder = untrained_checkpoint(tmp_path, model=sized(params, "custom", DIMENSIONS).model)
    encoder = load_encoder(folder, "cpu")
    encoder.save_pretrained(tmp_path / "saved")
    saved = load_encoder(tmp_path / "saved", "cpu")
    assert (saved.digest(), saved.encoder.blocks.num_heads) == (encoder.digest(), 3)
    assert "| encoder | 3 blocks of 24 dimensions |" in (tmp_path / "saved/README.md").read_text()


def test_checkpoints_from_before_the_key_open(tmp_path):
    folder = untrained_checkpoint(tmp_path)
    raw = read_json(folder / "meta.json")
    assert "custom" not in raw["model"]
    write_json(folder / "meta.json", raw | {"model": raw["model"] | {"custom": None}})
    assert read_meta(folder).model == Model(**raw["model"])
