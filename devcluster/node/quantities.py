"""Kubernetes quantities such as `100m`, `1Gi`. Pure."""

from __future__ import annotations

import math
from decimal import Decimal

_SUFFIXES = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    "k": Decimal(10) ** 3,
    "M": Decimal(10) ** 6,
    "G": Decimal(10) ** 9,
    "T": Decimal(10) ** 12,
    "P": Decimal(10) ** 15,
    "E": Decimal(10) ** 18,
    "Ki": Decimal(2) ** 10,
    "Mi": Decimal(2) ** 20,
    "Gi": Decimal(2) ** 30,
    "Ti": Decimal(2) ** 40,
    "Pi": Decimal(2) ** 50,
    "Ei": Decimal(2) ** 60,
}


def parse_quantity(text: str | int | float) -> Decimal:
    """The value of a quantity in its base unit.

    Raises:
        ValueError: the text is no quantity.
    """
    raw = str(text)
    number = raw.rstrip("".join({letter for suffix in _SUFFIXES for letter in suffix}))
    suffix = raw[len(number) :]
    if suffix not in _SUFFIXES:
        raise ValueError(f"{raw!r} is no quantity")
    try:
        return Decimal(number) * _SUFFIXES[suffix]
    except ArithmeticError as problem:
        raise ValueError(f"{raw!r} is no quantity") from problem


def divide(quantity: str | int | float, divisor: str | int | float) -> int:
    """`quantity / divisor`, rounded up, as resourceFieldRef shows it."""
    unit = parse_quantity(divisor) or Decimal(1)
    return math.ceil(parse_quantity(quantity) / unit)
