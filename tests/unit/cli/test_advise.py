"""`ultra advise`: what it says, makes, lists, removes and refuses, as a script sees it."""

import asyncio
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.advice.worlds import BY_CODE, World, report
from tests.unit.cli.conftest import Ultra

from ultraengine.advice.driver import open_database
from ultraengine.advice.recorder import Usage
from ultraengine.cli.exits import Exit
from ultraengine.domains.ledger.tables import TRANSFER

QUICK = ("--limit", "rounds=1", "--limit", "examples=2", "--limit", "write_rows=100",
         "--limit", "write_cost_max=1000", "--limit", "time_gain_min=0")  # fmt: skip
COLUMNS = ["tenant", "book", "code", "booked_at", "transfer"]


@pytest.fixture
def target(tmp_path: Path) -> str:
    """A ledger that serves, with a slow shape."""
    url = f"sqlite:///{tmp_path}/tables.db"

    async def fill() -> None:
        world = World(url)
        await world.fill(6_000)
        await world.target.close()

    asyncio.run(fill())
    return url


@pytest.fixture
def patterns(tmp_path: Path) -> Path:
    """The report of a process that has answered slowly."""
    path = tmp_path / "patterns.json"
    turnover = Usage("ledger", "ledger.turnover", "")
    found = report(BY_CODE, turnover, seconds=0.1)
    path.write_bytes(msgspec.json.encode(found))
    return path


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    path = tmp_path / "slow.json"
    path.write_bytes(msgspec.json.encode(report(BY_CODE, seconds=0.1)))
    return path


def indexes(url: str) -> set[tuple[str, ...]]:
    async def look() -> set[tuple[str, ...]]:
        database = open_database(url)
        await database.open()
        (of,) = await database.sets()
        facts = await database.facts(of, TRANSFER)
        await database.close()
        return set(facts.indexes)

    return asyncio.run(look())


def test_a_person_sees_what_was_tried_and_what_it_brought(
    ultra: Ultra, target: str, patterns: Path
) -> None:
    before = indexes(target)
    code, said, progress = ultra("advise", patterns, "--target", target, "--plans", *QUICK)
    assert code == Exit.FINDINGS
    assert "tenant, book, code, booked_at, transfer  keep" in said
    assert "tried on 6,000 of about 6,000 rows; work in 100 instructions" in said
    assert "ledger.transfers by code in order of booked_at desc, transfer desc: 100 calls" in said
    assert "after:\n      SEARCH ledger_transfer__v3_b1 USING INDEX ultra_tried" in said
    assert "left out: ledger.turnover" in said
    assert "trying transfer (tenant, book, code, booked_at, transfer)" in progress
    assert indexes(target) == before


def test_a_program_gets_all_of_it(ultra: Ultra, target: str, slow: Path) -> None:
    code, said, _ = ultra("advise", slow, "--target", target, "-o", "json", *QUICK)
    (one,) = json.loads(said)["indexes"]
    assert (code, one["columns"], one["verdict"]) == (Exit.FINDINGS, COLUMNS, "keep")
    assert one["evidence"][0]["calls"] == 100
    assert one["shapes"][0]["used"] is True
    assert json.loads(said)["worth_making"] == [one["name"]]
    assert json.loads(said)["applied"] == []


def test_a_table_to_declare_is_shown_with_what_it_brought_on_a_copy(
    ultra: Ultra, target: str, tmp_path: Path
) -> None:
    path = tmp_path / "statements.json"
    statements = report(Usage("ledger", "ledger.statement", ""), seconds=0.1)
    path.write_bytes(msgspec.json.encode(statements))
    code, said, progress = ultra("advise", path, "--target", target, "--plans", *QUICK)
    assert code == Exit.FINDINGS
    assert "BOOK_ACCOUNT_DAY = Table(" in said
    assert "# tried: keep, " in said
    assert "#   6,000 rows become 30 in " in said
    assert "#     SEARCH ultra_special USING INDEX ultra_special_key" in said
    assert "trying sums of entry by tenant, book, account and day" in progress
    code, said, _ = ultra("advise", path, "--target", target, "-o", "json", *QUICK)
    (one,) = json.loads(said)["specialised"]
    assert (code, one["table"], one["trial"]["verdict"]) == (Exit.FINDINGS, "entry", "keep")
    assert (one["trial"]["copy_rows"], one["trial"]["rows"]) == (6_000, 30)
    assert one["trial"]["after"]["work"] < one["trial"]["before"]["work"]
    assert "special" not in one


def test_an_index_is_made_listed_and_removed(ultra: Ultra, target: str, slow: Path) -> None:
    code, said, _ = ultra(
        "advise", slow, "--target", target, "--apply", "--yes", "-o", "json", *QUICK
    )
    (made,) = json.loads(said)["applied"]
    assert (code, made["table"], made["columns"]) == (Exit.OK, "transfer", COLUMNS)
    assert tuple(COLUMNS) in indexes(target)
    code, said, _ = ultra("advise", "--list", "--target", target)
    assert code == Exit.OK
    assert f"{made['name']}  ledger      transfer" in said
    code, said, _ = ultra("advise", "--list", "--target", target, "-o", "json")
    assert json.loads(said)[0]["sets"] == ["v3_b1"]
    code, said, _ = ultra("advise", slow, "--target", target, *QUICK)
    assert (code, "an index serves it already" in said) == (Exit.OK, True)
    assert "nothing to improve" in said
    code, _, said = ultra("advise", "--remove", made["name"], "--target", target)
    assert (code, f"removed {made['name']}" in said) == (Exit.OK, True)
    assert tuple(COLUMNS) not in indexes(target)
    assert ultra("advise", "--remove", made["name"], "--target", target)[0] == Exit.USAGE
    code, said, _ = ultra("advise", "--list", "--target", target)
    assert (code, said) == (Exit.OK, "no index was added\n")


def test_one_that_is_missing_somewhere_is_a_finding_and_removed_as_json(
    ultra: Ultra, target: str, slow: Path, tmp_path: Path
) -> None:
    _, said, _ = ultra("advise", slow, "--target", target, "--policy", "auto", "-o", "json", *QUICK)
    name = json.loads(said)["applied"][0]["name"]
    asyncio.run(World(target).execute(f"DROP INDEX ledger_transfer__v3_b1_{name}"))
    code, said, _ = ultra("advise", "--list", "--target", target)
    assert (code, "v3_b1" in said) == (Exit.FINDINGS, True)
    code, said, _ = ultra("advise", "--remove", name, "--target", target, "-o", "json")
    assert json.loads(said)["removed"]["name"] == name


@pytest.mark.parametrize(("answer", "made"), [("y\n", True), ("\n", False), ("no\n", False)])
def test_a_person_is_asked_before(
    ultra: Ultra, target: str, slow: Path, monkeypatch: pytest.MonkeyPatch, answer: str, made: bool
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal(answer))
    code, _, said = ultra("advise", slow, "--target", target, "--apply", *QUICK)
    assert "Make 1 index? [y/N]" in said
    assert (tuple(COLUMNS) in indexes(target)) is made
    assert ("nothing was changed" in said) is not made
    assert code == (Exit.OK if made else Exit.FINDINGS)


def test_a_policy_makes_only_what_it_lets_through(
    ultra: Ultra, target: str, slow: Path, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("gain_min = 1000000.0\n")
    code, said, _ = ultra("advise", slow, "--target", target, "--policy", policy, *QUICK)
    assert (code, "held back" in said) == (Exit.OK, True)
    assert "is below gain_min (1e+06)" in said
    assert tuple(COLUMNS) not in indexes(target)
    policy.write_text("write_cost_max = 1000.0\n")
    code, _, said = ultra("advise", slow, "--target", target, "--policy", policy, *QUICK)
    assert (code, "made advised_" in said) == (Exit.OK, True)
    assert tuple(COLUMNS) in indexes(target)


class Patterns(BaseHTTPRequestHandler):
    """Answers as `ultra query` does, to those who have the key."""

    body = b""

    def do_GET(self) -> None:
        allowed = self.headers["Authorization"] == "Bearer secret"
        self.send_response(200 if allowed and self.path == "/admin/v1/patterns" else 403)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""


@pytest.fixture
def served(slow: Path) -> Iterator[str]:
    Patterns.body = slow.read_bytes()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Patterns)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_report_of_a_running_process_is_fetched_with_a_key(
    ultra: Ultra, target: str, served: str, tmp_path: Path
) -> None:
    key = tmp_path / "admin.key"
    key.write_text("secret\n")
    code, said, _ = ultra(
        "advise", "--query-url", served, "--key-file", key, "--target", target, *QUICK
    )
    assert (code, " keep " in said) == (Exit.FINDINGS, True)
    code, _, said = ultra("advise", "--query-url", served, "--target", target)
    assert (code, "refuses the report: 403" in said) == (Exit.REFUSED, True)
    code, _, said = ultra("advise", "--query-url", "http://127.0.0.1:1", "--target", target)
    assert (code, "no 'ultra query' answers" in said) == (Exit.UNREACHABLE, True)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--target", "lines:///x"), Exit.USAGE, "advice is for sqlite and postgresql"),
        (("--target", "@/no/file"), Exit.USAGE, "cannot read the target's URL"),
        (("--target", "TARGET"), Exit.USAGE, "name one report"),
        (("REPORT", "--query-url", "http://h", "--target", "TARGET"), Exit.USAGE, "one report"),
        (("--query-url", "ftp://h", "--target", "TARGET"), Exit.USAGE, "is no address"),
        (("--query-url", "http://h", "--key-file", "/no/key", "--target", "TARGET"), Exit.USAGE,
         "cannot read the API key"),
        (("/no/report", "--target", "TARGET"), Exit.USAGE, "cannot read the report"),
        (("WRONG", "--target", "TARGET"), Exit.USAGE, "no report of query patterns"),
        (("NEWER", "--target", "TARGET"), Exit.USAGE, "a report of version 9"),
        (("REPORT", "--target", "sqlite:///no/such/file.db"), Exit.REFUSED, "is not there"),
        (("REPORT", "--target", "TARGET", "--domain", "no.such:THING"), Exit.USAGE, "no.such"),
        (("REPORT", "--target", "TARGET", "--domain", "ultraengine.domains.counter:DOMAIN"),
         Exit.REFUSED, "serves no tables of these domains"),
        (("REPORT", "--target", "TARGET", "--apply"), Exit.USAGE, "no terminal to confirm on"),
        (("REPORT", "--target", "TARGET", "--policy", "/no/policy"), Exit.USAGE, "the policy"),
        (("REPORT", "--target", "TARGET", "--policy", "POLICY"), Exit.USAGE, "cannot be read"),
        (("REPORT", "--target", "TARGET", "--limit", "gain_min=-1", "--limit", "rounds=0",
          "--limit", "x=1", "--limit", "examples=y"), Exit.USAGE, "wrong limits"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_exit_code(
    ultra: Ultra, target: str, slow: Path, tmp_path: Path,
    arguments: tuple[str, ...], code: Exit, said: str, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("sys.stdin", io.StringIO())
    named = {"TARGET": target, "REPORT": str(slow)}
    for name, text in (
        ("WRONG", b'{"version": 1}'),
        ("NEWER", slow.read_bytes().replace(b'"version":1', b'"version":9')),
        ("POLICY", b"gain_min = 'a lot'"),
    ):
        (tmp_path / name).write_bytes(text)
        named[name] = str(tmp_path / name)
    ended, _, found = ultra("advise", *(named.get(one, one) for one in arguments))
    assert said in found
    assert ended == code


def test_a_declaration_to_paste_is_printed_and_is_a_finding(
    ultra: Ultra, target: str, tmp_path: Path
) -> None:
    path = tmp_path / "computed.json"
    path.write_bytes(msgspec.json.encode(report(Usage("ledger", "ledger.statement", ""), rows=1)))
    code, said, _ = ultra("advise", path, "--target", target)
    assert code == Exit.FINDINGS
    assert "ledger.statement: 100% of the time" in said
    assert "kind=TableKind.CURRENT" in said
