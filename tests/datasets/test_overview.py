import pytest

from matpac.datasets.inventory import Recording, write_recordings
from matpac.datasets.overview import own_table, public_table
from matpac.datasets.preview import place_of
from matpac.datasets.registry import PAGES
from matpac.files import WORK, write_json
from matpac.params import Esc10, Folder


@pytest.fixture(autouse=True)
def in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def line_of(name: str, table: str) -> list[str]:
    return next(line.split() for line in table.splitlines() if line.startswith(f"{name} "))


def own(source: str) -> Folder:
    return Folder(
        kind="folder", source=source, labels="none", multi_label=False, num_folds=None, split_fractions=None
    )


def test_every_public_dataset_has_two_lines_that_fit():
    table = public_table()
    assert line_of("fsd50k", table) == [
        "fsd50k",
        "51,197",
        "200",
        *["train/validation/test", "mAP", "24", "GB", "no"],
    ]
    assert "    FSD50K. Licence: CC BY 4.0; each clip its own" in table
    assert len(table.splitlines()) == 3 + 2 * len(PAGES)
    assert max(map(len, table.splitlines())) <= 100


def test_what_is_on_disk_is_told_from_what_is_begun():
    place_of("esc50", PAGES["esc50"]).mkdir(parents=True)
    place_of("audioset", PAGES["audioset"]).mkdir(parents=True)
    begun = WORK / "download" / place_of("gtzan", PAGES["gtzan"]).name
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
    table = own_table({"esc10": Esc10(kind="esc10", source="nowhere")})
    assert line_of("esc10", table)[2:4] == ["not", "here"]
    assert line_of("esc10", table)[-3:] == ["nowhere", "(not", "found)"]
