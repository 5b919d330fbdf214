"""`ultra projection` on a database, without an engine, and what `ultra project` refuses."""

import asyncio
import json
import socket
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import structlog
from tests.unit.cli.conftest import ULTRA, Ultra

from ultraengine.cli.exits import Exit
from ultraengine.domains.ledger import DOMAIN
from ultraengine.domains.ledger.tables import TABLES
from ultraengine.model.ids import NO_CHAIN, Epoch, Instant, Offset, ShardId
from ultraengine.projection.fold import Batch
from ultraengine.projection.sqlite.driver import SqliteTarget
from ultraengine.projection.target import START, Checkpoint, Moved, Parked, Request

NOW = Instant(1_767_225_600_000_000)
LEDGER = DOMAIN.projections[0]


def on(url: str, work: Callable[[SqliteTarget], Awaitable[object]]) -> object:
    async def run() -> object:
        target = SqliteTarget("test", url)
        await target.open()
        try:
            return await work(target)
        finally:
            await target.close()

    return asyncio.run(run())


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A database with a set that serves up to offset 7, and one that is being built."""
    url = f"sqlite:///{tmp_path}/sql.db"

    async def fill(target: SqliteTarget) -> None:
        of = await target.create(LEDGER, 1, NOW)
        after = Checkpoint(Offset(7), Epoch(1), NOW, NO_CHAIN)
        await target.write(of, LEDGER, Batch(LEDGER.tables), [Moved(ShardId(0), START, after)])
        await target.serve(of, LEDGER, NOW)
        await target.create(LEDGER, 2, NOW)

    on(url, fill)
    return url


def test_status_shows_each_set(ultra: Ultra, url: str) -> None:
    code, out, _ = ultra("projection", "status", "--target", url)
    assert code == Exit.OK
    lines = [line.split() for line in out.splitlines()]
    version = str(TABLES.version)
    assert lines[1] == ["ledger", version, "1", "serving", "0:7", "2026-01-01T00:00:00+00:00", "-"]
    assert lines[2] == ["ledger", version, "2", "building", "-", "-", "-"]


def test_status_is_json_for_programs(ultra: Ultra, url: str) -> None:
    code, out, _ = ultra("projection", "status", "ledger", "--target", url, "-o", "json")
    assert code == Exit.OK
    first, second = json.loads(out)["sets"]
    assert (first["offsets"], first["state"], first["lag_commands"]) == ({"0": 7}, "serving", None)
    assert (second["build"], second["written_up_to"]) == (2, None)


def test_what_the_target_logs_is_not_among_what_programs_read(
    ultra: Ultra, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ultra("projection", "status", "--target", url, "-o", "json")
    structlog.get_logger("projection").warning("projection.hook_failed", error="x")
    told = capsys.readouterr()
    assert "projection.hook_failed" in told.err
    assert not told.out


def test_what_is_parked_is_told_and_is_a_finding(ultra: Ultra, url: str) -> None:
    async def park(target: SqliteTarget) -> None:
        of = (await target.sets())[0]
        await target.park(of, Parked(ShardId(0), Offset(7), 2, "nobody knows", NOW))
        await target.pause(of, paused=True)

    on(url, park)
    code, out, err = ultra("projection", "status", "--target", url)
    assert code == Exit.FINDINGS
    assert "serving, paused, PARKED" in out
    assert "build 1 is parked at offset 7 of shard 0: nobody knows" in err


@pytest.mark.parametrize(
    ("arguments", "request_left"),
    [
        (["rebuild", "ledger"], Request.REBUILD),
        (["pause"], Request.PAUSE),
        (["pause", "--build"], Request.PAUSE_BUILD),
        (["resume"], Request.RESUME),
    ],
)
def test_a_request_is_left_for_the_worker(
    ultra: Ultra, url: str, arguments: list[str], request_left: Request
) -> None:
    code, out, err = ultra("projection", *arguments, "--target", url)
    assert (code, out) == (Exit.OK, "")
    assert f"asked: {request_left} ledger" in err
    assert on(url, lambda target: target.requests()) == [("ledger", request_left)]


def test_a_projection_that_is_not_there_is_named(ultra: Ultra, url: str) -> None:
    for verb in ("status", "rebuild"):
        code, _, err = ultra("projection", verb, "nothing", "--target", url)
        assert code == Exit.USAGE
        assert "no set of nothing" in err
    code, _, err = ultra("projection", "verify", "nothing", "--target", url)
    assert (code, "no domain declares the projection nothing" in err) == (Exit.USAGE, True)


def test_a_url_is_read_from_a_file_where_it_holds_a_password(
    ultra: Ultra, url: str, tmp_path: Path
) -> None:
    file = tmp_path / "target.url"
    file.write_text(f"{url}\n")
    assert ultra("projection", "status", "--target", f"@{file}")[0] == Exit.OK
    assert ultra("projection", "status", "--target", f"books=@{file}")[0] == Exit.OK
    code, _, err = ultra("projection", "status", "--target", f"@{tmp_path}/none")
    assert (code, "cannot read the target's URL" in err) == (Exit.USAGE, True)


def test_a_database_that_is_away_is_told_as_such(ultra: Ultra, tmp_path: Path) -> None:
    code, _, err = ultra("projection", "status", "--target", f"sqlite:///{tmp_path}/no/such.db")
    assert (code, "the database cannot be reached" in err) == (Exit.UNREACHABLE, True)


def test_a_worker_names_all_wrong_limits_at_once(ultra: Ultra, url: str) -> None:
    code, _, err = ultra(
        "project", "--target", url, "--limit", "speed=9", "--limit", "poll_s=soon",
        "--limit", "grace_s=-1", "--limit", "batch_rows_max=1.5",
    )  # fmt: skip
    assert code == Exit.USAGE
    for mistake in (
        "speed: no such limit",
        "poll_s=soon: not float",
        "grace_s=-1: not float of 0 or more",
        "batch_rows_max=1.5: not int",
    ):
        assert mistake in err


def test_a_worker_refuses_what_it_cannot_use(ultra: Ultra, url: str, tmp_path: Path) -> None:
    counter = "ultraengine.domains.counter:DOMAIN"
    for arguments, text in (
        (["--domain", counter], "declare no projections"),
        (["--target", url], "two targets are called sqlite"),
        (["--engine", "nowhere"], "no address"),
        (["--key-file", tmp_path / "none"], "cannot read the API key"),
        (["--extensions", "no.such:THING"], "extensions no.such:THING"),
    ):
        code, _, err = ultra("project", "--target", url, *arguments)
        assert (code, text in err) == (Exit.USAGE, True), err


def test_a_port_that_cannot_be_had_is_told(ultra: Ultra, url: str) -> None:
    code, _, err = ultra("project", "--target", url, "--port", "99999")
    assert (code, "99999 is no port" in err) == (Exit.USAGE, True)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        # A process of its own: it sets up logging for good.
        done = subprocess.run(
            [ULTRA, "project", "--target", url, "--port", port, "--engine", "http://127.0.0.1:9"],
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
    assert (done.returncode, f"cannot listen on 127.0.0.1:{port}" in done.stderr) == (2, True)
