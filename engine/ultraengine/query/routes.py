"""Paths below ``/v1/sql/{domain}/`` and the declared reads behind them."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from ultraengine.model.errors import InvariantBroken
from ultraengine.model.projection import Aggregate, Projection, Table
from ultraengine.model.reads import Computed, Read, check_reads, shape_of, tables_of

PREFIX: Final = "/v1/sql/"


class Route(NamedTuple):
    """One declared read."""

    domain: str
    projection: Projection
    read: Read | Computed
    segments: tuple[str, ...]
    tables: dict[str, Table]
    aggregates: dict[str, Aggregate]

    @property
    def name(self) -> str:
        """Its name in metrics and reports."""
        return f"{self.domain}.{self.read.name}"

    @property
    def path(self) -> str:
        """Its path in documents."""
        return f"{PREFIX}{self.domain}/{self.read.path}"


class Match(NamedTuple):
    """A route with the texts of its path parameters."""

    route: Route
    path: dict[str, str]


class SqlRoutes:
    """All reads of a process.  Raises `InvariantBroken` for wrong declarations."""

    def __init__(
        self, declared: Sequence[tuple[str, Projection, Sequence[Read | Computed]]]
    ) -> None:
        """`declared`: per projection the domain's name and the reads over it."""
        self._by_shape: dict[tuple[str, int], list[Route]] = {}
        names: set[str] = set()
        for domain, projection, reads in declared:
            check_reads(reads, projection)
            for read in reads:
                route = Route(
                    domain,
                    projection,
                    read,
                    tuple(read.path.split("/")),
                    tables_of(projection),
                    {one.table.name: one for one in projection.aggregates},
                )
                shape = f"{domain}/{shape_of(read.path)}"
                if {route.name, shape} & names:
                    raise InvariantBroken(
                        "reads of a domain have names and paths of their own", read=route.name
                    )
                names |= {route.name, shape}
                self._by_shape.setdefault((domain, len(route.segments)), []).append(route)
        for routes in self._by_shape.values():
            # Literal segments first: "a" sorts before a parameter in every position.
            routes.sort(key=lambda route: [segment.startswith("{") for segment in route.segments])

    @property
    def routes(self) -> list[Route]:
        """All routes, by domain and path."""
        every = (route for routes in self._by_shape.values() for route in routes)
        return sorted(every, key=lambda route: (route.domain, route.segments))

    @property
    def projections(self) -> list[Projection]:
        """The projections that are read, by name."""
        found = {route.projection.name: route.projection for route in self.routes}
        return [found[name] for name in sorted(found)]

    def find(self, domain: str, segments: Sequence[str]) -> Match | None:
        """The route of a decoded path below the domain; None when there is none."""
        for route in self._by_shape.get((domain, len(segments)), ()):
            values: dict[str, str] = {}
            for pattern, segment in zip(route.segments, segments, strict=True):
                if pattern.startswith("{"):
                    values[pattern[1:-1]] = segment
                elif pattern != segment:
                    break
            else:
                return Match(route, values)
        return None
