"""Encoders that are saved, opened elsewhere and published."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
import yaml
from safetensors.numpy import load_file

import matpac
from matpac.digests import SAME_CONTENT, Digests, digests, digests_in, known, read_digests, write_digests
from matpac.encoder.encoder import AudioEncoder
from matpac.weights.describe import facts_of, text_of
from matpac.weights.released import AUDIOSET
from tests.checkpoints import untrained_checkpoint
from tests.encoder.hub_server import hub
from tests.files import files_end_at, files_for
from tests.released import TINY_HEADS, tiny_pretext, write_released

RATE = 16_000
EMBED = """
import sys, numpy as np, torch, matpac
torch.set_num_threads(1)
opened = {"load": matpac.load, "from_pretrained": matpac.AudioEncoder.from_pretrained}[sys.argv[1]]
encoder = opened(sys.argv[2], device="cpu")
waveform = np.random.default_rng(0).normal(scale=0.1, size=30_000)
np.savez(sys.argv[3], means=encoder.embed(waveform, 22_050, layers=True),
         steps=encoder.embed_in_time(waveform, 22_050)[0].embeddings)
"""
PUSH = """
import sys, matpac
encoder = matpac.load(sys.argv[1], device="cpu")
print(encoder.push_to_hub("somebody/birds", token="secret", model_card_kwargs={"license": "cc-by-4.0"}))
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = untrained_checkpoint(tmp_path_factory.mktemp("checkpoint"))
    meta = json.loads((folder / "meta.json").read_text())
    meta |= {"update": 900, "num_clips": 12_345, "hardware": "a | b"}
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder


@pytest.fixture(scope="module")
def encoder(checkpoint):
    return matpac.load(checkpoint, device="cpu")


def test_a_published_encoder_carries_what_it_learned_from_without_names(checkpoint, tmp_path):
    own = shutil.copytree(checkpoint, tmp_path / "pretrained")
    found = Digests(digests("birds", pa.array(["my_garden"]), pa.array([7], pa.uint64())))
    write_digests(own, found)
    for source, target in (("pretrained", "saved"), ("saved", "again"), ("again", "again")):
        matpac.load(tmp_path / source, device="cpu").save_pretrained(tmp_path / target)
    for name in ("saved", "again"):
        table = read_digests(tmp_path / name).table
        assert known(found.table, table).tolist() == [SAME_CONTENT]
        assert "my_garden" not in table["id"].to_pylist()
    # Another encoder in the same folder does not keep it.
    matpac.load(checkpoint, device="cpu").save_pretrained(tmp_path / "again")
    assert digests_in(tmp_path / "again") is None


@pytest.fixture
def fresh(project, tmp_path):
    """Run code in a process of its own that knows no home and no hub but `endpoint`."""

    def run(code, *arguments, endpoint="http://127.0.0.1:9"):
        environment = os.environ | {
            "PYTHONPATH": str(project),
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(tmp_path / "hub"),
            "HF_HUB_DISABLE_XET": "1",
        }
        command = [sys.executable, "-c", code, *map(str, arguments)]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def expected(encoder):
    waveform = np.random.default_rng(0).normal(scale=0.1, size=30_000)
    [(steps, _)] = encoder.embed_in_time(waveform, 22_050)
    return {"means": encoder.embed(waveform, 22_050, layers=True), "steps": steps}


def equal(path, encoder):
    return all(np.array_equal(np.load(path)[name], value) for name, value in expected(encoder).items())


@pytest.mark.slow
@pytest.mark.parametrize("opened", ["load", "from_pretrained"])
def test_a_saved_encoder_embeds_the_same_bits_in_a_fresh_process(
    checkpoint, encoder, fresh, tmp_path, opened
):
    encoder.save_pretrained(tmp_path / "saved")
    fresh(EMBED, opened, tmp_path / "saved", tmp_path / "found.npz")
    assert equal(tmp_path / "found.npz", encoder)


def test_a_saved_encoder_is_the_same_encoder(encoder, tmp_path):
    encoder.save_pretrained(tmp_path / "saved")
    for opened in (matpac.load, AudioEncoder.from_pretrained):
        again = opened(tmp_path / "saved", device="cpu")
        assert isinstance(again, AudioEncoder)
        assert (again.digest(), again.facts()) == (encoder.digest(), encoder.facts())
        for name, value in expected(again).items():
            np.testing.assert_array_equal(value, expected(encoder)[name])
    again.save_pretrained(tmp_path / "again")
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "saved").iterdir()
    }


def test_released_weights_can_be_saved(tmp_path):
    released = write_released(tmp_path / "matpac_10_2048.pt", tiny_pretext())
    encoder = matpac.load(released, device="cpu", num_heads=TINY_HEADS)
    encoder.save_pretrained(tmp_path / "saved")
    again = matpac.load(tmp_path / "saved", device="cpu")
    assert (again.standard, again.digest()) == (AUDIOSET, encoder.digest())
    assert again.encoder.blocks.num_heads == TINY_HEADS
    assert facts_of(tmp_path / "saved")["trained_on"].startswith("AudioSet, 2,012,615 clips")


def test_a_folder_holds_text_and_plain_tensors(encoder, tmp_path):
    encoder.save_pretrained(tmp_path / "saved")
    assert {path.name for path in (tmp_path / "saved").iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
    }
    weights = load_file(tmp_path / "saved/model.safetensors")
    assert {key.split(".")[0] for key in weights} == {"patches", "student_encoder", "mel_filters"}
    config = json.loads((tmp_path / "saved/config.json").read_text())
    assert config["logmel"] == encoder.logmel.model_dump(mode="json")
    assert config["standard"] == {"mean": -7.0, "std": 4.0}
    assert config["origin"]["num_clips"] == 12_345


def test_the_facts_of_an_encoder_go_with_it(checkpoint, encoder, tmp_path):
    encoder.save_pretrained(tmp_path / "saved")
    ours, theirs = facts_of(checkpoint), facts_of(tmp_path / "saved")
    of_encoder_only = ours | {"weights_of_all_networks": ours["weights_of_encoder"]}
    assert theirs == of_encoder_only | {"file": str(tmp_path / "saved")}
    assert "clips trained on         12,345" in text_of(theirs)


def test_the_card_says_what_is_known_and_leaves_the_licence_to_the_user(encoder, tmp_path):
    encoder.save_pretrained(tmp_path / "saved")
    card = (tmp_path / "saved/README.md").read_text()
    [_, head, text] = card.split("---\n", 2)
    assert yaml.safe_load(head) == {
        "library_name": "matpac",
        "pipeline_tag": "feature-extraction",
        "tags": ["audio", "audio-embeddings", "matpac", "self-supervised-learning"],
    }
    assert "embeddings of 128 dimensions; pre-trained without labels on demo_corpus." in text
    assert "| clips trained on | 12,345 |" in text
    assert "| hardware | a \\| b |" in text
    assert "## Licence\n\nNot stated." in text
    assert "## Scores" not in text
    assert str(tmp_path) not in card


@pytest.mark.parametrize(
    ("update", "init", "said"),
    [
        (0, None, "not trained, as far as is known"),
        (0, "matpac_10_2048", "begins with the weights of matpac_10_2048"),
        (
            9,
            "/home/me/runs/mine",
            "begins with the weights of mine, pre-trained without labels on demo_corpus",
        ),
    ],
)
def test_the_card_says_what_weights_the_training_began_with(tmp_path, update, init, said):
    folder = untrained_checkpoint(tmp_path)
    meta = json.loads((folder / "meta.json").read_text())
    meta["update"], meta["pretrain"]["init"] = update, init
    (folder / "meta.json").write_text(json.dumps(meta))
    encoder = matpac.load(folder, device="cpu")
    assert f"embeddings of 128 dimensions; {said}.\n" in str(encoder.generate_model_card())
    encoder.save_pretrained(tmp_path / "saved")
    assert "/home/me" not in (tmp_path / "saved/config.json").read_text()


def test_licence_and_scores_are_given_and_a_card_that_is_there_is_kept(encoder, tmp_path):
    about = {"license": "cc-by-4.0", "scores": "71.7 ± 0.6 % on ESC-10"}
    encoder.save_pretrained(tmp_path / "saved", model_card_kwargs=about)
    card = tmp_path / "saved/README.md"
    assert yaml.safe_load(card.read_text().split("---\n")[1])["license"] == "cc-by-4.0"
    assert "## Scores\n\n71.7 ± 0.6 % on ESC-10\n" in card.read_text()
    assert 'from_pretrained("a folder, or user/repository")' in card.read_text()
    card.write_text("# Mine")
    encoder.save_pretrained(tmp_path / "saved")
    assert card.read_text() == "# Mine"


def test_a_word_that_the_card_does_not_know_leaves_nothing_behind(encoder, tmp_path):
    about = {"licence": "cc-by-4.0"}
    with pytest.raises(TypeError, match="'licence'"):
        encoder.save_pretrained(tmp_path / "saved", model_card_kwargs=about)
    assert not (tmp_path / "saved").exists()
    # Before the Hub is asked for anything.
    with pytest.raises(TypeError, match="'licence'"):
        encoder.push_to_hub("somebody/birds", model_card_kwargs=about)


def test_the_code_in_the_card_runs(encoder, tmp_path):
    encoder.save_pretrained(tmp_path / "saved")
    code = re.search(r"```python\n(.*?)```", (tmp_path / "saved/README.md").read_text(), re.DOTALL)[1]
    code = code.replace("a folder, or user/repository", str(tmp_path / "saved"))
    found = {"waveform": np.zeros(RATE, np.float32), "sample_rate": RATE}
    exec(code, found)
    assert found["embeddings"].shape == (1, 128)
    assert found["clip"].embeddings.shape == (7, 128)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda config: config.update(library_name="timm"), r"library_name: need matpac, found timm"),
        (lambda config: config.update(format=2), r"format: need 1, found 2"),
        (lambda config: config.pop("depth"), r"config.json: depth: this key is missing"),
        (
            lambda config: config.update(depth=5),
            r"config.json: depth: need a value that fits model.safetensors",
        ),
    ],
)
def test_folders_of_something_else_are_refused_in_one_line(encoder, tmp_path, damage, said):
    encoder.save_pretrained(tmp_path / "saved")
    config = json.loads((tmp_path / "saved/config.json").read_text())
    damage(config)
    (tmp_path / "saved/config.json").write_text(json.dumps(config))
    for opened in (matpac.load, AudioEncoder.from_pretrained):
        with pytest.raises(ValueError, match=said) as raised:
            opened(tmp_path / "saved")
        assert "\n" not in str(raised.value)


def test_damaged_weights_are_named_in_one_line(encoder, tmp_path):
    encoder.save_pretrained(tmp_path / "saved")
    weights = tmp_path / "saved/model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    for opened in (matpac.load, AudioEncoder.from_pretrained):
        with pytest.raises(ValueError, match=r"saved/model\.safetensors: .*incomplete") as raised:
            opened(tmp_path / "saved")
        assert "\n" not in str(raised.value)


def test_a_full_disk_is_one_line_that_names_the_file(encoder, tmp_path):
    with (
        files_end_at(100_000),
        pytest.raises(OSError, match=r"saved/model\.safetensors: .*File too large") as said,
    ):
        encoder.save_pretrained(tmp_path / "saved")
    assert "\n" not in str(said.value)
    assert not list((tmp_path / "saved").iterdir())


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640)])
def test_files_are_for_whom_the_umask_says(encoder, tmp_path, umask, mode):
    with files_for(umask):
        encoder.save_pretrained(tmp_path / "saved")
        untrained_checkpoint(tmp_path / "checkpoint")
    for folder, number in (("saved", 3), ("checkpoint", 4)):
        modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / folder).iterdir()]
        assert modes == [mode] * number


TROUBLE = """
import sys, matpac
checkpoint, published, *opened = sys.argv[1:]
for name in (published, *opened):
    try:
        if name == published:
            matpac.load(checkpoint, device="cpu").push_to_hub(name, token="secret")
        else:
            matpac.AudioEncoder.from_pretrained(name)
    except ValueError as error:
        print(type(error.__cause__).__name__, error, sep=": ", end="|")
"""
REFUSALS = {
    "some/missing": (404, "RepoNotFound", "there is no such repository, or it is private. Check the name"),
    "some/private": (401, "", "you have no permission (401). Log in with a token"),
    "some/gated": (403, "GatedRepo", "its owner grants access. Ask for it on its page"),
    "some/forbidden": (403, "", "you have no permission (403). Log in with a token"),
    "some/moved": (404, "RevisionNotFound", "it has no such revision"),
}


def test_what_the_hub_refuses_is_one_line_that_says_why_and_what_to_do(checkpoint, fresh):
    with hub() as server:
        server.refusals |= {name: (status, code) for name, (status, code, _) in REFUSALS.items()}
        server.refusals |= dict.fromkeys(("api/repos/create", "some/birds"), (403, ""))
        said = fresh(TROUBLE, checkpoint, "some/birds", *REFUSALS, "not/a/repository", endpoint=server.url)
    published, *lines, unnamed, nothing = said.split("|")
    assert published.startswith(
        "HfHubHTTPError: some/birds: cannot be published: you have no permission (403). Log"
    )
    for line, (name, (_, _, why)) in zip(lines, REFUSALS.items(), strict=True):
        assert re.match(rf"\w+Error: {name}: cannot be opened: {re.escape(why)}", line), line
    assert unnamed.startswith("HFValidationError: not/a/repository: cannot be opened: it is neither a folder")
    assert (nothing, "\n" in said) == ("", False)


@pytest.mark.slow
def test_without_a_network_it_is_one_line(checkpoint, fresh):
    said = fresh(TROUBLE, checkpoint, "some/birds", "some/owls")
    published, opened, _ = said.split("|")
    assert (
        ": some/birds: cannot be published: ConnectError: [Errno 111] Connection refused. Check network"
    ) in published
    assert (
        ": some/owls: cannot be opened: the Hub gave no answer, and this disk has no whole copy. "
        "Check the network"
    ) in opened
    assert "\n" not in said


@pytest.mark.slow
def test_what_is_published_opens_elsewhere_with_the_same_bits(checkpoint, encoder, fresh, tmp_path):
    with hub() as server:
        said = fresh(PUSH, checkpoint, endpoint=server.url)
        assert said.strip().startswith(f"{server.url}/somebody/birds/")
        assert set(server.repositories["somebody/birds"]) >= {"README.md", "config.json", "model.safetensors"}
        assert server.tokens == {"Bearer secret"}
        fresh(EMBED, "from_pretrained", "somebody/birds", tmp_path / "found.npz", endpoint=server.url)
    assert equal(tmp_path / "found.npz", encoder)
    about = {"license": "cc-by-4.0", "repo_id": "somebody/birds"}
    encoder.save_pretrained(tmp_path / "saved", model_card_kwargs=about)
    assert 'from_pretrained("somebody/birds")' in (tmp_path / "saved/README.md").read_text()
    for path in (tmp_path / "saved").iterdir():
        assert server.repositories["somebody/birds"][path.name] == path.read_bytes()
    # Once there, it opens without a network.
    fresh(EMBED, "from_pretrained", "somebody/birds", tmp_path / "again.npz", endpoint=server.url)
    assert equal(tmp_path / "again.npz", encoder)
