import pyarrow as pa
import pytest

from matpac.shards.leaks import official_leaks, overlaps, refuse_leaks


def clips(groups, *, folds=None, **columns):
    return pa.table(
        {
            "path": [f"{number}.wav" for number in range(len(groups))],
            "split": pa.array([None if folds else "train"] * len(groups), pa.string()),
            "fold": pa.array(folds or [None] * len(groups), pa.int32()),
            "group": pa.array(groups, pa.string()),
        }
        | columns
    )


def test_groups_that_stay_in_their_fold_pass():
    refuse_leaks("birds", clips(["rex", None, "rex", None, "ada"], folds=[1, 1, 1, 2, 2]))


def test_a_group_in_two_folds_is_named_with_its_clips():
    table = clips(["rex", "rex", "ada", "ada", "rex", "eve", "eve"], folds=[1, 1, 2, 2, 3, 1, 2])
    expected = r"^birds: need each group in one .* found 'eve' in fold 1, fold 2 \(2 clips\) and 1 more\."
    with pytest.raises(ValueError, match=expected):
        refuse_leaks("birds", table)


def test_an_overlap_counts_all_keys_and_clips_and_shows_the_first():
    table = clips(list("abcdabcde"), folds=[1, 1, 1, 1, 2, 2, 2, 2, 2])
    found = overlaps(table, "group")
    assert (found.num_keys, found.num_clips) == (4, 8)
    assert [example.key for example in found.examples] == ["a", "b", "c"]
    assert found.examples[1].places == (("fold 1", "1.wav"), ("fold 2", "5.wav"))


def test_a_group_inside_one_split_is_no_overlap():
    assert overlaps(clips(["g"] * 4), "group") == (0, 0, ())


def test_any_column_can_be_the_one_that_should_agree():
    table = clips([None] * 4, sha256=["x", "y", "x", None], label=["dog", "dog", "cat", "cat"])
    found = overlaps(table, "sha256", "label")
    assert (found.num_keys, found.num_clips) == (1, 2)
    assert found.examples[0].places == (("dog", "0.wav"), ("cat", "2.wav"))


def test_official_leaks_are_the_same_in_words():
    table = clips(["g", "g", None], folds=[1, 2, 3], sha256=["x", "y", "x"])
    assert list(official_leaks(table)) == [
        "group in several splits or folds: 'g' in fold 1, fold 2 (2 clips)",
        "recording in several splits or folds: 0.wav (fold 1) = 2.wav (fold 3)",
    ]


def test_groups_and_copies_are_named_at_once_and_all_are_listed(tmp_path):
    table = clips(["g", "g", None, "h"], folds=[1, 2, 3, 1], sha256=["x", "y", "x", "z"])
    with pytest.raises(ValueError, match=r"found 'g' in fold 1, fold 2 .* Also: .* 0.wav \(fold 1\) = 2.wav"):
        refuse_leaks("birds", table, tmp_path / "leaks.csv")
    assert (tmp_path / "leaks.csv").read_text().splitlines() == [
        "same,value,path,part,group",
        "group,g,0.wav,fold 1,g",
        "group,g,1.wav,fold 2,g",
        "sha256,x,0.wav,fold 1,g",
        "sha256,x,2.wav,fold 3,",
    ]
