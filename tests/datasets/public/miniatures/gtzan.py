"""GTZAN in miniature: 3 listed recordings of blues and of jazz in each split, some unlisted, one broken."""

from pathlib import Path

from tests.datasets.public.miniatures import tone, wav, write_tar_gz

LISTED = {
    "blues": ("00029", "00030", "00031", "00000", "00001", "00002", "00012", "00013", "00014"),
    "jazz": ("00000", "00001", "00011", "00002", "00003", "00004", "00073", "00074", "00075"),
}
"""Numbers: three of the train list, three of valid, three of test."""
UNLISTED = {"jazz": ("00033", "00034")}
BROKEN = "genres/jazz/jazz.00054.wav"
"""In the train list."""
NUM_CLIPS = sum(map(len, LISTED.values()))
"""That can be used; the lists name the broken one as well."""
NUM_RECORDINGS = NUM_CLIPS + 3
RATE_HZ = 22_050


def make(folder: Path) -> dict[str, Path]:
    members = {}
    for index, (genre, listed) in enumerate(LISTED.items()):
        for number in (*listed, *UNLISTED.get(genre, ())):
            path = f"genres/{genre}/{genre}.{number}.wav"
            members[path] = wav(tone(5 * index, int(number), RATE_HZ, 0.6), RATE_HZ)
    members[BROKEN] = b"\0" * 2_000
    # Some copies were packed with a hidden twin beside every file, which holds its Finder information.
    for path in list(members):
        parent, _, name = path.rpartition("/")
        members[f"{parent}/._{name}"] = b"\0\5\x16\7"
    archive = "genres.tar.gz"
    return {archive: write_tar_gz(folder / archive, members)}
