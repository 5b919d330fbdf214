"""How many different values there were: exact while they are few, then estimated.

HyperLogLog (Flajolet, Fusy, Gandouet, Meunier: "HyperLogLog: the analysis of a near-optimal
cardinality estimation algorithm", AofA 2007) with 1,024 registers of a byte: about 3 % off, in
a kilobyte however many values there are.  Up to `EXACT_MAX` values their hashes are kept and
counted.  Values themselves are never kept.
"""

import math
from typing import Final

REGISTERS_LOG2: Final = 10
REGISTERS: Final = 1 << REGISTERS_LOG2
EXACT_MAX: Final = 64
_ALPHA: Final = 0.7213 / (1 + 1.079 / REGISTERS)
_REST_BITS: Final = 64 - REGISTERS_LOG2


class Distinct:
    """Counts different 64-bit hashes."""

    __slots__ = ("_exact", "_registers")

    def __init__(self) -> None:
        self._exact: set[int] | None = set()
        self._registers = bytearray()

    def add(self, hashed: int) -> None:
        """Count a value by its hash of 64 even bits."""
        exact = self._exact
        if exact is None:
            self._note(hashed)
            return
        exact.add(hashed)
        if len(exact) > EXACT_MAX:
            self._registers = bytearray(REGISTERS)
            for one in sorted(exact):
                self._note(one)
            self._exact = None

    def _note(self, hashed: int) -> None:
        place = hashed >> _REST_BITS
        rest = hashed & ((1 << _REST_BITS) - 1)
        rank = _REST_BITS - rest.bit_length() + 1
        self._registers[place] = max(self._registers[place], rank)

    @property
    def is_exact(self) -> bool:
        """Whether `count` is exact but for equal hashes."""
        return self._exact is not None

    def count(self) -> int:
        """Different values so far."""
        if self._exact is not None:
            return len(self._exact)
        registers = self._registers
        raw = _ALPHA * REGISTERS * REGISTERS / math.fsum(2.0**-rank for rank in registers)
        empty = registers.count(0)
        if raw <= 2.5 * REGISTERS and empty:
            return round(REGISTERS * math.log(REGISTERS / empty))
        return round(raw)
