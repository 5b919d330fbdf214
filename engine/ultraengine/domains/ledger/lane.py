"""The fast lane of `create_transfers`: runs of ordinary transfers in compiled code.

``_lane.c`` does for a transfer what `transfers.decide_transfer` and `evolve.evolve` do on
their fast path, and writes the event's bytes, without an object for the event.  It stops at the
first item that is not ordinary, which then goes the careful way.  Recorded events of ordinary
transfers are read and applied likewise, as far as every value agrees with memory.  `LANE` is
None where there is no compiled code; decisions, events and state are the same with and without it.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import xxhash

from ultraengine.domains.ledger.commands import CreateTransfers, Transfer, prepare_transfers
from ultraengine.domains.ledger.events import (
    ANCHOR_MASK,
    FAST_END,
    INDEX_BITS,
    STATUS,
    Transferred,
)
from ultraengine.domains.ledger.replies import Fold, ItemResult, TransferResults, fold_transfers
from ultraengine.domains.ledger.state import Book, LedgerSlot
from ultraengine.model.domain import At, Recorded, Rejection
from ultraengine.model.outcome import Outcome

Run = Callable[[Any, Sequence[Any], int, At, bytearray, list[Any]], int]
Single = Callable[[Any, Any, At], tuple[Any, bytes, bytes] | None]

DONE: Final = Transferred(0, "", "", "", 0, 0, 0, 0, 0, 0, 0, 0, None, None, None)
"""Stands in the verdicts for the event of an item that the lane has executed."""

_decode = msgspec.msgpack.Decoder(list[Transferred]).decode


class Lane(NamedTuple):
    """The ways of ``_lane.c``, as `model.domain.CommandSpec` describes them."""

    run: Run
    single: Single
    fold: Fold
    prepare: Callable[[CreateTransfers], CreateTransfers]
    recorded: Recorded


def results_around() -> tuple[bytes, bytes]:
    """msgpack of the results of one item that was posted: before its id, and behind it."""
    encoded = msgspec.msgpack.encode(TransferResults([ItemResult("", STATUS[Transferred])]))
    head, field, tail = encoded.partition(b"\xa2id\xa0")
    return head + field[:-1], tail


def compiled() -> Lane | None:
    """The lane, or None where it was not compiled."""
    try:
        from ultraengine.domains.ledger import _lane  # noqa: PLC0415  (may be absent)
    except ImportError:
        return None
    head, tail = results_around()
    native = _lane.Lane(
        item_type=Transfer,
        book_type=Book,
        slot_type=LedgerSlot,
        data_type=CreateTransfers,
        result_type=ItemResult,
        results_type=TransferResults,
        outcome_type=Outcome,
        hash=xxhash.xxh3_64_digest,
        done=DONE,
        status=STATUS[Transferred],
        head=head,
        tail=tail,
        fast_end=FAST_END,
        anchor_mask=ANCHOR_MASK,
        index_bits=INDEX_BITS,
    )
    run, results, canonical = native.run, native.results, native.canonical

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

    def fold(
        items: Sequence[Any], verdicts: Sequence[Any]
    ) -> tuple[bool, TransferResults, Rejection | None]:
        posted = results(items, verdicts)  # type: ignore[arg-type]  # Both are lists.
        if posted is None:
            return fold_transfers(items, verdicts)
        return True, TransferResults(posted), None

    def prepare(data: CreateTransfers) -> CreateTransfers:
        return data if canonical(data) else prepare_transfers(data)

    return Lane(lane, native.single, fold, prepare, native.recorded)


LANE: Final = compiled()
