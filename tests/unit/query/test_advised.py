"""What is tried is what `ultra query` would run, with values from the data."""

from typing import Any

import msgspec
import pytest
from tests.unit.advice.worlds import BY_CODE, NOW, asker, report

from ultraengine.advice.recorder import ShapeReport, Usage
from ultraengine.advice.trial import NotAsked, Question, needed
from ultraengine.model.ids import Instant
from ultraengine.projection.target import ProjectionSet, SetState

OF = ProjectionSet("ledger", 1, 3, SetState.SERVING, NOW, Instant(0))
ASKER = asker("sqlite:///here.db")
NEWEST = ("booked_at desc", "transfer desc")


def shape(*filters: tuple[str, str], order: tuple[str, ...] = NEWEST) -> ShapeReport:
    usage = Usage("ledger", "ledger.transfers", "transfer", ("book",), filters, order)
    return report(usage).shapes[0]


def row(number: int) -> dict[str, Any]:
    return {
        "tenant": f"t{number}", "book": f"b{number}", "code": f"code-{number}",
        "amount": 10 * number, "reference": "INV-77",
    }  # fmt: skip


def ask(one: ShapeReport, *numbers: int) -> Question:
    return ASKER.question(one, OF, [row(number) for number in numbers or (1,)])


def test_a_question_is_the_statement_of_the_read() -> None:
    asked = ask(shape(("code", "eq")), 1, 2)
    assert '"ledger_transfer__v1_b3" WHERE "tenant" = ?1' in asked.text
    assert 'ORDER BY "booked_at" DESC, "transfer" DESC LIMIT 101' in asked.text
    assert asked.values == ("t1", "b1", "code-1")


def test_lists_take_values_of_all_rows_and_each_once() -> None:
    assert ask(shape(("code", "in")), 1, 2, 1).values == ("t1", "b1", "code-1", "code-2")


def test_bounds_are_an_interval_where_there_are_both() -> None:
    assert ask(shape(("amount", "gte"), ("amount", "lt")), 5, 2, 9).values[2:] == (20, 90)
    assert ask(shape(("amount", "gte")), 5, 2, 9).values[2:] == (50,)


def test_a_prefix_is_the_first_half_of_a_value() -> None:
    assert ask(shape(("reference", "prefix"))).values[2:] == ("INV", "INW")


def test_without_an_order_there_is_none() -> None:
    assert "ORDER BY" not in ask(shape(("code", "eq"), order=())).text


def test_what_is_not_declared_any_more_is_not_asked() -> None:
    gone = report(Usage("ledger", "ledger.gone", "transfer")).shapes[0]
    moved = msgspec.structs.replace(report(BY_CODE).shapes[0], table="entry")
    computed = report(Usage("ledger", "ledger.turnover", "")).shapes[0]
    for one in (gone, moved, computed):
        with pytest.raises(NotAsked, match="any more"):
            ask(one)
    with pytest.raises(NotAsked, match="no order by code"):
        ask(shape(order=("code",)))
    with pytest.raises(NotAsked, match="no order by booked_at"):
        ask(shape(order=("booked_at desc",)))


def test_computed_reads_are_known_by_name() -> None:
    assert set(ASKER.computed) == {
        "ledger.statement", "ledger.trial-balance", "ledger.turnover",
    }  # fmt: skip
    assert needed(shape(("code", "eq"))) == ("tenant", "book", "code")
