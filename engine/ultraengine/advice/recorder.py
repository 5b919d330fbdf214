"""What is asked, and how it went: query shapes without values, in bounded memory.

A *shape* is a read with the filters it was used with, their operators, and its order; never a
value.  Per shape: calls, answers from a cache, failures, rows, latency by powers of two, and
per filtered column how many different values there were (`sketch`).  There are at most
`shapes_max` shapes; a new one takes the place of the one with the fewest calls, and what is
lost that way is counted.

The report (`Report`) is served as ``GET /admin/v1/patterns``, kept in a file for ``ultra
advise``, and described in `docs/query.md`; its members are only ever added to.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from ultraengine.advice.sketch import Distinct
from ultraengine.model.ids import Instant
from ultraengine.model.instant import format_instant

REPORT_VERSION: Final = 1
SHAPES_MAX: Final = 512
BUCKETS: Final = 32
"""Latencies: bucket b counts those below 2**b microseconds; the last one all above."""


class Usage(msgspec.Struct, frozen=True):
    """A query without its values."""

    projection: str
    read: str
    """``domain.name``."""
    table: str
    """Table of the projection; empty for a computed read."""
    fixed: tuple[str, ...] = ()
    """Columns that the path makes equal to a value."""
    filters: tuple[tuple[str, str], ...] = ()
    """(column, operator), sorted."""
    order: tuple[str, ...] = ()
    """Columns; each with `` desc`` behind it when it descends."""


class FilterReport(msgspec.Struct, frozen=True, kw_only=True):
    """A filter of a shape."""

    column: str
    operator: str
    distinct: int
    """How many different values it was used with."""
    exact: bool
    """Whether that is counted rather than estimated."""


class ShapeReport(msgspec.Struct, frozen=True, kw_only=True):
    """One shape and how it went."""

    projection: str
    read: str
    table: str
    fixed: tuple[str, ...]
    filters: list[FilterReport]
    order: tuple[str, ...]
    calls: int
    cached: int
    """Of the calls, answered without the database."""
    failed: int
    """Of the calls, ended by an error of ours or of the database."""
    rows: int
    rows_max: int
    seconds: float
    """Sum, of calls that the database answered."""
    seconds_max: float
    seconds_p50: float
    seconds_p95: float
    seconds_p99: float
    """Upper ends of the buckets that hold these quantiles."""
    latency: list[int]
    """Calls by bucket: number b counts those below 2**b microseconds."""
    last: str
    """Time of the last call, RFC 3339."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What was recorded since the start of the process."""

    version: int
    since: str
    until: str
    calls: int
    evicted_shapes: int
    evicted_calls: int
    shapes: list[ShapeReport]
    """By the time that they took, the dearest first."""


class _Shape:
    __slots__ = (
        "cached", "calls", "distinct", "failed", "last", "latency", "rows", "rows_max", "seconds",
        "seconds_max",
    )  # fmt: skip

    def __init__(self, usage: Usage) -> None:
        self.calls = self.cached = self.failed = 0
        self.rows = self.rows_max = 0
        self.seconds = self.seconds_max = 0.0
        self.latency = [0] * BUCKETS
        self.distinct = {place: Distinct() for place in usage.filters}
        self.last = Instant(0)


class Recorder:
    """Counts calls by shape.  Belongs to one thread; a call costs some microseconds."""

    def __init__(self, since: Instant, shapes_max: int = SHAPES_MAX) -> None:
        self._since = since
        self._shapes_max = shapes_max
        self._shapes: dict[Usage, _Shape] = {}
        self.calls = 0
        self.evicted_shapes = 0
        self.evicted_calls = 0

    def __len__(self) -> int:
        """Shapes that are known."""
        return len(self._shapes)

    def _shape(self, usage: Usage) -> _Shape:
        shape = self._shapes.get(usage)
        if shape is None:
            if len(self._shapes) >= self._shapes_max:
                least = min(self._shapes, key=lambda one: self._shapes[one].calls)
                self.evicted_shapes += 1
                self.evicted_calls += self._shapes.pop(least).calls
            shape = self._shapes[usage] = _Shape(usage)
        shape.calls += 1
        self.calls += 1
        return shape

    def answered(
        self,
        usage: Usage,
        now: Instant,
        seconds: float,
        rows: int,
        hashes: Mapping[tuple[str, str], Iterable[int]],
    ) -> None:
        """The database has answered.  `hashes`: of the values of each filter."""
        shape = self._shape(usage)
        shape.last = now
        shape.rows += rows
        shape.rows_max = max(shape.rows_max, rows)
        shape.seconds += seconds
        shape.seconds_max = max(shape.seconds_max, seconds)
        shape.latency[bucket(seconds)] += 1
        for place, values in hashes.items():
            for hashed in values:
                shape.distinct[place].add(hashed)

    def hit(self, usage: Usage, now: Instant) -> None:
        """A cache has answered."""
        shape = self._shape(usage)
        shape.cached += 1
        shape.last = now

    def failure(self, usage: Usage, now: Instant) -> None:
        """It ended in an error of ours or of the database."""
        shape = self._shape(usage)
        shape.failed += 1
        shape.last = now

    def report(self, until: Instant) -> Report:
        """Everything that is known."""
        shapes = [_report(usage, shape) for usage, shape in self._shapes.items()]
        return Report(
            version=REPORT_VERSION,
            since=format_instant(self._since),
            until=format_instant(until),
            calls=self.calls,
            evicted_shapes=self.evicted_shapes,
            evicted_calls=self.evicted_calls,
            shapes=sorted(shapes, key=lambda one: (-one.seconds, one.read, one.order)),
        )

    def totals(self) -> list[tuple[str, int, int, int, float]]:
        """(read, calls, cached, failed, seconds) by read, for metrics."""
        by_read: dict[str, list[float]] = {}
        for usage, shape in self._shapes.items():
            row = by_read.setdefault(usage.read, [0, 0, 0, 0.0])
            for place, count in enumerate((shape.calls, shape.cached, shape.failed, shape.seconds)):
                row[place] += count
        return [
            (read, int(row[0]), int(row[1]), int(row[2]), row[3])
            for read, row in sorted(by_read.items())
        ]


def bucket(seconds: float) -> int:
    """The bucket of a latency."""
    micros = math.ceil(seconds * 1e6)
    return min(max(micros, 0).bit_length(), BUCKETS - 1)


def quantile(latency: Sequence[int], share: float) -> float:
    """Upper end, in seconds, of the bucket that holds this share of the calls; 0 without any."""
    wanted = share * sum(latency)
    seen = 0
    for number, count in enumerate(latency):
        seen += count
        if seen and seen >= wanted:
            return float(2**number) / 1e6
    return 0.0


def _report(usage: Usage, shape: _Shape) -> ShapeReport:
    return ShapeReport(
        projection=usage.projection,
        read=usage.read,
        table=usage.table,
        fixed=usage.fixed,
        filters=[
            FilterReport(
                column=column,
                operator=operator,
                distinct=distinct.count(),
                exact=distinct.is_exact,
            )
            for (column, operator), distinct in shape.distinct.items()
        ],
        order=usage.order,
        calls=shape.calls,
        cached=shape.cached,
        failed=shape.failed,
        rows=shape.rows,
        rows_max=shape.rows_max,
        seconds=round(shape.seconds, 6),
        seconds_max=round(shape.seconds_max, 6),
        seconds_p50=quantile(shape.latency, 0.5),
        seconds_p95=quantile(shape.latency, 0.95),
        seconds_p99=quantile(shape.latency, 0.99),
        latency=list(shape.latency),
        last=format_instant(shape.last),
    )
