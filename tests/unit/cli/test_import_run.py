"""Carrying out an import against a small ledger: what is booked, reported and resumed."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ultraengine.cli.importing.journal import Counts, Journal, read_journal, write_journal
from ultraengine.cli.importing.mapping import read_mapping
from ultraengine.cli.importing.plan import Part, Planned
from ultraengine.cli.importing.run import Job, Step, TooManyRejected, run_import
from ultraengine.cli.importing.verdict import judge
from ultraengine.client import NewCommand, Outcome, OutcomeUnknown, Reply
from ultraengine.model.reply import ReplyError

MAPPING = b"""
name = "till"
items_per_command = 3
[table]
columns = ["who", "paid"]
header_lines = 0
[[skip]]
value = "{paid}"
equals = "0"
reason = "nothing paid"
[[needs]]
type = "ledger.open_accounts"
key = "b1"
once = "{who}"
items = "accounts"
item = { id = "{who}" }
[row]
type = "ledger.create_transfers"
key = "b1"
items = "transfers"
item = { id = "t-{line}", from = "{who}", amount = "{paid}" }
"""


class SmallLedger:
    """Takes commands as the engine does: once per id, item by item, shapes refused whole."""

    def __init__(self) -> None:
        self.accounts: set[str] = set()
        self.transfers: dict[str, dict[str, str]] = {}
        self.sent: list[str] = []
        """Ids of all commands that came, repetitions too."""
        self.fail_after: int | None = None
        """Commands that are answered before the engine is gone."""
        self._done: dict[str, Reply] = {}

    def send_all(self, commands: Iterable[NewCommand]) -> list[Reply]:
        return [self._send(command) for command in commands]

    def outcome(self, *, id: str, key: str | None = None) -> Outcome:
        reply = self._done.get(id) if key == "b1" else None
        return Outcome(state="done" if reply else "unknown", reply=reply)

    def _send(self, command: NewCommand) -> Reply:
        if self.fail_after is not None and len(self.sent) >= self.fail_after:
            raise OutcomeUnknown("OUTCOME_UNKNOWN", "the engine is gone")
        self.sent.append(command.id)
        done = self._done.get(command.id)
        if done is not None:
            return msgspec.structs.replace(done, duplicate=True)
        name = "accounts" if command.type == "ledger.open_accounts" else "transfers"
        items = command.data[name]
        for index, item in enumerate(items):
            if not item.get("amount", "1").lstrip("-").isdecimal():
                error = ReplyError("MALFORMED", "no amount", f"/data/transfers/{index}/amount")
                return Reply(id=command.id, outcome="refused", error=error)
        results = [{"id": item["id"], "status": self._decide(name, item)} for item in items]
        failed = [one["status"] for one in results if one["status"] not in {"opened", "posted"}]
        accepted = len(failed) < len(results)
        reply = Reply(
            id=command.id,
            outcome="accepted" if accepted else "rejected",
            result={name: results},
            error=None if accepted else ReplyError(failed[0], "no"),
            offset=len(self._done),
        )
        self._done[command.id] = reply
        return reply

    def _decide(self, name: str, item: dict[str, str]) -> str:
        if name == "accounts":
            if item["id"] in self.accounts:
                return "exists"
            self.accounts.add(item["id"])
            return "opened"
        if item["from"] not in self.accounts:
            return "account_not_found"
        if item["amount"].startswith("-"):
            return "amount_not_positive"
        if item["id"] in self.transfers:
            return "exists"
        self.transfers[item["id"]] = item
        return "posted"


class Desk:
    """A directory with a file to import."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ledger = SmallLedger()
        self.steps: list[Step] = []

    def job(self, **changes: Any) -> Job:
        return Job(
            **{
                "file": self.directory / "till.csv",
                "mapping": read_mapping(MAPPING),
                "url": "http://engine",
                "report": self.directory / "report.jsonl",
                "journal": self.directory / "journal.json",
                "window_rows": 40,
                **changes,
            }
        )

    def write(self, *rows: str) -> None:
        (self.directory / "till.csv").write_text("".join(f"{row}\n" for row in rows))

    def run(self, **changes: Any) -> Counts:
        return run_import(self.ledger, self.job(**changes), self.steps.append)  # type: ignore[arg-type]  # the small ledger has the methods that are used

    def report(self) -> list[tuple[int, str, str]]:
        lines = (self.directory / "report.jsonl").read_bytes().splitlines()
        found = [msgspec.json.decode(line) for line in lines]
        return [(row["line"], row["kind"], row["reason"]) for row in found]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_rows_are_booked_and_everything_else_is_reported_in_order(desk: Desk) -> None:
    desk.write("al,100", "bo,0", "al,-5", "cy,1x", "al,200", "odd", "bo,300")
    counts = desk.run()
    assert set(desk.ledger.transfers) == {"t-1", "t-5", "t-7"}
    assert counts == Counts(rows=7, booked=3, skipped=1, bad=1, rejected=2, prepared=3)
    assert desk.report() == [
        (2, "skipped", "nothing paid"),
        (3, "rejected", "amount_not_positive"),
        (4, "rejected", "/data/transfers/2/amount: no amount"),
        (6, "bad", "1 columns instead of 2"),
    ]
    assert not (desk.directory / "journal.json").exists()
    assert desk.steps[-1].line == 7


def test_importing_again_changes_nothing(desk: Desk) -> None:
    desk.write("al,100", "bo,200", "al,0")
    desk.run()
    before = dict(desk.ledger.transfers)
    counts = desk.run()
    assert desk.ledger.transfers == before
    assert (counts.booked, counts.already, counts.skipped) == (0, 2, 1)
    assert len(desk.report()) == 1


def test_items_that_exist_under_another_command_are_booked_already(desk: Desk) -> None:
    desk.write("al,100", "bo,200")
    desk.run()
    desk.write("al,100", "bo,200", "cy,300")
    counts = desk.run()
    assert (counts.booked, counts.already, counts.rejected) == (1, 2, 0)


def test_an_interrupted_import_goes_on_behind_the_last_window(desk: Desk) -> None:
    rows = [f"al,{number}" for number in range(1, 82)]
    rows[10] = "bo,0"
    desk.write(*rows)
    desk.ledger.fail_after = 20
    with pytest.raises(OutcomeUnknown):
        desk.run()
    assert (desk.directory / "journal.json").exists()
    desk.ledger.fail_after = None
    sent = len(desk.ledger.sent)
    counts = desk.run()
    repeated = set(desk.ledger.sent[:sent]) & set(desk.ledger.sent[sent:])
    assert len(repeated) < 14, "windows that were through are not sent again"
    assert counts.rows == 81
    assert counts.booked + counts.already == 80
    assert desk.report() == [(11, "skipped", "nothing paid")]
    assert len(desk.ledger.transfers) == 80


def test_a_journal_is_not_believed_when_the_engine_does_not_know_its_last_command(
    desk: Desk,
) -> None:
    desk.write(*[f"al,{number}" for number in range(1, 82)])
    desk.ledger.fail_after = 20
    with pytest.raises(OutcomeUnknown):
        desk.run()
    desk.ledger = SmallLedger()
    counts = desk.run()
    assert counts.booked == len(desk.ledger.transfers) == 81


@pytest.mark.parametrize("change", [{"url": "http://other"}, {"attempt": 2}])
def test_a_journal_of_another_import_is_not_believed(desk: Desk, change: dict[str, Any]) -> None:
    desk.write(*[f"al,{number}" for number in range(1, 82)])
    desk.ledger.fail_after = 20
    with pytest.raises(OutcomeUnknown):
        desk.run()
    desk.ledger.fail_after = None
    sent = len(desk.ledger.sent)
    assert desk.run(**change).rows == 81
    assert len(desk.ledger.sent) - sent == 30


def test_a_higher_attempt_has_rejected_rows_decided_anew(desk: Desk) -> None:
    desk.write("al,-5", "al,7")
    assert desk.run().rejected == 1
    again = desk.run()
    assert (again.booked, again.already, again.rejected) == (0, 1, 1)
    first = set(desk.ledger.sent)
    desk.run(attempt=2)
    assert len(set(desk.ledger.sent) - first) == 2


def test_too_many_rejected_rows_stop_the_import(desk: Desk) -> None:
    desk.write(*["al,-5"] * 20)
    with pytest.raises(TooManyRejected, match="20 rows"):
        desk.run(rejected_max=10)
    assert len(desk.report()) == 20
    assert desk.run(rejected_max=0).rejected == 20


def test_a_journal_is_replaced_whole_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "journal.json"
    journal = Journal(source="s", windows=3, key="k", id="i", report_bytes=9, counts=Counts(rows=5))
    write_journal(path, journal)
    assert read_journal(path, "s") == journal
    assert read_journal(path, "other") is None
    path.write_bytes(b"{torn")
    assert read_journal(path, "s") is None
    assert read_journal(tmp_path / "none", "s") is None
    assert [child.name for child in tmp_path.iterdir()] == ["journal.json"]


def planned(items: str = "transfers", count: int = 2) -> Planned:
    parts = tuple(Part(line, f"row {line}", {"id": str(line)}) for line in range(1, count + 1))
    return Planned(id="c", type="a.b", key="k", items=items, base={}, parts=parts)


def test_a_command_without_items_is_judged_as_a_whole() -> None:
    command = planned(items="", count=1)
    accepted = Reply(id="c", outcome="accepted", result={"n": 1})
    assert judge(command, accepted, {"posted"}).booked == 1
    again = msgspec.structs.replace(accepted, duplicate=True)
    assert judge(command, again, {"posted"}).already == 1
    no = Reply(id="c", outcome="rejected", error=ReplyError("not_today", "closed"))
    (aside,) = judge(command, no, {"posted"}).aside
    assert (aside.line, aside.reason) == (1, "not_today: closed")


def test_a_rejection_without_items_sets_all_rows_aside() -> None:
    no = Reply(id="c", outcome="rejected", error=ReplyError("INTERNAL", "a handler failed"))
    verdict = judge(planned(), no, {"posted"})
    assert [row.line for row in verdict.aside] == [1, 2]


def test_a_refusal_that_is_about_no_item_sets_all_rows_aside() -> None:
    for pointer in ("", "/key", "/data/transfers/9/amount", "/data/transfers"):
        error = ReplyError("MALFORMED", "bad", pointer)
        verdict = judge(planned(), Reply(id="c", outcome="refused", error=error), {"posted"})
        assert len(verdict.aside) == 2, pointer
        assert verdict.malformed is None
    nothing = judge(planned(), Reply(id="c", outcome="refused"), {"posted"})
    assert {row.reason for row in nothing.aside} == {"refused"}


def test_a_result_of_another_length_is_not_matched_with_rows() -> None:
    short = Reply(id="c", outcome="accepted", result={"transfers": [{"status": "posted"}]})
    assert judge(planned(), short, {"posted"}).booked == 2


def test_the_detail_of_an_item_is_part_of_the_reason() -> None:
    items = [{"status": "posted"}, {"status": "exceeds_balance", "detail": "alice has 3"}]
    reply = Reply(id="c", outcome="accepted", result={"transfers": items})
    (aside,) = judge(planned(), reply, {"posted"}).aside
    assert aside.reason == "exceeds_balance: alice has 3"
