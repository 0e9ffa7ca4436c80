import errno
import gc
import hashlib
import io
import json
import os
import tarfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from pyarrow import parquet

from matpac.clip import UnusableAudio
from matpac.datasets import inventory
from matpac.datasets.inventory import (
    WAITING_JOBS,
    Inventory,
    Recording,
    content_digest,
    has_inventory,
    open_path,
    read_bytes,
    read_passed_over,
    read_recordings,
    take_inventory,
    unchanged,
    write_recordings,
)
from matpac.walk import AUDIO_SUFFIXES, PassedOver

ALL = ("files", "tars", "parquet")


def put(path, content=b"sound"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def checksum(content):
    return hashlib.sha256(content).hexdigest()


def flac(seed):
    samples = np.random.default_rng(seed).normal(scale=0.1, size=1600)
    file = io.BytesIO()
    soundfile.write(file, samples, 16000, format="FLAC")
    return file.getvalue()


def write_tar(path, members):
    """From pairs of a name and bytes, or a name and the name that it links to."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            header = tarfile.TarInfo(name)
            if isinstance(content, str):
                header.type, header.linkname = tarfile.LNKTYPE, content
                archive.addfile(header)
            else:
                header.size = len(content)
                archive.addfile(header, io.BytesIO(content))


def listed(root, stored_as=ALL):
    return {recording.path: recording for recording in take_inventory(root, stored_as)}


def test_every_audio_file_is_a_recording_with_its_checksum(tmp_path):
    for name in ("b.WAV", "a/c.flac", "a/d e/ü.Mp3", "notes.txt"):
        put(tmp_path / name, name.encode())
    assert list(take_inventory(tmp_path)) == [
        Recording(name, len(name.encode()), checksum(name.encode()), name)
        for name in ("a/c.flac", "a/d e/ü.Mp3", "b.WAV")
    ]


def test_nothing_to_list_is_refused(tmp_path):
    with pytest.raises(ValueError, match="need a folder of recordings, found none"):
        list(take_inventory(tmp_path / "missing"))
    with pytest.raises(ValueError, match=r"need tars with audio files in them .* or parquet or arrow files"):
        list(take_inventory(tmp_path, ("tars", "parquet")))


def test_what_cannot_be_read_is_listed_without_a_checksum(tmp_path):
    (tmp_path / "dead.wav").symlink_to("nowhere")
    (tmp_path / "circle.wav").symlink_to("circle.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    put(tmp_path / "whole.wav")
    (tmp_path / "damaged.tar").write_bytes(b"no tar" * 999)
    (tmp_path / "damaged.parquet").write_bytes(b"no parquet" * 999)
    (tmp_path / "gone.tar").symlink_to("nowhere")
    found = {path: (recording.sha256, recording.trouble) for path, recording in listed(tmp_path).items()}
    troubles = {name: trouble.partition(": ")[0] for name, (sha256, trouble) in found.items() if not sha256}
    assert troubles == {
        "circle.wav": "a link to nothing, or to itself",
        "damaged.parquet": "damaged file",
        "damaged.tar": "damaged tar",
        "dead.wav": "a link to nothing, or to itself",
        "gone.tar": "a link to nothing, or to itself",
        "pipe.wav": "a pipe, socket or device, not a file",
    }
    assert found["whole.wav"] == (checksum(b"sound"), "")


def test_the_reason_is_kept_with_the_inventory_and_in_the_rejection(tmp_path, monkeypatch):
    put(tmp_path / "set" / "a.wav")
    real = Path.open

    def closed(path, *args, **kwargs):
        if path.name == "a.wav":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", closed)
    write_recordings(tmp_path, take_inventory(tmp_path / "set"))
    [recording] = read_recordings(tmp_path)
    with pytest.raises(UnusableAudio, match=r"a\.wav: cannot be read \(Permission denied\)"):
        unchanged(recording, tmp_path / "set")


def test_rows_that_hold_only_a_path_say_so_and_no_path_is_followed(tmp_path):
    put(tmp_path / "clips" / "a.wav")
    cells = [{"bytes": None, "path": path} for path in ("b.wav", "clips/a.wav", "../x.wav", None)]
    parquet.write_table(pa.table({"audio": audio_struct([*cells, None])}), tmp_path / "0.parquet")
    assert [recording.trouble for recording in take_inventory(tmp_path, ("parquet",))] == [
        "the row holds only a path, b.wav",
        "the row holds only a path, clips/a.wav, a file beside the table: kind folder reads those",
        "the row holds only a path, ../x.wav",
        "the row is empty",
        "the row is empty",
    ]


def test_what_containers_hold_besides_audio_is_counted(tmp_path):
    members = [("a.flac", b"one"), ("a.json", b"{}"), ("a.png", b"x"), ("b.png", b"x"), ("._c.png", b"x")]
    write_tar(tmp_path / "0.tar", members)
    write_tar(tmp_path / "1.tar", [("a.png", b"x")])
    parquet.write_table(pa.table({"label": ["cat"]}), tmp_path / "2.parquet")
    put(tmp_path / "b.zip")
    put(tmp_path / "labels.csv")
    passed_over = PassedOver()
    assert len(list(take_inventory(tmp_path, ALL, passed_over, [tmp_path / "labels.csv"]))) == 1
    assert passed_over.number == {
        ".png": 3,
        ".tar without recordings": 1,
        ".parquet without recordings": 1,
        ".zip": 1,
    }
    assert passed_over.examples[".png"] == ["0.tar/a.png", "0.tar/b.png", "1.tar/a.png"]
    write_recordings(tmp_path, [], passed_over)
    assert read_passed_over(tmp_path) == passed_over


def test_containers_are_opened_only_where_that_is_asked_for(tmp_path):
    put(tmp_path / "a.wav")
    write_tar(tmp_path / "b.tar", [("x.flac", b"in a tar")])
    parquet.write_table(pa.table({"audio": [b"in a row"]}), tmp_path / "c.parquet")
    assert list(listed(tmp_path, ("files",))) == ["a.wav"]
    assert list(listed(tmp_path, ("tars",))) == ["b.tar/x.flac"]
    assert list(listed(tmp_path, ("parquet",))) == ["c.parquet/0"]
    everything = listed(tmp_path)
    assert list(everything) == ["a.wav", "b.tar/x.flac", "c.parquet/0"]
    contents = [read_bytes(tmp_path, recording) for recording in everything.values()]
    assert contents == [b"sound", b"in a tar", b"in a row"]
    places = [open_path(tmp_path, recording) for recording in everything.values()]
    assert places == [tmp_path / "a.wav", None, None]


def test_members_of_a_tar_are_read_in_place_with_what_is_said_about_them(tmp_path):
    sounds = [flac(seed) for seed in range(4)]
    long_name = "deep/" * 30 + "take.one.flac"
    write_tar(
        tmp_path / "shards" / "0.tar",
        [
            ("./1.json", b'{"label": "cat"}'),
            ("./1.flac", sounds[0]),
            ("2.flac", sounds[1]),
            ("2.txt", "ein Täubchen\n".encode()),
            ("2.cls", b"7"),
            (long_name, sounds[2]),
            ("3.flac", sounds[3]),
            ("3.json", b"no JSON"),
            ("._3.flac", b"hidden"),
            ("README", b"not audio"),
            (long_name.replace("one.flac", "json"), b'{"label": "first dot"}'),
        ],
    )
    found = listed(tmp_path)
    paths = [f"shards/0.tar/{name}" for name in ("1.flac", "2.flac", long_name, "3.flac")]
    assert list(found) == paths
    for path, sound in zip(paths, sounds, strict=True):
        recording = found[path]
        assert (recording.bytes, recording.sha256) == (len(sound), checksum(sound))
        assert (recording.file, read_bytes(tmp_path, recording)) == ("shards/0.tar", sound)
    assert json.loads(found[paths[0]].about) == {"label": "cat"}
    assert json.loads(found[paths[1]].about) == {"cls": "7", "txt": "ein Täubchen"}
    assert json.loads(found[paths[2]].about) == {"label": "first dot"}
    assert found[paths[3]].about == "no JSON"


def test_a_name_that_a_tar_holds_twice_is_two_recordings_each_with_its_own_label(tmp_path):
    members = [("a.flac", b"one"), ("a.json", b'{"n": 1}'), ("a.flac", b"two"), ("a.json", b'{"n": 2}')]
    write_tar(tmp_path / "0.tar", members)
    found = [
        (recording.path, json.loads(recording.about)["n"], read_bytes(tmp_path, recording))
        for recording in take_inventory(tmp_path, ALL)
    ]
    assert found == [("0.tar/a.flac", 1, b"one"), ("0.tar/a.flac~2", 2, b"two")]


def test_links_in_a_tar_are_listed_and_not_followed(tmp_path):
    write_tar(tmp_path / "0.tar", [("a.flac", b"one"), ("b.flac", "a.flac"), ("c.flac", "/etc/passwd")])
    found = {path: recording.sha256 for path, recording in listed(tmp_path).items()}
    assert found == {"0.tar/a.flac": checksum(b"one"), "0.tar/b.flac": "", "0.tar/c.flac": ""}


@pytest.mark.parametrize(
    ("damage", "whole"),
    [
        (lambda content: content[:3000], ["0.flac"]),
        (lambda content: content[:2048], ["0.flac"]),
        (lambda content: content[:2200], ["0.flac"]),
        (lambda content: content[:4096] + b"\xff" * 512 + content[4608:], ["0.flac", "1.flac"]),
        (lambda content: content[:8192], ["0.flac", "1.flac", "2.flac", "3.flac"]),
        (lambda content: b"", []),
        (lambda content: b"no tar at all" * 100, []),
    ],
)
def test_of_a_damaged_tar_all_that_can_be_listed_is_listed(tmp_path, damage, whole):
    """Each member takes 512 bytes for its header and 1,536 for its sound."""
    write_tar(tmp_path / "0.tar", [(f"{number}.flac", bytes([number]) * 1500) for number in range(4)])
    (tmp_path / "0.tar").write_bytes(damage((tmp_path / "0.tar").read_bytes()))
    put(tmp_path / "1.wav")
    found = listed(tmp_path)
    assert [path for path in found if found[path].sha256] == [*(f"0.tar/{name}" for name in whole), "1.wav"]
    assert found["0.tar"].sha256 == ""
    assert found["0.tar"].trouble.startswith("damaged tar: ")


def test_a_note_that_is_cut_off_says_nothing(tmp_path):
    write_tar(tmp_path / "0.tar", [("a.flac", b"one"), ("a.json", b'{"label": "cat"}')])
    (tmp_path / "0.tar").write_bytes((tmp_path / "0.tar").read_bytes()[: 3 * 512 + 10])
    found = listed(tmp_path)
    assert {path: recording.about for path, recording in found.items()} == {"0.tar/a.flac": "", "0.tar": ""}
    assert found["0.tar/a.flac"].sha256 == checksum(b"one")


def header(name, num_bytes, kind=tarfile.REGTYPE):
    info = tarfile.TarInfo(name)
    info.size, info.type = num_bytes, kind
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    ("hostile", "listed_too"),
    [
        (header("b.flac", -1024), []),
        (header("b.flac", 2**60), ["0.tar/b.flac"]),
        (header("b.flac", 0, tarfile.XHDTYPE) * 5000, []),
    ],
    ids=["negative size", "more bytes than there are", "thousands of nested headers"],
)
def test_hostile_headers_end_the_listing(tmp_path, hostile, listed_too):
    good = header("a.flac", 512) + bytes(512)
    put(tmp_path / "0.tar", good + hostile + bytes(1024))
    found = listed(tmp_path)
    assert list(found) == ["0.tar/a.flac", *listed_too, "0.tar"]
    assert [path for path in found if found[path].sha256] == ["0.tar/a.flac"]


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_mutated_containers_never_stop_the_inventory(tmp_path, kind):
    rng = np.random.default_rng(0)
    path = tmp_path / f"0.{kind}"
    if kind == "tar":
        write_tar(
            path,
            [(f"{'long/' * 30}{number}.{end}", b"{}") for number in range(3) for end in ("flac", "json")],
        )
    else:
        table = pa.table(
            {"audio": audio_struct([{"bytes": b"x" * 300, "path": "a"}] * 20), "n": list(range(20))}
        )
        parquet.write_table(table, path, row_group_size=7)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    put(tmp_path / "1.wav")
    for _ in range(200):
        content = whole.copy()
        content[rng.integers(len(content), size=8)] = rng.choice([0, 57, 120, 128, 255], size=8)
        path.write_bytes(content[: rng.integers(len(content)) if rng.random() < 0.2 else None].tobytes())
        found = list(take_inventory(tmp_path, ALL))
        assert len({recording.path for recording in found}) == len(found)
        assert found[-1].path == "1.wav"
        for recording in found:
            with suppress(OSError):
                read_bytes(tmp_path, recording)


def audio_struct(cells):
    return pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))


def test_rows_of_a_parquet_file_are_recordings_and_other_columns_are_about_them(tmp_path):
    sounds = [flac(seed) for seed in range(50)]
    cells = [{"bytes": sound, "path": f"{number}.flac"} for number, sound in enumerate(sounds)]
    cells[3], cells[4] = None, {"bytes": None, "path": "elsewhere.flac"}
    table = pa.table(
        {
            "label": [["cat", "dog"]] * 50,
            "audio": audio_struct(cells),
            "picture": [b"\x00"] * 50,
            "score": [0.5] * 50,
        }
    )
    parquet.write_table(table, tmp_path / "x.parquet", row_group_size=20)
    found = list(take_inventory(tmp_path, ALL))
    assert [recording.path for recording in found] == [f"x.parquet/{number}" for number in range(50)]
    assert [recording.position for recording in found] == list(range(50))
    assert json.loads(found[7].about) == {"label": ["cat", "dog"], "path": "7.flac", "score": 0.5}
    assert [recording.path for recording in found if not recording.sha256] == ["x.parquet/3", "x.parquet/4"]
    readable = [number for number in range(50) if number not in (3, 4)]
    anyhow = np.random.default_rng(0).permutation(readable).tolist()
    for number in [*readable, *anyhow, 0, 49, 21, 19]:
        assert found[number].sha256 == checksum(sounds[number])
        assert read_bytes(tmp_path, found[number]) == sounds[number]
    for number in (3, 4):
        with pytest.raises(OSError, match=f"no audio in row {number}"):
            read_bytes(tmp_path, found[number])


def test_a_parquet_file_without_audio_is_no_recording(tmp_path):
    parquet.write_table(pa.table({"path": ["a.wav"], "label": ["cat"]}), tmp_path / "labels.parquet")
    put(tmp_path / "a.wav")
    assert list(listed(tmp_path)) == ["a.wav"]


def test_of_a_damaged_parquet_file_the_rows_before_the_damage_are_listed(tmp_path):
    path = tmp_path / "0.parquet"
    table = pa.table({"audio": [bytes([number]) * 4000 for number in range(64)]})
    parquet.write_table(table, path, row_group_size=32, compression="zstd", use_dictionary=False)
    metadata = parquet.read_metadata(path)
    start = metadata.row_group(1).column(0).data_page_offset
    content = path.read_bytes()
    path.write_bytes(content[:start] + b"\xff" * 60 + content[start + 60 :])
    put(tmp_path / "1.parquet", b"no parquet at all")
    found = listed(tmp_path)
    assert [path for path in found if found[path].sha256] == [f"0.parquet/{number}" for number in range(32)]
    assert [path for path in found if not found[path].sha256] == ["0.parquet", "1.parquet"]
    assert read_bytes(tmp_path, found["0.parquet/31"]) == bytes([31]) * 4000
    with pytest.raises(OSError, match="Couldn't deserialize"):
        read_bytes(tmp_path, Recording("0.parquet/40", 4000, "", "0.parquet", 40))


def test_a_file_that_was_replaced_is_read_anew(tmp_path):
    path = tmp_path / "0.parquet"
    for content in (b"before", b"afterwards"):
        parquet.write_table(pa.table({"audio": [content]}), path)
        [recording] = take_inventory(tmp_path, ("parquet",))
        assert read_bytes(tmp_path, recording) == content


def test_a_large_row_group_does_not_fill_the_memory(tmp_path):
    rng = np.random.default_rng(0)
    table = pa.table({"audio": [rng.bytes(2**18) for _ in range(256)]})
    parquet.write_table(table, tmp_path / "0.parquet", use_dictionary=False, write_batch_size=4)
    assert parquet.read_metadata(tmp_path / "0.parquet").num_row_groups == 1
    del table
    before = pa.total_allocated_bytes()
    most = 0
    for recording in take_inventory(tmp_path, ("parquet",)):
        read_bytes(tmp_path, recording)
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < 2**25


def test_the_table_keeps_every_name(tmp_path):
    recordings = [
        Recording('a, "b".wav', 5, "0" * 64, 'a, "b".wav'),
        Recording("t.tar/ü/c\nd.wav", 0, "", "t.tar", 1536, '{"label": "ö"}'),
        Recording("x.parquet/12", 7, "1" * 64, "x.parquet", 12, "{}"),
    ]
    assert not has_inventory(tmp_path)
    assert write_recordings(tmp_path, recordings) == Inventory(3, 12, 1, PassedOver())
    assert has_inventory(tmp_path)
    assert list(read_recordings(tmp_path)) == recordings
    first = (tmp_path / "recordings.parquet").read_bytes()
    write_recordings(tmp_path, iter(recordings))
    assert (tmp_path / "recordings.parquet").read_bytes() == first


def test_a_table_that_is_not_finished_does_not_appear(tmp_path):
    def cut():
        yield Recording("a.wav", 1, "0" * 64, "a.wav")
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        write_recordings(tmp_path, cut())
    assert list(tmp_path.iterdir()) == []


def num_alive():
    return sum(type(thing) is Recording for thing in gc.get_objects())


def test_recordings_pass_through_the_table_and_do_not_pile_up(tmp_path, monkeypatch):
    rows = 100
    monkeypatch.setattr(inventory, "ROWS_PER_GROUP", rows)

    def many():
        for number in range(3 * rows):
            yield Recording(f"{number:06d}.wav", number, "0" * 64, f"{number:06d}.wav")
        assert num_alive() <= 2 * rows + 1

    write_recordings(tmp_path, many())
    for number, recording in enumerate(read_recordings(tmp_path)):
        assert recording.bytes == number
        assert number % rows or num_alive() < 10
    assert number == 3 * rows - 1


def test_an_inventory_is_taken_while_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(inventory, "JOB_RECORDINGS", 5)
    for number in range(800):
        (tmp_path / f"{number:05d}.wav").touch()
    most = max(num_alive() for number, _ in enumerate(take_inventory(tmp_path)) if number % 200 == 0)
    assert 0 < most <= 5 * (WAITING_JOBS + 1)


def test_content_digest_does_not_depend_on_the_order():
    first, second = Recording("a", 1, "0" * 64, "a"), Recording("b", 1, "1" * 64, "b")
    assert content_digest([first, second]) == content_digest([second, first])
    assert content_digest([first]) != content_digest([first, second])


def test_all_odd_files_are_recordings(audio_folder):
    found = list(take_inventory(audio_folder / "odd"))
    assert len(found) == 144
    assert {Path(recording.path).suffix.lower() for recording in found} <= AUDIO_SUFFIXES


def test_a_recording_comes_as_the_bytes_that_were_checked_a_large_one_as_its_path(tmp_path, monkeypatch):
    put(tmp_path / "a.flac", flac(0))
    [recording] = take_inventory(tmp_path)
    assert unchanged(recording, tmp_path) == flac(0)
    monkeypatch.setattr(inventory, "LARGEST_IN_MEMORY", len(flac(0)) - 1)
    assert unchanged(recording, tmp_path) == tmp_path / "a.flac"
    put(tmp_path / "a.flac", flac(1))
    for largest in (len(flac(0)) - 1, 2**26):
        monkeypatch.setattr(inventory, "LARGEST_IN_MEMORY", largest)
        with pytest.raises(UnusableAudio, match="changed"):
            unchanged(recording, tmp_path)
