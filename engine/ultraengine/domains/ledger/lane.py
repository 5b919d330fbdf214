"""The fast lane of `create_transfers`: runs of ordinary transfers in compiled code.

``_lane.c`` does for a transfer what `transfers.decide_transfer` and `evolve.evolve` do on
their fast path, and writes the event's bytes, without an object for the event.  It stops at the
first item that is not ordinary, which then goes the careful way.  `LANE` is None where there
is no compiled code; decisions, events and state are the same with and without it.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import xxhash

from ultraengine.domains.ledger.commands import Transfer
from ultraengine.domains.ledger.events import (
    ANCHOR_MASK,
    FAST_END,
    INDEX_BITS,
    Transferred,
)
from ultraengine.domains.ledger.state import Book, LedgerSlot
from ultraengine.model.domain import At

Run = Callable[[Any, Sequence[Any], int, At, bytearray, list[Any]], int]

DONE: Final = Transferred(0, "", "", "", 0, 0, 0, 0, 0, 0, 0, 0, None, None, None)
"""Stands in the verdicts for the event of an item that the lane has executed."""

_decode = msgspec.msgpack.Decoder(list[Transferred]).decode


def compiled() -> Run | None:
    """The lane, or None where it was not compiled."""
    try:
        from ultraengine.domains.ledger._lane import Lane  # noqa: PLC0415  (may be absent)
    except ImportError:
        return None
    run = Lane(Transfer, Book, LedgerSlot, xxhash.xxh3_64_digest, DONE, FAST_END, ANCHOR_MASK).run

    def lane(
        book: Book,
        items: Sequence[Any],
        index: int,
        at: At,
        buffer: bytearray,
        verdicts: list[Any],
    ) -> int:
        offset, mark = at.offset, len(buffer)
        base = offset << INDEX_BITS
        done = run(book, items, index, base + at.index, at.time, buffer, verdicts)  # type: ignore[arg-type]  # Items are a list.
        if done:
            if offset != book.offset:
                # The first event of a command: what the one before left is history now.
                book.offset, book.base = offset, base
                book.recent.clear()
            if index + done < len(items):
                # Items that follow may ask for what this command has done.
                header = b"\xdd" + done.to_bytes(4, "big")
                book.recent.extend(_decode(header + buffer[mark:]))
        return done

    return lane


LANE: Final = compiled()
