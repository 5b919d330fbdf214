"""A MariaDB that goes away, comes back, holds locks, and loses connections at the worst moment."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.servers.mariadb import (
    RELAXED,
    MariadbServer,
    Plain,
    connection,
    make_database,
    needed,
)
from tests.servers.serving import serving
from tests.unit.projection.mysql.proxy import Fault, Proxy, proxied
from tests.unit.projection.mysql.test_mysql_target import read

from ultraengine.model.ids import Instant
from ultraengine.projection.mysql.dialect import Flavor, MysqlDialect
from ultraengine.projection.mysql.driver import MysqlTarget
from ultraengine.projection.mysql.session.driver import ServerError, Session
from ultraengine.projection.mysql.statements import HELD
from ultraengine.projection.target import (
    ProjectionSet,
    RowRefused,
    SetState,
    TargetUnavailable,
    physical,
    view,
)
from ultraengine.testing.projection_sets import NOW, SHARD, at, batch_of, facts, moved
from ultraengine.testing.projection_tables import (
    DAY_TOTAL,
    FACT,
    GROWTH,
    KNOWN,
    PROBE,
    ProbeTables,
    fact,
)

COUNTED = msgspec.structs.replace(
    DAY_TOTAL, table=msgspec.structs.replace(DAY_TOTAL.table, name="counted", checks=())
)
"""A second aggregate, which balances nothing."""
KNOWN_ROW = ("put", "known", ("t", "contested"), None)


@contextlib.asynccontextmanager
async def opened(url: str, lock_wait_s: int = 30) -> AsyncIterator[MysqlTarget]:
    target = MysqlTarget("probe", url, lock_wait_s=lock_wait_s)
    await target.open()
    try:
        yield target
    finally:
        await target.close()


@contextlib.asynccontextmanager
async def contested(
    server: MariadbServer, database: str, of: ProjectionSet
) -> AsyncIterator[Plain]:
    """Somebody else is about to insert the row that `KNOWN_ROW` puts."""
    async with connection(server, database) as plain:
        await plain.run("START TRANSACTION")
        name = physical("probe", "known", of.suffix)
        await plain.run(f"INSERT INTO {name} VALUES ('t', 'contested')")
        yield plain


async def until_it_waits(
    server: MariadbServer, count: int = 1, task: "asyncio.Task[None] | None" = None
) -> None:
    """Until so many transactions wait for a lock, or the task is done."""
    waiting = "SELECT 1 FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"
    async with connection(server) as plain:
        while len(await plain.run(waiting)) < count and not (task and task.done()):
            # The server looks anew only when nobody has asked for a tenth of a second.
            await plain.run("SELECT SLEEP(0.15)")


async def held(server: MariadbServer, database: str, of: ProjectionSet) -> list[Any]:
    return sorted(await read(server, database, physical("probe", "fact", of.suffix), FACT))


def batch(number: int) -> Any:
    return batch_of(("append", "fact", fact(number), None), KNOWN_ROW)


async def test_a_server_killed_in_mid_batch_has_all_of_it_or_nothing(
    own_mariadb: MariadbServer,
) -> None:
    database = await make_database(own_mariadb)
    async with opened(own_mariadb.url(database)) as target:
        of = await target.create(PROBE, 1, NOW)
        await target.write(of, PROBE, facts(fact(1)), moved(0, 1))
        async with contested(own_mariadb, database, of):
            writing = asyncio.create_task(target.write(of, PROBE, batch(2), moved(1, 2)))
            await until_it_waits(own_mariadb)
            own_mariadb.kill()
            with pytest.raises(TargetUnavailable):
                await writing
        for _ in range(2):
            with pytest.raises(TargetUnavailable):
                await target.open()
        own_mariadb.start()
        await target.open()
        assert await target.positions(of) == {SHARD: at(1)}
        assert await held(own_mariadb, database, of) == [fact(1)]
        await target.write(of, PROBE, batch(2), moved(1, 2))
        own_mariadb.kill()
        own_mariadb.start()
        # Committed is durable: the session is new, the rows are the old ones.
        with pytest.raises(TargetUnavailable):
            await target.positions(of)
        assert await target.positions(of) == {SHARD: at(2)}
        assert await held(own_mariadb, database, of) == [fact(1), fact(2)]


@pytest.fixture
async def proxy(mariadb_server: MariadbServer, mariadb_database: str) -> AsyncIterator[Proxy]:
    socket = mariadb_server.directory / f"proxy-{mariadb_database}"
    async with proxied(mariadb_server.socket, socket) as proxy:
        yield proxy


@pytest.mark.parametrize(
    ("fault", "done"),
    [(Fault.ANSWER_LOST, True), (Fault.COMMAND_LOST, False), (Fault.CLIENT_LOST, False)],
)
async def test_after_a_connection_is_lost_at_commit_the_positions_say_what_was_done(
    mariadb_server: MariadbServer,
    mariadb_database: str,
    proxy: Proxy,
    fault: Fault,
    done: bool,
) -> None:
    url = f"mysql://root@/{mariadb_database}?socket={proxy.socket}"
    async with opened(url) as target:
        of = await target.create(PROBE, 1, NOW)
        proxy.fault = fault
        with pytest.raises(TargetUnavailable):
            await target.write(of, PROBE, batch(1), moved(0, 1))
        await target.close()
        await target.open()
        assert await target.positions(of) == ({SHARD: at(1)} if done else {})
        if not done:
            # The server may still have the lost connection and its locks: it is ended first.
            await target.write(of, PROBE, batch(1), moved(0, 1))
        assert await held(mariadb_server, mariadb_database, of) == [fact(1)]


async def test_a_lost_connection_that_the_server_still_has_is_ended_before_anything_is_read(
    mariadb_server: MariadbServer, mariadb_database: str, proxy: Proxy
) -> None:
    url = f"mysql://root@/{mariadb_database}?socket={proxy.socket}"
    count = (
        "SELECT COUNT(*) FROM information_schema.processlist"
        f" WHERE db = '{mariadb_database}' AND id <> CONNECTION_ID()"
    )
    async with opened(url) as target, connection(mariadb_server, mariadb_database) as plain:
        of = await target.create(PROBE, 1, NOW)
        proxy.fault = Fault.CLIENT_LOST
        with pytest.raises(TargetUnavailable):
            await target.write(of, PROBE, facts(fact(1)), moved(0, 1))
        assert await plain.run(count) == [(1,)]
        ((before,),) = await plain.run(count.replace("COUNT(*)", "id"))
        await target.open()
        assert await plain.run(count) == [(1,)]
        assert await plain.run(count.replace("COUNT(*)", "id")) != [(before,)]


async def test_a_row_that_another_holds_too_long_makes_the_target_unavailable(
    mariadb_server: MariadbServer, mariadb_database: str
) -> None:
    async with opened(mariadb_server.url(mariadb_database), lock_wait_s=1) as target:
        of = await target.create(PROBE, 1, NOW)
        async with contested(mariadb_server, mariadb_database, of) as other:
            with pytest.raises(TargetUnavailable, match="1205"):
                await target.write(of, PROBE, batch(1), moved(0, 1))
            await other.run("ROLLBACK")
        assert await target.positions(of) == {}
        await target.write(of, PROBE, batch(1), moved(0, 1))
        assert await held(mariadb_server, mariadb_database, of) == [fact(1)]


async def test_a_write_that_is_cancelled_leaves_nothing_and_the_target_usable(
    mariadb_server: MariadbServer, mariadb_database: str
) -> None:
    async with opened(mariadb_server.url(mariadb_database)) as target:
        of = await target.create(PROBE, 1, NOW)
        async with contested(mariadb_server, mariadb_database, of) as other:
            writing = asyncio.create_task(target.write(of, PROBE, batch(1), moved(0, 1)))
            await until_it_waits(mariadb_server)
            writing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await writing
            assert await target.positions(of) == {}
            await other.run("ROLLBACK")
        await target.write(of, PROBE, batch(1), moved(0, 1))
        assert await held(mariadb_server, mariadb_database, of) == [fact(1)]


async def test_a_password_that_is_refused_is_unavailable_and_not_told(
    mariadb_server: MariadbServer,
) -> None:
    target = MysqlTarget(
        "probe", f"mysql://nobody:s%C3%A9cret@/none?socket={mariadb_server.socket}"
    )
    with pytest.raises(TargetUnavailable, match="Access denied") as caught:
        await target.open()
    assert "cret" not in str(caught.value)


# --- views -----------------------------------------------------------------------------------


async def served(target: MysqlTarget, builds: int = 2) -> list[ProjectionSet]:
    """Sets that hold one row of their own each; the first serves."""
    sets = [await target.create(PROBE, build, NOW) for build in range(1, builds + 1)]
    for of in sets:
        row = ("put", "known", ("t", str(of.build)), None)
        each = batch_of(row, ("append", "fact", fact(of.build), None))
        await target.write(of, PROBE, each, moved(0, 1))
    await target.serve(sets[0], PROBE, NOW)
    return sets


async def test_a_swap_waits_for_a_reader_only_so_long_and_is_tried_again(
    mariadb_server: MariadbServer, mariadb_database: str
) -> None:
    async with opened(mariadb_server.url(mariadb_database), lock_wait_s=1) as target:
        _, second = await served(target)
        async with connection(mariadb_server, mariadb_database) as reader:
            await reader.run("START TRANSACTION")
            assert await reader.run("SELECT name FROM probe_known") == [("1",)]
            with pytest.raises(TargetUnavailable):
                await target.serve(second, PROBE, NOW)
            assert [of.state for of in await target.sets()] == [SetState.SERVING, SetState.BUILDING]
            assert await reader.run("SELECT name FROM probe_known") == [("1",)]
            await reader.run("COMMIT")
            await target.serve(second, PROBE, NOW)
            assert await reader.run("SELECT name FROM probe_known") == [("2",)]


class Refusing:
    """A server on which somebody always reads."""

    def __init__(self) -> None:
        self.tries = 0

    async def run(self, _statement: str) -> None:
        self.tries += 1
        raise ServerError(HELD, "Lock wait timeout exceeded")


async def test_a_rename_that_waits_by_itself_is_not_tried_again_and_again() -> None:
    target, tries = MysqlTarget("probe", "mysql://nobody@localhost/none", lock_wait_s=1), []
    for flavor in Flavor:
        server = Refusing()
        target._sql = MysqlDialect(flavor)
        with pytest.raises(ServerError):
            await target._swap(cast("Session", server), "RENAME TABLE a TO b")
        tries.append((flavor, server.tries))
    assert tries == [(Flavor.MARIADB, 200), (Flavor.MYSQL, 1)]


SWAPS = 60
"""One of four swaps that wait for a reader shows a joining reader the views of two sets."""


async def test_all_views_are_swapped_at_once_for_readers_of_several(
    mariadb_server: MariadbServer, mariadb_database: str
) -> None:
    """In one statement, and in one transaction, neither of which the server ends."""
    seen: dict[str, set[tuple[Any, ...]]] = {"statement": set(), "transaction": set()}
    done = False

    async def joins(reader: Plain) -> None:
        while not done:
            rows = await reader.run("SELECT k.name, f.n FROM probe_known k, probe_fact f")
            seen["statement"].update(rows)

    async def transactions(reader: Plain) -> None:
        while not done:
            await reader.run("START TRANSACTION")
            ((name,),) = await reader.run("SELECT name FROM probe_known")
            ((number,),) = await reader.run("SELECT n FROM probe_fact")
            await reader.run("COMMIT")
            seen["transaction"].add((name, number))

    async with (
        opened(mariadb_server.url(mariadb_database)) as target,
        connection(mariadb_server, mariadb_database) as first,
        connection(mariadb_server, mariadb_database) as second,
    ):
        sets = await served(target)
        reading = asyncio.gather(joins(first), transactions(second))
        swaps = 0
        while not reading.done() and (swaps < SWAPS or min(map(len, seen.values())) < 2):
            swaps += 1
            await target.serve(sets[swaps % 2], PROBE, Instant(NOW + swaps))
        done = True
        await reading
    assert seen == {kind: {("1", 1), ("2", 2)} for kind in seen}


async def test_a_crash_after_the_rename_leaves_what_the_next_start_puts_right(
    mariadb_server: MariadbServer, mariadb_database: str
) -> None:
    sql = MysqlDialect()
    async with (
        opened(mariadb_server.url(mariadb_database)) as target,
        connection(mariadb_server, mariadb_database) as plain,
    ):
        first, second = await served(target)
        prepared = sql.prepare_views(PROBE, second, Instant(NOW + 5))
        for statement in prepared.values():
            await plain.run(statement)
        await plain.run(sql.rename_views(prepared, list(prepared)))
        async with opened(mariadb_server.url(mariadb_database)) as again:
            states = [(of.state, of.changed_at) for of in await again.sets()]
            assert states == [(SetState.RETIRED, NOW + 5), (SetState.SERVING, NOW + 5)]
            await again.serve(first, PROBE, Instant(NOW + 6))
        views = await plain.run(
            "SELECT table_name FROM information_schema.views"
            f" WHERE table_schema = '{mariadb_database}'"
        )
        assert {name for (name,) in views} == set(prepared)
        assert await plain.run(f"SELECT name FROM {view('probe', KNOWN.name)}") == [("1",)]


async def test_sets_are_made_and_shown_by_one_worker_at_a_time(
    mariadb_server: MariadbServer, mariadb_database: str
) -> None:
    async with (
        opened(mariadb_server.url(mariadb_database), lock_wait_s=1) as target,
        connection(mariadb_server) as other,
    ):
        lock = f"MD5(CONCAT('{mariadb_database}', '.', 'sets'))"
        assert await other.run(f"SELECT GET_LOCK({lock}, 0)") == [(1,)]
        with pytest.raises(TargetUnavailable, match="another connection"):
            await target.create(PROBE, 1, NOW)
        await other.run(f"SELECT RELEASE_LOCK({lock})")
        await target.create(PROBE, 1, NOW)


async def test_a_text_that_is_no_unicode_is_refused(
    mariadb_server: MariadbServer, mariadb_database: str
) -> None:
    for options in ({}, {"bulk": "0"}):
        async with opened(mariadb_server.url(mariadb_database, **options)) as target:
            of = await target.create(PROBE, 1, NOW)
            with pytest.raises(RowRefused, match="no Unicode"):
                await target.write(of, PROBE, facts(fact(1, text="\ud800")), moved(0, 1))
            assert await target.positions(of) == {}


# --- encryption ------------------------------------------------------------------------------


def certificate(directory: Path) -> tuple[Path, Path]:
    """One that signs itself, for 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "database")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    pem, secret = directory / "cert.pem", directory / "key.pem"
    pem.write_bytes(made.public_bytes(Encoding.PEM))
    secret.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return pem, secret


async def test_a_connection_is_encrypted_and_its_server_proved_as_the_url_asks(
    tmp_path: Path,
) -> None:
    needed()
    pem, secret = certificate(tmp_path)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = MariadbServer(
        (*RELAXED, "--skip-networking=0", "--bind-address=127.0.0.1", f"--port={port}",
         f"--ssl-cert={pem}", f"--ssl-key={secret}")
    )  # fmt: skip
    with serving(server):
        database = await make_database(server)
        async with connection(server) as admin:
            await admin.run("CREATE USER tls@'127.0.0.1' IDENTIFIED BY 'geh\u00e4im' REQUIRE SSL")
            await admin.run(f"GRANT ALL ON {database}.* TO tls@'127.0.0.1'")
        url = f"mysql://tls:geh%C3%A4im@127.0.0.1:{port}/{database}"
        for options in ("?tls=required", f"?tls=verify&ca={pem}"):
            async with opened(url + options) as target:
                assert await target.sets() == []
        for options in ("", "?tls=verify"):
            with pytest.raises(TargetUnavailable):
                await MysqlTarget("probe", url + options).open()


async def test_a_late_row_touches_days_that_another_connection_is_summing_up(
    mariadb_server: MariadbServer, mariadb_database: str
) -> None:
    """As `ultra projection verify` does beside a worker."""
    tables = ProbeTables("carry", aggregates=(GROWTH, COUNTED))
    url = mariadb_server.url(mariadb_database)
    first, late = (
        batch_of(("put", "daily", ("t", name, day, paid, 0), None))
        for name, day, paid in (("a", 9, 7), ("b", 5, 3))
    )
    async with opened(url) as worker, opened(url) as other:
        of = await worker.create(tables, 1, NOW)
        await worker.write(of, tables, first, moved(0, 1))
        async with connection(mariadb_server, mariadb_database) as plain:
            # The row that the refresh puts into its second aggregate.
            await plain.run("START TRANSACTION")
            await plain.run("INSERT INTO carry_counted__v1_b1 VALUES ('t', '1970-01-10', 0, 0, 0)")
            refresh = asyncio.create_task(other.refresh(of, tables, 10))
            await until_it_waits(mariadb_server)
            write = asyncio.create_task(worker.write(of, tables, late, moved(1, 2)))
            await until_it_waits(mariadb_server, 2, write)
            await plain.run("ROLLBACK")
        await asyncio.gather(refresh, write)
        assert await worker.refresh(of, tables, 10) == 0
    rows = await read(mariadb_server, mariadb_database, "carry_growth__v1_b1", GROWTH.table)
    assert sorted(row[3] for row in rows) == [3, 10]
