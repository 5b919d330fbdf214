"""The answer to a command or a batch, without the transport: headers and bytes in, answer out.

Both HTTP transports (`http.py` over aiohttp, `quick.py` of our own) call these, so that they
cannot differ in anything but speed.  Nothing here waits: what must wait for the engine is
returned as `Begun`, and finished once its ticket is complete or its time is over.

Header names are lower-case; `headers` may be any mapping that finds them so.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from ultraengine.edge.codec import Codec, answer_codec, body_codec
from ultraengine.edge.problems import Answer, Headers, reply_problem
from ultraengine.gateway.admission import admit, merge, unknown
from ultraengine.gateway.edge import Edge
from ultraengine.gateway.envelope import (
    ID_RANDOM_BYTES,
    Envelope,
    decode_batch,
    decode_one,
    forbid_single_headers,
    merge_headers,
    uuid7,
    wants_async,
)
from ultraengine.model.errors import EngineError
from ultraengine.model.reply import Reply
from ultraengine.model.trace import is_traceparent
from ultraengine.ports import Caller
from ultraengine.reply import compose
from ultraengine.reply.waiters import Ticket

_SINGLE_HEADERS: Final = frozenset({"idempotency-key", "if-match", "traceparent", "prefer"})


class Heading(dict[str, str]):
    """Headers of requests whose heads are the same, with what they say, read once for all."""

    __slots__ = ("bare", "codecs")

    def __init__(self, headers: Mapping[str, str]) -> None:
        super().__init__(headers)
        self.bare = _SINGLE_HEADERS.isdisjoint(headers)
        """Whether no header says anything about a single command."""
        self.codecs: tuple[Codec, Codec] | None = None
        """Of body and answer, once they are known to be fine."""


class Begun(NamedTuple):
    """A request whose commands are to be submitted."""

    admitted: Sequence[Any]
    """For the engine of the edge: `Admitted`, or what a front forwards."""
    finish: Callable[[Ticket], Answer]
    """The answer, from the ticket as it is then."""


class Commands:
    """The two ways in for commands over HTTP."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    def check(self, headers: Mapping[str, str]) -> tuple[Codec, Codec]:
        """What can be refused before the body is read; the codecs of body and answer.

        Raises `EngineError` DRAINING, UNSUPPORTED_MEDIA_TYPE, NOT_ACCEPTABLE.
        """
        self._edge.require_intake()
        known = headers.codecs if isinstance(headers, Heading) else None
        if known is not None:
            return known
        if headers.get("content-encoding", "identity").strip().lower() != "identity":
            raise EngineError(
                "a compressed body is not taken",
                code="UNSUPPORTED_MEDIA_TYPE",
                pointer="/header/content-encoding",
            )
        codec = body_codec(headers.get("content-type"))
        codecs = codec, answer_codec(headers.get("accept"), codec.name)
        if isinstance(headers, Heading):
            headers.codecs = codecs
        return codecs

    def refuse(
        self,
        caller: Caller,
        headers: Mapping[str, str],
        error: EngineError,
        name: str | None = None,
    ) -> Answer:
        """The answer for a single command that is not taken; its id as far as it is known."""
        known = name or headers.get("idempotency-key") or ""
        reply = compose.refused(known[:128], error)
        self._edge.count((reply,))
        return reply_problem(reply, self._quota(caller))

    def single(self, caller: Caller, headers: Mapping[str, str], body: bytes) -> Answer | Begun:
        """One command."""
        edge = self._edge
        bare = isinstance(headers, Heading) and headers.bare
        envelope: Envelope | None = None
        try:
            codec, out = self.check(headers)
            envelope = decode_one(body, codec.name)
            if not bare:
                merge_headers(envelope, headers)
            if envelope.id is None:
                random = edge.random.bytes(ID_RANDOM_BYTES)
                envelope.id = uuid7(edge.clock.now() // 1_000, random)
            edge.charge(caller, 1)
            admitted = self._admit(caller, envelope, codec, out)
        except EngineError as error:
            name = None if envelope is None else envelope.id
            return self.refuse(caller, headers, error, name)
        start = edge.clock.now()

        def finish(ticket: Ticket) -> Answer:
            reply = ticket.answers[0] or unknown(admitted)
            edge.count((reply,))
            edge.trace("command", start, admitted.command.traceparent, 1)
            more = (*_position(reply), *self._quota(caller))
            logged = reply.outcome in {"accepted", "rejected"}
            if not bare and logged and wants_async(headers):
                where = compose.outcome_location(admitted.command)
                return _accepted_async(reply, where, out, more)
            if reply.outcome == "accepted":
                return Answer(200, out.encode(reply), out.media_type, more)
            return reply_problem(reply, more)

        return Begun((admitted,), finish)

    def _admit(self, caller: Caller, envelope: Envelope, codec: Codec, out: Codec) -> Any:
        """What the engine is to be handed for one command.  Raises `EngineError`."""
        del out  # See `Edge.take_in`.
        return admit(self._edge.engine.registry, caller, envelope, codec.name)

    def batch(self, caller: Caller, headers: Mapping[str, str], body: bytes) -> Answer | Begun:
        """Many commands.  Raises `EngineError` for what refuses them all."""
        edge = self._edge
        codec, out = self.check(headers)
        forbid_single_headers(headers)
        parsed = decode_batch(body, codec.name, edge.limits)
        edge.charge(caller, len(parsed))
        parent = headers.get("traceparent")
        if parent is not None and not is_traceparent(parent):
            parent = None
        start = edge.clock.now()
        intake = edge.take_in(caller, parsed, codec.name, parent, out.name)

        def finish(ticket: Ticket) -> Answer:
            replies = merge(parsed, intake, ticket)
            edge.count(replies)
            edge.trace("batch", start, parent, len(parsed))
            return Answer(200, out.encode(replies), out.media_type, self._quota(caller))

        if not intake.admitted:
            return finish(Ticket(0, _nobody))
        return Begun(intake.admitted, finish)

    def _quota(self, caller: Caller) -> Headers:
        return self._edge.quotas.headers(caller.tenant, self._edge.clock.monotonic())


def _nobody(_ticket: Ticket) -> None:
    """Nobody waits for an empty ticket."""


def _position(reply: Reply) -> Headers:
    more: list[tuple[str, str]] = []
    if reply.epoch is not None and reply.offset is not None:
        more += [("Ultra-Epoch", str(reply.epoch)), ("Ultra-Offset", str(reply.offset))]
    if reply.duplicate:
        more.append(("Idempotent-Replayed", "true"))
    return tuple(more)


def _accepted_async(reply: Reply, location: str, out: Codec, more: Headers) -> Answer:
    """202: durable, and the outcome is there to be asked for."""
    body = {
        "id": reply.id,
        "location": location,
        "shard": reply.shard,
        "epoch": reply.epoch,
        "offset": reply.offset,
        "duplicate": reply.duplicate,
        "durable": reply.durable,
    }
    headers = (("Location", location), ("Preference-Applied", "respond-async"), *more)
    return Answer(202, out.encode(body), out.media_type, headers)
