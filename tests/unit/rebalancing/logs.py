"""Shards of a coordinator, as the records that their logs would hold; no slot has any content but
how far the log of its owner goes."""

from collections.abc import Callable, Sequence

import msgspec

from ultraengine.model.errors import EngineError
from ultraengine.model.ids import ShardId
from ultraengine.moving.plan import Seen
from ultraengine.moving.record import (
    FIRST_OWNER,
    NEVER_HELD,
    Message,
    Refused,
    SlotRecord,
    State,
    serves,
    step,
)
from ultraengine.moving.wire import Batch, Fed, Records, Told
from ultraengine.router.shard_map import ShardMap


def image(end: int) -> bytes:
    """Of a slot of a log that goes so far."""
    return b"%d" % end


class Logs:
    """All shards; `before_send` may raise, as a network or the end of a process would."""

    def __init__(self, first: ShardMap) -> None:
        self.first = first
        self.records: dict[ShardId, Records] = {}
        self.ends: dict[ShardId, int] = {}
        """How far each shard's log goes; steps of moves count."""
        self.copied: dict[tuple[ShardId, int], int] = {}
        """How far the copy of a slot goes that a shard has."""
        self.away: set[ShardId] = set()
        self.told: list[ShardMap] = []
        self.before_send: Callable[[int, Message], None] = lambda _slot, _message: None

    def record(self, shard: ShardId, slot: int) -> SlotRecord:
        owner = FIRST_OWNER if self.first.owners[slot] == shard else NEVER_HELD
        return self.records.get(shard, {}).get(slot, owner)

    def serving(self, slot: int, shards: int) -> list[int]:
        """Who serves a slot."""
        return [n for n in range(shards) if serves(self.record(ShardId(n), slot))]


class AskedLogs:
    """Those that a coordinator can ask.  Implements `ShardsAsked`."""

    def __init__(self, logs: Logs, shards: Sequence[ShardId]) -> None:
        self._logs = logs
        self._shards = tuple(shards)

    @property
    def all(self) -> tuple[ShardId, ...]:
        return self._shards

    def _require(self, shard: ShardId) -> None:
        if shard in self._logs.away:
            raise EngineError(f"shard {shard} is away", code="SHARD_UNAVAILABLE")

    async def look(self, shard: ShardId, slot: int) -> Seen:
        self._require(shard)
        seen = self._seen(shard, slot)
        if seen.record.state is State.STAGED:
            return msgspec.structs.replace(seen, digest=image(seen.position))
        return seen

    def _seen(self, shard: ShardId, slot: int) -> Seen:
        """Without the digest of a copy, which costs a look at all of it."""
        record = self._logs.record(shard, slot)
        if record.state is State.STAGED:
            return Seen(record, b"", self._logs.copied[shard, slot])
        if record.state is State.SEALED:
            return Seen(record, b"", int(record.digest))
        return Seen(record, b"", self._logs.ends.get(shard, 0))

    async def send(self, shard: ShardId, slot: int, message: Message) -> Told:
        self._require(shard)
        self._logs.before_send(slot, message)
        before, logs = self._logs.record(shard, slot), self._logs
        end = logs.ends.get(shard, 0)
        staged = before.state is State.STAGED
        try:
            after = step(before, message, image(logs.copied[shard, slot] if staged else end))
        except Refused as refused:
            return Told(shard, self._seen(shard, slot), refused.reason.value)
        if after is not before:
            logs.ends[shard] = end + 1
            logs.records.setdefault(shard, {})[slot] = after
            if after.state is State.STAGED:
                logs.copied[shard, slot] = 0
        return Told(shard, self._seen(shard, slot))

    async def read(self, shard: ShardId, slot: int, position: int) -> Batch:
        record = self._logs.record(shard, slot)
        sealed = record.state is State.SEALED
        end = int(record.digest) if sealed else self._logs.ends[shard]
        return Batch(position, end, 0, b"")

    async def feed(self, shard: ShardId, slot: int, fed: Fed) -> Seen:
        record, position = self._logs.record(shard, slot), self._logs.copied.get((shard, slot))
        if record.attempt == fed.attempt and position == fed.batch.start:
            self._logs.copied[shard, slot] = fed.batch.end
        return self._seen(shard, slot)

    async def records(self, shard: ShardId) -> Records:
        self._require(shard)
        return dict(self._logs.records.get(shard, {}))

    def tell(self, shard_map: ShardMap) -> None:
        self._logs.told.append(shard_map)
