"""Where in a log the commands of each slot are: what a shard that hands slots over looks up, so
that its log is read once and not once for each slot.  Kept in memory, made when it is needed.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence

from ultraengine.execution.system import FILL_SLOT, TICK, is_system, system_data
from ultraengine.model.command import Command
from ultraengine.model.ids import slot_of
from ultraengine.model.outcome import Outcome
from ultraengine.shard.slot_copy import EXPIRIES, Group


class SlotIndex:
    """The groups of each slot, from `start` on, by the offset of their first command."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.end = start
        """First offset that is not in the index."""
        self._bases: dict[int, array[int]] = {}

    def extend(self, groups: Iterable[Group]) -> None:
        """Look through the next groups, up to the first whose outcomes are not all recorded."""
        for group in groups:
            outcomes = group.outcomes
            if outcomes is None:
                return
            base = int(group.header.base_offset)
            if base < self.end:
                continue
            slots = {
                slot
                for command, outcome in zip(group.commands, outcomes, strict=True)
                for slot in _slots_of(command, outcome)
            }
            for slot in slots:
                self._bases.setdefault(slot, array("Q")).append(base)
            self.end = int(group.header.offset_end)

    def bases(self, slot: int, start: int, end: int) -> Sequence[int]:
        """Groups that may hold something of a slot at ``start <= offset < end``, ascending.

        The one before `start` is among them, because it may go beyond.
        """
        found = self._bases.get(slot, array("Q"))
        first = max(0, bisect_right(found, start) - 1)
        return found[first : bisect_left(found, end)]


def _slots_of(command: Command, outcome: Outcome) -> Iterable[int]:
    if not is_system(command):
        return (slot_of(command.tenant, command.key),)
    if command.type == TICK:
        return [slot_of(tenant, key) for tenant, key, _ in EXPIRIES.decode(outcome.events)]
    return (system_data(command).slot,) if command.type == FILL_SLOT else ()


def groups_at(bases: Iterable[int], read: Callable[[int], Iterator[Group]]) -> Iterator[Group]:
    """The groups at these offsets; `read` gives those from an offset on, and goes on as long as
    they follow one another."""
    going: Iterator[Group] = iter(())
    for base in bases:
        group = next(going, None)
        if group is None or group.header.base_offset != base:
            going = read(base)
            group = next(going)
        yield group
