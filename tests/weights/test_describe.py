"""What `matpac info` says of an encoder."""

import json
import sys

import pytest

from matpac.cli import main
from matpac.weights.describe import facts_of, json_of, model_card, text_of
from tests.checkpoints import networks_of, untrained_checkpoint
from tests.released import tiny_pretext, write_released


@pytest.fixture(autouse=True)
def _nothing_is_cached(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MATPAC_HOME", str(tmp_path / "home"))


def num_weights(module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def test_a_checkpoint_tells_what_it_is(tmp_path):
    folder = untrained_checkpoint(tmp_path / "pretrained")
    meta = json.loads((folder / "meta.json").read_text())
    meta |= {"update": 900, "num_clips": 12_345, "duration_s": 5_400.0, "git_revision": "abc"}
    (folder / "meta.json").write_text(json.dumps(meta))
    known, pretext = facts_of(folder), networks_of(folder)
    assert known["weights_of_encoder"] == num_weights(pretext.student_encoder) + num_weights(pretext.patches)
    assert known["weights_of_all_networks"] == num_weights(pretext) + 64  # and the centre
    assert known["embedding_dim"] == 128
    assert known["statistics"] == {"mean": -7.0, "std": 4.0}
    assert known["heard_hours"] == round(900 * 32 * 0.64 / 3600, 3)
    assert known["duration_hours"] == 1.5
    assert known["trained_on"] == ["demo_corpus"]
    assert json.loads(json_of(known)) == known
    assert known["recordings"] == "unknown", "the checkpoint is older than lists of recordings"


def test_a_checkpoint_and_its_card_say_what_was_heard(tmp_path):
    folder = untrained_checkpoint(tmp_path / "pretrained")
    meta = json.loads((folder / "meta.json").read_text())
    meta |= {"update": 900, "num_recordings": {"birds": 9_400, "frogs": 600}}
    (folder / "meta.json").write_text(json.dumps(meta))
    facts = facts_of(folder)
    assert "recordings learned from  birds 9,400, frogs 600" in text_of(facts)
    assert "pre-trained without labels on 10,000 recordings of birds, frogs." in model_card(facts)


def test_the_text_is_aligned_and_leaves_out_what_is_unknown(tmp_path):
    text = text_of(facts_of(untrained_checkpoint(tmp_path / "pretrained")))
    assert "weights of encoder       8" in text
    assert "hardware" not in text
    assert len({line.index("  ") < line.rindex("  ") + 2 for line in text.splitlines()}) == 1
    assert "front end                sample_rate_hz 16,000, window_ms 25," in text


def test_a_released_file_tells_what_it_holds(tmp_path):
    pretext = tiny_pretext()
    known = facts_of(write_released(tmp_path / "mine.pt", pretext))
    assert known["weights_of_encoder"] == num_weights(pretext.student_encoder) + num_weights(pretext.patches)
    assert (known["embedding_dim"], known["crop_frames"], known["trained_on"]) == (640, 608, "unknown")


def test_of_a_released_name_it_tells_what_is_published_and_downloads_nothing(tmp_path):
    known = facts_of("matpac_10_2048")
    assert known["statistics"] == {"mean": -7.056, "std": 4.193}
    assert known["url"].endswith("/Initial_release/matpac_10_2048.pt")
    assert known["file"].startswith("not here yet")
    assert not (tmp_path / "home").exists()


def test_the_command_says_it_as_text_or_json(tmp_path, monkeypatch, capsys):
    untrained_checkpoint(tmp_path / "data/checkpoints/pretrained")
    known = facts_of("data/checkpoints/pretrained")
    for options, said in (([], text_of(known)), (["--json"], json_of(known))):
        monkeypatch.setattr(sys, "argv", ["matpac", "info", *options])
        with pytest.raises(SystemExit) as done:
            main()
        assert (done.value.code, capsys.readouterr().out) == (0, f"{said}\n")
