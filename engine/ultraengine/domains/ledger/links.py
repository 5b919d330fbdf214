"""How the next change of an account is linked to those before it (`events.Link`).

`next_link` gives what an event records; `settle` applies it and checks, value by value, that
memory reaches what the event says.  Both compute from the same account, so that a replay
which reaches anything else stops the shard instead of going on with wrong balances.
"""

from ultraengine.domains.ledger.amounts import wire
from ultraengine.domains.ledger.events import ANCHOR_BITS, ANCHOR_MASK, NO_POSITION, Link
from ultraengine.domains.ledger.state import Account
from ultraengine.model.errors import InvariantBroken


def next_link(
    account: Account,
    *,
    paid_in: int = 0,
    held_in: int = 0,
    held_out: int = 0,
    moment: int | None = None,
) -> Link:
    """The account's next change: balance and held amounts grow by the given numbers.

    `moment` is the effective time of a posting; None when nothing is posted.
    """
    version = account.version + 1
    effective_max = account.effective_max
    late = None
    if moment is not None:
        if moment < effective_max:
            late = NO_POSITION if account.late is None else account.late
        else:
            effective_max = moment
    return Link(
        account.id,
        version,
        account.head,
        wire(account.balance + paid_in),
        wire(account.pending_in + held_in),
        wire(account.pending_out + held_out),
        effective_max,
        anchors_before(account.anchors, version),
        late,
    )


def settle(account: Account, recorded: Link, expected: Link, position: int) -> None:
    """Apply the change at `position`.  Raises `InvariantBroken` unless the links agree.

    `expected` is what `next_link` gives for the account as it is.
    """
    found = resolved(recorded, position)
    if found != expected:
        raise InvariantBroken(
            "an account reaches the values of its event",
            account=account.id,
            recorded=found,
            reached=expected,
        )
    account.version = found.version
    account.balance = int(found.balance)
    account.pending_in = int(found.pending_in)
    account.pending_out = int(found.pending_out)
    account.effective_max = found.effective_max
    account.head = position
    if not found.version & ANCHOR_MASK:
        account.anchors = anchors_after(account.anchors, found.version, position)
    if found.late is not None:
        account.late = position
    account.set_window()


def resolved(link: Link, position: int) -> Link:
    """The link of an event at `position` with all its positions absolute."""
    if link.previous >= 0 and (not link.anchors or min(link.anchors) >= 0):
        return link
    return Link(
        link.account,
        link.version,
        _absolute(link.previous, position),
        link.balance,
        link.pending_in,
        link.pending_out,
        link.effective_max,
        tuple(_absolute(anchor, position) for anchor in link.anchors),
        link.late,
    )


def _absolute(pointer: int, position: int) -> int:
    return position + pointer if pointer < 0 else pointer


def anchors_before(anchors: tuple[int, ...], version: int) -> tuple[int, ...]:
    """What version `version` carries, given the last anchor of each level before it."""
    return anchors[: _levels(version)]


def anchors_after(anchors: tuple[int, ...], version: int, position: int) -> tuple[int, ...]:
    """The last anchor of each level once version `version` stands at `position`."""
    levels = _levels(version)
    return (position,) * levels + anchors[levels:]


def _levels(version: int) -> int:
    """How often 128 divides `version`: the number of levels at which it is an anchor."""
    levels = 0
    while not version & ((1 << ANCHOR_BITS * (levels + 1)) - 1):
        levels += 1
    return levels
