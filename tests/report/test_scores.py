import pytest

from matpac.report.scores import confusion_table, gap_tag, left_out, mistakes, sentence


def summary(name, encoder, untrained, log_mel=0.3, interval=0.01):
    def score(mean):
        return {"mean": mean, "interval": interval}

    return {
        "dataset": name,
        "pretrained": score(encoder),
        "random_init": score(untrained),
        "logmel_statistics": score(log_mel),
        "gain_over_random_init": score(encoder - untrained),
    }


def details(confusion):
    return {
        "classes": [f"class {number}" for number in range(len(confusion))],
        "features": {"pretrained": {"confusion": confusion}},
    }


@pytest.mark.parametrize(("mean", "kind"), [(0.03, "ahead"), (0.005, "even"), (-0.03, "behind")])
def test_a_difference_is_coloured_where_it_has_a_star(mean, kind):
    tag = gap_tag({"mean": mean, "interval": 0.01})
    assert f'class="tag {kind}"' in tag
    assert ("*" in tag) == (kind != "even")


def test_lost_tasks_are_named():
    text = sentence([summary("a", 0.9, 0.5), summary("b", 0.4, 0.5), summary("c", 0.2, 0.1)])
    assert "clearly helps on 2 of 3 tasks" in text
    assert "lower than the untrained encoder on b." in text
    assert "score higher than the encoder on c." in text


def test_mistakes_are_shares_of_the_true_class():
    text = mistakes(details([[3, 1, 0], [0, 8, 0], [2, 2, 4]]))
    assert text.count("<li>") == 3
    assert "<b>class 0</b> taken for <b>class 1</b>: 25%" in text


def test_a_confusion_matrix_of_many_classes_is_not_drawn():
    small, large = ([[1] * size] * size for size in (20, 21))
    assert confusion_table(details(small)).count("<td") == 400
    assert confusion_table(details(large)) == ""


def test_a_confusion_of_digits_is_in_words():
    digits = {"classes": ["0", "1"], "features": {"pretrained": {"confusion": [[3, 1], [2, 2]]}}}
    text = confusion_table(digits)
    assert '<td title="1 taken for 0" ' in text
    assert '<th scope="row">1</th>' in text


def test_classes_and_labels_that_do_not_count_are_said():
    complete = {"metric": "mAP", "num_classes": 20, "num_classes_scored": 20, "observed": 1.0}
    assert left_out(complete) == ""
    text = left_out(complete | {"num_classes_scored": 18, "observed": 0.104})
    assert "2 of 20 classes have no test clip, or no other, and do not count." in text
    assert "looked at 10% of all pairs of a test clip and a class" in text
