"""Connections between replicas: who is let in, what is renewed, and what too much comes to."""

import asyncio
import contextlib
import os
import resource
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Self

import pytest
import uvloop
from structlog.testing import capture_logs
from tests.servers.certificates import Authority
from tests.unit.replication.three import free_addresses, three, until

from ultraengine.log.frame import Keys
from ultraengine.model.ids import ShardId
from ultraengine.replication import driver as drivers
from ultraengine.replication import link as links
from ultraengine.replication import wire
from ultraengine.replication.installing.offer import Transfer
from ultraengine.replication.link import Certificates, Link, Listener
from ultraengine.replication.messages import Ask, Message
from ultraengine.replication.record import DiskId, Holder, ReplicaId, Seat
from ultraengine.replication.wire import Greeting, WireDamaged
from ultraengine.silence.driver import SILENT_S

GREETINGS = [
    Greeting(b"u" * 16, ShardId(0), Holder(Seat(ReplicaId(n), DiskId(bytes([n]) * 16)), 1))
    for n in range(2)
]


def anybody(_greeting: Greeting) -> None:
    """Lets everybody in."""


class Pair:
    """One that listens and one that dials it."""

    def __init__(
        self,
        *,
        listening: Path | None = None,
        dialling: Path | None = None,
        check: Callable[[Greeting], None] = anybody,
    ) -> None:
        (self.address,) = free_addresses(1)
        self.heard: list[Message | Transfer] = []
        self.room = asyncio.Event()
        self.room.set()
        self.listener = Listener(
            self.address, GREETINGS[0], check, _certificates(listening), Keys(), self._deliver
        )
        self.link = Link(self.address, GREETINGS[1], anybody, _certificates(dialling))

    async def _deliver(self, replica: ReplicaId, message: Message | Transfer) -> None:
        assert replica == 1
        await self.room.wait()
        self.heard.append(message)

    async def __aenter__(self) -> Self:
        await self.listener.start()
        self.running = asyncio.ensure_future(self.link.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)
        await self.listener.close()

    async def connected(self) -> None:
        await until(lambda: self.link.connected)


def _certificates(directory: Path | None) -> Certificates | None:
    return None if directory is None else Certificates(directory)


async def test_messages_arrive_in_order() -> None:
    async with Pair() as pair:
        await pair.connected()
        for number in range(100):
            pair.link.send(wire.encode_message(Ask(number)))
        await until(lambda: len(pair.heard) == 100)
        assert pair.heard == [Ask(number) for number in range(100)]


async def test_a_link_is_dialled_again_when_the_other_side_comes_back() -> None:
    async with Pair() as pair:
        await pair.connected()
        await pair.listener.close()
        await until(lambda: not pair.link.connected)
        pair.link.send(wire.encode_message(Ask(1)))
        assert pair.link.dropped == 1
        await pair.listener.start()
        await pair.connected()
        pair.link.send(wire.encode_message(Ask(2)))
        await until(lambda: pair.heard)
        assert pair.heard == [Ask(2)]


async def write_on(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"x")
        await asyncio.sleep(0)


def test_under_uvloop_a_link_outlives_a_connection_that_is_closed_below_it() -> None:
    async def story() -> None:
        async with Pair() as pair:
            await pair.connected()
            writer = pair.link._writer
            assert writer is not None
            writer.transport.abort()
            with pytest.raises(links.LOST):
                await write_on(writer)
            await until(lambda: pair.link._writer not in {None, writer})
            assert not pair.running.done()
            pair.link.send(wire.encode_message(Ask(2)))
            await until(lambda: Ask(2) in pair.heard)

    uvloop.run(story())


async def test_what_a_slow_replica_does_not_take_is_dropped_and_nothing_grows() -> None:
    async with Pair() as pair:
        await pair.connected()
        pair.room.clear()
        one = wire.encode_message(Ask(1)) + bytes(4 * 1024 * 1024)
        for _ in range(50):
            pair.link.send(one)
        assert pair.link.dropped > 0
        assert pair.link._queued_bytes <= links.QUEUE_BYTES_MAX


async def test_who_is_not_to_be_spoken_to_is_refused() -> None:
    def nobody(greeting: Greeting) -> None:
        raise WireDamaged(f"it is replica {greeting.me.seat.replica}")

    async with Pair(check=nobody) as pair:
        reader, writer = await asyncio.open_connection(*pair.address)
        writer.write(wire.encode_greeting(GREETINGS[1]))
        assert await reader.read() == b""
        writer.close()
        assert not pair.link.connected


@pytest.mark.parametrize("raw", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", bytes(64)])
async def test_other_bytes_end_a_connection_and_nothing_else(raw: bytes) -> None:
    async with Pair() as pair:
        await pair.connected()
        reader, writer = await asyncio.open_connection(*pair.address)
        writer.write(raw)
        assert await reader.read() == b""
        writer.close()
        pair.link.send(wire.encode_message(Ask(1)))
        await until(lambda: pair.heard)


async def test_both_sides_need_a_certificate_of_the_same_authority(tmp_path: Path) -> None:
    ours, theirs = Authority("ours"), Authority("theirs")
    mine, other = ours.write(tmp_path / "mine"), ours.write(tmp_path / "other")
    stranger = theirs.write(tmp_path / "stranger")
    async with Pair(listening=mine, dialling=other) as pair:
        await pair.connected()
        pair.link.send(wire.encode_message(Ask(1)))
        await until(lambda: pair.heard)
    for listening, dialling in ((mine, stranger), (stranger, mine), (mine, None), (None, mine)):
        async with Pair(listening=listening, dialling=dialling) as pair:
            for _ in range(3):
                with pytest.raises((OSError, EOFError, ValueError)):
                    async with asyncio.timeout(links.CONNECT_S):
                        await pair.link._connect()
            assert not pair.heard


async def test_replicas_go_on_with_certificates_of_a_new_authority(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drivers, "CERTIFICATES_S", 0.05)  # Looked at often, and mostly the same.
    place = Authority("first").write(tmp_path / "certificates")
    async with three(tmp_path, place) as made:
        leader = await made.leader()
        await made.in_sync(3)
        await made.commit(leader, b"first")
        Authority("second").write(place)
        connections = [
            link._writer for driver in made.drivers.values() for link in driver._links.values()
        ]

        def renewed() -> bool:
            now = [
                link._writer for driver in made.drivers.values() for link in driver._links.values()
            ]
            return not set(connections) & set(now) and None not in now

        await until(renewed)
        leader = await made.leader()
        await made.in_sync(3)
        await made.commit(leader, b"second")
        await made.equal()


def test_half_written_certificates_are_not_taken(tmp_path: Path) -> None:
    place = Authority("first").write(tmp_path / "certificates")
    certificates = Certificates(place)
    assert not certificates.changed()
    key = (place / "tls.key").read_bytes()
    (place / "tls.key").write_bytes(key[:20])
    assert not certificates.changed()
    (place / "tls.key").write_bytes(key)
    os.utime(place / "tls.key", ns=(1, 1))
    assert certificates.changed()
    assert not certificates.changed()


def who_trusts(ours: Path, shows: Path | None) -> ssl.SSLContext:
    """Of somebody who takes the listener's certificate, and shows this one or none."""
    context = ssl.create_default_context(cafile=str(ours / "ca.crt"))
    if shows is not None:
        context.load_cert_chain(shows / "tls.crt", shows / "tls.key")
    return context


async def answer_to(address: tuple[str, int], context: ssl.SSLContext) -> bytes:
    """What a listener says to a good greeting; nothing when it ends the connection."""
    try:
        async with asyncio.timeout(20):
            reader, writer = await asyncio.open_connection(*address, ssl=context)
            try:
                writer.write(wire.encode_greeting(GREETINGS[1]))
                return await reader.read(wire.HEAD_BYTES)
            finally:
                writer.transport.abort()
    except (ssl.SSLError, ConnectionError):
        return b""


async def test_a_listener_wants_a_certificate_of_its_own_authority(tmp_path: Path) -> None:
    ours, theirs = Authority("ours"), Authority("theirs")
    mine, other = ours.write(tmp_path / "mine"), ours.write(tmp_path / "other")
    stranger = theirs.write(tmp_path / "stranger")
    async with Pair(listening=mine, dialling=other) as pair:
        await pair.connected()
        assert await answer_to(pair.address, who_trusts(mine, other)), "else the test tells nothing"
        assert await answer_to(pair.address, who_trusts(mine, None)) == b""
        assert await answer_to(pair.address, who_trusts(mine, stranger)) == b""


async def test_a_certificate_of_another_address_is_not_the_replica_that_was_dialled(
    tmp_path: Path,
) -> None:
    ours = Authority("ours")
    elsewhere = ours.write(tmp_path / "elsewhere", address="127.0.0.2")
    mine = ours.write(tmp_path / "mine")
    async with Pair(listening=elsewhere, dialling=mine) as pair:
        with pytest.raises(ssl.SSLCertVerificationError, match=r"127\.0\.0\.1"):
            await pair.link._connect()
        assert not pair.link.connected


async def test_a_handshake_that_outlives_a_renewal_lets_nobody_in(tmp_path: Path) -> None:
    ours = Authority("ours")
    mine, other = ours.write(tmp_path / "mine"), ours.write(tmp_path / "other")
    async with Pair(listening=mine, dialling=other) as pair:
        await pair.connected()
        reader, writer = await asyncio.open_connection(*pair.address)
        await asyncio.sleep(0.1)  # It is accepted by now; if not, it is refused all the same.
        await pair.listener.renew()
        said = b""
        with contextlib.suppress(OSError, EOFError):
            await writer.start_tls(who_trusts(mine, other))
            writer.write(wire.encode_greeting(GREETINGS[1]))
            said = await reader.read(wire.HEAD_BYTES)
        writer.transport.abort()
        assert said == b""
        await pair.connected()


async def test_a_link_is_told_when_the_other_machine_vanishes() -> None:
    async with Pair() as pair:
        await pair.connected()
        assert pair.link._writer is not None
        connection = pair.link._writer.get_extra_info("socket")
        timeout = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        assert timeout == SILENT_S * 1_000
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


@pytest.mark.parametrize(
    ("kind", "frames", "body_bytes", "frames_bytes"),
    [(2, 0, 100, 0), (1, 0, 100, 4096), (1, 1, 100, 0), (1, 0, 1025, 0)],
)
async def test_nothing_is_read_behind_what_is_no_greeting(
    kind: int, frames: int, body_bytes: int, frames_bytes: int
) -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(
        wire._HEAD.pack(wire.MAGIC, wire.VERSION, kind, frames, body_bytes, frames_bytes, 0)
    )
    async with asyncio.timeout(20):
        with pytest.raises(WireDamaged, match="greeting"):
            await links.read_greeting(reader)


def test_who_cannot_listen_says_so_and_leaves_nothing_open() -> None:
    async def story() -> None:
        (address,) = free_addresses(1)
        with socket.create_server(address):
            listener = Listener(address, GREETINGS[0], anybody, None, Keys(), hears_nothing)
            for _ in range(2):
                with pytest.raises(OSError, match=r"in use"):
                    await listener.start()
            await listener.close()

    asyncio.run(story())


async def hears_nothing(_replica: ReplicaId, _message: Message | Transfer) -> None:
    """For listeners of which nothing is heard."""


async def test_without_a_descriptor_a_connection_waits_until_there_is_one() -> None:
    async with Pair() as pair:
        await pair.connected()
        caller = socket.create_connection(pair.address)  # Before anybody could accept it.
        free = os.dup(caller.fileno())
        os.close(free)
        allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        with capture_logs() as lines:
            resource.setrlimit(resource.RLIMIT_NOFILE, (free, most))
            try:
                await until(lambda: lines)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, most))
        assert lines[0]["event"] == "link.not_accepted"
        caller.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=caller)
        writer.write(wire.encode_greeting(GREETINGS[1]))
        assert await reader.read(wire.HEAD_BYTES)
        writer.close()


async def test_a_listener_that_is_closed_or_that_nobody_calls_accepts_nothing() -> None:
    async with Pair() as pair:
        await pair.connected()
        accepted = len(pair.listener._admitting)
        pair.listener._accept()
        assert len(pair.listener._admitting) == accepted
        await pair.listener.close()
        pair.listener._accept()
        pair.listener._accept_again()
        assert not pair.listener._admitting
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*pair.address)


async def test_more_connections_than_a_listener_has_room_for_are_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(links, "CONNECTIONS_MAX", 1)
    async with Pair() as pair:
        await pair.connected()
        reader, writer = await asyncio.open_connection(*pair.address)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
        pair.link.send(wire.encode_message(Ask(1)))
        await until(lambda: pair.heard)
