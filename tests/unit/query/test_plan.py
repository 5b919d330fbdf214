"""Requests become queries, or problems that say exactly what is wrong."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.query.world import CURSORS, ROUTES, asked

from ultraengine.model.errors import EngineError, InvariantBroken, Malformed
from ultraengine.model.ids import Offset, ShardId
from ultraengine.model.limits import Limits
from ultraengine.model.projection import ColumnType
from ultraengine.model.reads import Read
from ultraengine.query.cursor import CURSOR_CHARS_MAX, Cursors
from ultraengine.query.plan import Shape, context
from ultraengine.query.positions import NOTHING, Position, Wanted, read_wanted
from ultraengine.query.routes import SqlRoutes
from ultraengine.query.values import read_value, show

POSITIONS = st.lists(
    st.one_of(
        st.integers(-(10**40), 10**40), st.text(max_size=20), st.binary(max_size=8), st.booleans()
    ),
    max_size=4,
).map(tuple)


def code_of(path: str, **query: Any) -> str:
    with pytest.raises(EngineError) as caught:
        asked(path, **query)
    return caught.value.code


def test_path_filters_order_and_limit_become_one_query() -> None:
    query = asked("k/transfers", amount__gte="5", code__in="a,b", source="x", limit="7",
                  order="oldest")  # fmt: skip
    assert [(one.column.name, one.operator.value, one.values) for one in query.conditions] == [
        ("book", "eq", ("k",)),
        ("amount", "gte", (5,)),
        ("code", "in", ("a", "b")),
        ("source", "eq", ("x",)),
    ]
    assert (query.limit, query.order and query.order.name, query.after) == (7, "oldest", None)
    assert query.shape == Shape(
        "ledger.transfers", (("amount", "gte"), ("code", "in"), ("source", "eq")), "oldest"
    )


def test_the_shape_of_a_query_holds_no_value() -> None:
    one = asked("k/transfers", source="alice", amount__lt="5")
    other = asked("other/transfers", source="bob", amount__lt="99")
    assert one.shape == other.shape
    assert one.key != other.key


def test_equal_requests_have_equal_keys_whatever_the_order_of_their_filters() -> None:
    one = asked("k/transfers", source="alice", target="bob")
    other = asked("k/transfers", target="bob", source="alice")
    assert one.key == other.key
    assert context(one) == context(other)
    assert asked("k/transfers", "t2", source="alice", target="bob").key != one.key


def test_a_page_is_as_long_as_declared_and_never_longer_than_the_limit() -> None:
    assert asked("k/transfers").limit == 100
    assert asked("k/transfers", limits=Limits(page_items_max=30)).limit == 30
    assert asked("k/transfers", limit="1000").limit == 1000
    with pytest.raises(Malformed, match="page_items_max"):
        asked("k/transfers", limit="31", limits=Limits(page_items_max=30))


def test_a_row_takes_no_filters_and_a_computed_read_its_parameters_alone() -> None:
    assert code_of("k/accounts/alice", asset="USD/2") == "UNKNOWN_FILTER"
    assert code_of("k/trial-balance", book="other") == "UNKNOWN_FILTER"
    assert code_of("k/trial-balance", mode="now") == "UNKNOWN_FILTER"
    assert code_of("k/accounts/alice/statement", limit="5") == "UNKNOWN_FILTER"
    with pytest.raises(EngineError, match=r"no parameter 'x'; there are from, to, by, min_offset"):
        asked("k/accounts/alice/statement", x="1")


def test_an_unknown_filter_is_told_what_there_is() -> None:
    with pytest.raises(EngineError) as caught:
        asked("k/holds", amount="1")
    assert "status, status.in, source, source.in" in caught.value.detail
    assert "limit, cursor, order, min_offset, shard" in caught.value.detail


def test_a_needed_parameter_is_missed() -> None:
    from ultraengine.model.reads import Computed, Parameter, Part  # noqa: PLC0415

    statement = next(route for route in ROUTES.routes if route.name == "ledger.statement")
    assert isinstance(statement.read, Computed)
    part = Part(name="p", select="SELECT a.{asset} FROM {table:account} a", columns=(
        statement.tables["account"].column("asset"),))  # fmt: skip
    needy = Computed(
        name="needy", path="needy",
        parameters=(Parameter(name="day", type=ColumnType.DATE),), parts=(part,),
        result=dict, finish=lambda _rows, values: values,
    )  # fmt: skip
    routes = SqlRoutes([("ledger", statement.projection, [needy])])
    from ultraengine.query.plan import plan  # noqa: PLC0415

    match = routes.find("ledger", ["needy"])
    assert match is not None
    with pytest.raises(Malformed) as caught:
        plan(match, "t", [], [], cursors=CURSORS, limits=Limits())
    assert caught.value.pointer == "/query/day"
    found = plan(match, "t", [("day", "1970-01-03")], [], cursors=CURSORS, limits=Limits())
    assert found.values == {"day": 2}
    assert found.shape.filters == (("day", ""),)


def test_an_empty_part_of_the_path_is_not_found() -> None:
    assert code_of("/accounts") == "NOT_FOUND"


def test_a_literal_segment_wins_over_a_parameter_and_names_are_unique() -> None:
    route = ROUTES.routes[0]
    one = Read(name="one", path="{book}/x", table="hold", shown=("transfer",),
               orders=ROUTES.find("ledger", ["k", "holds"]).route.read.orders)  # type: ignore[union-attr]  # fmt: skip
    other = Read(name="other", path="{book}/{transfer}", table="hold", shown=("amount",))
    routes = SqlRoutes([("d", route.projection, [other, one])])
    assert [found.name for found in routes.routes] == ["d.one", "d.other"]
    match = routes.find("d", ["k", "x"])
    assert match is not None
    assert (match.route.name, match.path) == ("d.one", {"book": "k"})
    assert routes.find("d", ["k", "x", "y"]) is None
    assert [one.name for one in routes.projections] == ["ledger"]
    with pytest.raises(InvariantBroken, match="names and paths of their own"):
        SqlRoutes([("d", route.projection, [one]), ("d", route.projection, [one])])


# --- cursors -------------------------------------------------------------------------------


@given(POSITIONS, st.text(max_size=5))
def test_a_cursor_gives_back_its_position_to_its_own_context_alone(
    position: tuple[Any, ...], tenant: str
) -> None:
    cursor = CURSORS.make(["list", tenant], position)
    assert CURSORS.read(["list", tenant], cursor) == position
    for reader, told in (
        (CURSORS, ["list", tenant + "x"]),
        (CURSORS, ["lis", "t" + tenant]),
        (Cursors(b"other" * 5), ["list", tenant]),
    ):
        with pytest.raises(EngineError) as caught:
            reader.read(told, cursor)
        assert caught.value.code == "BAD_CURSOR"


@pytest.mark.parametrize(
    "text", ["", "A", "====", "A" * (CURSOR_CHARS_MAX + 1), "\u20ac", "a b", "+/"]
)
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(EngineError) as caught:
        CURSORS.read([], text)
    assert (caught.value.code, caught.value.pointer) == ("BAD_CURSOR", "/query/cursor")


def test_a_short_cursor_key_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 16 bytes, not 3"):
        Cursors(b"abc")


# --- positions -----------------------------------------------------------------------------


def position(**ends: int) -> Position:
    return Position.of({ShardId(int(name[1:])): Offset(end) for name, end in ends.items()})


def test_an_answer_names_the_last_offset_of_each_shard() -> None:
    assert position(s3=1, s0=42, s1=0).header == "0=41, 3=0"
    assert Position().header == ""


def test_a_header_that_is_sent_back_is_reached_where_it_came_from() -> None:
    for there in (position(s0=42, s3=1), position(s0=0), Position()):
        wanted = read_wanted(None, None, [there.header])
        assert wanted.reached(there)
    assert not read_wanted(None, None, ["0=42"]).reached(position(s0=42))
    assert not read_wanted(None, None, ["1=0"]).reached(position(s0=42))


def test_min_offset_means_the_only_shard_there_is() -> None:
    wanted = read_wanted("41", None, [])
    assert wanted == Wanted(alone=Offset(41))
    assert wanted
    assert not NOTHING
    assert wanted.reached(position(s7=42))
    assert not wanted.reached(position(s7=41))
    assert not wanted.reached(Position())
    with pytest.raises(Malformed, match="several shards"):
        wanted.reached(position(s0=100, s1=100))


def test_min_offset_with_its_shard_joins_the_headers() -> None:
    wanted = read_wanted("41", "1", ["0=5, 1=50", "2=7"])
    assert wanted == Wanted(
        ((ShardId(0), Offset(5)), (ShardId(1), Offset(50)), (ShardId(2), Offset(7)))
    )
    assert read_wanted("60", "1", ["1=50"]).offsets == ((ShardId(1), Offset(60)),)
    assert wanted.reached(position(s0=6, s1=51, s2=8))
    assert not wanted.reached(position(s0=6, s1=50, s2=8))


def test_a_position_covers_what_is_behind_it() -> None:
    assert position(s0=5, s1=3).covers(position(s0=5))
    assert not position(s0=5).covers(position(s0=5, s1=1))
    assert not position(s0=4).covers(position(s0=5))


# --- values --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "text", "value", "shown"),
    [
        (ColumnType.INTEGER, "-42", -42, -42),
        (ColumnType.AMOUNT, "-" + "9" * 38, -(10**38) + 1, "-" + "9" * 38),
        (ColumnType.TOTAL, "9" * 57, 10**57 - 1, "9" * 57),
        (ColumnType.TEXT, "a'b", "a'b", "a'b"),
        (ColumnType.TIME, "1970-01-01T00:00:01.5Z", 1_500_000, "1970-01-01T00:00:01.500000Z"),
        (ColumnType.TIME, "1970-01-02", 86_400_000_000, "1970-01-02T00:00:00.000000Z"),
        (ColumnType.TIME, "1970-01-01t02:00:00+02:00", 0, "1970-01-01T00:00:00.000000Z"),
        (ColumnType.DATE, "1969-12-31", -1, "1969-12-31"),
        (ColumnType.BOOLEAN, "true", True, True),
        (ColumnType.BYTES, "00ff", b"\0\xff", "00ff"),
    ],
)
def test_a_value_is_read_and_shown_by_its_type(
    kind: ColumnType, text: str, value: Any, shown: Any
) -> None:
    assert read_value(text, kind, 128, "/x") == value
    assert show(value, kind) == shown


def test_json_is_shown_as_what_it_says_and_null_as_null() -> None:
    assert show('{"a":[1]}', ColumnType.JSON) == {"a": [1]}
    assert show(None, ColumnType.AMOUNT) is None


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (ColumnType.INTEGER, str(2**63)),
        (ColumnType.INTEGER, "1_000"),
        (ColumnType.AMOUNT, "9" * 39),
        (ColumnType.AMOUNT, "+1"),
        (ColumnType.TOTAL, "1" * 58),
        (ColumnType.TEXT, "x" * 129),
        (ColumnType.TIME, "2026-11-20T10:00:00"),
        (ColumnType.TIME, "2026-13-20T10:00:00Z"),
        (ColumnType.TIME, "9999-12-31T23:59:59-23:59"),
        (ColumnType.DATE, "2026-02-29"),
        (ColumnType.DATE, "20260228"),
        (ColumnType.BOOLEAN, "1"),
        (ColumnType.BYTES, "0"),
        (ColumnType.BYTES, "00" * 129),
        (ColumnType.JSON, "{}"),
    ],
)
def test_a_value_of_another_type_is_refused_with_what_is_wanted(
    kind: ColumnType, text: str
) -> None:
    with pytest.raises(Malformed) as caught:
        read_value(text, kind, 128, "/query/x")
    assert caught.value.pointer == "/query/x"
    assert len(caught.value.detail) < 160
