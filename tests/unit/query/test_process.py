"""The process as its clients see it: answers, positions, waits, caches, outages, the drain."""

import asyncio
import json
from pathlib import Path

import msgspec
import pytest
from tests.unit.domains.ledger.conftest import LedgerBench
from tests.unit.query.serving import Served, serve, write_keys
from tests.unit.query.world import FileTables, pay, small

from ultraengine.advice.recorder import Report
from ultraengine.model.ids import Instant


async def test_a_row_comes_with_its_position_and_a_tag(served: Served) -> None:
    got = await served.sql("k/accounts/alice")
    assert got.status == 200
    assert got.body["balance"] == str(100 + 101 + 102 + 103 + 104)
    assert got.body["metadata"] == {"owner": "default"}
    assert got.headers["Ultra-Offset"] == "0=5"
    assert got.headers["Vary"] == "Accept, Authorization"
    again = await served.sql("k/accounts/alice", If_None_Match=got.headers["ETag"])
    assert (again.status, again.body) == (304, b"")
    assert again.headers["Ultra-Offset"] == "0=5"
    packed = await served.sql("k/accounts/alice", Accept="application/msgpack")
    assert msgspec.msgpack.decode(packed.body) == got.body
    assert packed.headers["ETag"] != got.headers["ETag"]


async def test_pages_follow_each_other_while_rows_are_added(
    served: Served, bench: LedgerBench, tables: FileTables
) -> None:
    first = await served.sql("k/accounts/alice/entries", {"limit": "2"})
    assert [row["transfer"] for row in first.body["items"]] == ["t4", "t3"]
    pay(bench, "t5", 1)
    await tables.follow(bench)
    cursor = first.body["next_cursor"]
    second = await served.sql("k/accounts/alice/entries", {"limit": "2", "cursor": cursor})
    assert [row["transfer"] for row in second.body["items"]] == ["t2", "t1"]
    cursor = second.body["next_cursor"]
    third = await served.sql("k/accounts/alice/entries", {"limit": "2", "cursor": cursor})
    assert [row["transfer"] for row in third.body["items"]] == ["t0"]
    assert third.body["next_cursor"] is None


async def test_a_read_sees_what_its_client_has_written(
    served: Served, bench: LedgerBench, tables: FileTables
) -> None:
    offset = pay(bench, "mine", 1_000)
    waiting = asyncio.create_task(
        served.sql("k/transfers", {"min_offset": str(offset), "transfer": "mine"})
    )
    await served.somebody_waits()
    assert not waiting.done()
    await tables.follow(bench)
    got = await waiting
    assert [row["transfer"] for row in got.body["items"]] == ["mine"]
    assert got.headers["Ultra-Offset"] == f"0={offset}"
    assert served.process.metrics.waits == {"reached": 1, "timeout": 0}
    later = await served.sql("k/accounts/alice", Ultra_Offset=got.headers["Ultra-Offset"])
    assert later.status == 200


async def test_a_wait_that_is_in_vain_ends(bench: LedgerBench, tables: FileTables) -> None:
    small(bench, "default")
    await tables.follow(bench)
    served = await serve(tables.path, min_offset_wait_s=0.05)
    got = await served.sql("k/accounts/alice", {"min_offset": "6", "shard": "0"})
    assert (got.status, got.code) == (504, "WAIT_TIMEOUT")
    assert "0=5" in got.body["detail"]
    other = await served.sql("k/accounts/alice", Ultra_Offset="3=0")
    assert (other.status, other.code) == (504, "WAIT_TIMEOUT")
    assert served.process.metrics.waits["timeout"] == 2
    await served.end()


async def test_a_kept_answer_is_given_until_the_tables_move_and_never_with_another_label(
    served: Served, bench: LedgerBench, tables: FileTables
) -> None:
    first = await served.sql("k/accounts/alice")
    ran = len(served.statements)
    again = await served.sql("k/accounts/alice")
    assert (again.body, again.headers["Ultra-Offset"]) == (first.body, "0=5")
    assert len(served.statements) == ran, "it came from the cache"
    offset = pay(bench, "more", 50)
    await tables.follow(bench)
    seen = await served.sql("k/accounts/alice", {"min_offset": str(offset)})
    assert (int(seen.body["balance"]), seen.headers["Ultra-Offset"]) == (560, "0=6")
    now = await served.sql("k/accounts/alice")
    assert (now.body, now.headers["Ultra-Offset"]) == (seen.body, "0=6")


async def test_master_data_is_kept_while_the_tables_move(
    served: Served, bench: LedgerBench, tables: FileTables
) -> None:
    first = await served.sql("k/accounts/alice/terms")
    assert first.body["asset"] == "USD/2"
    offset = pay(bench, "more", 50)
    await tables.follow(bench)
    assert (await served.sql("k/accounts/bob")).headers["Ultra-Offset"] == "0=6"
    ran = len(served.statements)
    again = await served.sql("k/accounts/alice/terms")
    assert (again.body, again.headers["Ultra-Offset"]) == (first.body, "0=5")
    assert len(served.statements) == ran
    newer = await served.sql("k/accounts/alice/terms", {"min_offset": str(offset)})
    assert (newer.body, newer.headers["Ultra-Offset"]) == (first.body, "0=6")


async def test_a_set_that_takes_over_ends_what_was_kept_of_the_one_before(
    served: Served, bench: LedgerBench, tables: FileTables
) -> None:
    first = await served.sql("k/accounts/alice/terms")
    await served.sql("k/accounts/alice")
    await tables.build(2)
    await tables.follow(bench)
    assert (await served.sql("k/accounts/bob")).status == 200
    ran = len(served.statements)
    assert (await served.sql("k/accounts/alice/terms")).body == first.body
    assert (await served.sql("k/accounts/alice")).status == 200
    run = served.statements[ran:]
    assert any("_b2" in text for text in run)
    assert not any("_b1" in text for text in run)


async def test_without_tables_it_says_so_and_recovers(tmp_path: Path, bench: LedgerBench) -> None:
    path = tmp_path / "later.db"
    served = await serve(path)
    got = await served.sql("k/accounts")
    assert (got.status, got.code) == (503, "PROJECTION_UNAVAILABLE")
    assert int(got.headers["Retry-After"]) >= 1
    assert (await served.get("/readyz")).status == 503
    assert (await served.get("/healthz")).status == 200
    status = await served.get("/admin/v1/status")
    assert status.body["breaker"] == "open"
    assert str(path) not in json.dumps(got.body)
    tables = FileTables(path)
    await tables.open()
    small(bench, "default")
    await tables.follow(bench)
    while (await served.sql("k/accounts")).status != 200:  # noqa: ASYNC110  (the breaker's wait)
        await asyncio.sleep(0.01)
    assert (await served.get("/readyz")).body["projections"]["ledger"]["position"] == "0=5"
    assert (await served.get("/admin/v1/status")).body["breaker"] == "closed"
    await tables.close()
    await served.end()


async def test_tables_of_another_version_are_not_read(served: Served, tables: FileTables) -> None:
    tables.execute("UPDATE ultra_projection_set SET version = 7")
    got = await served.sql("k/accounts")
    assert (got.status, got.code) == (503, "PROJECTION_UNAVAILABLE")
    assert "version 7" in got.body["detail"]


async def test_reads_beyond_the_limit_are_refused_and_say_when_to_come_back(
    bench: LedgerBench, tables: FileTables
) -> None:
    small(bench, "default")
    await tables.follow(bench)
    served = await serve(tables.path, sql_reads_max=1, min_offset_wait_s=30.0)
    waiting = asyncio.create_task(served.sql("k/accounts", {"min_offset": "6"}))
    await served.somebody_waits()
    got = await served.sql("k/accounts")
    assert (got.status, got.code) == (429, "OVERLOADED")
    assert got.headers["Retry-After"] == "1"
    pay(bench, "more", 1)
    await tables.follow(bench)
    assert (await waiting).status == 200
    assert (await served.sql("k/accounts")).status == 200
    await served.end()


async def test_a_tenant_above_its_quota_of_reads_is_told_when_to_come_back_and_nothing_is_run(
    tables: FileTables,
) -> None:
    served = await serve(tables.path, tenant_reads_per_s=0.001, tenant_reads_burst=2)
    try:
        got = await served.sql("k/accounts")
        assert got.headers["RateLimit-Policy"] == '"tenant";q=2;w=2000'
        assert got.headers["RateLimit"].startswith('"tenant";r=1;t=')
        # One that a cache answers, or that is as it was, costs the same.
        again = await served.sql("k/accounts", If_None_Match=got.headers["ETag"])
        assert (again.status, again.headers["RateLimit"][:12]) == (304, '"tenant";r=0')
        ran = served.process.reads.recorder.report(Instant(0)).calls
        refused = await served.sql("k/accounts")
        assert (refused.status, refused.code) == (429, "QUOTA")
        assert 900 < refused.body["retry_after_s"] <= 1_000
        assert int(refused.headers["Retry-After"]) >= refused.body["retry_after_s"]
        assert served.process.reads.recorder.report(Instant(0)).calls == ran
        metrics = (await served.get("/metrics")).body
        assert b"ultra_query_above_quota_total 1.0" in metrics
    finally:
        await served.end()


async def test_the_key_file_gives_a_tenant_its_own_quota_of_reads_and_changes_it(
    tmp_path: Path, tables: FileTables
) -> None:
    file = tmp_path / "keys"
    acme, other = write_keys(file, ("acme", ["ledger:read"]), ("other", ["ledger:read"]))
    entries = file.read_text()
    file.write_text(f"{entries}\n[tenants.acme]\nreads_per_s = 0.001\nreads_burst = 1\n")
    served = await serve(tables.path, keys=file)

    async def asks(key: str) -> int:
        return (await served.sql("k/accounts", Authorization=f"Bearer {key}")).status

    try:
        assert [await asks(acme) for _ in range(2)] == [200, 429]
        assert [await asks(other) for _ in range(5)] == [200] * 5
        file.write_text(f"{entries}\n[tenants.acme]\nreads_per_s = 0\n")
        while served.process.metrics.key_file_reloads["ok"] == 0:  # noqa: ASYNC110  (counted, not signalled)
            await asyncio.sleep(0.01)
        assert [await asks(acme) for _ in range(5)] == [200] * 5
    finally:
        await served.end()


async def test_a_statement_that_takes_too_long_is_ended(
    bench: LedgerBench, tables: FileTables
) -> None:
    small(bench, "default")
    items = [{"id": f"n{n}", "from": "bank", "to": "bob", "amount": 1} for n in range(900)]
    bench.run("ledger.create_transfers", {"transfers": items}, tenant="default")
    await tables.follow(bench)
    served = await serve(tables.path, sql_statement_s=0.0)
    got = await served.sql("k/transfers", {"order": "newest", "amount.lt": "0"})
    assert (got.status, got.code) == (504, "READ_TIMEOUT")
    assert served.process.metrics.ended == 1
    assert (await served.get("/admin/v1/status")).body["breaker"] == "closed"
    await served.end()


async def test_a_drain_answers_what_is_in_flight_and_takes_nothing_new(
    served: Served, bench: LedgerBench, tables: FileTables
) -> None:
    offset = pay(bench, "mine", 1_000)
    waiting = asyncio.create_task(served.sql("k/accounts", {"min_offset": str(offset)}))
    await served.somebody_waits()
    draining = asyncio.create_task(served.process.drain())
    await asyncio.sleep(0)
    got = await served.sql("k/accounts")
    assert (got.status, got.code) == (503, "DRAINING")
    assert (await served.get("/readyz")).code == "DRAINING"
    assert not draining.done()
    await tables.follow(bench)
    assert (await waiting).status == 200
    await draining


async def test_metrics_tell_reads_caches_waits_and_positions(served: Served) -> None:
    await served.sql("k/accounts/alice")
    await served.sql("k/accounts/alice")
    text = (await served.get("/metrics")).body.decode()
    assert 'ultra_query_reads_total{by="database",read="ledger.account"} 1.0' in text
    assert 'ultra_query_reads_total{by="cache",read="ledger.account"} 1.0' in text
    assert 'ultra_query_cache_lookups_total{cache="hot",result="hit"} 1.0' in text
    assert 'ultra_query_position{projection="ledger",shard="0"} 6.0' in text
    assert 'ultra_query_breaker{state="closed"} 1.0' in text
    assert 'ultra_edge_http_requests_total{route="/v1/sql/ledger",status="200"} 2.0' in text


async def test_patterns_are_reported_and_kept_in_a_file_without_values(
    served: Served, tables: FileTables
) -> None:
    for code in ("c0", "c1", "secret-value"):
        await served.sql("k/transfers", {"code": code, "amount.gte": "1"})
    for day in ("2026-01-01", "2026-01-02"):
        await served.sql("k/turnover", {"from": day})
    got = await served.get("/admin/v1/patterns")
    report = msgspec.convert(got.body, Report)
    computed = next(one for one in report.shapes if one.read == "ledger.turnover")
    assert [(one.column, one.distinct) for one in computed.filters] == [("from", 2)]
    assert (computed.table, computed.order) == ("", ())
    shape = next(one for one in report.shapes if one.read == "ledger.transfers")
    assert (shape.table, shape.fixed, shape.calls, shape.rows) == ("transfer", ("book",), 3, 5)
    assert [(one.column, one.operator, one.distinct) for one in shape.filters] == [
        ("amount", "gte", 1),
        ("code", "eq", 3),
    ]
    assert shape.order == ("booked_at desc", "transfer desc")
    assert sum(shape.latency) == 3
    assert 0 < shape.seconds_p50 <= shape.seconds_p99
    await served.process.stop()
    kept = tables.path.with_name("patterns.json").read_bytes()
    assert msgspec.json.decode(kept, type=Report).calls == 5
    assert b"secret-value" not in kept


async def test_the_projection_ledger_says_which_log_the_tables_followed(
    served: Served, bench: LedgerBench, tables: FileTables
) -> None:
    pay(bench, "more", 1)
    await tables.follow(bench)
    got = await served.get("/admin/v1/projections/ledger/ledger", {"limit": "1"})
    assert got.body["writes"][0]["log_end"] == 7
    assert got.body["writes"][0]["chain"] == "00" * 16
    assert got.body["next"] == 7
    rest = await served.get("/admin/v1/projections/ledger/ledger", {"before": "7"})
    assert [one["log_end"] for one in rest.body["writes"]] == [6]
    assert rest.body["next"] is None
    for query in ({"limit": "0"}, {"limit": "1001"}, {"shard": "x"}, {"before": "-1"}):
        refused = await served.get("/admin/v1/projections/ledger/ledger", query)
        assert (refused.status, refused.code) == (400, "MALFORMED")
    assert (await served.get("/admin/v1/projections/other/ledger")).code == "NOT_FOUND"


async def test_documents_need_no_key_and_no_network(tmp_path: Path) -> None:
    write_keys(tmp_path / "keys.toml", ("t", ["ledger:read"]))
    served = await serve(tmp_path / "none.db", keys=tmp_path / "keys.toml")
    paper = (await served.get("/openapi.json")).body
    assert "/v1/sql/ledger/{book}/accounts/{account}/statement" in paper["paths"]
    assert (await served.get("/docs")).status == 200
    assert (await served.get("/docs/docs.js")).status == 200
    assert (await served.sql("k/accounts")).code == "UNAUTHENTICATED"
    assert (await served.get("/v1/limits")).code == "UNAUTHENTICATED"
    await served.end()


async def test_scopes_say_who_may_read_and_who_may_operate(tmp_path: Path) -> None:
    reader, other, admin = write_keys(
        tmp_path / "keys.toml",
        ("t", ["ledger:read"]),
        ("t", ["counter:read", "ledger:write"]),
        ("t", ["admin"]),
    )
    served = await serve(tmp_path / "none.db", keys=tmp_path / "keys.toml")

    async def code(path: str, key: str) -> int:
        return (await served.get(path, Authorization=f"Bearer {key}")).status

    assert await code("/v1/sql/ledger/k/accounts", reader) == 503
    assert await code("/v1/sql/ledger/k/accounts", other) == 403
    assert await code("/v1/sql/ledger/k/accounts", admin) == 403
    assert await code("/v1/limits", other) == 200
    for path in ("/admin/v1/status", "/admin/v1/patterns", "/admin/v1/projections/ledger/ledger"):
        assert await code(path, reader) == 403
    assert await code("/admin/v1/status", admin) == 200
    await served.end()


@pytest.mark.parametrize("path", ["k", "k/accounts/a/b/c", "k/nothing", "k//accounts", "/accounts"])
async def test_paths_that_are_none_are_not_found(served: Served, path: str) -> None:
    assert (await served.sql(path)).code == "NOT_FOUND"
    assert (await served.get("/v1/sql/counter/k/x")).code == "NOT_FOUND"
