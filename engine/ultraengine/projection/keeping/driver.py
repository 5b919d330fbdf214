"""Observe, plan, apply, report: the sets of one target become what they should be."""

from collections.abc import Iterable, Sequence

import structlog

from ultraengine.model.ids import Instant, Offset, ShardId
from ultraengine.model.limits import ProjectionLimits
from ultraengine.ports import Clock
from ultraengine.projection.decode import WHOLE
from ultraengine.projection.projector import REASON_CHARS_MAX, Declared
from ultraengine.projection.readings import SetKey, key_of
from ultraengine.projection.sets import (
    Action,
    Create,
    Drop,
    Pause,
    Plan,
    Serve,
    Wanted,
    plan,
)
from ultraengine.projection.target import (
    Parked,
    ProjectionSet,
    Request,
    RowRefused,
    Target,
    all_tables,
)

_log = structlog.get_logger("projection")


class Keeper:
    """The sets of one target.  Used by one task at a time."""

    def __init__(
        self, target: Target, declared: Sequence[Declared], clock: Clock, limits: ProjectionLimits
    ) -> None:
        self._target = target
        self._declared = {one.projection.name: one for one in declared}
        self.wanted = {one.projection.name: one.projection.version for one in declared}
        """Version by projection."""
        self._clock = clock
        self._limits = limits
        self._told: set[SetKey] = set()
        self.sets: tuple[ProjectionSet, ...] = ()
        """As they were seen last."""

    def declared(self, of: ProjectionSet) -> Declared:
        """How a followed set is filled."""
        return self._declared[of.projection]

    async def look(self, caught_up: Iterable[ProjectionSet]) -> Plan:
        """Bring the sets a step nearer to where they should be.

        After a plan with actions another look should follow.
        """
        requests: Sequence[tuple[str, Request]] = await self._target.requests()
        for projection, request in requests:
            _log.info("projection.asked", **self._where(projection), request=str(request))
        wanted = [Wanted(name, version) for name, version in self.wanted.items()]
        self.sets = tuple(await self._target.sets())
        found = plan(
            wanted, self.sets, requests, caught_up, self._clock.now(), self._limits.grace_s
        )
        self._tell(found)
        for action in found.actions:
            await self._do(action)
        return found

    async def restart_builds(self) -> None:
        """Drop what is being built, and ask for a build of everything."""
        for of in self.sets:
            if of.state == "building" and of.projection in self._declared:
                await self._drop(of)
        for name in self._declared:
            await self._target.ask(name, Request.REBUILD, self._clock.now())

    async def park(self, of: ProjectionSet, parked: Parked) -> None:
        """A set stands still until a person has looked."""
        await self._target.park(of, parked)
        _log.error(
            "projection.parked", **self._where(of.projection), build=of.build, shard=parked.shard,
            offset=parked.offset, index=parked.index, reason=parked.reason,
        )  # fmt: skip

    async def refresh(self, of: ProjectionSet) -> int | None:
        """Compute some touched slices anew; how many are left, None when it had to park."""
        projection = self.declared(of).projection
        if not projection.aggregates:
            return 0
        try:
            return await self._target.refresh(of, projection, self._limits.slices_per_refresh_max)
        except RowRefused as error:
            reason = f"an aggregate was refused: {error}"[:REASON_CHARS_MAX]
            await self.park(of, Parked(ShardId(0), Offset(0), WHOLE, reason, self._clock.now()))
            return None

    async def _do(self, action: Action) -> None:
        now, where = self._clock.now(), self._where
        match action:
            case Create(projection, build, why):
                declared = self._declared[projection].projection
                await self._target.create(declared, build, now)
                _log.info("projection.builds", **where(projection), build=build, why=why)
            case Serve(of):
                await self._serve(of, now)
            case Drop(of, why):
                await self._drop(of)
                _log.info("projection.dropped", **where(of.projection), build=of.build, why=why)
            case Pause(of, paused):
                await self._target.pause(of, paused=paused)
                event = "projection.paused" if paused else "projection.resumed"
                _log.info(event, **where(of.projection), build=of.build)
            case _:
                of = action.of
                await self._target.park(of, None)
                _log.info("projection.unparked", **where(of.projection), build=of.build)

    async def _serve(self, of: ProjectionSet, now: Instant) -> None:
        """Change the views over once the aggregates say what the tables say."""
        if await self.refresh(of) != 0:
            return  # The next look goes on.
        await self._target.serve(of, self._declared[of.projection].projection, now)
        _log.info("projection.serves", **self._where(of.projection), build=of.build)

    async def _drop(self, of: ProjectionSet) -> None:
        tables = [table.name for table in all_tables(self._declared[of.projection].projection)]
        await self._target.drop(of, tables, self._clock.now())

    def _tell(self, found: Plan) -> None:
        """Say once what is left alone."""
        for event, sets in (
            ("projection.newer", found.newer),
            ("projection.unknown", found.unknown),
        ):
            for of in sets:
                if key_of(of) not in self._told:
                    self._told.add(key_of(of))
                    _log.warning(
                        event, **self._where(of.projection), build=of.build, version=of.version
                    )

    def _where(self, projection: str) -> dict[str, str]:
        return {"target": self._target.name, "projection": projection}
