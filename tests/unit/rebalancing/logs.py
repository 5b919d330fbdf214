"""Shards of a coordinator, as the records that their logs would hold; no slot has any content."""

from collections.abc import Callable, Sequence

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

IMAGE = b"nothing"


class Logs:
    """All shards; `before_send` may raise, as a network or the end of a process would."""

    def __init__(self, first: ShardMap) -> None:
        self.first = first
        self.records: dict[ShardId, Records] = {}
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
        record = self._logs.record(shard, slot)
        return Seen(record, IMAGE if record.state is State.STAGED else b"", 0)

    async def send(self, shard: ShardId, slot: int, message: Message) -> Told:
        self._require(shard)
        self._logs.before_send(slot, message)
        try:
            after = step(self._logs.record(shard, slot), message, IMAGE)
        except Refused as refused:
            return Told(shard, await self.look(shard, slot), refused.reason.value)
        self._logs.records.setdefault(shard, {})[slot] = after
        return Told(shard, await self.look(shard, slot))

    async def read(self, shard: ShardId, slot: int, position: int) -> Batch:
        return Batch(position, position, 0, b"")

    async def feed(self, shard: ShardId, slot: int, fed: Fed) -> Seen:
        return await self.look(shard, slot)

    async def records(self, shard: ShardId) -> Records:
        self._require(shard)
        return dict(self._logs.records.get(shard, {}))

    def tell(self, shard_map: ShardMap) -> None:
        self._logs.told.append(shard_map)
