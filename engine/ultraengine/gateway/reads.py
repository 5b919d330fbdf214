"""Routes of ``GET /v1/{domain}/...``, compiled from the domains' `QuerySpec`s, and ETags.

A path is matched segment by segment; a literal segment wins over a parameter.  Path and
query parameters together make the spec's ``params`` struct; unknown or repeated ones are
errors, like unknown members of a body.
"""

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from ultraengine.gateway.engine import EngineStatus, ReadMode
from ultraengine.model.domain import Domain, QuerySpec
from ultraengine.model.errors import EngineError, InvariantBroken, Malformed
from ultraengine.model.ids import is_name
from ultraengine.model.limits import Limits
from ultraengine.model.pointer import split_place

KEY: Final = "key"
OFFSET_MAX: Final = 2**63 - 1
_READ_MODES: Final[dict[str, ReadMode]] = {
    "leader": "leader",
    "confirm": "confirm",
    "follower": "follower",
}
_RESERVED: Final = frozenset({"min_offset", "read"})
_DIGITS: Final = re.compile(r"[0-9]{1,19}")


class Route(NamedTuple):
    """One query of one domain."""

    domain: str
    spec: QuerySpec
    segments: tuple[str, ...]
    """Below the domain; a parameter is ``{name}``."""
    names: frozenset[str]
    """Names that may stand in the query string."""


class Match(NamedTuple):
    """A route with the values of its path parameters."""

    route: Route
    path: dict[str, str]


class ReadRequest(NamedTuple):
    """A checked read."""

    key: str
    params: Any
    min_offset: int | None
    read: ReadMode


def _field_names(params: type[msgspec.Struct]) -> frozenset[str]:
    return frozenset(field.encode_name for field in msgspec.structs.fields(params))


class ReadRoutes:
    """All reads of an engine.  Raises `InvariantBroken` for specs that contradict each other."""

    def __init__(self, domains: Sequence[Domain]) -> None:
        self._by_shape: dict[tuple[str, int], list[Route]] = {}
        for domain in domains:
            for spec in domain.queries:
                self._add(domain.name, spec)
        for routes in self._by_shape.values():
            # Literal segments first: "a" sorts before a parameter in every position.
            routes.sort(key=lambda route: [segment.startswith("{") for segment in route.segments])

    def _add(self, domain: str, spec: QuerySpec) -> None:
        segments = tuple(spec.path.split("/"))
        named = [segment[1:-1] for segment in segments if segment.startswith("{")]
        fields = _field_names(spec.params)
        if segments[0] != "{key}" or not set(named[1:]) <= fields or fields & _RESERVED:
            raise InvariantBroken(
                "a query path starts with {key} and its other parameters are in params",
                domain=domain,
                path=spec.path,
            )
        route = Route(domain, spec, segments, fields - set(named))
        self._by_shape.setdefault((domain, len(segments)), []).append(route)

    @property
    def routes(self) -> list[Route]:
        """All routes, by domain and path."""
        every = (route for routes in self._by_shape.values() for route in routes)
        return sorted(every, key=lambda route: (route.domain, route.segments))

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


def read_request(match: Match, query: Sequence[tuple[str, str]]) -> ReadRequest:
    """Check path and query parameters.  Raises `Malformed`, NOT_FOUND for an empty segment."""
    spec, values = match.route.spec, dict(match.path)
    key = values.pop(KEY)
    if "" in match.path.values():
        raise EngineError("a part of the path is empty", code="NOT_FOUND")
    if not is_name(key):
        raise Malformed("a key is 1-128 characters of A-Z a-z 0-9 . _ : -", pointer=f"/path/{KEY}")
    given: dict[str, str] = {}
    for name, value in query:
        if name in given:
            raise Malformed(f"the parameter {name!r} is there twice", pointer=f"/query/{name}")
        if name not in match.route.names and name not in _RESERVED:
            raise Malformed(
                f"unknown parameter {name[:60]!r}; known are "
                f"{', '.join(sorted(match.route.names | _RESERVED))}",
                pointer="/query",
            )
        given[name] = value
    min_offset = offset_parameter(given.pop("min_offset", None), "min_offset")
    read = _READ_MODES.get(given.pop("read", "leader"))
    if read is None:
        raise Malformed("read is one of leader, confirm, follower", pointer="/query/read")
    try:
        params = msgspec.convert({**given, **values}, spec.params, strict=False)
    except msgspec.ValidationError as error:
        detail, pointer = split_place(str(error))
        where = "path" if pointer[1:] in values else "query"
        raise Malformed(detail, pointer=f"/{where}{pointer}") from error
    return ReadRequest(key, params, min_offset, read)


def offset_parameter(text: str | None, name: str) -> int | None:
    """An offset in a query string.  Raises `Malformed`."""
    if text is None:
        return None
    if _DIGITS.fullmatch(text) is None or int(text) > OFFSET_MAX:
        raise Malformed(f"{name} is an offset, a whole number from 0", pointer=f"/query/{name}")
    return int(text)


def entity_tag(spec: QuerySpec, value: Any, epoch: int, offset: int) -> str:
    """The strong ETag of an answer.

    A spec with a version of its own gives that, so that it can be sent back in ``If-Match``.
    Else the position is the version: it changes at least whenever the answer does.
    """
    if spec.etag is not None:
        return f'"{spec.etag(value)}"'
    return f'"{epoch}.{offset}"'


def limits_answer(limits: Limits, status: EngineStatus) -> dict[str, Any]:
    """The body of ``GET /v1/limits``: every limit by name, and the dedupe floor."""
    return {**msgspec.structs.asdict(limits), "dedup_floor_time": status.dedup_floor_time}
