"""How the shards of a front are: their status, their metrics, and what an operator asks of all."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
import structlog
from prometheus_client.core import GaugeMetricFamily, Metric

from ultraengine.edge.auth import ADMIN_SCOPE, KnownCaller
from ultraengine.edge.codec import JSON_TYPE
from ultraengine.gateway.engine import Operations
from ultraengine.gateway.envelope import DECODE_ERRORS
from ultraengine.gateway.forwarded import problem_of
from ultraengine.gateway.hop import hop_headers
from ultraengine.model.command import SYSTEM_TENANT
from ultraengine.model.errors import EngineError
from ultraengine.model.ids import ShardId
from ultraengine.moving.wire import MAP_PATH
from ultraengine.router.driver import Address, Links
from ultraengine.router.shard_map import MapRefused, ShardMap
from ultraengine.router.wire import Answered, request

REFRESH_S: Final = 1.0
"""Seconds between two looks at the published map."""
POLL_S: Final = 1.0
"""Seconds between two looks at the shards."""
ASK_S: Final = 5.0
"""Longest wait for a status or a scrape."""
MAP_S: Final = 1.0
"""Longest wait for a shard that is asked for a map: one that hangs must not hide the others'."""
OPERATION_S: Final = 600.0
"""Longest wait for an operation: a drain, a snapshot, a validation."""
NewestMap = tuple[ShardMap, Mapping[ShardId, Address]]
"""A map and where its shards listen."""

_log = structlog.get_logger("ultraengine.gateway")


class ShardView(msgspec.Struct, frozen=True):
    """One shard as its front sees it."""

    shard: int
    slots: int
    """How many slots it owns."""
    state: str
    """Its own state, or ``unreachable``."""
    process: Any
    """What is known of its process; null where another machine runs it."""
    status: Any
    """All that it says of itself; the last thing heard while it is unreachable."""


class FrontStatus(msgspec.Struct, frozen=True):
    """The status of a front: `gateway.engine.EngineStatus`, and its shards."""

    role: str
    state: str
    """``serving`` while a shard can be reached, else ``recovering``."""
    epoch: int
    """The highest epoch of its shards; each has its own."""
    dedup_floor_time: str | None
    """The latest one of its shards."""
    shard_map_version: int
    shards: tuple[ShardView, ...]


def shard_name(shard: ShardId) -> str:
    """The name of a shard in metrics and messages."""
    return f"shard-{shard:04d}"


class Watch:
    """Asks the shards how they are, once a second and when told."""

    def __init__(
        self,
        links: Links,
        secret: str,
        processes: Callable[[], Mapping[ShardId, Any]] = dict,
        newest: Callable[[], NewestMap | None] = lambda: None,
        *,
        addresses: Callable[[ShardMap], Mapping[ShardId, Address]] | None = None,
        follow: bool = False,
    ) -> None:
        """`processes`: what is known of the shards' processes, by shard; `newest`: the map as
        published and where its shards listen, None when nobody publishes one; it may block;
        `addresses`: where the shards of a map listen; without it they are not asked for maps;
        `follow`: look for one every second, too, and not only when a shard says WRONG_SHARD.
        """
        self._addresses = addresses
        self._published = 0
        """The version that was published when it was last looked at."""
        self._newest = newest
        self._follow = follow
        self._refreshing: asyncio.Task[None] | None = None
        self._unread = ""
        """What was wrong with the map the last time; said once."""
        self._links = links
        self._processes = processes
        caller = KnownCaller(SYSTEM_TENANT, "router", frozenset({ADMIN_SCOPE}))
        self._caller = hop_headers(secret, caller)
        self._heard: dict[ShardId, Any] = {}
        self._reachable: dict[ShardId, bool] = {}

    async def run(self) -> None:
        """Look at the shards, and at the map when it is followed, for ever."""
        while True:
            if self._follow:
                self.refresh()
            await self.look()
            await asyncio.sleep(POLL_S)

    def refresh(self) -> None:
        """See whether there is a newer map, and go by it: from time to time, and when a shard
        has said WRONG_SHARD.

        While one look is under way, and for `REFRESH_S` after it, there is no other.
        """
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._refresh())

    async def _refresh(self) -> None:
        wrong = ""
        try:
            found = await asyncio.to_thread(self._newest)
            if found is not None:
                wrong = self._go_by_published(*found)
        except (EngineError, OSError) as error:
            wrong = str(error)
        await self._ask_for_maps()
        if wrong and wrong != self._unread:
            _log.warning("shard_map.not_taken", error=wrong)
        self._unread = wrong
        await asyncio.sleep(REFRESH_S)

    def _go_by_published(self, shard_map: ShardMap, addresses: Mapping[ShardId, Address]) -> str:
        """Take a map if it is newer; what is wrong with it.

        It may be behind what the shards were told, and never behind itself.
        """
        known = self._links.shard_map
        before = self._published or known.version
        self._published = max(shard_map.version, self._published)
        if self._links.adopt(shard_map, addresses):
            _log.info("shard_map.adopted", version=shard_map.version)
        elif shard_map.version < before:
            return f"version {shard_map.version} is published, and {before} was before"
        elif shard_map.version == known.version and shard_map.ranges != known.ranges:
            return f"version {shard_map.version} says something else than before"
        return ""

    async def _ask_for_maps(self) -> None:
        """Take the newest map that the shards were told of, if it is newer than ours: the published
        one may reach us late."""
        await asyncio.gather(
            *(self._ask_for_map(shard) for shard in self._links.shards if self._is_there(shard))
        )

    async def _ask_for_map(self, shard: ShardId) -> None:
        if self._addresses is None:
            return
        with contextlib.suppress(EngineError, TimeoutError, MapRefused):
            path = f"{MAP_PATH}?after={self._links.shard_map.version}"
            answered = await self._get(shard, path, MAP_S)
            if answered.body != b"null":
                told = ShardMap.decode(answered.body)
                if self._links.adopt(told, self._addresses(told)):
                    _log.info("shard_map.adopted", version=told.version, told_by=shard)

    def _is_there(self, shard: ShardId) -> bool:
        return self._reachable.get(shard, True)

    async def stop(self) -> None:
        """End a look at the map."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)

    async def look(self) -> None:
        """Look at every shard once."""
        await asyncio.gather(*(self._look_at(shard) for shard in self._links.shards))

    async def _look_at(self, shard: ShardId) -> None:
        try:
            answered = await self._get(shard, "/admin/v1/status")
            self._heard[shard] = msgspec.json.decode(answered.body)
            self._reachable[shard] = True
        except (EngineError, TimeoutError, *DECODE_ERRORS) as error:
            if self._is_there(shard):
                _log.warning("shard.unreachable", shard=shard, error=str(error))
            self._reachable[shard] = False

    async def _get(self, shard: ShardId, path: str, within_s: float = ASK_S) -> Answered:
        sent = request("GET", path, self._caller)
        async with asyncio.timeout(within_s):
            answered = await self._links.ask(shard, sent, deadline_s=within_s)
        if answered.status != 200:
            raise problem_of(answered)
        return answered

    def status(self) -> FrontStatus:
        """What was heard last."""
        shard_map, processes = self._links.shard_map, self._processes()
        views = tuple(
            ShardView(
                shard,
                sum(end - start for start, end in shard_map.slots_of(shard)),
                self._state(shard),
                processes.get(shard),
                self._heard.get(shard),
            )
            for shard in self._links.shards
        )
        heard = list(self._heard.values())
        floors = [one["dedup_floor_time"] for one in heard if one.get("dedup_floor_time")]
        return FrontStatus(
            role="router",
            state="serving" if any(self._reachable.values()) else "recovering",
            epoch=max((one.get("epoch", 0) for one in heard), default=0),
            dedup_floor_time=max(floors, default=None),
            shard_map_version=shard_map.version,
            shards=views,
        )

    def _state(self, shard: ShardId) -> str:
        if not self._reachable.get(shard):
            return "unreachable"
        return str(self._heard[shard].get("state", "unknown"))

    async def metrics(self) -> dict[ShardId, str]:
        """The metrics of every shard that answers."""
        found: dict[ShardId, str] = {}

        async def scrape(shard: ShardId) -> None:
            with contextlib.suppress(EngineError, TimeoutError):
                found[shard] = (await self._get(shard, "/metrics")).body.decode()

        await asyncio.gather(*(scrape(shard) for shard in self._links.shards))
        return dict(sorted(found.items()))

    async def _operate(
        self, operation: str, body: Mapping[str, Any], shards: Sequence[ShardId] | None = None
    ) -> dict[str, Any]:
        """One admin operation at every shard, or at those named; what each came to, by shard.

        Raises `EngineError` when a shard refused it or did not answer; the others have done it.
        """
        headers = (("Content-Type", JSON_TYPE), *self._caller)
        sent = request("POST", f"/admin/v1/{operation}", headers, msgspec.json.encode(body))
        shards = self._links.shards if shards is None else shards
        answers = await asyncio.gather(
            *(self._links.ask(shard, sent, deadline_s=OPERATION_S) for shard in shards),
            return_exceptions=True,
        )
        results: dict[str, Any] = {}
        failures: list[EngineError] = []
        for shard, answer in zip(shards, answers, strict=True):
            if isinstance(answer, Answered) and answer.status == 200:
                results[str(shard)] = msgspec.json.decode(answer.body)["result"]
            elif isinstance(answer, Answered):
                failures.append(_named(shard, problem_of(answer)))
            elif isinstance(answer, EngineError):
                failures.append(_named(shard, answer))
            else:
                raise answer
        await self.look()
        if failures:
            detail = "; ".join(error.detail for error in failures)
            raise EngineError(detail, code=failures[0].code, retry_after_s=1.0)
        return results

    def operations(self) -> Operations:
        """What an operator may ask of all shards at once; ``skip`` of the one that has halted."""

        async def pause(reason: str) -> Any:
            return await self._operate("pause", {"reason": reason})

        async def validate(from_offset: int, to_offset: int | None) -> Any:
            body = {"from_offset": from_offset, "to_offset": to_offset}
            return await self._operate("replay-validate", body)

        return Operations(
            pause=pause,
            resume=lambda: self._operate("resume", {}),
            drain=lambda: self._operate("drain", {}),
            snapshot=lambda: self._operate("snapshot", {}),
            backup=lambda: self._operate("backup", {}),
            replay_validate=validate,
            skip=self._skip,
        )

    async def _skip(self, offset: int, reason: str) -> Any:
        """Log an override in the shard that has halted at this offset: an offset alone is one
        of every shard.  Raises `EngineError`."""
        await self.look()
        halted = [
            shard
            for shard, status in sorted(self._heard.items())
            if self._state(shard) == "halted" and status.get("applied_end") == offset
        ]
        if len(halted) != 1:
            detail = f"{len(halted)} shards have halted at offset {offset}"
            raise EngineError(detail, code="MALFORMED", pointer="/offset")
        return await self._operate("skip", {"offset": offset, "reason": reason}, halted)


class WatchCollector:
    """Prometheus collector: which shards can be reached."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def collect(self) -> Iterable[Metric]:
        """One family."""
        up = GaugeMetricFamily(
            "ultra_router_shard_up", "1 while the shard answers its front.", labels=("shard",)
        )
        for view in self._watch.status().shards:
            up.add_metric((str(view.shard),), float(view.state != "unreachable"))
        yield up


def _named(shard: ShardId, error: EngineError) -> EngineError:
    return EngineError(f"shard {shard}: {error.detail}", code=error.code)
