"""Released weights by name: found, downloaded once, and the same ever after."""

import hashlib

import pytest

from matpac.fetch.http import Patience
from matpac.weights.names import RELEASED, ReleasedFile, find_weights
from tests.fetch.hostile import Fault, serve

CONTENT, OTHER = b"weights" * 50_000, b"others"
QUICK = Patience(attempts=2, first_wait_s=0.01, longest_wait_s=0.05, silence_s=0.5)
NAME = "matpac_10_2048"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MATPAC_HOME", str(tmp_path / "home/matpac"))
    return tmp_path / "home/matpac"


@pytest.fixture
def site(tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / f"{NAME}.pt").write_bytes(CONTENT)
    with serve(tmp_path / "site") as site:
        yield site


def find(site):
    return find_weights(NAME, {NAME: ReleasedFile(f"{site.url}/{NAME}.pt", "", "")}, patience=QUICK)


def test_a_name_is_downloaded_once_and_its_digest_is_noted(site, cache):
    assert find(site).read_bytes() == CONTENT
    assert find(site) == cache / f"{NAME}.pt"
    assert len(site.asked_for(f"{NAME}.pt")) == 1
    note = (cache / f"{NAME}.pt.sha256").read_text()
    assert note == f"{hashlib.sha256(CONTENT).hexdigest()}  {NAME}.pt\n"


def test_a_download_goes_on_where_it_was_cut(site):
    site.misbehave(f"{NAME}.pt", Fault(cut_after=200_000))
    assert find(site).read_bytes() == CONTENT
    assert [bool(request.range) for request in site.asked_for(f"{NAME}.pt")] == [False, True]


@pytest.mark.parametrize("folder", [".", "data/checkpoints", "home/matpac"])
def test_a_file_that_is_here_is_not_downloaded(site, tmp_path, cache, folder):
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / folder / f"{NAME}.pt").write_bytes(OTHER)
    assert find(site).read_bytes() == OTHER
    assert site.requests == []
    assert (cache / f"{NAME}.pt.sha256").read_text().startswith(hashlib.sha256(OTHER).hexdigest())


@pytest.mark.parametrize("folder", [".", "home/matpac"])
def test_a_file_that_has_changed_since_its_first_use_is_refused(site, tmp_path, folder):
    find(site)
    (tmp_path / folder / f"{NAME}.pt").write_bytes(OTHER)
    with pytest.raises(ValueError, match=rf"{NAME}\.pt: need the file of the first use .* found ") as said:
        find(site)
    assert hashlib.sha256(CONTENT).hexdigest() in str(said.value)
    assert hashlib.sha256(OTHER).hexdigest() in str(said.value)
    assert "\n" not in str(said.value)


def test_without_a_network_it_says_where_to_put_a_copy(site, cache):
    site.always(f"{NAME}.pt", Fault(status=404))
    with pytest.raises(ValueError, match=rf"cannot be downloaded .* put a copy of it into .*{cache}"):
        find(site)


def test_a_path_that_exists_wins_and_others_are_told_the_names(tmp_path):
    (tmp_path / NAME).mkdir()
    assert find_weights(NAME) == find_weights(tmp_path / NAME).relative_to(tmp_path)
    with pytest.raises(
        ValueError, match=r"need a checkpoint, a saved folder or a released .*, matpac_plus_6s_2048_enconly"
    ):
        find_weights("matpac_11_2048")


def test_the_names_are_those_of_the_files():
    for name, file in RELEASED.items():
        assert file.url.endswith(f"/{name}.pt")
