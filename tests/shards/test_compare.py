"""`matpac compare-corpus`: shards, checkpoints and published encoders side by side."""

import csv
import shutil

import numpy as np
import pytest
import soundfile

from matpac.cli import main
from matpac.digests import NEW, SAME_CONTENT, SAME_ID, digests_in, known, without_names, write_digests
from matpac.files import DIGESTS
from matpac.shards.compare import compare, opened, text_of, write_listing
from matpac.shards.crops import Crops
from matpac.shards.folder import ShardFolder
from tests.files import flip_a_bit
from tests.recordings import build, plan_of, write_recordings


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """A dataset of six recordings; a copy without the last, with the first encoded again."""
    folder = tmp_path_factory.mktemp("compare")
    write_recordings(folder / "audio", [0.5, 0.5, 0.5, 1.0, 1.0, 1.0])
    shutil.copytree(folder / "audio", folder / "copy")
    (folder / "copy/005.wav").unlink()
    sound, rate_hz = soundfile.read(folder / "copy/000.wav")
    soundfile.write(folder / "copy/000.wav", sound, rate_hz, subtype="PCM_24")
    build(plan_of(folder / "audio", folder / "work/audio"), folder / "shards/birds")
    build(plan_of(folder / "copy", folder / "work/copy"), folder / "elsewhere/birds")
    return folder


def test_shards_list_their_recordings_with_the_bytes_of_the_files(shards):
    found = known(opened(shards / "shards/birds").table, opened(shards / "elsewhere/birds").table)
    assert found.tolist() == [SAME_ID, *[SAME_CONTENT] * 4, NEW]


def test_two_copies_side_by_side(shards):
    a, b = shards / "shards/birds", shards / "elsewhere/birds"
    lines = [line.split() for line in text_of(compare(opened(a), opened(b)), a, b).splitlines()]
    assert lines[5:] == [
        ["birds", "a", "6", "4", "(66.7%)", "1", "(16.7%)", "1", "(16.7%)"],
        ["birds", "b", "5", "4", "(80.0%)", "1", "(20.0%)", "0", "(0.0%)"],
    ]


def test_a_run_has_learned_from_the_clips_that_it_uses_and_no_others(shards):
    folder = [shards / "shards/birds"]
    dropped = Crops(folder, 64, "drop", seed=0).recordings(100)
    assert sorted(dropped.table["id"].to_pylist()) == ["a003", "a004", "a005"]
    assert Crops(folder, 64, "pad", seed=0).recordings(100).counts() == {"birds": 6}
    crops = Crops(folder, 64, "pad", seed=0)
    few = crops.recordings(2)
    drawn = sorted(name.removeprefix("birds/") for name in crops.ids(crops.clips(0, 2)))
    assert sorted(few.table["id"].to_pylist()) == drawn


def test_shards_without_a_list_are_compared_by_id_and_say_so(shards, tmp_path):
    old = shutil.copytree(shards / "shards/birds", tmp_path / "birds")
    (old / DIGESTS).unlink()
    text = text_of(compare(opened(old), opened(shards / "shards/birds")), old, old)
    assert "6 (100.0%)" in text.splitlines()[5]
    assert "a: the content of 6 recordings is not known, they are compared by id." in text


def test_a_damaged_list_of_shards_names_file_and_remedy(shards, tmp_path):
    damaged = shutil.copytree(shards / "shards/birds", tmp_path / "birds")
    flip_a_bit(damaged / DIGESTS, 40)
    with pytest.raises(ValueError, match=r"birds/digests\.parquet: need the bytes.*shards@birds"):
        ShardFolder(damaged).recordings()


def test_all_datasets_of_a_folder_and_a_listing(shards, tmp_path):
    both = tmp_path / "shards"
    shutil.copytree(shards / "elsewhere/birds", both / "birds")
    shutil.copytree(shards / "shards/birds", both / "frogs")
    sides = compare(opened(shards / "shards/birds"), opened(both))
    text = text_of(sides, shards, both)
    assert [line.split()[0] for line in text.splitlines()[5:]] == [
        *["birds"] * 2,
        *["frogs"] * 2,
        *["all"] * 2,
    ]
    # The first recording has another content in `birds`, but the same in `frogs`.
    assert sides[0].counts() == [6, 6, 0, 0]
    sides = compare(opened(shards / "shards/birds"), opened(shards / "elsewhere/birds"))
    assert write_listing(tmp_path / "differ.csv", sides) == 3
    with (tmp_path / "differ.csv").open(newline="") as file:
        rows = [tuple(row.values()) for row in csv.DictReader(file)]
    assert rows == [
        ("a", "birds", "a000", "same id, other or unknown content"),
        ("b", "birds", "a000", "same id, other or unknown content"),
        ("a", "birds", "a005", "only here"),
    ]


def test_the_command_takes_lists_by_themselves(shards, tmp_path, monkeypatch, capsys):
    write_digests(tmp_path / "published", without_names(digests_in(shards / "elsewhere/birds")))
    arguments = [str(tmp_path / "published" / DIGESTS), str(shards / "shards/birds")]
    monkeypatch.setattr(
        "sys.argv", ["matpac", "compare-corpus", *arguments, "--list", str(tmp_path / "l.csv")]
    )
    with pytest.raises(SystemExit) as done:
        main()
    assert done.value.code == 0
    said = capsys.readouterr().out
    assert "l.csv: 3 recordings whose content the other side lacks." in said
    assert np.count_nonzero(["4 (80.0%)" in line for line in said.splitlines()]) == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, r"here: need a checkpoint, .* found nothing there"),
        (lambda path: path.mkdir(), r"here: need .* found no index\.parquet or digests\.parquet in it"),
        (
            lambda path: path.write_text("x"),
            r"here: need a list of recordings .* found a file of another kind",
        ),
    ],
)
def test_what_holds_no_list_is_named(tmp_path, make, message):
    make(tmp_path / "here")
    with pytest.raises(ValueError, match=message):
        opened(tmp_path / "here")
