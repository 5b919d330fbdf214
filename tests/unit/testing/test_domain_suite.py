"""The contract of domains finds what it is for: each wrong domain fails its sentence."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from ultraengine.execution.pipeline import EvolveFailed
from ultraengine.testing.determinism import check_determinism, describe
from ultraengine.testing.domain_suite import DomainSuite
from ultraengine.testing.refusal import Refused
from ultraengine.testing.rehearsal import Rehearsal, command, load_domain
from ultraengine.testing.sandbox import sandboxed

ADD = st.builds(
    command,
    st.just("tally.add"),
    st.fixed_dictionaries({"n": st.integers(-5, 20) | st.just(500)}),
    key=st.sampled_from(["a", "b"]),
)
SET = st.builds(
    command,
    st.just("alarms.set"),
    st.fixed_dictionaries(
        {"alarms": st.lists(st.integers(-1, 5), max_size=4)}, optional={"dry": st.booleans()}
    ),
    key=st.sampled_from(["a", "b"]),
)


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3]))


class TestARightDomain(DomainSuite):
    domain = "tests.unit.testing.right_domains:RIGHT"
    commands = ADD


class TestARightDomainWithTimersAndItems(DomainSuite):
    domain = "tests.unit.testing.right_domains:ALARMS"
    commands = SET


WRONG = [
    ("DECIDE_WRITES", "test_only_evolve_changes_the_state", "decide changed the state"),
    ("DECIDE_TOUCHES", "test_only_evolve_changes_the_state", "decide changed the state"),
    ("REJECTION_WRITES", "test_a_command_that_is_not_accepted_changes_nothing", "was not accepted"),
    ("RAISING_WRITES", "test_a_handler_that_raises_changes_nothing", "raised and changed"),
    ("RAISES", "test_no_command_makes_a_handler_raise", "made its handler raise"),
    ("EVOLVE_REMEMBERS", "test_replay_and_restart_reach_the_same_state", "another state"),
    ("EVOLVE_READS_DECISION", "test_replay_and_restart_reach_the_same_state", "another state"),
    ("DUMP_FORGETS", "test_replay_and_restart_reach_the_same_state", "from a dump"),
    ("LOAD_ADDS", "test_replay_and_restart_reach_the_same_state", "state after a restart"),
    ("FORGETS_TOUCH", "test_changes_on_top_of_a_dump_are_the_dump_now", "is not the dump now"),
    ("ANSWERS_HASH", "test_two_processes_agree", "outcome of command"),
    ("ANSWERS_HASH", "test_it_stays_in_its_sandbox", r"hash\(\) differs"),
    ("ANSWERS_HASH", "test_its_source_has_nothing_that_differs_elsewhere", r"hash\(\) differs"),
    ("ANSWERS_SET_ORDER", "test_two_processes_agree", "outcome of command"),
    ("KEEPS_SET_ORDER", "test_two_processes_agree", "state of command"),
    ("READS_CLOCK", "test_it_stays_in_its_sandbox", r"time\.time\(\) reads a clock"),
    ("READS_CLOCK", "test_its_source_has_nothing_that_differs_elsewhere", "import of time"),
    ("CHECK_WRITES", "test_only_evolve_changes_the_state", "check changed the state"),
    ("CHECK_FAILS", "test_its_own_check_finds_nothing", "holds"),
    ("NEVER_ACCEPTS", "test_the_commands_of_this_suite_reach_something", "command of add"),
    ("EXPIRE_WRITES", "test_only_evolve_changes_the_state", "expire changed the state"),
    ("FOLD_ACCEPTS", "test_a_handler_that_raises_changes_nothing", "although its handler raised"),
]


@pytest.mark.parametrize(("name", "test", "says"), WRONG)
def test_a_wrong_domain_fails(name: str, test: str, says: str) -> None:
    class Suite(DomainSuite):
        domain = f"tests.unit.testing.wrong_domains:{name}"
        commands = SET if name in ("EXPIRE_WRITES", "FOLD_ACCEPTS") else ADD

    function = getattr(DomainSuite, test)
    with pytest.raises(Exception, match=says):
        _unshrunk(function)(Suite()) if hasattr(function, "hypothesis") else function(Suite())


def test_a_command_that_cannot_be_reached_may_be_named() -> None:
    class Suite(DomainSuite):
        domain = "tests.unit.testing.wrong_domains:NEVER_ACCEPTS"
        commands = ADD
        unreached = ("add",)

    Suite().test_the_commands_of_this_suite_reach_something()


def _unshrunk(function: Any) -> Callable[[DomainSuite], None]:
    """The same property, which reports the first failure as it was found."""
    inner = function.hypothesis.inner_test

    def run(suite: DomainSuite) -> None:
        @settings(
            phases=[Phase.generate],
            max_examples=300,
            derandomize=True,
            database=None,
            deadline=None,
            report_multiple_bugs=False,
        )
        @given(data=st.data())
        def attempt(data: st.DataObject) -> None:
            inner(suite, data)

        attempt()

    return run


def test_an_evolve_by_chance_is_refused_where_it_happens() -> None:
    rehearsal = Rehearsal(sandboxed(load_domain("tests.unit.testing.wrong_domains:DRAWS_NUMBERS")))
    with pytest.raises(EvolveFailed) as failed:
        rehearsal.play(command("tally.add", {"n": 1}))
    assert isinstance(failed.value.__cause__, Refused)
    assert failed.value.__cause__.finding.within == "DrawsNumbers.evolve"


def test_a_difference_between_processes_names_the_command_and_both_outcomes() -> None:
    script = [command("tally.add", {"n": n}) for n in (500, 1, 2)]
    with pytest.raises(AssertionError) as differs:
        check_determinism("tests.unit.testing.wrong_domains:ANSWERS_HASH", [script])
    text = str(differs.value)
    assert "outcome of command 1" in text
    assert "under hash seed 1: {" in text
    assert "under hash seed 2: {" in text
    assert text.count("tally.add") == 4


def test_a_refused_command_is_part_of_what_is_compared() -> None:
    rehearsal = Rehearsal(load_domain("tests.unit.testing.right_domains:RIGHT"))
    text = describe(rehearsal, command("tally.add", {"n": 500}))
    assert text == "refused: MALFORMED /data/n too many"
    assert rehearsal.log == []


def test_timers_tick_in_bounded_batches_before_the_next_command() -> None:
    rehearsal = Rehearsal(load_domain("tests.unit.testing.right_domains:ALARMS"))
    rehearsal.play(command("alarms.set", {"alarms": [1, 1, 2, 2, 3]}))
    line = msgspec.structs.replace(command("alarms.set", {"alarms": [5]}), wait_us=2_500_000)
    rehearsal.play(line)
    types = [logged.type for logged, _, _ in rehearsal.log]
    assert types == ["alarms.set@1", "system.tick@1", "system.tick@1", "alarms.set@1"]
    start = rehearsal.log[0][2]
    assert [time - start for _, _, time in rehearsal.log] == [0, 1_000_000, 2_000_000, 2_500_000]
    assert [len(msgspec.msgpack.decode(o.events)) for _, o, _ in rehearsal.log] == [5, 2, 2, 1]


def test_a_domain_that_is_not_there_is_named() -> None:
    with pytest.raises(AttributeError, match="NOWHERE"):
        load_domain("tests.unit.testing.wrong_domains:NOWHERE")
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        load_domain("no_such_package.domain:DOMAIN")
