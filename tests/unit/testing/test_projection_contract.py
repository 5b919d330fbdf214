"""The contract of projections finds what it is for: each wrong one fails its sentence."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from ultraengine.model.errors import InvariantBroken
from ultraengine.projection.target import RowRefused
from ultraengine.testing.projection_tables import MemoryTables
from ultraengine.testing.projections import ProjectionContract
from ultraengine.testing.refusal import Refused
from ultraengine.testing.rehearsal import Rehearsal, command

ADD = st.builds(
    command,
    st.just("tally.add"),
    st.fixed_dictionaries({"n": st.integers(-5, 20) | st.just(500)}),
    key=st.sampled_from(["a", "b"]),
)
SET = st.builds(
    command,
    st.just("alarms.set"),
    st.fixed_dictionaries({"alarms": st.lists(st.integers(-1, 5), max_size=4)}),
    key=st.sampled_from(["a", "b"]),
)
MODULE = "tests.unit.testing.table_domains"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3]))


class TestRightTables(ProjectionContract):
    domain = f"{MODULE}:RIGHT"
    commands = ADD

    def verify(self, rehearsal: Rehearsal, tables: MemoryTables) -> None:
        held = {(row[0], row[1]): row[2] for row in tables.rows("tally")}
        found: dict[Any, int] = {}
        for tenant, key, _, n, *_ in tables.rows("addition"):
            found[tenant, key] = found.get((tenant, key), 0) + n
        assert held == found


class TestTablesOfTimers(ProjectionContract):
    domain = f"{MODULE}:TIMERS"
    commands = SET

    def verify(self, rehearsal: Rehearsal, tables: MemoryTables) -> None:
        assert {row[0] for row in tables.rows("ring")} <= {"t"}
        assert {row[1] for row in tables.rows("ring")} <= {"a", "b"}


class WrongMeaning(ProjectionContract):
    domain = f"{MODULE}:RIGHT"
    commands = ADD

    def verify(self, rehearsal: Rehearsal, tables: MemoryTables) -> None:
        raise AssertionError("not what the domain says")


DECLARED = "test_its_declarations_agree_with_themselves"
TYPES = "test_a_row_has_the_types_of_its_table"
PURE = "test_projecting_is_pure"
CUT = "test_cutting_the_events_into_batches_changes_nothing"
DATABASE = "test_a_database_that_guards_the_checks_refuses_nothing"
WRONG: list[tuple[str, str, type[Exception], str]] = [
    ("NOTHING_DECLARED", DECLARED, AssertionError, "has no attribute `projections`"),
    ("SAME_NAMES", DECLARED, InvariantBroken, "names of their own"),
    ("WRONG_TYPE", TYPES, AssertionError, "addition.n is float, not int"),
    ("NULL_THERE", TYPES, AssertionError, "addition.time is null"),
    ("WRONG_WIDTH", TYPES, AssertionError, "addition: 8 values for tenant, key"),
    ("LOOSE_JSON", TYPES, AssertionError, "addition.said does not fit"),
    ("TOO_LONG", TYPES, AssertionError, "tally.last_word does not fit: 'too long'"),
    ("REMEMBERS", PURE, AssertionError, "gives other rows"),
    ("CHANGES_EVENTS", PURE, AssertionError, "projecting changed Added"),
    ("LOOKS_AT_THE_CLOCK", PURE, Refused, "reads a clock"),
    ("WRITES_TWICE", CUT, AssertionError, "a fact is there twice"),
    ("CHANGES_WHAT_IS_NOT_THERE", CUT, AssertionError, "a row to be changed is not there"),
    ("REMEMBERS", CUT, AssertionError, "in one batch"),
    ("BREAKS_ITS_CHECK", DATABASE, RowRefused, "CHECK constraint failed: .*_total"),
    ("TOO_LONG", DATABASE, RowRefused, "CHECK constraint failed"),
    ("SHOWS_HASHES", "test_two_processes_agree", AssertionError, "hash seeds 1 and 2 differ"),
    (
        "WRITES_NOTHING",
        "test_the_commands_of_this_suite_reach_every_table",
        AssertionError,
        "no script writes a row of addition",
    ),
]


@pytest.mark.parametrize(
    ("domain", "sentence", "error", "reason"),
    WRONG,
    ids=[f"{domain} {sentence}" for domain, sentence, _, _ in WRONG],
)
def test_a_wrong_projection_fails_its_sentence(
    domain: str, sentence: str, error: type[Exception], reason: str
) -> None:
    suite = type("Suite", (ProjectionContract,), {"domain": f"{MODULE}:{domain}", "commands": ADD})
    with pytest.raises(error, match=reason):
        getattr(suite(), sentence)()


def test_what_rows_mean_is_asked_of_every_script() -> None:
    with pytest.raises(AssertionError, match="not what the domain says"):
        WrongMeaning().test_the_rows_mean_what_the_domain_says()
