"""Balances as of an offset, a logged time or a business time."""

from typing import Annotated

import msgspec

from ultraengine.domains.ledger.amounts import read_time
from ultraengine.domains.ledger.chain import Chain, Step, effective_time, paid_in
from ultraengine.domains.ledger.state import Account, Book
from ultraengine.model.errors import EngineError, Malformed


class AsOf(msgspec.Struct, frozen=True, kw_only=True):
    """At most one of the three; none means now."""

    at_offset: (
        Annotated[
            int,
            msgspec.Meta(
                ge=0,
                description="After this command; a book that moved between shards is asked by time",
            ),
        ]
        | None
    ) = None
    at_time: Annotated[str, msgspec.Meta(description="Logged time, RFC 3339")] | None = None
    at_effective_time: (
        Annotated[str, msgspec.Meta(description="Business time, RFC 3339")] | None
    ) = None


class Instantaneous(msgspec.Struct, frozen=True, gc=False):
    """An `AsOf` with its times read: everything up to and including that point counts."""

    offset: int | None = None
    time: int | None = None
    effective: int | None = None

    @property
    def is_now(self) -> bool:
        """Whether nothing was asked for."""
        return self.offset is None and self.time is None and self.effective is None


def offset_of(params: AsOf) -> int | None:
    """The offset that is asked for, if one is."""
    return params.at_offset


def read_as_of(params: AsOf) -> Instantaneous:
    """Raises `Malformed` for more than one point, or for text that is no time."""
    given = [
        name
        for name in ("at_offset", "at_time", "at_effective_time")
        if getattr(params, name) is not None
    ]
    if len(given) > 1:
        raise Malformed(f"ask for one of {' and '.join(given)}", pointer=f"/{given[1]}")
    return Instantaneous(
        params.at_offset,
        None if params.at_time is None else read_time(params.at_time, "/at_time"),
        None
        if params.at_effective_time is None
        else read_time(params.at_effective_time, "/at_effective_time"),
    )


class Head(msgspec.Struct, frozen=True, gc=False):
    """What a read takes of an account on the writer's turn."""

    book: int
    id: str
    asset: str
    balance: int
    pending_in: int
    pending_out: int
    min_balance: int | None
    max_balance: int | None
    closed: bool
    metadata: dict[str, str]
    version: int
    position: int
    late: int | None


def head_of(book: Book, account: Account) -> Head:
    """The values of an account."""
    return Head(
        book.number,
        account.id,
        account.asset,
        account.balance,
        account.pending_in,
        account.pending_out,
        account.min_balance,
        account.max_balance,
        account.closed,
        account.metadata or {},
        account.version,
        account.head,
        account.late,
    )


def last_change(chain: Chain, head: Head, at: Instantaneous) -> Step | None:
    """The account's last change up to an offset or a logged time; None before its opening."""
    if at.offset is not None:
        offset = at.offset
        return chain.last(head.position, lambda step: step.offset <= offset)
    if at.time is not None:
        time = at.time
        return chain.last(head.position, lambda step: step.event.time <= time)
    return chain.at(head.position)


def last_effective(chain: Chain, head: Head, moment: int) -> Step:
    """The last change up to which no effective time is above `moment`."""
    step = chain.last(head.position, lambda step: step.link.effective_max <= moment)
    assert step is not None  # noqa: S101  (an opening's effective_max is below every time)
    return step


def effective_balance(chain: Chain, head: Head, moment: int) -> int:
    """Sum of all postings whose effective time is not above `moment`."""
    step = last_effective(chain, head, moment)
    balance = int(step.link.balance)
    for _, event in chain.late(head.late, above=step.link.version):
        if effective_time(event) <= moment:
            balance += paid_in(event, head.id)
    return balance


def not_found(what: str, name: str) -> EngineError:
    """404 with what was looked for."""
    return EngineError(f"no {what} {name}", code="NOT_FOUND")
