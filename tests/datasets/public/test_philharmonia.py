from collections import Counter

from matpac.clip import Clip, Rejection, phrase_of
from matpac.datasets.inventory import Recording
from matpac.datasets.public import philharmonia
from matpac.params import Public

PARAMS = Public(kind="philharmonia", source=".")


def clips_of(tmp_path, *paths):
    recordings = [Recording(path, 1, "0" * 64, path) for path in paths]
    return list(philharmonia.clips(PARAMS, tmp_path, recordings))


def test_names_say_instrument_and_pitch(tmp_path):
    path = "audio/cor anglais/english-horn_As4_15_mezzo-piano_normal.mp3"
    for below in ("", "philharmonia-samples-717b7de2/"):
        assert clips_of(tmp_path, below + path) == [
            Clip(
                "english-horn_As4_15_mezzo-piano_normal",
                below + path,
                ("english-horn",),
                fold=(12 * 4 + 10) % 5 + 1,
                group="As4",
            )
        ]
    # The articulation of one recording is empty.
    [phrase] = clips_of(tmp_path, "audio/bass clarinet/bass-clarinet_Cs2_phrase_mezzo-forte_.mp3")
    assert phrase.labels == ("bass-clarinet",)


def test_percussion_serves_pre_training_only(tmp_path):
    paths = [
        "audio/percussion/bass drum/bass-drum__025_forte_bass-drum-mallet.mp3",
        "audio/percussion/Thai gong/Thai-gong__long_forte_damped.mp3",
    ]
    clips = clips_of(tmp_path, *paths)
    assert [(clip.labels, clip.fold, clip.group) for clip in clips] == [((), None, None)] * 2


def test_known_defects_and_stray_files_are_rejected(tmp_path):
    rejected = clips_of(
        tmp_path,
        "audio/saxophone/saxophone_Fs3_15_fortissimo_normal.mp3",
        "audio/oboe/oboe_E6_15_mezzo-forte_normal.mp3",
        "audio/oboe/oboe.mp3",
    )
    assert all(isinstance(item, Rejection) for item in rejected)
    assert Counter(phrase_of(item.reason) for item in rejected) == {"known defect": 2, "not listed": 1}


def test_a_pitch_is_in_one_fold_and_its_octaves_are_in_others(tmp_path):
    paths = [
        f"cello_{name}{octave}_1_forte_arco-normal.mp3"
        for octave in range(2, 6)
        for name in philharmonia.SEMITONES
    ]
    clips = clips_of(tmp_path, *paths)
    fold_of = {clip.group: clip.fold for clip in clips}
    assert set(Counter(fold_of.values())) == {1, 2, 3, 4, 5}
    assert len({fold_of[f"C{octave}"] for octave in range(2, 6)}) == 4


def test_others_report_no_scores_on_these_folds():
    task = philharmonia.PAGE.task(philharmonia.CLASSES)
    assert (len(task.classes), task.num_folds, task.official_split) == (15, 5, False)
