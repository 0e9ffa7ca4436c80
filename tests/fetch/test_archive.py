"""Archives of every kind, whole, damaged and malicious."""

import gzip
import io
import random
import shutil
import stat
import struct
import subprocess
import tarfile
import zipfile
import zlib
from collections import namedtuple

import pytest

from matpac.fetch import archive as module
from matpac.fetch.archive import UnusableArchive, unpack
from matpac.fetch.http import DiskTooSmall

FILES = {
    "set/audio/a.wav": bytes(random.Random(1).randbytes(70_000)),
    "set/audio/ü b.wav": b"RIFF" * 10_000,
    "set/empty.wav": b"",
    "set/about.txt": b"About.",
}


def tree(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def make_zip(path, files=FILES, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tar_member(archive, name, content=b"", **fields):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for field, value in fields.items():
        setattr(member, field, value)
    archive.addfile(member, io.BytesIO(content))


def make_tar(path, files=FILES, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            tar_member(archive, name, content)
    return path


def make_tar_gz(path, files=FILES):
    return make_tar(path, files, "w:gz")


def cut_into(path, num_parts):
    """Files of equal size that follow each other."""
    content = path.read_bytes()
    size = -(-len(content) // num_parts)
    parts = [path.with_name(f"{path.name}.{number + 1:03d}") for number in range(num_parts)]
    for number, part in enumerate(parts):
        part.write_bytes(content[number * size :][:size])
    path.unlink()
    return parts


@pytest.mark.parametrize("make", [make_zip, make_tar, make_tar_gz])
def test_an_archive_becomes_a_folder(tmp_path, make):
    path, heard = make(tmp_path / "set.archive"), []
    unpack([path], tmp_path / "out", lambda *progress: heard.append(progress))
    assert tree(tmp_path / "out") == FILES
    assert heard[-1] == (path.stat().st_size, path.stat().st_size)
    assert {path.name for path in tmp_path.iterdir()} == {"set.archive", "out"}


@pytest.mark.parametrize("make", [make_zip, make_tar, make_tar_gz])
@pytest.mark.parametrize("num_parts", [2, 3, 50])
def test_an_archive_in_pieces_becomes_a_folder(tmp_path, make, num_parts):
    unpack(cut_into(make(tmp_path / "set.archive"), num_parts), tmp_path / "out")
    assert tree(tmp_path / "out") == FILES


def split_zip(folder, zip64):
    """As FSD50K comes: made by Info-ZIP, in parts of 64 KiB."""
    if shutil.which("zip") is None:
        pytest.skip("no program `zip`")
    files = {
        f"set/{number:02d}.wav": random.Random(number).randbytes(20_000 + number) for number in range(12)
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    force = ["-fz"] if zip64 else []
    subprocess.run(["zip", "-q", "-r", "-s", "64k", *force, "set.zip", "set"], cwd=folder, check=True)
    parts = [*sorted(folder.glob("set.z0*")), folder / "set.zip"]
    assert len(parts) == 4
    return parts, files


@pytest.mark.parametrize("zip64", [False, True])
def test_a_split_zip_of_info_zip_becomes_a_folder(tmp_path, zip64):
    parts, files = split_zip(tmp_path, zip64)
    unpack(parts, tmp_path / "out")
    assert tree(tmp_path / "out") == files


def test_a_split_zip_without_one_of_its_parts_is_refused(tmp_path):
    parts, _ = split_zip(tmp_path, zip64=False)
    with pytest.raises(
        UnusableArchive, match=r"set.zip: cannot be unpacked \(a split zip of 4 parts, found 3"
    ):
        unpack([parts[0], *parts[2:]], tmp_path / "out")


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_a_damaged_split_zip_is_refused(tmp_path, place):
    parts, _ = split_zip(tmp_path, zip64=False)
    content = bytearray(parts[1].read_bytes())
    content[int(place * len(content))] ^= 0xFF
    parts[1].write_bytes(content)
    with pytest.raises(
        UnusableArchive, match=r"set.zip: cannot be unpacked at member 'set/\d+.wav' \(Bad CRC"
    ):
        unpack(parts, tmp_path / "out")


def test_a_large_zip_with_64_bit_fields_becomes_a_folder(tmp_path):
    with (
        zipfile.ZipFile(tmp_path / "set.zip", "w") as archive,
        archive.open("a.wav", "w", force_zip64=True) as out,
    ):
        out.write(b"RIFF" * 100)
    unpack([tmp_path / "set.zip"], tmp_path / "out")
    assert tree(tmp_path / "out") == {"a.wav": b"RIFF" * 100}


def test_utf8_names_without_the_flag_are_understood(tmp_path):
    """As `zip` on Linux writes them."""
    path = make_zip(tmp_path / "set.zip", {"m__.wav": b"RIFF"}, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"m__.wav", "mü.wav".encode()))
    unpack([path], tmp_path / "out")
    assert tree(tmp_path / "out") == {"mü.wav": b"RIFF"}


# Interrupted calls.


@pytest.mark.parametrize("make", [make_zip, make_tar, make_tar_gz])
def test_what_was_unpacked_is_not_written_again(tmp_path, make):
    path, out = make(tmp_path / "set.archive"), tmp_path / "out"
    unpack([path], out)
    whole, cut = out / "set" / "audio" / "a.wav", out / "set" / "audio" / "ü b.wav"
    kept = whole.stat()
    cut.write_bytes(b"RIFF")
    (out / "set" / "about.txt").unlink()
    unpack([path], out)
    assert tree(out) == FILES
    assert (whole.stat().st_ino, whole.stat().st_mtime_ns) == (kept.st_ino, kept.st_mtime_ns)


class Interrupted(BaseException):
    pass


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_an_interrupted_call_leaves_whole_members_only(tmp_path, make, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(module, "REPORT_EVERY_S", 0)
    path, out, calls = make(tmp_path / "set.archive"), tmp_path / "out", []

    def interrupt(*_):
        calls.append(0)
        if len(calls) == 75:  # a.wav has 70 pieces of 1000 bytes.
            raise Interrupted

    with pytest.raises(Interrupted):
        unpack([path], out, interrupt)
    assert tree(out) == {"set/audio/a.wav": FILES["set/audio/a.wav"]}
    unpack([path], out)
    assert tree(out) == FILES


# Damaged archives.


@pytest.mark.parametrize("make", [make_zip, make_tar, make_tar_gz])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.6, 0.9])
def test_a_cut_archive_is_refused(tmp_path, make, share):
    path = make(tmp_path / "set.archive")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(UnusableArchive, match=r"^set.archive: cannot be unpacked[^\n]*$"):
        unpack([path], tmp_path / "out")
    assert tree(tmp_path / "out").items() <= FILES.items()


def test_a_tar_cut_between_two_members_is_refused(tmp_path):
    path = make_tar(tmp_path / "set.tar")
    path.write_bytes(path.read_bytes()[: 512 + 70_144])
    with pytest.raises(
        UnusableArchive, match=r"at member 'set/audio/a.wav' \(empty header where a member should be"
    ):
        unpack([path], tmp_path / "out")


@pytest.mark.parametrize(
    ("make", "problem"),
    [(make_zip, r" at member 'set/audio/a.wav' \(Bad CRC"), (make_tar_gz, r".*CRC check failed")],
)
def test_a_changed_byte_is_noticed(tmp_path, make, problem):
    path = make(tmp_path / "set.archive")
    content = bytearray(path.read_bytes())
    content[30_000] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(UnusableArchive, match=f"set.archive: cannot be unpacked{problem}"):
        unpack([path], tmp_path / "out")


@pytest.mark.parametrize(
    "content",
    [b"<html>Sorry</html>", b"", b"PK", b"\x1f\x8b", b"RIFF" * 1000, b"PK\3\4PK\5\6", b"\xff" * 2000],
)
def test_what_is_no_archive_is_refused(tmp_path, content):
    (tmp_path / "set.zip").write_bytes(content)
    with pytest.raises(UnusableArchive, match=r"set.zip: cannot be unpacked \("):
        unpack([tmp_path / "set.zip"], tmp_path / "out")


@pytest.mark.parametrize("make", [make_zip, make_tar, make_tar_gz])
def test_damage_anywhere_is_one_line_and_stays_in_the_folder(tmp_path, make):
    """300 archives with a few changed bytes each: unpacked, or refused in one line."""
    path = make(tmp_path / "in.archive", {"set/a.wav": b"RIFF" * 50, "set/b.wav": b"WAVE"})
    generator = random.Random(0)
    sound, problems = path.read_bytes(), []
    for _ in range(300):
        content = bytearray(sound)
        for _ in range(generator.randint(1, 4)):
            content[generator.randrange(len(content))] = generator.randrange(256)
        path.write_bytes(content)
        try:
            unpack([path], tmp_path / "out")
        except UnusableArchive as error:
            problems.append(str(error))
        shutil.rmtree(tmp_path / "out")
        assert {found.name for found in tmp_path.iterdir()} == {"in.archive"}
    assert len(problems) > 30
    assert not [problem for problem in problems if "\n" in problem]


# Malicious archives.

NAMES = {
    "/outside.wav": "has an absolute path",
    "../outside.wav": "leads out of its folder",
    "a/../../outside.wav": "leads out of its folder",
    "a/..": "leads out of its folder",
    "C:/outside.wav": "has an absolute path",
    "c:outside.wav": "has an absolute path",
    "..\\outside.wav": "has a backslash",
    ".": "has no name",
    "x" * 300: "has too long a name",
    "/".join(["long"] * 500): "has too long a name",
}


@pytest.mark.parametrize("make", [make_zip, make_tar, make_tar_gz])
@pytest.mark.parametrize(("name", "reason"), NAMES.items(), ids=lambda text: text[:20])
def test_names_that_lead_elsewhere_are_refused(tmp_path, make, name, reason):
    path = make(tmp_path / "evil", {"fine.wav": b"x", name: b"x"})
    with pytest.raises(UnusableArchive, match=rf"^evil: refused, since its member '.*' {reason}[^\n]*$"):
        unpack([path], tmp_path / "a" / "b")
    assert tree(tmp_path).keys() <= {"evil", "a/b/fine.wav"}


@pytest.mark.parametrize("name", ["/outside/", "../outside/"])
def test_folders_elsewhere_are_refused(tmp_path, name):
    path = make_zip(tmp_path / "evil.zip", {name: b""})
    with pytest.raises(UnusableArchive, match=r"absolute path|leads out"):
        unpack([path], tmp_path / "a" / "b")


def test_names_that_are_not_utf8_are_refused(tmp_path):
    with tarfile.open(tmp_path / "evil.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as archive:
        tar_member(archive, "ü.wav", b"x")
    with pytest.raises(UnusableArchive, match=r"member '\\udcfc.wav' has a name that is not UTF-8"):
        unpack([tmp_path / "evil.tar"], tmp_path / "out")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.BLKTYPE, "a device"),
        (tarfile.FIFOTYPE, "a fifo"),
        (tarfile.GNUTYPE_SPARSE, "a file with holes"),
        (b"V", "a special file"),
    ],
)
def test_members_of_tars_that_are_no_files_are_refused(tmp_path, kind, reason):
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        tar_member(archive, "set/sound", type=kind, linkname="../../../etc/passwd")
    with pytest.raises(UnusableArchive, match=f"evil.tar: refused, since its member 'set/sound' is {reason}"):
        unpack([tmp_path / "evil.tar"], tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("form", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_members_of_zips_that_are_no_files_are_refused(tmp_path, form):
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        member = zipfile.ZipInfo("link.wav")
        member.external_attr = (form | 0o777) << 16
        archive.writestr(member, "/etc/passwd")
    with pytest.raises(UnusableArchive, match=r"'link.wav' is a (symbolic link|special file)"):
        unpack([tmp_path / "evil.zip"], tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_name_that_comes_twice_is_refused(tmp_path):
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        tar_member(archive, "set/a.wav", b"one")
        tar_member(archive, "./set//a.wav", b"two")
    with pytest.raises(UnusableArchive, match="comes twice"):
        unpack([tmp_path / "evil.tar"], tmp_path / "out")


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b", "a")])
def test_a_file_that_is_also_a_folder_is_refused(tmp_path, make, names):
    path = make(tmp_path / "evil", dict.fromkeys(names, b"x"))
    with pytest.raises(UnusableArchive, match=f"evil: cannot be unpacked at member '{names[1]}'"):
        unpack([path], tmp_path / "out")


GIANT = 10 * 2**30


def zeros_deflated(num_bytes):
    """A raw deflate stream of so many zeros, made of one block over and over: cheap."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = compressor.compress(bytes(2**20)) + compressor.flush(zlib.Z_FULL_FLUSH)
    return block * (num_bytes // 2**20) + compressor.flush()


def gzipped_with_zeros(path, head):
    """`head` and 10 GB of zeros, as .gz; its checksum is wrong, which nobody should get to see."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = compressor.compress(head) + compressor.flush(zlib.Z_FULL_FLUSH)
    path.write_bytes(b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + start + zeros_deflated(GIANT) + bytes(8))


def test_ten_gigabytes_of_zeros_in_a_tar_gz_write_nothing(tmp_path):
    member = tarfile.TarInfo("zeros.wav")
    member.size = GIANT
    gzipped_with_zeros(tmp_path / "bomb.tar.gz", member.tobuf(tarfile.GNU_FORMAT))
    with pytest.raises(
        UnusableArchive, match=r"bomb.tar.gz: .* 'zeros.wav' makes 10,737,418,240 bytes .* a bomb"
    ):
        unpack([tmp_path / "bomb.tar.gz"], tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_ten_gigabytes_of_headers_are_not_read(tmp_path):
    header = tarfile.TarInfo("header")
    header.size, header.type = GIANT, tarfile.XHDTYPE
    first = tarfile.TarInfo("first.wav").tobuf()
    gzipped_with_zeros(tmp_path / "bomb.tar.gz", first + header.tobuf(tarfile.GNU_FORMAT))
    with pytest.raises(UnusableArchive, match=r"'first.wav' \(followed by over 16,777,216 bytes of headers"):
        unpack([tmp_path / "bomb.tar.gz"], tmp_path / "out")


def test_gigabytes_after_the_end_of_a_tar_are_not_read(tmp_path):
    gzipped_with_zeros(tmp_path / "bomb.tar.gz", tarfile.TarInfo("first.wav").tobuf())
    with pytest.raises(UnusableArchive, match="followed by over 16,777,216 bytes of headers"):
        unpack([tmp_path / "bomb.tar.gz"], tmp_path / "out")


def zip_of(packed, claimed_bytes):
    """A zip of one deflated member that says it has `claimed_bytes`."""
    name = b"zeros.wav"
    sizes = (2**32 - 1, 2**32 - 1)
    extra = struct.pack("<2H2Q", 1, 16, claimed_bytes, len(packed))
    fields = (20, 0, 8, 0, 0, 0, *sizes, len(name), len(extra))
    local = struct.pack("<4s5H3L2H", b"PK\3\4", *fields) + name + extra + packed
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", 45, *fields, 0, 0, 0, 0, 0) + name + extra
    return local + entry + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(entry), len(local), 0)


def test_ten_gigabytes_of_zeros_in_a_zip_write_nothing(tmp_path):
    (tmp_path / "bomb.zip").write_bytes(zip_of(zeros_deflated(GIANT), GIANT))
    with pytest.raises(
        UnusableArchive, match=r"bomb.zip: .* 'zeros.wav' makes 10,737,418,240 bytes .* a bomb"
    ):
        unpack([tmp_path / "bomb.zip"], tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_zip_that_lies_about_its_size_writes_no_more_than_it_says(tmp_path):
    (tmp_path / "bomb.zip").write_bytes(zip_of(zeros_deflated(GIANT), 1000))
    with pytest.raises(UnusableArchive, match=r"at member 'zeros.wav' \(Bad CRC"):
        unpack([tmp_path / "bomb.zip"], tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("make", [make_zip, make_tar_gz])
def test_many_members_that_are_a_bomb_together_are_refused(tmp_path, make):
    path = make(tmp_path / "bomb", {f"{number}.wav": bytes(2**23) for number in range(9)})
    with pytest.raises(UnusableArchive, match=r"'8.wav' makes 75,497,472 bytes out of [\d,]+: a bomb"):
        unpack([path], tmp_path / "out")


# Disks.


@pytest.mark.parametrize("make", [make_zip, make_tar, make_tar_gz])
def test_a_small_disk_is_noticed_before_the_first_byte(tmp_path, make, monkeypatch):
    path = make(tmp_path / "set.archive")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 1000))
    with pytest.raises(DiskTooSmall, match=r"need 0.\d+ GB of free disk space for unpacking, found 0.000 GB"):
        unpack([path], tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_what_is_there_needs_no_room(tmp_path, monkeypatch):
    path = make_zip(tmp_path / "set.zip")
    unpack([path], tmp_path / "out")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 0))
    unpack([path], tmp_path / "out")


def test_a_gz_is_checked_to_its_end(tmp_path):
    path = make_tar_gz(tmp_path / "set.tar.gz")
    content = gzip.decompress(path.read_bytes())
    packed = bytearray(gzip.compress(content))
    packed[-6] ^= 0xFF
    path.write_bytes(packed)
    with pytest.raises(UnusableArchive, match="CRC check failed"):
        unpack([path], tmp_path / "out")
