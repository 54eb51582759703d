"""The container's CPU limit, in both spellings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from embedding_runtime.models.processors import usable_processors


@pytest.mark.parametrize(("limit", "expected"), [("150000 100000", 2), ("50000 100000", 1), ("max 100000", None)])
def test_cgroup_v2(tmp_path: Path, limit: str, expected: int | None) -> None:
    (tmp_path / "cpu.max").write_text(f"{limit}\n")
    allowed = len(os.sched_getaffinity(0))
    assert usable_processors(tmp_path) == min(expected or allowed, allowed)


def test_cgroup_v1(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("100000\n")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert usable_processors(tmp_path) == 1


def test_without_a_limit(tmp_path: Path) -> None:
    assert usable_processors(tmp_path) == len(os.sched_getaffinity(0))
