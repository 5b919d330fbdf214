"""Doors that are open before there is anything behind them: while a shard recovers.

    doors = EarlyDoors(listen_all(...), clock, say)
    doors.open()
    ...                                   # /healthz is answered; all else is 503, try again
    ...                                   # (NOT_LEADER by a copy: try another one)
    listeners = await doors.hand_over()   # for the gateway, which goes on with them
    ...
    await doors.close()                   # at the end of the process

A replay may take minutes.  A probe that finds no listener for so long takes the process for dead,
and a kill would only begin the replay anew.

Nobody is turned away at the handing over: new connections wait in the kernel's queue until the
gateway takes them, and whoever was let in before is still answered here, with 503.
"""

import asyncio
import socket
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from aiohttp.web import BaseRequest, StreamResponse

from ultraengine.edge.door import FIRST_BYTES_S, Door, Doorkeeper, listen
from ultraengine.edge.health import BEAT_S, Heartbeat
from ultraengine.edge.problems import problem_answer
from ultraengine.edge.routes import NO_STORE, to_response
from ultraengine.edge.server import Server
from ultraengine.model.errors import EngineError
from ultraengine.ports import Clock

CONNECTIONS_MAX: Final = 256
"""Open connections to each door; beyond it new ones wait in the kernel's queue."""
RETRY_AFTER_S: Final = 1.0


def listen_all(host: str, ports: Sequence[int]) -> list[socket.socket]:
    """One listening socket for each port, or none.  Raises OSError."""
    opened: list[socket.socket] = []
    try:
        opened.extend(listen(host, port) for port in ports)
    except OSError:
        for listener in opened:
            listener.close()
        raise
    return opened


class EarlyDoors:
    """Answers on the listeners of a process that starts.  Used on the event loop's thread."""

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        clock: Clock,
        say: Callable[[], str],
        *,
        code: str = "SHARD_UNAVAILABLE",
        retry_after_s: float = RETRY_AFTER_S,
    ) -> None:
        """`say`: what the process is doing, for who asks; `code`: what they are refused with."""
        self._code = code
        self._retry_after_s = retry_after_s
        self._listeners = list(listeners)
        self._clock = clock
        self._say = say
        self._loop = asyncio.get_running_loop()
        self._heartbeat = Heartbeat(clock.monotonic())
        self._server = Server(self._answer)
        self._keeper = Doorkeeper(
            [Door(one, self._take, self._has_room) for one in self._listeners],
            self._heartbeat,
            clock.monotonic,
        )
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Begin to answer."""
        self._keeper.start()
        self._beating = self._keep(self._beat())

    async def hand_over(self) -> list[socket.socket]:
        """Let nobody in any more; the listeners stay open and are the caller's."""
        await self._loop.run_in_executor(None, lambda: self._keeper.close(keep_listeners=True))
        self._keep(self._finish())
        return self._listeners

    async def _finish(self) -> None:
        """Answer those who were let in, for the time in which they have to say something."""
        await asyncio.sleep(FIRST_BYTES_S)
        self._server.pre_shutdown()
        await self._server.shutdown(timeout=1.0)
        self._beating.cancel()

    async def close(self) -> None:
        """Cut what is still open, after `hand_over`.  Idempotent."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._server.pre_shutdown()
        await self._server.shutdown(timeout=1.0)

    async def _answer(self, request: BaseRequest) -> StreamResponse:
        if request.path == "/healthz":
            answer = self._heartbeat.answer(self._clock.monotonic())
        else:
            error = EngineError(self._say(), code=self._code, retry_after_s=self._retry_after_s)
            answer = problem_answer(error, NO_STORE)
        return to_response(request, answer, close=True)

    def _has_room(self) -> bool:
        return self._server.open_count < CONNECTIONS_MAX

    def _take(self, connection: socket.socket) -> None:
        self._loop.call_soon_threadsafe(lambda: self._keep(self._connect(connection)))

    async def _connect(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._server, connection)
        except OSError:
            connection.close()

    def _keep(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            self._heartbeat.beat(self._clock.monotonic())
