"""Which slots a shard takes commands of: by SLOTS at first, by its own log once slots move.

A slot that is about to be sealed takes nothing more from the moment at which the seal enters a
group: what waits behind it is refused then, and not when its turn comes (clause 3 of
`docs/slot-moves.md`).
"""

from collections.abc import Callable
from itertools import groupby
from typing import Final

from ultraengine.execution.carried import CARRIED
from ultraengine.execution.executor import Executor
from ultraengine.execution.system import FillSlot, SlotData, StepSlot, SystemData
from ultraengine.model.errors import EngineError, InvariantBroken
from ultraengine.model.ids import SLOT_COUNT, Instant, Offset
from ultraengine.moving.plan import Seen
from ultraengine.moving.record import Seal, SlotRecord, State, serves
from ultraengine.shard.carried_ids import CarriedIds
from ultraengine.shard.ownership import Ownership
from ultraengine.shard.slot_moves import SlotMoves, decode_message, sealed_position

_OWN: Final = bytes(SLOT_COUNT)


class Placement:
    """The slots of one shard."""

    def __init__(self, executor: Executor, ownership: Ownership | None) -> None:
        self._executor = executor
        self._ownership = ownership
        self._moves = executor.moves if isinstance(executor.moves, SlotMoves) else None
        first = _OWN if ownership is None else ownership.foreign
        self.foreign: bytearray | None = None
        """For each slot one byte, 0 where commands are taken; None: of all."""
        if ownership is not None or (self._moves is not None and self._moves.records):
            self.foreign = bytearray(first)
        self.on_logged: Callable[[SlotData], None] = lambda _data: None
        """Told of each step and batch that was executed."""
        self.time_min = Instant(0)
        """What is logged from here on is not stamped below: the time of slots that came."""
        self.carried: dict[int, CarriedIds] = {}
        """By slot: the ids that it has brought along."""
        if self._moves is not None:
            for slot in self._moves.records:
                self._place(slot)
                self._remember(slot)

    @property
    def moves(self) -> SlotMoves:
        """What is logged of moves.  Raises `InvariantBroken` where none are kept."""
        if self._moves is None:
            raise InvariantBroken("slots move where moves are kept")
        return self._moves

    def is_first_owner(self, slot: int) -> bool:
        """Whether this shard owned the slot before any move."""
        return self._ownership is None or not self._ownership.foreign[slot]

    def record(self, slot: int) -> SlotRecord:
        """What is logged of a slot, or what holds while nothing is."""
        return self.moves.record(slot, is_first_owner=self.is_first_owner(slot))

    def look(self, slot: int, *, digest: bool = True) -> Seen:
        """What this shard says of a slot; the digest of a copy costs a look at all of it."""
        record, executor = self.record(slot), self._executor
        if record.state is State.STAGED:
            found = self.moves.digest(executor, slot) if digest else b""
            return Seen(record, found, self.moves.positions[slot])
        if record.state is State.SEALED:
            return Seen(record, b"", sealed_position(record))
        return Seen(record, b"", int(executor.applied_end))

    def ranges(self) -> tuple[tuple[int, int], ...]:
        """The slots that commands are taken of; each range excludes its end."""
        found, start = [], 0
        for taken, run in groupby(_OWN if self.foreign is None else self.foreign):
            end = start + len(list(run))
            if not taken:
                found.append((start, end))
            start = end
        return tuple(found)

    def refusal(self, slot: int) -> EngineError | None:
        """Why nothing of a slot is taken or read; None when it is."""
        is_own = self.foreign is None or not self.foreign[slot]
        return None if is_own else self.error(slot)

    def error(self, slot: int) -> EngineError:
        """The error for a key of a slot that is not this shard's."""
        version = 0 if self._ownership is None else self._ownership.map_version
        return EngineError(
            f"slot {slot} is not of shard {self._executor.shard}, which began with version "
            f"{version} of the map",
            code="WRONG_SHARD",
            pointer="/key",
            shard_map_version=version,
        )

    def enters(self, data: SystemData) -> int | None:
        """A command of the engine's own enters a group: the slot whose waiting commands are to be
        refused now, if it seals one."""
        if isinstance(data, FillSlot):
            self.time_min = Instant(max(self.time_min, data.time))
        if not isinstance(data, StepSlot) or not isinstance(decode_message(data.message), Seal):
            return None
        if self.foreign is None:
            self.foreign = bytearray(_OWN)
        self.foreign[data.slot] = 1
        return data.slot

    def executed(self, data: SystemData) -> None:
        """A command of the engine's own was executed."""
        if isinstance(data, StepSlot | FillSlot):
            self._place(data.slot)
            self._remember(data.slot)
            self.on_logged(data)

    def _remember(self, slot: int) -> None:
        """Know the ids of the batches that a slot has come in, those that are new."""
        image = self._executor.slots.get(slot)
        if image is None or image.lineage is None:
            self.carried.pop(slot, None)
            return
        known = self.carried.get(slot)
        chunks = image.lineage.chunks
        if known is None or known.chunks != chunks[: len(known.chunks)]:
            known = self.carried[slot] = CarriedIds()
        executor = self._executor
        batches = executor.history.view(CARRIED, lambda: executor.applied_end)
        for chunk in chunks[len(known.chunks) :]:
            known.note(batches.events(Offset(chunk)) or (), chunk)

    def candidates(self, slot: int, identity: bytes) -> tuple[int, ...]:
        """Offsets of batches that may hold a command of this identity, newest first."""
        known = self.carried.get(slot)
        if known is None:
            return ()
        # Below the floor the log may be cut: such ids are forgotten with the shard's own.
        floor = self._executor.dedupe.floor_offset
        return tuple(chunk for chunk in known.find(identity) if chunk >= floor)

    def _place(self, slot: int) -> None:
        is_own = serves(self.record(slot))
        if self.foreign is None:
            if is_own:
                return
            self.foreign = bytearray(_OWN)
        self.foreign[slot] = not is_own
