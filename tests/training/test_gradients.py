import pytest
import torch

from matpac.training.gradients import IN_MEMORY, OPEN_FILES, path_of, shared_file


@pytest.mark.skipif(not OPEN_FILES.exists(), reason="files without a name are Linux's")
def test_shared_memory_has_no_name_that_a_killed_process_could_leave_behind():
    with shared_file(num_rows=3, row_bytes=8) as file:
        here, there = (
            torch.from_file(path_of(file), shared=True, size=6, dtype=torch.float32) for _ in range(2)
        )
        assert not list(IN_MEMORY.glob("matpac-*"))
    here[4] = 7.0
    assert there.tolist() == [0, 0, 0, 0, 7, 0]


def test_without_room_for_shared_memory_one_line_says_what_to_set(monkeypatch, tmp_path):
    monkeypatch.setattr("matpac.training.gradients.IN_MEMORY", tmp_path / "none")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "none"))
    with pytest.raises(OSError, match=r"need .* to share gradients, .* Set compute.num_processes: 1"):
        shared_file(num_rows=1, row_bytes=8)
