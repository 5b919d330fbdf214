"""The same client for programs without an event loop.

    with SyncClient() as client:
        client.send("ledger.create_transfers", key="book-1", data={...})

An event loop of its own runs in a daemon thread.  Methods may be called from several threads
at once; what they send at the same time leaves in common batches.
"""

import asyncio
import threading
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from ultraengine.client.backoff import Backoff
from ultraengine.client.client import DEFAULT_URL, Client, Transport
from ultraengine.client.errors import ClientError
from ultraengine.client.pending import NewCommand
from ultraengine.client.reads import Answer, Outcome
from ultraengine.model.reply import Reply

T = TypeVar("T")


class SyncClient:
    """`Client` with methods that block; the arguments and errors are the same."""

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
        self._client = Client(
            url,
            api_key=api_key,
            transport=transport,
            lanes=lanes,
            deadline_s=deadline_s,
            unanswered_max=unanswered_max,
            backoff=backoff,
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="ultraengine-client", daemon=True
        )
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all connections and the thread.  Idempotent."""
        if self._loop.is_closed():
            return
        self._run(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def send(
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
        """See `Client.send`."""
        return self._run(
            self._client.send(
                type,
                key=key,
                data=data,
                id=id,
                expected_version=expected_version,
                issued_at=issued_at,
                correlation_id=correlation_id,
                traceparent=traceparent,
                deadline_s=deadline_s,
            )
        )

    def send_all(
        self, commands: Iterable[NewCommand], *, deadline_s: float | None = None
    ) -> list[Reply]:
        """See `Client.send_all`."""
        return self._run(self._client.send_all(commands, deadline_s=deadline_s))

    def get(
        self,
        path: str,
        params: Mapping[str, str | int | None] | None = None,
        *,
        min_offset: int | Literal["seen"] | None = "seen",
        read: Literal["leader", "confirm", "follower"] | None = None,
        deadline_s: float | None = None,
    ) -> Answer:
        """See `Client.get`."""
        return self._run(
            self._client.get(path, params, min_offset=min_offset, read=read, deadline_s=deadline_s)
        )

    def outcome(
        self,
        *,
        id: str,
        key: str | None = None,
        deadline_s: float | None = None,
    ) -> Outcome:
        """See `Client.outcome`."""
        return self._run(self._client.outcome(id=id, key=key, deadline_s=deadline_s))

    def operate(
        self,
        operation: str,
        body: Mapping[str, Any] | None = None,
        *,
        deadline_s: float | None = None,
    ) -> Any:
        """See `Client.operate`."""
        return self._run(self._client.operate(operation, body, deadline_s=deadline_s))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        if self._loop.is_closed():
            work.close()
            raise ClientError("CLOSED", "This client has been closed.")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise
