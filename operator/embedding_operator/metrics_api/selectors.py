"""Label selectors in the API's text form (`a=b,c in (d,e),!f`), parsed and matched. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_KEY: Final = r"(?:[A-Za-z0-9.-]+/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?"
_VALUE: Final = r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?)?"
_FORMS: Final = (
    ("in", re.compile(rf"(?P<key>{_KEY})\s+in\s*\((?P<values>[^()]*)\)")),
    ("notin", re.compile(rf"(?P<key>{_KEY})\s+notin\s*\((?P<values>[^()]*)\)")),
    ("notin", re.compile(rf"(?P<key>{_KEY})\s*!=\s*(?P<values>{_VALUE})")),
    ("in", re.compile(rf"(?P<key>{_KEY})\s*==?\s*(?P<values>{_VALUE})")),
    (">", re.compile(rf"(?P<key>{_KEY})\s*>\s*(?P<values>-?[0-9]+)")),
    ("<", re.compile(rf"(?P<key>{_KEY})\s*<\s*(?P<values>-?[0-9]+)")),
    ("!", re.compile(rf"!\s*(?P<key>{_KEY})")),
    ("exists", re.compile(rf"(?P<key>{_KEY})")),
)


class BadSelector(ValueError):
    """The text is no label selector."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one label. `operator` is in, notin, exists, !, > or <."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def holds(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        if self.operator in ("!", "notin"):
            return value is None or (self.operator == "notin" and value not in self.values)
        if value is None:
            return False
        if self.operator == "in":
            return value in self.values
        if self.operator == "exists":
            return True
        (bound,) = self.values
        if re.fullmatch(r"-?[0-9]{1,19}", value) is None:
            return False
        return int(value) > int(bound) if self.operator == ">" else int(value) < int(bound)


def parse(text: str) -> tuple[Requirement, ...]:
    """The requirements of a selector, all of which must hold; none for an empty text, which matches everything.

    Raises BadSelector. The grammar is that of `k8s.io/apimachinery/pkg/labels`.
    """
    if not text.strip():
        return ()
    return tuple(_requirement(part.strip(), text) for part in re.split(r",(?![^(]*\))", text))


def _requirement(part: str, whole: str) -> Requirement:
    for operator, form in _FORMS:
        found = form.fullmatch(part)
        if found is None:
            continue
        if "values" not in form.groupindex:
            return Requirement(found["key"], operator)
        values = frozenset(value.strip() for value in found["values"].split(","))
        if all(operator in "<>" or re.fullmatch(_VALUE, value) for value in values):
            return Requirement(found["key"], operator, values)
    raise BadSelector(f"{whole!r} is no label selector: {part!r} is not understood")


def matches(selector: tuple[Requirement, ...], labels: Mapping[str, str]) -> bool:
    """Whether all requirements hold."""
    return all(requirement.holds(labels) for requirement in selector)
