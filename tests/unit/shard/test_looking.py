"""A query of a copy is answered from its state, with the position that it is of."""

from typing import Any

import pytest
from tests.unit.domains.ledger.conftest import LedgerBench

from ultraengine.domains.counter import DOMAIN as COUNTER
from ultraengine.domains.ledger import DOMAIN as LEDGER
from ultraengine.domains.ledger.queries import QUERIES
from ultraengine.model.errors import EngineError
from ultraengine.model.ids import slot_of
from ultraengine.shard.following.looking import look
from ultraengine.testing.memory import Bench


def test_an_answer_without_history_is_what_was_captured() -> None:
    bench = Bench(COUNTER)
    bench.run("counter.add", {"delta": 3})
    (spec,) = COUNTER.queries
    answer, end = look(spec, COUNTER.name, "t", "k", spec.params())(bench.executor)
    assert (answer.value, end) == (3, 1)


def test_an_answer_as_of_an_offset_reads_the_history() -> None:
    bench = LedgerBench()
    bench.open("a", min_balance=None)
    bench.open("b")
    for amount in (5, 7):
        assert bench.move(f"t{amount}", "a", "b", amount) == "posted"
    spec = next(one for one in QUERIES if one.path == "{key}/accounts/{id}")
    before = look(spec, LEDGER.name, "t", "k", spec.params(id="b", at_offset=2))
    answer, end = before(bench.executor)
    assert (str(answer.balance), end) == ("5", 4)


def test_an_offset_of_a_book_that_has_moved_is_refused() -> None:
    bench = LedgerBench()
    bench.open("a")
    spec = next(one for one in QUERIES if one.path == "{key}/accounts/{id}")

    class Elsewhere:
        def names(self, _point: int) -> bool:
            return False

    image: Any = bench.executor.slots[slot_of("t", "k")]
    image.lineage = Elsewhere()
    with pytest.raises(EngineError, match="moved between shards") as refused:
        look(spec, LEDGER.name, "t", "k", spec.params(id="a", at_offset=0))(bench.executor)
    assert refused.value.code == "MALFORMED"
