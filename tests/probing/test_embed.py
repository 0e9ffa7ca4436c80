from pathlib import Path

import pytest

from matpac.probing.embed import check_front_end
from matpac.probing.encoder import PAPER_LOGMEL


def test_shards_of_another_front_end_are_refused_by_field():
    other = PAPER_LOGMEL.model_copy(update={"num_mels": 64})
    with pytest.raises(ValueError, match=r"^logmel.num_mels: the checkpoint was trained with 80"):
        check_front_end(other, PAPER_LOGMEL, Path("shards"))
    check_front_end(PAPER_LOGMEL, PAPER_LOGMEL, Path("shards"))
