"""Story: 69,659 real purchases are booked, and every cent is where it belongs.

Real processes: an engine that is killed with SIGKILL, and `ultra import`.  The books are
compared with sums over the file that share no code with the engine: plain reading and
`decimal.Decimal`.
"""

import random
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import msgspec
import pytest

ROOT = Path(__file__).parents[3]
ULTRA = Path(sys.executable).with_name("ultra")
MAPPING = ROOT / "examples" / "cdnow.toml"
START_TIMEOUT_S = 60.0
ROWS = 69_659
ZERO_ROWS = 80
CUSTOMERS = 23_570
TOTAL = Decimal("2500315.63")
KILLS = 10


class EngineProcess:
    """`ultra dev` on a directory of its own; may be killed and started again."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start and wait until it serves."""
        with (self.directory / "engine.log").open("ab") as output:
            self._process = subprocess.Popen(
                [
                    ULTRA,
                    "dev",
                    "--data",
                    self.directory / "data",
                    "--port",
                    str(self.port),
                    "--no-sql",  # Its worker confirms what it has written, and that is logged.
                ],
                stdout=output,
                stderr=output,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            assert self._process.poll() is None, (self.directory / "engine.log").read_text()
            try:
                self.get("/readyz")
            except (OSError, HTTPException):
                time.sleep(0.02)
            else:
                return
        raise AssertionError("the engine did not start")

    def kill(self) -> None:
        """kill -9: nothing of the process's own may help it."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(timeout=60)

    def get(self, path: str) -> Any:
        """A read over HTTP, without our client."""
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200:
                raise HTTPException(f"{path}: {answer.status} {body!r}")
            return msgspec.json.decode(body)

    def applied_end(self) -> int:
        """How many commands were executed."""
        return int(self.get("/admin/v1/status")["applied_end"])

    def ultra(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run `ultra VERB … --url` to its end."""
        return subprocess.run(
            [ULTRA, *map(str, arguments), "--url", self.url],
            cwd=self.directory,
            capture_output=True,
            text=True,
            check=False,
        )

    def start_import(self, file: Path) -> "subprocess.Popen[str]":
        """Start `ultra import` and do not wait for it."""
        return subprocess.Popen(
            [ULTRA, "import", file, "--map", MAPPING, "--url", self.url, "-o", "json"],
            cwd=self.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture(scope="session")
def purchases() -> Path:
    """The real table; fetched once, checked by its hash."""
    fetched = subprocess.run(
        [ROOT / "hack" / "cdnow.sh"], capture_output=True, text=True, check=False
    )
    assert fetched.returncode == 0, fetched.stderr
    return Path(fetched.stdout.strip())


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EngineProcess]:
    """A started engine; whatever is left of it is killed."""
    process = EngineProcess(tmp_path)
    process.start()
    yield process
    process.kill()


@pytest.fixture(scope="module")
def booked(tmp_path_factory: pytest.TempPathFactory, purchases: Path) -> Iterator[EngineProcess]:
    """An engine with all purchases in it, for tests that only read."""
    process = EngineProcess(tmp_path_factory.mktemp("booked"))
    process.start()
    result_of(process.start_import(purchases))
    yield process
    process.kill()


def sums_of(file: Path) -> dict[str, Decimal]:
    """What each customer paid, in dollars."""
    paid: dict[str, Decimal] = defaultdict(Decimal)
    for line in file.read_text().splitlines()[1:]:
        customer, _date, _cds, dollars = line.split()
        paid[customer] += Decimal(dollars)
    return dict(paid)


def accounts_of(engine: EngineProcess) -> dict[str, str]:
    """Balance of every account of the book, in cents, as the engine writes it."""
    found: dict[str, str] = {}
    cursor = ""
    while True:
        page = engine.get(f"/v1/ledger/cdnow/accounts?limit=1000{cursor}")
        found.update({account["id"]: account["balance"] for account in page["accounts"]})
        if page["next_cursor"] is None:
            return found
        cursor = f"&cursor={page['next_cursor']}"


def assert_booked(engine: EngineProcess, file: Path) -> None:
    """Every balance, and the book as a whole, equal the sums over the file."""
    paid = sums_of(file)
    assert len(paid) == CUSTOMERS
    assert sum(paid.values()) == TOTAL
    accounts = accounts_of(engine)
    assert Decimal(accounts.pop("shop")) / 100 == TOTAL
    assert {name: Decimal(balance) / -100 for name, balance in accounts.items()} == {
        f"customer-{customer}": dollars for customer, dollars in paid.items()
    }
    (asset,) = engine.get("/v1/ledger/cdnow/trial-balance")["assets"]
    assert asset["asset"] == "USD/2"
    assert Decimal(asset["debits"]) / 100 == Decimal(asset["credits"]) / 100 == TOTAL


def result_of(importing: "subprocess.Popen[str]") -> dict[str, Any]:
    """The counts that an import prints at its end."""
    out, err = importing.communicate(timeout=300)
    assert importing.returncode == 0, err
    counts: dict[str, Any] = msgspec.json.decode(out)
    return counts


def lines_of(directory: Path) -> list[dict[str, Any]]:
    """The report of rows that were not booked."""
    report = (directory / "cdnow-report.jsonl").read_bytes().splitlines()
    return [msgspec.json.decode(line) for line in report]


def test_every_purchase_is_booked_once_and_importing_again_changes_nothing(
    engine: EngineProcess, purchases: Path
) -> None:
    first = result_of(engine.start_import(purchases))
    assert (first["rows"], first["booked"], first["skipped"]) == (ROWS, ROWS - ZERO_ROWS, ZERO_ROWS)
    assert (first["already"], first["bad"], first["rejected"]) == (0, 0, 0)
    assert first["prepared"] == CUSTOMERS + 1
    assert_booked(engine, purchases)

    report = lines_of(engine.directory)
    assert len(report) == ZERO_ROWS
    assert {(row["kind"], row["reason"]) for row in report} == {("skipped", "zero dollars")}
    assert all(row["row"].endswith(" 0.00") for row in report)

    end = engine.applied_end()
    again = result_of(engine.start_import(purchases))
    assert (again["booked"], again["already"]) == (0, ROWS - ZERO_ROWS)
    assert engine.applied_end() == end, "importing again has logged something"
    assert_booked(engine, purchases)
    assert engine.stop() == 0


def test_repeated_rows_are_distinct_purchases(engine: EngineProcess, purchases: Path) -> None:
    # Lines 5 and 6 are equal but for their dates; 255 rows of the file repeat another exactly.
    seen: dict[str, int] = {}
    line, before = next(
        (number, seen[text])
        for number, text in enumerate(purchases.read_text().splitlines(), start=1)
        if seen.setdefault(text, number) != number
    )
    result_of(engine.start_import(purchases))
    one, two = (engine.get(f"/v1/ledger/cdnow/transfers/cdnow-{n}") for n in (before, line))
    assert one["id"] != two["id"]
    for member in ("from", "to", "amount", "effective_time"):
        assert one[member] == two[member]


def test_the_engine_killed_at_ten_random_moments_books_the_same(
    engine: EngineProcess, purchases: Path
) -> None:
    chance = random.Random(20261120)
    importing = engine.start_import(purchases)
    kills = 0
    while kills < KILLS and importing.poll() is None:
        # Wait for progress since the last start, then for a random moment after it.
        end = engine.applied_end()
        while importing.poll() is None and engine.applied_end() == end:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.1))
        engine.kill()
        kills += 1
        engine.start()
    assert kills == KILLS, "the import was through before all kills"
    counts = result_of(importing)
    assert counts["rows"] == ROWS
    assert counts["booked"] + counts["already"] == ROWS - ZERO_ROWS
    assert counts["bad"] == counts["rejected"] == 0
    assert_booked(engine, purchases)
    again = result_of(engine.start_import(purchases))
    assert again["booked"] == 0


def test_the_import_killed_and_started_again_goes_on_and_books_the_same(
    engine: EngineProcess, purchases: Path
) -> None:
    chance = random.Random(1997)
    for _ in range(3):
        importing = engine.start_import(purchases)
        end = engine.applied_end()
        while engine.applied_end() < end + 10:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.2))
        importing.kill()
        importing.communicate()
    assert (engine.directory / "cdnow-journal.json").exists()
    counts = result_of(engine.start_import(purchases))
    assert counts["rows"] == ROWS
    assert counts["skipped"] == len(lines_of(engine.directory)) == ZERO_ROWS
    assert not (engine.directory / "cdnow-journal.json").exists()
    assert_booked(engine, purchases)


@pytest.mark.parametrize("customer", ["00003", "14048"])
def test_a_statement_holds_each_purchase_with_its_running_balance(
    booked: EngineProcess, purchases: Path, customer: str
) -> None:
    bought = []
    for line, text in enumerate(purchases.read_text().splitlines(), start=1):
        name, date, _cds, dollars = text.split()
        if name == customer and Decimal(dollars):
            bought.append((date, line))
    printed = booked.ultra("get", f"ledger/cdnow/accounts/customer-{customer}/statement")
    assert printed.returncode == 0, printed.stderr
    print(printed.stdout)  # noqa: T201  (`pytest -s` shows the statements)
    statement = msgspec.json.decode(printed.stdout)
    entries = statement["entries"]
    assert statement["opening_balance"] == "0"
    assert [entry["transfer"] for entry in entries] == [
        f"cdnow-{line}" for _date, line in sorted(bought)
    ]
    balance = Decimal(0)
    for entry in entries:
        balance += Decimal(entry["amount"])
        assert Decimal(entry["balance"]) == balance
    assert Decimal(statement["closing_balance"]) == balance == -100 * sums_of(purchases)[customer]
