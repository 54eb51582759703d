"""Takes secrets out of what is handed to others: manifests, logs, metrics. Pure.

Kubernetes Secrets are never read in the first place. What is left are values that people wrote where they do not
belong: literal environment variables, command lines, URLs with passwords, keys in logs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

REDACTED: Final = "(redacted)"

_SECRET_NAME: Final = re.compile(
    r"secret|token|passw|pwd\b|credential|api[-_.]?keys?$|private[-_.]?key|access[-_.]?key|license[-_.]?key"
    r"|bearer|authorization|(^|[-_.])auth($|[-_.])|(^|[-_.])key$|dsn$|connection[-_.]?string",
    re.I,
)
_NO_SECRET: Final = re.compile(r"tokens|max.*token|batch.*token|token_?(limit|budget|count)", re.I)
"""Tokens of texts, of which this product has many."""

_IN_TEXT: Final = (
    re.compile(r"(?P<keep>\bbearer\s+)[^\s\"',;]+", re.I),
    re.compile(r"(?P<keep>\bbasic\s+)[A-Za-z0-9+/]{8,}=*", re.I),
    re.compile(r"(?P<keep>://[^\s/:@]+:)[^\s/@]+(?=@)"),
    re.compile(r"(?P<keep>)\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"),  # a JSON web token
    re.compile(r"(?P<keep>)\b(?:hf_|nvapi-|sk-|ghp_|glpat-|xox[a-z]-|AKIA)[A-Za-z0-9_-]{8,}"),
    re.compile(r"(?P<keep>)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.S),
    re.compile(
        r"(?P<keep>[\w.-]*(?:secret|password|passwd|api[-_]?key|access[-_]?key|[-_]token(?!s))[\w.-]*"
        r"[\"']?\s*[=:]\s*[\"']?)[^\s\"',;&]+",
        re.I,
    ),
)
_DROPPED_ANNOTATIONS: Final = ("kubectl.kubernetes.io/last-applied-configuration",)
_SHORTEST: Final = 6
"""A value shorter than this is not looked for elsewhere: it would be found everywhere."""


def looks_secret(name: str) -> bool:
    """Whether a variable or key of this name likely holds a secret."""
    return _SECRET_NAME.search(name) is not None and _NO_SECRET.search(name) is None


class Redactor:
    """Redacts objects and texts; a value taken out of an object is taken out of all texts too."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def learn(self, node: Any) -> None:
        """Remember the secret values of variables in an object, before any text is redacted."""
        if isinstance(node, Mapping):
            if isinstance(node.get("name"), str) and isinstance(node.get("value"), str) and looks_secret(node["name"]):
                self._remember(node["value"])
            for value in node.values():
                self.learn(value)
        elif isinstance(node, Sequence) and not isinstance(node, str):
            for entry in node:
                self.learn(entry)

    def _remember(self, value: str) -> None:
        if len(value) >= _SHORTEST:
            self._known.add(value)

    def text(self, text: str) -> str:
        """A text without what looks like a secret or is known to be one."""
        for value in sorted(self._known, key=len, reverse=True):
            text = text.replace(value, REDACTED)
        for pattern in _IN_TEXT:
            text = pattern.sub(lambda match: f"{match['keep']}{REDACTED}", text)
        return text

    def object(self, node: Any) -> Any:
        """An object without secret values. References to Secrets stay: they are names."""
        if isinstance(node, Mapping):
            if isinstance(node.get("name"), str) and "value" in node and looks_secret(node["name"]):
                return {**node, "value": REDACTED}
            return {
                key: self.object(value)
                for key, value in node.items()
                if key != "managedFields" and key not in _DROPPED_ANNOTATIONS
            }
        if isinstance(node, Sequence) and not isinstance(node, str):
            return [self.object(entry) for entry in node]
        return self.text(node) if isinstance(node, str) else node
