"""Why a recording is left out: every reason begins with one of these phrases."""

REASONS = {
    "cannot be read": "The file system or its container refuses it: no permission, a dead link, a bad disk.",
    "cannot be decoded": "No audio that libsndfile knows (WAV, FLAC, Ogg, Opus, MP3, AIFF, ...), or damaged.",
    "no samples": "A valid header and nothing behind it.",
    "truncated": "Shorter than its own header says: a copy or download that was cut off.",
    "too short": "Shorter than one analysis window.",
    "too long": "More samples than fit into memory at once; cut it into pieces.",
    "not finite": "NaN or infinite samples, or energies that overflow.",
    "implausible": "A sample rate or loudness that no recording has: a damaged header.",
    "silent": "Every sample has the same value.",
    "duplicate": "The same bytes as a recording before it, which stands for both. Not in public datasets.",
    "changed": "Other bytes than when the inventory was taken; run the download stage again.",
    "known defect": "The dataset's page names it as broken.",
    "not listed": "In no list of the dataset: a stray file, or one that its official split leaves out.",
}
BY_DESIGN = ("duplicate", "known defect", "not listed")
"""Reasons that do not count against shards.max_rejected_fraction: nothing is wrong with the copy."""


def phrase_of(reason: str) -> str:
    """The documented phrase that a reason begins with. Raises KeyError where there is none."""
    for phrase in REASONS:
        if reason == phrase or reason.startswith(f"{phrase} ("):
            return phrase
    raise KeyError(reason)
