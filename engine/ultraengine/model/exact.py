"""Exact arithmetic of amounts in declared SQL: macros that each database writes in its own words.

    TOTAL(x)      the sum of x           PLUS(x, y), MINUS(x, y)
    DEBIT(x)      how far x is below 0   CREDIT(x)    how far it is above

Not every database has numbers as wide as an amount, so reads (`model.reads`) and aggregates
(`model.projection.Aggregate`) compute amounts by these alone.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from ultraengine.model.errors import InvariantBroken

MACROS: Final[Mapping[str, int]] = {"TOTAL": 1, "PLUS": 2, "MINUS": 2, "DEBIT": 1, "CREDIT": 1}
"""Number of arguments by macro."""
_MACRO: Final = re.compile(rf".*\b(?P<name>{'|'.join(MACROS)})\(", re.DOTALL)
"""The last one: what stands behind it has none.  To be matched from the beginning: a search for
one that is not there would begin anew at every character."""


class ExactWords:
    """The macros in standard SQL, for numbers that are wide enough; subclasses differ."""

    def total(self, x: str) -> str:
        """Sum of amounts."""
        return f"SUM({x})"

    def plus(self, x: str, y: str) -> str:
        """Of two amounts."""
        return f"({x} + {y})"

    def minus(self, x: str, y: str) -> str:
        """Of two amounts."""
        return f"({x} - {y})"

    def debit(self, x: str) -> str:
        """How far an amount is below zero."""
        return f"CASE WHEN {x} < 0 THEN 0 - {x} ELSE 0 END"

    def credit(self, x: str) -> str:
        """How far it is above."""
        return f"CASE WHEN {x} > 0 THEN {x} ELSE 0 END"


class GreatestWords(ExactWords):
    """Where there is GREATEST: what is computed itself is computed once, and not once per place."""

    def debit(self, x: str) -> str:
        """Of null it is null, or 0."""
        return f"GREATEST(0 - {x}, 0)"

    def credit(self, x: str) -> str:
        """Of null it is null, or 0."""
        return f"GREATEST({x}, 0)"


def has_macros(text: str) -> bool:
    """Whether anything in it is to be written out."""
    return _MACRO.match(text) is not None


@lru_cache(maxsize=1_024)
def expanded(text: str, words: ExactWords) -> str:
    """Declared SQL with its macros in the words of a database, the inner ones first.

    Remembered: what is declared is asked for again with each query.

    Raises `InvariantBroken` for a wrong number of arguments or an open parenthesis.
    """
    found = _MACRO.match(text)
    while found is not None:
        # The last opening one has no macro inside.
        arguments, end = _arguments(text, found.end())
        if len(arguments) != MACROS[found["name"]]:
            raise InvariantBroken("a macro has its number of arguments", macro=found["name"])
        written = getattr(words, found["name"].lower())(*arguments)
        text = text[: found.start("name")] + written + text[end:]
        found = _MACRO.match(text)
    return text


def split(text: str) -> list[str]:
    """The parts of a list between its commas, but for those in parentheses."""
    depth, begin = 0, 0
    parts: list[str] = []
    for at, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0 and character == ",":
            parts.append(text[begin:at].strip())
            begin = at + 1
    return [*parts, text[begin:].strip()]


def _arguments(text: str, start: int) -> tuple[list[str], int]:
    """What stands between the parenthesis that ends at `start` and the one that closes it."""
    depth = 1
    for at in range(start, len(text)):
        character = text[at]
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return split(text[start:at]), at + 1
    raise InvariantBroken("a parenthesis is closed", sql=text)
