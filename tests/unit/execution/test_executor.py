"""Execution: what is decided, evolved, recorded and replayed, with a domain made to misbehave."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import pytest

from ultraengine.execution.pipeline import EvolveFailed, Hooks, Verdict
from ultraengine.execution.registry import Registry, handlers_digest
from ultraengine.execution.system import EpochStart, Skip, Tick, system_command
from ultraengine.model.command import Command
from ultraengine.model.domain import Accepted, CommandSpec, Rejection
from ultraengine.model.errors import EngineError, InvariantBroken, Malformed
from ultraengine.model.ids import Epoch, Instant, Offset
from ultraengine.model.outcome import Failure, Status
from ultraengine.testing.memory import START, Bench


class Put(msgspec.Struct, forbid_unknown_fields=True):
    value: int
    how: str = "plain"
    dry_run: bool = False


class Item(msgspec.Struct, forbid_unknown_fields=True):
    value: int
    linked: bool = False


class Many(msgspec.Struct, forbid_unknown_fields=True):
    items: list[Item]
    how: str = "plain"
    dry_run: bool = False


class Stored(msgspec.Struct, array_like=True, tag=1, frozen=True):
    value: Any
    total: int


class Box:
    """State of one slot: per (tenant, key) a list of values; ``due`` is set by tests."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, str], list[int]] = {}
        self.timers: list[tuple[int, str, str]] = []


class Part:
    def __init__(self, values: list[int], box: Box, key: tuple[str, str]) -> None:
        self.values, self.box, self.key = values, box, key


def decide(state: Part, data: Put, context: Any) -> Accepted | Rejection:
    if data.how == "reject":
        return Rejection("no_thanks", "rule 7", "/data/how")
    if data.how == "raise":
        raise ZeroDivisionError
    if data.how == "unencodable":
        return Accepted([Stored(object(), 0)])
    if data.how == "bad_evolve":
        return Accepted([Stored(-1, 0)])
    if data.how == "random":
        return Accepted([Stored(context.random.randrange(10**9), len(state.values))])
    if data.how == "send":
        context.send(tenant="t", key="other", type="box.put", id=context.new_id(), data={"a": 1})
    if data.how == "send_and_reject":
        context.send(tenant="t", key="other", type="box.put", id="x", data={})
        return Rejection("changed_my_mind")
    return Accepted([Stored(data.value, len(state.values))], {"n": len(state.values) + 1})


def decide_item(state: Part, item: Item, _context: Any) -> Stored | Rejection:
    if item.value < 0:
        return Rejection("negative", pointer="/value")
    if item.value == 666:
        raise RuntimeError
    if item.value == 667:
        return Stored(object(), 0)
    return Stored(item.value, len(state.values))


def fold(items: Sequence[Item], verdicts: Sequence[Any]) -> tuple[bool, Any, Rejection | None]:
    if any(item.value == 99 for item in items):
        raise KeyError
    failures = [verdict for verdict in verdicts if isinstance(verdict, Rejection)]
    statuses = [v.code if isinstance(v, Rejection) else "ok" for v in verdicts]
    accepted = len(failures) < len(verdicts)
    return accepted, statuses, None if accepted else failures[0]


class BoxDomain:
    name = "box"
    sends = True
    version = 3
    schema = 1
    events = Stored
    queries = ()

    @property
    def commands(self) -> Sequence[CommandSpec]:
        return (
            CommandSpec(name="put", data=Put, decide=decide, dry_run=lambda data: data.dry_run),
            CommandSpec(
                name="put_many",
                data=Many,
                items=lambda data: data.items,
                guard=lambda _s, data, _c: Rejection("guarded") if data.how == "guard" else None,
                decide_item=decide_item,
                linked=lambda item: item.linked,
                overlay=lambda part: Part(list(part.values), part.box, part.key),
                linked_failed=Rejection("linked_failed"),
                fold=fold,
                dry_run=lambda data: data.dry_run,
            ),
        )

    def new_state(self) -> Box:
        return Box()

    def focus(self, state: Box, tenant: str, key: str) -> Part:
        if key == "poison":
            raise LookupError
        return Part(state.values.setdefault((tenant, key), []), state, (tenant, key))

    def evolve(self, part: Part, event: Stored, at: Any) -> None:
        if event.value == -1:
            raise ArithmeticError
        if len(part.values) != event.total:
            raise InvariantBroken("post-values agree", here=len(part.values), event=event.total)
        part.values.append(event.value)
        if event.value >= 1000:
            part.box.timers.append((event.value, *part.key))
        if event.value == -2:
            part.box.timers.sort()
            part.box.timers.pop(0)
        del at

    def dump(self, state: Box) -> Iterable[bytes]:
        yield msgspec.msgpack.encode(sorted(state.values.items()))

    changes = dump

    def mark(self, state: Box) -> None:
        del state

    def load(self, state: Box, chunk: bytes, schema: int) -> None:
        del schema
        pairs = msgspec.msgpack.decode(chunk, type=list[tuple[tuple[str, str], list[int]]])
        state.values.update(pairs)

    def due(self, state: Box) -> Instant | None:
        return Instant(min(state.timers)[0]) if state.timers else None

    def expire(self, state: Box, now: Instant, count_max: int) -> Sequence[tuple[str, str, Any]]:
        due = [timer for timer in sorted(state.timers) if timer[0] <= now][:count_max]
        seen: dict[tuple[str, str], int] = {}
        triples = []
        for _, tenant, key in due:
            name = (tenant, key)
            total = seen.get(name, len(state.values[name]))
            seen[name] = total + 1
            triples.append((tenant, key, Stored(-2, total)))
        return triples

    def check(self, state: Box) -> Sequence[str]:
        return [f"{key} holds 13" for key, values in sorted(state.values.items()) if 13 in values]


@pytest.fixture
def bench() -> Bench:
    return Bench(BoxDomain())


def values(bench: Bench, key: str = "k") -> list[int]:
    box = bench.executor.slot_state("box", "t", key)
    assert isinstance(box, Box)
    return box.values.get(("t", key), [])


def decoded(raw: msgspec.Raw) -> Any:
    return msgspec.msgpack.decode(raw)


def test_an_accepted_command_evolves_its_events_and_moves_the_version(bench: Bench) -> None:
    executed = bench.run("box.put", {"value": 5})
    assert executed.outcome.status == Status.ACCEPTED
    assert executed.outcome.version == 1
    assert executed.result == {"n": 1}
    assert decoded(executed.outcome.result) == {"n": 1}
    assert decoded(executed.outcome.events) == [[1, 5, 0]]
    assert values(bench) == [5]
    assert bench.executor.version("t", "k") == 1
    assert bench.executor.version("t", "unknown") == 0


def test_a_rejection_is_recorded_and_changes_nothing(bench: Bench) -> None:
    executed = bench.run("box.put", {"value": 5, "how": "reject"})
    assert executed.outcome.status == Status.REJECTED
    assert executed.outcome.failure == Failure("no_thanks", "rule 7", "/data/how")
    assert executed.outcome.version == 0
    assert values(bench) == []


@pytest.mark.parametrize("how", ["raise", "unencodable"])
def test_a_poison_command_is_a_recorded_internal_and_changes_nothing(
    bench: Bench, how: str
) -> None:
    executed = bench.run("box.put", {"value": 5, "how": how})
    assert executed.outcome.status == Status.INTERNAL
    assert executed.outcome.failure is not None
    assert executed.outcome.failure.code == "INTERNAL"
    assert executed.error is not None
    assert values(bench) == []
    assert bench.run("box.put", {"value": 6}).outcome.status == Status.ACCEPTED


def test_a_focus_that_raises_is_a_recorded_internal(bench: Bench) -> None:
    executed = bench.run("box.put", {"value": 5}, key="poison")
    assert executed.outcome.status == Status.INTERNAL
    assert isinstance(executed.error, LookupError)


def test_an_evolve_that_raises_halts_with_the_offset(bench: Bench) -> None:
    bench.run("box.put", {"value": 1})
    with pytest.raises(EvolveFailed) as caught:
        bench.run("box.put", {"value": 1, "how": "bad_evolve"})
    assert caught.value.facts["offset"] == 1


def test_items_see_the_items_before_them_and_fail_singly(bench: Bench) -> None:
    executed = bench.run("box.put_many", {"items": [{"value": 1}, {"value": -1}, {"value": 2}]})
    assert executed.outcome.status == Status.ACCEPTED
    assert executed.result == ["ok", "negative", "ok"]
    assert decoded(executed.outcome.events) == [[1, 1, 0], [1, 2, 1]]
    assert values(bench) == [1, 2]


@pytest.mark.parametrize("poison", [666, 667])
def test_a_poison_item_fails_alone_and_raises_an_alarm(bench: Bench, poison: int) -> None:
    executed = bench.run("box.put_many", {"items": [{"value": 1}, {"value": poison}]})
    assert executed.result == ["ok", "INTERNAL"]
    assert executed.error is not None
    assert values(bench) == [1]


def test_a_command_whose_items_all_failed_is_rejected_with_the_first_failure(
    bench: Bench,
) -> None:
    executed = bench.run("box.put_many", {"items": [{"value": -1}, {"value": -2}]})
    assert executed.outcome.status == Status.REJECTED
    assert executed.outcome.failure is not None
    assert executed.outcome.failure.code == "negative"
    assert executed.outcome.version == 0


def test_a_command_of_one_rejected_item_changes_nothing(bench: Bench) -> None:
    executed = bench.run("box.put_many", {"items": [{"value": -1}]})
    assert executed.outcome.status == Status.REJECTED
    assert executed.outcome.failure is not None
    assert executed.outcome.failure.code == "negative"
    assert (executed.outcome.version, decoded(executed.outcome.events)) == (0, [])
    assert values(bench) == []


def test_a_command_of_poison_items_alone_is_internal(bench: Bench) -> None:
    executed = bench.run("box.put_many", {"items": [{"value": 666}]})
    assert executed.outcome.status == Status.INTERNAL


def test_a_linked_run_is_applied_whole(bench: Bench) -> None:
    items = [{"value": 1, "linked": True}, {"value": 2, "linked": True}, {"value": 3}]
    executed = bench.run("box.put_many", {"items": [*items, {"value": 4}]})
    assert executed.result == ["ok"] * 4
    assert decoded(executed.outcome.events) == [[1, 1, 0], [1, 2, 1], [1, 3, 2], [1, 4, 3]]
    assert values(bench) == [1, 2, 3, 4]


@pytest.mark.parametrize(("bad", "code"), [(-1, "negative"), (666, "INTERNAL")])
def test_a_linked_run_fails_whole_and_leaves_no_trace(bench: Bench, bad: int, code: str) -> None:
    items = [
        {"value": 9},
        {"value": 1, "linked": True},
        {"value": bad, "linked": True},
        {"value": 3},
        {"value": 4},
    ]
    executed = bench.run("box.put_many", {"items": items})
    assert executed.result == ["ok", "linked_failed", code, "linked_failed", "ok"]
    assert (executed.error is not None) == (code == "INTERNAL"), "what raised is told"
    assert decoded(executed.outcome.events) == [[1, 9, 0], [1, 4, 1]]
    assert values(bench) == [9, 4]


def test_a_guard_rejects_before_the_first_item(bench: Bench) -> None:
    executed = bench.run("box.put_many", {"items": [{"value": 1}], "how": "guard"})
    assert executed.outcome.failure is not None
    assert executed.outcome.failure.code == "guarded"
    assert values(bench) == []


def test_events_stand_when_only_the_answer_cannot_be_built(bench: Bench) -> None:
    executed = bench.run("box.put_many", {"items": [{"value": 99}]})
    assert executed.outcome.status == Status.ACCEPTED
    assert executed.outcome.failure is not None
    assert executed.outcome.failure.code == "INTERNAL"
    assert values(bench) == [99]
    assert values(bench.replayed()) == [99]


def test_a_fold_that_refuses_what_has_happened_halts_with_the_offset() -> None:
    class Denying(BoxDomain):
        @property
        def commands(self) -> Sequence[CommandSpec]:
            put, many = super().commands
            denied = (False, None, Rejection("no"))
            return put, msgspec.structs.replace(many, fold=lambda _items, _verdicts: denied)

    bench = Bench(Denying())
    bench.run("box.put", {"value": 5})
    for items in ([{"value": 1}], [{"value": 1}, {"value": 2}]):
        with pytest.raises(EvolveFailed, match="a command with events is accepted") as caught:
            bench.run("box.put_many", {"items": items})
        assert caught.value.facts["offset"] == 1


@pytest.mark.parametrize("type_name", ["box.put", "box.put_many"])
def test_a_dry_run_answers_and_changes_nothing(bench: Bench, type_name: str) -> None:
    data = {"value": 5} if type_name == "box.put" else {"items": [{"value": 5}]}
    executed = bench.run(type_name, {**data, "dry_run": True})
    assert executed.outcome.status == Status.ACCEPTED
    assert executed.result is not None
    assert decoded(executed.outcome.events) == []
    assert executed.outcome.version == 0
    assert values(bench) == []


def test_an_expected_version_is_decided_at_execution(bench: Bench) -> None:
    assert bench.run("box.put", {"value": 1}, expected_version=0).outcome.status == 0
    failed = bench.run("box.put", {"value": 1}, expected_version=0).outcome
    assert failed.failure is not None
    assert (failed.failure.code, failed.failure.current_version) == ("VERSION_MISMATCH", 1)
    assert failed.version == 1
    assert bench.run("box.put", {"value": 1}, expected_version=1).outcome.version == 2


def test_messages_leave_only_with_accepted_commands(bench: Bench) -> None:
    sent = bench.run("box.put", {"value": 1, "how": "send"})
    assert decoded(sent.outcome.messages) == [["t", "other", "box.put", "0-0-1", {"a": 1}]]
    rejected = bench.run("box.put", {"value": 1, "how": "send_and_reject"})
    assert decoded(rejected.outcome.messages) is None
    assert decoded(bench.run("box.put", {"value": 1}).outcome.messages) is None


def test_chance_repeats_in_a_second_run_and_differs_between_offsets(bench: Bench) -> None:
    other = Bench(BoxDomain())
    for one in (bench, other):
        one.run("box.put", {"value": 0, "how": "random"})
        one.run("box.put", {"value": 0, "how": "random"})
    assert values(bench) == values(other)
    assert values(bench)[0] != values(bench)[1]


def test_a_replay_reaches_the_same_content_without_deciding(bench: Bench) -> None:
    bench.run("box.put", {"value": 1, "how": "random"})
    bench.run("box.put", {"value": 2, "how": "reject"})
    bench.run("box.put_many", {"items": [{"value": 3}, {"value": -3}, {"value": 4}]}, key="k2")
    bench.run("box.put", {"value": 5, "how": "raise"})
    replayed = bench.replayed()
    assert replayed.dump() == bench.dump()
    assert replayed.executor.applied_end == bench.executor.applied_end
    assert replayed.history.payloads == bench.history.payloads


def test_a_replay_of_events_that_do_not_fit_halts_with_the_offset(bench: Bench) -> None:
    bench.run("box.put", {"value": 1})
    bench.run("box.put", {"value": 2})
    del bench.log[0]
    command, outcome, time = bench.log[0]
    bench.log[0] = (command, msgspec.structs.replace(outcome, offset=0), time)
    with pytest.raises(EvolveFailed):
        bench.replayed()


def test_a_skipped_offset_is_not_evolved_in_a_replay(bench: Bench) -> None:
    bench.run("box.put", {"value": 1})
    other = Bench(BoxDomain())
    other.executor.skipped.add(0)
    command, outcome, time = bench.log[0]
    other.executor.replay(command, outcome, time=time, epoch=Epoch(1))
    assert values(other) == []
    assert other.executor.applied_end == 1


def test_commands_execute_in_order_and_time_never_goes_back(bench: Bench) -> None:
    bench.run("box.put", {"value": 1})
    admitted = bench.registry.restore(bench.log[0][0])
    with pytest.raises(InvariantBroken, match="in order"):
        bench.executor.execute(admitted, offset=Offset(5), time=START, epoch=Epoch(1))
    with pytest.raises(InvariantBroken, match="time never goes back"):
        bench.executor.execute(admitted, offset=Offset(1), time=Instant(1), epoch=Epoch(1))


def system(bench: Bench, data: Any, time: Instant) -> Any:
    bench.epoch = Epoch(2)
    offset = bench.executor.applied_end
    command = system_command(data, offset=offset)
    executed = bench.executor.execute(
        bench.registry.restore(command), offset=offset, time=time, epoch=bench.epoch
    )
    bench.log.append((command, executed.outcome, time))
    bench.time = time
    return executed.outcome


def test_a_tick_expires_what_is_due_in_order_and_leaves_the_rest() -> None:
    bench = Bench(BoxDomain())
    late, early, never = START + 20, START + 10, START + 10**9
    bench.run("box.put", {"value": late}, key="a")
    bench.run("box.put", {"value": early}, key="b")
    bench.run("box.put", {"value": never}, key="b")
    assert bench.executor.next_due() == (early, "box")
    outcome = system(bench, Tick("box", 10), Instant(late))
    assert [triple[1] for triple in decoded(outcome.events)] == ["b", "a"]
    assert bench.executor.next_due() == (never, "box")
    assert values(bench, "a") == [late, -2]
    replayed = bench.replayed()
    assert replayed.dump() == bench.dump()
    assert replayed.executor.next_due() == (never, "box")


def test_a_tick_is_bounded_and_the_rest_stays_due() -> None:
    bench = Bench(BoxDomain())
    for _ in range(3):
        bench.run("box.put", {"value": START + 10}, key="a")
    outcome = system(bench, Tick("box", 2), Instant(START + 50))
    assert len(decoded(outcome.events)) == 2
    assert bench.executor.next_due() == (START + 10, "box")
    assert len(decoded(system(bench, Tick("box", 2), Instant(START + 51)).events)) == 1
    assert bench.executor.next_due() is None
    assert decoded(system(bench, Tick("box", 2), Instant(START + 52)).events) == []
    assert bench.replayed().dump() == bench.dump()


def test_an_epoch_start_and_a_skip_are_remembered(bench: Bench) -> None:
    system(bench, EpochStart(2, {"box": 3}, "0.1.0"), START)
    system(bench, Skip(41, "because"), START)
    for one in (bench, bench.replayed()):
        assert one.executor.epoch == 2
        assert one.executor.epoch_handlers == {"box": 3}
        assert one.executor.skipped == {41}


def test_a_frame_of_an_older_epoch_is_refused(bench: Bench) -> None:
    command = system_command(EpochStart(5, {}, "x"), offset=Offset(0))
    with pytest.raises(InvariantBroken, match="epochs only grow"):
        bench.executor.execute(
            bench.registry.restore(command), offset=Offset(0), time=START, epoch=Epoch(4)
        )


def test_checks_name_the_domain_and_the_slot(bench: Bench) -> None:
    bench.run("box.put", {"value": 13})
    (sentence,) = bench.executor.check()
    assert sentence.startswith("box, slot ")
    assert sentence.endswith("holds 13")


def test_hooks_run_before_and_after_and_cannot_break_the_command() -> None:
    seen: list[str] = []

    def admission(_command: Command, payload: Any) -> None:
        if payload.value == 7:
            raise EngineError("seven is taken", code="QUOTA")

    def before(_command: Command, payload: Any, _context: Any) -> Rejection | None:
        if payload.value == 500:
            raise OSError
        return Rejection("too_big") if payload.value > 100 else None

    def after(command: Command, verdict: Verdict) -> None:
        seen.append(f"{command.id} {Status(verdict.status).name}")
        raise RuntimeError

    bench = Bench(BoxDomain(), hooks=Hooks((admission,), (before,), (after,)))
    assert bench.run("box.put", {"value": 1}, id="a").outcome.status == Status.ACCEPTED
    rejected = bench.run("box.put", {"value": 101}, id="b").outcome
    assert rejected.failure == Failure("too_big", "", "")
    assert bench.run("box.put", {"value": 500}, id="c").outcome.status == Status.INTERNAL
    with pytest.raises(EngineError, match="seven") as caught:
        bench.run("box.put", {"value": 7}, id="d")
    assert caught.value.code == "QUOTA"
    assert seen == ["a ACCEPTED", "b REJECTED", "c INTERNAL"]
    assert bench.executor.hook_failures == 3


def admit(registry: Registry, **changes: Any) -> Any:
    request: dict[str, Any] = {
        "id": "i",
        "type": "box.put",
        "key": "k",
        "data": b'{"value":1}',
        "codec": "json",
        "tenant": "t",
        "principal": "p",
        "scopes": frozenset({"box:write"}),
    }
    return registry.admit(**{**request, **changes})


@pytest.mark.parametrize(
    ("changes", "code", "pointer"),
    [
        ({"type": "box.unknown"}, "UNKNOWN_TYPE", "/type"),
        ({"type": "system.tick"}, "UNKNOWN_TYPE", "/type"),
        ({"scopes": frozenset({"box:read"})}, "FORBIDDEN", ""),
        ({"id": "with space"}, "MALFORMED", "/id"),
        ({"key": "x" * 129}, "MALFORMED", "/key"),
        ({"data": b'{"value":"1"}'}, "MALFORMED", "/data/value"),
        ({"data": b'{"value":1,"more":2}'}, "MALFORMED", "/data"),
        ({"data": b'{"value":'}, "MALFORMED", "/data"),
        ({"data": b"\xff\xff", "codec": "msgpack"}, "MALFORMED", "/data"),
    ],
)
def test_a_wrong_command_is_refused_before_the_log(
    bench: Bench, changes: dict[str, Any], code: str, pointer: str
) -> None:
    with pytest.raises(EngineError) as caught:
        admit(bench.registry, **changes)
    assert (caught.value.code, caught.value.pointer) == (code, pointer)


def test_too_many_items_are_refused_with_the_limit(bench: Bench) -> None:
    data = msgspec.json.encode({"items": [{"value": 1}] * 1001})
    with pytest.raises(EngineError, match="items_per_command_max") as caught:
        admit(bench.registry, type="box.put_many", data=data)
    assert caught.value.code == "TOO_LARGE"


def test_the_same_intent_has_the_same_fingerprint_in_every_codec(bench: Bench) -> None:
    spaced = admit(bench.registry, data=b'{ "how": "plain", "value": 1 }')
    packed = admit(
        bench.registry,
        data=msgspec.msgpack.encode({"value": 1}),
        codec="msgpack",
        principal="another",
        id="another",
    )
    assert spaced.fingerprint == packed.fingerprint
    assert spaced.fingerprint != admit(bench.registry, data=b'{"value":2}').fingerprint
    assert spaced.fingerprint != admit(bench.registry, expected_version=1).fingerprint


def test_a_version_suffix_and_a_tenant_choose_the_handler() -> None:
    class Versions(BoxDomain):
        @property
        def commands(self) -> Sequence[CommandSpec]:
            def answer(name: str) -> Any:
                return lambda _s, _d, _c: Accepted((), name)

            return (
                CommandSpec(name="put", data=Put, version=2, decide=answer("two")),
                CommandSpec(name="put", data=Put, decide=answer("one")),
                CommandSpec(
                    name="put", data=Put, version=3, decide=answer("vip"), tenants=frozenset({"v"})
                ),
            )

    bench = Bench(Versions())
    assert bench.run("box.put", {"value": 1}).result == "two"
    assert bench.run("box.put@1", {"value": 1}).result == "one"
    assert bench.run("box.put", {"value": 1}, tenant="v").result == "vip"
    assert bench.log[0][0].type == "box.put@2"
    types = [handler.type for handler in bench.registry.handlers_all]
    assert types == ["box.put@1", "box.put@2", "box.put@3"]


def test_domains_that_contradict_each_other_are_refused_at_start() -> None:
    with pytest.raises(InvariantBroken, match="unique"):
        Registry([BoxDomain(), BoxDomain()])

    class Twice(BoxDomain):
        @property
        def commands(self) -> Sequence[CommandSpec]:
            return (CommandSpec(name="put", data=Put, decide=decide),) * 2

    with pytest.raises(InvariantBroken, match="one handler"):
        Registry([Twice()])


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"decide": decide, "items": lambda data: data.items}, "either decide or items"),
        ({"items": lambda data: data.items}, "needs items, decide_item and fold"),
        ({"linked": lambda item: item.linked}, "need an overlay"),
        (
            {"linked": lambda item: item.linked, "overlay": lambda part: part},
            "need linked_failed",
        ),
        ({"name": "Put"}, "domain.verb_noun"),
    ],
)
def test_a_command_spec_that_cannot_run_is_refused_at_start(
    changes: dict[str, Any], rule: str
) -> None:
    complete = {"items": lambda data: data.items, "decide_item": decide_item, "fold": fold}
    base = {} if "items" in changes else complete

    class Broken(BoxDomain):
        @property
        def commands(self) -> Sequence[CommandSpec]:
            return (CommandSpec(**{"name": "put", "data": Many, **base, **changes}),)

    with pytest.raises(InvariantBroken, match=rule):
        Registry([Broken()])


def test_the_digest_of_handlers_depends_on_names_and_versions_alone() -> None:
    assert handlers_digest({"a": 1, "b": 2}) == handlers_digest({"b": 2, "a": 1})
    assert handlers_digest({"a": 1, "b": 2}) != handlers_digest({"a": 1, "b": 3})
    assert len(handlers_digest({})) == 8


def test_prepare_runs_before_the_log_and_its_error_is_a_refusal() -> None:
    def prepare(data: Put) -> Put:
        if data.value < 0:
            raise Malformed("below zero", pointer="/data/value")
        data.value *= 2
        return data

    class Preparing(BoxDomain):
        @property
        def commands(self) -> Sequence[CommandSpec]:
            return (CommandSpec(name="put", data=Put, decide=decide, prepare=prepare),)

    bench = Bench(Preparing())
    bench.run("box.put", {"value": 4})
    assert values(bench) == [8]
    assert bench.registry.restore(bench.log[0][0]).payload.value == 8
    with pytest.raises(Malformed, match="below zero"):
        bench.run("box.put", {"value": -4})
