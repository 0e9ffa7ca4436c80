from matpac.clip import Task
from matpac.datasets.own.doubts import doubts_about, several_in_one


def doubts(*classes, multi_label=False):
    return list(doubts_about(Task(classes, multi_label, "accuracy", None)))


def test_a_comma_in_a_name_is_no_separator_unless_its_parts_are_classes():
    assert several_in_one(["Music, sad", "Dog", "Male speech, man speaking"]) == []
    assert several_in_one(["Music, sad", "sad", "Music"]) == ["Music, sad"]
    # None stands alone, but each part is in two of them.
    assert several_in_one(["dog,cat", "cat,bird", "bird,dog", "frog"]) == ["bird,dog", "cat,bird", "dog,cat"]
    assert several_in_one(["dog / cat", "dog", "cat"]) == ["dog / cat"]
    assert several_in_one(["AC/DC", "Abba"]) == []


def test_labels_that_look_like_several_raise_a_question_if_each_clip_has_one():
    [question] = doubts("cat", "cat;dog", "dog")
    assert question == "1 class (cat;dog) look like several labels each. If they are, set multi_label to true"
    assert doubts("cat", "dog") == []


def test_classes_named_like_splits_raise_a_question():
    for names in (("train", "tram"), ("Test", "dog"), ("fold1", "fold2"), ("Fold 3", "x"), ("split-1", "y")):
        [question] = doubts(*names)
        assert "look like splits or folds, not classes" in question
    assert doubts("tram", "folding chair", "testimony") == []
