"""Exact numbers of any size in SQLite, which has integers of 64 bits and floats.

An amount or a total is stored as INTEGER where it fits into 64 bits, and as decimal TEXT where it
does not: one number has one form.  So whoever opens the file with any program reads numbers, and
adds and sorts them as long as they are ordinary; SQLite's own ``SUM`` of integers raises an
error rather than being wrong, and only sums over TEXT become floats.

What the engine computes is exact at every size: arithmetic is done natively behind a guard that
both sides are far from the ends of a word, and by these functions otherwise.
"""

import re
from collections.abc import Callable
from typing import Any, ClassVar, Final

from ultraengine.model.exact import ExactWords

WORD_END: Final = 1 << 63
LIMB_BITS: Final = 32
LIMB_MASK: Final = (1 << LIMB_BITS) - 1
_BARE: Final = re.compile(r"[\w.{}\"]+")

Stored = int | str


def stored(value: int) -> Stored:
    """The one form in which a number is stored."""
    return value if -WORD_END <= value < WORD_END else str(value)


def loaded(value: Stored | None) -> int | None:
    """The number that was stored."""
    return None if value is None else int(value)


def plus(one: Stored | None, other: Stored | None) -> Stored | None:
    """``ultra_plus(a, b)``; null when either is."""
    return None if one is None or other is None else stored(int(one) + int(other))


def minus(one: Stored | None, other: Stored | None) -> Stored | None:
    """``ultra_minus(a, b)``; null when either is."""
    return None if one is None or other is None else stored(int(one) - int(other))


def compare(one: Stored | None, other: Stored | None) -> int | None:
    """``ultra_compare(a, b)``: -1, 0 or 1; null when either is."""
    if one is None or other is None:
        return None
    difference = int(one) - int(other)
    return (difference > 0) - (difference < 0)


def debit(value: Stored | None) -> Stored | None:
    """``ultra_debit(x)``: how far x is below zero; null only of null."""
    return None if value is None else stored(max(0, -int(value)))


def credit(value: Stored | None) -> Stored | None:
    """``ultra_credit(x)``: how far x is above zero; null only of null."""
    return None if value is None else stored(max(0, int(value)))


def total(high: int | None, low: int | None, rest: Stored | None) -> Stored | None:
    """``ultra_total(sum of x >> 32, sum of x & 2^32 - 1, sum of the TEXTs)``; null of nothing."""
    if high is None and rest is None:
        return None
    return stored(((high or 0) << LIMB_BITS) + (low or 0) + int(rest or 0))


class Sum:
    """``ultra_sum(x)``: null of nothing."""

    def __init__(self) -> None:
        self._value: int | None = None

    def step(self, value: Stored | None) -> None:
        """One more."""
        if value is not None:
            self._value = int(value) + (self._value or 0)

    def finalize(self) -> Stored | None:
        """The sum."""
        return None if self._value is None else stored(self._value)


class Least:
    """``ultra_min(x)``: null of nothing."""

    choose: ClassVar[Callable[[int, int], int]] = min

    def __init__(self) -> None:
        self._value: int | None = None

    def step(self, value: Stored | None) -> None:
        """One more."""
        if value is not None:
            number = int(value)
            self._value = number if self._value is None else type(self).choose(number, self._value)

    def finalize(self) -> Stored | None:
        """The least."""
        return None if self._value is None else stored(self._value)


class Greatest(Least):
    """``ultra_max(x)``: null of nothing."""

    choose: ClassVar[Callable[[int, int], int]] = max


FUNCTIONS: Final[tuple[tuple[str, int, Callable[..., Any]], ...]] = (
    ("ultra_plus", 2, plus),
    ("ultra_minus", 2, minus),
    ("ultra_compare", 2, compare),
    ("ultra_total", 3, total),
    ("ultra_debit", 1, debit),
    ("ultra_credit", 1, credit),
)
"""(name, arguments, function) for every connection of the engine; all are deterministic."""
AGGREGATES: Final[tuple[tuple[str, int, Any], ...]] = (
    ("ultra_sum", 1, Sum),
    ("ultra_min", 1, Least),
    ("ultra_max", 1, Greatest),
)


def sum_of(expression: str) -> str:
    """SQL for the exact sum of an amount: native as far as the values are words."""
    words = f"FILTER (WHERE typeof({expression}) = 'integer')"
    return (
        f"ultra_total(SUM({expression} >> {LIMB_BITS}) {words},"
        f" SUM({expression} & {LIMB_MASK}) {words},"
        f" ultra_sum({expression}) FILTER (WHERE typeof({expression}) = 'text'))"
    )


class SqliteWords(ExactWords):
    """The macros by the functions of this module."""

    def total(self, x: str) -> str:
        """Natively as far as words go; what is computed itself is computed once."""
        return sum_of(x) if _BARE.fullmatch(x) else f"ultra_sum({x})"

    def plus(self, x: str, y: str) -> str:
        """Exact at every size."""
        return f"ultra_plus({x}, {y})"

    def minus(self, x: str, y: str) -> str:
        """Exact at every size."""
        return f"ultra_minus({x}, {y})"

    def debit(self, x: str) -> str:
        """Null only of null."""
        return f"ultra_debit({x})"

    def credit(self, x: str) -> str:
        """Null only of null."""
        return f"ultra_credit({x})"
