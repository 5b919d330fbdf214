"""The two engines behind the edge of a process that keeps a copy: one that leads, one that follows.

A leader answers no read before it has proved that it still leads, unless the read says
``read=follower``.  A follower answers these alone, with its position, and gives the feed to whoever
says so (`copied.py`).
"""

from collections.abc import Sequence
from typing import Any

from ultraengine.execution.registry import Admitted, Registry
from ultraengine.feed.driver import Feed
from ultraengine.model.domain import QuerySpec
from ultraengine.model.errors import EngineError
from ultraengine.model.ids import Epoch, ShardId
from ultraengine.model.limits import Limits
from ultraengine.replication.driver import ReplicaDriver
from ultraengine.reply import compose
from ultraengine.reply.driver import OffsetWaiters
from ultraengine.reply.waiters import Ticket
from ultraengine.shard.driver import Shard
from ultraengine.shard.following.driver import Following
from ultraengine.shard.following.looking import look
from ultraengine.shard.status import OutcomeAnswer, ReadAnswer
from ultraengine.starting.replicated.roles.copied import CopiedGroups
from ultraengine.starting.replicated.roles.status import (
    FollowerStatus,
    LeaderStatus,
    following,
    leading,
)

NOT_LEADER_RETRY_S = 0.2
"""What a follower tells its callers to wait; who has several addresses asks the others at once."""


class LeadingEngine:
    """A shard that leads copies."""

    def __init__(self, shard: Shard, replica: ReplicaDriver) -> None:
        self._shard = shard
        self._replica = replica
        self.registry: Registry = shard.registry
        self.limits: Limits = shard.limits
        self.submit = shard.submit

    async def query(
        self,
        spec: QuerySpec,
        domain: str,
        tenant: str,
        key: str,
        params: Any,
        *,
        min_offset: int | None = None,
        read: str = "leader",
    ) -> ReadAnswer:
        """See `shard.reading.driver`; raises NOT_LEADER besides."""
        if read != "follower":
            await self._replica.confirming.confirmed(self.limits.confirm_wait_s)
        return await self._shard.query(
            spec, domain, tenant, key, params, min_offset=min_offset, read=read
        )

    async def outcome(self, tenant: str, key: str | None, command_id: str) -> OutcomeAnswer:
        """Likewise: that a command is unknown is true of a leader alone."""
        await self._replica.confirming.confirmed(self.limits.confirm_wait_s)
        return await self._shard.outcome(tenant, key, command_id)

    def status(self) -> LeaderStatus:
        """The shard's and the replica's."""
        executed_end = self._shard.executor.applied_end
        return leading(self._shard.status(), self._replica.watching.report(executed_end))


class FollowingEngine:
    """A copy that follows."""

    def __init__(
        self,
        shard: int,
        registry: Registry,
        limits: Limits,
        replica: ReplicaDriver,
        behind: Following,
    ) -> None:
        self.registry = registry
        self.limits = limits
        self._shard = shard
        self._replica = replica
        self._behind = behind
        self._offsets = OffsetWaiters(limits.min_offset_wait_s)
        self.feed = Feed(
            CopiedGroups(lambda: replica.files.readable, lambda: replica.committed_end),
            ShardId(shard),
            limits=limits,
            refusal=self._behind_leader,
            looks_again=True,
        )
        behind.on_executed = self._executed
        self._executed(behind.executor.applied_end)

    def _executed(self, end: int) -> None:
        """What is executed here is committed and has its outcomes in this log."""
        self._offsets.reached(end)
        self.feed.publish(end, self._behind.executor.time)

    def _behind_leader(self) -> EngineError | None:
        """Why this copy gives no feed: its consumers would not see how far behind they are."""
        watching = self._replica.watching
        why = watching.lagging(self._behind.late_s)
        if not why:
            return None
        return EngineError(
            f"this copy is behind: {why}; {watching.refusal()}",
            code="NOT_LEADER",
            retry_after_s=NOT_LEADER_RETRY_S,
            leader_url=watching.leader_url,
        )

    def refusal(self) -> EngineError:
        """Who leads instead."""
        watching = self._replica.watching
        return EngineError(
            watching.refusal(),
            code="NOT_LEADER",
            retry_after_s=NOT_LEADER_RETRY_S,
            leader_url=watching.leader_url,
        )

    def submit(self, admitted: Sequence[Admitted], ticket: Ticket, first_index: int = 0) -> None:
        """Refuse all of them."""
        error = self.refusal()
        for index, one in enumerate(admitted, first_index):
            ticket.put(index, compose.refused(one.command.id, error))

    async def query(
        self,
        spec: QuerySpec,
        domain: str,
        tenant: str,
        key: str,
        params: Any,
        *,
        min_offset: int | None = None,
        read: str = "leader",
    ) -> ReadAnswer:
        """Answer ``read=follower`` with what is executed here, and its position.

        Raises `EngineError`: NOT_LEADER for any other read, WAIT_TIMEOUT, and what the query
        raises.
        """
        if read != "follower":
            raise self.refusal()
        if min_offset is not None:
            await self._offsets.wait(min_offset, self._behind.executor.applied_end)
        value, end = await self._behind.read(look(spec, domain, tenant, key, params))
        return ReadAnswer(value, Epoch(self._replica.machine.promise.epoch), end - 1, "follower")

    async def outcome(self, _tenant: str, _key: str | None, _command_id: str) -> OutcomeAnswer:
        """The leader's to say."""
        raise self.refusal()

    async def promote(self, _number: int | None, _reason: str) -> Any:
        """The leader's to do."""
        raise self.refusal()

    def status(self) -> FollowerStatus:
        """The replica's."""
        executed_end = self._behind.executor.applied_end
        return following(self._shard, self._replica.watching.report(executed_end))
