import pytest

from matpac.datasets.preview import begun_bytes, place_of, prospect_of
from matpac.datasets.registry import PAGES
from matpac.files import WORK
from matpac.params import Demo, Esc10, Folder, Fsd50k

NET = Fsd50k(kind="fsd50k", source=None)


@pytest.fixture(autouse=True)
def in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_download_needs_room_for_archives_and_recordings():
    prospect = prospect_of("fsd50k", NET)
    assert (prospect.num_clips, prospect.num_classes) == (51_197, 200)
    assert prospect.download_bytes == pytest.approx(24e9)
    assert prospect.needed_bytes == pytest.approx(48e9)
    assert prospect.free_bytes > 0
    assert "python -m flows.download fsd50k" in prospect.todo


def test_what_is_downloaded_has_no_prospect():
    place_of("fsd50k", PAGES["fsd50k"]).mkdir(parents=True)
    assert prospect_of("fsd50k", NET) is None


def test_what_a_cut_download_has_brought_is_counted():
    part = WORK / "download" / place_of("fsd50k", PAGES["fsd50k"]).name / "archives" / "a.zip.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(1234))
    assert prospect_of("fsd50k", NET).begun_bytes == 1234
    assert begun_bytes(place_of("esc10", PAGES["esc10"])) == 0


def test_a_local_archive_is_unpacked_and_not_downloaded(in_tmp):
    (in_tmp / "copy.zip").write_bytes(b"PK")
    prospect = prospect_of("esc10", Esc10(kind="esc10", source="copy.zip"))
    assert (prospect.comes_from, prospect.download_bytes) == ("copy.zip", 0)
    assert prospect.needed_bytes == pytest.approx(PAGES["esc10"].download_gb * 1e9)
    assert prospect.todo.startswith("Unpack with")


def test_a_local_folder_has_no_prospect_and_a_missing_one_is_named(in_tmp):
    (in_tmp / "copy").mkdir()
    assert prospect_of("esc10", Esc10(kind="esc10", source="copy")) is None
    with pytest.raises(ValueError, match=r"datasets\.esc10\.source: .*found no nowhere\. Set it to null"):
        prospect_of("esc10", Esc10(kind="esc10", source="nowhere"))


def test_own_recordings_are_never_waited_for():
    own = Folder(
        kind="folder",
        source="nowhere",
        labels="none",
        multi_label=False,
        num_folds=None,
        split_fractions=None,
    )
    assert prospect_of("own", own) is None


def test_the_demo_is_synthesised():
    prospect = prospect_of("demo", Demo(kind="demo", recipe="corpus", num_clips=10, seed=3))
    assert (prospect.num_clips, prospect.download_bytes) == (10, 0)
    assert prospect.comes_from == "synthesised from seed 3"
