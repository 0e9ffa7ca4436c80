from matpac.report.scores import classes_of, lead, mistakes, task_of, uncounted


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


COMPLETE = {"dataset": "a", "metric": "mAP", "num_classes": 20, "num_classes_scored": 20, "observed": 1.0}


def details(confusion):
    size = len(confusion)
    features = {
        name: {"per_class": [0.5] * size, "confusion": confusion} for name in ("pretrained", "random_init")
    }
    names = [f"class {number}" for number in range(size)]
    return {"classes": names, "num_clips_scored": [1] * size, "features": features}


def test_lost_tasks_are_named():
    text = lead([summary("a", 0.9, 0.5), summary("b", 0.4, 0.5), summary("c", 0.2, 0.1)])
    assert "clearly helps on 2 of 3 tasks" in text
    assert "lower than the untrained encoder on b." in text
    assert "score higher than the encoder on c." in text


def test_mistakes_are_shares_of_the_true_class():
    found = mistakes(["a", "b", "c"], [[0.75, 0.25, 0], [0, 1, 0], [0.3, 0.2, 0.5]])
    assert found == [("c", "a", 0.3), ("a", "b", 0.25), ("c", "b", 0.2)]


def test_a_confusion_is_in_shares_and_left_out_if_there_are_many_classes():
    assert task_of(COMPLETE, details([[3, 1], [2, 2]])).confusion == [[0.75, 0.25], [0.5, 0.5]]
    small, large = ([[1] * size] * size for size in (20, 21))
    assert task_of(COMPLETE, details(small)).confusion is not None
    assert task_of(COMPLETE, details(large)).confusion is None
    assert len(task_of(COMPLETE, details(large)).mistakes) == 8


def test_the_best_recognized_classes_come_first_and_unscored_ones_last():
    found = details([[1] * 3] * 3)
    found["features"]["pretrained"]["per_class"] = [0.2, None, 0.9]
    assert [one.name for one in classes_of(found)] == ["class 2", "class 0", "class 1"]


def test_classes_and_labels_that_do_not_count_are_said():
    assert uncounted(COMPLETE) == []
    unscored, unobserved = uncounted(COMPLETE | {"num_classes_scored": 18, "observed": 0.104})
    assert unscored == "2 of 20 classes have no test clip, or no other, and do not count."
    assert "looked at 10% of all pairs of a test clip and a class" in unobserved
