"""What SQL says is what the engine says, after the same commands."""

import random
from typing import Any

import pytest
from tests.unit.domains.ledger.conftest import SECOND, LedgerBench
from tests.unit.query.world import Asking, Tables

from ultraengine.model.errors import EngineError
from ultraengine.model.ids import Instant
from ultraengine.model.instant import format_instant
from ultraengine.testing.memory import START

DAY = 86_400 * SECOND
HUGE = 10**37


def live(bench: LedgerBench, seed: int) -> None:
    """A short life: transfers of every kind in two assets, some late, some huge, some held."""
    chance = random.Random(seed)
    accounts = ["bank", "a.1", "a.2", "b", "c"]
    bench.open("bank", min_balance=None)
    bench.open(*accounts[1:])
    bench.open("deep", "deeper", min_balance=None, asset="XAU/9")
    bench.open("other", key="k2")
    now = int(START)
    held: list[str] = []
    posted: list[str] = []
    for number in range(60):
        now += chance.choice([SECOND, 3_600 * SECOND, DAY // 2])
        name = f"t{number}"
        source, target = chance.sample(accounts, 2)
        if number % 4 == 0:
            source, target = "bank", chance.choice(accounts[1:])
        more: dict[str, Any] = {}
        if chance.random() < 0.4:
            more["effective_time"] = format_instant(Instant(now - chance.randrange(5 * DAY)))
        if chance.random() < 0.3:
            more["code"] = chance.choice([7, "fee"])
            more["reference"] = f"INV-{number % 3}'; DROP TABLE x"
        pending = chance.random() < 0.25
        if pending:
            more["pending_timeout_s"] = chance.choice([60, 10_000_000])
        status = bench.move(name, source, target, chance.randrange(1, 500), at=now, **more)
        if status == "pending":
            held.append(name)
        elif status == "posted":
            posted.append(name)
        if held and chance.random() < 0.3:
            item = held.pop(chance.randrange(len(held)))
            verb = chance.choice(["post_transfers", "void_transfers"])
            bench.one(verb, at=now + 1, id=item)
        if posted and chance.random() < 0.1:
            item = posted.pop()
            bench.one("reverse_transfers", at=now + 1, id=f"r{number}", reverses=item)
        if chance.random() < 0.2:
            bench.tick(now + 2)
    for number in range(12):
        assert bench.move(f"h{number}", "deep", "deeper", HUGE // 2, at=now + 3) == "posted"
    bench.verify()


def as_text(value: Any) -> Any:
    """Codes are text in the tables, whatever the caller wrote."""
    return None if value is None else str(value)


def moments(bench: LedgerBench) -> list[int]:
    """Times around everything that happened."""
    times = sorted({int(time) for _, _, time in bench.log})
    picked = times[:: max(1, len(times) // 6)]
    around = [int(START) - DAY, *picked, *(time + 1 for time in picked[-3:]), times[-1] + 9 * DAY]
    return sorted(set(around))


@pytest.mark.parametrize("seed", range(3))
async def test_accounts_are_those_in_memory(
    bench: LedgerBench, every: Tables, get: Asking, seed: int
) -> None:
    live(bench, seed)
    await every.follow(bench)
    listed = await get.all("k/accounts", limit="2")
    wanted = {view.id: view for view in bench.get("accounts", limit="1000").accounts}
    assert [row["account"] for row in listed] == sorted(wanted)
    for row in listed:
        view = wanted[row["account"]]
        assert row["balance"] == view.balance
        assert row["pending_in"] == view.pending_in
        assert row["pending_out"] == view.pending_out
        assert row["min_balance"] == view.min_balance
        assert (row["asset"], row["closed"], row["version"]) == (
            view.asset,
            view.closed,
            view.version,
        )
        assert await get(f"k/accounts/{view.id}") == row


@pytest.mark.parametrize("seed", range(3))
async def test_entries_are_those_in_memory(
    bench: LedgerBench, every: Tables, get: Asking, seed: int
) -> None:
    live(bench, seed)
    await every.follow(bench)
    for account in ("bank", "a.1", "deeper"):
        wanted = bench.get("accounts/{id}/entries", id=account, limit="1000").entries
        found = await get.all(f"k/accounts/{account}/entries", limit="7")
        assert [
            (row["transfer"], row["version"], row["amount"], row["balance"], row["counterparty"],
             row["booked_at"], row["effective_at"], row["log_offset"])
            for row in found
        ] == [
            (one.transfer, one.version, one.amount, one.balance, one.counterparty, one.time,
             one.effective_time, one.offset)
            for one in wanted
        ]  # fmt: skip
        backwards = await get.all(f"k/accounts/{account}/entries", order="oldest", limit="5")
        assert backwards == found[::-1]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("by", ["effective", "recorded"])
async def test_a_statement_is_the_one_in_memory(
    bench: LedgerBench, every: Tables, get: Asking, seed: int, by: str
) -> None:
    live(bench, seed)
    await every.follow(bench)
    times = [format_instant(Instant(moment)) for moment in moments(bench)]
    periods = [
        (None, None),
        *zip(times, times[2:], strict=False),
        (None, times[3]),
        (times[2], None),
    ]
    compared = 0
    for account in ("bank", "a.1", "deep"):
        for start, end in periods:
            period = {"from": start, "to": end}
            params = {name: text for name, text in period.items() if text is not None}
            wanted = bench.get("accounts/{id}/statement", id=account, by=by, **params)
            found = await get(f"k/accounts/{account}/statement", by=by, **params)
            assert found["opening_balance"] == wanted.opening_balance
            assert found["closing_balance"] == wanted.closing_balance
            assert (found["from"], found["to"], found["asset"]) == (
                wanted.start,
                wanted.end,
                wanted.asset,
            )
            assert [
                (one["transfer"], one["kind"], one["amount"], one["balance"], one["time"],
                 one["effective_time"], one["code"], one["reference"], one["reverses"],
                 one["version"], one["offset"], one["counterparty"])
                for one in found["entries"]
            ] == [
                (one.transfer, one.kind, one.amount, one.balance, one.time, one.effective_time,
                 as_text(one.code), one.reference, one.reverses, one.version, one.offset,
                 one.counterparty)
                for one in wanted.entries
            ]  # fmt: skip
            compared += len(wanted.entries)
    assert compared > 50


async def compare_trial_balances(bench: LedgerBench, get: Asking, times: list[int]) -> None:
    """Now, and as of each time of either kind."""
    points: list[dict[str, str]] = [{}]
    for moment in times:
        text = format_instant(Instant(moment))
        points += [{"at_time": text}, {"at_effective_time": text}]
    for point in points:
        wanted = bench.get("trial-balance", **point)
        found = await get("k/trial-balance", **point)
        assert found["balanced"] is wanted.balanced is True
        assert [
            (one["asset"], one["accounts"], one["debits"], one["credits"], one["pending_debits"],
             one["pending_credits"])
            for one in found["assets"]
        ] == [
            (one.asset, one.accounts, one.debits, one.credits, one.pending_debits,
             one.pending_credits)
            for one in wanted.assets
        ], point  # fmt: skip


@pytest.mark.parametrize("refresh", [True, False])
@pytest.mark.parametrize("seed", range(3))
async def test_a_trial_balance_is_the_one_in_memory_now_and_then(
    bench: LedgerBench, every: Tables, get: Asking, seed: int, *, refresh: bool
) -> None:
    live(bench, seed)
    await every.follow(bench, refresh=refresh)
    # Ends of days are answered from days alone.
    ends = [moment // DAY * DAY - 1 for moment in moments(bench)]
    await compare_trial_balances(bench, get, sorted({*moments(bench), *ends}))


@pytest.mark.parametrize("seed", range(2))
async def test_a_trial_balance_of_any_day_is_right_after_late_postings_that_turn_accounts_over(
    bench: LedgerBench, every: Tables, get: Asking, seed: int
) -> None:
    """Days that were summed up are, by some of what comes later, no more what they were."""
    chance = random.Random(seed)
    accounts = ["v", "w", "x", "y"]
    bench.open(*accounts, min_balance=None)
    now = int(START)
    days = 8
    ends = [now // DAY * DAY + day * DAY - 1 for day in range(-2, days + 2)]
    for number in range(days * 4):
        now += DAY // 4
        more: dict[str, Any] = {}
        if chance.random() < 0.5:
            back = chance.randrange(-2 * DAY, 8 * DAY)
            more["effective_time"] = format_instant(Instant(now - back))
        source, target = chance.sample(accounts, 2)
        bench.move(f"t{number}", source, target, chance.randrange(1, 500), at=now, **more)
        if chance.random() < 0.4:
            await every.follow(bench, refresh=chance.random() < 0.6)
        if number % 8 == 7:
            await every.follow(bench, refresh=False)
            await compare_trial_balances(bench, get, [*chance.sample(ends, 3), now - DAY // 3])
    await every.follow(bench, refresh=True)
    await compare_trial_balances(bench, get, [*ends, now - DAY // 3])


@pytest.mark.parametrize("seed", range(2))
async def test_holds_that_are_open_are_those_in_memory(
    bench: LedgerBench, every: Tables, get: Asking, seed: int
) -> None:
    live(bench, seed)
    await every.follow(bench)
    wanted = {one.id: one for one in bench.get("holds", limit="1000").holds}
    found = await get.all("k/holds", status="pending", limit="3")
    assert [row["transfer"] for row in found] == sorted(wanted)
    for row in found:
        one = wanted[row["transfer"]]
        assert (row["source"], row["target"], row["amount"], row["expires_at"]) == (
            one.source,
            one.target,
            one.amount,
            one.expires_at,
        )


@pytest.mark.parametrize("refresh", [True, False])
async def test_turnover_is_the_sum_of_all_entries_whether_days_are_summed_up_or_not(
    bench: LedgerBench, every: Tables, get: Asking, *, refresh: bool
) -> None:
    live(bench, 0)
    await every.follow(bench, refresh=refresh)
    by_asset: dict[str, list[int]] = {}
    for view in bench.get("accounts", limit="1000").accounts:
        row = by_asset.setdefault(view.asset, [0, 0, 0])
        for one in bench.get("accounts/{id}/entries", id=view.id, limit="1000").entries:
            row[0 if int(one.amount) > 0 else 1] += abs(int(one.amount))
            row[2] += 1
    found = await get("k/turnover")
    assert found["balanced"]
    assert {
        one["asset"]: [int(one["paid_in"]), int(one["paid_out"]), one["entries"]]
        for one in found["assets"]
    } == {asset: row for asset, row in by_asset.items() if row[2]}
    # A day apart in two: what it had before, and what came after the days were summed up.
    await every.follow(bench)
    bench.move("late", "bank", "b", 77, effective_time=format_instant(START))
    await every.follow(bench, refresh=False)
    again = await get("k/turnover", to="2026-01-02")
    before = await get("k/turnover", **{"from": "2026-01-02"})
    assert int(again["assets"][0]["paid_in"]) + int(before["assets"][0]["paid_in"]) == (
        by_asset["USD/2"][0] + 77
    )


async def test_what_is_not_there_is_not_found(
    bench: LedgerBench, every: Tables, get: Asking
) -> None:
    live(bench, 0)
    await every.follow(bench)
    for path in ("k/accounts/nobody", "k/accounts/nobody/statement", "nowhere/trial-balance",
                 "k/transfers/none", "k2/accounts/bank/terms"):  # fmt: skip
        with pytest.raises(EngineError) as caught:
            await get(path)
        assert caught.value.code == "NOT_FOUND"
    assert (await get("k2/accounts"))["items"][0]["account"] == "other"
