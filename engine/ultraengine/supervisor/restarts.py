"""How long to wait before a process that ended is started again."""

from typing import Final

FIRST_S: Final = 0.1
LONGEST_S: Final = 30.0
STABLE_S: Final = 60.0
"""A process that ran for so long starts the count anew."""


def delay_s(failures: int) -> float:
    """Seconds before start number `failures` + 1 after so many short runs in a row."""
    return float(min(FIRST_S * 2 ** min(failures, 32), LONGEST_S))


def failures_after(failures: int, ran_s: float) -> int:
    """Short runs in a row, after one more run of so many seconds."""
    return 0 if ran_s >= STABLE_S else failures + 1
