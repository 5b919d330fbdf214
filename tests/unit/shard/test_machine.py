"""The pure machine of a shard: groups, offsets, idempotency, answers."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from ultraengine.domains.counter import DOMAIN
from ultraengine.execution.executor import Executor
from ultraengine.execution.registry import Admitted, Registry
from ultraengine.execution.system import EPOCH_START, EpochStart
from ultraengine.log.frame import FrameKind
from ultraengine.log.serializer import MsgpackSerializer
from ultraengine.model.command import Command
from ultraengine.model.errors import EngineError, InvariantBroken, Unavailable
from ultraengine.model.ids import Epoch, Instant, Offset, ShardId
from ultraengine.model.limits import DEFAULT_LIMITS, Limits
from ultraengine.model.reply import Reply
from ultraengine.reply.waiters import Ticket
from ultraengine.shard.effects import Answer, Group
from ultraengine.shard.machine import Machine
from ultraengine.testing.memory import START, MemoryDedupe, MemoryHistory

SERIALIZER = MsgpackSerializer()


class Rig:
    """A machine whose disk is the test itself."""

    def __init__(self, limits: Limits = DEFAULT_LIMITS, **options: Any) -> None:
        self.registry = Registry([DOMAIN])
        self.log: dict[int, Any] = {}
        self.executor = Executor(
            self.registry, ShardId(0), dedupe=MemoryDedupe(), history=MemoryHistory([DOMAIN])
        )
        policy = options.pop("policy", "sync")
        self.machine = Machine(
            self.executor,
            SERIALIZER,
            limits,
            epoch=Epoch(1),
            policy=policy,
            group_bytes_max=options.pop("group_bytes_max", limits.group_bytes_max),
            **options,
        )

    def admit(self, id: str, delta: int = 1, key: str = "k", **more: Any) -> Admitted:
        return self.registry.admit(
            id=id,
            type="counter.add",
            key=key,
            data=msgspec.json.encode({"delta": delta}),
            codec="json",
            tenant="t",
            principal="p",
            scopes=frozenset({"counter:write"}),
            **more,
        )

    def send(
        self, *admitted: Admitted, closed: EngineError | None = None
    ) -> tuple[Ticket, list[Answer]]:
        ticket = Ticket(len(admitted), lambda _ticket: None)
        effects = self.machine.accept(admitted, ticket, 0, closed)
        put(effects.answers)
        for pending, candidates in effects.verify:
            put(self.machine.verified(pending, self.found(candidates), closed))
        return ticket, effects.answers

    def found(self, candidates: Sequence[int]) -> Any:
        return self.log.get(candidates[0]) if candidates else None

    def flush(self) -> Group:
        group = self.machine.form(START)
        assert group is not None
        return group

    def execute(self, group: Group, units: int = 10**9) -> bool:
        if group.offset_end > self.machine.durable_end:
            self.machine.committed(group)
        effects = self.machine.execute(group, units)
        put(effects.answers)
        return effects.done


def put(answers: Sequence[Answer]) -> None:
    for answer in answers:
        answer.ticket.put(answer.index, answer.reply)


def reply_of(ticket: Ticket, index: int = 0) -> Reply:
    reply = ticket.answers[index]
    assert reply is not None
    return reply


def code_of(ticket: Ticket, index: int = 0) -> str:
    error = reply_of(ticket, index).error
    assert error is not None
    return error.code


def test_nothing_is_executed_before_its_frame_is_durable() -> None:
    rig = Rig()
    ticket, _ = rig.send(rig.admit("a", 5))
    group = rig.flush()
    with pytest.raises(InvariantBroken, match="before it is durable"):
        rig.machine.execute(group, 1)
    assert rig.executor.applied_end == 0
    assert ticket.missing == 1
    rig.execute(group)
    reply = reply_of(ticket)
    assert (reply.outcome, reply.offset, reply.version, reply.epoch) == ("accepted", 0, 1, 1)
    assert reply.durable is not None
    assert (reply.durable.policy, reply.durable.local, reply.durable.replicas) == ("sync", True, 1)
    assert reply.time == "2026-01-01T00:00:00.000000Z"


def test_a_group_holds_its_commands_in_order_with_dense_offsets() -> None:
    rig = Rig()
    rig.send(*(rig.admit(f"a{n}") for n in range(5)))
    group = rig.flush()
    assert [pending.offset for pending in group.pendings] == [0, 1, 2, 3, 4]
    commands = SERIALIZER.decode_commands(group.draft.payload)
    assert [command.id for command in commands] == [f"a{n}" for n in range(5)]
    assert (group.draft.kind, group.draft.base_offset, group.draft.count) == (
        FrameKind.COMMANDS,
        0,
        5,
    )
    assert rig.machine.form(START) is None


def test_a_group_is_bounded_in_commands_and_bytes_and_the_rest_waits() -> None:
    rig = Rig(msgspec.structs.replace(DEFAULT_LIMITS, group_commands_max=3))
    rig.send(*(rig.admit(f"a{n}") for n in range(5)))
    assert len(rig.flush().pendings) == 3
    assert len(rig.flush().pendings) == 2
    small = Rig(group_bytes_max=1)
    small.send(small.admit("a"), small.admit("b"))
    assert len(small.flush().pendings) == 1
    assert small.machine.waiting_bytes == len(small.admit("b").command.data)


def test_time_is_stamped_once_per_group_and_never_goes_back() -> None:
    rig = Rig()
    rig.send(rig.admit("a"))
    first = rig.machine.form(Instant(START + 100))
    rig.send(rig.admit("b"))
    second = rig.machine.form(START)
    assert first is not None
    assert second is not None
    assert second.time == first.time == START + 100


def test_a_retry_in_flight_joins_and_gets_the_same_answer() -> None:
    rig = Rig()
    first, _ = rig.send(rig.admit("a", 5))
    second, _ = rig.send(rig.admit("a", 5))
    third, _ = rig.send(rig.admit("a", 5))
    group = rig.flush()
    assert len(group.pendings) == 1
    rig.execute(group)
    assert reply_of(first).duplicate is False
    assert reply_of(second).duplicate is True
    assert reply_of(third).duplicate is True
    assert reply_of(second).offset == reply_of(first).offset
    assert rig.machine.in_flight == {}


def test_a_retry_of_an_executed_command_is_answered_from_memory_until_it_is_recorded() -> None:
    rig = Rig()
    rig.send(rig.admit("a", 5))
    rig.execute(rig.flush())
    ticket, answers = rig.send(rig.admit("a", 5))
    assert len(answers) == 1
    assert reply_of(ticket).duplicate is True
    assert reply_of(ticket).result == {"value": 5}
    drafts = rig.machine.take_unwritten()
    rig.machine.recorded(drafts)
    assert rig.machine.unrecorded == {}


def test_a_retry_of_a_recorded_command_is_verified_and_answered_from_the_log() -> None:
    rig = Rig()
    rig.send(rig.admit("a", 5))
    rig.execute(rig.flush())
    rig.log = dict(rig.machine.unrecorded)
    rig.machine.recorded(rig.machine.take_unwritten())
    ticket, answers = rig.send(rig.admit("a", 5))
    assert answers == []
    assert reply_of(ticket).duplicate is True
    assert rig.machine.form(START) is None


@pytest.mark.parametrize("when", ["in_flight", "unrecorded", "recorded"])
def test_the_same_id_with_another_content_is_refused(when: str) -> None:
    rig = Rig()
    rig.send(rig.admit("a", 5))
    if when != "in_flight":
        rig.execute(rig.flush())
    if when == "recorded":
        rig.log = dict(rig.machine.unrecorded)
        rig.machine.recorded(rig.machine.take_unwritten())
    ticket, _ = rig.send(rig.admit("a", 6))
    assert code_of(ticket) == "IDEMPOTENCY_MISMATCH"
    assert reply_of(ticket).outcome == "refused"


def test_the_same_id_under_another_key_or_tenant_is_another_command() -> None:
    rig = Rig()
    rig.send(rig.admit("a", key="k1"), rig.admit("a", key="k2"))
    assert len(rig.flush().pendings) == 2


def test_a_false_hit_of_the_index_is_logged_after_verification() -> None:
    rig = Rig()
    one = rig.admit("a")
    rig.executor.dedupe.add(one.slot, one.identity, 77)
    ticket, _ = rig.send(one)
    group = rig.flush()
    rig.execute(group)
    assert reply_of(ticket).outcome == "accepted"


def test_a_false_hit_is_refused_when_the_shard_has_closed_meanwhile() -> None:
    rig = Rig()
    one = rig.admit("a")
    rig.executor.dedupe.add(one.slot, one.identity, 77)
    closed = Unavailable("paused", code="PAUSED")
    ticket, _ = rig.send(one, closed=closed)
    assert code_of(ticket) == "PAUSED"
    assert rig.machine.in_flight == {}


def test_a_closed_shard_refuses_new_commands_and_still_answers_retries() -> None:
    rig = Rig()
    rig.send(rig.admit("a"))
    rig.execute(rig.flush())
    closed = Unavailable("paused", code="PAUSED", retry_after_s=5.0)
    ticket, _ = rig.send(rig.admit("a"), rig.admit("b"), closed=closed)
    assert reply_of(ticket, 0).duplicate is True
    assert code_of(ticket, 1) == "PAUSED"
    error = reply_of(ticket, 1).error
    assert error is not None
    assert error.retry_after_s == 5.0
    assert error.advice


@pytest.mark.parametrize("limit", [{"mailbox_commands_max": 2}, {"mailbox_bytes_max": 6}])
def test_a_full_queue_refuses_with_retry_after(limit: dict[str, int]) -> None:
    rig = Rig(msgspec.structs.replace(DEFAULT_LIMITS, **limit))
    ticket, _ = rig.send(rig.admit("a"), rig.admit("b"), rig.admit("c"))
    assert code_of(ticket, 2) == "OVERLOADED"
    group = rig.flush()
    rig.execute(group)
    retried, _ = rig.send(rig.admit("c"))
    rig.execute(rig.flush())
    assert reply_of(retried).outcome == "accepted"


class ForgetfulDedupe(MemoryDedupe):
    @property
    def floor_time(self) -> Instant:
        return START


@pytest.mark.parametrize(
    ("id", "issued_at", "refused"),
    [
        ("019b76d4-1800-7000-8000-000000000000", None, True),  # before the floor
        ("019bf000-1800-7000-8000-000000000000", None, False),  # after the floor
        ("opaque", None, False),
        ("opaque", START - 1, True),
        ("opaque", START, False),
    ],
)
def test_an_id_older_than_the_floor_is_refused(
    id: str, issued_at: int | None, refused: bool
) -> None:
    rig = Rig()
    rig.executor.dedupe = ForgetfulDedupe()
    ticket, _ = rig.send(rig.admit(id, issued_at=issued_at))
    if refused:
        assert code_of(ticket) == "TOO_OLD"
    else:
        assert ticket.missing == 1


def test_a_group_that_was_not_written_gives_its_offsets_back_and_refuses() -> None:
    rig = Rig()
    ticket, _ = rig.send(rig.admit("a"))
    joined, _ = rig.send(rig.admit("a"))
    group = rig.flush()
    put(rig.machine.undo(group, Unavailable("full", code="READ_ONLY")))
    assert code_of(ticket) == code_of(joined) == "READ_ONLY"
    assert reply_of(joined).duplicate is False
    assert rig.machine.log_end == 0
    again, _ = rig.send(rig.admit("a"))
    rig.execute(rig.flush())
    assert reply_of(again).offset == 0


def test_only_the_last_group_can_be_undone() -> None:
    rig = Rig()
    rig.send(rig.admit("a"))
    group = rig.flush()
    rig.send(rig.admit("b"))
    rig.flush()
    with pytest.raises(InvariantBroken, match="only the last group"):
        rig.machine.undo(group, Unavailable("full"))


def test_execution_goes_in_slices_and_outcomes_are_written_when_the_group_is_done() -> None:
    rig = Rig()
    ticket, _ = rig.send(*(rig.admit(f"a{n}") for n in range(4)))
    group = rig.flush()
    assert rig.execute(group, 2) is False
    assert ticket.missing == 2
    assert rig.machine.take_unwritten() == []
    assert rig.execute(group, 2) is True
    (draft,) = rig.machine.take_unwritten()
    outcomes = SERIALIZER.decode_outcomes(draft.payload)
    assert [outcome.offset for outcome in outcomes] == [0, 1, 2, 3]
    assert (draft.kind, draft.base_offset, draft.count) == (FrameKind.OUTCOMES, 0, 4)


def test_outcomes_beyond_a_frame_are_split_into_runs_without_a_gap() -> None:
    rig = Rig(msgspec.structs.replace(DEFAULT_LIMITS, frame_bytes_max=60))
    rig.send(*(rig.admit(f"a{n}") for n in range(5)))
    rig.execute(rig.flush())
    drafts = rig.machine.take_unwritten()
    assert len(drafts) > 1
    offsets = [o.offset for d in drafts for o in SERIALIZER.decode_outcomes(d.payload)]
    assert offsets == [0, 1, 2, 3, 4]
    assert [d.base_offset for d in drafts] == [
        SERIALIZER.decode_outcomes(d.payload)[0].offset for d in drafts
    ]


def test_outcomes_that_were_not_written_are_written_first_next_time() -> None:
    rig = Rig()
    for name in ("a", "b"):
        rig.send(rig.admit(name))
        rig.execute(rig.flush())
    drafts = rig.machine.take_unwritten()
    rig.machine.give_back(drafts)
    assert rig.machine.take_unwritten() == drafts


def test_the_engines_own_commands_go_first_and_are_answered_to_nobody() -> None:
    rig = Rig()
    rig.machine.log_system(EpochStart(1, rig.registry.handlers, "0.1.0"))
    assert rig.machine.due(START)
    ticket, _ = rig.send(rig.admit("a"))
    group = rig.flush()
    assert [p.admitted.command.type for p in group.pendings] == [EPOCH_START, "counter.add@1"]
    rig.execute(group)
    assert reply_of(ticket).offset == 1
    assert rig.executor.epoch_handlers == {"counter": DOMAIN.version}
    assert not rig.machine.due(START)


def test_async_replies_say_that_nothing_is_durable_yet() -> None:
    rig = Rig(policy="async")
    ticket, _ = rig.send(rig.admit("a"))
    rig.execute(rig.flush())
    durable = reply_of(ticket).durable
    assert durable is not None
    assert (durable.policy, durable.local, durable.replicas) == ("async", False, 0)


class Backwards:
    def choose(self, waiting: Sequence[Command], count_max: int) -> Sequence[int]:
        del count_max
        return [n for n, command in enumerate(waiting) if command.key == "late"][:1] or [0]


def test_a_scheduling_policy_chooses_who_enters_the_group() -> None:
    rig = Rig(scheduling=Backwards())
    rig.send(rig.admit("a"), rig.admit("b", key="late"), rig.admit("c"))
    order = [rig.flush().pendings[0].admitted.command.id for _ in range(3)]
    assert order == ["b", "a", "c"]


def test_a_schedule_that_names_a_command_twice_is_our_bug() -> None:
    class Twice:
        def choose(self, waiting: Sequence[Command], count_max: int) -> Sequence[int]:
            del waiting, count_max
            return [0, 0]

    rig = Rig(scheduling=Twice())
    rig.send(rig.admit("a"), rig.admit("b"))
    with pytest.raises(InvariantBroken, match="names each command once"):
        rig.machine.form(START)


def test_a_refused_queue_answers_everybody_and_is_empty() -> None:
    rig = Rig()
    ticket, _ = rig.send(rig.admit("a"), rig.admit("b"))
    put(rig.machine.refuse_waiting(Unavailable("draining", code="DRAINING")))
    assert [code_of(ticket, n) for n in range(2)] == ["DRAINING"] * 2
    assert rig.machine.waiting_bytes == 0
    assert rig.machine.in_flight == {}


def test_a_ticket_is_told_once_and_an_answer_is_final() -> None:
    told: list[Ticket] = []
    ticket = Ticket(2, told.append)
    reply = Reply(id="a", outcome="accepted")
    ticket.put(1, reply)
    assert told == []
    with pytest.raises(InvariantBroken, match="answered once"):
        ticket.put(1, reply)
    ticket.put(0, reply)
    assert told == [ticket]


def test_an_outcome_is_found_with_and_without_its_key() -> None:
    rig = Rig()
    rig.send(rig.admit("a", key="k1"))
    assert rig.machine.is_in_flight("t", "k1", "a")
    assert rig.machine.is_in_flight("t", None, "a")
    assert not rig.machine.is_in_flight("t", None, "b")
    assert not rig.machine.is_in_flight("t", "k2", "a")
    rig.execute(rig.flush())
    assert rig.machine.candidates("t", "k1", "a") == (0,)
    assert rig.machine.candidates("t", None, "a") == (0,)
    assert rig.machine.candidates("t", "k1", "b") == ()


def test_recorded_offsets_stay_in_memory_until_their_frame_is_durable() -> None:
    rig = Rig()
    rig.send(rig.admit("a"))
    rig.execute(rig.flush())
    assert set(rig.machine.unrecorded) == {Offset(0)}


def test_groups_commit_in_order() -> None:
    rig = Rig()
    rig.send(rig.admit("a"))
    rig.flush()
    rig.send(rig.admit("b"))
    with pytest.raises(InvariantBroken, match="in order"):
        rig.machine.committed(rig.flush())


def test_ids_that_cannot_be_read_refuse_the_rest_and_halt() -> None:
    class Damaged(MemoryDedupe):
        def find(self, slot: int, identity: bytes, /) -> tuple[int, ...]:
            if self.reads == 1:
                raise OSError(5, "Input/output error")
            self.reads += 1
            return super().find(slot, identity)

        reads = 0

    rig = Rig()
    rig.executor.dedupe = Damaged()
    ticket = Ticket(3, lambda _ticket: None)
    effects = rig.machine.accept([rig.admit(n) for n in ("a", "b", "c")], ticket, 0, None)
    assert isinstance(effects.failed, OSError)
    put(effects.answers)
    assert ticket.answers[0] is None
    assert [code_of(ticket, n) for n in (1, 2)] == ["SHARD_UNAVAILABLE"] * 2
    assert list(rig.machine.in_flight) == [("t", "k", "a")]
