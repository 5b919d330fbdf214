"""What a trial on a copy has measured, and what follows from it.  Pure.

*Work* is what decides, since it is the same every time: pages that PostgreSQL touches and rows
that it looks at, or instructions that SQLite's machine executes.  Times are measured beside it,
and only have to agree.
"""

import enum
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any, Final, Protocol

import msgspec

from ultraengine.advice.recorder import ShapeReport
from ultraengine.advice.suggest import Candidate, Place, same_as
from ultraengine.model.limits import AdviceLimits
from ultraengine.model.projection import TableKind
from ultraengine.model.reads import TENANT
from ultraengine.projection.target import ProjectionSet

PLAN_CHARS_MAX: Final = 2_000
ROWS_PER_PAGE: Final = 10
"""So many rows that are looked at count as much as a page that is touched in memory."""
Example = Mapping[str, Any]
"""A row of the data, or some of its columns, as the database gives it."""


class Question(msgspec.Struct, frozen=True):
    """A statement that a shape would run, with values from the data."""

    text: str
    values: tuple[Any, ...]


class NotAsked(Exception):
    """The shape cannot be asked: its read has changed since it was recorded."""


class TrialFailed(Exception):
    """The database would not, or took too long; nothing of the trial is left."""


class Asker(Protocol):
    """Knows the statements that the query API runs."""

    def question(
        self, shape: ShapeReport, of: ProjectionSet, examples: Sequence[Example]
    ) -> Question:
        """The statement of a shape.  Raises `NotAsked`."""


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One question, or many of one shape on average."""

    work: float
    seconds: float
    indexes: tuple[str, ...]
    """Names of those that the plan uses."""
    plan: str
    """As the database describes it, a step in a line."""


class ShapeTrial(msgspec.Struct, frozen=True, kw_only=True):
    """One shape, asked without and with the index."""

    read: str
    calls: int
    before: Measured
    after: Measured
    used: bool
    """Whether the plan has come to use the index."""


class WriteCost(msgspec.Struct, frozen=True, kw_only=True):
    """The same rows inserted without and with the index."""

    rows: int
    seconds_before: float
    seconds_after: float

    @property
    def share(self) -> float:
        """How much longer it took: 0.2 is a fifth."""
        return self.seconds_after / max(self.seconds_before, 1e-9) - 1


class Verdict(enum.StrEnum):
    """What a trial says of an index."""

    KEEP = "keep"
    NO_GAIN = "no gain"
    TOO_DEAR = "too dear"
    FAILED = "not tried"


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate and what came of it."""

    candidate: Candidate
    verdict: Verdict
    reason: str
    table_rows: int = 0
    copy_rows: int = 0
    work_unit: str = ""
    shapes: tuple[ShapeTrial, ...] = ()
    gain: float = 1.0
    """How many times less work its shapes are, by their calls."""
    time_gain: float = 1.0
    write: WriteCost | None = None
    index_bytes: int = 0
    """Of the whole table, by that of the copy."""
    build_seconds: float = 0.0
    """On the copy."""
    notes: tuple[str, ...] = ()


class SpecialTrial(msgspec.Struct, frozen=True, kw_only=True):
    """A specialised table, and what came of it on a copy of what it is made of."""

    verdict: Verdict
    reason: str
    copy_rows: int = 0
    rows: int = 0
    """Of the specialised table, made of that copy."""
    work_unit: str = ""
    before: Measured | None = None
    after: Measured | None = None
    gain: float = 1.0
    time_gain: float = 1.0
    write: WriteCost | None = None
    """Inserts, and inserts with what they change in the specialised table."""
    build_seconds: float = 0.0


def needed(shape: ShapeReport) -> tuple[str, ...]:
    """Columns whose values a question of the shape takes from the data."""
    return tuple(dict.fromkeys([TENANT, *shape.fixed, *(one.column for one in shape.filters)]))


def averaged(measured: Sequence[Measured]) -> Measured:
    """Of all questions of a shape: mean work, median time, the plan of the dearest."""
    dearest = max(measured, key=lambda one: one.work)
    used = sorted({name for one in measured for name in one.indexes})
    return Measured(
        work=sum(one.work for one in measured) / len(measured),
        seconds=median(one.seconds for one in measured),
        indexes=tuple(used),
        plan=dearest.plan[:PLAN_CHARS_MAX],
    )


def ratio(before: float, after: float) -> float:
    """How many times less; what is nothing counts as a thousandth."""
    return round(max(before, 1e-9) / max(after, 1e-9), 2)


def gains(shapes: Sequence[ShapeTrial]) -> tuple[float, float]:
    """(work, time): how many times less all calls of the shapes take."""
    weighed = [(max(1, one.calls), one) for one in shapes]
    work = ratio(
        sum(calls * one.before.work for calls, one in weighed),
        sum(calls * one.after.work for calls, one in weighed),
    )
    seconds = ratio(
        sum(calls * one.before.seconds for calls, one in weighed),
        sum(calls * one.after.seconds for calls, one in weighed),
    )
    return work, seconds


def judged(
    shapes: Sequence[ShapeTrial], write: WriteCost, limits: AdviceLimits
) -> tuple[Verdict, str]:
    """The verdict and its reason."""
    work, seconds = gains(shapes)
    if not any(one.used for one in shapes):
        return Verdict.NO_GAIN, "no plan uses it"
    if work < limits.gain_min:
        return Verdict.NO_GAIN, f"{work:g} times less work is below gain_min ({limits.gain_min:g})"
    if limits.time_gain_min and seconds <= limits.time_gain_min:
        return Verdict.NO_GAIN, (
            f"less work, but {seconds:g} times less time is not above time_gain_min "
            f"({limits.time_gain_min:g})"
        )
    if write.share > limits.write_cost_max:
        return Verdict.TOO_DEAR, (
            f"inserts take {write.share:.0%} longer, more than write_cost_max "
            f"({limits.write_cost_max:.0%})"
        )
    return Verdict.KEEP, f"{work:g} times less work"


def settled(trials: Iterable[Trial]) -> tuple[Trial, ...]:
    """Of those that were kept for the same shapes, the one that gains most stays."""
    kept: dict[Place, list[Candidate]] = {}
    found = []
    for one in sorted(trials, key=lambda one: (-one.gain, one.candidate.columns)):
        if one.verdict is Verdict.KEEP:
            mine = one.candidate
            better = kept.setdefault((mine.projection, mine.table), [])
            covered = {same_as(shape) for other in better for shape in other.shapes}
            if {same_as(shape) for shape in mine.shapes} <= covered:
                names = " and ".join(f"({', '.join(other.columns)})" for other in better)
                one = msgspec.structs.replace(  # noqa: PLW2901  (what was said of it has changed)
                    one, verdict=Verdict.NO_GAIN, reason=f"its shapes gain more from {names}"
                )
            else:
                better.append(mine)
        found.append(one)
    return tuple(sorted(found, key=lambda one: -one.candidate.seconds))


def notes_of(candidate: Candidate, kind: TableKind, key: Sequence[str]) -> tuple[str, ...]:
    """What a number of the trial does not say."""
    moving = [name for name in candidate.columns if name not in key]
    if kind is TableKind.CURRENT and moving:
        return (
            (
                f"rows of this table are changed in place: each change of {', '.join(moving)} "
                "also moves an entry of the index, which inserts do not show"
            ),
        )
    return ()


# --- plans ------------------------------------------------------------------------------------


def sqlite_plan(rows: Sequence[Sequence[Any]]) -> tuple[str, tuple[str, ...]]:
    """Text and used indexes of EXPLAIN QUERY PLAN: rows of (id, parent, _, detail)."""
    depth: dict[int, int] = {0: -1}
    lines, used = [], []
    for number, parent, _, detail in rows:
        depth[number] = depth.get(parent, -1) + 1
        lines.append("  " * depth[number] + detail)
        words = detail.split()
        if "INDEX" in words[:-1]:
            used.append(words[words.index("INDEX") + 1])
    return "\n".join(lines), tuple(dict.fromkeys(used))


def postgres_plan(document: Sequence[Mapping[str, Any]]) -> tuple[str, tuple[str, ...], float]:
    """Text, used indexes and work of EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON)."""
    lines: list[str] = []
    used: list[str] = []
    looked_at = 0.0

    def walk(node: Mapping[str, Any], depth: int) -> None:
        nonlocal looked_at
        index = node.get("Index Name")
        place = index or node.get("Relation Name")
        loops = node["Actual Loops"]
        rows = node["Actual Rows"] * loops
        removed = (
            node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
        ) * loops
        lines.append(
            "  " * depth
            + node["Node Type"]
            + (f" {place}" if place else "")
            + f" ({rows:.0f} rows"
            + (f", {removed:.0f} more looked at)" if removed else ")")
        )
        if index:
            used.append(index)
        if place:
            looked_at += rows + removed
        for child in node.get("Plans", ()):
            walk(child, depth + 1)

    top = document[0]["Plan"]
    walk(top, 0)
    pages = sum(
        int(top.get(f"{kind} {how} Blocks", 0))
        for kind in ("Shared", "Local")
        for how in ("Hit", "Read")
    )
    return "\n".join(lines), tuple(dict.fromkeys(used)), pages + looked_at / ROWS_PER_PAGE
