"""Every result code of the ledger, once: what it means and which commands give it.

An item's ``status`` in a reply is one of these codes; a command that posted nothing is
rejected with the first one's.  `docs/ledger.md` holds the same table (a test compares them).

Codes are stable: they are added, never renamed.
"""

from typing import Final

import msgspec

from ultraengine.model.domain import Rejection

OPEN: Final = "open_accounts"
CREATE: Final = "create_transfers"
POST: Final = "post_transfers"
VOID: Final = "void_transfers"
REVERSE: Final = "reverse_transfers"
CLOSE: Final = "close_accounts"
REOPEN: Final = "reopen_accounts"
_ALL: Final = (OPEN, CREATE, POST, VOID, REVERSE, CLOSE, REOPEN)
_MOVES: Final = (CREATE, REVERSE)
_HOLDS: Final = (POST, VOID)


class ResultCode(msgspec.Struct, frozen=True):
    """One row of the table of result codes."""

    code: str
    changed: bool
    """Whether the item changed the books; False = nothing of it was kept."""
    commands: tuple[str, ...]
    meaning: str


def _done(code: str, commands: tuple[str, ...], meaning: str) -> ResultCode:
    return ResultCode(code=code, changed=True, commands=commands, meaning=meaning)


def _refused(code: str, commands: tuple[str, ...], meaning: str) -> ResultCode:
    return ResultCode(code=code, changed=False, commands=commands, meaning=meaning)


RESULT_CODES: Final = (
    _done("opened", (OPEN,), "The account is open."),
    _done("posted", (CREATE, POST), "The amount moved."),
    _done("pending", (CREATE,), "The amount is held until it is posted, voided or expires."),
    _done("voided", (VOID,), "The hold is released; nothing moved."),
    _done("reversed", (REVERSE,), "The amount moved back."),
    _done("closed", (CLOSE,), "The account takes no more transfers."),
    _done("reopened", (REOPEN,), "The account takes transfers again."),
    _refused(
        "exists",
        (OPEN, CREATE, REVERSE),
        "The id exists with exactly this content: an earlier attempt succeeded.",
    ),
    _refused("exists_with_different_asset", (OPEN,), "The id exists: other asset."),
    _refused("exists_with_different_min_balance", (OPEN,), "The id exists: other min_balance."),
    _refused("exists_with_different_max_balance", (OPEN,), "The id exists: other max_balance."),
    _refused("exists_with_different_metadata", (OPEN,), "The id exists: other metadata."),
    _refused("exists_with_different_from", (CREATE,), "The id exists: other 'from'."),
    _refused("exists_with_different_to", (CREATE,), "The id exists: other 'to'."),
    _refused("exists_with_different_amount", (CREATE,), "The id exists: other amount."),
    _refused(
        "exists_with_different_pending_timeout_s",
        (CREATE,),
        "The id exists: other pending_timeout_s, or one is a hold and the other is not.",
    ),
    _refused("exists_with_different_reverses", (REVERSE,), "The id reverses another one."),
    _refused(
        "exists_with_different_effective_time",
        (CREATE, REVERSE),
        "The id exists: other effective_time.",
    ),
    _refused("exists_with_different_code", (CREATE, REVERSE), "The id exists: other code."),
    _refused(
        "exists_with_different_reference",
        (CREATE, REVERSE),
        "The id exists: other reference.",
    ),
    _refused("exists_as_reversal", (CREATE,), "The id belongs to a reversal."),
    _refused("exists_as_transfer", (REVERSE,), "The id belongs to a transfer."),
    _refused(
        "limits_exclude_zero",
        (OPEN,),
        "min_balance is above zero or max_balance below it: no account could open at zero.",
    ),
    _refused("amount_not_positive", (CREATE, POST), "The amount is zero or negative; swap sides."),
    _refused("accounts_are_same", (CREATE,), "'from' and 'to' are one account."),
    _refused(
        "account_not_found",
        (CREATE, CLOSE, REOPEN),
        "No such account in this book; the detail names it.",
    ),
    _refused("different_assets", (CREATE,), "The two accounts have different assets."),
    _refused("account_closed", _MOVES, "An account is closed; the detail names it."),
    _refused(
        "exceeds_balance",
        _MOVES,
        "'from' would fall below its min_balance; held amounts count as spent.",
    ),
    _refused(
        "exceeds_max_balance",
        _MOVES,
        "'to' would rise above its max_balance; held amounts count as received.",
    ),
    _refused("overflows_balance", _MOVES, "A balance would reach 10^38 in size."),
    _refused("transfer_not_found", (*_HOLDS, REVERSE), "No such transfer in this book."),
    _refused("transfer_not_pending", _HOLDS, "The transfer never was a hold."),
    _refused("already_posted", _HOLDS, "The hold was posted before, with this amount."),
    _refused(
        "already_posted_with_different_amount",
        (POST,),
        "The hold was posted before, with another amount.",
    ),
    _refused("already_voided", _HOLDS, "The hold was voided before."),
    _refused(
        "hold_expired",
        _HOLDS,
        "The hold's time is over, even if its expiry is not logged yet.",
    ),
    _refused("exceeds_hold", (POST,), "More than the hold reserves."),
    _refused("transfer_not_posted", (REVERSE,), "The hold is pending, voided or expired."),
    _refused("transfer_is_reversal", (REVERSE,), "A reversal cannot be reversed."),
    _refused("already_reversed", (REVERSE,), "The transfer was reversed before."),
    _refused("balance_not_zero", (CLOSE,), "The account still has a balance."),
    _refused("holds_open", (CLOSE,), "Holds on the account are still open."),
    _refused("already_closed", (CLOSE,), "The account is closed."),
    _refused("already_open", (REOPEN,), "The account is open."),
    _refused(
        "linked_event_failed",
        _ALL,
        "Another item of the linked chain failed: all of it did.",
    ),
    _refused("linked_event_chain_open", _ALL, "The last item of the command is still linked."),
)

BY_CODE: Final = {row.code: row for row in RESULT_CODES}

LINKED_FAILED: Final = Rejection(
    "linked_event_failed", "another item of its linked chain failed; nothing of the chain was done"
)
CHAIN_OPEN: Final = Rejection(
    "linked_event_chain_open", "the last item cannot be linked: there is none after it"
)


def codes_markdown() -> str:
    """The table as Markdown, as it stands in `docs/ledger.md`."""
    lines = ["| `status` | Changed | Commands | Meaning |", "|---|---|---|---|"]
    for row in RESULT_CODES:
        commands = (
            "all" if row.commands == _ALL else ", ".join(f"`{name}`" for name in row.commands)
        )
        changed = "yes" if row.changed else "no"
        lines.append(f"| `{row.code}` | {changed} | {commands} | {row.meaning} |")
    return "\n".join(lines)
