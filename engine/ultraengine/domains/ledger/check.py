"""The ledger's invariants, as sentences about what is broken.

`check_slot` looks at memory alone.  `check_history` also reads the history, for doctors.
What they hold: `docs/ledger.md`, invariants.
"""

from collections.abc import Iterator

from ultraengine.domains.ledger.asof import head_of
from ultraengine.domains.ledger.chain import Chain, Posting, Reader, Step, paid_in
from ultraengine.domains.ledger.events import AccountClosed, Creation
from ultraengine.domains.ledger.read_accounts import add_totals
from ultraengine.domains.ledger.state import Account, Book, LedgerSlot
from ultraengine.model.domain import History
from ultraengine.model.errors import InvariantBroken


def check_slot(slot: LedgerSlot) -> list[str]:
    """Broken invariants of one slot's memory; empty when all hold."""
    broken = []
    for book in slot.by_number:
        name = f"book {book.tenant}/{book.key}"
        broken += [f"{name}: {sentence}" for sentence in _book(book)]
    open_timers = sum(timer[2].open for timer in slot.timers)
    expected = sum(
        hold.expires_at is not None for book in slot.by_number for hold in book.holds.values()
    )
    if open_timers != expected:
        broken.append(f"{open_timers} timers run for {expected} holds with an end")
    if slot.timers and not slot.timers[0][2].open:
        broken.append("the first timer is a resolved hold's")
    return broken


def _book(book: Book) -> Iterator[str]:
    totals: dict[str, list[int]] = {}
    for account in book.order:
        add_totals(totals, account.asset, account.balance, account.pending_out, account.pending_in)
        yield from _limits(account)
    for asset, (_, debits, credited, held_out, held_in) in sorted(totals.items()):
        if debits != credited:
            yield f"{asset}: debits {debits}, credits {credited}"
        if held_out != held_in:
            yield f"{asset}: held on the paying side {held_out}, on the receiving {held_in}"
    yield from _holds(book)
    if [account.number for account in book.order] != list(range(len(book.accounts))):
        yield "accounts are not numbered without gaps"


def _limits(account: Account) -> Iterator[str]:
    lowest = account.balance - account.pending_out
    highest = account.balance + account.pending_in
    if lowest < account.floor:
        yield f"account {account.id} may fall to {lowest}, below {account.floor}"
    if highest > account.ceiling:
        yield f"account {account.id} may rise to {highest}, above {account.ceiling}"
    if account.pending_in < 0 or account.pending_out < 0:
        yield f"account {account.id} holds less than nothing"
    if account.closed and (account.balance or account.pending_in or account.pending_out):
        yield f"account {account.id} is closed and not empty"


def _holds(book: Book) -> Iterator[str]:
    held_out: dict[str, int] = {}
    held_in: dict[str, int] = {}
    for hold in book.holds.values():
        held_out[hold.source] = held_out.get(hold.source, 0) + hold.amount
        held_in[hold.target] = held_in.get(hold.target, 0) + hold.amount
        if hold.amount <= 0 or not hold.open:
            yield f"hold {hold.id} is listed as open with amount {hold.amount}"
    for account in book.order:
        out, into = held_out.get(account.id, 0), held_in.get(account.id, 0)
        if (account.pending_out, account.pending_in) != (out, into):
            yield (
                f"account {account.id} counts {account.pending_out} out and "
                f"{account.pending_in} in as held; its holds say {out} and {into}"
            )


def check_history(slot: LedgerSlot, history: History, *, changes_max: int = 1_000) -> Iterator[str]:
    """Broken links between memory and history, reading up to `changes_max` changes per account.

    The last change of an account has its balance, its held amounts and its version; every
    change follows from the one before; the first one is its opening.
    """
    reader = Reader(history)
    for book in slot.by_number:
        for account in book.order:
            name = f"book {book.tenant}/{book.key}, account {account.id}"
            try:
                for sentence in _chain(book, account, reader, changes_max):
                    yield f"{name}: {sentence}"
            except InvariantBroken as error:
                yield f"{name}: {error}"


def _chain(book: Book, account: Account, reader: Reader, changes_max: int) -> Iterator[str]:
    head = head_of(book, account)
    chain = Chain(reader, book.number, account.id)
    step: Step | None = chain.at(account.head)
    assert step is not None  # noqa: S101  (at() raises rather than giving None)
    link = step.link
    reached = (int(link.balance), int(link.pending_in), int(link.pending_out), link.version)
    expected = (head.balance, head.pending_in, head.pending_out, head.version)
    if reached != expected:
        yield f"the last change reached {reached}, memory has {expected}"
    if account.closed != isinstance(step.event, AccountClosed):
        yield f"closed is {account.closed}, the last change is a {type(step.event).__name__}"
    for count, change in enumerate(chain.back(step, above=0)):
        if isinstance(change.event, Creation) and change.event.id > book.highest:
            yield f"transfer {change.event.id} is above {book.highest}, the highest known"
        before = chain.before(change)
        if before is not None:
            yield from _follows(before, change, account.id)
        if count + 1 == changes_max:
            return


def _follows(before: Step, change: Step, account_id: str) -> Iterator[str]:
    moved = int(change.link.balance) - int(before.link.balance)
    said = paid_in(change.event, account_id) if isinstance(change.event, Posting) else 0
    if moved != said:
        yield f"version {change.link.version} moved the balance by {moved}, its event says {said}"
