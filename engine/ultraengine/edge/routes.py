"""Routes of one listener, bounds of what a request may bring, and the frame around handlers.

A body is bounded before it is read; a compressed one is refused, because its size is not
known before it is unpacked.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import parse_qsl, unquote

import structlog
from aiohttp.web import BaseRequest, Response, StreamResponse

from ultraengine.edge.metrics import RequestMetrics
from ultraengine.edge.problems import Answer, Headers, problem_answer
from ultraengine.model.errors import EngineError, Malformed

BODY_READ_S: Final = 30.0
"""Longest time for a client to send its body; then 400 and the connection is closed."""
NO_STORE: Final[Headers] = (("Cache-Control", "no-store"),)
_log = structlog.get_logger("ultraengine.edge")

Endpoint = Callable[[BaseRequest, list[str]], Awaitable[Answer | StreamResponse]]
"""Called with the request and the decoded segments of the path below its prefix."""


class Route:
    """The methods of one path, under the name that metrics use."""

    __slots__ = ("methods", "name")

    def __init__(self, name: str, **methods: Endpoint) -> None:
        self.name = name
        self.methods = methods
        if "GET" in methods:
            self.methods.setdefault("HEAD", methods["GET"])


class Surface(dict[str, Route]):
    """Exact paths of one listener, and the prefixes it serves."""

    def __init__(self) -> None:
        super().__init__()
        self.prefixes: list[tuple[str, Route]] = []
        """(path prefix ending in '/', route), the longest first."""

    def prefix(self, path: str, route: Route) -> None:
        """Serve everything below `path`."""
        self.prefixes.append((path, route))
        self.prefixes.sort(key=lambda item: -len(item[0]))


def framed(
    surface: Surface,
    metrics: RequestMetrics,
    monotonic: Callable[[], float],
    admit: Callable[[], None],
    *,
    draining: Callable[[], bool],
) -> Callable[[BaseRequest], Awaitable[StreamResponse]]:
    """The one function that a listener calls for every request.

    `admit` raises when too much is being answered already.
    """

    async def handle(request: BaseRequest) -> StreamResponse:
        start = monotonic()
        name = "none"
        metrics.requests_in_flight += 1
        try:
            admit()
            route, segments = find(surface, request)
            name = route.name
            endpoint = route.methods.get(request.method)
            if endpoint is None:
                answer: Answer | StreamResponse = not_allowed(request.method, route)
            else:
                answer = await endpoint(request, segments)
        except EngineError as error:
            answer = problem_answer(error)
        except ConnectionError:
            raise
        except Exception as error:  # noqa: BLE001  (whatever it was, the client gets an answer)
            # The body of this answer must not say more than the kind of the failure.
            _log.exception("request.failed", route=name, method=request.method)
            answer = problem_answer(EngineError(f"the edge raised {type(error).__name__}"))
        finally:
            metrics.requests_in_flight -= 1
        if isinstance(answer, StreamResponse):
            metrics.request(name, answer.status, monotonic() - start)
            return answer
        metrics.request(name, answer.status, monotonic() - start)
        return to_response(request, answer, close=draining())

    return handle


def is_loopback_address(address: str) -> bool:
    """Whether an address is of this machine."""
    return address.startswith(("127.", "::1", "::ffff:127."))


def is_loopback(request: BaseRequest) -> bool:
    """Whether the peer is on this machine."""
    return is_loopback_address(request.remote or "")


async def read_body(request: BaseRequest, bytes_max: int, limit: str) -> bytes:
    """The body, bounded while it is read.

    Raises `EngineError` TOO_LARGE, or MALFORMED when it does not arrive.
    """
    length = request.content_length
    if length is not None and length > bytes_max:
        raise _too_large(f"{length} bytes are", limit, bytes_max)
    content = request.content
    if content.is_eof():
        # All of it is here already, in chunks of unknown sum.
        body = content.read_nowait()
        if len(body) > bytes_max:
            raise _too_large(f"{len(body)} bytes are", limit, bytes_max)
        return body
    if request.headers.get("Expect", "").lower() == "100-continue":
        # The client holds its body back until it is told that it will be read.
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_READ_S):
            while part := await content.readany():
                size += len(part)
                if size > bytes_max:
                    raise _too_large("the body is", limit, bytes_max)
                parts.append(part)
    except TimeoutError as error:
        raise Malformed(f"the body did not arrive within {BODY_READ_S:g} s") from error
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(what: str, limit: str, bytes_max: int) -> EngineError:
    return EngineError(f"{what} more than {limit} ({bytes_max})", code="TOO_LARGE")


def query_pairs(request: BaseRequest, known: set[str] | None) -> list[tuple[str, str]]:
    """The decoded query string.  Raises `Malformed` for unknown names when `known` is given."""
    query = request.raw_path.partition("?")[2].partition("#")[0]
    if not query:
        return []
    try:
        pairs = parse_qsl(
            query,
            keep_blank_values=True,
            strict_parsing=False,
            errors="strict",
            max_num_fields=64,
        )
    except ValueError as error:
        raise Malformed("the query string is not decodable", pointer="/query") from error
    if known is not None:
        names = [name for name, _ in pairs]
        if not set(names) <= known or len(set(names)) != len(names):
            raise Malformed(
                f"known parameters are {', '.join(sorted(known))}, each once", pointer="/query"
            )
    return pairs


def find(surface: Surface, request: BaseRequest) -> tuple[Route, list[str]]:
    """The route of a request.  Raises `EngineError` NOT_FOUND."""
    path = request.raw_path
    route = surface.get(path)
    if route is not None:
        return route, []
    if not path.startswith("/"):
        # The absolute form, as sent to proxies (RFC 9112 §3.2.2).
        path = request.rel_url.raw_path_qs
    path = path.partition("?")[0].partition("#")[0]
    route = surface.get(path)
    if route is not None:
        return route, []
    for prefix, route in surface.prefixes:
        if path.startswith(prefix):
            try:
                below = path[len(prefix) :].split("/")
                return route, [unquote(segment, errors="strict") for segment in below]
            except UnicodeDecodeError as error:
                raise Malformed("the path is not UTF-8", pointer="/path") from error
    raise EngineError("there is no such path", code="NOT_FOUND")


def not_allowed(method: str, route: Route) -> Answer:
    allowed = ", ".join(sorted(route.methods))
    error = EngineError(f"the path takes {allowed}, not {method[:30]}", code="METHOD_NOT_ALLOWED")
    return problem_answer(error, (("Allow", allowed),))


def to_response(request: BaseRequest, answer: Answer, *, close: bool) -> Response:
    """An answer on the wire."""
    headers: dict[str, str] = {"Content-Type": answer.content_type, "Server": "ultraengine"}
    headers.update(answer.headers)
    response = Response(body=answer.body, status=answer.status, headers=headers)
    if close or (answer.status >= 400 and not request.content.is_eof()):
        # A refused body is not read to its end: the connection cannot be used again.
        response.force_close()
    return response


def matches(header: str, tag: str) -> bool:
    """Whether ``If-None-Match`` names the tag (weak comparison, RFC 9110 §13.1.2)."""
    if header.strip() == "*":
        return True
    return any(item.strip().removeprefix("W/") == tag for item in header.split(","))
