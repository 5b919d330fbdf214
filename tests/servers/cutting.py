"""A proxy before PostgreSQL that loses the connection when a transaction is committed."""

import asyncio
import contextlib
import enum
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from tests.servers.postgres import PORT

COMMIT: Final = b"COMMIT;"
"""As asyncpg writes it: a simple query of its own."""


class Cut(enum.Enum):
    """What becomes of the COMMIT whose answer is never heard."""

    AFTER = "after the server has committed"
    BEFORE = "before the server has heard of it"
    HANGING = "never heard, and the server believes that its client is still there"


class CuttingProxy:
    """Listens in a directory of its own; cuts once when told to."""

    def __init__(self, server: Path) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="ultra-cut-", dir="/tmp"))
        self.next: Cut | None = None
        self.cuts = 0
        self._server = str(server / f".s.PGSQL.{PORT}")
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def _serve(self, client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        said, server = await asyncio.open_unix_connection(self._server)
        back = asyncio.create_task(self._pass_on(said, answer))
        self._writers += [answer, server]
        self._tasks.append(back)
        try:
            while data := await client.read(65_536):
                if self.next is None or COMMIT not in data:
                    server.write(data)
                    await server.drain()
                    continue
                how, self.next = self.next, None
                self.cuts += 1
                back.cancel()
                if how is Cut.AFTER:
                    server.write(data)
                    await said.readuntil(b"COMMIT\0")
                if how is Cut.HANGING:
                    return
                break
            server.close()
        finally:
            back.cancel()
            answer.close()

    async def _pass_on(self, said: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        while data := await said.read(65_536):
            answer.write(data)
            await answer.drain()
        answer.close()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator["CuttingProxy"]:
        """Until the end of the test."""
        path = str(self.directory / f".s.PGSQL.{PORT}")
        listener = await asyncio.start_unix_server(self._serve, path)
        try:
            yield self
        finally:
            listener.close()
            for writer in self._writers:
                writer.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(
                *self._tasks, *(one.wait_closed() for one in self._writers), return_exceptions=True
            )
            shutil.rmtree(self.directory)
