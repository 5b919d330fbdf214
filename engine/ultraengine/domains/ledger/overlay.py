"""A view of a book that takes events without changing the book.

Linked chains are tried on it, and dry runs are answered from it.  It copies an account when
it is first asked for, keeps what was added, and is thrown away.
"""

from ultraengine.domains.ledger.state import Account, Book, Hold


class Overlay(Book):
    """What a `Book` would be after the events that this view was given."""

    __slots__ = ("added", "below", "resolved")

    def __init__(self, below: Book) -> None:
        super().__init__(below.slot, below.tenant, below.key)
        self.below = below
        self.number = below.number
        self.highest = below.highest
        self.offset, self.base = below.offset, below.base
        self.recent = list(below.recent)
        self.added: dict[bytes, list[int]] = {}
        self.resolved: set[str] = set()
        """Ids of holds below that are resolved here; only ever asked for membership."""
        self.get = self._get
        self.candidates = self._candidates
        self.add = self._add

    def _get(self, account_id: str) -> Account | None:
        found = self.accounts.get(account_id)
        if found is None:
            original = self.below.get(account_id)
            if original is None:
                return None
            found = self.accounts[account_id] = original.copy()
        return found

    def _candidates(self, identity: bytes) -> tuple[int, ...]:
        below = self.below.candidates(identity)
        added = self.added.get(identity)
        return below if added is None else (*reversed(added), *below)

    def _add(self, identity: bytes, entry: int) -> None:
        self.added.setdefault(identity, []).append(entry)

    def hold(self, transfer_id: str) -> Hold | None:
        """The hold that is open here."""
        found = self.holds.get(transfer_id)
        if found is None and transfer_id not in self.resolved:
            found = self.below.hold(transfer_id)
        return found

    def account_count(self) -> int:
        """Accounts below and here."""
        return self.below.account_count() + len(self.order)

    def register(self) -> None:
        """Take the number that the book would get."""
        self.number = self.slot.book_count()

    def touch(self, account: Account) -> None:
        """Nothing to count: copies are thrown away."""

    def insert_account(self, account: Account) -> None:
        """Add an account here alone."""
        self.accounts[account.id] = account
        self.order.append(account)

    def insert_hold(self, hold: Hold) -> None:
        """Add a hold here alone, without a timer."""
        self.holds[hold.id] = hold

    def remove_hold(self, hold: Hold) -> None:
        """Hide a hold here alone."""
        if self.holds.pop(hold.id, None) is None:
            self.resolved.add(hold.id)


def overlay(book: Book) -> Book:
    """A view of `book` that takes events without changing it."""
    return Overlay(book)
