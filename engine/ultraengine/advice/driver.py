"""Tries suggestions one after the other, each alone on a copy of its table.

    for each table: copy ─▶ its shapes asked, its rows written ─▶ for each candidate:
                    index ─▶ the same again ─▶ no index

A candidate that fails says so and the next one is tried; a database that is away ends it all.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

from ultraengine.advice.database import TRIED, Copy, Database
from ultraengine.advice.recorder import ShapeReport
from ultraengine.advice.specialise import Specialised
from ultraengine.advice.suggest import Candidate, Facts, answered, same_as
from ultraengine.advice.sums import Special
from ultraengine.advice.trial import (
    Asker,
    Measured,
    NotAsked,
    ShapeTrial,
    SpecialTrial,
    Trial,
    TrialFailed,
    Verdict,
    WriteCost,
    averaged,
    gains,
    judged,
    needed,
    notes_of,
    settled,
)
from ultraengine.model.errors import InvariantBroken, Malformed
from ultraengine.model.limits import AdviceLimits
from ultraengine.model.projection import Projection
from ultraengine.model.reads import tables_of
from ultraengine.projection.target import ProjectionSet, SetState
from ultraengine.projection.targets import scheme_of

CLASSES: Final[dict[str, str]] = {
    "sqlite": "ultraengine.advice.sqlite.driver:SqliteDatabase",
    "postgresql": "ultraengine.advice.postgres.driver:PostgresDatabase",
    "mysql": "ultraengine.advice.mysql.driver:MysqlDatabase",
}
"""``module:class`` by the scheme of a target's URL; each is made with the URL."""
EXAMPLES_PER_QUESTION: Final = 3
"""Lists and bounds take values of more than one row."""
Tell = Callable[[str], None]
"""What is being tried, for people who wait."""


def open_database(url: str) -> Database:
    """The database of a target's URL, not connected yet.  Raises `Malformed`."""
    scheme = scheme_of(url)
    if scheme not in CLASSES:
        known = " and ".join(CLASSES)
        raise Malformed(f"advice is for {known}, not for {scheme}")
    module, _, kind = CLASSES[scheme].partition(":")
    try:
        make: Any = getattr(importlib.import_module(module), kind)
    except ImportError as error:
        raise Malformed(f"no driver for {scheme}: {error.name} is not installed") from error
    try:
        return cast("Database", make(url))
    except InvariantBroken as error:
        raise Malformed(f"the URL of a {scheme} target: {error.rule}") from error


async def serving(database: Database, projections: Sequence[Projection]) -> list[ProjectionSet]:
    """The serving sets of these projections.  One of another version than declared is none."""
    versions = {one.name: one.version for one in projections}
    return [
        of
        for of in await database.sets()
        if of.state is SetState.SERVING and versions.get(of.projection) == of.version
    ]


async def look(
    database: Database, sets: Sequence[ProjectionSet], projections: Sequence[Projection]
) -> dict[tuple[str, str], Facts]:
    """Rows and indexes of all tables of the sets."""
    by_name = {one.name: one for one in projections}
    return {
        (of.projection, name): await database.facts(of, table)
        for of in sets
        for name, table in tables_of(by_name[of.projection]).items()
    }


async def try_all(
    database: Database,
    sets: Sequence[ProjectionSet],
    facts: Mapping[tuple[str, str], Facts],
    candidates: Sequence[Candidate],
    asker: Asker,
    limits: AdviceLimits,
    tell: Tell,
) -> tuple[Trial, ...]:
    """What came of each candidate.  Raises `TargetUnavailable` and `Refused`."""
    by_name = {of.projection: of for of in sets}
    trials: list[Trial] = []
    for place in dict.fromkeys((one.projection, one.table) for one in candidates):
        own = [one for one in candidates if (one.projection, one.table) == place]
        tell(f"copying {place[1]}")
        bench = _Bench(by_name[place[0]], facts[place], asker, limits)
        try:
            async with database.copy(by_name[place[0]], facts[place].table, limits) as copy:
                for one in own:
                    tell(f"trying {one.table} ({', '.join(one.columns)})")
                    trials.append(await bench.tried(copy, one))
        except TrialFailed as error:
            # There is no copy, so none of them was tried.
            trials += [_failed(one, str(error)) for one in own]
    return settled(trials)


async def try_specialised(
    database: Database,
    sets: Sequence[ProjectionSet],
    proposed: Sequence[Specialised],
    limits: AdviceLimits,
    tell: Tell,
) -> tuple[SpecialTrial, ...]:
    """What came of each, in their order.  Raises `TargetUnavailable` and `Refused`."""
    by_name = {of.projection: of for of in sets}
    trials = []
    for one in proposed:
        table = one.special.source
        tell(f"trying sums of {table.name} by {', '.join(one.special.groups)} and day")
        try:
            async with database.copy(by_name[one.projection], table, limits) as copy:
                trials.append(await _summed_up(copy, one.special, limits, one.evidence.calls))
        except TrialFailed as error:
            trials.append(SpecialTrial(verdict=Verdict.FAILED, reason=str(error)))
    return tuple(trials)


async def _summed_up(
    copy: Copy, special: Special, limits: AdviceLimits, calls: int
) -> SpecialTrial:
    words = copy.words(special)
    examples = await copy.examples(special.equal, limits.examples)
    if not examples:
        raise TrialFailed(f"no row has values in all of {', '.join(special.equal)}")
    asked = [words.questions([row[name] for name in special.equal]) for row in examples]
    before = averaged([await copy.ask(one) for one, _ in asked])
    rows, before_s = await copy.write_seconds()
    build_s, made = await copy.build(words)
    try:
        after = averaged([await copy.ask(one) for _, one in asked])
        fold_s = await copy.fold_seconds(words)
    finally:
        await copy.unbuild()
    shape = ShapeTrial(read=special.source.name, calls=calls, before=before, after=after, used=True)
    write = WriteCost(rows=rows, seconds_before=before_s, seconds_after=before_s + fold_s)
    verdict, reason = judged([shape], write, limits)
    work, quicker = gains([shape])
    return SpecialTrial(
        verdict=verdict, reason=reason, copy_rows=copy.rows, rows=made, work_unit=copy.unit,
        before=before, after=after, gain=work, time_gain=quicker, write=write,
        build_seconds=build_s,
    )  # fmt: skip


def _failed(candidate: Candidate, reason: str) -> Trial:
    return Trial(candidate=candidate, verdict=Verdict.FAILED, reason=reason)


class _Bench:
    """Trials on one table; what is the same for all of them is measured once."""

    def __init__(self, of: ProjectionSet, facts: Facts, asker: Asker, limits: AdviceLimits) -> None:
        self._of = of
        self._facts = facts
        self._asker = asker
        self._limits = limits
        self._before: dict[Any, Measured] = {}
        self._written: tuple[int, float] | None = None

    async def tried(self, copy: Copy, candidate: Candidate) -> Trial:
        """One candidate; the copy is as before, after it."""
        try:
            befores = [await self._asked_before(copy, shape) for shape in candidate.shapes]
            if self._written is None:
                self._written = await copy.write_seconds()
            seconds, size = await copy.add(candidate.columns)
            try:
                afters = [await self._asked(copy, shape) for shape in candidate.shapes]
                rows, after_s = await copy.write_seconds()
            finally:
                await copy.remove()
        except (TrialFailed, NotAsked) as error:
            return _failed(candidate, str(error))
        shapes = tuple(
            ShapeTrial(
                read=shape.read,
                calls=answered(shape),
                before=before,
                after=after,
                used=TRIED in after.indexes,
            )
            for shape, before, after in zip(candidate.shapes, befores, afters, strict=True)
        )
        write = WriteCost(rows=rows, seconds_before=self._written[1], seconds_after=after_s)
        verdict, reason = judged(shapes, write, self._limits)
        work, quicker = gains(shapes)
        table, count = self._facts.table, self._facts.rows
        return Trial(
            candidate=candidate,
            verdict=verdict,
            reason=reason,
            table_rows=count,
            copy_rows=copy.rows,
            work_unit=copy.unit,
            shapes=shapes,
            gain=work,
            time_gain=quicker,
            write=write,
            index_bytes=round(size * max(1.0, count / max(1, copy.rows))),
            build_seconds=seconds,
            notes=notes_of(candidate, table.kind, table.key),
        )

    async def _asked_before(self, copy: Copy, shape: ShapeReport) -> Measured:
        known = same_as(shape)
        if known not in self._before:
            self._before[known] = await self._asked(copy, shape)
        return self._before[known]

    async def _asked(self, copy: Copy, shape: ShapeReport) -> Measured:
        count = self._limits.examples
        rows = await copy.examples(needed(shape), count * EXAMPLES_PER_QUESTION)
        if not rows:
            raise TrialFailed(f"no row has values in all of {', '.join(needed(shape))}")
        found = []
        for start in range(min(count, len(rows))):
            question = self._asker.question(shape, self._of, rows[start::count])
            found.append(await copy.ask(question))
        return averaged(found)
