"""Quantities in the form the API server stores; cluster/test_quantities.py asks a real one for the same pairs."""

from __future__ import annotations

import pytest
from embedding_operator.api.quantity import amount, canonical, canonical_resource
from hypothesis import given
from hypothesis import strategies as st

PAIRS = [
    ("0", "0"), ("0Mi", "0"), ("1", "1"), ("1000", "1k"), ("1024", "1024"), ("1024Mi", "1Gi"), ("1.5Gi", "1536Mi"),
    ("1000Ki", "1000Ki"), ("0.5", "500m"), (".5", "500m"), ("1000m", "1"), ("1500m", "1500m"), ("100000m", "100"),
    ("2Gi", "2Gi"), ("0.5Ki", "512"), ("0.1Gi", "107374182400m"), ("1e3", "1e3"), ("1500e0", "1500"), ("1E", "1E"),
    ("12e6", "12e6"), ("1e-3", "1e-3"), ("-1024Mi", "-1Gi"), ("0.0000000001", "1n"), ("+2", "2"), ("1u", "1u"),
]  # fmt: skip


@pytest.mark.parametrize(("written", "stored"), PAIRS)
def test_canonical(written: str, stored: str) -> None:
    assert canonical(written) == stored


def test_resources_are_rounded_up_to_thousandths() -> None:
    assert canonical_resource("1.1m") == "2m"
    assert canonical_resource("1u") == "1m"
    assert canonical_resource("1.5Gi") == "1536Mi"


@pytest.mark.parametrize("nonsense", ["", "one", "1 Gi", "1gi", "1Kb", "--1", "1e", "0x1"])
def test_nonsense_is_refused_with_advice(nonsense: str) -> None:
    with pytest.raises(ValueError, match="500m or 2Gi"):
        canonical(nonsense)


@given(st.from_regex(r"[0-9]{1,6}(\.[0-9]{1,3})?(n|u|m|k|M|G|Ki|Mi|Gi|e[1-9])?", fullmatch=True))
def test_canonical_is_a_fixed_point_and_never_less(written: str) -> None:
    stored = canonical(written)
    assert canonical(stored) == stored
    assert 0 <= amount(stored) - amount(written) < amount("1n")
