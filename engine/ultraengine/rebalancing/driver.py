"""Moves slots between running shards: plans from what they say, keeps nothing itself.

    rebalance(count)   end what earlier runs began, then move until the map is even
    settle(move)       one slot

Killed at any step, it is run again; two of them at a time lose nothing but time.
"""

import asyncio
import fcntl
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import msgspec
import structlog

from ultraengine.edge.auth import ADMIN_SCOPE, KnownCaller
from ultraengine.edge.codec import MSGPACK_TYPE
from ultraengine.gateway.forwarded import problem_of
from ultraengine.gateway.hop import hop_headers
from ultraengine.model.command import SYSTEM_TENANT
from ultraengine.model.errors import EngineError
from ultraengine.model.ids import ShardId
from ultraengine.moving.plan import Copy, Publish, Rest, Seen, Send, plan
from ultraengine.moving.record import Message, State
from ultraengine.moving.wire import MAP_PATH, PATH, Batch, Fed, Records, Told
from ultraengine.ports import OutcomeUnknown
from ultraengine.rebalancing.balance import Move, Progress, moves, unfinished
from ultraengine.router.driver import Links
from ultraengine.router.shard_map import ShardMap
from ultraengine.router.wire import Answered, request
from ultraengine_adapters.local.paths import sync_directory

LAG_MAX: Final = 256
"""Commands of the source that the copy may lack when the slot stops; the pause is their copy."""
ASK_S: Final = 30.0
"""Longest wait for a shard's answer, with its retries."""
TELL_S: Final = 2.0
"""Longest wait for a shard that is told the map."""
WAIT_S_MAX: Final = 1.0
"""Between two looks, while a shard is away."""
FIRST_WAIT_S: Final = 0.01
LOST: Final = frozenset(
    {"SHARD_UNAVAILABLE", "OUTCOME_UNKNOWN", "OVERLOADED", "DRAINING", "PAUSED"}
)
"""Errors that pass: look again."""
MAP_AWAY: Final = (ConnectionError, TimeoutError, OutcomeUnknown)
"""Errors of a map that pass: no answer, or one that says nothing of what became of a swap."""

_log = structlog.get_logger("rebalancing")
T = TypeVar("T")


class MoveFailed(Exception):
    """The slot cannot be moved; it was left, or taken back, where it was."""


class Maps(Protocol):
    """Where the shard map is published.  Both raise OSError: those of `MAP_AWAY` pass."""

    async def read(self) -> ShardMap:
        """The newest one.  Raises `MapRefused`."""

    async def swap(self, shard_map: ShardMap) -> bool:
        """Publish the version after the newest one; False when that is another by now.

        Raises `OutcomeUnknown` when it may have been published: read again.
        """


class ShardsAsked(Protocol):
    """The shards' side of moves.  All that waits raises `EngineError`."""

    @property
    def all(self) -> tuple[ShardId, ...]:
        """Every shard that can be asked."""

    async def look(self, shard: ShardId, slot: int) -> Seen:
        """What a shard says of a slot."""

    async def send(self, shard: ShardId, slot: int, message: Message) -> Told:
        """Give a shard a message."""

    async def read(self, shard: ShardId, slot: int, position: int) -> Batch:
        """The next batch of a slot."""

    async def feed(self, shard: ShardId, slot: int, fed: Fed) -> Seen:
        """Have a batch logged."""

    async def records(self, shard: ShardId) -> Records:
        """What a shard has logged of slots."""

    def tell(self, shard_map: ShardMap) -> None:
        """Let all shards know the newest map soon, for gateways that ask them; who does not hear
        it loses nothing."""


Published = tuple[ShardMap, Mapping[ShardId, Seen]]
"""A map that names the owner of a slot, and what the shards said before it was swapped in."""


class MapFile:
    """A map in a file, swapped under a lock.  Implements `Maps`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def read(self) -> ShardMap:
        """See `Maps`."""
        return await asyncio.to_thread(self._read)

    def _read(self) -> ShardMap:
        return ShardMap.decode(self._path.read_bytes())

    async def swap(self, shard_map: ShardMap) -> bool:
        """See `Maps`."""
        return await asyncio.to_thread(self._swap, shard_map)

    def _swap(self, shard_map: ShardMap) -> bool:
        with self._path.with_name(self._path.name + ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self._read().version != shard_map.version - 1:
                return False
            temporary = self._path.with_name(self._path.name + ".tmp")
            with temporary.open("wb") as file:
                file.write(shard_map.encode())
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
            sync_directory(self._path.parent)
        return True


class Shards:
    """The shards' side of a move, over the hop.  Implements `ShardsAsked`."""

    def __init__(self, links: Links, secret: str) -> None:
        self._links = links
        self._newest: ShardMap | None = None
        self._telling: asyncio.Task[None] | None = None
        caller = KnownCaller(SYSTEM_TENANT, "mover", frozenset({ADMIN_SCOPE}))
        self._headers = (
            ("Content-Type", MSGPACK_TYPE),
            ("Accept", MSGPACK_TYPE),
            *hop_headers(secret, caller),
        )

    @property
    def all(self) -> tuple[ShardId, ...]:
        """Every shard that can be asked."""
        return self._links.shards

    async def _ask(self, shard: ShardId, method: str, path: str, kind: type[T], body: Any) -> T:
        content = b"" if body is None else msgspec.msgpack.encode(body)
        sent = request(method, path, self._headers, content)
        answered = await self._links.ask(shard, sent, deadline_s=ASK_S)
        if answered.status != 200:
            raise problem_of(answered)
        return msgspec.msgpack.decode(answered.body, type=kind)

    async def _told(self, shard: ShardId, method: str, path: str, body: Any = None) -> Told:
        told = await self._ask(shard, method, path, Told, body)
        if told.shard != shard:
            raise MoveFailed(f"shard {told.shard} answers at the address of shard {shard}")
        return told

    async def look(self, shard: ShardId, slot: int) -> Seen:
        """What a shard says of a slot.  Raises `EngineError`."""
        return (await self._told(shard, "GET", f"{PATH}/{slot}")).seen

    async def send(self, shard: ShardId, slot: int, message: Message) -> Told:
        """Give a shard a message.  Raises `EngineError`."""
        return await self._told(shard, "POST", f"{PATH}/{slot}", message)

    async def read(self, shard: ShardId, slot: int, position: int) -> Batch:
        """The next batch of a slot.  Raises `EngineError`."""
        path = f"{PATH}/{slot}/copy?from={position}"
        return await self._ask(shard, "GET", path, Batch, None)

    async def feed(self, shard: ShardId, slot: int, fed: Fed) -> Seen:
        """Have a batch logged.  Raises `EngineError`."""
        return (await self._told(shard, "POST", f"{PATH}/{slot}/copy", fed)).seen

    async def records(self, shard: ShardId) -> Records:
        """What a shard has logged of slots.  Raises `EngineError`."""
        return await self._ask(shard, "GET", PATH, Records, None)

    def tell(self, shard_map: ShardMap) -> None:
        """See `ShardsAsked`.  While one map is told the next ones wait, and the newest is told."""
        self._newest = shard_map
        if self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(self._tell())

    async def _tell(self) -> None:
        told = 0
        while self._newest is not None and self._newest.version > told:
            shard_map = self._newest
            sent = request("PUT", MAP_PATH, self._headers, shard_map.encode())
            answers = await asyncio.gather(
                *(self._links.ask(shard, sent, deadline_s=TELL_S) for shard in self.all),
                return_exceptions=True,
            )
            heard = sum(isinstance(one, Answered) and one.status == 200 for one in answers)
            _log.debug("map.told", version=shard_map.version, shards=heard)
            told = shard_map.version


class Mover:
    """One coordinator."""

    def __init__(self, shards: ShardsAsked, maps: Maps) -> None:
        self._shards = shards
        self._maps = maps
        self.waits: dict[int, str] = {}
        """Slots that do not go on just now, and what for."""
        self._publishing = asyncio.Lock()
        self._unpublished: dict[int, Move] = {}
        """Moves whose slot's owner the map does not name yet, by slot."""
        self._published: dict[int, Published | None] = {}

    # --- one slot ---------------------------------------------------------------------------

    async def settle(self, move: Move) -> None:
        """Have a slot where it is wanted, whatever an earlier coordinator has left of it.

        Raises `MoveFailed`, and OSError or `MapRefused` when the map cannot be read.
        """
        slot, wait_s = move.slot, FIRST_WAIT_S
        while True:
            went_on = is_done = False
            try:
                shard_map, view = await self._observe(move)
                went_on, is_done = await self._go_on(move, shard_map, view)
            except EngineError as error:
                if error.code not in LOST:
                    raise MoveFailed(f"slot {slot}: {error.detail}") from error
                self._wait(slot, error.detail)
            except MAP_AWAY as error:
                self._wait(slot, f"the map: {error}")
            if went_on or is_done:
                self.waits.pop(slot, None)
            if is_done:
                return
            wait_s = FIRST_WAIT_S if went_on else min(2 * wait_s, WAIT_S_MAX)
            await asyncio.sleep(wait_s)

    def _wait(self, slot: int, what_for: str) -> None:
        self.waits[slot] = what_for
        _log.info("slot.waits", slot=slot, error=what_for)

    async def _go_on(
        self, move: Move, shard_map: ShardMap, view: dict[ShardId, Seen]
    ) -> tuple[bool, bool]:
        """Actions, each planned from what the ones before were answered, until there is nothing to
        do: (whether there was anything, whether it is done).  Raises `EngineError`."""
        slot, went_on = move.slot, False
        while True:
            mapped = shard_map.owners[slot]
            action = plan(move.goal, mapped, view, lag_max=LAG_MAX)
            if isinstance(action, Rest):
                return went_on, action is Rest.DONE
            if isinstance(action, Publish):
                found = await self._publish(move)
                if found is None:
                    return went_on, False
                shard_map, seen = found
                view.update(seen)
            elif not await self._carry_out(slot, action, view):
                return went_on, False
            went_on = True

    async def _observe(self, move: Move) -> tuple[ShardMap, dict[ShardId, Seen]]:
        """The map first, then the shards (clause 8): those that do not answer are left out."""
        shard_map = await self._maps.read()
        return shard_map, await self._look(move, shard_map)

    async def _look(self, move: Move, shard_map: ShardMap) -> dict[ShardId, Seen]:
        slot = move.slot
        shards = sorted({*(move.asked or self._shards.all), shard_map.owners[slot]})
        answers = await asyncio.gather(
            *(self._shards.look(shard, slot) for shard in shards), return_exceptions=True
        )
        view: dict[ShardId, Seen] = {}
        for shard, answer in zip(shards, answers, strict=True):
            if isinstance(answer, Seen):
                view[shard] = answer
            elif not isinstance(answer, EngineError):
                raise answer
        return view

    async def _carry_out(self, slot: int, action: Send | Copy, view: dict[ShardId, Seen]) -> bool:
        """One action, and what it was answered; whether it changed anything."""
        if isinstance(action, Copy):
            return await self._copy(slot, action, view)
        told = await self._shards.send(action.shard, slot, action.message)
        view[action.shard] = told.seen
        if told.refused is not None:
            _log.info("slot.refused", slot=slot, shard=action.shard, reason=told.refused)
        return told.refused is None

    async def _publish(self, move: Move) -> "Published | None":
        """Have the map name the slot's owner; None when another coordinator was faster.

        Those of this coordinator wait for one another, and whose turn it is swaps for all.
        """
        slot = move.slot
        self._unpublished[slot] = move
        async with self._publishing:
            if slot in self._unpublished:
                await self._publish_all()
            return self._published.pop(slot, None)

    async def _publish_all(self) -> None:
        """Swap the map once for all that wait, onto the one that was read before the shards were
        asked (clause 8)."""
        waiting, self._unpublished = self._unpublished, {}
        shard_map = await self._maps.read()
        views = await asyncio.gather(*(self._look(move, shard_map) for move in waiting.values()))
        owners: dict[int, ShardId] = {}
        for (slot, move), view in zip(waiting.items(), views, strict=True):
            action = plan(move.goal, shard_map.owners[slot], view, lag_max=LAG_MAX)
            if isinstance(action, Publish):
                owners[slot] = action.owner
        after = shard_map.moved_all(owners) if owners else shard_map
        done = not owners or await self._maps.swap(after)
        for slot, view in zip(waiting, views, strict=True):
            self._published[slot] = (after, view) if done else None
        if owners and done:
            self._shards.tell(after)

    async def _copy(self, slot: int, copy: Copy, view: dict[ShardId, Seen]) -> bool:
        """Carry batches until the copy is where the source was when it was seen."""
        source, staged = view[copy.source], view[copy.destination]
        position, wanted = staged.position, source.position
        if source.record.state is State.SEALED and position >= wanted and staged.digest:
            raise MoveFailed(f"slot {slot}: the copy is complete and is another image")
        while position < wanted:
            batch = await self._shards.read(copy.source, slot, position)
            if batch.end <= position:
                return False  # Its outcomes are not durable yet.
            fed = Fed(copy.attempt, batch)
            seen = await self._shards.feed(copy.destination, slot, fed)
            if seen.record.state is State.ABSENT and seen.record.attempt == copy.attempt:
                raise MoveFailed(f"slot {slot} does not evolve at shard {copy.destination}")
            if seen.record.state is not State.STAGED or seen.position <= position:
                return False
            position = seen.position
            view[copy.destination] = seen
        if source.record.state is State.SEALED:  # What was fed is answered without its digest.
            view[copy.destination] = await self._shards.look(copy.destination, slot)
        return True

    # --- all slots --------------------------------------------------------------------------

    async def logged(self) -> dict[ShardId, Records]:
        """What all shards have logged of slots.  Raises `EngineError`."""
        shards = self._shards.all
        found = await asyncio.gather(*(self._shards.records(shard) for shard in shards))
        return dict(zip(shards, found, strict=True))

    async def look_round(self) -> tuple[dict[ShardId, Records], ShardMap]:
        """What all shards have logged, and the map after that.  Raises `EngineError`, and as
        `Maps.read`."""
        logged = await self.logged()
        return logged, await self._maps.read()

    async def begun(self, count: int, *, back: bool = False) -> list[Move]:
        """What ends the moves that earlier coordinators have begun; waits for every shard.

        Raises `EngineError` for what does not pass.
        """
        logged: dict[ShardId, Records] | None = None
        while logged is None:
            try:
                logged = await self.logged()
            except EngineError as error:
                if error.code not in LOST:
                    raise
                _log.info("rebalancing.waits", error=error.detail)
                await asyncio.sleep(WAIT_S_MAX)
        kept = [shard for shard in self._shards.all if shard < count]
        return unfinished(logged, await self._maps.read(), kept, back=back)

    async def rebalance(
        self,
        count: int,
        tell: Callable[[Progress], None],
        *,
        parallel: int = 1,
        ended: asyncio.Event | None = None,
    ) -> Progress:
        """End what was begun, then move slots until `count` shards share them evenly.

        `ended` stops it between two slots.  Raises as `settle` and `begun`.
        """
        work = await self.begun(count)
        begun = {move.slot for move in work}
        work += [one for one in moves(await self._maps.read(), count) if one.slot not in begun]
        return await self.carry_out(work, tell, parallel=parallel, ended=ended)

    async def carry_out(
        self,
        work: list[Move],
        tell: Callable[[Progress], None],
        *,
        parallel: int = 1,
        ended: asyncio.Event | None = None,
    ) -> Progress:
        """Settle slots, `parallel` of them at a time.  A slot that cannot be moved is left where
        it was, and ends it.  Raises as `settle`."""
        started, moved = time.monotonic(), 0
        waiting = iter(work)
        moving: dict[int, None] = {}

        def progress() -> Progress:
            elapsed_s = time.monotonic() - started
            return Progress(moved, len(work) - moved, elapsed_s, tuple(moving))

        async def lane() -> None:
            nonlocal moved
            for move in waiting:
                if ended is not None and ended.is_set():
                    return
                moving[move.slot] = None
                await self._or_back(move)
                del moving[move.slot]
                moved += 1
                tell(progress())

        async with asyncio.TaskGroup() as lanes:
            for _ in range(max(1, parallel)):
                lanes.create_task(lane())
        return progress()

    async def _or_back(self, move: Move) -> None:
        try:
            await self.settle(move)
        except MoveFailed:
            # The map does not name the destination before the slot is there for good.
            mapped = (await self._maps.read()).owners[move.slot]
            if mapped != move.goal:
                await self.settle(msgspec.structs.replace(move, goal=mapped))
            raise
