"""The ledger's events: what happened, with the values reached, compact and for ever.

Every change of an account has a number, its *version* (1 = opened), and every event says
for each account that it touches: the version and the balances reached, and where the
account's change before stands.  So the history of an account is a chain that is read
backwards, and every balance in it can be checked.

A *position* is ``offset << 16 | event index``.  In events that a timer caused, a position
may be negative: so many events back in the same command (a timer does not know its offset).

Every 128th change of an account carries an *anchor*: the position of the anchor before; every
16,384th one also that of the 16,384th before; and so on for each power of 128.  A search in an
account of n changes takes 254 * log128(n) steps at most (`chain.py`).

Business time: ``effective_max`` is the highest effective time of the account's postings so
far.  A posting below it is *late*; late postings form a chain of their own, so that a
balance at a business time needs no scan (`chain.py`).

Array form, short tags, fields appended at the end only: these structs are the log's format.
`Transferred` is the common case without any of the rare parts; `Posted` has them all.
"""

from typing import Any, Final

import msgspec

from ultraengine.domains.ledger.amounts import Number

INDEX_BITS: Final = 16
"""Bits of a position that hold the event's index."""
INDEX_MASK: Final = (1 << INDEX_BITS) - 1
ANCHOR_BITS: Final = 7
ANCHOR_MASK: Final = (1 << ANCHOR_BITS) - 1
"""A version with these bits clear carries an anchor."""
NEVER: Final = -(1 << 62)
"""``effective_max`` of an account without postings: below every time."""
NO_POSITION: Final = -1
"""``late`` of the first late posting of an account: there is none before."""
FAST_END: Final = 1 << 62
"""Amounts and balances below this in size may be in a `Transferred`."""


class Link(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What an event did to one account, and where the account's change before stands."""

    account: str
    version: int
    previous: int
    """Position of the change before; `NO_POSITION` for the opening alone."""
    balance: Number
    pending_in: Number
    pending_out: Number
    effective_max: int
    anchors: tuple[int, ...] = ()
    """Positions of the anchors before, by level; only in versions that are anchors."""
    late: int | None = None
    """In a late posting: the position of the late posting before, or `NO_POSITION`."""


class Transferred(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=1):
    """An amount moved.  Neither account had holds; no anchor, nothing late, no huge number."""

    book: int
    id: str
    source: str
    target: str
    amount: int
    source_balance: int
    target_balance: int
    source_version: int
    target_version: int
    source_previous: int
    target_previous: int
    time: int
    effective_time: int | None
    code: str | int | None
    reference: str | None


class Posted(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=2):
    """An amount moved: the general form of `Transferred`."""

    book: int
    id: str
    amount: Number
    time: int
    source: Link
    target: Link
    effective_time: int | None = None
    code: str | int | None = None
    reference: str | None = None


class Held(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=3):
    """An amount is reserved on both accounts until the hold is resolved."""

    book: int
    id: str
    amount: Number
    time: int
    source: Link
    target: Link
    timeout_s: int
    effective_time: int | None = None
    code: str | int | None = None
    reference: str | None = None

    @property
    def expires_at(self) -> int | None:
        """First instant at which the hold is over; None = it has no end."""
        return self.time + self.timeout_s * 1_000_000 if self.timeout_s else None


class HoldPosted(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=4):
    """A hold was posted, whole or in part; the rest of it is released."""

    book: int
    id: str
    hold: int
    """Position of the `Held`."""
    amount: Number
    time: int
    source: Link
    target: Link
    effective_time: int | None = None


class HoldVoided(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=5):
    """A hold was released on request."""

    book: int
    id: str
    hold: int
    time: int
    source: Link
    target: Link


class HoldExpired(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=6):
    """A hold was released because its time was over."""

    book: int
    id: str
    hold: int
    time: int
    source: Link
    target: Link


class Reversed(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=7):
    """A posted transfer moved back, under an id of its own."""

    book: int
    id: str
    reverses: str
    original: int
    """Position of the event that created the reversed transfer."""
    amount: Number
    time: int
    source: Link
    target: Link
    effective_time: int | None = None
    code: str | int | None = None
    reference: str | None = None


class AccountOpened(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=8):
    """An account exists from here on, at version 1 and balance zero."""

    book: int
    number: int
    """Accounts of a book are numbered in the order of their opening, from 0."""
    id: str
    asset: str
    min_balance: Number | None
    max_balance: Number | None
    metadata: dict[str, str]
    time: int


class AccountClosed(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=9):
    """An account takes no more transfers; its balance is zero."""

    book: int
    time: int
    link: Link


class AccountReopened(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=10):
    """An account takes transfers again."""

    book: int
    time: int
    link: Link


Event = (
    Transferred
    | Posted
    | Held
    | HoldPosted
    | HoldVoided
    | HoldExpired
    | Reversed
    | AccountOpened
    | AccountClosed
    | AccountReopened
)
Resolution = HoldPosted | HoldVoided | HoldExpired
Creation = Transferred | Posted | Held | Reversed
"""Events that use up a transfer id."""

STATUS: Final[dict[Any, str]] = {
    Transferred: "posted",
    Posted: "posted",
    Held: "pending",
    HoldPosted: "posted",
    HoldVoided: "voided",
    HoldExpired: "expired",
    Reversed: "reversed",
    AccountOpened: "opened",
    AccountClosed: "closed",
    AccountReopened: "reopened",
}
"""What an event's item is told (`codes.py`); "expired" is only ever seen in reads."""
