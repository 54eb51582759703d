"""How much memory is free, in the machine and in a container."""

from __future__ import annotations

from pathlib import Path

import pytest
from embedding_runtime.models.memory import free_bytes, keep_memory


def test_the_smaller_of_machine_and_container(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 4000 kB\nMemAvailable:    2000 kB\n")
    assert free_bytes(meminfo, tmp_path) == 2000 * 1024
    (tmp_path / "memory.max").write_text("1500000\n")
    (tmp_path / "memory.current").write_text("500000\n")
    assert free_bytes(meminfo, tmp_path) == 1_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_bytes(meminfo, tmp_path) == 2000 * 1024


def test_cgroup_v1(tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory/memory.limit_in_bytes").write_text("900\n")
    (tmp_path / "memory/memory.usage_in_bytes").write_text("1000\n")
    assert free_bytes(tmp_path / "absent", tmp_path) == 0


def test_the_users_malloc_settings_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000")
    assert not keep_memory()
