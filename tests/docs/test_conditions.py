"""docs/conditions.md lists every reason and condition type, and nothing that does not exist."""

from __future__ import annotations

import re
from pathlib import Path

from embedding_operator.api import ConditionType
from embedding_operator.judge.reasons import Reason

PAGE = (Path(__file__).parents[2] / "docs" / "conditions.md").read_text()


def _first_column(section: str) -> list[str]:
    return re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)


def test_every_reason_is_documented_once() -> None:
    documented = _first_column(PAGE.split("## Reasons")[1])
    assert sorted(documented) == sorted(reason.value for reason in Reason)


def test_every_condition_type_is_documented_once() -> None:
    documented = _first_column(PAGE.split("## Reasons")[0])
    assert sorted(documented) == sorted(kind.value for kind in ConditionType)
