"""Real downloads, from a server on this machine."""

import functools
import http.server
import io
import tarfile
import threading
import zipfile
from dataclasses import replace

import pytest

from matpac.datasets.fetch import Archive, fetch_archive, unpack
from matpac.datasets.recordings import content_digest, take_inventory

FILES = {"recordings/a.wav": b"RIFF" * 1000, "recordings/b.wav": b"", "README.md": b"About."}


class Handler(http.server.SimpleHTTPRequestHandler):
    cut_short = False

    def copyfile(self, source, outputfile):
        if self.cut_short:
            outputfile.write(source.read(100))
            self.close_connection = True
        else:
            super().copyfile(source, outputfile)

    def log_message(self, *_):
        pass


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder and the URL it is served at; the test runs in a folder of its own."""
    folder = tmp_path / "site"
    folder.mkdir()
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    handler = functools.partial(Handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def zipped(path, files, top="set-1"):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"{top}/{name}", content)


def tarred(path, files, top="set-1"):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{top}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


@pytest.fixture
def described(tmp_path):
    for name, content in FILES.items():
        (tmp_path / "plain" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "plain" / name).write_bytes(content)
    digest = content_digest(take_inventory(tmp_path / "plain"))
    return Archive(url="", num_recordings=2, content_digest=digest)


def nothing_looks_whole(root) -> bool:
    return not root.exists() and not list(root.parent.glob(".*.partial"))


@pytest.mark.parametrize(("name", "pack"), [("set.zip", zipped), ("set.tar.gz", tarred)])
def test_an_archive_becomes_a_folder(site, described, tmp_path, name, pack):
    folder, url = site
    pack(folder / name, FILES)
    archive = replace(described, url=f"{url}/{name}")
    root = tmp_path / "audio" / "set"
    seen = []
    fetch_archive(archive, root, lambda done, total: seen.append((done, total)))
    assert {path.relative_to(root).as_posix() for path in root.rglob("*.*")} == set(FILES)
    size = (folder / name).stat().st_size
    assert seen[-1] == (size, size)

    (folder / name).unlink()
    fetch_archive(archive, root)


def test_a_cut_connection_is_one_clear_error_and_can_be_repeated(site, described, tmp_path, monkeypatch):
    folder, url = site
    zipped(folder / "set.zip", FILES)
    archive, root = replace(described, url=f"{url}/set.zip"), tmp_path / "audio" / "set"
    monkeypatch.setattr(Handler, "cut_short", True)
    with pytest.raises(ValueError, match=r"set.zip: cannot be downloaded .*`source` in params.yaml"):
        fetch_archive(archive, root, retries=0)
    assert nothing_looks_whole(root)
    monkeypatch.setattr(Handler, "cut_short", False)
    fetch_archive(archive, root, retries=0)
    assert (root / "recordings" / "a.wav").read_bytes() == FILES["recordings/a.wav"]


def test_a_missing_archive_and_a_dead_server_are_clear_errors(site, described, tmp_path):
    for url in (f"{site[1]}/none.zip", "http://127.0.0.1:9/set.zip"):
        with pytest.raises(ValueError, match="cannot be downloaded"):
            fetch_archive(replace(described, url=url), tmp_path / "audio" / "set", retries=0)


def test_other_contents_are_refused_and_not_kept(site, described, tmp_path):
    folder, url = site
    archive, root = replace(described, url=f"{url}/set.zip"), tmp_path / "audio" / "set"
    zipped(folder / "set.zip", FILES | {"recordings/b.wav": b"other"})
    with pytest.raises(ValueError, match=r"need 2 recordings with content digest .*, found 2 with"):
        fetch_archive(archive, root, retries=0)
    assert nothing_looks_whole(root)
    zipped(folder / "set.zip", FILES)
    fetch_archive(archive, root, retries=0)
    assert root.is_dir()


def test_a_page_instead_of_an_archive_is_refused(site, described, tmp_path):
    folder, url = site
    (folder / "set.zip").write_text("<html>Sorry</html>")
    root = tmp_path / "audio" / "set"
    with pytest.raises(ValueError, match=r"set.zip: cannot be unpacked"):
        fetch_archive(replace(described, url=f"{url}/set.zip"), root, retries=0)
    assert nothing_looks_whole(root)


@pytest.mark.parametrize(
    ("pack", "name"),
    [(zipped, "../../outside.wav"), (tarred, "../../outside.wav"), (zipped, "/outside.wav")],
)
def test_members_outside_the_folder_are_refused(tmp_path, pack, name):
    pack(tmp_path / "evil", {name: b"x"}, top="" if name.startswith("/") else "top")
    with pytest.raises(ValueError, match=r"reaches outside|cannot be unpacked"):
        unpack(tmp_path / "evil", tmp_path / "a" / "b")
    assert not list(tmp_path.rglob("outside.wav"))


def test_links_out_of_the_folder_are_refused(tmp_path):
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        link = tarfile.TarInfo("top/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        archive.addfile(link)
    with pytest.raises(ValueError, match="cannot be unpacked"):
        unpack(tmp_path / "evil.tar", tmp_path / "folder")
