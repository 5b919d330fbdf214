"""The small language of mapping files: text with placeholders, and filters behind them.

    customer-{customer}              text around a column
    {dollars|minor:2}                a column through a filter with an argument
    {date|strip|date:%Y%m%d}         several filters, left to right
    {line}  {row}  {null}            line in the file, number of the row, no value

A template that is one placeholder and nothing else keeps the type of its value (``int``,
``null``); any other is text.  Everything is a function of the row: no clock, no state, no
floats.  A doubled brace stands for itself.
"""

import re
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

import msgspec

Value = str | int | bool | None

LINE: Final = "line"
ROW: Final = "row"
NULL: Final = "null"
BUILT_IN: Final = frozenset({LINE, ROW, NULL})
"""Names that every row has; no column may be called so."""


class BadExpression(ValueError):
    """A template that cannot be understood, found before any row is read."""


class BadValue(ValueError):
    """A value of a row that a filter cannot take; the row is set aside."""


Filter = Callable[[str, str], Value]
"""(text, argument) -> value.  Raises `BadValue`."""

_INTEGER: Final = re.compile(r"[+-]?\d+", re.ASCII)
_TOUCHING_DIRECTIVES: Final = re.compile(r"%[A-Za-z]%[A-Za-z]")
_NOT_A_NAME: Final = re.compile(r"[^A-Za-z0-9._:-]+")


def minor_units(text: str, scale: str) -> str:
    """A decimal number as an integer of minor units: ``11.77`` with scale 2 is ``1177``.

    Digit by digit, so nothing is rounded: digits beyond the scale must be zeros.
    """
    if re.fullmatch(r"[+-]?(\d+(\.\d*)?|\.\d+)", text, re.ASCII) is None:
        raise BadValue(f"{text!r} is not a decimal number")
    sign = "-" if text.startswith("-") else ""
    whole, _, part = text.lstrip("+-").partition(".")
    places = int(scale)
    if part[places:].strip("0"):
        raise BadValue(f"{text!r} has more than {places} decimals")
    units = int(whole + part[:places].ljust(places, "0") or "0")
    return f"{sign}{units}" if units else "0"


def _integer(text: str, _: str) -> int:
    if _INTEGER.fullmatch(text) is None:
        raise BadValue(f"{text!r} is not an integer")
    return int(text)


@lru_cache(maxsize=4096)
def date_time(text: str, pattern: str) -> str:
    """RFC 3339 in UTC, read by a ``strptime`` pattern; without ``%z`` the text is UTC."""
    try:
        moment = datetime.strptime(text, pattern)  # noqa: DTZ007  (a zone is set below)
    except ValueError as error:
        raise BadValue(f"{text!r} is not a time like {pattern!r}") from error
    # Without a separator strptime takes 1997111 for 1997-11-01: say no instead of guessing.
    if _TOUCHING_DIRECTIVES.search(pattern) and moment.strftime(pattern) != text:
        raise BadValue(f"{text!r} is not a time like {pattern!r}: digits are missing")
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment.isoformat().replace("+00:00", "Z")


def _replace(text: str, argument: str) -> str:
    old, _, new = argument.partition(":")
    return text.replace(old, new)


FILTERS: Final[Mapping[str, tuple[Filter, str]]] = {
    "strip": (lambda text, _: text.strip(), ""),
    "lower": (lambda text, _: text.lower(), ""),
    "upper": (lambda text, _: text.upper(), ""),
    "name": (lambda text, _: _NOT_A_NAME.sub("_", text), ""),
    "default": (lambda text, argument: text or argument, "text"),
    "pad": (lambda text, argument: text.zfill(int(argument)), "number"),
    "replace": (_replace, "pair"),
    "minor": (minor_units, "number"),
    "int": (_integer, ""),
    "date": (date_time, "text"),
}
"""Filter -> its function and the kind of argument it needs (empty = none)."""


class Placeholder(msgspec.Struct, frozen=True):
    """One ``{name|filter:argument|…}``."""

    name: str
    filters: tuple[tuple[Filter, str], ...]

    def value(self, row: Mapping[str, Value]) -> Value:
        """The value for a row.  Raises `BadValue`."""
        value = row[self.name]
        for function, argument in self.filters:
            value = function("" if value is None else str(value), argument)
        return value


class Template(msgspec.Struct, frozen=True):
    """A compiled expression."""

    parts: tuple[str | Placeholder, ...]

    def value(self, row: Mapping[str, Value]) -> Value:
        """The value for a row.  Raises `BadValue`."""
        if len(self.parts) == 1 and isinstance(self.parts[0], Placeholder):
            return self.parts[0].value(row)
        return self.text(row)

    def text(self, row: Mapping[str, Value]) -> str:
        """The value for a row as text; no value is empty text.  Raises `BadValue`."""
        texts = []
        for part in self.parts:
            value = part if isinstance(part, str) else part.value(row)
            texts.append("" if value is None else str(value))
        return "".join(texts)


_TOKEN: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|[^{}]+")


def compile_template(source: str, columns: Collection[str]) -> Template:
    """Compile one expression over these columns.  Raises `BadExpression`."""
    parts: list[str | Placeholder] = []
    for found in _TOKEN.finditer(source):
        token = found[0]
        if token in {"{{", "}}"}:
            parts.append(token[0])
        elif token in {"{", "}"}:
            raise BadExpression(f"a brace is not closed in {source!r}; '{token * 2}' is a brace")
        elif found[1] is not None:
            parts.append(_placeholder(found[1], columns))
        else:
            parts.append(token)
    return Template(tuple(parts))


def _placeholder(source: str, columns: Collection[str]) -> Placeholder:
    name, *calls = source.split("|")
    if name not in columns and name not in BUILT_IN:
        known = ", ".join([*columns, *sorted(BUILT_IN)])
        raise BadExpression(f"there is no column {name!r}; there are {known}")
    return Placeholder(name, tuple(_filter(call) for call in calls))


def _filter(call: str) -> tuple[Filter, str]:
    name, colon, argument = call.partition(":")
    if name not in FILTERS:
        raise BadExpression(f"there is no filter {name!r}; there are {', '.join(FILTERS)}")
    function, kind = FILTERS[name]
    if not kind and colon:
        raise BadExpression(f"the filter {name!r} takes no argument")
    if kind and not colon:
        raise BadExpression(f"the filter {name!r} needs an argument, as in '{name}:…'")
    if kind == "number" and not (argument.isdecimal() and int(argument) <= 38):
        raise BadExpression(f"the argument of {name!r} is a number up to 38, not {argument!r}")
    if kind == "pair" and (":" not in argument or argument.startswith(":")):
        raise BadExpression(f"the argument of {name!r} is old:new, not {argument!r}")
    return function, argument
