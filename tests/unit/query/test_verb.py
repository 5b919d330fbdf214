"""``ultra query`` as a program: it serves, ends cleanly, and says what is wrong."""

import asyncio
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import msgspec
import pytest
import structlog
from tests.unit.domains.ledger.conftest import LedgerBench
from tests.unit.query.world import FileTables, small

from ultraengine.advice.recorder import Report
from ultraengine.cli.main import main


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """The verb configures the logging of its process, which here is that of all tests."""
    yield
    structlog.reset_defaults()


PROGRAM = [sys.executable, "-m", "ultraengine.cli.main", "query"]


async def test_it_serves_until_it_is_told_to_end(
    tmp_path: Path, bench: LedgerBench, tables: FileTables
) -> None:
    small(bench, "default")
    await tables.follow(bench)
    patterns = tmp_path / "patterns.json"
    arguments = ["--target", tables.url, "--port", "0", "--patterns", str(patterns)]
    process = await asyncio.create_subprocess_exec(
        *PROGRAM, *arguments, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    line = (await process.stderr.readline()).decode()
    url = line.removeprefix("ultra query: ").removesuffix("/docs\n")
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{url}/v1/sql/ledger/k/accounts/bob") as answer:
            assert (await answer.json())["balance"] == "0"
        async with session.get(f"{url}/healthz") as answer:
            assert answer.status == 200
    process.send_signal(signal.SIGTERM)
    await process.stderr.read()
    assert await process.wait() == 0
    assert msgspec.json.decode(patterns.read_bytes(), type=Report).calls == 1


async def test_a_target_in_a_file_is_read_and_everybody_is_answered_where_no_keys_are_asked(
    tmp_path: Path, bench: LedgerBench, tables: FileTables
) -> None:
    small(bench, "default")
    await tables.follow(bench)
    file = tmp_path / "url"
    file.write_text(f"{tables.url}\n")
    arguments = ["--target", f"@{file}", "--port", "0", "--keyless"]
    process = await asyncio.create_subprocess_exec(
        *PROGRAM, *arguments, stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
    )
    assert process.stderr is not None
    line = ""
    while not line.startswith("ultra query: "):
        line = (await process.stderr.readline()).decode()
    url = line.removeprefix("ultra query: ").removesuffix("/docs\n")
    # As a request that a proxy has forwarded, it does not count as one of this machine.
    headers = {"X-Forwarded-For": "192.0.2.7", "Host": "shop-query"}
    async with aiohttp.ClientSession(headers=headers) as session:
        async with session.get(f"{url}/v1/sql/ledger/k/accounts/bob") as answer:
            assert (await answer.json())["balance"] == "0"
        async with session.get(f"{url}/admin/v1/status") as answer:
            assert answer.status == 403
    process.send_signal(signal.SIGTERM)
    await process.stderr.read()
    assert await process.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--target", "@/nowhere/url"], "cannot read the target"),
        (["--target", "oracle://secret@x/y"], "begins with one of"),
        (["--target", "sqlite:///x", "--keys", "/nowhere/keys"], "cannot serve"),
        (["--target", "sqlite:///x", "--cursor-key", "SHORT"], "at least 16 bytes"),
        (["--target", "sqlite:///x", "--domain", "no.such:thing"], "no.such"),
        (["--target", "sqlite:///x", "--host", "192.0.2.1"], "cannot serve"),
    ],
)
def test_what_is_wrong_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], why: str
) -> None:
    short = tmp_path / "short"
    short.write_bytes(b"abc")
    given = [str(short) if text == "SHORT" else text for text in arguments]
    assert main(["query", *given]) == 2
    said = capsys.readouterr().err
    assert why in said
    assert "secret" not in said


def test_keys_and_none_are_not_asked_for_together(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["query", "--target", "sqlite:///x", "--keys", "/k", "--keyless"])
    assert caught.value.code == 2
    assert "not allowed with" in capsys.readouterr().err


def test_a_limit_that_is_none_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ULTRA_LIMIT_SQL_READS_MAX", "many")
    assert main(["query", "--target", "sqlite:///x"]) == 2
    assert "ULTRA_LIMIT_SQL_READS_MAX: 'many' is not an integer" in capsys.readouterr().err
