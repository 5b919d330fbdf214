"""A proxy before a database that loses connections when a test wants it to."""

import asyncio
import contextlib
import enum
from collections.abc import AsyncIterator
from pathlib import Path

COMMIT = b"\x03COMMIT"
"""The command as the protocol has it."""


class Fault(enum.Enum):
    """What becomes of the next COMMIT."""

    NONE = "none"
    ANSWER_LOST = "the server commits, the client never hears of it"
    COMMAND_LOST = "the server never hears of it, and loses the client"
    CLIENT_LOST = "the client is lost, and the server goes on waiting for it"


class Proxy:
    """Forwards bytes between a socket of its own and the server's."""

    def __init__(self, server: Path, socket: Path) -> None:
        self.socket = socket
        self.fault = Fault.NONE
        self._server = server
        self._held: list[asyncio.StreamWriter] = []
        self._listener: asyncio.Server | None = None

    async def start(self) -> None:
        self._listener = await asyncio.start_unix_server(self._serve, str(self.socket))

    async def stop(self) -> None:
        assert self._listener is not None
        self._listener.close()
        for writer in self._held:
            writer.close()

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_unix_connection(str(self._server))
        back = asyncio.create_task(self._copy(server, to_client))
        fault = Fault.NONE
        with contextlib.suppress(OSError):
            while data := await client.read(1 << 16):
                fault, self.fault = (
                    (self.fault, Fault.NONE) if COMMIT in data else (Fault.NONE, self.fault)
                )
                if fault is Fault.ANSWER_LOST:
                    back.cancel()
                    await asyncio.gather(back, return_exceptions=True)
                    to_server.write(data)
                    await server.read(1 << 16)
                if fault is not Fault.NONE:
                    break
                to_server.write(data)
                await to_server.drain()
        back.cancel()
        await asyncio.gather(back, return_exceptions=True)
        to_client.close()
        if fault is Fault.CLIENT_LOST:
            self._held.append(to_server)
        else:
            to_server.close()

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 16):
                sink.write(data)
                await sink.drain()
        sink.close()


@contextlib.asynccontextmanager
async def proxied(server: Path, socket: Path) -> AsyncIterator[Proxy]:
    proxy = Proxy(server, socket)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
