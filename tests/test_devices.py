import os
import subprocess
import sys

import pytest
import torch

from matpac.devices import available_cores, is_bfloat16_slow, num_workers, quotas, workers


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no CPU affinity")
def test_a_process_bound_to_one_core_has_one():
    code = (
        "import os; os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1]); from matpac.devices import *"
    )
    code += "; print(available_cores())"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "1\n"
    assert 1 <= available_cores() <= os.cpu_count()


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/", {"cpu.max": "max 100000"}, []),
        ("0::/", {"cpu.max": "150000 100000"}, [1.5]),
        # A service in a slice: the tighter of both limits counts.
        ("0::/a.slice/b.service", {"a.slice/cpu.max": "400000 100000"}, [4.0]),
        # Version 1 in a container, which sees its group as the root.
        (
            "4:memory:/docker/1f\n1:cpuacct,cpu:/docker/1f",
            {"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"},
            [0.5],
        ),
        ("1:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, []),
        ("2:cpuset:/", {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, []),
    ],
)
def test_quotas_of_control_groups(tmp_path, membership, files, expected):
    (tmp_path / "membership").write_text(membership + "\n")
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert list(quotas(tmp_path / "membership", tmp_path)) == expected


def test_no_control_groups_no_quota(tmp_path):
    assert list(quotas(tmp_path / "none", tmp_path)) == []


def test_workers_are_one_a_core_and_one_for_a_gpu(monkeypatch):
    monkeypatch.setattr("matpac.devices.available_cores", lambda: 4)
    torch.set_num_threads(3)
    try:
        assert num_workers(torch.device("cpu")) == 3
        assert num_workers(torch.device("cuda")) == 1
        with workers(2) as pool:
            assert pool.submit(torch.get_num_threads).result() == 1
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(1)


def test_bfloat16_is_slow_only_where_a_cpu_has_no_instructions_for_it(monkeypatch):
    assert not is_bfloat16_slow(torch.device("cuda"))
    for supported in (True, False):
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda known=supported: known)
        assert is_bfloat16_slow(torch.device("cpu")) != supported
