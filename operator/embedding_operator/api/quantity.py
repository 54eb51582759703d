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
NANO: Final = -9
MILLI: Final = -3
_BINARY: Final = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_DECIMAL: Final = {-9: "n", -6: "u", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T", 15: "P", 18: "E"}
_EXPONENT: Final = {suffix: exponent for exponent, suffix in _DECIMAL.items()}


def canonical(value: str | int | float, finest: int = NANO) -> str:
    """The form the API server stores: largest suffix without a fraction, decimal or binary as written.

    Follows `Quantity.CanonicalizeBytes` of k8s.io/apimachinery/pkg/api/resource: binary values below 1024 and those
    that are no whole number are written decimal, and anything finer than `finest`, a power of ten, is rounded up.

    Raises ValueError when the value is no quantity.
    """
    exact = amount(value)
    parts = _PARTS.match(str(value).strip())
    assert parts is not None
    if parts[3] in _BINARY[1:] and abs(exact) >= 1024 and exact.denominator == 1:
        return _binary(int(exact))
    return _decimal(exact, finest, scientific=parts[2] is not None)


def canonical_resource(value: str | int | float) -> str:
    """The same for an amount of a container's resource, which the API server rounds up to thousandths."""
    return canonical(value, MILLI)


def amount(value: str | int | float) -> Fraction:
    """The exact number a quantity stands for. Raises ValueError when the value is no quantity."""
    parts = _PARTS.match(str(value).strip())
    if parts is None:
        raise ValueError(f"{str(value)!r} is not a quantity; write a number with an optional suffix, like 500m or 2Gi")
    number, exponent, suffix = Fraction(parts[1]), parts[2], parts[3] or ""
    if suffix in _BINARY[1:]:
        return number * Fraction(1024 ** _BINARY.index(suffix))
    power = int(exponent[1:]) if exponent else _EXPONENT[suffix]
    return number * (Fraction(10**power) if power >= 0 else Fraction(1, 10**-power))


def _binary(amount: int) -> str:
    power = 0
    while amount % 1024 == 0 and power < len(_BINARY) - 1:
        amount, power = amount // 1024, power + 1
    return f"{amount}{_BINARY[power]}"


def _decimal(amount: Fraction, finest: int, *, scientific: bool) -> str:
    if amount == 0:
        return "0"
    units = amount * 10**-finest
    # Away from zero, as the API server rounds.
    mantissa = -(-units.numerator // units.denominator) if units > 0 else units.numerator // units.denominator
    exponent = finest
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

ResourceQuantity = Annotated[str, BeforeValidator(_as_text), AfterValidator(canonical_resource), Schema(SCHEMA)]
"""An amount of a container's resource, kept in the form the API server stores."""
