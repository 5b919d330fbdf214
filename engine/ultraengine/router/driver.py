"""The engine as the edge sees it, when one shard in this process owns every slot.

Routers of many shards come with the cluster and satisfy the same Protocol
(`gateway.engine.Engine`), so that the edge never knows how many there are.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from ultraengine.execution.registry import Admitted, Registry
from ultraengine.model.domain import QuerySpec
from ultraengine.model.limits import Limits
from ultraengine.reply.waiters import Ticket
from ultraengine.shard.driver import Shard
from ultraengine.shard.snapshots import Snapshots
from ultraengine.shard.status import OutcomeAnswer, ReadAnswer, ReplayReport, ShardStatus


class OneShard:
    """Passes everything to one shard."""

    def __init__(
        self,
        shard: Shard,
        snapshots: Snapshots,
        replay_validate: Callable[[int, int | None], Awaitable[ReplayReport]],
    ) -> None:
        self.registry: Registry = shard.registry
        self.limits: Limits = shard.limits
        self.submit: Callable[[Sequence[Admitted], Ticket, int], None] = shard.submit
        """Bound once: the data path pays for no extra call."""
        self.replay_validate = replay_validate
        self._shard = shard
        self._snapshots = snapshots

    async def query(
        self,
        spec: QuerySpec,
        domain: str,
        tenant: str,
        key: str,
        params: Any,
        *,
        min_offset: int | None,
        read: str,
    ) -> ReadAnswer:
        """Read committed state (`Shard.query`)."""
        return await self._shard.query(
            spec, domain, tenant, key, params, min_offset=min_offset, read=read
        )

    async def outcome(self, tenant: str, key: str | None, id: str) -> OutcomeAnswer:
        """What became of a command (`Shard.outcome`)."""
        return await self._shard.outcome(tenant, key, id)

    def status(self) -> ShardStatus:
        """The shard's report."""
        return self._shard.status()

    async def pause(self) -> None:
        """Refuse new commands until `resume`."""
        await self._shard.pause()

    async def resume(self) -> None:
        """Take commands again."""
        self._shard.resume()

    async def drain(self) -> None:
        """Refuse new commands and answer all that were accepted."""
        await self._shard.drain()

    async def snapshot_now(self) -> Any:
        """Take and verify a snapshot; returns what was written."""
        return await self._snapshots.take()

    async def skip(self, offset: int) -> None:
        """Log an override: recovery will not evolve the command at `offset`."""
        self._shard.skip(offset, "admin")
