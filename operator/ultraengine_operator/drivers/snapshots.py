"""The part of the loop that is about Snapshots: has them carried out, and reports."""

from collections.abc import Awaitable, Callable
from typing import Any

from ultraengine_operator import names
from ultraengine_operator.api.types import UltraEngine
from ultraengine_operator.backups import Ask, Said
from ultraengine_operator.cache import Cache, Key
from ultraengine_operator.cluster import KINDS, Cluster, Content
from ultraengine_operator.drivers.backups import Backups
from ultraengine_operator.events import Told, changes
from ultraengine_operator.observed import Observed
from ultraengine_operator.plan import Plan
from ultraengine_operator.reasons import Problem
from ultraengine_operator.rollout import unready
from ultraengine_operator.snapshots import asks, hindrance, read_snapshot, snapshot_status

Write = Callable[[str, Content, dict[str, Any]], Awaitable[None]]


class Snapshots:
    """The Snapshots of all engines of one operator."""

    def __init__(
        self,
        cluster: Cluster,
        cache: Cache,
        backups: Backups,
        write: Write,
        tell: Callable[[Content, Told], None],
    ) -> None:
        """`write`: a status, where it has changed."""
        self._cluster = cluster
        self._cache = cache
        self._backups = backups
        self._write = write
        self._tell = tell

    def told(self, key: Key) -> tuple[Said, ...]:
        """What has come of each ask of an engine so far."""
        return self._backups.told(key)

    async def look(
        self, key: Key, engine: UltraEngine | None, made: Plan, observed: Observed, now: str
    ) -> None:
        """Ask for what is wanted of an engine, and report what has come of it.

        A paused engine is backed up, too: that changes nothing of it, and a person has asked.
        """
        problem = hindrance(key[1], engine, made)
        await self._settle(key, problem, made, observed, now)

    async def look_at_orphans(self, key: Key, now: str) -> None:
        """The same where this operator has seen no engine of the name."""
        if await self._cluster.get(KINDS["UltraEngine"], *key) is not None:
            # Another operator's, or one that is about to be heard of.
            self._backups.want(key, ())
            return
        await self._settle(key, hindrance(key[1], None, Plan()), Plan(), Observed(), now)

    async def refuse(self, key: Key, problem: Problem, now: str) -> None:
        """The same for an engine whose spec cannot be read."""
        await self._settle(key, problem, Plan(), Observed(), now)

    async def _settle(
        self, key: Key, problem: Problem | None, made: Plan, observed: Observed, now: str
    ) -> None:
        held = self._cache.snapshots(key)
        seen = [read_snapshot(one) for one in held]
        away = unready(observed, made.shards)
        wanted: tuple[Ask, ...] = made.last_backups
        if problem is None:
            wanted += asks(seen, made.shards, away)
        self._backups.want(key, wanted)
        said = {one.ask: one for one in self._backups.told(key)}
        for content, one in zip(held, seen, strict=True):
            if one.is_over:
                continue
            before = content.get("status") or {}
            status = snapshot_status(one, problem, made.shards, away, said, before=before, now=now)
            await self._write("Snapshot", content, status)
            about = {
                "apiVersion": names.API_VERSION, "kind": "Snapshot", "name": one.name,
                "namespace": key[0], "uid": one.uid,
            }  # fmt: skip
            for change in changes(before.get("conditions") or (), status["conditions"]):
                self._tell(about, change)
