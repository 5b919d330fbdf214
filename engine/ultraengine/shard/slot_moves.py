"""The slots of one shard that move or have moved: their records, and what a step does to them.

Part of the state of an executor: it changes by logged commands alone (`system.step_slot`,
`system.fill_slot`), so a replay and a replica come to the same.  The protocol is
`moving.record`; here is what it means for the content of a slot:

    STAGED             an empty image that sleeps; batches are evolved into it
    SEALED             the image sleeps: no timer runs, and its digest is in the record
    OWNED again        it wakes; after a move its offsets get a new base
    ABSENT             the image, its remembered ids and its timers are gone

Pure.
"""

from typing import Final

import msgspec

from ultraengine.execution.carried import CARRIED, ERA_SHIFT, Lineage, decode_parts
from ultraengine.execution.executor import Executor
from ultraengine.execution.system import FillSlot, SlotData, StepSlot
from ultraengine.model.ids import Offset, SlotId
from ultraengine.moving.record import (
    FIRST_OWNER,
    NEVER_HELD,
    Activate,
    Attempt,
    Message,
    Refused,
    Seal,
    SlotRecord,
    State,
    step,
)
from ultraengine.shard.slot_copy import carry, slot_digest

_ENCODER: Final = msgspec.msgpack.Encoder()
_MESSAGE: Final = msgspec.msgpack.Decoder(Message)
_POSITION_BYTES: Final = 8


class _Kept(msgspec.Struct, frozen=True, array_like=True):
    """One slot in a snapshot."""

    slot: int
    record: SlotRecord
    position: int = 0
    base: int = 0
    since: int = 0
    firsts: list[int] = []
    chunks: list[int] = []
    has_lineage: bool = False


_KEPT: Final = msgspec.msgpack.Decoder(list[_Kept])


def encode_message(message: Message) -> msgspec.Raw:
    """A message of the protocol as it is logged."""
    return msgspec.Raw(_ENCODER.encode(message))


def decode_message(raw: bytes | msgspec.Raw) -> Message:
    """Inverse of `encode_message`.  Raises `msgspec.MsgspecError`."""
    message: Message = _MESSAGE.decode(raw)
    return message


def image_digest(executor: Executor, slot: int, position: int) -> bytes:
    """What a sealed slot and its copy must agree in: how far the source's log goes, then the hash
    of the content.  The position stands for all that a copy carries: ids and history, too."""
    return position.to_bytes(_POSITION_BYTES, "big") + slot_digest(executor, slot)


def sealed_position(record: SlotRecord) -> int:
    """Below this offset of the source lies all of a sealed slot."""
    return _position_of(record.digest)


def _position_of(digest: bytes) -> int:
    return int.from_bytes(digest[:_POSITION_BYTES], "big")


def comes_after(record: SlotRecord, message: Message) -> tuple[int, int] | None:
    """Of an activation: the shard that has had the slot, and the offset of its seal there."""
    if not isinstance(message, Activate) or record.peer is None:
        return None
    return record.peer, _position_of(message.digest)


class SlotMoves:
    """Implements `execution.moves.Moves`."""

    def __init__(self) -> None:
        self.records: dict[int, SlotRecord] = {}
        """Of the slots that a message was logged of; the others are where they were at first."""
        self.positions: dict[int, int] = {}
        """STAGED: first offset of the source that is not in the copy."""
        self.dropped = False
        """Whether the content of a slot was dropped: an increment would not say so, the next
        snapshot is full."""

    def record(self, slot: int, *, is_first_owner: bool) -> SlotRecord:
        """What is logged of a slot, or what holds while nothing is."""
        return self.records.get(slot, FIRST_OWNER if is_first_owner else NEVER_HELD)

    def digest(self, executor: Executor, slot: int) -> bytes:
        """Of a staged copy."""
        return image_digest(executor, slot, self.positions.get(slot, 0))

    # --- logged -----------------------------------------------------------------------------

    def evolve(self, executor: Executor, data: SlotData, offset: int, /) -> None:
        """A logged step or batch; one that does not fit any more changes nothing."""
        if isinstance(data, FillSlot):
            self._fill(executor, data, offset)
        else:
            self._step(executor, data, offset)

    def _step(self, executor: Executor, data: StepSlot, offset: int) -> None:
        slot, message = data.slot, decode_message(data.message)
        record = self.record(slot, is_first_owner=data.is_first_owner)
        if isinstance(message, Seal):
            digest = image_digest(executor, slot, offset)
        elif isinstance(message, Activate) and record.state is State.STAGED:
            digest = self.digest(executor, slot)
        else:
            digest = b""  # Nobody looks at it, and it costs a dump of the slot.
        try:
            after = step(record, message, digest)
        except Refused:
            return
        if after is not record:
            self.records[slot] = after
            self._enter(executor, slot, record, after, offset)

    def _enter(
        self, executor: Executor, slot: int, before: SlotRecord, after: SlotRecord, offset: int
    ) -> None:
        """What a new record means for the content of its slot."""
        image = executor.slots.get(slot)
        if executor.before_mutation is not None and image is not None:
            executor.before_mutation(SlotId(slot))
        if after.state is State.STAGED:
            self._drop(executor, slot, offset)
            image = executor.slot(slot)
            image.asleep, image.lineage = True, Lineage()
            self.positions[slot] = 0
        elif after.state is State.ABSENT:
            self._drop(executor, slot, offset)
        elif image is None:
            return  # A slot that nobody has used, and that has no timers.
        elif after.state is State.SEALED:
            image.asleep = True
            image.due = [None] * len(image.due)
        elif before.state in {State.STAGED, State.SEALED}:
            if before.state is State.STAGED:
                self.positions.pop(slot)
                lineage = image.lineage
                if lineage is None or not lineage.chunks:
                    # Nothing has come along: it is as new here, and its history begins here.
                    del executor.slots[slot]
                    return
                lineage.base, lineage.since = after.era << ERA_SHIFT, offset
            image.asleep = False
            executor.wake(slot, image)

    def _drop(self, executor: Executor, slot: int, offset: int) -> None:
        self.positions.pop(slot, None)
        if executor.slots.pop(slot, None) is not None:
            self.dropped = True
            executor.dedupe.drop_slot(slot, offset)

    def _fill(self, executor: Executor, data: FillSlot, offset: int) -> None:
        slot = data.slot
        record, attempt = self.records.get(slot, NEVER_HELD), Attempt(data.era, data.number)
        is_staged = record.state is State.STAGED and record.attempt == attempt
        if not is_staged or data.start != self.positions[slot]:
            return
        if executor.before_mutation is not None:
            executor.before_mutation(SlotId(slot))
        try:
            parts = decode_parts(data.parts)
            for part in parts:
                carry(executor, slot, part)
        except Exception:  # noqa: BLE001  (what does not evolve here must not stop this shard)
            # The attempt is refused for ever: its source goes on serving, or serves again.
            self.records[slot] = SlotRecord(state=State.ABSENT, attempt=attempt)
            self._drop(executor, slot, offset)
            return
        lineage = executor.slot(slot).lineage
        if lineage is not None and parts:
            lineage.note(parts, offset)
            executor.history.append(Offset(offset), CARRIED, data.parts)
        self.positions[slot] = data.end

    # --- snapshots --------------------------------------------------------------------------

    def take_dropped(self) -> bool:
        """Whether content was dropped since the last time."""
        dropped, self.dropped = self.dropped, False
        return dropped

    def dump(self, executor: Executor, /) -> bytes | None:
        """All records, and where the parts of moved slots are; None while there is none."""
        if not self.records:
            return None
        return _ENCODER.encode([self._kept(executor, slot) for slot in sorted(self.records)])

    def _kept(self, executor: Executor, slot: int) -> _Kept:
        image, record = executor.slots.get(slot), self.records[slot]
        position = self.positions.get(slot, 0)
        lineage = None if image is None else image.lineage
        if lineage is None:
            return _Kept(slot, record, position)
        return _Kept(
            slot,
            record,
            position,
            lineage.base,
            lineage.since,
            lineage.firsts,
            lineage.chunks,
            has_lineage=True,
        )

    def load(self, executor: Executor, chunk: bytes, /) -> None:
        """Take one ``dump``: of the full image first, then of its increments."""
        for kept in _KEPT.decode(chunk):
            slot = kept.slot
            self.records[slot] = kept.record
            self.positions.pop(slot, None)
            if kept.record.state is State.STAGED:
                self.positions[slot] = kept.position
            if slot in executor.slots:
                executor.slots[slot].lineage = None  # That of an earlier increment.
            if kept.has_lineage:
                lineage = executor.slot(slot).lineage = Lineage()
                lineage.base, lineage.since = kept.base, kept.since
                lineage.firsts, lineage.chunks = kept.firsts, kept.chunks
            if kept.has_lineage or slot in executor.slots:
                sleeps = kept.record.state in {State.STAGED, State.SEALED}
                executor.slot(slot).asleep = sleeps
