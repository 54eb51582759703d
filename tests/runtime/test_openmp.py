"""How threads wait is decided before torch is imported, and never against the user."""

from __future__ import annotations

import pytest
from embedding_runtime.openmp import SPIN_COUNT, set_wait_policy, wait_policy


def test_the_default_is_set() -> None:
    environment: dict[str, str] = {}
    assert wait_policy(environment) == ("GOMP_SPINCOUNT", str(SPIN_COUNT), "default")
    assert environment == {}
    set_wait_policy(environment)
    assert environment == {"GOMP_SPINCOUNT": str(SPIN_COUNT)}


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_the_user_wins(name: str) -> None:
    environment = {name: "7"}
    assert set_wait_policy(environment) == (name, "7", name)
    assert environment == {name: "7"}
