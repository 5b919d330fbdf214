"""What is wrong with a history, and how long clients waited: values in, values out.

The journal of the clients (`payer`) is held against the logs of the copies (`frames`):

* whatever was sent is answered, and stands in the log where its answer said, in every copy whose
  log begins early enough, and in at least two; a position is given once, and in the order of time;
* the sentence of the protocol: an acknowledgement of epoch e at position p stands below the first
  frame of every later epoch, and all copies hold the same history up to it (the same chain);
* each book's balance is the number of its acknowledged payments: none was lost or done twice.
"""

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

PAYMENT: Final = "ledger.create_transfers"
COPIES_MIN: Final = 2
"""An acknowledged command is on so many volumes."""


class Told(msgspec.Struct, frozen=True):
    """An acknowledgement."""

    at: float
    epoch: int
    offset: int


class Journal(msgspec.Struct, frozen=True):
    """What clients wrote down, by id of the command."""

    sent: dict[str, float]
    payments: frozenset[str]
    told: dict[str, Told]
    failed: dict[str, str]
    """The code with which our client gave up."""


class Frame(msgspec.Struct, frozen=True, array_like=True):
    """A frame of commands in a copy's log."""

    sequence: int
    epoch: int
    offset: int
    chain: str
    """Names all bytes before it."""
    ids: list[str]


def read_journal(lines: Iterable[str]) -> Journal:
    """The journal; a last line that is not whole is left out."""
    sent: dict[str, float] = {}
    told: dict[str, Told] = {}
    failed: dict[str, str] = {}
    payments: set[str] = set()
    for line in lines:
        try:
            found: dict[str, Any] = json.loads(line)
        except ValueError:
            continue
        if "sent" in found:
            sent[found["sent"]] = found["at"]
            if found["kind"] == PAYMENT:
                payments.add(found["sent"])
        elif "told" in found:
            told[found["told"]] = Told(found["at"], found["epoch"], found["offset"])
        else:
            failed[found["failed"]] = found["code"]
    return Journal(sent, frozenset(payments), told, failed)


def read_frames(lines: Iterable[str]) -> list[Frame]:
    """A copy's frames, as `frames` prints them."""
    return [msgspec.json.decode(line, type=Frame) for line in lines if line.strip()]


def wrong(
    journal: Journal, logs: Mapping[str, Sequence[Frame]], balances: Mapping[str, int]
) -> list[str]:
    """Everything that is wrong, a sentence each."""
    return [
        *_answers(journal),
        *_order(journal),
        *_balances(journal, balances),
        *(one for name, log in logs.items() for one in _epochs(name, log)),
        *_one_history(logs),
        *_places(journal, logs),
    ]


def _answers(journal: Journal) -> list[str]:
    found = [f"{name} failed: {code}" for name, code in journal.failed.items()]
    missing = journal.sent.keys() - journal.told.keys() - journal.failed.keys()
    return [*found, *(f"{name} was never answered" for name in sorted(missing))]


def _order(journal: Journal) -> list[str]:
    """Offsets are given once, and whoever is sent after an answer stands behind it."""
    found: list[str] = []
    taken: dict[int, str] = {}
    for name, told in journal.told.items():
        other = taken.setdefault(told.offset, name)
        if other != name:
            found.append(f"{other} and {name} were both told offset {told.offset}")
    answered = sorted(journal.told.values(), key=lambda one: one.at)
    highest, position = -1, 0
    for name in sorted(journal.told, key=lambda one: journal.sent[one]):
        while position < len(answered) and answered[position].at < journal.sent[name]:
            highest = max(highest, answered[position].offset)
            position += 1
        if journal.told[name].offset <= highest:
            found.append(f"{name} stands at {journal.told[name].offset}, and {highest} was told")
    return found


def _balances(journal: Journal, balances: Mapping[str, int]) -> list[str]:
    paid = dict.fromkeys(balances, 0)
    for name in journal.told.keys() & journal.payments:
        book = name.rpartition("-")[0]
        paid[book] = paid.get(book, 0) + 1
    return [
        f"{book} has {balances.get(book)}, and {count} payments were acknowledged"
        for book, count in sorted(paid.items())
        if balances.get(book) != count
    ]


def _epochs(copy: str, log: Sequence[Frame]) -> list[str]:
    return [
        f"{copy}: epoch {after.epoch} at {after.offset} stands behind epoch {before.epoch}"
        for before, after in itertools.pairwise(log)
        if after.epoch < before.epoch or after.sequence <= before.sequence
    ]


def _one_history(logs: Mapping[str, Sequence[Frame]]) -> list[str]:
    """Where two copies hold a frame of the same sequence it has the same past."""
    seen: dict[int, tuple[str, Frame]] = {}
    for copy, log in logs.items():
        for frame in log:
            other, first = seen.setdefault(frame.sequence, (copy, frame))
            if first != frame:
                return [f"{other} and {copy} differ at frame {frame.sequence}"]
    return []


def _places(journal: Journal, logs: Mapping[str, Sequence[Frame]]) -> list[str]:
    """Each acknowledged command where it was told, in all logs that begin early enough."""
    found: list[str] = []
    held = dict.fromkeys(journal.told, 0)
    for copy, log in logs.items():
        placed = {
            frame.offset + index: (frame.epoch, name)
            for frame in log
            for index, name in enumerate(frame.ids)
        }
        first = log[0].offset if log else None
        for name, told in journal.told.items():
            if first is None or told.offset < first:
                continue
            epoch, there = placed.get(told.offset, (0, None))
            if there != name:
                found.append(f"{copy}: {name} was told {told.offset}, and {there} stands there")
            elif epoch > told.epoch:
                found.append(
                    f"{copy}: {name} was told epoch {told.epoch}, and {told.offset} is of {epoch}"
                )
            else:
                held[name] += 1
    few = [name for name, count in held.items() if count < COPIES_MIN]
    return [*found, *(f"{name} is in {held[name]} logs" for name in few)]


def pause_s(acknowledged: Sequence[float], begin: float, end: float) -> float:
    """The longest time from one acknowledgement to the next, of any client, that touches the
    span from `begin` (a fault) to `end` (all is whole again).  `acknowledged` ascends."""
    longest = 0.0
    for before, after in itertools.pairwise(acknowledged):
        if after > begin and before < end:
            longest = max(longest, after - before)
    return longest


def at_share(values: Sequence[float], share: float) -> float:
    """The smallest of the values that so large a share of them does not exceed."""
    ascending = sorted(values)
    return ascending[max(0, -(-len(ascending) * int(share * 1_000) // 1_000) - 1)]
