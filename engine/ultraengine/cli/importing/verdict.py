"""What an engine's reply means for the rows of a command.  Pure."""

import re
from collections.abc import Collection, Mapping, Sequence

import msgspec

from ultraengine.cli.importing.plan import Planned, SetAside
from ultraengine.model.reply import Reply


class Verdict(msgspec.Struct, frozen=True):
    """What became of one command."""

    booked: int = 0
    already: int = 0
    aside: tuple[SetAside, ...] = ()
    """Rows that the domain did not accept."""
    malformed: int | None = None
    """Index of the item for whose shape the engine refused the whole command."""


def judge(command: Planned, reply: Reply, done: Collection[str]) -> Verdict:
    """The verdict for each item, or for the whole command when it has no items.

    `done`: statuses of items that are as asked.  Items of a duplicate were booked before.
    """
    if reply.outcome == "refused":
        index = _malformed_item(command, reply)
        if index is not None:
            return Verdict(malformed=index)
        return _all_aside(command, reply)
    items = _items(command, reply)
    if items is None:
        if reply.outcome == "accepted":
            count = len(command.parts)
            return Verdict(already=count) if reply.duplicate else Verdict(booked=count)
        return _all_aside(command, reply)
    booked = already = 0
    aside = []
    for part, item in zip(command.parts, items, strict=True):
        status = str(item.get("status", ""))
        if status not in done:
            detail = str(item.get("detail") or "")
            reason = f"{status}: {detail}" if detail else status
            aside.append(SetAside(part.line, "rejected", reason, part.raw))
        elif reply.duplicate or status == "exists":
            already += 1
        else:
            booked += 1
    return Verdict(booked, already, tuple(aside))


def _items(command: Planned, reply: Reply) -> Sequence[Mapping[str, object]] | None:
    """The result's items, one for each of the command's; None when there are none."""
    if not command.items or not isinstance(reply.result, dict):
        return None
    items = reply.result.get(command.items)
    if not isinstance(items, list) or len(items) != len(command.parts):
        return None
    return items


def _malformed_item(command: Planned, reply: Reply) -> int | None:
    """Which item a refusal points at; None when it is not about one item."""
    if reply.error is None or not command.items:
        return None
    found = re.match(rf"/data/{re.escape(command.items)}/(\d+)(/|$)", reply.error.pointer)
    index = int(found[1]) if found else len(command.parts)
    return index if index < len(command.parts) else None


def _all_aside(command: Planned, reply: Reply) -> Verdict:
    error = reply.error
    reason = f"{error.code}: {error.detail}" if error is not None else reply.outcome
    return Verdict(
        aside=tuple(SetAside(part.line, "rejected", reason, part.raw) for part in command.parts)
    )


def malformed_row(command: Planned, reply: Reply, index: int) -> SetAside:
    """The report's line for the item whose shape was refused."""
    part = command.parts[index]
    detail = reply.error.detail if reply.error is not None else "refused"
    pointer = reply.error.pointer if reply.error is not None else ""
    return SetAside(part.line, "rejected", f"{pointer}: {detail}", part.raw)
