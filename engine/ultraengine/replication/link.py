"""Connections between replicas: who dials, who listens, and what becomes of too much.

Each replica dials every other one and sends on what it has dialled; it reads on what it has
accepted.  Both sides greet first, so that nobody speaks to another engine's replica.  What does not
fit into a link's queue is dropped: the protocol sends frames again, from the log, once the other
side has said how far it is.  So a slow copy costs bounded memory here, and nothing else.
"""

import asyncio
import contextlib
import random
import socket
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import structlog

from ultraengine.log.frame import Keys
from ultraengine.replication import wire
from ultraengine.replication.installing.offer import Transfer
from ultraengine.replication.messages import Message
from ultraengine.replication.record import ReplicaId
from ultraengine.replication.wire import Greeting, WireDamaged
from ultraengine.silence.driver import notice_silence

QUEUE_BYTES_MAX: Final = 32 * 1024 * 1024
"""That wait for one replica; what comes then is dropped, unless nothing waits."""
CONNECT_S: Final = 2.0
"""For a connection, its handshake and both greetings."""
WRITE_S: Final = 5.0
"""A connection that takes nothing for so long is closed."""
SILENT_S: Final = 30.0
"""A connection on which nothing arrives for so long is closed; every replica asks often."""
RETRY_FIRST_S: Final = 0.05
RETRY_MAX_S: Final = 1.0
ACCEPT_AGAIN_S: Final = 0.1
LOST: Final = (OSError, EOFError, RuntimeError)
"""What a connection that has ended raises; the last, by uvloop, of one that is closed already."""
CONNECTIONS_MAX: Final = 64
"""Accepted ones, greeted or not."""
CERTIFICATES: Final = ("tls.crt", "tls.key", "ca.crt")

log = structlog.get_logger("replication")

Deliver = Callable[[ReplicaId, Message | Transfer], Awaitable[None]]
"""Takes a message of a replica; waits while there are too many."""
Check = Callable[[Greeting], None]
"""Raises `WireDamaged` for a replica that is not to be spoken to."""


class Certificates:
    """Certificate, key and CA of a directory, as they are now."""

    def __init__(self, directory: Path) -> None:
        self._files = [directory / name for name in CERTIFICATES]
        self._seen = self._stamps()

    def context(self, *, server: bool) -> ssl.SSLContext:
        """Both sides show a certificate of the same CA.  Raises OSError, `ssl.SSLError`."""
        certificate, key, authority = self._files
        purpose = ssl.Purpose.CLIENT_AUTH if server else ssl.Purpose.SERVER_AUTH
        context = ssl.create_default_context(purpose, cafile=str(authority))
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(certificate, key)
        return context

    def changed(self) -> bool:
        """Whether the files are others than at the last call, and make a whole."""
        found = self._stamps()
        if found == self._seen:
            return False
        try:
            self.context(server=True)
        except (OSError, ssl.SSLError) as error:
            log.warning("certificates.not_usable", why=str(error))
            return False  # Half replaced, perhaps: looked at again.
        self._seen = found
        return True

    def _stamps(self) -> list[tuple[int, int, int]]:
        found = []
        for path in self._files:
            with contextlib.suppress(OSError):
                stat = path.stat()
                found.append((stat.st_ino, stat.st_mtime_ns, stat.st_size))
        return found


async def read_greeting(reader: asyncio.StreamReader) -> Greeting:
    """The first of a connection.  Raises `WireDamaged`, OSError, EOFError."""
    head = wire.greeting_head(await reader.readexactly(wire.HEAD_BYTES))
    return wire.decode_greeting(head, await reader.readexactly(head.rest_bytes))


class Link:
    """To one replica: dialled, and dialled again, as long as it runs."""

    def __init__(
        self,
        address: tuple[str, int],
        greeting: Greeting,
        check: Check,
        certificates: Certificates | None,
    ) -> None:
        self._address = address
        self._greeting = wire.encode_greeting(greeting)
        self._check = check
        self._certificates = certificates
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._filled = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None
        self.dropped = 0
        """Messages that found no room, or nobody."""

    @property
    def connected(self) -> bool:
        """Whether messages are on their way."""
        return self._writer is not None

    def send(self, raw: bytes) -> None:
        """Let a message wait for its turn; it may not arrive."""
        too_many = self._queued_bytes + len(raw) > QUEUE_BYTES_MAX and self._queue
        if self._writer is None or too_many:
            self.dropped += 1
            return
        self._queue.append(raw)
        self._queued_bytes += len(raw)
        self._filled.set()

    def renew(self) -> None:
        """Dial again, with the certificates of now."""
        if self._writer is not None:
            self._writer.transport.abort()

    async def run(self) -> None:
        """Until it is cancelled."""
        wait_s = RETRY_FIRST_S
        while True:
            try:
                async with asyncio.timeout(CONNECT_S):
                    reader, writer = await self._connect()
            except (*LOST, ValueError) as error:
                log.debug("link.not_connected", to=self._address, why=str(error))
                await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311  (jitter)
                wait_s = min(2 * wait_s, RETRY_MAX_S)
                continue
            wait_s = RETRY_FIRST_S
            self._writer = writer
            log.info("link.connected", to=self._address)
            try:
                await self._write_all(reader, writer)
            except LOST as error:
                log.info("link.lost", to=self._address, why=str(error) or type(error).__name__)
            finally:
                self._writer = None
                self._queue.clear()
                self._queued_bytes = 0
                writer.transport.abort()
            await asyncio.sleep(RETRY_FIRST_S)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, port = self._address
        certificates = self._certificates
        context = None if certificates is None else certificates.context(server=False)
        reader, writer = await asyncio.open_connection(host, port, ssl=context)
        try:
            notice_silence(writer.get_extra_info("socket"))
            writer.write(self._greeting)
            self._check(await read_greeting(reader))
        except BaseException:
            writer.transport.abort()
            raise
        return reader, writer

    async def _write_all(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended = asyncio.ensure_future(reader.read(1))  # Nothing comes but the end.
        try:
            while not ended.done():
                while self._queue:
                    raw = self._queue.popleft()
                    self._queued_bytes -= len(raw)
                    writer.write(raw)
                    async with asyncio.timeout(WRITE_S):
                        await writer.drain()
                self._filled.clear()
                filled = asyncio.ensure_future(self._filled.wait())
                await asyncio.wait({ended, filled}, return_when=asyncio.FIRST_COMPLETED)
                filled.cancel()
            ended.result()
            raise EOFError("the other side has closed it")
        finally:
            ended.cancel()


class Listener:
    """Takes connections of other replicas and gives their messages to `deliver`."""

    def __init__(
        self,
        address: tuple[str, int],
        greeting: Greeting,
        check: Check,
        certificates: Certificates | None,
        keys: Keys,
        deliver: Deliver,
    ) -> None:
        self._address = address
        self._greeting = wire.encode_greeting(greeting)
        self._check = check
        self._certificates = certificates
        self._keys = keys
        self._deliver = deliver
        self._loop = asyncio.get_running_loop()
        self._listening: socket.socket | None = None
        self._admitting: set[asyncio.Task[None]] = set()
        """Connections in their handshake, or served."""
        self._accepted: set[socket.socket] = set()
        """Those whose task has not begun: ended before, it would not close them."""
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Listen.  Raises OSError, `ssl.SSLError`."""
        host, port = self._address
        found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, _, _, _, address = found[0]
        self._context = self._newest()
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.setblocking(False)  # noqa: FBT003  (the library's)
            listening.bind(address)
            listening.listen(CONNECTIONS_MAX)
        except OSError:
            listening.close()
            raise
        self._listening = listening
        self._loop.add_reader(listening, self._accept)

    def _newest(self) -> ssl.SSLContext | None:
        certificates = self._certificates
        return None if certificates is None else certificates.context(server=True)

    async def renew(self) -> None:
        """Admit by the certificates of now; who is connected, or soon, connects again."""
        self._context = self._newest()
        await self._end()

    async def close(self) -> None:
        """Listen no more, and end what was accepted, or is in the middle of a handshake."""
        if self._listening is not None:
            self._loop.remove_reader(self._listening)
            self._listening.close()
            self._listening = None
        await self._end()

    async def _end(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()
        ending = list(self._admitting)
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        for accepted in self._accepted:
            accepted.close()
        self._accepted.clear()

    def _accept(self) -> None:
        """Take one connection, not by a server or coroutine that hands it on by itself: between
        its accept and its handshake, it would belong to nobody who could end it."""
        listening = self._listening
        if listening is None:
            return
        try:
            accepted, _ = listening.accept()
        except BlockingIOError:
            return
        except OSError as error:
            # As when there are no more descriptors: others may be given back.
            log.warning("link.not_accepted", why=str(error))
            self._loop.remove_reader(listening)
            self._loop.call_later(ACCEPT_AGAIN_S, self._accept_again)
            return
        if len(self._admitting) >= CONNECTIONS_MAX:
            accepted.close()
            return
        accepted.setblocking(False)  # noqa: FBT003  (the library's)
        self._accepted.add(accepted)
        task = self._loop.create_task(self._admit(accepted))
        self._admitting.add(task)
        task.add_done_callback(self._admitting.discard)

    def _accept_again(self) -> None:
        if self._listening is not None:
            self._loop.add_reader(self._listening, self._accept)

    async def _admit(self, accepted: socket.socket) -> None:
        self._accepted.discard(accepted)
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            async with asyncio.timeout(CONNECT_S):
                transport, _ = await self._loop.connect_accepted_socket(
                    lambda: protocol, accepted, ssl=self._context
                )
        except LOST as error:
            accepted.close()
            log.debug("link.ended", peer=None, why=str(error))
            return
        except asyncio.CancelledError:
            accepted.close()
            raise
        await self._serve(reader, asyncio.StreamWriter(transport, protocol, reader, self._loop))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            async with asyncio.timeout(CONNECT_S):
                greeting = await read_greeting(reader)
                self._check(greeting)
                writer.write(self._greeting)
                await writer.drain()
            await self._read_all(greeting.me.seat.replica, reader)
        except WireDamaged as error:
            log.warning("link.refused", peer=writer.get_extra_info("peername"), why=str(error))
        except LOST as error:
            log.debug("link.ended", peer=writer.get_extra_info("peername"), why=str(error))
        finally:
            self._open.discard(writer)
            writer.transport.abort()

    async def _read_all(self, replica: ReplicaId, reader: asyncio.StreamReader) -> None:
        while True:
            async with asyncio.timeout(SILENT_S):
                head = wire.decode_head(await reader.readexactly(wire.HEAD_BYTES))
                rest = await reader.readexactly(head.rest_bytes)
            await self._deliver(replica, wire.decode_received(head, rest, self._keys))
