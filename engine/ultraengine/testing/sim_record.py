"""The RecordStore port in memory, with the troubles of one that lies behind a network."""

import threading
from collections.abc import Iterable

from ultraengine.ports import OutcomeUnknown


class SimRecordStore:
    """One value; it outlives simulated machines.  Safe to use from threads."""

    def __init__(self, troubles: Iterable[str] = ()) -> None:
        """`troubles`: for each call, in turn, ``lost`` (the request does not arrive), ``late`` (it
        lands, and the answer is lost) or anything else; when they end, all is well."""
        self._value: bytes | None = None
        self._mark: bytes | None = None
        self._troubles = iter(troubles)
        self._mutex = threading.Lock()

    def read(self) -> bytes | None:
        """What is in force.  Raises OSError."""
        with self._mutex:
            if next(self._troubles, "") in {"lost", "late"}:
                raise TimeoutError("no answer")
            return self._value

    def swap(self, expected: bytes | None, new: bytes) -> bool:
        """Put `new` in the place of exactly `expected`; whether it was done.

        Raises `OutcomeUnknown`.
        """
        with self._mutex:
            trouble = next(self._troubles, "")
            lands = trouble != "lost" and self._value == expected
            if lands:
                self._value = new
            if trouble in {"lost", "late"}:
                raise OutcomeUnknown("no answer")
            return lands

    def mark(self, first: bytes | None) -> bytes | None:
        """Whose place this is; `first` where nothing says it.  Raises OSError."""
        with self._mutex:
            trouble = next(self._troubles, "")
            if trouble != "lost" and self._mark is None:
                self._mark = first
            if trouble in {"lost", "late"}:
                raise TimeoutError("no answer")
            return self._mark
