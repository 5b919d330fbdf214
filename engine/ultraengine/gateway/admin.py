"""The admin API, ``/admin/v1/...``: what a person may ask of a running engine.

Every call needs the scope ``admin`` and leaves one line in the audit log with who, what and
the outcome.  Operations that the engine does not offer are absent (404), here and in the
OpenAPI document.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final

import msgspec
import structlog
from aiohttp.web import BaseRequest

from ultraengine.edge.auth import require_admin
from ultraengine.edge.codec import JSON, answer_codec, body_codec
from ultraengine.edge.problems import Answer
from ultraengine.edge.routes import Route, Surface, is_loopback, read_body
from ultraengine.gateway.edge import Edge
from ultraengine.gateway.envelope import DECODE_ERRORS, malformed
from ultraengine.gateway.reads import limits_answer
from ultraengine.model.errors import EngineError
from ultraengine.ports import Caller

BODY_BYTES_MAX: Final = 64 * 1024
_audit = structlog.get_logger("ultraengine.audit")

OffsetText = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


def admin_caller(edge: Edge, request: BaseRequest) -> Caller:
    """Who asks for something that needs the scope ``admin``.  Raises `EngineError`; a caller
    without the scope is written down."""
    caller = edge.caller(request.headers, peer_is_loopback=is_loopback(request))
    try:
        require_admin(caller)
    except EngineError:
        _audit.warning(
            "admin.forbidden",
            path=request.raw_path[:200],
            tenant=caller.tenant,
            principal=caller.principal,
        )
        raise
    return caller


class Reason(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why somebody does this; kept in the audit log and shown in the status."""

    reason: Annotated[str, msgspec.Meta(max_length=500)] = ""


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No members."""


class Range(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A range of the log; ``to_offset`` excludes its end, null is the log's end."""

    from_offset: OffsetText = 0
    to_offset: OffsetText | None = None


class SkipRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The command whose effect is left out, and why; both are written to the log."""

    offset: OffsetText
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=500)]


class PromoteRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Number of the copy that is to lead, null for the best one, and why."""

    replica: Annotated[int, msgspec.Meta(ge=0, le=4095)] | None = None
    reason: Annotated[str, msgspec.Meta(max_length=500)] = ""


class Operation(msgspec.Struct, frozen=True):
    """One POST of the admin API."""

    name: str
    title: str
    summary: str
    body: type[msgspec.Struct]
    run: Callable[[Any], Awaitable[Any]]


class Done(msgspec.Struct, frozen=True):
    """What an operation came to."""

    operation: str
    result: Any
    status: Any
    """The engine's status afterwards."""


def _promotion(promote: Callable[[int | None, str], Awaitable[Any]]) -> Operation:
    return Operation(
        "promote",
        "Let another copy lead",
        "Take no more commands, finish those that were taken, and let a copy in sync lead the next "
        "epoch; ask the leader. Nothing changes when the copy does not get there in time "
        "(CANNOT_PROMOTE). When it leads, this process ends, and is to be started again.",
        PromoteRequest,
        lambda body: promote(body.replica, body.reason),
    )


def _operations(edge: Edge) -> list[Operation]:
    """What this engine offers."""
    found = edge.operations
    offered: list[Operation] = []
    pause, resume, drain = found.pause, found.resume, found.drain
    snapshot, validate, skip = found.snapshot, found.replay_validate, found.skip
    promote = found.promote
    if pause is not None:
        offered.append(
            Operation(
                "pause",
                "Pause",
                "Refuse new commands (PAUSED) until resume; reads go on.",
                Reason,
                lambda body: pause(body.reason),
            )
        )
    if resume is not None:
        offered.append(
            Operation(
                "resume", "Resume", "Take commands again after pause.", Nothing, lambda _: resume()
            )
        )
    if drain is not None:
        offered.append(
            Operation(
                "drain",
                "Drain",
                "Refuse new commands (DRAINING); returns when all accepted ones are answered "
                "and recorded.",
                Nothing,
                lambda _: drain(),
            )
        )
    if snapshot is not None:
        offered.append(
            Operation(
                "snapshot",
                "Snapshot now",
                "Take a snapshot now; returns when it is verified and durable.",
                Nothing,
                lambda _: snapshot(),
            )
        )
    if found.backup is not None:
        offered.append(_backup(found.backup))
    if validate is not None:
        offered.append(
            Operation(
                "replay-validate",
                "Validate by replay",
                "Decide a range of the log again with the code at hand and compare with the "
                "recorded outcomes; names the first difference.",
                Range,
                lambda body: validate(body.from_offset, body.to_offset),
            )
        )
    if promote is not None:
        offered.append(_promotion(promote))
    if skip is not None:
        offered.append(
            Operation(
                "skip",
                "Skip one command",
                "Log an override: recovery leaves out the effect of one command. For a shard "
                "that has halted at it, and with the data loss accepted.",
                SkipRequest,
                lambda body: skip(body.offset, body.reason),
            )
        )
    return offered


def _backup(backup: Callable[[], Awaitable[Any]]) -> Operation:
    return Operation(
        "backup",
        "Back up now",
        "Take a snapshot and copy it, the log and the history to the store of backups "
        "(ULTRA_BACKUP); returns when all of it was read back.",
        Nothing,
        lambda _: backup(),
    )


class Admin:
    """The handlers of the admin API."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self.offered = _operations(edge)

    def add_to(self, surface: Surface) -> None:
        """Serve the admin API."""
        surface["/admin/v1/status"] = Route("/admin/v1/status", GET=self._status)
        surface["/admin/v1/limits"] = Route("/admin/v1/limits", GET=self._limits)
        for operation in self.offered:
            path = f"/admin/v1/{operation.name}"
            surface[path] = Route(path, POST=self._endpoint(operation))

    async def _status(self, request: BaseRequest, _segments: list[str]) -> Answer:
        admin_caller(self._edge, request)
        out = answer_codec(request.headers.get("Accept"), "json")
        return Answer(200, out.encode(self._edge.engine.status()), out.media_type)

    async def _limits(self, request: BaseRequest, _segments: list[str]) -> Answer:
        admin_caller(self._edge, request)
        out = answer_codec(request.headers.get("Accept"), "json")
        body = limits_answer(self._edge.limits, self._edge.engine.status())
        return Answer(200, out.encode(body), out.media_type)

    def _endpoint(
        self, operation: Operation
    ) -> Callable[[BaseRequest, list[str]], Awaitable[Answer]]:
        decode = msgspec.json.Decoder(operation.body).decode
        decode_msgpack = msgspec.msgpack.Decoder(operation.body).decode

        async def run(request: BaseRequest, _segments: list[str]) -> Answer:
            caller = admin_caller(self._edge, request)
            raw = await read_body(request, BODY_BYTES_MAX, "the limit of admin bodies")
            if raw:
                codec = body_codec(request.headers.get("Content-Type"))
                read = decode if codec is JSON else decode_msgpack
            else:
                raw, read = b"{}", decode
            try:
                body = read(raw)
            except DECODE_ERRORS as error:
                raise malformed(error) from error
            facts = {
                "operation": operation.name,
                "tenant": caller.tenant,
                "principal": caller.principal,
                "key_prefix": getattr(caller, "key_prefix", ""),
                **msgspec.structs.asdict(body),
            }
            try:
                result = await operation.run(body)
            except EngineError as error:
                _audit.warning("admin.refused", code=error.code, detail=error.detail, **facts)
                raise
            _audit.info("admin.done", **facts)
            done = Done(operation.name, result, self._edge.engine.status())
            return Answer(200, JSON.encode(done), JSON.media_type)

        return run
