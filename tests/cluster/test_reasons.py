"""Every reason that a condition or a problem can have is made to happen on a control plane, or has an excuse here."""

from __future__ import annotations

import ast
from pathlib import Path

from embedding_operator.judge.reasons import Reason

EXCUSED: dict[Reason, str] = {}
"""Reason -> why it cannot be made to happen here."""


def claimed() -> set[str]:
    """The reasons in the `tells` markers of this directory's tests; each marked test fails if it does not see them."""
    found: set[str] = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.tells":
                found |= {ast.literal_eval(argument) for argument in node.args}
    return found


def test_every_reason_happens_or_is_excused() -> None:
    assert {reason.value for reason in Reason} - claimed() - {reason.value for reason in EXCUSED} == set()


def test_no_reason_is_made_up_and_no_excuse_is_idle() -> None:
    assert claimed() <= {reason.value for reason in Reason}
    assert claimed().isdisjoint(reason.value for reason in EXCUSED)
