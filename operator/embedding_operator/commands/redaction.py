"""Takes secrets out of what is handed to others: manifests, logs, metrics. Pure.

Kubernetes Secrets are never read in the first place. What is left are values that people wrote where they do not
belong: literal environment variables, command lines, annotations, ConfigMaps, URLs with passwords, headers in logs.
What is taken for a secret is told by the name beside it, or by a form that only secrets have. In doubt it is taken out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

REDACTED: Final = "(redacted)"

_SECRET_NAME: Final = re.compile(
    r"secret|token(?!i[sz])|passw|passphrase|(^|[-_.])pass($|[-_.])|[a-z]Pass$|pwd\b|credential|api[-_.]?keys?$"
    r"|private[-_.]?key|access[-_.]?key|license[-_.]?key|signing[-_.]?key|encryption[-_.]?key|bearer|authorization|cookie"
    r"|(^|[-_.])auth($|[-_.])|(^|[-_.])keys?$|dsn$|connection[-_.]?string"
    r"|(^|[-_.])(pat|salt|sig|signature|license)$|webhook[-_.]?url$",
    re.I,
)
_COUNT: Final = re.compile(
    r"(?<![a-z])(?:(?:max|min|num|batch|queued?|input|output|prompt|budget|limit|count|total|per|window)[-_.]?)+tokens?"
    r"|tokens?[-_.]?(?:per|limit|budget|count|total|seconds?|ids?|types?|len(?:gth)?s?)",
    re.I,
)
"""Tokens of texts, of which this product has many."""
_PLURAL: Final = re.compile(r"tokens$", re.I)
_REFERENCE: Final = re.compile(
    r"secret(s|[-_]?ref|[-_]?key[-_]?ref|[-_]?name|[-_]?namespace|[-_]?provider[-_]?class)?$|^key$|^audience$", re.I
)
"""Fields of Kubernetes' own objects that name a Secret, an entry of one or a label; what they hold is no secret."""
_PULL_SECRETS: Final = re.compile(r"pull[-_]?secrets?$", re.I)
_FREE_MAPS: Final = frozenset(
    {
        "annotations",
        "labels",
        "matchLabels",
        "data",
        "binaryData",
        "stringData",
        "volumeAttributes",
        "options",
        "parameters",
    }
)
"""Maps whose keys people choose."""

_WORDS: Final = (
    r"secret|passw(?:or)?d|passphrase|pwd|credentials?|api[-_]?keys?|access[-_]?keys?|private[-_]?keys?|signing[-_]?keys?"
    r"|auth[-_]?keys?|token(?!s|i[sz])"
)
_QUOTE: Final = r"(?:\\*[\"'])?"
_VALUE: Final = r"(?:\\*\"[^\"\\\r\n]*|\\*'[^'\\\r\n]*|[^\s\"',;&\\\r\n]+)"
_HEADERS: Final = r"(?:proxy-)?authorization|(?:set-)?cookie|x-[\w-]{0,40}?(?:key|token|auth|secret)[\w-]{0,40}"

# Every repetition has a bound or a fixed place to begin: a log may hold megabytes without a space.
_IN_TEXT: Final = (
    re.compile(r"(?P<keep>)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.S),
    re.compile(  # headers that have parameters: all of the line
        rf"(?P<keep>\b(?:{_HEADERS}){_QUOTE}\s*[:=,]\s*\[?b?{_QUOTE}(?:digest|aws4-hmac-\S+|signature|oauth)\s)[^\r\n]+",
        re.I,
    ),
    re.compile(rf"(?P<keep>\b(?:set-)?cookie{_QUOTE}\s*[:=,]\s*\[?b?{_QUOTE})[^\s\"'][^\r\n\"']*", re.I),
    re.compile(  # a scheme and what is shown by it, or that alone
        rf"(?P<keep>\b(?:{_HEADERS}){_QUOTE}\s*[:=,]\s*\[?b?{_QUOTE})(?:[a-z][\w.-]*\s+)?[^\s\"',;\]}}\\]+", re.I
    ),
    re.compile(r"(?P<keep>\bbearer\s+)[^\s\"',;]+", re.I),
    re.compile(r"(?P<keep>\bbasic\s+)[A-Za-z0-9+/]{8,}=*", re.I),
    re.compile(r"(?P<keep>://[^\s/:@]*:)[^\s/]+(?=@)"),  # a URL's password, with a user or without
    re.compile(r"(?P<keep>://)[^\s/:@]{20,}(?=@)"),  # a token in a URL in place of a user
    re.compile(r"(?P<keep>[?&;](?:[\w.-]{0,40}[-_.])?sig(?:nature)?=)[^\s\"'&;]+", re.I),  # a signed URL
    re.compile(r"(?P<keep>://hooks\.slack\.com/)[^\s\"']+"),
    re.compile(  # what follows in the path of a webhook, where the token is
        r"(?P<keep>://[^\s\"'/]{1,255}/(?:[\w.~%@-]{1,80}/){0,6}?[\w-]{0,40}webhook[\w-]{0,20}/)[^\s\"']+", re.I
    ),
    re.compile(r"(?P<keep>)\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"),  # a JSON web token
    re.compile(r"(?P<keep>)\b(?:hf_|nvapi-|sk-|gh[opsu]_|github_pat_|glpat-|xox[a-z]-|AKIA)[A-Za-z0-9_-]{8,}"),
    re.compile(  # {"name": "DB_PASSWORD", "value": "…"} inside a text
        rf"(?P<keep>\bname{_QUOTE}\s*:\s*{_QUOTE}[\w.-]{{0,80}}(?:{_WORDS})[\w.-]{{0,80}}{_QUOTE}\s*,\s*{_QUOTE}value{_QUOTE}\s*:\s*)"
        rf"{_VALUE}",
        re.I,
    ),
    re.compile(
        rf"(?P<keep>(?<![\w-])--?[\w-]{{0,80}}(?:{_WORDS})[\w-]{{0,80}}[ \t]+)(?!-){_VALUE}", re.I
    ),  # --api-key X
    re.compile(rf"(?P<keep>(?<![\w.-])[\w.-]{{0,80}}(?:{_WORDS})[\w.-]{{0,80}}{_QUOTE}\s*[=:]\s*){_VALUE}", re.I),
)
_FLAG: Final = re.compile(r"--?([A-Za-z][\w.-]*)")
_FLAG_WITH_VALUE: Final = re.compile(r"--?([A-Za-z][\w.-]*)=(.*)", re.S)
_ASSIGNMENT: Final = re.compile(r"([A-Za-z_]\w*)=(.*)", re.S)
_DROPPED_ANNOTATIONS: Final = ("kubectl.kubernetes.io/last-applied-configuration",)
_SHORTEST: Final = 6
"""A value shorter than this is not looked for elsewhere: it would be found everywhere."""


def looks_secret(name: str, value: object = None) -> bool:
    """Whether a variable or key of this name likely holds a secret. A number under a plural of token is a count."""
    if _SECRET_NAME.search(name) is None or _COUNT.search(name) is not None or _PULL_SECRETS.search(name) is not None:
        return False
    return _PLURAL.search(name) is None or not str(value).strip().isdecimal()


def _replacement(match: re.Match[str]) -> str:
    kept = match["keep"]
    return match[0] if _COUNT.search(kept) is not None else f"{kept}{REDACTED}"


def _structured(text: str) -> Any:
    """The object or list that a text is as JSON, or None."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict | list) else None


def _secrets_of_list(entries: Sequence[Any]) -> Iterator[tuple[int, str, str]]:
    """What in a list of arguments is a secret: its position, what stands before it in the same argument, and itself."""
    named = False
    for index, entry in enumerate(entries):
        if not isinstance(entry, str):
            named = False
            continue
        joined = _FLAG_WITH_VALUE.fullmatch(entry) or _ASSIGNMENT.fullmatch(entry)
        if joined is not None and looks_secret(joined[1], joined[2]):
            yield index, entry[: len(entry) - len(joined[2])], joined[2]
        elif named and not _FLAG.fullmatch(entry):
            yield index, "", entry
        flag = _FLAG.fullmatch(entry)
        named = flag is not None and looks_secret(flag[1])


class Redactor:
    """Redacts objects and texts; a value taken out of an object is taken out of all texts too."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def learn(self, node: Any) -> None:
        """Remember the secret values in an object, before any text is redacted."""
        self._walk(node, free=False)

    def _remember(self, value: str) -> None:
        if len(value) >= _SHORTEST:
            self._known.add(value)

    def text(self, text: str) -> str:
        """A text without what looks like a secret or is known to be one."""
        for value in sorted(self._known, key=len, reverse=True):
            text = text.replace(value, REDACTED)
        for pattern in _IN_TEXT:
            text = pattern.sub(_replacement, text)
        return text

    def object(self, node: Any) -> Any:
        """An object without secret values. References to Secrets stay: they are names."""
        return self._walk(node, free=False)

    def _walk(self, node: Any, *, free: bool) -> Any:
        """`node` without its secrets, which are remembered. `free` says that people chose this map's keys."""
        if isinstance(node, Mapping):
            return self._mapping(node, free=free)
        if isinstance(node, Sequence) and not isinstance(node, str):
            entries = [self._walk(entry, free=False) for entry in node]
            for index, before, secret in _secrets_of_list(node):
                self._remember(secret)
                entries[index] = f"{before}{REDACTED}"
            return entries
        if isinstance(node, str):
            inner = _structured(node)
            if inner is not None and (clean := self._walk(inner, free=True)) != inner:
                return json.dumps(clean)
            return self.text(node)
        return node

    def _mapping(self, node: Mapping[str, Any], *, free: bool) -> dict[str, Any]:
        name = node.get("name")
        valued = isinstance(name, str) and isinstance(node.get("value"), str) and looks_secret(name, node["value"])
        result = {}
        for key, value in node.items():
            if key == "managedFields" or key in _DROPPED_ANNOTATIONS:
                continue
            named = looks_secret(str(key), value) and (free or not _REFERENCE.search(str(key)))
            if isinstance(value, str) and ((valued and key == "value") or named):
                self._remember(value)
                result[key] = REDACTED
            else:
                result[key] = self._walk(value, free=key in _FREE_MAPS)
        return result
