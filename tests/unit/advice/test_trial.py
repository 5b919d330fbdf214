"""What follows from measurements: gains, verdicts, plans, policies."""

from typing import Any

import msgspec
import pytest
from tests.unit.advice.worlds import BY_CODE, BY_COUNTERPARTY, report

from ultraengine.advice.policy import Policy, admitted, of_limits, parse
from ultraengine.advice.suggest import Candidate, evidence_of
from ultraengine.advice.trial import (
    Measured,
    ShapeTrial,
    Trial,
    Verdict,
    WriteCost,
    averaged,
    gains,
    judged,
    needed,
    notes_of,
    postgres_plan,
    ratio,
    settled,
    sqlite_plan,
)
from ultraengine.model.errors import Malformed
from ultraengine.model.limits import DEFAULT_ADVICE_LIMITS, AdviceLimits
from ultraengine.model.projection import TableKind

SHAPE, OTHER = report(BY_CODE, BY_COUNTERPARTY).shapes


def measured(work: float, seconds: float, *indexes: str) -> Measured:
    return Measured(work=work, seconds=seconds, indexes=indexes, plan=f"plan of {work}")


def tried(before: float, after: float, *, used: bool = True, calls: int = 10) -> ShapeTrial:
    return ShapeTrial(
        read="r",
        calls=calls,
        before=measured(before, before / 1e3),
        after=measured(after, after / 1e3),
        used=used,
    )


def cost(share: float) -> WriteCost:
    return WriteCost(rows=10, seconds_before=1.0, seconds_after=1.0 + share)


def candidate(*columns: str, shapes: Any = (SHAPE,), table: str = "transfer") -> Candidate:
    why = tuple(evidence_of(one, 10.0) for one in shapes)
    return Candidate("ledger", table, ("tenant", *columns), tuple(shapes), why)


def trial(
    verdict: Verdict = Verdict.KEEP, gain: float = 5.0, share: float | None = 0.1, **more: Any
) -> Trial:
    return Trial(
        candidate=more.pop("candidate", candidate("code")),
        verdict=verdict,
        reason="because",
        gain=gain,
        write=None if share is None else cost(share),
    )


def test_gains_weigh_shapes_by_their_calls() -> None:
    assert gains([tried(100, 10, calls=90), tried(10, 10, calls=10)]) == (9.1, 9.1)
    assert gains([tried(100, 10, calls=0), tried(10, 10, calls=0)]) == (5.5, 5.5)
    assert ratio(1.0, 0.0) == 1e9


@pytest.mark.parametrize(
    ("shapes", "share", "verdict", "reason"),
    [
        ([tried(100, 10)], 0.1, Verdict.KEEP, "10 times less work"),
        ([tried(100, 10, used=False)], 0.1, Verdict.NO_GAIN, "no plan uses it"),
        ([tried(100, 60)], 0.1, Verdict.NO_GAIN, "1.67 times less work is below gain_min (2)"),
        (
            [tried(100, 10)], 0.9, Verdict.TOO_DEAR,
            "inserts take 90% longer, more than write_cost_max (50%)",
        ),
    ],
)  # fmt: skip
def test_a_verdict_has_its_reason(
    shapes: list[ShapeTrial], share: float, verdict: Verdict, reason: str
) -> None:
    assert judged(shapes, cost(share), DEFAULT_ADVICE_LIMITS) == (verdict, reason)


def test_less_work_that_takes_longer_is_no_gain() -> None:
    slower = msgspec.structs.replace(tried(100, 10), after=measured(10, 1.0))
    verdict, reason = judged([slower], cost(0), DEFAULT_ADVICE_LIMITS)
    assert (verdict, reason) == (
        Verdict.NO_GAIN,
        "less work, but 0.1 times less time is not above time_gain_min (1)",
    )
    work_alone = AdviceLimits(time_gain_min=0.0)
    assert judged([slower], cost(0), work_alone) == (Verdict.KEEP, "10 times less work")


def test_an_average_has_the_plan_of_the_dearest_and_every_index() -> None:
    found = averaged([measured(1, 0.3, "b"), measured(5, 0.1, "a", "b"), measured(3, 0.2)])
    assert (found.work, found.seconds, found.indexes) == (3.0, 0.2, ("a", "b"))
    assert found.plan == "plan of 5"


def test_of_two_for_the_same_shapes_the_better_one_stays() -> None:
    better, worse = candidate("code", "booked_at"), candidate("code", "amount")
    both = candidate("book", shapes=(SHAPE, OTHER))
    elsewhere = candidate("code", table="entry")
    found = settled([
        trial(gain=3.0, candidate=worse), trial(gain=9.0, candidate=better),
        trial(gain=2.5, candidate=both), trial(gain=2.0, candidate=elsewhere),
        trial(Verdict.NO_GAIN, gain=1.0, candidate=candidate("status")),
    ])  # fmt: skip
    verdicts = {(*one.candidate.columns, one.candidate.table): one for one in found}
    assert verdicts["tenant", "code", "booked_at", "transfer"].verdict is Verdict.KEEP
    lost = verdicts["tenant", "code", "amount", "transfer"]
    assert lost.verdict is Verdict.NO_GAIN
    assert lost.reason == "its shapes gain more from (tenant, code, booked_at)"
    assert verdicts["tenant", "book", "transfer"].verdict is Verdict.KEEP
    assert verdicts["tenant", "code", "entry"].verdict is Verdict.KEEP
    assert found[0].candidate == both


def test_a_question_needs_the_tenant_the_path_and_the_filters() -> None:
    assert needed(SHAPE) in {
        ("tenant", "book", "code"), ("tenant", "book", "account", "counterparty"),
    }  # fmt: skip


def test_an_index_over_what_changes_in_place_is_noted() -> None:
    moving = candidate("book", "balance")
    key = ("tenant", "book", "account")
    (note,) = notes_of(moving, TableKind.CURRENT, key)
    assert "each change of balance " in note
    assert notes_of(moving, TableKind.APPEND, key) == ()
    assert notes_of(candidate("book"), TableKind.CURRENT, key) == ()


def test_a_plan_of_sqlite_is_read() -> None:
    rows = [
        (2, 0, 0, "SEARCH t USING COVERING INDEX ultra_tried (tenant=?)"),
        (5, 2, 0, "LIST SUBQUERY 1"),
        (7, 0, 0, "SCAN u"),
        (9, 0, 0, "SEARCH t USING INDEX ultra_tried (tenant=?)"),
    ]
    text, used = sqlite_plan(rows)
    assert text.splitlines()[:3] == [rows[0][3], "  LIST SUBQUERY 1", "SCAN u"]
    assert used == ("ultra_tried",)


def test_a_plan_of_postgres_is_read() -> None:
    scan = {
        "Node Type": "Index Scan", "Index Name": "ultra_tried", "Relation Name": "t",
        "Actual Rows": 4, "Actual Loops": 2, "Rows Removed by Filter": 6,
    }  # fmt: skip
    top = {
        "Node Type": "Limit", "Actual Rows": 3, "Actual Loops": 1, "Plans": [scan],
        "Shared Hit Blocks": 5, "Local Read Blocks": 2,
    }  # fmt: skip
    text, used, work = postgres_plan([{"Plan": top}])
    assert text == "Limit (3 rows)\n  Index Scan ultra_tried (8 rows, 12 more looked at)"
    assert (used, work) == (("ultra_tried",), 9.0)


# --- policies ---------------------------------------------------------------------------------


def test_a_policy_is_the_limits_but_for_what_it_says() -> None:
    limits = AdviceLimits(gain_min=4.0, indexes_per_table_max=7)
    assert parse("write_cost_max = 0.25", limits) == Policy(4.0, 0.25, 7)
    assert of_limits(limits) == parse("", limits)


@pytest.mark.parametrize(
    "text",
    ["gain_min = ", "gain_max = 3", "gain_min = 'much'", "gain_min = 0.5", "write_cost_max = -1",
     "indexes_per_table_max = -1", "indexes_per_table_max = 1.5"],
)  # fmt: skip
def test_a_policy_that_cannot_be_meant_is_refused(text: str) -> None:
    with pytest.raises(Malformed, match="policy"):
        parse(text, DEFAULT_ADVICE_LIMITS)


def test_a_policy_lets_through_what_brings_enough_and_counts_what_there_is() -> None:
    policy = Policy(gain_min=3.0, write_cost_max=0.2, indexes_per_table_max=2)
    small, dear = trial(gain=2.5), trial(share=0.3)
    through = trial(share=None)
    more = trial(candidate=candidate("status"))
    dropped = trial(Verdict.NO_GAIN)
    found = admitted([dropped, small, dear, through, more], policy, {("ledger", "transfer"): ["a"]})
    assert found.trials == (through,)
    assert [why for _, why in found.refused] == [
        "a gain of 2.5 is below gain_min (3)",
        "a write cost of 30% is above write_cost_max (20%)",
        "transfer has 2 added indexes, indexes_per_table_max is 2",
    ]
    assert admitted([more], policy, {}).trials == (more,)
