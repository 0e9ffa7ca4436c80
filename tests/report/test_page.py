"""The page is built from the small `data` folder of conftest.py."""

import json
import re
from html.parser import HTMLParser
from importlib.resources import files

import numpy as np
import pytest
import yaml

from matpac.files import read_json
from matpac.probing.scores import DETAILS, percent
from matpac.report.curves import thinned
from matpac.report.experiments import record_run
from matpac.report.page import build_report


@pytest.fixture(scope="module")
def page(project, params):
    record_run(project, params)
    build_report(project, project / "report", params)
    return (project / "report/index.html").read_text(encoding="utf-8")


class Reader(HTMLParser):
    """Collects text and addresses, and insists that tags close in order."""

    VOID = ("meta", "img", "br")

    def __init__(self, page):
        super().__init__()
        self.open, self.addresses, self.text = [], [], ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_is_well_formed_and_loads_nothing_from_elsewhere(page):
    reader = Reader(page)
    assert reader.addresses
    assert all(address.startswith(("data:", "#")) for address in reader.addresses)
    assert "@import" not in page
    assert "url(" not in page
    assert "<script" not in page


def test_the_page_holds_the_numbers_of_the_score_files(page, project):
    text = Reader(page).text
    for name in ("notes", "tags"):
        summary = json.loads((project / f"data/scores/{name}.details.json").read_text())["summary"]
        for feature in ("pretrained", "random_init", "logmel_statistics"):
            assert percent(summary[feature]) in text
        assert percent(summary["gain_over_random_init"], signed=True) in text
        assert percent(summary["others"]["ast"]) in text
        assert percent(summary["others"]["ast"]["minus_encoder"], signed=True) in text


def test_another_encoder_has_a_column_and_a_row_of_table_2(page, project):
    table = (project / "report/table_2.csv").read_text(encoding="utf-8").splitlines()
    [ours] = [line for line in table if line.startswith("this run,ours")]
    [row, gap] = table[-2:]
    assert row.startswith("ast,measured here,,not run")
    assert gap.startswith("minus this run,measured here")
    for name in ("notes", "tags"):
        summary = read_json(project / f"data/scores/{name}{DETAILS}")["summary"]
        column = table[0].split(",").index(name)
        assert row.split(",")[column] == percent(summary["others"]["ast"])
        assert gap.split(",")[column].removesuffix(" *") == percent(
            summary["others"]["ast"]["minus_encoder"], signed=True
        )
        assert ours.split(",")[column] == percent(summary["pretrained"])
    assert '<th scope="col">ast</th>' in page.split("Second reading")[0]


def test_the_second_reading_has_a_table_of_its_own(page, project):
    first, second = page.split("Second reading")
    cells = re.findall("<td[^>]*><span>(.*?)</span></td>", second.partition("</table>")[0])
    for name, metric in (("notes", "accuracy"), ("tags", "mAP")):
        details = json.loads((project / f"data/scores/{name}.details.json").read_text())
        knn, attentive = (details["second_reading"][kind] for kind in ("knn", "attentive"))
        shown = cells[cells.index(name) :]
        assert shown[:3] == [name, metric, "3 nearest neighbours"]
        assert shown[3:7] == [
            f"{100 * knn[feature]['mean']:.1f}"
            for feature in ("pretrained", "random_init", "logmel_statistics", "ast")
        ]
        assert shown[7:10] == [name, metric, "attention, 2 heads"]
        assert shown[10:12] == [percent(attentive[feature]) for feature in ("pretrained", "random_init")]
        assert shown[12:14] == ["", ""]
    assert "neighbour" not in first
    assert "attention" not in first


def test_the_page_says_what_it_was_made_from(page, params):
    text = Reader(page).text
    for part in ("abc123", "f00d", "1 h 02 min", "1,000 updates", "2.00", yaml.safe_dump({"alpha": 0.5})):
        assert part in text


def test_words_from_outside_are_shown_as_they_are(page):
    text = Reader(page).text
    for part in ("<2 cores>", "Every sample has the same value.", "<high> & loud"):
        assert part in text


def test_a_second_report_has_the_same_bytes(page, project, params):
    build_report(project, project / "again", params)
    assert (project / "again/index.html").read_text(encoding="utf-8") == page


def test_a_page_is_made_of_what_is_there(tmp_path, params):
    build_report(tmp_path, tmp_path / "report", params)
    text = Reader((tmp_path / "report/index.html").read_text(encoding="utf-8")).text
    assert "No dataset was probed" in text
    assert "How training went" not in text
    assert "All parameters" in text


def test_long_curves_are_thinned_to_means_of_neighbours():
    assert thinned(np.array([1.0, 3.0])).tolist() == [1.0, 3.0]
    assert thinned(np.arange(800.0))[:3].tolist() == [0.5, 2.5, 4.5]


def test_a_file_in_the_place_of_the_folder_is_one_line(tmp_path, params):
    (tmp_path / "report").write_text("mine")
    with pytest.raises(ValueError, match=r"need a folder at .*report, got a file\."):
        build_report(tmp_path, tmp_path / "report", params)


def test_the_contents_lead_to_every_section(page):
    links = re.findall('<a href="#(.*?)">', page)
    assert links == re.findall('<h2 id="(.*?)">', page)
    assert links[:2] == ["scores", "the-paper-s-tables"]
    assert links.index("the-paper-s-tables") < links.index("what-the-networks-hear")


def test_short_crops_do_not_fill_the_screen(page, params):
    # 32 frames by 80 mel channels, at most 160 px high.
    widths = re.findall(r'<img class="pixels" style="max-width:(\d+)px"', page)
    assert len(widths) == 8
    assert {int(width) * 80 / params.pretrain.crop_frames for width in widths} == {160}


def test_backticks_of_notes_are_shown_as_code(page):
    assert "<code>dvc repro</code>" in page
    assert "`" not in Reader(page).text


def test_the_page_says_when_runs_were_recorded_and_by_which_code(page, project):
    text = Reader(page).text
    for path in (project / "data/experiments").glob("*.json"):
        for result in read_json(path)["results"].values():
            assert result["recorded"][:10] in text
            assert result["git_revision"] in text


def test_missing_cells_are_readable_on_white():
    style = files("matpac.report").joinpath("style.css").read_text(encoding="utf-8")
    [colour] = re.findall(r"\.missing \{ color: #([0-9a-f]{6}); \}", style)
    parts = np.array([int(colour[at : at + 2], 16) / 255 for at in (0, 2, 4)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    # WCAG 2: contrast of text.
    assert 1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05) >= 4.5
