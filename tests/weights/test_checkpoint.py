import pytest

from matpac.files import read_json, write_json
from matpac.params import BEFORE
from matpac.weights.checkpoint import read_meta
from matpac.weights.describe import facts_of
from matpac.weights.open import open_weights
from tests.checkpoints import networks_of, untrained_checkpoint


def test_a_checkpoint_that_is_older_than_a_key_did_what_was_done_before(tmp_path):
    folder = untrained_checkpoint(tmp_path)
    new = read_meta(folder)
    raw = read_json(folder / "meta.json")
    for key in BEFORE:
        del raw["pretrain"][key]
    write_json(folder / "meta.json", raw)
    assert read_meta(folder) == new
    assert networks_of(folder).standardize_targets is False


def test_another_format_is_one_line_that_names_the_file(tmp_path):
    write_json(tmp_path / "meta.json", {"format": 1})
    with pytest.raises(ValueError, match=r"meta\.json: format: need 2, found 1\."):
        read_meta(tmp_path)


@pytest.mark.parametrize("use", [networks_of, facts_of, lambda folder: open_weights(str(folder)).networks()])
def test_half_a_file_of_weights_is_named_in_one_line(tmp_path, use):
    weights = untrained_checkpoint(tmp_path) / "networks.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    with pytest.raises(
        ValueError, match=r"networks\.safetensors: need whole weights, found a damaged"
    ) as said:
        use(tmp_path)
    assert "\n" not in str(said.value)
