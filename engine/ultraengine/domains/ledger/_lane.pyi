from collections.abc import Callable
from typing import Any

from ultraengine.domains.ledger.replies import ItemResult
from ultraengine.domains.ledger.state import Book
from ultraengine.model.domain import At

def names_hold(items: list[Any], fields: tuple[str, ...], /) -> bool: ...

class AccountFields:
    id: str
    number: int
    asset: str
    min_balance: int | None
    max_balance: int | None
    metadata: dict[str, str] | None
    balance: int
    pending_in: int
    pending_out: int
    closed: bool
    version: int
    head: int
    anchors: tuple[int, ...]
    effective_max: int
    late: int | None
    dirty: bool
    low: int
    high: int

class Lane:
    def __init__(
        self,
        item_type: type,
        book_type: type,
        slot_type: type,
        data_type: type,
        result_type: type,
        results_type: type,
        outcome_type: type,
        hash: Callable[[bytes, int], bytes],
        done: object,
        status: str,
        head: bytes,
        tail: bytes,
        fast_end: int,
        anchor_mask: int,
        index_bits: int,
    ) -> None: ...
    def single(self, book: Book, data: Any, at: At, /) -> tuple[Any, bytes, bytes] | None: ...
    def recorded(
        self, book: Book, outcomes: list[Any], index: int, end: int, at: At, /
    ) -> tuple[int, int]: ...
    def canonical(self, data: Any, /) -> bool: ...
    def results(self, items: list[Any], verdicts: list[Any], /) -> list[ItemResult] | None: ...
    def run(
        self,
        book: Book,
        items: list[Any],
        index: int,
        position: int,
        time: int,
        buffer: bytearray,
        verdicts: list[Any],
        /,
    ) -> int: ...
