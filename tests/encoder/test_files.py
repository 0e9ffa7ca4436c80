"""Audio files -> a table: what is in it, and that it is the same whenever the work was cut off."""

import csv
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import xarray
import zarr

from matpac.clip import Clip, UnusableAudio, phrase_of
from matpac.encoder.encoder import load_encoder
from matpac.encoder.files import embed_files
from matpac.encoder.rows import FILES_PER_PART, list_files, parts_of
from matpac.files import exclusive
from matpac.weights.checkpoint import Standard
from tests.checkpoints import untrained_checkpoint
from tests.files import files_end_at, files_for
from tests.recordings import build, planned, write_noise

RATE = 16_000
FORMATS = ("npz", "parquet", "zarr")
PER_PART = 8
CLOSE = {"rtol": 0, "atol": 5e-5}
"""The weights of this checkpoint are all moved by 0.05: what a batch rounds differently grows tenfold."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return untrained_checkpoint(tmp_path_factory.mktemp("checkpoint"))


def record(path: Path, number: int) -> None:
    """Noise of 0.05 to 1.5 s, every recording another."""
    random = np.random.default_rng(number)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, random.normal(scale=0.1, size=random.integers(800, 24_000)), RATE)


@pytest.fixture
def recordings(tmp_path):
    """Twelve in folders of three, and three files that cannot be used."""
    root = tmp_path / "recordings"
    for number in range(12):
        record(root / f"day {number // 3}" / f"{number:02}.wav", number)
    (root / "day 1" / "empty.wav").touch()
    (root / "noise.flac").write_bytes(b"no audio")
    soundfile.write(root / "short.wav", np.linspace(0, 0.5, 10), RATE)
    (root / "notes.txt").write_text("not looked at")
    return root


def read(out: Path) -> tuple[list[str], np.ndarray, dict[str, str]]:
    """Paths, embeddings and what was left out."""
    if out.suffix == ".parquet":
        table = pq.read_table(out)
        return (
            table["path"].to_pylist(),
            np.array(table["embedding"].to_pylist(), dtype=np.float32),
            json.loads(table.schema.metadata[b"left_out"]),
        )
    if out.suffix == ".zarr":
        found = {name: value.to_numpy() for name, value in xarray.open_zarr(out).variables.items()}
    else:
        found = dict(np.load(out).items())
    left_out = dict(zip(found["left_out"].tolist(), found["reasons"].tolist(), strict=True))
    return found["paths"].tolist(), found["embeddings"], left_out


def contents(out: Path) -> dict[str, bytes]:
    files = [path for path in out.rglob("*") if path.is_file()] if out.is_dir() else [out]
    return {str(path.relative_to(out.parent)): path.read_bytes() for path in files}


@pytest.mark.parametrize("ending", FORMATS)
def test_a_folder_becomes_one_row_a_file_in_the_order_of_names(recordings, checkpoint, tmp_path, ending):
    out = tmp_path / "new" / f"e.{ending}"
    embed_files([recordings], checkpoint, out)
    paths, embeddings, left_out = read(out)
    assert paths == [str(recordings / f"day {n // 3}" / f"{n:02}.wav") for n in range(12)]
    assert left_out == {
        str(recordings / "day 1" / "empty.wav"): "cannot be decoded (the file is empty)",
        str(recordings / "noise.flac"): "cannot be decoded (Format not recognised)",
        str(recordings / "short.wav"): "too short (shorter than one window)",
    }
    encoder = load_encoder(checkpoint)
    alone = np.stack([encoder.embed_file(path) for path in paths])
    np.testing.assert_allclose(embeddings, alone, **CLOSE)
    assert embeddings.dtype == np.float32
    assert [path.name for path in out.parent.iterdir()] == [f"e.{ending}"]


@pytest.mark.parametrize(("ending", "hop_ms"), [*((ending, None) for ending in FORMATS), ("npz", 40)])
def test_in_time_there_is_a_row_for_every_step_of_a_file(recordings, checkpoint, tmp_path, ending, hop_ms):
    out = tmp_path / f"e.{ending}"
    embed_files([recordings], checkpoint, out, in_time=True, hop_ms=hop_ms)
    paths, embeddings, left_out = read(out)
    if ending == "parquet":
        times_ms = pq.read_table(out)["time_ms"].to_numpy()
        of_row = paths
    else:
        found = np.load(out) if ending == "npz" else xarray.open_zarr(out)
        times_ms = np.asarray(found["time_ms"])
        of_row = [paths[file] for file in np.asarray(found["file"])]
    assert len(left_out) == 3
    assert len(set(of_row)) == 12
    encoder = load_encoder(checkpoint)
    for path in set(of_row):
        rows = [row for row, of in enumerate(of_row) if of == path]
        [(expected, centers_ms)] = encoder.embed_in_time(soundfile.read(path)[0], RATE, hop_ms=hop_ms)
        np.testing.assert_allclose(embeddings[rows], expected, **CLOSE)
        np.testing.assert_array_equal(times_ms[rows], centers_ms)


@pytest.fixture
def unusable(tmp_path):
    """Recordings that can be decoded, at least in part, and that shards do without."""
    root = tmp_path / "unusable"
    root.mkdir()
    noise = np.random.default_rng(7).normal(scale=0.1, size=4 * RATE)
    for ending in ("wav", "flac", "ogg", "mp3"):
        soundfile.write(root / f"cut.{ending}", noise, RATE)
        content = (root / f"cut.{ending}").read_bytes()
        (root / f"cut.{ending}").write_bytes(content[: len(content) // 2])
    soundfile.write(root / "silent.wav", np.zeros(RATE), RATE)
    record(root / "usable.wav", 8)
    return root


def test_files_are_left_out_for_the_reasons_that_shards_give(unusable, checkpoint, tmp_path, capsys):
    clips = [Clip(path.stem + path.suffix[1:], path.name) for path in sorted(unusable.iterdir())]
    plan = planned(clips, unusable, tmp_path / "work")
    build(plan, tmp_path / "shards")
    with (tmp_path / "shards" / "rejected.csv").open(newline="") as table:
        rejected = {row["path"]: row["reason"] for row in csv.DictReader(table)}
    assert set(rejected) == {path.name for path in unusable.iterdir()} - {"usable.wav"}

    embed_files([unusable], checkpoint, tmp_path / "e.npz")
    paths, _, left_out = read(tmp_path / "e.npz")
    assert {Path(path).name: reason for path, reason in left_out.items()} == rejected
    assert paths == [str(unusable / "usable.wav")]
    assert "left out: 4 truncated, 1 silent" in capsys.readouterr().err


def test_who_wants_all_files_gets_what_is_there_of_them(unusable, checkpoint, tmp_path):
    embed_files([unusable], checkpoint, tmp_path / "e.npz")
    embed_files([unusable], checkpoint, tmp_path / "e.npz", reject=())
    paths, _, left_out = read(tmp_path / "e.npz")
    # A FLAC that ends within a frame is an error of the decoder.
    assert [Path(path).name for path in left_out] == ["cut.flac"]
    assert len(paths) == 5
    encoder = load_encoder(checkpoint)
    with pytest.raises(UnusableAudio, match="truncated"):
        encoder.embed_file(unusable / "cut.wav")
    assert encoder.embed_file(unusable / "cut.wav", reject=()).shape == (encoder.dim,)


@pytest.mark.parametrize("ending", FORMATS)
def test_what_is_odd_about_a_file_stands_beside_its_embedding(checkpoint, tmp_path, capsys, ending):
    (tmp_path / "in").mkdir()
    record(tmp_path / "in/a.wav", 1)
    volts = np.random.default_rng(2).normal(scale=1000, size=RATE).astype(np.float32)
    soundfile.write(tmp_path / "in/b.wav", volts, RATE, subtype="FLOAT")
    out = tmp_path / f"e.{ending}"
    embed_files([tmp_path / "in"], checkpoint, out)
    if ending == "parquet":
        noted = json.loads(pq.read_schema(out).metadata[b"noted"])
    else:
        found = np.load(out) if ending == "npz" else xarray.open_zarr(out)
        noted = dict(zip(*(np.asarray(found[name]).tolist() for name in ("noted", "notes")), strict=True))
    assert [(Path(path).name, phrase_of(note)) for path, note in noted.items()] == [
        ("b.wav", "not at full scale")
    ]
    assert "nothing left out; used, with a note: 1 not at full scale" in capsys.readouterr().err


def test_files_and_folders_together_are_embedded_once(recordings, checkpoint, tmp_path):
    named = [recordings / "day 3" / "11.wav", recordings / "noise.flac", recordings / "day 3"]
    embed_files(named, checkpoint, tmp_path / "e.npz")
    paths, _, left_out = read(tmp_path / "e.npz")
    assert [Path(path).name for path in paths] == ["11.wav", "09.wav", "10.wav"]
    assert list(left_out) == [str(recordings / "noise.flac")]


def test_a_name_that_is_not_there_is_an_error_before_any_work(recordings, tmp_path):
    (recordings / "dead.wav").symlink_to(tmp_path / "gone.wav")
    for name in ("typo.wav", "typo", "dead.wav"):
        with pytest.raises(ValueError, match=rf"^embed: need files and folders .*, found no .*{name}$"):
            embed_files([recordings, recordings / name], "never opened", tmp_path / "e.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["recordings"]


def test_a_link_in_a_folder_whose_file_is_gone_is_left_out(recordings, checkpoint, tmp_path):
    (recordings / "day 0" / "dead.wav").symlink_to(tmp_path / "gone.wav")
    embed_files([recordings / "day 0"], checkpoint, tmp_path / "e.npz")
    paths, _, left_out = read(tmp_path / "e.npz")
    assert len(paths) == 3
    assert left_out == {
        str(recordings / "day 0" / "dead.wav"): "cannot be read (a link to nothing, or to itself)"
    }


@pytest.mark.parametrize("ending", FORMATS)
def test_where_no_result_can_be_is_said_before_any_work(recordings, tmp_path, ending):
    (tmp_path / "afile").touch()
    out = tmp_path / "afile" / f"e.{ending}"
    with pytest.raises(ValueError, match=rf"^{out}: need a name in a folder, found .* at {tmp_path}/afile$"):
        embed_files([recordings], "never opened", out)


@pytest.mark.parametrize("ending", FORMATS)
def test_a_full_disk_is_one_line_that_names_the_result(recordings, checkpoint, tmp_path, ending):
    """Full while a part is written, of 6 kB, then while the result is: more, but for a store's files."""
    out, days = tmp_path / f"e.{ending}", [recordings / f"day {day}" for day in (0, 2, 3)]
    for num_bytes in (2_000,) if ending == "zarr" else (2_000, 6_500):
        with (
            files_end_at(num_bytes),
            pytest.raises(OSError, match=rf"^{out}: cannot be written \(File too large\)") as said,
        ):
            embed_files(days, checkpoint, out)
        assert "\n" not in str(said.value)
        assert not out.exists()
        assert len(list(tmp_path.rglob("part-*.npz"))) == (num_bytes == 6_500)
        assert not [*tmp_path.rglob("whole*"), *tmp_path.rglob("*.partial")]
    embed_files(days, checkpoint, out)
    assert len(read(out)[0]) == 9


@pytest.mark.parametrize("ending", FORMATS)
def test_a_result_is_for_whom_the_umask_says(recordings, checkpoint, tmp_path, ending):
    out = tmp_path / f"e.{ending}"
    with files_for(0o027):
        embed_files([recordings], checkpoint, out)
    files = [path for path in [out, *out.rglob("*")] if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o640}


def test_files_are_counted_when_they_are_embedded(recordings, checkpoint, tmp_path, monkeypatch, capsys):
    """What is left out is known much earlier, and would be taken for the pace."""
    monkeypatch.setattr("matpac.progress.SECONDS_BETWEEN_LINES", 0)
    embed_files([recordings], checkpoint, tmp_path / "e.npz")
    [said] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("embed: ")]
    assert said.startswith("embed: 15/15 files (100%), ")


def test_what_is_there_is_replaced(recordings, checkpoint, tmp_path):
    for ending in FORMATS:
        out = tmp_path / f"e.{ending}"
        for folder in ("day 0", "day 1"):
            embed_files([recordings / folder], checkpoint, out)
        assert [Path(path).parent.name for path in read(out)[0]] == ["day 1"] * 3


@pytest.mark.parametrize("in_time", [False, True])
@pytest.mark.parametrize("ending", FORMATS)
def test_a_finished_result_is_recognised_and_left_alone(
    recordings, checkpoint, tmp_path, capsys, ending, in_time
):
    out = tmp_path / f"e.{ending}"
    embed_files([recordings], checkpoint, out, in_time=in_time)
    before = {path: path.stat().st_mtime_ns for path in [out, *out.rglob("*")]}
    # What is left where the call was killed after the result was in place.
    (tmp_path / f".e.{ending}.work" / "parts" / "0123").mkdir(parents=True)
    capsys.readouterr()
    embed_files([recordings], checkpoint, out, in_time=in_time)
    said = capsys.readouterr().err
    assert said == (
        f"{out}: whole, of the same encoder and 15 files: nothing to do. Remove it to embed them again.\n"
    )
    assert {path: path.stat().st_mtime_ns for path in [out, *out.rglob("*")]} == before
    assert not list(tmp_path.glob(".e.*"))


@pytest.mark.parametrize("hop_ms", [40, 50])
def test_a_hop_that_cannot_be_is_refused_before_the_work(recordings, checkpoint, tmp_path, hop_ms):
    said = "need in_time" if hop_ms == 40 else "need one that divides"
    with pytest.raises(ValueError, match=rf"^hop_ms: {said}"):
        embed_files([recordings], checkpoint, tmp_path / "e.npz", in_time=hop_ms == 50, hop_ms=hop_ms)
    assert not list(tmp_path.glob("*e.npz*"))


def other_encoder(recordings, checkpoint, folder):
    encoder = load_encoder(checkpoint, "cpu")
    encoder.standard = Standard(mean=-6.0, std=4.0)
    encoder.save_pretrained(folder)
    return {"checkpoint": folder}


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize(
    "changed",
    [
        lambda recordings, *_: record(recordings / "day 0" / "new.wav", 50),
        lambda recordings, *_: (recordings / "day 0" / "00.wav").unlink(),
        lambda recordings, *_: os.utime(recordings / "day 0" / "00.wav", ns=(0, 1)),
        lambda recordings, *_: {"in_time": True},
        other_encoder,
    ],
    ids=["added", "removed", "changed", "in time", "encoder"],
)
def test_a_result_of_anything_else_is_made_anew(recordings, checkpoint, tmp_path, capsys, changed, ending):
    out, fresh = tmp_path / f"e.{ending}", tmp_path / "fresh" / f"e.{ending}"
    asked = {"sources": [recordings], "checkpoint": checkpoint}
    embed_files(**asked, out=out)
    asked |= changed(recordings, checkpoint, tmp_path / "other") or {}
    capsys.readouterr()
    embed_files(**asked, out=out)
    assert "nothing to do" not in capsys.readouterr().err
    embed_files(**asked, out=fresh)
    assert contents(out) == contents(fresh)


def savez(path):
    np.savez(path, paths=np.arange(3))


def save_one_array(path):
    with path.open("wb") as file:
        np.save(file, np.arange(3))


def savez_with_objects(path):
    np.savez(path, made_from=np.array([{}], dtype=object))


def store(path):
    zarr.open_group(path, mode="w").create_array("mine", shape=3, dtype="int64")


def broken_store(path):
    path.mkdir()
    (path / "zarr.json").write_text("{")


@pytest.mark.parametrize(
    ("ending", "write"),
    [
        ("npz", savez),
        ("npz", savez_with_objects),
        ("npz", save_one_array),
        ("npz", lambda path: path.write_bytes(b"PK\x03\x04 damaged")),
        ("parquet", lambda path: pq.write_table(pa.table({"path": ["mine"]}), path)),
        ("parquet", lambda path: path.touch()),
        ("zarr", store),
        ("zarr", broken_store),
    ],
)
def test_what_another_program_left_is_replaced(recordings, checkpoint, tmp_path, ending, write):
    out = tmp_path / f"e.{ending}"
    write(out)
    embed_files([recordings / "day 0"], checkpoint, out)
    assert [Path(path).name for path in read(out)[0]] == ["00.wav", "01.wav", "02.wav"]


class Killed(BaseException):
    """Nothing tidies up after it."""


@pytest.mark.parametrize(("step", "there"), [("move old", "day 0"), ("move new", None), ("delete", "day 1")])
def test_killed_while_it_is_replaced_a_store_is_whole_or_away_and_the_same_call_goes_on(
    recordings, checkpoint, tmp_path, monkeypatch, step, there
):
    out, work = tmp_path / "e.zarr", tmp_path / ".e.zarr.work"
    embed_files([recordings / "day 0"], checkpoint, out)
    rename, rmtree = Path.rename, shutil.rmtree

    def rename_unless_killed(path, target):
        if (step, path) in (("move old", out), ("move new", work / "whole.zarr")):
            raise Killed
        return rename(path, target)

    def delete_half(folder, *arguments, **options):
        if step == "delete" and folder == work:
            (work / "old.zarr" / "zarr.json").unlink()
            rmtree(work / "parts")
            raise Killed
        rmtree(folder, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", rename_unless_killed)
        patched.setattr(shutil, "rmtree", delete_half)
        with pytest.raises(Killed):
            embed_files([recordings / "day 1"], checkpoint, out)
    assert out.exists() == (there is not None)
    if there:
        assert [Path(path).parent.name for path in read(out)[0]] == [there] * 3
    embed_files([recordings / "day 1"], checkpoint, out)
    assert [Path(path).parent.name for path in read(out)[0]] == ["day 1"] * 3
    assert not work.exists()


@pytest.mark.parametrize("name", ["e.csv", "e", "e.npz.gz"])
def test_an_unknown_ending_is_one_line(recordings, checkpoint, tmp_path, name):
    with pytest.raises(
        ValueError, match=r"^--out: need a name that ends in .npz, .parquet, .zarr, got"
    ) as said:
        embed_files([recordings], checkpoint, tmp_path / name)
    assert "\n" not in str(said.value)


def test_a_folder_that_is_no_store_is_not_replaced(recordings, checkpoint, tmp_path):
    (tmp_path / "mine.zarr").mkdir()
    (tmp_path / "mine.zarr" / "novel.txt").write_text("the only copy")
    with pytest.raises(ValueError, match=r"found something else at .*mine\.zarr"):
        embed_files([recordings], checkpoint, tmp_path / "mine.zarr")
    assert (tmp_path / "mine.zarr" / "novel.txt").read_text() == "the only copy"


def test_where_nothing_can_be_used_nothing_is_written(recordings, checkpoint, tmp_path):
    with pytest.raises(ValueError, match="need audio that can be used, found none in 1 files"):
        embed_files([recordings / "short.wav"], checkpoint, tmp_path / "e.npz")
    (tmp_path / "quiet").mkdir()
    with pytest.raises(ValueError, match=r"quiet: need audio files \(.*\), found none"):
        embed_files([tmp_path / "quiet"], checkpoint, tmp_path / "e.npz")
    assert not list(tmp_path.glob("*e.npz*"))


def test_what_a_folder_holds_besides_audio_is_said_in_a_line(checkpoint, tmp_path, capsys):
    write_noise(tmp_path / "set/a.wav", 0.5, seed=0)
    for name in ("b.pdf", os.fsdecode(b"tak\xe9.wav")):
        (tmp_path / "set" / name).write_bytes(b"x")
    os.mkfifo(tmp_path / "set/pipe.wav")
    embed_files([tmp_path / "set"], checkpoint, tmp_path / "e.npz")
    said = capsys.readouterr().err.splitlines()
    assert "passed over: 1 file of other kinds: 1 .pdf; 1 name not in UTF-8 (tak\\xe9.wav)" in said
    assert any("pipe.wav: cannot be read (a pipe, socket or device, not a file)" in line for line in said)


@pytest.mark.parametrize("name", [b"tak\xe9.wav", b"tak\xe9s/0.wav"])
def test_a_name_that_is_not_utf8_is_refused_before_anything_is_embedded(tmp_path, name):
    with pytest.raises(ValueError, match=r"^embed: need file names in UTF-8, found .*tak\\xe9.*") as said:
        embed_files([tmp_path / os.fsdecode(name)], "never opened", tmp_path / "e.parquet")
    assert str(said.value).isprintable()


def test_two_processes_do_not_write_one_result(recordings, checkpoint, tmp_path):
    with (
        exclusive(tmp_path / ".e.npz.work" / "parts"),
        pytest.raises(RuntimeError, match="in use by another"),
    ):
        embed_files([recordings], checkpoint, tmp_path / "e.npz")
    embed_files([recordings], checkpoint, tmp_path / "e.npz")
    assert not list(tmp_path.glob(".e.npz*"))


class Interrupting:
    """A terminal where somebody presses Ctrl-C at the n-th file that is left out."""

    def __init__(self, number: int) -> None:
        self.left = number

    def isatty(self) -> bool:
        return False

    def flush(self) -> None:
        pass

    def write(self, line: str) -> None:
        self.left -= line.startswith("left out")
        if self.left == 0:
            raise KeyboardInterrupt


def more_than_two_parts(root, per_part):
    """Recordings with one in each part that is left out."""
    for number in range(2 * per_part + 4):
        record(root / f"{number:04}.wav", number % 40)
    for part in range(3):
        (root / f"{part * per_part + 2:04}.wav").write_bytes(b"no audio")
    return root


@pytest.fixture
def few(tmp_path, monkeypatch):
    monkeypatch.setattr("matpac.encoder.rows.FILES_PER_PART", PER_PART)
    return more_than_two_parts(tmp_path / "few", PER_PART)


def test_work_goes_on_where_it_was_interrupted(few, checkpoint, tmp_path, monkeypatch, capsys):
    out, whole = tmp_path / "e.npz", tmp_path / "whole" / "e.npz"
    embed_files([few], checkpoint, whole)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", Interrupting(2))
        with pytest.raises(KeyboardInterrupt):
            embed_files([few], checkpoint, out)
    assert not out.exists()
    [part] = (tmp_path / ".e.npz.work").rglob("part-*.npz")
    assert part.name == "part-000000.npz"
    capsys.readouterr()
    embed_files([few], checkpoint, out)
    assert f"embed: {PER_PART} of {2 * PER_PART + 4} files are done\n" in capsys.readouterr().err
    assert contents(out) == contents(whole)
    assert not (tmp_path / ".e.npz.work").exists()


@pytest.mark.parametrize("changed", ["file", "checkpoint"])
def test_unfinished_work_of_other_files_or_weights_is_not_used(
    few, checkpoint, tmp_path, monkeypatch, capsys, changed
):
    out = tmp_path / "e.npz"
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", Interrupting(2))
        with pytest.raises(KeyboardInterrupt):
            embed_files([few], checkpoint, out)
    if changed == "file":
        os.utime(few / "0000.wav", ns=(0, 0))
        record(few / "0000.wav", 41)
    else:
        (tmp_path / "other").mkdir()
        checkpoint = untrained_checkpoint(tmp_path / "other", load_encoder(checkpoint).logmel)
        meta = json.loads((checkpoint / "meta.json").read_text())
        meta["standard"]["mean"] = -6.0
        (checkpoint / "meta.json").write_text(json.dumps(meta))
    embed_files([few], checkpoint, out)
    assert "starts again" in capsys.readouterr().err
    encoder = load_encoder(checkpoint)
    _, embeddings, _ = read(out)
    np.testing.assert_allclose(embeddings[0], encoder.embed_file(few / "0000.wav"), **CLOSE)


def test_a_part_ends_with_its_number_of_files_or_bytes(tmp_path):
    for name, size in {"a": 2**25, "b": 2**25, "c": 1, "d": 2**27, "e": 1, "f": 1}.items():
        with (tmp_path / name).open("wb") as file:
            file.truncate(size)
    files = list_files([tmp_path / name for name in "abcdef"])
    assert ["".join(file.path.name for file in part) for part in parts_of(files)] == ["ab", "cd", "ef"]
    assert [len(part) for part in parts_of(files[-1:] * 600)] == [256, 256, 88]


def start(many, checkpoint, out, project):
    command = [sys.executable, "-m", "matpac", "embed", many, "--checkpoint", checkpoint, "--out", out]
    environment = {**os.environ, "PYTHONPATH": str(project), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(list(map(str, command)), env=environment, stderr=subprocess.DEVNULL)


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["npz", "zarr"])  # a file and a folder
def test_killed_whenever_the_same_call_gives_the_same_bits(checkpoint, tmp_path, project, ending):
    many = more_than_two_parts(tmp_path / "many", FILES_PER_PART)
    whole, out = tmp_path / "whole" / f"e.{ending}", tmp_path / f"e.{ending}"
    embed_files([many], checkpoint, whole)
    work = tmp_path / f".e.{ending}.work"
    for after in ("part-000000.npz", "part-000002.npz"):
        process = start(many, checkpoint, out, project)
        while not list(work.rglob(after)):
            assert process.poll() is None
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not out.exists()
    embed_files([many], checkpoint, out)
    assert contents(out) == contents(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["many", "whole", out.name])


@pytest.mark.parametrize("ending", FORMATS)
def test_deviations_stand_behind_the_means_and_are_another_result(recordings, checkpoint, tmp_path, ending):
    out, encoder = tmp_path / f"table.{ending}", load_encoder(checkpoint)
    embed_files([recordings], checkpoint, out)
    _, means, _ = read(out)
    embed_files([recordings], checkpoint, out, pooling="mean_and_deviation")
    paths, found, _ = read(out)
    np.testing.assert_array_equal(found[:, : encoder.dim], means)
    expected = encoder.embed_file(paths[3], pooling="mean_and_deviation")
    np.testing.assert_allclose(found[3], expected, **CLOSE)


def test_single_steps_have_no_deviation(recordings, checkpoint, tmp_path):
    with pytest.raises(ValueError, match=r"^pooling: need it without in_time \(--in-time\)"):
        embed_files([recordings], checkpoint, tmp_path / "e.npz", in_time=True, pooling="mean_and_deviation")
