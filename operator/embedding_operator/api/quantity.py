"""Kubernetes quantities: what is accepted, and the one form in which the API server stores them."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator

from .base import Schema

PATTERN: Final = (
    r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$"
)
_PARTS: Final = re.compile(r"^([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d+)|([KMGTPE]i|[numkMGTPE]))?$")
_BINARY: Final = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_DECIMAL: Final = {-9: "n", -6: "u", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T", 15: "P", 18: "E"}
_EXPONENT: Final = {suffix: exponent for exponent, suffix in _DECIMAL.items()}


def canonical(value: str | int | float) -> str:
    """The form the API server stores: largest suffix without a fraction, decimal or binary as written.

    Follows `Quantity.CanonicalizeBytes` of k8s.io/apimachinery/pkg/api/resource: binary values below 1024 and those
    that are no whole number are written decimal, and anything finer than nano is rounded up.

    Raises ValueError when the value is no quantity.
    """
    parts = _PARTS.match(str(value).strip())
    if parts is None:
        raise ValueError(f"{str(value)!r} is not a quantity; write a number with an optional suffix, like 500m or 2Gi")
    number, exponent, suffix = Fraction(parts[1]), parts[2], parts[3] or ""
    if suffix in _BINARY[1:]:
        amount = number * 1024 ** _BINARY.index(suffix)
        if abs(amount) >= 1024 and amount.denominator == 1:
            return _binary(int(amount))
    else:
        amount = number * Fraction(10) ** (int(exponent[1:]) if exponent else _EXPONENT[suffix])
    return _decimal(amount, scientific=exponent is not None)


def _binary(amount: int) -> str:
    power = 0
    while amount % 1024 == 0 and power < len(_BINARY) - 1:
        amount, power = amount // 1024, power + 1
    return f"{amount}{_BINARY[power]}"


def _decimal(amount: Fraction, *, scientific: bool) -> str:
    if amount == 0:
        return "0"
    nano = amount * 10**9
    # Away from zero, as the API server rounds.
    mantissa = -(-nano.numerator // nano.denominator) if nano > 0 else nano.numerator // nano.denominator
    exponent = -9
    while mantissa % 1000 == 0 and exponent < 18:
        mantissa, exponent = mantissa // 1000, exponent + 3
    if scientific:
        return f"{mantissa}e{exponent}" if exponent else str(mantissa)
    return f"{mantissa}{_DECIMAL[exponent]}"


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


SCHEMA: Final[dict[str, Any]] = {
    "anyOf": [{"type": "integer"}, {"type": "string"}],
    "pattern": PATTERN,
    "x-kubernetes-int-or-string": True,
}

Quantity = Annotated[str, BeforeValidator(_as_text), AfterValidator(canonical), Schema(SCHEMA)]
"""An amount such as 500m or 2Gi, kept in the form the API server stores."""
