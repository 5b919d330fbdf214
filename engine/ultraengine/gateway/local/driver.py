"""The admin operations of a shard that runs in this process."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from ultraengine.gateway.engine import Lend, Operations
from ultraengine.log.damage import BelowRetention
from ultraengine.model.errors import EngineError
from ultraengine.shard.driver import Shard
from ultraengine.shard.memory import ShardMemory
from ultraengine.shard.snapshotting.driver import Snapshots
from ultraengine.shard.status import ReplayReport
from ultraengine.shard.validation import validate


def operations_of(
    shard: Shard,
    snapshots: Snapshots,
    memory: ShardMemory,
    backup: Callable[[], Awaitable[Any]] | None = None,
    lend: Lend | None = None,
) -> Operations:
    """What an administrator may ask of this process; without a store nothing is backed up."""

    def decide_again(from_offset: int, to_offset: int | None) -> ReplayReport:
        reader = shard.log.reader()
        try:
            found = reader.find(from_offset)
        except BelowRetention as error:
            raise EngineError(str(error), code="NOT_FOUND") from error
        if found is None:
            raise EngineError(f"offset {from_offset} is not in the log", code="NOT_FOUND")
        executor = memory.scratch(sequence_max=found[0].sequence)
        return validate(executor, reader, from_offset=from_offset, to_offset=to_offset)

    async def replay_validate(from_offset: int, to_offset: int | None) -> ReplayReport:
        async with snapshots.undisturbed():
            return await asyncio.to_thread(decide_again, from_offset, to_offset)

    return Operations(
        pause=shard.pause,
        resume=shard.resume,
        drain=shard.drain,
        snapshot=snapshots.take,
        backup=backup,
        replay_validate=replay_validate,
        skip=shard.skip,
        lend=lend,
    )
