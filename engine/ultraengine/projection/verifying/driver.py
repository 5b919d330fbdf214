"""`ultra projection verify`: are the tables what the log says?

A *check set* is built from offset 0 under a name of its own (``check_<projection>``), which a
worker does not know and leaves alone.  It goes exactly as far as the set that serves; then both are
summed up and compared table by table.  While a worker writes on, the two are chased to a common
position; if that does not come about, the worker is asked to pause for the comparison.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from ultraengine.feed.source import FeedSource
from ultraengine.model.errors import EngineError
from ultraengine.model.ids import Offset, ShardId
from ultraengine.model.limits import ProjectionLimits
from ultraengine.model.projection import NAME_CHARS_MAX, Aggregate, Projection, Rows, Source, Table
from ultraengine.ports import Clock
from ultraengine.projection.decode import Behind, Decoder
from ultraengine.projection.progress import commands_done
from ultraengine.projection.projector import Declared, Former, ProjectionHooks
from ultraengine.projection.target import (
    START,
    Checkpoint,
    Checksum,
    ProjectionSet,
    Request,
    SetState,
    Target,
    all_tables,
)

PREFIX: Final = "check_"
CHASES: Final = 2
"""Attempts to meet a worker that writes on, before it is asked to pause."""
PAUSED_CHASES: Final = 5
PAUSE_POLL_S: Final = 0.1
Report = Callable[[int, int], None]
"""Told how many of how many commands were read."""


class VerifyFailed(Exception):
    """It cannot be compared; the message says why."""


class TableVerdict(msgspec.Struct, frozen=True):
    """One table, as it serves and as the log says."""

    table: str
    serving: Checksum
    expected: Checksum

    @property
    def is_same(self) -> bool:
        """Whether they agree."""
        return self.serving == self.expected


class Verdict(msgspec.Struct, frozen=True):
    """What came out for one projection."""

    projection: str
    version: int
    build: int
    commands: int
    """Up to where both were compared, over all shards."""
    tables: tuple[TableVerdict, ...]

    @property
    def is_same(self) -> bool:
        """Whether all tables agree."""
        return all(one.is_same for one in self.tables)


class Renamed:
    """A projection under another name: the same rows, other tables."""

    def __init__(self, projection: Projection) -> None:
        self._projection = projection
        self.name = f"{PREFIX}{projection.name}"[:NAME_CHARS_MAX].rstrip("_")
        self.version = projection.version
        self.tables: Sequence[Table] = projection.tables
        self.aggregates: Sequence[Aggregate] = projection.aggregates

    def project(self, event: Any, at: Source, rows: Rows) -> None:
        """The rows of the projection."""
        self._projection.project(event, at, rows)


class Verifier:
    """Compares one projection of one target, which must be open, with the log."""

    def __init__(
        self,
        target: Target,
        source: FeedSource,
        declared: Declared,
        decoder: Decoder,
        *,
        clock: Clock,
        limits: ProjectionLimits,
        hooks: ProjectionHooks,
        report: Report,
    ) -> None:
        self._target = target
        self._source = source
        self._of = declared.projection
        self._decoder = decoder
        self._clock = clock
        self._limits = limits
        self._hooks = msgspec.structs.replace(hooks, after=())
        self._report = report
        self._check = Renamed(declared.projection)
        self._declared = Declared(declared.domain, self._check)
        self._tables = all_tables(declared.projection)

    async def run(self) -> Verdict:
        """Build, compare, drop.  Raises `VerifyFailed`, and as the target and the feed do."""
        serving = await self._serving()
        if serving.version != self._of.version:
            raise VerifyFailed(
                f"version {serving.version} serves, and this program declares {self._of.version}"
            )
        await self._drop_check_sets()
        check = await self._target.create(self._check, 1, self._clock.now())
        try:
            return await self._compare(serving, check)
        finally:
            await self._drop_check_sets()

    async def _serving(self) -> ProjectionSet:
        for of in await self._target.sets():
            if of.projection == self._of.name and of.state is SetState.SERVING:
                return of
        raise VerifyFailed(f"no set of {self._of.name} serves yet")

    async def _drop_check_sets(self) -> None:
        """What this run made, or one that was interrupted."""
        names = [table.name for table in self._tables]
        for of in await self._target.sets():
            if of.projection == self._check.name:
                await self._target.drop(of, names, self._clock.now())

    async def _compare(self, serving: ProjectionSet, check: ProjectionSet) -> Verdict:
        for _ in range(CHASES):
            verdict = await self._chase(serving, check)
            if verdict is not None:
                return verdict
        if serving.paused:
            raise VerifyFailed("a set that is paused is written all the same")
        await self._target.ask(self._of.name, Request.PAUSE, self._clock.now())
        try:
            await self._wait_for_pause()
            for _ in range(PAUSED_CHASES):
                verdict = await self._chase(serving, check)
                if verdict is not None:
                    return verdict
        finally:
            await self._target.ask(self._of.name, Request.RESUME, self._clock.now())
        raise VerifyFailed("the set that serves does not stand still")

    async def _wait_for_pause(self) -> None:
        """A worker obeys within ``poll_s``; without one nothing writes and nothing obeys."""
        patience = 2 * self._limits.poll_s + 1.0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while not (await self._serving()).paused:  # noqa: ASYNC110  (the worker's doing)
                    await asyncio.sleep(PAUSE_POLL_S)

    async def _chase(self, serving: ProjectionSet, check: ProjectionSet) -> Verdict | None:
        """Bring the check set to where the other one is; None when that has moved on."""
        goal = await self._target.positions(serving)
        await self._build(check, goal)
        now = self._clock.now()
        sums: list[Mapping[str, Checksum]] = []
        for of, projection in ((serving, self._of), (check, self._check)):
            await self._target.keep(of, projection, now)
            while await self._target.refresh(of, projection, self._limits.slices_per_refresh_max):
                pass
            sums.append(await self._target.checksums(of, self._tables))
        if await self._target.positions(serving) != goal:
            return None
        verdicts = [
            TableVerdict(table.name, sums[0][table.name], sums[1][table.name])
            for table in self._tables
        ]
        return Verdict(
            serving.projection, serving.version, serving.build, commands_done(goal), tuple(verdicts)
        )

    async def _build(self, check: ProjectionSet, goal: Mapping[ShardId, Checkpoint]) -> None:
        positions = dict(await self._target.positions(check))
        while True:
            left = {
                shard: end.offset
                for shard, end in sorted(goal.items())
                if positions.get(shard, START).offset < end.offset
            }
            if not left:
                return
            before = commands_done(positions)
            waits = [
                waiting
                for shard, end in left.items()
                if (waiting := await self._follow(check, shard, positions, end, goal)) is not None
            ]
            if waits and commands_done(positions) == before:
                raise VerifyFailed(
                    f"the set that serves is ahead of where its slots came from: {waits[0]}"
                )

    async def _follow(
        self,
        check: ProjectionSet,
        shard: ShardId,
        positions: dict[ShardId, Checkpoint],
        end: Offset,
        goal: Mapping[ShardId, Checkpoint],
    ) -> Behind | None:
        """Write one shard up to an offset, or up to where another one has to come first."""
        behind: Behind | None = None
        async with contextlib.aclosing(self._groups(shard, positions, end)) as formers:
            async for former in formers:
                behind = former.behind
                if not former.groups:
                    continue
                formed = former.finish()
                await self._target.write(check, self._check, formed.batches[0], formed.moved)
                positions.update({moved.shard: moved.after for moved in formed.moved})
                self._report(commands_done(positions), commands_done(goal))
        return behind

    async def _groups(
        self, shard: ShardId, positions: Mapping[ShardId, Checkpoint], end: Offset
    ) -> Any:
        """Batches of one shard up to an offset, which is the end of a group."""
        former = self._former(positions)
        start = positions.get(shard, START).offset
        async with contextlib.aclosing(self._source.pages(shard, start)) as pages:
            async for page in pages:
                for group in page.groups:
                    if group.offset_end > end:
                        raise VerifyFailed(f"offset {end} of shard {shard} ends no group")
                    poison = former.take(group, self._clock.now())
                    if poison is not None:
                        parked = poison.parked
                        raise VerifyFailed(
                            f"poison at offset {parked.offset} of shard {shard}: {parked.reason}"
                        )
                    is_last = group.offset_end == end or former.behind is not None
                    if is_last or (
                        former.rows >= self._limits.batch_rows_max
                        or former.bytes >= self._limits.batch_bytes_max
                    ):
                        yield former
                        former = self._former(positions)
                    if is_last:
                        return
        raise EngineError("the feed has ended", code="SHARD_UNAVAILABLE")

    def _former(self, positions: Mapping[ShardId, Checkpoint]) -> Former:
        return Former([self._declared], self._decoder, positions, self._hooks)
