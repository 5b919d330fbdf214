"""Deciding `open_accounts`, `close_accounts`, `reopen_accounts`, and ``if_versions``."""

from ultraengine.domains.ledger.codes import CHAIN_OPEN
from ultraengine.domains.ledger.commands import Account as AccountItem
from ultraengine.domains.ledger.commands import AnyCommand, Closing, OpenEnd
from ultraengine.domains.ledger.events import AccountClosed, AccountOpened, AccountReopened
from ultraengine.domains.ledger.links import next_link
from ultraengine.domains.ledger.state import Account, Book
from ultraengine.domains.ledger.transfers import first_difference
from ultraengine.model.domain import Context, Rejection


def guard(book: Book, data: AnyCommand, _context: Context) -> Rejection | None:
    """Rejects the whole command unless every account in ``if_versions`` has that version."""
    if data.if_versions is None:
        return None
    for account_id, wanted in data.if_versions.items():
        account = book.get(account_id)
        version = 0 if account is None else account.version
        if version != wanted:
            return Rejection(
                "VERSION_MISMATCH",
                f"account {account_id} has version {version}, not {wanted}",
                f"/data/if_versions/{account_id}",
            )
    return None


def decide_opening(
    book: Book, item: AccountItem | OpenEnd, context: Context
) -> AccountOpened | Rejection:
    """Open one account: its event, or why not."""
    if isinstance(item, OpenEnd):
        return CHAIN_OPEN
    account = book.get(item.id)
    if account is not None:
        return _exists(item, account)
    if (item.min_balance is not None and int(item.min_balance) > 0) or (
        item.max_balance is not None and int(item.max_balance) < 0
    ):
        return Rejection("limits_exclude_zero", "an account opens at zero, outside these limits")
    return AccountOpened(
        book.next_number(),
        book.account_count(),
        item.id,
        item.asset,
        item.min_balance,
        item.max_balance,
        item.metadata,
        context.time,
    )


def _exists(item: AccountItem, account: Account) -> Rejection:
    subject = f"account {item.id}"
    pairs = (
        ("asset", item.asset, account.asset),
        ("min_balance", _number(item.min_balance), account.min_balance),
        ("max_balance", _number(item.max_balance), account.max_balance),
    )
    if (found := first_difference(subject, pairs)).code != "exists":
        return found
    if item.metadata != (account.metadata or {}):
        return Rejection("exists_with_different_metadata", f"{subject} exists: other metadata")
    return found


def _number(value: int | str | None) -> int | None:
    return None if value is None else int(value)


def decide_closing(
    book: Book, item: Closing | OpenEnd, context: Context
) -> AccountClosed | Rejection:
    """Close one account: its event, or why not."""
    if isinstance(item, OpenEnd):
        return CHAIN_OPEN
    account = book.get(item.id)
    if account is None:
        return Rejection("account_not_found", f"no account {item.id}")
    if account.closed:
        return Rejection("already_closed", f"account {item.id} is closed")
    if account.balance:
        return Rejection("balance_not_zero", f"account {item.id} holds {account.balance}")
    if account.pending_in or account.pending_out:
        return Rejection("holds_open", f"holds on account {item.id} are open")
    return AccountClosed(book.number, context.time, next_link(account))


def decide_reopening(
    book: Book, item: Closing | OpenEnd, context: Context
) -> AccountReopened | Rejection:
    """Reopen one account: its event, or why not."""
    if isinstance(item, OpenEnd):
        return CHAIN_OPEN
    account = book.get(item.id)
    if account is None:
        return Rejection("account_not_found", f"no account {item.id}")
    if not account.closed:
        return Rejection("already_open", f"account {item.id} is open")
    return AccountReopened(book.number, context.time, next_link(account))
