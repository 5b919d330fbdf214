"""The ledger as a domain: its commands, events, state and reads, joined.

Requirement 001 (ledger as the first bounded context); rules in `docs/ledger.md`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from ultraengine.domains.ledger import accounts, codes, commands, holds, image, replies
from ultraengine.domains.ledger.check import check_slot
from ultraengine.domains.ledger.events import Event
from ultraengine.domains.ledger.evolve import evolve
from ultraengine.domains.ledger.lane import LANE, Lane
from ultraengine.domains.ledger.overlay import overlay
from ultraengine.domains.ledger.queries import QUERIES
from ultraengine.domains.ledger.reversals import decide_reversal
from ultraengine.domains.ledger.sql_reads import SQL_READS
from ultraengine.domains.ledger.state import Book, LedgerSlot
from ultraengine.domains.ledger.tables import TABLES
from ultraengine.domains.ledger.transfers import decide_transfer
from ultraengine.model.domain import CommandSpec, QuerySpec
from ultraengine.model.ids import Instant


def _spec(
    name: str,
    data: Any,
    decide_item: Callable[[Any, Any, Any], Any],
    prepare: Callable[[Any], Any],
    summary: str,
    lane: Lane | None = None,
) -> CommandSpec:
    over_accounts = "accounts" in data.__struct_fields__
    fold = replies.fold_accounts if over_accounts else replies.fold_transfers
    return CommandSpec(
        name=name,
        data=data,
        summary=summary,
        prepare=prepare if lane is None else lane.prepare,
        items=commands.account_items if over_accounts else commands.transfer_items,
        guard=accounts.guard,
        decide_item=decide_item,
        lane=None if lane is None else lane.run,
        single=None if lane is None else lane.single,
        recorded=None if lane is None else lane.recorded,
        linked=commands.is_linked,
        overlay=overlay,
        linked_failed=codes.LINKED_FAILED,
        fold=fold if lane is None else lane.fold,
        dry_run=commands.is_dry_run,
    )


COMMANDS: Final = (
    _spec(
        codes.OPEN,
        commands.OpenAccounts,
        accounts.decide_opening,
        commands.prepare_accounts,
        "Open accounts at balance zero, each with an asset and limits.",
    ),
    _spec(
        codes.CREATE,
        commands.CreateTransfers,
        decide_transfer,
        commands.prepare_transfers,
        "Move amounts between accounts, or hold them until they are posted or voided.",
        LANE,
    ),
    _spec(
        codes.POST,
        commands.PostTransfers,
        holds.decide_posting,
        commands.prepare_postings,
        "Post holds, whole or in part; the rest is released.",
    ),
    _spec(
        codes.VOID,
        commands.VoidTransfers,
        holds.decide_voiding,
        commands.prepare_voidings,
        "Release holds without moving anything.",
    ),
    _spec(
        codes.REVERSE,
        commands.ReverseTransfers,
        decide_reversal,
        commands.prepare_reversals,
        "Move posted transfers back, whole and once each, under the same rules.",
    ),
    _spec(
        codes.CLOSE,
        commands.CloseAccounts,
        accounts.decide_closing,
        commands.prepare_closings,
        "Close accounts whose balance is zero and that have no holds.",
    ),
    _spec(
        codes.REOPEN,
        commands.CloseAccounts,
        accounts.decide_reopening,
        commands.prepare_closings,
        "Open closed accounts again.",
    ),
)


EXAMPLES: Final[Mapping[str, Any]] = {
    "open_accounts": {
        "accounts": [
            {"id": "alice", "asset": "USD/2", "min_balance": None},
            {"id": "shop", "asset": "USD/2"},
        ]
    },
    "create_transfers": {
        "transfers": [
            {"id": "t1", "from": "alice", "to": "shop", "amount": "1250"},
            {
                "id": "t2",
                "from": "alice",
                "to": "shop",
                "amount": "700",
                "pending_timeout_s": 3600,
            },
        ]
    },
    "post_transfers": {"transfers": [{"id": "t2", "amount": "500"}]},
    "void_transfers": {"transfers": [{"id": "t2"}]},
    "reverse_transfers": {"transfers": [{"id": "t3", "reverses": "t1"}]},
    "close_accounts": {"accounts": [{"id": "shop"}]},
    "reopen_accounts": {"accounts": [{"id": "shop"}]},
}
"""Data of one command each, for documents."""


class Ledger:
    """Implements `model.domain.Domain`.  One instance serves one registry.

    `DOMAIN` is one for those who load domains by name.  The instance owns the scratch list of
    the command being executed, which one command at a time uses: a registry belongs to the one
    writer of its process.
    """

    name: Final = "ledger"
    version: Final = 1
    schema: Final = image.SCHEMA
    commands: Final[Sequence[CommandSpec]] = COMMANDS
    events: Final[Any] = Event
    queries: Final[Sequence[QuerySpec]] = QUERIES
    examples: Final = EXAMPLES
    projections: Final = (TABLES,)
    sql_reads: Final = SQL_READS
    # As they are: a method around them would cost a call per command.
    evolve = staticmethod(evolve)
    due = staticmethod(holds.due)

    def __init__(self) -> None:
        self._recent: list[Event] = []

    def new_state(self) -> LedgerSlot:
        """An empty slot."""
        return LedgerSlot(self._recent)

    def focus(self, state: LedgerSlot, tenant: str, key: str) -> Book:
        """The book of (tenant, key); one without events enters the slot with its first."""
        book = state.books.get((tenant, key))
        return state.book(tenant, key) if book is None else book

    def dump(self, state: LedgerSlot) -> Iterable[bytes]:
        """`image.dump`."""
        return image.dump(state)

    def changes(self, state: LedgerSlot) -> Iterable[bytes]:
        """`image.changes`."""
        return image.changes(state)

    def mark(self, state: LedgerSlot) -> None:
        """Start counting changes anew."""
        state.mark()

    def load(self, state: LedgerSlot, chunk: bytes, schema: int) -> None:
        """`image.load`."""
        image.load(state, chunk, schema)

    def expire(
        self, state: LedgerSlot, now: Instant, count_max: int
    ) -> Sequence[tuple[str, str, Event]]:
        """`holds.expire`."""
        return holds.expire(state, now, count_max)

    def check(self, state: LedgerSlot) -> Sequence[str]:
        """`check.check_slot`."""
        return check_slot(state)


DOMAIN: Final = Ledger()
