"""One flipped bit in anything that the pipeline keeps is found and named, with what to do."""

import hashlib
import shutil
from contextlib import chdir
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from matpac.cli import app
from matpac.datasets.inventory import take_inventory, write_recordings
from matpac.files import write_json
from matpac.probing.store import write_embeddings
from tests import recordings
from tests.checkpoints import untrained_checkpoint
from tests.files import flip_a_bit
from tests.probing.test_store import features, three_clips
from tests.recordings import build, plan_of

PROJECT = Path(__file__).resolve().parents[1]
STATE = "data/.work/pretrain/0123/update-000000010"
DAMAGED = {
    "recordings/001.wav": ("data/raw/birds", "001.wav", "download@birds"),
    "data/shards/birds/shard-000000.tar": ("data/shards/birds", "shard-000000.tar", "shards@birds"),
    "data/shards/birds/index.parquet": ("data/shards/birds", "index.parquet", "shards@birds"),
    "data/checkpoints/pretrained/networks.safetensors": (
        "data/checkpoints/pretrained",
        "networks.safetensors",
        "--single-item pretrain",
    ),
    "data/embeddings/birds/pretrained/c/0/0": ("data/embeddings/birds", "pretrained/c/0/0", "embed@birds"),
    f"{STATE}/optimizer.safetensors": (STATE, "optimizer.safetensors", f"`rm -r {STATE}`"),
    "data/raw/birds/recordings.parquet": (
        "data/raw/birds",
        "in recordings.parquet than dvc.lock",
        "download@birds",
    ),
    "data/scores/birds.json": ("data/scores/birds.json", "other bytes than dvc.lock", "probe@birds"),
}


def note(stage, path, md5):
    """As DVC does when a stage has ended."""
    lock = Path("dvc.lock")
    noted = yaml.safe_load(lock.read_text()) if lock.exists() else {"schema": "2.0", "stages": {}}
    noted["stages"][stage] = {"cmd": "", "outs": [{"path": str(path), "hash": "md5", "md5": md5}]}
    lock.write_text(yaml.safe_dump(noted))


def make_project():
    root = Path("recordings")
    recordings.write_recordings(root, [0.5, 0.3, 0.4, 0.7])
    write_recordings(Path("data/raw/birds"), take_inventory(root))
    build(plan_of(root, Path("data/.work/shards/birds")), Path("data/shards/birds"))
    for checkpoint in (Path("data/checkpoints/pretrained"), Path(STATE)):
        checkpoint.mkdir(parents=True)
        untrained_checkpoint(checkpoint)
    write_embeddings(Path("data/embeddings/birds"), three_clips(), features())
    scores = Path("data/scores/birds.json")
    scores.parent.mkdir()
    scores.write_text("{}")
    note("probe@birds", scores, hashlib.md5(b"{}").hexdigest())
    inventory = Path("data/raw/birds")
    files = sorted(inventory.iterdir())
    listing = [{"md5": hashlib.md5(file.read_bytes()).hexdigest(), "relpath": file.name} for file in files]
    write_json(Path(".dvc/cache/files/md5/ab/cd.dir"), listing)
    note("download@birds", inventory, "abcd.dir")
    Path("data/shards/None").mkdir()  # as `sources` makes it
    params = yaml.safe_load((PROJECT / "params.yaml").read_text())
    params["datasets"]["birds"] = {
        "kind": "folder",
        "source": "recordings",
        "labels": "none",
        "multi_label": False,
        "num_folds": None,
        "split_fractions": None,
    }
    Path("params.yaml").write_text(yaml.safe_dump(params))


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original")
    with chdir(folder):
        make_project()
    return folder


@pytest.fixture
def verify(in_tmp, original):
    """Runs `matpac verify` in a project with everything that has checksums."""
    shutil.copytree(original, Path(), dirs_exist_ok=True)
    return lambda *paths: CliRunner().invoke(app, ["verify", *paths])


def test_what_is_whole_is_whole(verify):
    done = verify()
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1].startswith("Compared 7 files and folders, ")
    assert done.stdout.endswith("; damaged: none.\n")


@pytest.mark.parametrize("file", DAMAGED)
def test_a_flipped_bit_is_found_and_named_with_what_to_do(verify, file):
    path, found, todo = DAMAGED[file]
    flip_a_bit(Path(file), place=30 if file.endswith(".parquet") else -1)
    done = verify()
    assert done.exit_code == 1, done.output
    [line] = [line for line in done.stdout.splitlines() if not line.startswith("Compared")]
    assert line.startswith(f"{path}: other bytes")
    assert found in line
    assert todo in line
    assert verify(path).exit_code == 1
    other = "data/embeddings" if "shards" in path else "data/shards/birds"
    assert verify(other).exit_code == 0


def test_a_file_more_or_less_is_found(verify):
    Path("data/shards/birds/shard-000002.tar").touch()
    Path("data/embeddings/birds/zarr.json").unlink()
    Path("recordings/003.wav").unlink()
    lines = verify().stdout.splitlines()
    assert "shard-000002.tar, which SHA256SUMS does not list" in lines[1]
    assert "no zarr.json" in lines[2]
    assert "003.wav" in lines[0]
    assert lines[3].endswith("damaged: 3.")


def test_an_inventory_that_cannot_be_read_is_one_line(verify):
    table = Path("data/raw/birds/recordings.parquet")
    table.write_bytes(table.read_bytes()[:-50])
    lines = verify().stdout.splitlines()
    assert lines[0].startswith("data/raw/birds: other bytes in recordings.parquet than dvc.lock notes")
    assert lines[1].startswith("data/raw/birds: it cannot be read (")
    assert len(lines) == 3


def test_recordings_that_were_removed_to_save_room_are_no_damage(verify):
    Path("recordings").rename("elsewhere")
    assert verify().exit_code == 0


def test_a_path_without_checksums_is_answered_with_those_that_have(verify):
    done = verify("data/shards/frogs")
    assert str(done.exception).startswith("data/shards/frogs: need something that has checksums; data/raw")
