"""Makes a declared CHECK exact in SQLite, where amounts may be words or texts (`exact.py`).

    {balance} - {held} >= {floor}

becomes

    CASE WHEN {balance} BETWEEN -… AND … AND {held} … AND {floor} …
         THEN {balance} - {held} >= {floor}
         ELSE ultra_compare(ultra_minus({balance}, {held}), {floor}) >= 0 END

for each comparison that names an amount; everything else stays as it was written.  A small
parser of what declared conditions are made of: AND, OR, NOT, comparisons, IS NULL, IN, sums and
differences, names in braces, integers, texts.  What it does not know is refused where an amount
is concerned, at the definition of the table: never computed inexactly.
"""

import re
from collections.abc import Collection
from typing import Final

import msgspec

from ultraengine.model.errors import InvariantBroken

SMALL_END: Final = 1 << 58
"""Words below this in size add up natively, up to `TERMS_MAX` of them."""
TERMS_MAX: Final = 16
_TOKEN: Final = re.compile(
    r"\s*(?:(?P<name>\{[a-z][a-z0-9_]*\})|(?P<number>\d+)|(?P<text>'(?:[^']|'')*')"
    r"|(?P<sign><=|>=|<>|[=<>+\-(),])|(?P<word>[A-Za-z]+))"
)
_COMPARISONS: Final = frozenset({"=", "<>", "<", "<=", ">", ">="})


class _Part(msgspec.Struct, frozen=True):
    """A piece of a condition: as it was written, and computed by functions."""

    plain: str
    exact: str
    amounts: tuple[str, ...] = ()
    """Amounts that a native computation would read."""
    terms: int = 1
    small: bool = True
    """Whether its numbers are small."""


def exact_condition(condition: str, amounts: Collection[str]) -> str:
    """The condition with its comparisons of the named columns made exact.

    Raises `InvariantBroken` for one that compares amounts in a way that is not known.
    """
    braced = {f"{{{name}}}" for name in amounts}
    if not any(name in condition for name in braced):
        return condition
    return _Parser(condition, braced).parse()


class _Parser:
    """Recursive descent; the order of binding is SQL's."""

    def __init__(self, condition: str, amounts: Collection[str]) -> None:
        self._condition = condition
        self._amounts = amounts
        self._tokens = self._split(condition)
        self._at = 0

    def parse(self) -> str:
        """The whole condition."""
        found = self._either()
        if self._peek():
            raise self._unknown()
        return found.plain

    # --- tokens --------------------------------------------------------------------------

    def _split(self, condition: str) -> list[str]:
        tokens, at = [], 0
        text = condition.rstrip()
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None:
                raise self._unknown()
            tokens.append(found[0].strip())
            at = found.end()
        return tokens

    def _peek(self) -> str:
        return self._tokens[self._at].upper() if self._at < len(self._tokens) else ""

    def _take(self, *wanted: str) -> str:
        """The next token if it is one of these (or any), else nothing."""
        if self._at == len(self._tokens) or (wanted and self._peek() not in wanted):
            return ""
        self._at += 1
        return self._tokens[self._at - 1]

    def _expect(self, token: str) -> None:
        if not self._take(token):
            raise self._unknown()

    def _unknown(self) -> InvariantBroken:
        return InvariantBroken(
            "a check of amounts is made of AND, OR, NOT, comparisons, IS NULL, IN, + and -",
            condition=self._condition,
        )

    # --- grammar -------------------------------------------------------------------------

    def _either(self) -> _Part:
        parts = [self._both()]
        while self._take("OR"):
            parts.append(self._both())
        return _joined(" OR ", parts)

    def _both(self) -> _Part:
        parts = [self._negated()]
        while self._take("AND"):
            parts.append(self._negated())
        return _joined(" AND ", parts)

    def _negated(self) -> _Part:
        if self._take("NOT"):
            return _logic(f"NOT {self._negated().plain}")
        return self._predicate()

    def _predicate(self) -> _Part:
        left = self._sum()
        comparison = self._take(*_COMPARISONS)
        if comparison:
            return self._compared(left, comparison, self._sum())
        if self._take("IS"):
            negation = "NOT " if self._take("NOT") else ""
            self._expect("NULL")
            return _logic(f"{left.plain} IS {negation}NULL")
        negation = "NOT " if self._take("NOT") else ""
        if self._take("IN"):
            return _logic(f"{left.plain} {negation}IN ({self._list(left)})")
        if negation:
            raise self._unknown()
        return left

    def _list(self, left: _Part) -> str:
        self._expect("(")
        parts = [self._sum()]
        while self._take(","):
            parts.append(self._sum())
        self._expect(")")
        # One number has one form, so that a bare amount is found among small ones natively.
        if left.amounts and (left.terms > 1 or not all(part.small for part in parts)):
            raise self._unknown()
        return ", ".join(part.plain for part in parts)

    def _compared(self, left: _Part, comparison: str, right: _Part) -> _Part:
        plain = f"{left.plain} {comparison} {right.plain}"
        amounts = tuple(dict.fromkeys(left.amounts + right.amounts))
        if not amounts:
            return _logic(plain)
        exact = f"ultra_compare({left.exact}, {right.exact}) {comparison} 0"
        if not (left.small and right.small):
            return _logic(exact)
        if left.terms + right.terms > TERMS_MAX:
            raise self._unknown()
        near = " AND ".join(f"{name} BETWEEN -{SMALL_END} AND {SMALL_END}" for name in amounts)
        return _logic(f"CASE WHEN {near} THEN {plain} ELSE {exact} END")

    def _sum(self) -> _Part:
        found = self._primary()
        while sign := self._take("+", "-"):
            other = self._primary()
            function = "ultra_plus" if sign == "+" else "ultra_minus"
            found = _Part(
                f"{found.plain} {sign} {other.plain}",
                f"{function}({found.exact}, {other.exact})",
                found.amounts + other.amounts,
                found.terms + other.terms,
                small=found.small and other.small,
            )
        return found

    def _primary(self) -> _Part:
        word = self._take()
        if word == "(":
            inner = self._either()
            self._expect(")")
            return msgspec.structs.replace(inner, plain=f"({inner.plain})")
        if word == "-" and self._peek().isdigit():
            word += self._take()
        if word.lstrip("-").isdigit():
            return _Part(word, f"'{word}'", small=abs(int(word)) < SMALL_END)
        if word[:1] not in ("{", "'"):
            raise self._unknown()
        return _Part(word, word, (word,) if word in self._amounts else ())


def _logic(text: str) -> _Part:
    return _Part(text, text)


def _joined(word: str, parts: list[_Part]) -> _Part:
    return parts[0] if len(parts) == 1 else _logic(word.join(part.plain for part in parts))
