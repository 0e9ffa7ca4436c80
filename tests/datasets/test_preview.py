from pathlib import Path

import pytest

from matpac.datasets.inventory import Recording, write_recordings
from matpac.datasets.preview import begun_bytes, own_table, prospect_of, public_table
from matpac.datasets.registry import pages
from matpac.files import WORK, write_json
from matpac.params import Demo, Folder, Public

NET = Public(kind="fsd50k", source=None)


@pytest.fixture(autouse=True)
def in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def root_of(kind: str) -> Path:
    return pages()[kind].root(kind)


def own(source: str) -> Folder:
    return Folder(
        kind="folder", source=source, labels="none", multi_label=False, num_folds=None, split_fractions=None
    )


def test_a_download_needs_room_for_archives_and_recordings():
    prospect = prospect_of("fsd50k", NET)
    assert (prospect.num_clips, prospect.num_classes) == (51_197, 200)
    assert prospect.download_bytes == pytest.approx(24e9)
    assert prospect.needed_bytes == pytest.approx(48e9)
    assert prospect.free_bytes > 0
    assert "python -m flows.download fsd50k" in prospect.todo


def test_what_is_downloaded_has_no_prospect():
    root_of("fsd50k").mkdir(parents=True)
    assert prospect_of("fsd50k", NET) is None


def test_what_a_cut_download_has_brought_is_counted():
    part = WORK / "download" / root_of("fsd50k").name / "archives" / "a.zip.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(1234))
    assert prospect_of("fsd50k", NET).begun_bytes == 1234
    assert begun_bytes(root_of("esc10")) == 0


def test_a_local_archive_is_unpacked_and_not_downloaded(in_tmp):
    (in_tmp / "copy.zip").write_bytes(b"PK")
    prospect = prospect_of("esc10", Public(kind="esc10", source="copy.zip"))
    assert (prospect.comes_from, prospect.download_bytes) == ("copy.zip", 0)
    assert prospect.needed_bytes == pytest.approx(pages()["esc10"].download_gb * 1e9)
    assert prospect.todo.startswith("Unpack with")


def test_a_local_folder_has_no_prospect_and_a_missing_one_is_named(in_tmp):
    (in_tmp / "copy").mkdir()
    assert prospect_of("esc10", Public(kind="esc10", source="copy")) is None
    with pytest.raises(ValueError, match=r"datasets\.esc10\.source: .*found no nowhere\. Set it to null"):
        prospect_of("esc10", Public(kind="esc10", source="nowhere"))


def test_own_recordings_are_never_waited_for():
    assert prospect_of("own", own("nowhere")) is None


def test_the_demo_is_synthesised():
    prospect = prospect_of("demo", Demo(kind="demo", recipe="corpus", num_clips=10, seed=3))
    assert (prospect.num_clips, prospect.download_bytes) == (10, 0)
    assert prospect.comes_from == "synthesised from seed 3"


def line_of(name: str, table: str) -> list[str]:
    return next(line.split() for line in table.splitlines() if line.startswith(f"{name} "))


def test_every_public_dataset_has_two_lines_that_fit():
    table = public_table()
    assert line_of("fsd50k", table) == [
        "fsd50k",
        "51,197",
        "200",
        *["train/validation/test", "mAP", "24", "GB", "no"],
    ]
    assert "    FSD50K. License: CC BY 4.0; each clip its own" in table
    assert len(table.splitlines()) == 3 + 2 * len(pages())
    assert max(map(len, table.splitlines())) <= 100


def test_what_is_on_disk_is_told_from_what_is_begun():
    root_of("esc50").mkdir(parents=True)
    root_of("audioset").mkdir(parents=True)
    begun = WORK / "download" / root_of("gtzan").name
    begun.mkdir(parents=True)
    (begun / "genres.tar.gz.part").write_bytes(bytes(3_000_000))
    table = public_table()
    assert line_of("esc50", table)[-1] == "yes"
    assert line_of("gtzan", table)[-3:] == ["partly,", "3", "MB"]
    assert line_of("audioset", table)[-2:] == ["lists", "only"]
    assert line_of("fsdd", table)[-1] == "no"


def test_datasets_of_params_say_how_far_they_are(in_tmp):
    (in_tmp / "recordings").mkdir()
    datasets = {"fresh": own("recordings"), "gone": own("nowhere"), "done": own("recordings")}
    recordings = [Recording(f"{number}.wav", 10, "0" * 64, f"{number}.wav") for number in range(1200)]
    write_recordings(in_tmp / "data/raw/done", recordings)
    statistics = {"num_clips": 1190, "duration_s": 5400.0, "num_rejected": {"silent": 7, "duplicate": 3}}
    write_json(in_tmp / "data/shards/done/statistics.json", statistics)
    table = own_table(datasets)
    assert line_of("fresh", table) == ["fresh", "folder", "here", "-", "-", "-", "recordings"]
    assert line_of("gone", table) == ["gone", "folder", "not", "here", "-", "-", "-", "nowhere"]
    assert line_of("done", table) == ["done", "folder", "1,200", "1,190", "1.50", "10", "recordings"]


def test_a_local_copy_that_is_not_there_is_said_so():
    table = own_table({"esc10": Public(kind="esc10", source="nowhere")})
    assert line_of("esc10", table)[2:4] == ["not", "here"]
    assert line_of("esc10", table)[-3:] == ["nowhere", "(not", "found)"]
