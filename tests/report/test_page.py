"""The page is built from the small `data` folder of conftest.py, and read as a browser reads it."""

import json
import re
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import yaml

from matpac.clip import NOTES, REASONS
from matpac.files import read_json
from matpac.probing.scores import DETAILS, percent
from matpac.report.experiments import record_run
from matpac.report.page import write_report
from tests.pages import parse, rows_of, section, tables_below, text_of


@pytest.fixture(scope="module")
def text(project, params):
    record_run(project, params)
    write_report(project, project / "report", params)
    return (project / "report/index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text):
    return parse(text)


def test_the_page_loads_nothing_from_elsewhere(page, text):
    addresses = [
        value for part in page.iter() for name, value in part.items() if name in ("src", "href", "srcset")
    ]
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert "@import" not in text
    assert "url(" not in text
    assert next(page.iter("script"), None) is None


def test_own_results_come_before_the_papers_tables_and_provenance_last(page):
    links = [link.get("href") for link in page.iterfind(".//nav//a")]
    assert links == [f"#{heading.get('id')}" for heading in page.iter("h2")]
    assert links == [
        "#scores",
        "#how-training-went",
        "#class-by-class",
        "#a-map-of-the-embeddings",
        "#what-the-networks-hear",
        "#the-data",
        "#the-paper-s-tables",
        "#where-this-comes-from",
    ]


def test_what_was_left_out_and_what_is_odd_is_counted_with_its_meaning(page):
    texts = text_of(section(page, "the-data"))
    for name, meaning in (("silent", REASONS["silent"]), ("not at full scale", NOTES["not at full scale"])):
        assert name in texts
        assert meaning in texts
    assert "corpus is read as: labels: none (default)." in texts
    assert ".zip (archives)" in texts
    assert "old/a.zip" in texts


def test_tables_that_compare_nothing_are_folded_away(page, project, params):
    def opened(page):
        tables = section(page, "the-paper-s-tables").iterfind("details")
        return {text_of(table.find("summary")): table.get("open") is not None for table in tables}

    # The other encoder has a row in Table II.
    assert opened(page) == {
        "Table I: the datasets": False,
        "Table II: linear probes, beside printed ones": True,
        "Table III: prediction against classification": False,
        "Figure 2: how many classes the pretext has": False,
    }
    [other] = [
        path for path in (project / "data/experiments").glob("*.json") if "encoder.name" in path.read_text()
    ]
    record = other.read_text()
    other.unlink()
    write_report(project, project / "alone", params)
    other.write_text(record)
    alone = parse((project / "alone/index.html").read_text(encoding="utf-8"))
    assert not any(opened(alone).values())


def test_the_page_holds_the_numbers_of_the_score_files(page, project):
    text = text_of(section(page, "scores"))
    for name in ("notes", "tags"):
        summary = json.loads((project / f"data/scores/{name}.details.json").read_text())["summary"]
        for feature in ("pretrained", "random_init", "logmel_statistics"):
            assert percent(summary[feature]) in text
        assert percent(summary["gain_over_random_init"], signed=True) in text
        assert percent(summary["others"]["ast"]) in text
        assert percent(summary["others"]["ast"]["minus_encoder"], signed=True) in text


def test_a_difference_is_colored_if_and_only_if_it_has_a_star(page):
    tags = [tag for tag in section(page, "scores").iter("span") if "tag" in tag.get("class", "").split()]
    assert tags
    for tag in tags:
        kind = tag.get("class").removeprefix("tag ")
        assert (kind == "even") == ("*" not in text_of(tag))
        assert kind != ("behind" if text_of(tag).startswith("+") else "ahead")


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
    [header] = section(page, "scores").iterfind(".//table[@class='cards scores']/thead/tr")
    assert text_of(header[-1]) == "ast"


def test_the_second_reading_has_a_table_of_its_own(page, project):
    scores = section(page, "scores")
    [table] = tables_below(scores, "Second reading")
    rows = rows_of(table)
    for name, metric in (("notes", "accuracy"), ("tags", "mAP")):
        details = json.loads((project / f"data/scores/{name}.details.json").read_text())
        knn, attentive = (details["second_reading"][kind] for kind in ("knn", "attentive"))
        features = ("pretrained", "random_init", "logmel_statistics", "ast")
        by_neighbors = [f"{100 * knn[feature]['mean']:.1f}" for feature in features]
        by_attention = [percent(attentive[feature]) for feature in features[:2]]
        assert [name, metric, "3 nearest neighbors", *by_neighbors] in rows
        assert [name, metric, "attention, 2 heads", *by_attention, "", ""] in rows
    first = text_of(scores).split("Second reading")[0]
    assert "neighbor" not in first
    assert "attention" not in first


def test_a_class_has_its_scores_its_mistakes_and_a_row_of_the_confusion(page, project):
    details = read_json(project / f"data/scores/notes{DETAILS}")
    confusion = details["features"]["pretrained"]["confusion"]
    classes, matrix, _ = tables_below(section(page, "class-by-class"), "notes")
    assert {row[0] for row in rows_of(classes)} == set(details["classes"])
    for names, truth, counts in zip(rows_of(matrix), details["classes"], confusion, strict=True):
        shares = [count / sum(counts) for count in counts]
        assert names == [truth, *(f"{100 * share:.0f}" if share >= 0.005 else "" for share in shares)]
    cell = matrix.find("tbody/tr/td[2]")
    assert cell.get("title") == f"{details['classes'][0]} taken for {details['classes'][1]}"


def test_the_page_says_what_it_was_made_from(page, params):
    text = text_of(page)
    for part in ("abc123", "f00d", "1 h 02 min", "1,000 updates", "2.00", "alpha: 0.5", "librosa 0."):
        assert part in text
    [settings] = page.iter("pre")
    assert yaml.safe_load(settings.text) == params.model_dump(mode="json")


def test_words_from_outside_are_shown_as_they_are(page):
    text = text_of(page)
    for part in ("<2 cores>", "Every sample has the same value.", "<high> & loud"):
        assert part in text
    assert next(page.iter("high"), None) is None


def test_a_second_report_has_the_same_bytes(text, project, params):
    write_report(project, project / "again", params)
    assert (project / "again/index.html").read_text(encoding="utf-8") == text


def test_a_page_is_made_of_what_is_there(tmp_path, params):
    write_report(tmp_path, tmp_path / "report", params)
    page = parse((tmp_path / "report/index.html").read_text(encoding="utf-8"))
    assert [heading.get("id") for heading in page.iter("h2")] == [
        "scores",
        "the-paper-s-tables",
        "where-this-comes-from",
    ]
    assert "No dataset was probed" in text_of(page)
    assert "All parameters" in text_of(page)


def test_a_file_in_the_place_of_the_folder_is_one_line(tmp_path, params):
    (tmp_path / "report").write_text("mine")
    with pytest.raises(ValueError, match=r"report: need a folder for the report, found a file\."):
        write_report(tmp_path, tmp_path / "report", params)


def test_short_crops_do_not_fill_the_screen(page, params):
    # 32 frames by 80 mel channels, at most 160 px high.
    pictures = page.findall(".//img[@class='pixels']")
    assert len(pictures) == 8
    for picture in pictures:
        [width] = re.findall(r"max-width:(\d+)px", picture.get("style"))
        assert int(width) * 80 / params.pretrain.crop_frames == 160


def test_backticks_of_notes_are_shown_as_code(page):
    assert "dvc repro" in [code.text for code in page.iter("code")]
    assert "`" not in text_of(page)


def test_the_page_says_when_runs_were_recorded_and_by_which_code(page, project):
    text = text_of(page)
    for path in (project / "data/experiments").glob("*.json"):
        for result in read_json(path)["results"].values():
            assert result["recorded"][:10] in text
            assert (result["git_revision"] or "no git") in text


def test_missing_cells_are_readable_on_white():
    style = files("matpac.report").joinpath("templates/style.css").read_text(encoding="utf-8")
    [color] = re.findall(r"\.missing \{ color: #([0-9a-f]{6}); \}", style)
    parts = np.array([int(color[at : at + 2], 16) / 255 for at in (0, 2, 4)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    # WCAG 2: contrast of text.
    assert 1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05) >= 4.5


def test_templates_insert_nothing_unescaped():
    for path in Path("matpac/report/templates").glob("*.j2"):
        assert not re.search(r"\|\s*safe\b|autoescape", path.read_text()), path
