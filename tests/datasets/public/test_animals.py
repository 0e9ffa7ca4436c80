import hashlib

from matpac.clip import Clip, Rejection, phrase_of
from matpac.datasets.inventory import Recording
from matpac.datasets.public import animals
from matpac.params import Public

PARAMS = Public(kind="animals", source=".")


def clips_of(tmp_path, *paths, sha256="0" * 63 + "7"):
    return list(animals.clips(PARAMS, tmp_path, [Recording(path, 1, sha256, path) for path in paths]))


def test_folders_say_the_animal_in_turkish(tmp_path):
    for below in ("", "Animal-Sound-Dataset-574b5e2d/"):
        path = f"{below}Kedi-Part2/cat_180.wav"
        assert clips_of(tmp_path, path) == [Clip("cat_180", path, ("cat",), fold=7 % 5 + 1)]
    [lion] = clips_of(tmp_path, "Aslan/aslan_14.WAV")
    assert lion.labels == ("lion",)
    assert len(animals.CLASSES) == animals.PAGE.num_classes
    for stray in ("Fil/fil_1.wav", "cat_180.wav", "Kedi-Part1/README.wav"):
        [item] = clips_of(tmp_path, stray)
        assert isinstance(item, Rejection)
        assert phrase_of(item.reason) == "not listed"


def test_copies_are_in_one_fold(tmp_path):
    for content in (b"a", b"b", b"c"):
        sha256 = hashlib.sha256(content).hexdigest()
        first, copy = clips_of(tmp_path, "Tavuk/tavuk_29.wav", "Tavuk/tavuk_30.wav", sha256=sha256)
        assert first.fold == copy.fold
        assert first.fold in range(1, 6)


def test_what_cannot_be_read_is_left_to_the_shards(tmp_path):
    [clip] = clips_of(tmp_path, "Inek/inek_1.wav", sha256="")
    assert clip.labels == ("cow",)
