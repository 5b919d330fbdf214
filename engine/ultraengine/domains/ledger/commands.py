"""The ledger's commands: schemas, canonical form, and the checks before the log.

``prepare`` makes one intent one sequence of bytes: amounts and times canonical
(`amounts.py`), maps in order of their keys.  It refuses what has the wrong shape; what is
well-formed but not possible is decided, logged and answered with a result code instead.
"""

from collections.abc import Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from msgspec import Meta, field

from ultraengine.domains.ledger.amounts import (
    WORD_END,
    Number,
    check_asset,
    read_amount,
    read_time,
    wire,
)
from ultraengine.model.errors import Malformed
from ultraengine.model.ids import is_name

PENDING_TIMEOUT_S_MAX: Final = 3_155_760_000
"""A hundred years: the longest life of a hold with an end."""
METADATA_ENTRIES_MAX: Final = 32
METADATA_BYTES_MAX: Final = 4_096
"""All keys and values of one account's metadata, in UTF-8."""

Name = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=128,
        description="1-128 characters of A-Z a-z 0-9 . _ : -",
    ),
]
Amount = Annotated[
    int | str,
    Meta(description="Integer in minor units below 10^38: decimal string or integer, no float"),
]
Time = Annotated[
    str | int,
    Meta(description="RFC 3339 with an offset, or microseconds since the Unix epoch"),
]
Code = Annotated[str, Meta(max_length=128)] | Annotated[int, Meta(ge=0, lt=1 << 53)]
Reference = Annotated[str, Meta(max_length=512)]
Timeout = Annotated[
    int,
    Meta(
        ge=0,
        le=PENDING_TIMEOUT_S_MAX,
        description="Makes a hold that expires after so many seconds; 0 = never",
    ),
]


class _Item(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, gc=False):
    """What all items share: an id, and whether the item is tied to the next one."""

    id: Name
    linked: bool = False


class Account(_Item, kw_only=True):
    """An account to open, at balance zero."""

    asset: Annotated[str, Meta(description="CODE/scale, as in USD/2")]
    min_balance: Amount | None = 0
    max_balance: Amount | None = None
    metadata: dict[str, str] = field(default_factory=dict)


class Transfer(_Item, kw_only=True):
    """An amount to move, or to hold, from one account to another of the same asset."""

    source: Name = field(name="from")
    target: Name = field(name="to")
    amount: Amount
    pending_timeout_s: Timeout | None = None
    effective_time: Time | None = None
    code: Code | None = None
    reference: Reference | None = None


class Posting(_Item, kw_only=True):
    """A hold to post: whole, or the given part while the rest is released."""

    amount: Amount | None = None
    effective_time: Time | None = None


class Voiding(_Item, kw_only=True):
    """A hold to release."""


class Reversal(_Item, kw_only=True):
    """A posted transfer to move back, as a new transfer with an id of its own."""

    reverses: Name
    effective_time: Time | None = None
    code: Code | None = None
    reference: Reference | None = None


class Closing(_Item, kw_only=True):
    """An account to close or to reopen."""


class OpenEnd(Transfer, kw_only=True):
    """Stands for a last item that is still linked: it fails, and so does its chain.

    A transfer of nothing, so that the fast path of transfers need not ask for it.
    """


Versions = Annotated[
    dict[Name, Annotated[int, Meta(ge=0)]],
    Meta(description="Versions that accounts must have, 0 = must not exist; else nothing is done"),
]


class _Command(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """What all commands share."""

    if_versions: Versions | None = None
    dry_run: Annotated[bool, Meta(description="Answer as if, without a change")] = False


class OpenAccounts(_Command):
    """Open accounts."""

    accounts: Annotated[list[Account], Meta(min_length=1)]


class CreateTransfers(_Command):
    """Move or hold amounts."""

    transfers: Annotated[list[Transfer], Meta(min_length=1)]


class PostTransfers(_Command):
    """Post holds, whole or in part."""

    transfers: Annotated[list[Posting], Meta(min_length=1)]


class VoidTransfers(_Command):
    """Release holds."""

    transfers: Annotated[list[Voiding], Meta(min_length=1)]


class ReverseTransfers(_Command):
    """Move posted transfers back, once each."""

    transfers: Annotated[list[Reversal], Meta(min_length=1)]


class CloseAccounts(_Command):
    """Close or reopen accounts."""

    accounts: Annotated[list[Closing], Meta(min_length=1)]


AnyCommand = (
    OpenAccounts
    | CreateTransfers
    | PostTransfers
    | VoidTransfers
    | ReverseTransfers
    | CloseAccounts
)

_NAME_BYTES: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-"


def account_items(data: OpenAccounts | CloseAccounts) -> Sequence[Any]:
    """The accounts of a command, an open chain marked at its end."""
    return _closed(data.accounts)


def transfer_items(
    data: CreateTransfers | PostTransfers | VoidTransfers | ReverseTransfers,
) -> Sequence[Any]:
    """The transfers of a command, an open chain marked at its end."""
    return _closed(data.transfers)


def _closed(items: Sequence[Any]) -> Sequence[Any]:
    last = items[-1]
    return (
        [*items[:-1], OpenEnd(id=last.id, source="", target="", amount=0)] if last.linked else items
    )


def is_linked(item: Any) -> bool:
    """Whether an item is tied to the next one."""
    linked: bool = item.linked
    return linked


def is_dry_run(data: AnyCommand) -> bool:
    """Whether a command asks for an answer without a change."""
    return data.dry_run


def prepare_accounts(data: OpenAccounts) -> OpenAccounts:
    """Canonical limits and metadata.  Raises `Malformed`."""
    _prepare_common(data)
    _check_names("accounts", data.accounts, ("id",))
    for index, item in enumerate(data.accounts):
        at = f"/data/accounts/{index}"
        check_asset(item.asset, f"{at}/asset")
        if item.min_balance is not None:
            item.min_balance = wire(read_amount(item.min_balance, f"{at}/min_balance"))
        if item.max_balance is not None:
            item.max_balance = wire(read_amount(item.max_balance, f"{at}/max_balance"))
        item.metadata = _prepare_metadata(item.metadata, f"{at}/metadata")
    return data


def prepare_transfers(data: CreateTransfers) -> CreateTransfers:
    """Canonical amounts and times.  Raises `Malformed`."""
    _prepare_common(data)
    transfers = data.transfers
    _check_names("transfers", transfers, ("id", "source", "target"))
    for index, item in enumerate(transfers):
        amount = item.amount
        # Most amounts are canonical already: integers of one word.
        if type(amount) is not int or not -WORD_END <= amount < WORD_END:
            item.amount = wire(read_amount(amount, f"/data/transfers/{index}/amount"))
        if item.effective_time is not None:
            item.effective_time = _time(item.effective_time, index)
    return data


def prepare_postings(data: PostTransfers) -> PostTransfers:
    """Canonical amounts and times.  Raises `Malformed`."""
    _prepare_common(data)
    _check_names("transfers", data.transfers, ("id",))
    for index, item in enumerate(data.transfers):
        if item.amount is not None:
            item.amount = wire(read_amount(item.amount, f"/data/transfers/{index}/amount"))
        if item.effective_time is not None:
            item.effective_time = _time(item.effective_time, index)
    return data


def prepare_voidings(data: VoidTransfers) -> VoidTransfers:
    """Names checked.  Raises `Malformed`."""
    _prepare_common(data)
    _check_names("transfers", data.transfers, ("id",))
    return data


def prepare_reversals(data: ReverseTransfers) -> ReverseTransfers:
    """Canonical times.  Raises `Malformed`."""
    _prepare_common(data)
    _check_names("transfers", data.transfers, ("id", "reverses"))
    for index, item in enumerate(data.transfers):
        if item.effective_time is not None:
            item.effective_time = _time(item.effective_time, index)
    return data


def prepare_closings(data: CloseAccounts) -> CloseAccounts:
    """Names checked.  Raises `Malformed`."""
    _prepare_common(data)
    _check_names("accounts", data.accounts, ("id",))
    return data


def _time(value: Number, index: int) -> int:
    return read_time(value, f"/data/transfers/{index}/effective_time")


def _prepare_common(data: AnyCommand) -> None:
    versions = data.if_versions
    if versions is None:
        return
    for name in versions:
        if not is_name(name):
            raise Malformed(_NAME_RULE, pointer="/data/if_versions")
    data.if_versions = dict(sorted(versions.items()))


_NAME_RULE: Final = "an id is 1-128 characters of A-Z a-z 0-9 . _ : -"


def _plain_names_hold(items: list[Any], fields: tuple[str, ...], /) -> bool:
    """Whether every named attribute of every item is a name; lengths are the schema's to check.

    All at once: what is left after deleting every allowed byte is not allowed.
    """
    return not any(
        "".join(map(attrgetter(attribute), items))
        .encode("utf-8", "surrogatepass")
        .translate(None, _NAME_BYTES)
        for attribute in fields
    )


if TYPE_CHECKING:
    from ultraengine.domains.ledger._lane import names_hold
else:
    try:
        from ultraengine.domains.ledger._lane import names_hold
    except ImportError:
        names_hold = _plain_names_hold


def _check_names(list_name: str, items: list[Any], fields: tuple[str, ...]) -> None:
    if names_hold(items, fields):
        return
    attribute, index = next(
        (attribute, index)
        for attribute in fields
        for index, item in enumerate(items)
        if not is_name(getattr(item, attribute))
    )
    wire_name = {"source": "from", "target": "to"}.get(attribute, attribute)
    raise Malformed(_NAME_RULE, pointer=f"/data/{list_name}/{index}/{wire_name}")


def _prepare_metadata(metadata: dict[str, str], pointer: str) -> dict[str, str]:
    size = sum(len(key.encode()) + len(value.encode()) for key, value in metadata.items())
    if len(metadata) > METADATA_ENTRIES_MAX or size > METADATA_BYTES_MAX:
        raise Malformed(
            f"metadata has at most {METADATA_ENTRIES_MAX} entries and {METADATA_BYTES_MAX} bytes",
            pointer=pointer,
        )
    return dict(sorted(metadata.items()))
