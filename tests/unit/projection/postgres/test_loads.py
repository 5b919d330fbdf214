"""What a COPY sends: tables in turn, rows in the order of the key, the next table in time."""

import msgspec
from tests.unit.projection.shop import SALE, T0, TOTAL, ShopTables

from ultraengine.projection.fold import Batch
from ultraengine.projection.postgres import rows as wire
from ultraengine.projection.postgres.dialect import SHAPE
from ultraengine.projection.postgres.loads import PIECE_ROWS, Load, loads_of

DAY = T0 // 86_400_000_000


def sale(number: int) -> tuple[object, ...]:
    return ("acme", 0, number, 0, "shop-1", "pen", 5, "till-1", T0)


def total(item: str, amount: int) -> tuple[object, ...]:
    return ("acme", item, DAY, amount, amount, 1)


def batch() -> Batch:
    made = Batch(ShopTables().tables)
    for number in (3, 1, 2):
        made.append("sale", sale(number))
    made.put("total", total("pen", 5))
    made.put("total", total("ink", 7))
    made.change("total", ("acme", "nib", DAY), {"last": 9})
    return made


def data(load: Load) -> bytes:
    return b"".join(load.pieces(None))


def test_facts_come_first_and_tables_without_rows_not_at_all() -> None:
    assert [load.table.name for load in loads_of((TOTAL, SALE), batch())] == ["sale", "total"]
    assert loads_of((SALE, TOTAL), Batch((SALE, TOTAL))) == []
    only = Batch((SALE, TOTAL))
    only.change("total", ("acme", "nib", DAY), {"last": 9})
    assert [load.table.name for load in loads_of((SALE, TOTAL), only)] == ["total"]


def test_rows_of_facts_are_sent_in_the_order_of_their_key() -> None:
    facts, _ = loads_of((SALE, TOTAL), batch())
    columns = wire.kinds(SALE.columns)
    ordered = wire.plain_encode(wire.lead(9), columns, [sale(1), sale(2), sale(3)])
    assert data(facts) == wire.SIGNATURE + ordered + wire.TRAILER
    assert tuple(facts.columns) == tuple(SALE.names)


def test_rows_of_a_table_that_a_column_leads_are_sent_in_the_order_of_its_key_in_the_database() -> (
    None
):
    table = msgspec.structs.replace(TOTAL, led_by="item")
    made = Batch((table,))
    for tenant, item in (("beta", "ink"), ("acme", "pen"), ("acme", "ink")):
        made.put("total", (tenant, item, DAY, 1, 1, 1))
    (load,) = loads_of((table,), made)
    columns = wire.kinds(TOTAL.columns)
    ordered = [("acme", "ink", DAY, 1, 1, 1), ("beta", "ink", DAY, 1, 1, 1),
               ("acme", "pen", DAY, 1, 1, 1)]  # fmt: skip
    sent = wire.plain_encode(wire.lead(7, 0), columns, ordered)
    assert data(load) == wire.SIGNATURE + sent + wire.TRAILER


def test_rows_of_current_state_say_their_shape() -> None:
    _, current = loads_of((SALE, TOTAL), batch())
    columns = wire.kinds(TOTAL.columns)
    whole = wire.plain_encode(wire.lead(7, 0), columns, [total("ink", 7), total("pen", 5)])
    changed = wire.plain_encode(wire.lead(7, 1), columns, [("acme", "nib", DAY, None, None, 9)])
    assert data(current) == wire.SIGNATURE + whole + changed + wire.TRAILER
    assert list(current.changes) == [(5,)]
    assert tuple(current.columns) == (SHAPE, *TOTAL.names)


def test_the_next_table_is_put_in_order_while_the_server_has_rows_to_insert() -> None:
    made = Batch((SALE, TOTAL))
    for number in range(PIECE_ROWS + 1):
        made.append("sale", sale(number))
    made.change("total", ("acme", "nib", DAY), {"last": 9})
    facts, current = loads_of((SALE, TOTAL), made)
    pieces = facts.pieces(current)
    assert next(pieces) == wire.SIGNATURE
    for _ in range(2):
        next(pieces)
        assert current.changes == {}
    assert next(pieces) == wire.TRAILER
    assert list(current.changes) == [(5,)]
    in_order = current.changes
    current.put_in_order()
    assert current.changes is in_order
