"""Named sets of data for `ultra dev --seed-data NAME`, booked through the public API.

Every id is fixed, so booking a set again changes nothing: within the memory of ids a command is
answered with its first reply, and beyond it the ledger refuses accounts and transfers that exist.
"""

import os
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from ultraengine.cli.connection import KEY_VARIABLE
from ultraengine.cli.output import tell
from ultraengine.client import ClientError, NewCommand, Reply, SyncClient


class Seed(msgspec.Struct, frozen=True):
    """One set: what it is, its commands in order, and what to read afterwards."""

    about: str
    commands: Sequence[NewCommand]
    look: str
    """A path to read, below ``/v1/``."""


def _opened(book: str, *accounts: tuple[str, str | None]) -> NewCommand:
    listed = [{"id": name, "asset": "USD/2", "min_balance": minimum} for name, minimum in accounts]
    return NewCommand(
        type="ledger.open_accounts", key=book, data={"accounts": listed}, id=f"seed-{book}-open"
    )


def _moved(book: str, *transfers: tuple[str, str, str, str, str]) -> NewCommand:
    listed = [
        {"id": name, "from": source, "to": target, "amount": amount, "reference": text}
        for name, source, target, amount, text in transfers
    ]
    return NewCommand(
        type="ledger.create_transfers",
        key=book,
        data={"transfers": listed},
        id=f"seed-{book}-transfers",
    )


SEEDS: Final[Mapping[str, Seed]] = {
    "ledger-demo": Seed(
        "two books of a small shop: what its customers paid, and what it paid its suppliers",
        (
            _opened("demo-sales", ("bank", None), ("alice", "0"), ("bob", "0"), ("shop", "0")),
            _moved(
                "demo-sales",
                ("seed-1", "bank", "alice", "50000", "pay-in"),
                ("seed-2", "bank", "bob", "20000", "pay-in"),
                ("seed-3", "alice", "shop", "1250", "coffee beans"),
                ("seed-4", "bob", "shop", "8900", "coffee grinder"),
                ("seed-5", "shop", "bob", "8900", "grinder returned"),
            ),
            _opened("demo-costs", ("shop", None), ("roaster", "0"), ("rent", "0")),
            _moved(
                "demo-costs",
                ("seed-1", "shop", "roaster", "640", "beans, 2 kg"),
                ("seed-2", "shop", "rent", "95000", "November"),
            ),
        ),
        "ledger/demo-sales/accounts",
    ),
}


_THERE: Final = frozenset({"exists"})


def sow(client: SyncClient, name: str) -> str:
    """Book a set; a sentence about what came of it.  Raises `ClientError`."""
    replies = client.send_all(SEEDS[name].commands)
    new = sum(reply.outcome == "accepted" and not reply.duplicate for reply in replies)
    odd = [reply for reply in replies if not _is_there(reply)]
    if odd:
        error = odd[0].error
        code, detail = ("", "") if error is None else (error.code, error.detail)
        return f"{len(odd)} of {len(replies)} commands were not booked: {code} {detail}"
    if new == 0:
        return "it was there already; nothing changed"
    return f"{new} of {len(replies)} commands booked"


def _is_there(reply: Reply) -> bool:
    """Whether the effect of a command is in the books, by this one or by an earlier one."""
    if reply.outcome == "accepted":
        return True
    return reply.error is not None and reply.error.code in _THERE


def sow_beside(url: str, name: str) -> threading.Thread:
    """Book a set while the engine at `url` serves in this process, and say what came of it."""

    def work() -> None:
        try:
            with SyncClient(url, api_key=os.environ.get(KEY_VARIABLE)) as client:
                said = sow(client, name)
        except ClientError as error:
            print(f"seed data {name}: {error}", file=sys.stderr, flush=True)
        else:
            tell(f"seed data {name}: {said}; see {url}/v1/{SEEDS[name].look}")

    thread = threading.Thread(target=work, name="seed-data", daemon=True)
    thread.start()
    return thread
