"""Every example renders to exactly the objects in golden/. To accept changes: UPDATE_GOLDEN=1, and review the diff."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from embedding_operator.api import parse
from embedding_operator.render import render

from tests.operator.helpers import CONTEXT, EXAMPLES, example

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_renders_as_reviewed(path: Path) -> None:
    children = render(parse(example(path)), CONTEXT)
    text = yaml.safe_dump_all(children, sort_keys=False, width=120)
    golden = GOLDEN / path.name
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8"), "rerun with UPDATE_GOLDEN=1 and review the diff"


def test_no_golden_file_is_left_over() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == {path.name for path in EXAMPLES}
