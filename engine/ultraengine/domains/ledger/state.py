"""What the ledger keeps in memory: accounts, open holds, and one packed index per slot.

Never history: what happened is in the events, and memory only knows where an account's last
change stands (`Account.head`) and where a transfer id was used (the index, at most 24 bytes
each).  The number of transfers made does not matter to the size of accounts and holds.

Rules: only `evolve.py` and `image.py` change these objects.  A *book* is the partition
(tenant, key).  Books of a slot are numbered in the order of their first event, and events
carry that number: an id found through the slot's index belongs to a book only if the event
says so.
"""

import heapq
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import xxhash

from ultraengine.domains.ledger.amounts import SIZE_END
from ultraengine.domains.ledger.events import FAST_END, NEVER, Event, Transferred
from ultraengine.execution.packed import PackedIndex

CREATED: Final = 0
"""Role of an index entry: the event used up the id."""
CONCERNS: Final = 1
"""Role of an index entry: the event resolves or reverses the transfer with the id."""
_STALE_TIMERS_MIN: Final = 64


class PlainFields:
    """What an account is made of, in plain Python: the reference for ``_lane.c``."""

    __slots__ = (
        "anchors",
        "asset",
        "balance",
        "closed",
        "dirty",
        "effective_max",
        "head",
        "high",
        "id",
        "late",
        "low",
        "max_balance",
        "metadata",
        "min_balance",
        "number",
        "pending_in",
        "pending_out",
        "version",
    )


if TYPE_CHECKING:
    from ultraengine.domains.ledger._lane import AccountFields
else:
    try:
        from ultraengine.domains.ledger._lane import AccountFields
    except ImportError:
        AccountFields = PlainFields


class Account(AccountFields):
    """One account.  Its fields are compiled where they can be, as a million of them are kept and
    four fields written a time.

    ``low`` and ``high`` are the window of the fast path: a plain transfer may take its source
    to ``low`` and its target to ``high`` without any further question.  Accounts that need
    questions (closed, with holds, with numbers near a machine word) have an empty window.
    """

    __slots__ = ()

    def __init__(
        self,
        id: str,
        number: int,
        asset: str,
        min_balance: int | None,
        max_balance: int | None,
        metadata: dict[str, str] | None,
        head: int,
    ) -> None:
        self.id = id
        self.number = number
        self.asset = asset
        """The slot's own copy of the text, so that assets are compared by identity."""
        self.min_balance = min_balance
        self.max_balance = max_balance
        self.metadata = metadata
        self.balance = 0
        self.pending_in = 0
        self.pending_out = 0
        self.closed = False
        self.version = 1
        self.head = head
        """Position of the account's last change."""
        self.anchors = ()
        """Position of the last anchor of each level."""
        self.effective_max = NEVER
        self.late = None
        """Position of the last late posting."""
        self.dirty = True
        """Counted as changed since the last mark."""
        self.low = self.high = 0
        self.set_window()

    @property
    def floor(self) -> int:
        """The lowest balance allowed."""
        return 1 - SIZE_END if self.min_balance is None else self.min_balance

    @property
    def ceiling(self) -> int:
        """The highest balance allowed."""
        return SIZE_END - 1 if self.max_balance is None else self.max_balance

    def set_window(self) -> None:
        """Set ``low`` and ``high`` after anything but a plain transfer."""
        if (
            self.closed
            or self.pending_in
            or self.pending_out
            or not -FAST_END < self.balance < FAST_END
        ):
            self.low, self.high = SIZE_END, -SIZE_END
        else:
            self.low = max(self.floor, 1 - FAST_END)
            self.high = min(self.ceiling, FAST_END - 1)

    def copy(self) -> "Account":
        """An independent copy that counts as changed already, so that nobody tracks it."""
        other = Account.__new__(Account)
        other.id, other.number, other.asset = self.id, self.number, self.asset
        other.min_balance, other.max_balance = self.min_balance, self.max_balance
        other.metadata, other.closed = self.metadata, self.closed
        other.balance, other.pending_in, other.pending_out = (
            self.balance,
            self.pending_in,
            self.pending_out,
        )
        other.version, other.head, other.anchors = self.version, self.head, self.anchors
        other.effective_max, other.late = self.effective_max, self.late
        other.low, other.high, other.dirty = self.low, self.high, True
        return other


class Hold:
    """One open hold.  Only ``open`` ever changes."""

    __slots__ = (
        "amount",
        "effective_time",
        "expires_at",
        "id",
        "open",
        "position",
        "source",
        "target",
    )

    def __init__(
        self,
        id: str,
        source: str,
        target: str,
        amount: int,
        expires_at: int | None,
        effective_time: int | None,
        position: int,
    ) -> None:
        self.id = id
        self.source = source
        self.target = target
        self.amount = amount
        self.expires_at = expires_at
        self.effective_time = effective_time
        self.position = position
        self.open = True


class Book:
    """All accounts and open holds of one (tenant, key).

    ``get``, ``candidates`` and ``add`` are bound once, as the hot path calls them a million times a
    second.  A book enters its slot with its first event, so that asking for one leaves nothing.
    """

    __slots__ = (
        "accounts",
        "add",
        "base",
        "candidates",
        "dead",
        "decided",
        "get",
        "highest",
        "holds",
        "key",
        "number",
        "offset",
        "order",
        "recent",
        "roll",
        "seed",
        "slot",
        "tenant",
    )

    def __init__(self, slot: "LedgerSlot", tenant: str, key: str) -> None:
        self.slot = slot
        self.tenant = tenant
        self.key = key
        self.number = NO_NUMBER
        self.seed = xxhash.xxh3_64_intdigest(f"{tenant}\0{key}".encode())
        """Seeds the hash of transfer ids, so that books of a slot do not share hashes."""
        self.highest = ""
        """The highest transfer id used up: a higher one is new, without asking the index."""
        self.accounts: dict[str, Account] = {}
        self.order: list[Account] = []
        """Accounts by their number."""
        self.holds: dict[str, Hold] = {}
        self.roll: list[Hold] = []
        """Holds by position, resolved ones among them until there are too many."""
        self.dead = 0
        """Resolved holds in ``roll``."""
        self.get: Callable[[str], Account | None] = self.accounts.get
        self.candidates: Callable[[bytes], tuple[int, ...]] = slot.index.candidates
        """(hash of an id) -> ``position << 1 | role`` of each event that may concern it."""
        self.add: Callable[[bytes, int], None] = slot.index.add
        """(hash of an id, ``position << 1 | role``): remember an event."""
        self.recent = slot.recent
        self.offset = -1
        """Offset of the command whose events are in ``recent``."""
        self.base = 0
        """Position of that command's first event."""
        self.decided: tuple[Transferred, Account, Account, int] | None = None
        """What the fast path has just decided and looked up, until the next event is applied:
        (event, source, target, effective time).  No part of the state."""

    def hash_of(self, transfer_id: str) -> bytes:
        """The eight bytes under which a transfer id is indexed."""
        return xxhash.xxh3_64_digest(transfer_id.encode(), self.seed)

    def hold(self, transfer_id: str) -> Hold | None:
        """The open hold with this id."""
        return self.holds.get(transfer_id)

    def account_count(self) -> int:
        """Number of accounts: the number of the next one."""
        return len(self.order)

    def next_number(self) -> int:
        """The book's number, or the one that its first event gives it."""
        return self.slot.book_count() if self.number == NO_NUMBER else self.number

    # --- what evolve does ----------------------------------------------------------------

    def touch(self, account: Account) -> None:
        """Count an account as changed; ask for ``dirty`` first."""
        account.dirty = True
        self.slot.changed.append((self, account))

    def register(self) -> None:
        """Enter the slot: the book's first event is being applied."""
        self.slot.register(self)

    def intern(self, asset: str) -> str:
        """The slot's own copy of an asset's text."""
        return self.slot.assets.setdefault(asset, asset)

    def insert_account(self, account: Account) -> None:
        """Add an opened account."""
        self.accounts[account.id] = account
        self.order.append(account)
        self.slot.changed.append((self, account))

    def insert_hold(self, hold: Hold) -> None:
        """Add an open hold and its timer."""
        self.holds[hold.id] = hold
        self.roll.append(hold)
        self.slot.start(self, hold)

    def remove_hold(self, hold: Hold) -> None:
        """Take a resolved hold away."""
        del self.holds[hold.id]
        hold.open = False
        self.dead += 1
        if self.dead > _STALE_TIMERS_MIN and self.dead * 2 > len(self.roll):
            self.roll = [other for other in self.roll if other.open]
            self.dead = 0
        self.slot.stop(self, hold)


NO_NUMBER: Final = -1
"""Number of a book without events."""

Timer = tuple[int, int, Hold, Book]
"""(expires_at, position, hold, book): positions are unique, so holds are never compared."""


class LedgerSlot:
    """The ledger's state of one slot."""

    __slots__ = (
        "assets",
        "blank",
        "books",
        "by_number",
        "changed",
        "index",
        "recent",
        "released",
        "reserved",
        "stale",
        "timers",
    )

    def __init__(self, recent: list[Event]) -> None:
        self.books: dict[tuple[str, str], Book] = {}
        self.by_number: list[Book] = []
        self.index = PackedIndex()
        """Hash of a transfer id -> ``position << 1 | role``."""
        self.assets: dict[str, str] = {}
        self.timers: list[Timer] = []
        """Heap; its first entry is an open hold's."""
        self.stale = 0
        """Entries of resolved holds in ``timers``."""
        self.recent = recent
        """Events of the command being executed, by index: history does not show them yet."""
        self.blank: Book | None = None
        """The book asked for last that has no events."""
        self.changed: list[tuple[Book, Account]] = []
        """Accounts opened or changed since the last mark."""
        self.reserved: dict[tuple[int, str], Hold] = {}
        """Holds opened since the last mark and still open, by (book number, id)."""
        self.released: list[tuple[int, str]] = []
        """Holds opened before the last mark and resolved since."""

    def book(self, tenant: str, key: str) -> Book:
        """The book of a partition, perhaps one without events yet."""
        book = self.books.get((tenant, key))
        if book is None:
            book = self.blank
            if book is None or book.tenant != tenant or book.key != key:
                book = self.blank = Book(self, tenant, key)
        return book

    def book_count(self) -> int:
        """Number of books with events: the number of the next one."""
        return len(self.by_number)

    def register(self, book: Book) -> None:
        """Give a book its number."""
        book.number = len(self.by_number)
        self.by_number.append(book)
        self.books[book.tenant, book.key] = book
        self.blank = None

    # --- timers --------------------------------------------------------------------------

    def start(self, book: Book, hold: Hold) -> None:
        """Count a new hold as changed, and start its timer when it has an end."""
        self.reserved[book.number, hold.id] = hold
        self.set_timer(book, hold)

    def set_timer(self, book: Book, hold: Hold) -> None:
        """Start the timer of a hold that has an end."""
        if hold.expires_at is not None:
            heapq.heappush(self.timers, (hold.expires_at, hold.position, hold, book))

    def stop(self, book: Book, hold: Hold) -> None:
        """Count a resolved hold as changed, and keep the first timer an open hold's."""
        if self.reserved.pop((book.number, hold.id), None) is None:
            self.released.append((book.number, hold.id))
        if hold.expires_at is None:
            return
        timers = self.timers
        self.stale += 1
        while timers and not timers[0][2].open:
            heapq.heappop(timers)
            self.stale -= 1
        if self.stale > _STALE_TIMERS_MIN and self.stale * 2 > len(timers):
            self.timers = [timer for timer in timers if timer[2].open]
            heapq.heapify(self.timers)
            self.stale = 0

    def mark(self) -> None:
        """Start counting changes anew."""
        for _, account in self.changed:
            account.dirty = False
        self.changed.clear()
        self.reserved.clear()
        self.released.clear()
        self.index.mark()
