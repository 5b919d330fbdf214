"""One connection to a shard, which carries one request at a time."""

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

import structlog

from ultraengine.model.errors import InvariantBroken
from ultraengine.router.retry import Failure, Place, TurnedAway, does_not_lead
from ultraengine.router.wire import Answered, AnswerReader, BadAnswer
from ultraengine.silence.driver import notice_silence

Ended = Answered | Failure | TurnedAway
_log = structlog.get_logger("ultraengine.router")


class Pool(Protocol):
    """All connections to the shard, as one of them sees it."""

    def release(self, connection: "Connection") -> None:
        """It is free."""

    def forget(self, connection: "Connection") -> None:
        """It is gone."""

    def leave(self, place: Place) -> None:
        """This address does not lead."""

    def go_by(self, place: Place) -> None:
        """Who leads has answered from this address."""


class Connection(asyncio.Protocol):
    """One connection to a shard."""

    __slots__ = ("_link", "_reader", "_task", "_transport", "place", "request", "since", "until")

    def __init__(self, link: Pool, place: Place) -> None:
        self._link = link
        self.place = place
        self.request = b""
        """What was sent last."""
        self.since = 0.0
        """When that was; loop time."""
        self._reader = AnswerReader()
        self._transport: asyncio.Transport | None = None
        self._task: Callable[[Ended], None] | None = None
        self.until = 0.0
        """When it is closed, unused or without an answer; loop time."""

    @property
    def is_asked(self) -> bool:
        """Whether an answer is waited for."""
        return self._task is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready."""
        self._transport = cast("asyncio.Transport", transport)
        notice_silence(transport.get_extra_info("socket"))

    def send(self, request: bytes, done: Callable[[Ended], None], until: float) -> None:
        """Send a request, and wait `until` then; `done` is called once."""
        if self._transport is None or self._task is not None:
            raise InvariantBroken("a connection carries one request at a time")
        self._task, self.until = done, until
        self.request, self.since = request, asyncio.get_running_loop().time()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Bytes of an answer."""
        try:
            answer = self._reader.feed(data)
            if answer is None:
                return
            if self._task is None:
                raise BadAnswer("an answer that nobody asked for")
        except BadAnswer as error:
            _log.error("hop.bad_answer", error=str(error))
            self.abort()
            return
        done, self._task = self._task, None
        if does_not_lead(answer.status, answer.body):
            # Kept, it would be used for what this copy turns away, and nobody would ask another.
            self.abort()
            self._link.leave(self.place)
            done(TurnedAway(self.place))
            return
        if answer.keep_alive:
            self._link.release(self)
        else:
            self.abort()
        self._link.go_by(self.place)
        done(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        """The shard is gone, or we closed."""
        del exc
        self._transport = None
        self._link.forget(self)
        done, self._task = self._task, None
        if done is not None:
            done(Failure.LOST)

    def abort(self) -> None:
        """Cut the connection; a request under way is lost."""
        if self._transport is not None:
            self._transport.abort()
