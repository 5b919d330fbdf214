"""The contract of domains, as tests to inherit (`docs/writing-a-domain.md`).

    class TestShop(DomainSuite):
        domain = "shop.domain:DOMAIN"
        commands = st.builds(command, st.just("shop.sell"), …, key=st.sampled_from("ab"))

Hypothesis plays random scripts of these commands.  The more often they meet (few keys,
small numbers), the more they find.  Beside these tests a domain wants some of its own,
about what its numbers mean.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Final

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from ultraengine.model.domain import Domain
from ultraengine.model.errors import EngineError
from ultraengine.model.outcome import Status
from ultraengine.testing.determinism import check_determinism, check_trace, trace_script
from ultraengine.testing.refusal import Refused
from ultraengine.testing.rehearsal import Rehearsal
from ultraengine.testing.sandbox import sandboxed
from ultraengine.testing.scripts import SETTINGS, Scripted
from ultraengine.testing.source_check import check_domain

SCRIPTS_COMPARED: Final = 30
"""Scripts that are played in other processes too."""
_HANDLERS: Final = ("decide", "decide_item", "guard", "fold", "dry_run", "linked", "items")


class Poison(Exception):
    """Raised in place of an answer."""


class DomainSuite(Scripted):
    """Tests for one domain: give ``domain`` and ``commands``."""

    unreached: ClassVar[Iterable[str]] = ()
    """Names of commands that random scripts cannot be expected to have accepted."""
    allow: ClassVar[Iterable[str]] = ()
    """Modules that the domain may import besides those known to be deterministic."""

    @SETTINGS
    @given(data=st.data())
    def test_only_evolve_changes_the_state(self, data: st.DataObject) -> None:
        """Deciding, focusing, expiring and checking read; nothing that is dumped changes."""
        watch = _Watch(self.loaded())
        rehearsal = Rehearsal(watch.domain)
        for line in data.draw(self.scripts()):
            rehearsal.play(line)
            list(rehearsal.executor.check())
            if watch.broken:
                raise AssertionError(f"{watch.broken[0]} changed the state at {line}")
            # Marked each time, so that counting a change of what did not change shows too.
            watch.mark()

    @SETTINGS
    @given(data=st.data())
    def test_a_command_that_is_not_accepted_changes_nothing(self, data: st.DataObject) -> None:
        """Rejected or refused: state, versions and timers stay as they were."""
        rehearsal = Rehearsal(self.loaded())
        for line in data.draw(self.scripts()):
            rehearsal.wait(line)
            before = rehearsal.dump()
            answer = rehearsal.act(line)
            accepted = (
                not isinstance(answer, EngineError) and answer.outcome.status == Status.ACCEPTED
            )
            if not accepted and rehearsal.dump() != before:
                raise AssertionError(f"{line} was not accepted and changed the state: {answer!r}")

    @SETTINGS
    @given(data=st.data())
    def test_a_lane_does_what_deciding_item_by_item_does(self, data: st.DataObject) -> None:
        """Outcomes, history and state are the same with and without the domain's lanes."""
        domain = self.loaded()
        with_lanes, without = Rehearsal(domain), Rehearsal(_plain(domain))
        for line in data.draw(self.scripts()):
            answers = []
            for rehearsal in (with_lanes, without):
                rehearsal.wait(line)
                answers.append(rehearsal.act(line))
            first, second = answers
            if isinstance(first, EngineError) or isinstance(second, EngineError):
                if str(first) != str(second):
                    raise AssertionError(f"{line}: {first!r} with lanes, {second!r} without")
            elif (first.outcome, first.result) != (second.outcome, second.result):
                raise AssertionError(f"{line}: {first.outcome} with lanes, {second.outcome} not")
        if with_lanes.dump() != without.dump():
            raise AssertionError("lanes lead to another state")

    @SETTINGS
    @given(data=st.data())
    def test_recorded_events_evolve_alike_with_and_without_lanes(self, data: st.DataObject) -> None:
        """History, state, its changes and timers are the same with and without the domain's lanes,
        group by group."""
        domain = self.loaded()
        rehearsal = Rehearsal(domain)
        for line in data.draw(self.scripts()):
            rehearsal.play(line)
        size = data.draw(st.integers(2, 6))
        found, wanted = (rehearsal.regrouped(one, size) for one in (domain, _plain(domain)))
        if _ended(found) != _ended(wanted):
            raise AssertionError(f"groups of {size} outcomes lead to another state with lanes")

    @SETTINGS
    @given(data=st.data())
    def test_a_handler_that_raises_changes_nothing(self, data: st.DataObject) -> None:
        """A poison command is answered with INTERNAL, and that is all."""
        script = data.draw(self.scripts())
        poisoned = data.draw(st.integers(0, len(script) - 1))
        switch = _Switch(self.loaded())
        rehearsal = Rehearsal(switch.domain)
        for number, line in enumerate(script):
            rehearsal.wait(line)
            before = rehearsal.dump()
            switch.on, switch.raised = number == poisoned, False
            answer = rehearsal.act(line)
            if isinstance(answer, EngineError) or not switch.raised:
                continue
            if answer.outcome.status == Status.ACCEPTED:
                raise AssertionError(f"{line} was accepted although its handler raised")
            if rehearsal.dump() != before:
                raise AssertionError(f"{line} raised and changed the state")

    @SETTINGS
    @given(data=st.data())
    def test_no_command_makes_a_handler_raise(self, data: st.DataObject) -> None:
        """What passes the schema is accepted or rejected, with a code that is not INTERNAL."""
        rehearsal = Rehearsal(self.loaded())
        for line in data.draw(self.scripts()):
            answer = rehearsal.play(line)
            if not isinstance(answer, EngineError) and answer.error is not None:
                raise AssertionError(f"{line} made its handler raise") from answer.error

    @SETTINGS
    @given(data=st.data())
    def test_replay_and_restart_reach_the_same_state(self, data: st.DataObject) -> None:
        """Evolved recorded events, and a dump loaded half-way, end where deciding ended."""
        script = data.draw(self.scripts())
        check_trace(script, trace_script(self.loaded(), script))

    @SETTINGS
    @given(data=st.data())
    def test_changes_on_top_of_a_dump_are_the_dump_now(self, data: st.DataObject) -> None:
        """``mark`` at some command, the changes at the end: an incremental snapshot."""
        domain = self.loaded()
        rehearsal = Rehearsal(domain)
        script = data.draw(self.scripts())
        marked = data.draw(st.integers(0, len(script)))
        for line in script[:marked]:
            rehearsal.play(line)
        restored = rehearsal.restored()
        for state in _states(rehearsal).values():
            domain.mark(state)
        for line in script[marked:]:
            rehearsal.play(line)
        for slot, state in _states(rehearsal).items():
            target = restored.executor.state(slot, 0)
            for chunk in list(domain.changes(state)):
                domain.load(target, chunk, domain.schema)
            found, wanted = list(domain.dump(target)), list(domain.dump(state))
            if found != wanted:
                raise AssertionError(
                    f"a dump before command {marked} with the changes since is not the dump now: "
                    f"found {found!r}, wanted {wanted!r}"
                )

    @SETTINGS
    @given(data=st.data())
    def test_its_own_check_finds_nothing(self, data: st.DataObject) -> None:
        """The domain's invariants hold after every command."""
        rehearsal = Rehearsal(self.loaded())
        for line in data.draw(self.scripts()):
            rehearsal.play(line)
            for sentence in rehearsal.executor.check():
                raise AssertionError(f"after {line}: {sentence}")

    @SETTINGS
    @given(data=st.data())
    def test_it_stays_in_its_sandbox(self, data: st.DataObject) -> None:
        """No clock, no chance, no files, no threads while commands run."""
        rehearsal = Rehearsal(sandboxed(self.loaded()))
        for line in data.draw(self.scripts()):
            answer = rehearsal.play(line)
            error = None if isinstance(answer, EngineError) else answer.error
            if isinstance(error, Refused):
                raise error

    def test_its_source_has_nothing_that_differs_elsewhere(self) -> None:
        """Imports, builtins, set order, sums of floats (`testing.source_check`)."""
        findings = check_domain(self.loaded(), allow=self.allow)
        if findings:
            raise AssertionError("\n".join(map(str, findings)))

    def test_two_processes_agree(self) -> None:
        """Under two hash seeds, with and without compiled parts, command by command."""
        check_determinism(self.domain, self.collected()[:SCRIPTS_COMPARED])

    def test_the_commands_of_this_suite_reach_something(self) -> None:
        """Else all the others would pass without looking: each is accepted at least once."""
        accepted = {spec.name: 0 for spec in self.loaded().commands}
        accepted.update(dict.fromkeys(self.unreached, 1))
        for script in self.collected():
            rehearsal = Rehearsal(self.loaded())
            for line in script:
                answer = rehearsal.play(line)
                if not isinstance(answer, EngineError) and answer.outcome.status == Status.ACCEPTED:
                    accepted[line.type.partition(".")[2].partition("@")[0]] += 1
        missing = sorted(name for name, count in accepted.items() if not count)
        if missing:
            raise AssertionError(f"no script has an accepted command of {', '.join(missing)}")


def _states(rehearsal: Rehearsal) -> dict[int, Any]:
    """The only domain's state by slot."""
    slots = rehearsal.executor.slots.items()
    return {slot: image.states[0] for slot, image in slots if image.states[0] is not None}


def _ended(rehearsal: Rehearsal) -> Any:
    """All that replaying leaves behind, marks of what the next snapshot has to hold included."""
    executor = rehearsal.executor
    (domain,) = rehearsal.registry.domains
    return (
        rehearsal.dump(),
        rehearsal.history.payloads,
        (executor.applied_end, executor.time, executor.next_due()),
        [
            (slot, image.due, image.changed, sorted(image.versions_changed))
            for slot, image in sorted(executor.slots.items())
        ],
        [list(domain.changes(state)) for _, state in sorted(_states(rehearsal).items())],
    )


class _Altered:
    """A domain with functions of its commands put into others; the rest is passed on."""

    def __init__(self, domain: Domain, wrap: Callable[[str, Any], Any], **methods: Any) -> None:
        self._domain = domain
        self._methods = methods
        self.commands = [
            msgspec.structs.replace(
                spec,
                **{
                    name: wrap(name, getattr(spec, name))
                    for name in _HANDLERS
                    if getattr(spec, name) is not None
                },
                # A lane would go round the functions that were altered.
                lane=None,
                single=None,
                recorded=None,
            )
            for spec in domain.commands
        ]

    def __getattr__(self, name: str) -> Any:
        return self._methods.get(name) or getattr(self._domain, name)


def _plain(domain: Domain) -> Any:
    """The domain without its lanes."""
    return _Altered(domain, lambda _name, function: function)


class _Watch:
    """Looks at all slot states before and after every function but ``evolve``."""

    def __init__(self, domain: Domain) -> None:
        readers = ("focus", "due", "expire", "check")
        self.domain: Any = _Altered(
            domain,
            self._wrap,
            new_state=self._new_state,
            **{name: self._wrap(name, getattr(domain, name)) for name in readers},
        )
        self.broken: list[str] = []
        self._states: list[Any] = []
        """All slot states made."""
        self._original = domain

    def _new_state(self) -> Any:
        state = self._original.new_state()
        self._states.append(state)
        return state

    def mark(self) -> None:
        """Start counting changes anew."""
        for state in self._states:
            self._original.mark(state)

    def _content(self) -> list[Sequence[bytes]]:
        original = self._original
        return [
            [*original.dump(state), b"changes", *original.changes(state)] for state in self._states
        ]

    def _wrap(self, name: str, function: Any) -> Any:
        def watched(*arguments: Any) -> Any:
            before = self._content()
            try:
                return function(*arguments)
            finally:
                if self._content() != before:
                    self.broken.append(name)

        return watched


class _Switch:
    """Makes the deciding function raise, after it has done its work."""

    def __init__(self, domain: Domain) -> None:
        self.domain: Any = _Altered(domain, self._wrap)
        self.on = False
        self.raised = False

    def _wrap(self, name: str, function: Any) -> Any:
        if name not in ("decide", "decide_item"):
            return function

        def poisoned(*arguments: Any) -> Any:
            answer = function(*arguments)
            if self.on:
                self.raised = True
                raise Poison
            return answer

        return poisoned
