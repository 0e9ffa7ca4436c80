"""Tables as people write them: each is read as it was meant, or refused in a line that says what to do."""

import subprocess
import unicodedata

import pytest

from matpac.datasets.inventory import Recording
from matpac.datasets.own import folder, labels
from matpac.params import Folder

NAMES = ("a.wav", "b.wav", "c.wav", "d.wav")
TABLE = "path,label\na.wav,cat\nb.wav,dog\nc.wav,cat\nd.wav,dog\n"


@pytest.fixture
def read(tmp_path):
    """(content of the table, names of the recordings, keys) -> labels and part of each clip by path."""

    def call(content, names=NAMES, **keys):
        content = content.encode() if isinstance(content, str) else content
        (tmp_path / "labels.csv").write_bytes(content)
        params = Folder(kind="folder", source=".", labels="labels.csv", **{"num_folds": 3} | keys)
        recordings = [Recording(name, 1, f"{number:064x}", name) for number, name in enumerate(names)]
        clips = list(folder.clips(params, tmp_path, recordings))
        found = {label for clip in clips for label in clip.labels}
        labels.task(params, tmp_path, found, max((clip.fold or 0 for clip in clips), default=0) or None)
        said = folder.choices(params, tmp_path, recordings)
        return {clip.path: (clip.labels, clip.split or clip.fold) for clip in clips}, said

    return call


def labels_of(found):
    return {path: labels for path, (labels, _) in found[0].items()}


EXPECTED = {"a.wav": ("cat",), "b.wav": ("dog",), "c.wav": ("cat",), "d.wav": ("dog",)}


@pytest.mark.parametrize(
    "content",
    [
        TABLE.replace(",", ";"),
        TABLE.replace(",", "\t"),
        TABLE.replace("path,label", "path, label"),
        TABLE.replace("\n", "\r"),
        TABLE.replace("cat\n", "cat,,\n"),
        "".join(f",{line}\n" for line in TABLE.splitlines()),
        TABLE.replace("a.wav", " a.wav ").replace("b.wav", "./b.wav"),
    ],
    ids=["semicolons", "tabs", "space in the header", "CR", "empty cells", "index column", "spaces around"],
)
def test_a_table_is_read_however_it_was_saved(read, content):
    assert labels_of(read(content)) == EXPECTED


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (TABLE.replace("a.wav,cat", "a.wav,dog,cat"), r"line 2: need 2 cells \(path, label\), found 3: a"),
        (TABLE.replace("c.wav,cat", "c.wav"), r"line 4: need 2 cells \(path, label\), found 1: c.wav$"),
        (TABLE.replace("label\n", "label,label\n"), "need each column once, found several named label"),
        (TABLE.replace("b.wav,dog", 'b.wav,"dog'), r"line 3: need a row, .* Is a quote missing there"),
        (
            TABLE.replace("b.wav,dog", 'b.wav,"dog').replace("d.wav,dog", 'd.wav,"'),
            r"line 3: need a row in a line, found one until line 5. Is a quote missing there\?",
        ),
        (
            TABLE.replace("path,label", "filename,category"),
            r"found filename, category. To do: rename filename to path; set label_column to category\.",
        ),
        (TABLE.replace("path,label", "Path,Label"), "rename Path to path; set label_column to Label"),
        (TABLE.partition("\n")[2], "found a.wav, cat. To do: name the column of paths `path`; label_col"),
        (TABLE.replace("a.wav", "A.WAV"), r"found 1 that do not: A.WAV \(line 2; there is a.wav\)$"),
        (TABLE.replace("a.wav", "old/a.wav"), r"old/a.wav \(line 2; there is a.wav\)$"),
    ],
)  # fmt: skip
def test_a_table_that_is_not_meant_so_is_refused_with_the_place_and_what_to_do(read, content, message):
    with pytest.raises(ValueError, match=message):
        read(content)


@pytest.mark.parametrize(
    ("encoding", "place"),
    [("latin-1", "line 2, byte 8"), ("utf-16", "line 1, byte 1"), ("utf-16-le", "line 1")],
)
def test_another_encoding_is_named_and_the_command_converts_it(read, tmp_path, encoding, place):
    content = TABLE.replace("cat", "Kätzchen")
    with pytest.raises(ValueError, match=rf"labels.csv, {place}: need text in UTF-8") as caught:
        read(content.encode(encoding))
    command = str(caught.value).partition("convert it: ")[2]
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    assert labels_of(read((tmp_path / "new.csv").read_bytes()))["a.wav"] == ("Kätzchen",)


def test_names_match_through_unicode_forms_slashes_and_spaces(read):
    composed, apart = (unicodedata.normalize(form, "hé.wav") for form in ("NFC", "NFD"))
    for written, stored in (
        (composed, apart),
        (apart, composed),
        ("x\\a.wav", "x/a.wav"),
        ("a.wav", " a.wav"),
    ):
        found = labels_of(read(TABLE.replace("a.wav", written), (stored, *NAMES[1:])))
        assert found[stored] == ("cat",)


def test_names_that_only_look_alike_are_told_apart_and_shown_by_code_points(read):
    composed, apart = (unicodedata.normalize(form, "é.wav") for form in ("NFC", "NFD"))
    both = TABLE.replace("a.wav", composed).replace("b.wav", apart)
    found = labels_of(read(both, (apart, composed, "c.wav", "d.wav")))
    assert (found[composed], found[apart]) == (("cat",), ("dog",))
    with pytest.raises(ValueError, match=r"' a.wav' \(line 2; alike: 'a.wav ', 'a.wav  '\)"):
        read(TABLE.replace("a.wav", " a.wav"), ("a.wav ", "a.wav  ", *NAMES[1:]))


@pytest.mark.parametrize(
    "cell", ["dog;cat", "dog ; cat", "dog|cat", '["dog","cat"]', "['dog', 'cat']"], ids=str
)
def test_several_labels_are_read_in_every_clear_notation(read, cell):
    quoted = '"' + cell.replace('"', '""') + '"'
    found = labels_of(read(TABLE.replace("a.wav,cat", f"a.wav,{quoted}"), multi_label=True))
    assert found["a.wav"] == ("dog", "cat")


@pytest.mark.parametrize("cell", ["dog,cat", "dog, cat", "dog / cat"])
def test_a_notation_that_is_not_clear_is_a_question_with_the_answer(read, cell):
    content = TABLE.replace("a.wav,cat", f'a.wav,"{cell}"')
    with pytest.raises(ValueError, match=r"whose parts are labels too. Write 'dog;cat'; if it is one class"):
        read(content, multi_label=True)
    content = TABLE.replace("a.wav,cat", 'a.wav,"Music, sad"')
    assert labels_of(read(content, multi_label=True))["a.wav"] == ("Music, sad",)


def test_a_list_of_several_is_an_error_if_each_clip_has_one_label(read):
    with pytest.raises(ValueError, match="line 2: need a label, found 2: set multi_label"):
        read(TABLE.replace("a.wav,cat", """a.wav,"['dog', 'cat']\""""))


def given(split, number=24, column="split"):
    """A table of clips of two classes in groups of two, each with a split or fold."""
    rows = [f"{n}.wav,{'cat' if n % 4 < 2 else 'dog'},{split(n)},g{n // 2}" for n in range(number)]
    return f"path,label,{column},group\n" + "\n".join(rows), [f"{n}.wav" for n in range(number)]


def test_without_validation_clips_whole_groups_of_train_validate_and_it_is_said(read):
    found, said = read(*given(lambda n: "train" if n < 20 else "test"))
    split_of = {path: split for path, (_, split) in found.items()}
    assert [split_of[f"{n}.wav"] for n in range(20, 24)] == ["test"] * 4
    assert {split_of[f"{n}.wav"] for n in range(20)} == {"train", "validation"}
    assert all(split_of[f"{n}.wav"] == split_of[f"{n + 1}.wav"] for n in range(0, 24, 2))
    assert "none for validation, so 15% of train validates" in said
    assert read(*given(lambda n: "train" if n < 20 else "test"))[0] == found


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (lambda n: "train" if n < 20 else "val", "found 20 train, 4 validation. With `splits: none`"),
        (lambda n: "train", "found 24 train"),
        (lambda n: ("train", "val", "test", "")[n // 2 % 4], "6 without"),
    ],
)  # fmt: skip
def test_what_is_missing_of_splits_is_said_with_a_way_out_that_works(read, split, message):
    with pytest.raises(ValueError, match=message):
        read(*given(split))
    found, _ = read(*given(split), splits="none")
    assert {fold for _, fold in found.values()} == {1, 2, 3}


def test_splits_and_folds_together_are_refused(read):
    rows = "\n".join(
        f"{n}.wav,{'cd'[n % 2]},{'' if n < 18 else 'test'},{n % 3 + 1 if n < 18 else ''}" for n in range(24)
    )
    with pytest.raises(ValueError, match="found 6 clips with a split and 18 with a fold"):
        read(f"path,label,split,fold\n{rows}", [f"{n}.wav" for n in range(24)])


def test_a_class_is_one_class_in_whatever_form_its_letters_are_written(read):
    composed, apart = (unicodedata.normalize(form, "Kätzchen") for form in ("NFC", "NFD"))
    found = labels_of(
        read(TABLE.replace("a.wav,cat", f"a.wav,{composed}").replace("c.wav,cat", f"c.wav,{apart}"))
    )
    assert found["a.wav"] == found["c.wav"] == (composed,)
