"""The asynchronous client: one method for a command, reads, outcomes.

    async with Client("http://127.0.0.1:8080") as client:
        reply = await client.send("ledger.create_transfers", key="book-1", data={...})

What it does on its own: makes ids (UUIDv7), gathers what is sent at the same time into
batches, sends again what may be sent again with the same id until the deadline, keeps the
order of the commands of one key, and reads what it has written.
"""

import asyncio
import random
import zlib
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Literal, Self, cast

import aiohttp
import msgspec

from ultraengine.client.addresses import Addresses
from ultraengine.client.backoff import Backoff
from ultraengine.client.errors import (
    ClientError,
    OutcomeUnknown,
    Refused,
    Rejected,
    Unreachable,
)
from ultraengine.client.http_sender import HttpSender, departure_trace
from ultraengine.client.ids import IdSource
from ultraengine.client.pending import NewCommand, Pending
from ultraengine.client.reads import Answer, Outcome, Seen, key_of, read_params, read_url
from ultraengine.client.sender import Sender, Settings, interrupted, unreachable
from ultraengine.client.stream_sender import StreamSender
from ultraengine.client.wire import Setback, encode_command, read_problem
from ultraengine.model.reply import Reply

DEFAULT_URL: Final = "http://127.0.0.1:8080"

SILENCE_S: Final = 5.0
"""With several addresses: a process that says nothing for so long may be stopped, and another one
leads by then. A command that waits for copies longer than this is sent again, and again."""

Transport = Literal["http", "stream"]


class Client:
    """A connection pool to one engine.  Use it as ``async with``, or call ``close``.

    `url`: the address of the engine or its gateway; several are those of copies of one shard, of
    which the client finds the one that answers, and finds it again when that changes.

    `transport`: ``http`` sends batches, one in flight per lane; ``stream`` keeps a WebSocket
    open and many commands unanswered on it, for many small commands at low latency.
    `lanes`: commands are spread over this many connections by key.
    `deadline_s`: how long one command or read may take with all its attempts; None = for ever.
    `unanswered_max`: commands taken and not yet answered; beyond it ``send`` waits.
    """

    def __init__(
        self,
        url: str | Sequence[str] = DEFAULT_URL,
        *,
        api_key: str | None = None,
        transport: Transport = "http",
        lanes: int = 2,
        deadline_s: float | None = 60.0,
        unanswered_max: int = 10_000,
        backoff: Backoff | None = None,
    ) -> None:
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        addresses = Addresses([url] if isinstance(url, str) else url)
        settings = Settings(addresses=addresses, headers=headers, backoff=backoff or Backoff())
        if addresses.several:
            settings = msgspec.structs.replace(settings, silence_s=SILENCE_S)
        self._settings = settings
        self._kind: type[Sender] = HttpSender if transport == "http" else StreamSender
        self._lane_count = lanes
        self._deadline_s = deadline_s
        self._room = asyncio.Semaphore(unanswered_max)
        self._ids = IdSource()
        self._seen = Seen()
        self._sequence = 0
        self._session: aiohttp.ClientSession | None = None
        self._senders: list[Sender] = []
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End all connections.  Unanswered commands raise an error with the code CLOSED."""
        self._closed = True
        for sender in self._senders:
            await sender.close()
        self._senders.clear()
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def send(
        self,
        type: str,
        *,
        key: str,
        data: Any,
        id: str | None = None,
        expected_version: int | None = None,
        issued_at: int | str | None = None,
        correlation_id: str | None = None,
        traceparent: str | None = None,
        deadline_s: float | None = None,
    ) -> Reply:
        """Send one command and return its reply once it is accepted.

        Raises `Rejected` when the domain said no, `Refused` when it was not taken,
        `Unreachable` when it could not be sent until the deadline, `OutcomeUnknown` when it was
        sent and not answered; ValueError for data that cannot be encoded.  All carry ``id``,
        so that the same intent can be sent again.
        """
        command = NewCommand(
            type=type,
            key=key,
            data=data,
            id=id or "",
            expected_version=expected_version,
            issued_at=issued_at,
            correlation_id=correlation_id,
            traceparent=traceparent,
        )
        reply = await (await self._submit(command, deadline_s))
        if reply.outcome == "rejected":
            error = reply.error
            raise Rejected(
                error.code if error else "REJECTED",
                error.detail if error else "",
                advice=error.advice if error else "",
                reply=reply,
                id=reply.id,
                key=key,
            )
        return reply

    async def send_all(
        self, commands: Iterable[NewCommand], *, deadline_s: float | None = None
    ) -> list[Reply]:
        """Send many commands and return their replies in the same order, whatever they say.

        A command that the domain rejected or the engine refused is a reply like any other.
        Raises `Unreachable` or `OutcomeUnknown` when the answer of any is not known, once
        there is nothing more to wait for.
        """
        futures = []
        try:
            for command in commands:
                futures.append(await self._submit(command, deadline_s))  # noqa: PERF401  (awaits)
            settled = await asyncio.gather(*futures, return_exceptions=True)
        except BaseException:
            for future in futures:
                future.cancel()
            raise
        replies = []
        for item in settled:
            if isinstance(item, Refused) and item.reply is not None:
                replies.append(item.reply)
            elif isinstance(item, BaseException):
                raise item
            else:
                replies.append(item)
        return replies

    async def get(
        self,
        path: str,
        params: Mapping[str, str | int | None] | None = None,
        *,
        min_offset: int | Literal["seen"] | None = "seen",
        read: Literal["leader", "confirm", "follower"] | None = None,
        deadline_s: float | None = None,
    ) -> Answer:
        """Read ``/v1/{path}``, for example ``ledger/book-1/accounts/alice``; a path with a slash
        in front is taken as it is (``/admin/v1/status``).

        `min_offset`: by default the offset of this client's last answered command of the same
        key; None does not wait.  Raises `Refused` (``NOT_FOUND``, …) or `Unreachable`.
        """
        if min_offset == "seen":
            key = key_of(path)
            min_offset = None if key is None else self._seen.offset(key)
        query = read_params(params, min_offset=min_offset, read=read)
        value, headers = await self._read(path, query, Any, deadline_s)
        etag = headers.get("ETag")
        return Answer(
            value=value,
            etag=None if etag is None else etag.removeprefix("W/").strip('"'),
            epoch=_number(headers.get("Ultra-Epoch")),
            offset=_number(headers.get("Ultra-Offset")),
        )

    async def outcome(
        self,
        *,
        id: str,
        key: str | None = None,
        deadline_s: float | None = None,
    ) -> Outcome:
        """What became of the command `id`; without `key` every slot is asked."""
        query = {} if key is None else {"key": key}
        found, _headers = await self._read(f"commands/{id}", query, Outcome, deadline_s)
        return cast("Outcome", found)

    async def operate(
        self,
        operation: str,
        body: Mapping[str, Any] | None = None,
        *,
        deadline_s: float | None = None,
    ) -> Any:
        """``POST /admin/v1/{operation}`` (``pause``, ``snapshot``, …), once; returns its answer.

        Raises `Refused`, `Unreachable`, or `OutcomeUnknown` when no answer came.
        """
        self._check_open()
        loop = asyncio.get_running_loop()
        limit = self._deadline_s if deadline_s is None else deadline_s
        url = f"{self._settings.addresses.url}/admin/v1/{operation}"
        headers = {**self._settings.headers, "Content-Type": "application/json"}
        end = None if limit is None else loop.time() + limit
        try:
            async with (
                asyncio.timeout_at(end),
                self._open_session().post(
                    url, data=msgspec.json.encode(body or {}), headers=headers
                ) as response,
            ):
                answer = await response.read()
                if response.status == 200:
                    return msgspec.json.decode(answer)
                setback = read_problem(response.status, answer, None)
                raise Refused(setback.error.code, setback.error.detail, advice=setback.error.advice)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise Unreachable("UNREACHABLE", str(error)) from error
        except (aiohttp.ClientError, OSError, TimeoutError, msgspec.MsgspecError) as error:
            raise OutcomeUnknown("OUTCOME_UNKNOWN", f"{type(error).__name__}: {error}") from error

    async def _submit(
        self, command: NewCommand, deadline_s: float | None
    ) -> "asyncio.Future[Reply]":
        """Queue a command; returns the future of its reply."""
        self._check_open()
        loop = asyncio.get_running_loop()
        if not command.id:
            command = msgspec.structs.replace(command, id=self._ids.next())
        encoded = encode_command(command)
        limit = self._deadline_s if deadline_s is None else deadline_s
        at = None if limit is None else loop.time() + limit
        await self._take_room(command, at)
        self._sequence += 1
        pending = Pending(
            sequence=self._sequence,
            id=command.id,
            key=command.key,
            encoded=encoded,
            future=loop.create_future(),
            deadline=at,
        )
        timer = None if at is None else loop.call_at(at, pending.give_up)

        def settled(future: asyncio.Future[Reply]) -> None:
            self._room.release()
            if timer is not None:
                timer.cancel()
            if not future.cancelled() and future.exception() is None:
                self._seen.note(command.key, future.result())

        pending.future.add_done_callback(settled)
        self._sender(command.key).add(pending)
        return pending.future

    async def _take_room(self, command: NewCommand, at: float | None) -> None:
        if not self._room.locked():
            await self._room.acquire()  # Does not wait: there is room and nobody before us.
            return
        try:
            async with asyncio.timeout_at(at):
                await self._room.acquire()
        except TimeoutError:
            raise Unreachable(
                "UNREACHABLE",
                "The command was not sent: earlier ones are still unanswered.",
                advice="Send fewer commands at once, or allow more time.",
                id=command.id,
                key=command.key,
            ) from None
        try:
            self._check_open()
        except ClientError:
            self._room.release()
            raise

    def _check_open(self) -> None:
        if self._closed:
            raise ClientError("CLOSED", "This client has been closed.")

    def _sender(self, key: str) -> Sender:
        if not self._senders:
            session = self._open_session()
            self._senders = [self._kind(session, self._settings) for _ in range(self._lane_count)]
        return self._senders[zlib.crc32(key.encode()) % self._lane_count]

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(
                    total=None,
                    sock_connect=self._settings.connect_timeout_s,
                    sock_read=self._settings.silence_s,
                ),
                trace_configs=[departure_trace()],
            )
        return self._session

    async def _read(
        self, path: str, query: Mapping[str, str], kind: Any, deadline_s: float | None
    ) -> tuple[Any, Mapping[str, str]]:
        """GET with attempts until the deadline; a read may always be repeated."""
        self._check_open()
        loop = asyncio.get_running_loop()
        limit = self._deadline_s if deadline_s is None else deadline_s
        end = None if limit is None else loop.time() + limit
        attempts = 0
        while True:
            base = self._settings.addresses.url
            answer = await self._get_once(read_url(base, path), query, kind, end)
            if not isinstance(answer, Setback):
                self._settings.addresses.work()
                return answer
            elsewhere = self._settings.addresses.failed(base, answer.error.code)
            attempts += not elsewhere
            wait = self._settings.backoff.delay_s(
                max(attempts, 1),
                random.random(),  # noqa: S311  (jitter, not a secret)
                None if elsewhere else answer.error.retry_after_s,
            )
            if not answer.retryable or (end is not None and loop.time() + wait >= end):
                kind = Refused if answer.status else Unreachable
                code = answer.error.code if answer.status else "UNREACHABLE"
                raise kind(code, answer.error.detail, advice=answer.error.advice)
            await asyncio.sleep(wait)

    async def _get_once(
        self, url: str, query: Mapping[str, str], kind: Any, end: float | None
    ) -> tuple[Any, Mapping[str, str]] | Setback:
        headers = {**self._settings.headers, "Accept": "application/json"}
        try:
            async with (
                asyncio.timeout_at(end),
                self._open_session().get(
                    url, params=query, headers=headers, allow_redirects=False
                ) as response,
            ):
                body = await response.read()
                if response.status in {200, 202}:
                    return msgspec.json.decode(body, type=kind), response.headers
                return read_problem(response.status, body, response.headers.get("Retry-After"))
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return unreachable(error)
        except (aiohttp.ClientError, OSError, TimeoutError, msgspec.MsgspecError) as error:
            return interrupted(error)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None
