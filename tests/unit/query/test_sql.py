"""Statements: the tenant is in each, values are in none, and the rules of declarations hold."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.query.world import CURSORS, ROUTES, asked

import ultraengine.query
from ultraengine.domains.ledger.days import ASSET_DAY
from ultraengine.domains.ledger.sql_reads import SQL_READS
from ultraengine.domains.ledger.sql_statement import STATEMENT
from ultraengine.domains.ledger.tables import TABLES
from ultraengine.model.errors import EngineError, InvariantBroken
from ultraengine.model.exact import GreatestWords, expanded
from ultraengine.model.ids import Instant, Offset, ShardId
from ultraengine.model.limits import Limits
from ultraengine.model.projection import Aggregate, ColumnType
from ultraengine.model.reads import (
    Computed,
    Filter,
    Operator,
    Order,
    Parameter,
    Part,
    Read,
    check_reads,
)
from ultraengine.query.answer import answer
from ultraengine.query.cursor import Cursors
from ultraengine.query.dialect import ReadDialect
from ultraengine.query.openapi import document
from ultraengine.query.plan import context, plan
from ultraengine.query.positions import Position
from ultraengine.query.reader import SLICES_MAX, Behind, ask, look
from ultraengine.query.readers.mysql.dialect import MysqlReadDialect
from ultraengine.query.readers.postgres.dialect import PostgresReadDialect
from ultraengine.query.readers.sqlite.dialect import SqliteReadDialect
from ultraengine.query.routes import SqlRoutes
from ultraengine.query.sql import Moment, Scope, prefix_end, statements
from ultraengine.query.values import SCHEMAS
from ultraengine.testing.projection_tables import FACT, PROBE

V = TABLES.version
MOMENT = Moment(V, 3, Position.of({ShardId(0): Offset(9)}))
PENDING = msgspec.structs.replace(MOMENT, pending={"asset_day": (20_454, 20_455)})
SECRET = "tenant-of-this-test"  # noqa: S105  (a name)
QUERIES: dict[str, dict[str, Any]] = {
    "{book}/accounts": {"balance__gte": "5", "asset__in": "EUR/2,USD/2", "account__prefix": "a"},
    "{book}/transfers": {"booked_at__lt": "2026-01-01", "order": "newest", "status": "posted"},
    "{book}/accounts/{account}/statement": {"by": "recorded"},
    "{book}/trial-balance": {"at_effective_time": "2026-01-01"},
}


class NoRowValues(ReadDialect):
    """A database without row values."""

    row_values = False


def dialects() -> list[ReadDialect]:
    return [ReadDialect(), SqliteReadDialect(), NoRowValues()]


def every_statement(dialect: ReadDialect, moment: Moment) -> Iterator[tuple[str, Any]]:
    """(name, statement) of every declared read, with filters and cursors where there are some."""
    for route in ROUTES.routes:
        path = re.sub(r"\{(\w+)\}", r"\1-1", route.read.path)
        queries: list[dict[str, Any]] = [{}, QUERIES.get(route.read.path, {})]
        if route.read.name == "trial-balance":
            queries.append({"at_time": "2026-01-01"})
        for query in queries:
            found = asked(path, SECRET, **query)
            if isinstance(route.read, Read) and not route.read.one:
                for order in route.read.orders:
                    ordered = asked(path, SECRET, **{**query, "order": order.name})
                    place = tuple("x" for _ in order.columns)
                    yield from (
                        (route.name, one)
                        for one in statements(
                            msgspec.structs.replace(ordered, after=place), moment, dialect
                        )
                    )
            yield from ((route.name, one) for one in statements(found, moment, dialect))


@pytest.mark.parametrize("dialect", dialects(), ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("moment", [MOMENT, PENDING], ids=["summed", "pending"])
def test_every_table_of_every_read_is_narrowed_to_the_tenant(
    dialect: ReadDialect, moment: Moment
) -> None:
    seen = set()
    for name, statement in every_statement(dialect, moment):
        seen.add(name)
        read = re.findall(r'(?:FROM|JOIN) "[^"]*"[^)]*?(?=\)|UNION|AND)', statement.text)
        assert read, statement.text
        for part in read:
            assert re.fullmatch(rf'FROM "ledger_\w+__v{V}_b3" WHERE "tenant" = \?\d*\s?', part), (
                part
            )
        assert statement.values.count(SECRET) == len(read)
        assert SECRET not in statement.text
    assert seen == {route.name for route in ROUTES.routes}


def test_a_comma_brings_in_no_other_table() -> None:
    for _, statement in every_statement(ReadDialect(), PENDING):
        named = re.findall(r'"(\w+__\w+)"', statement.text)
        assert named == re.findall(r'FROM "(\w+__\w+)" WHERE "tenant" =', statement.text)


def test_no_statement_is_made_without_a_tenant_or_without_its_tables() -> None:
    route = ROUTES.routes[0]
    with pytest.raises(InvariantBroken, match="belongs to a tenant"):
        Scope(route, "", MOMENT, ReadDialect())
    scope = Scope(route, "t", MOMENT, ReadDialect())
    with pytest.raises(InvariantBroken, match="reads the tables of its tenant"):
        scope.statement("x", "SELECT * FROM users", (), 1)


def test_only_one_function_of_the_package_names_a_table_of_a_set() -> None:
    calls = []
    for path in Path(ultraengine.query.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                calls += [
                    (path.name, node.name)
                    for inner in ast.walk(node)
                    if isinstance(inner, ast.Call)
                    and isinstance(inner.func, ast.Name)
                    and inner.func.id in {"physical", "view"}
                ]
    assert calls == [("sql.py", "table")]


@given(st.text(max_size=12).filter(lambda text: "\0" not in text), st.text(max_size=3))
def test_a_prefix_holds_exactly_the_texts_that_begin_with_it(prefix: str, rest: str) -> None:
    end = prefix_end(prefix)
    assert prefix <= prefix + rest
    assert end is None or prefix + rest < end
    if end is not None:
        assert not end.startswith(prefix)
        assert end > prefix


@pytest.mark.parametrize(
    ("prefix", "end"),
    [("", None), ("a", "b"), ("a\U0010ffff", "b"), ("\U0010ffff", None), ("\ud7ff", "\ue000")],
)
def test_the_end_of_a_prefix_is_the_next_text(prefix: str, end: str | None) -> None:
    assert prefix_end(prefix) == end


def test_a_prefix_without_end_or_of_nothing_is_compared_from_below_alone() -> None:
    def text(prefix: str) -> str:
        query = asked("k/transfers", transfer__prefix=prefix)
        return statements(query, MOMENT, ReadDialect())[0].text

    assert '"transfer" >= ? AND "transfer" < ?' in text("a")
    assert '"transfer" >= ? ORDER' in text("\U0010ffff")
    assert '"transfer" IS NOT NULL ORDER' in text("")


def test_a_page_goes_on_behind_its_cursor_in_every_dialect() -> None:
    query = asked("k/transfers", order="oldest")
    cursor = CURSORS.make(context(query), (5, "t1"))
    query = asked("k/transfers", order="oldest", cursor=cursor)
    assert query.after == (5, "t1")
    text = statements(query, MOMENT, ReadDialect())[0].text
    assert '("booked_at", "transfer") > (?, ?)' in text
    without = statements(query, MOMENT, NoRowValues())[0]
    assert '"booked_at" >= ? AND ("booked_at" > ? OR "transfer" > ?)' in without.text
    assert without.values[-3:] == (5, 5, "t1")


def test_macros_are_written_out_from_the_inside() -> None:
    text = "SELECT PLUS(TOTAL(a.x), MINUS(b.y, COALESCE(c.z, 0))), TOTAL(DEBIT(d.w))"
    assert expanded(text, ReadDialect()) == (
        "SELECT (SUM(a.x) + (b.y - COALESCE(c.z, 0))),"
        " SUM(CASE WHEN d.w < 0 THEN 0 - d.w ELSE 0 END)"
    )
    assert "WHEN e.v > 0 THEN e.v" in expanded("CREDIT(e.v)", ReadDialect())
    both = expanded("MINUS(DEBIT(a.x), CREDIT(a.y))", GreatestWords())
    assert both == "(GREATEST(0 - a.x, 0) - GREATEST(a.y, 0))"
    with pytest.raises(InvariantBroken, match="number of arguments"):
        expanded("PLUS(a.x)", ReadDialect())
    with pytest.raises(InvariantBroken, match="is closed"):
        expanded("TOTAL(a.x", ReadDialect())


def test_amounts_beyond_a_word_are_compared_as_numbers_in_sqlite() -> None:
    dialect = SqliteReadDialect()
    near = dialect.compare("c", "<", "?1", 5, ColumnType.AMOUNT)
    assert near.startswith("CASE WHEN typeof(c) = 'integer' THEN c < ?1 ELSE ultra_compare")
    assert dialect.compare("c", "<", "?1", 10**30, ColumnType.AMOUNT) == "ultra_compare(c, ?1) < 0"
    assert dialect.compare("c", "=", "?1", 5, ColumnType.AMOUNT) == "c = ?1"
    assert dialect.compare("c", "<", "?1", 5, ColumnType.TIME) == "c < ?1"


# --- declarations --------------------------------------------------------------------------


LIST = Read(
    name="l", path="{book}/l", table="transfer", shown=("amount",),
    orders=(Order("o", ("transfer",)),), filters=(Filter("source"),),
)  # fmt: skip
ROW = Read(name="r", path="{book}/r/{transfer}", table="transfer", shown=("amount",))
PART = Part(
    name="p", select="SELECT a.{asset} FROM {table:account} a WHERE a.{book} = {:book}",
    columns=(STATEMENT.parts[0].columns[0],),
)  # fmt: skip
COMPUTED = Computed(
    name="c", path="{book}/c", parameters=(Parameter(name="book", type=ColumnType.TEXT),),
    parts=(PART,), result=dict, finish=lambda rows, _values: rows,
)  # fmt: skip


def changed(read: Any, **members: Any) -> Any:
    return msgspec.structs.replace(read, **members)


def selected(select: str) -> Any:
    return changed(COMPUTED, parts=(changed(PART, select=select),))


def test_what_the_ledger_declares_is_right() -> None:
    check_reads(SQL_READS, TABLES)
    check_reads([LIST, ROW, COMPUTED], TABLES)


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        (changed(LIST, path="{book}/{book}"), "each parameter once"),
        (changed(LIST, path="{book}/L"), "segments"),
        (changed(COMPUTED, path="{book}/Ä"), "segments"),
        (changed(LIST, table="nothing"), "a table of its projection"),
        (changed(LIST, shown=("nothing",)), "columns of its table"),
        (changed(LIST, shown=("tenant",)), "never the tenant"),
        (changed(LIST, filters=(Filter("tenant"),)), "never the tenant"),
        (changed(LIST, path="{tenant}/l"), "never the tenant"),
        (changed(LIST, orders=(Order("o", ("tenant", "transfer")),)), "never the tenant"),
        (changed(LIST, shown=()), "each once"),
        (changed(LIST, shown=("amount", "amount")), "each once"),
        (changed(ROW, path="{book}/r"), "whole key"),
        (changed(ROW, filters=(Filter("source"),)), "no filters"),
        (changed(LIST, settled=True), "settled"),
        (
            changed(LIST, table="asset_day", shown=("paid_in",), filters=(),
                    orders=(Order("o", ("asset", "day")),)),
            "SQL of the domain's own",
        ),
        (changed(LIST, orders=(*LIST.orders, *LIST.orders)), "names of their own"),
        (changed(LIST, orders=(Order("o", ()),)), "never null"),
        (changed(LIST, orders=(Order("o", ("code", "transfer")),)), "never null"),
        (changed(LIST, orders=(Order("o", ("amount", "transfer")),)), "no amounts"),
        (changed(LIST, orders=(Order("o", ("booked_at",)),)), "hold the table's key"),
        (changed(LIST, filters=(Filter("source"), Filter("source"))), "there once"),
        (changed(LIST, filters=(Filter("book"),)), "not in the path"),
        (changed(LIST, filters=(Filter("source", ()),)), "has operators"),
        (changed(LIST, filters=(Filter("amount", (Operator.PREFIX,)),)), "of a text"),
        (
            changed(LIST, table="account", shown=("asset",), filters=(Filter("metadata"),),
                    orders=(Order("o", ("account",)),)),
            "no JSON",
        ),
        (
            changed(LIST, table="account", shown=("asset",),
                    filters=(Filter("closed", (Operator.LT,)),),
                    orders=(Order("o", ("account",)),)),
            "compared as equal",
        ),
        (
            changed(COMPUTED, parameters=(*COMPUTED.parameters, *COMPUTED.parameters)),
            "none of them reserved",
        ),
        (
            changed(COMPUTED, parameters=(Parameter(name="limit", type=ColumnType.TEXT),)),
            "none of them reserved",
        ),
        (changed(COMPUTED, path="{nobody}/c"), "a path names parameters"),
        (
            changed(COMPUTED, parameters=(
                *COMPUTED.parameters,
                Parameter(name="n", type=ColumnType.DATE, choices=("a",)),
            )),
            "choices are of a text",
        ),
        (changed(COMPUTED, parts=()), "parts have names"),
        (changed(COMPUTED, parts=(PART, PART)), "parts have names"),
        (changed(COMPUTED, parts=(changed(PART, columns=()),)), "yields columns"),
        (changed(COMPUTED, parts=(changed(PART, rows_max=0),)), "yields columns"),
        (changed(COMPUTED, parts=(changed(PART, when=("x", "y")),)), "declared parameters"),
        (selected("DELETE FROM {table:account} a"), "one SELECT"),
        (selected("SELECT 'x' FROM {table:account} a"), "one SELECT"),
        (selected("SELECT 1 FROM {table:account} a; SELECT 2"), "one SELECT"),
        (selected("SELECT 1 FROM {table:account} a -- x"), "one SELECT"),
        (selected('SELECT 1 FROM {table:account} a, "users" u'), "one SELECT"),
        (selected("SELECT {1} FROM {table:account} a"), "one SELECT"),
        (selected("SELECT 1"), "tables of the projection"),
        (selected("SELECT 1 FROM {table:users} a"), "tables of the projection"),
        (selected("SELECT 1 FROM {table:account} a, ledger_account b"), "its own aliases"),
        (selected("SELECT 1 FROM {table:account} a, USERS b"), "its own aliases"),
        (selected("SELECT 1 FROM {table:account} ledger_account"), "its own aliases"),
        (selected("SELECT 1 FROM {table:account} a JOIN a b ON 1 = 1"), "its own aliases"),
        (
            selected("SELECT 1 FROM (SELECT 1 FROM {table:account} a) b JOIN a ON 1 = 1"),
            "by reference",
        ),
        (selected("SELECT {:x} FROM {table:account} a"), "declared parameters"),
    ],
)  # fmt: skip
def test_a_declaration_that_breaks_a_rule_is_refused(wrong: Any, rule: str) -> None:
    with pytest.raises(InvariantBroken, match=rule):
        check_reads([wrong], TABLES)


def test_reads_of_a_projection_have_names_and_paths_of_their_own() -> None:
    with pytest.raises(InvariantBroken, match="names of their own"):
        check_reads([LIST, changed(LIST, path="{book}/m")], TABLES)
    with pytest.raises(InvariantBroken, match="paths of their own"):
        check_reads([ROW, changed(ROW, name="s", path="{transfer}/r/{book}")], TABLES)


def test_an_aggregate_is_read_with_the_slices_that_are_still_to_be_summed_up() -> None:
    statement = statements(asked("k/turnover"), PENDING, ReadDialect())[0]
    assert statement.text.count('"day" NOT IN (?, ?)') == 1
    assert statement.text.count('"day" IN (?, ?)') == 1
    assert statement.values[1:3] == statement.values[4:6] == (20_454, 20_455)
    assert isinstance(ASSET_DAY, Aggregate)
    summed = statements(asked("k/turnover"), MOMENT, ReadDialect())[0]
    assert "UNION" not in summed.text


def test_another_key_makes_other_cursors() -> None:
    query = asked("k/transfers")
    assert Cursors(b"a" * 16).make(context(query), (1, "x")) != CURSORS.make(
        context(query), (1, "x")
    )


def test_a_list_of_everything_has_no_condition_but_the_tenant() -> None:
    whole = Read(name="all", path="all", table="transfer", shown=("amount",),
                 orders=(Order("o", ("book", "transfer")),))  # fmt: skip
    match = SqlRoutes([("d", TABLES, [whole])]).find("d", ["all"])
    assert match is not None
    query = plan(match, "t", [], [], cursors=CURSORS, limits=Limits())
    statement = statements(query, MOMENT, ReadDialect())[0]
    assert statement.text.endswith(' t ORDER BY "book", "transfer" LIMIT 101')
    assert statement.values == ("t",)


def test_a_page_shows_its_columns_and_no_other_that_the_cursor_needs() -> None:
    query = asked("k/transfers", limit="1")
    narrow = msgspec.structs.replace(
        query, route=query.route._replace(read=changed(query.route.read, shown=("amount", "code")))
    )
    statement = statements(narrow, MOMENT, ReadDialect())[0]
    assert [column.name for column in statement.columns] == [
        "amount", "code", "booked_at", "transfer",
    ]  # fmt: skip
    rows = [(10**30, None, 7, "t2"), (5, "x", 6, "t1")]
    page = answer(narrow, [statement], [rows], CURSORS)
    assert page["items"] == [{"amount": str(10**30), "code": None}]
    assert CURSORS.read(context(narrow), page["next_cursor"]) == (7, "t2")


def test_an_answer_of_more_rows_than_declared_is_too_large() -> None:
    query = asked("k/turnover")
    ran = [
        msgspec.structs.replace(one, rows_max=1) for one in statements(query, MOMENT, ReadDialect())
    ]
    with pytest.raises(EngineError) as caught:
        answer(query, ran, [[("USD/2", 1, 1, 1), ("EUR/2", 1, 1, 1)]], CURSORS)
    assert caught.value.code == "TOO_LARGE"


# --- conversations -------------------------------------------------------------------------


def told(talk: Any, *answers: Any) -> Any:
    """The result of a conversation with these answers."""
    next(talk)
    try:
        for rows in answers:
            talk.send(rows)
    except StopIteration as ended:
        return ended.value
    raise AssertionError("the conversation goes on")


def test_a_moment_is_the_serving_set_and_its_positions() -> None:
    found = told(look(TABLES, ReadDialect()), [(V, 3, 0, 9, 50), (V, 3, 2, 4, 70)])
    assert found == Moment(
        V, 3, Position(((ShardId(0), Offset(9)), (ShardId(2), Offset(4)))), Instant(70)
    )
    fresh = told(look(TABLES, ReadDialect()), [(V, 3, None, None, None)])
    assert fresh == Moment(V, 3, Position())
    slices = told(
        look(TABLES, ReadDialect(), ["asset_day", "other"]),
        [(V, 3, 0, 9, 50)],
        [("asset_day", 5), ("asset_day", 6), ("other", 5)],
    )
    assert slices.pending == {"asset_day": (5, 6), "other": (5,)}


@pytest.mark.parametrize(
    ("query", "waited_for"),
    [
        ({}, ["asset_held"]),
        ({"at_time": "2026-01-01"}, ["asset_held"]),
        ({"at_effective_time": "2026-01-01"}, []),
    ],
)
def test_an_answer_waits_for_no_sums_that_it_does_not_read(
    query: dict[str, Any], waited_for: list[str]
) -> None:
    """A late posting makes many days of business time pending: other answers must not end."""
    talk = ask(asked("k/trial-balance", **query), ReadDialect())
    next(talk)
    second = talk.send([(V, 3, 0, 9, 50)])
    assert (second.name == "pending") == bool(waited_for)
    if waited_for:
        assert second.values == ("ledger", 3, *waited_for)


@pytest.mark.parametrize(
    "dialect", [SqliteReadDialect(), PostgresReadDialect(), MysqlReadDialect()]
)
@pytest.mark.parametrize("time", ["at_time", "at_effective_time"])
def test_the_last_moment_that_there_is_can_be_asked_for(dialect: ReadDialect, time: str) -> None:
    point: dict[str, Any] = {time: "9999-12-31T23:59:59.999999Z"}
    query = asked("k/trial-balance", **point)
    names = [one.name for one in statements(query, MOMENT, dialect)]
    wanted = {"at_time": ["booked", "recorded_held", "held", "released"],
              "at_effective_time": ["opened", "effective", "late"]}[time]  # fmt: skip
    assert names == ["book", *wanted]


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ([[]], "no tables of ledger serve yet"),
        ([[(V + 1, 3, 0, 9, 50)]], f"version {V + 1}, this process reads version {V}"),
        ([[(V, 3, 0, 9, 50)], [("asset_day", day) for day in range(SLICES_MAX + 1)]], "summed up"),
    ],
)
def test_tables_that_cannot_be_read_now_are_unavailable(answers: Any, why: str) -> None:
    with pytest.raises(EngineError, match=why) as caught:
        told(look(TABLES, ReadDialect(), ["asset_day"]), *answers)
    assert caught.value.code == "PROJECTION_UNAVAILABLE"


def test_a_conversation_that_is_behind_reads_nothing() -> None:
    query = asked("k/transfers", min_offset="9")
    found = told(ask(query, ReadDialect()), [(V, 3, 0, 9, 50)])
    assert found == Behind(Moment(V, 3, MOMENT.position, Instant(50)))


def test_a_required_part_without_a_row_ends_the_conversation() -> None:
    query = asked("k/accounts/nobody/statement")
    found = told(ask(query, ReadDialect()), [(V, 3, 0, 9, 50)], [])
    assert [one.name for one in found.ran] == ["account"]


def test_all_types_are_in_the_document_with_and_without_nulls() -> None:
    table = FACT
    whole = Read(name="fact", path="fact", table=table.name, shown=table.names[1:],
                 orders=(Order("o", table.key[1:]),))  # fmt: skip
    paper = document(SqlRoutes([("p", PROBE, [whole])]), Limits(), "1")
    row = paper["components"]["schemas"]["p_fact"]["properties"]
    for column in table.columns[1:]:
        schema = dict(SCHEMAS[column.type])
        if column.nullable and "type" in schema:
            assert row[column.name]["type"] == [schema["type"], "null"]
        else:
            assert row[column.name].get("type") == schema.get("type")


def test_standard_sql_gives_values_back_as_the_driver_gave_them() -> None:
    column = FACT.column("n")
    assert ReadDialect().load(5, column) == 5
    assert ReadDialect().bind(5, column.type) == 5
