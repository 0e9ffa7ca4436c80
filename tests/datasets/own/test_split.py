from collections import Counter

import pytest

from matpac.datasets.inventory import Recording
from matpac.datasets.own.split import Splitter


def deal(clips, shares, contents=()):
    """From (path, labels, group) to the part of each path; `contents`: checksums by path."""
    splitter = Splitter()
    for path, labels, group in clips:
        splitter.add(Recording(path, 1, dict(contents).get(path, ""), path), labels, group)
    assert len(splitter) == len(clips)
    return dict(zip((path for path, _, _ in clips), splitter.split(shares).tolist(), strict=True))


def test_folds_spread_classes_and_keep_groups_whole():
    clips = [
        (f"{label}/{number}.wav", (label,), f"{label}{number // 4}")
        for label, num_clips in (("cat", 100), ("dog", 40))
        for number in range(num_clips)
    ]
    dealt = deal(clips, [1] * 5)
    counts = Counter((labels, dealt[path]) for path, labels, _ in clips)
    assert {count for (labels, _), count in counts.items() if labels == ("cat",)} == {20}
    assert {count for (labels, _), count in counts.items() if labels == ("dog",)} == {8}
    assert len({(group, dealt[path]) for path, _, group in clips}) == 35


def test_parts_do_not_depend_on_the_order_of_the_recordings():
    clips = [
        (f"{number}.wav", (str(number % 3),), str(number % 7) if number % 2 else None) for number in range(50)
    ]
    for shares in ([1] * 4, [0.8, 0.1, 0.1]):
        assert deal(clips, shares) == deal(clips[::-1], shares)


def test_a_group_of_the_name_of_a_path_is_not_that_clip():
    clips = [("a.wav", ("x",), None), ("b.wav", ("x",), "a.wav"), ("c.wav", ("x",), "a.wav")]
    dealt = deal(clips, [1, 1])
    assert dealt["b.wav"] == dealt["c.wav"] != dealt["a.wav"]


def test_copies_without_a_group_are_dealt_together():
    clips = [(f"{number}.wav", (str(number % 3),), None) for number in range(60)]
    contents = {path: f"{number % 30:064x}" for number, (path, _, _) in enumerate(clips)}
    dealt = deal(clips, [1] * 4, contents)
    assert len({(contents[path], part) for path, part in dealt.items()}) == 30
    assert len(set(dealt.values())) == 4


@pytest.mark.parametrize(("validation", "test"), [(0.1, 0.1), (0.15, 0.25), (0.05, 0.3)])
def test_shares_are_met_in_every_class(validation, test):
    shares = [1 - validation - test, validation, test]
    clips = [(f"{label}{number}", (label,), None) for label in "abc" for number in range(200)]
    dealt = deal(clips, shares)
    counts = Counter((path[0], part) for path, part in dealt.items())
    for label in "abc":
        for part, share in enumerate(shares):
            assert abs(counts[label, part] - 200 * share) <= 1


def test_a_class_with_a_clip_for_each_part_is_in_every_part():
    clips = [(f"{label}{number}", (str(label),), None) for label in range(20) for number in range(3)]
    dealt = deal(clips, [0.8, 0.1, 0.1])
    assert all({dealt[f"{label}{number}"] for number in range(3)} == {0, 1, 2} for label in range(20))


def test_clips_with_several_labels_spread_each_of_them():
    clips = [(str(number), tuple("abc"[: number % 4]), None) for number in range(400)]
    dealt = deal(clips, [1] * 4)
    counts = Counter((label, dealt[path]) for path, labels, _ in clips for label in labels)
    sizes = Counter(dealt.values())
    for label, num_clips in (("a", 300), ("b", 200), ("c", 100)):
        assert all(abs(counts[label, part] - num_clips / 4) <= 2 for part in range(4))
    assert all(abs(size - 100) <= 5 for size in sizes.values())


def test_groups_that_share_a_recording_are_joined_on_demand():
    contents = ["ab", "bc", "cd", "e", "f", "g", "h"]
    for join_copies in (False, True):
        splitter = Splitter(join_copies=join_copies)
        for number, shared in enumerate(contents):
            for content in shared:
                recording = Recording(f"{number}{content}.wav", 1, content * 64, f"{number}{content}.wav")
                splitter.add(recording, ("dog",), f"group {number}")
        parts = splitter.split([1, 1, 1]).tolist()
        # The first three groups are a chain of copies.
        assert (len(set(parts[:6])) == 1) == join_copies
        assert set(parts) == {0, 1, 2}
