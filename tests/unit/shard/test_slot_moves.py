"""The edges of slots that move; what must always be so is in `sim/test_moving_slot.py`."""

from collections.abc import Sequence
from typing import Any, cast

import msgspec
import pytest

from ultraengine.domains.counter import DOMAIN
from ultraengine.domains.ledger import Ledger
from ultraengine.execution.carried import (
    CARRIED,
    ERA_SHIFT,
    CarriedHistory,
    Done,
    Expired,
    Lineage,
    decode_parts,
    encode_parts,
)
from ultraengine.execution.dedup import DedupIndex
from ultraengine.execution.executor import Executor
from ultraengine.execution.moves import NoMoves
from ultraengine.execution.registry import Admitted
from ultraengine.execution.system import FillSlot, Skip, StepSlot
from ultraengine.model.domain import Domain, History
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import SLOT_COUNT, Offset, ShardId, slot_of
from ultraengine.model.reply import Reply
from ultraengine.moving.record import (
    Activate,
    Attempt,
    Begin,
    Cancel,
    Finish,
    Message,
    Reopen,
    Seal,
    SlotRecord,
    Stage,
    State,
    Stop,
)
from ultraengine.reply.recorded import Recorded
from ultraengine.reply.waiters import Ticket
from ultraengine.shard import slot_copy
from ultraengine.shard.ownership import Ownership
from ultraengine.shard.placement import Placement
from ultraengine.shard.slot_copy import Origin, find_carried, next_batch, parts, slot_digest
from ultraengine.shard.slot_index import SlotIndex
from ultraengine.shard.slot_moves import SlotMoves, decode_message, encode_message
from ultraengine.shard.validation import NothingRemembered
from ultraengine.testing.memory import Bench, MemoryDedupe
from ultraengine.testing.sim_clock import SimClock
from ultraengine.testing.sim_disk import SimDisk
from ultraengine.testing.sim_shard import SimShard

SLOT = slot_of("t", "a")
SOURCE, DESTINATION = ShardId(0), ShardId(1)
FIRST = Attempt(0, 1)
EVERYTHING = 1 << 40


class Other(type(DOMAIN)):  # type: ignore[misc]
    """A counter that takes nothing from elsewhere."""

    def evolve(self, state: Any, event: Any, at: Any) -> None:
        raise ValueError("not here")


def shard(number: ShardId = SOURCE, *domains: Domain) -> SimShard:
    known = domains or (DOMAIN,)
    return SimShard(SimDisk(number + 1), SimClock(), known, shard=number)


def admitted(on: SimShard, name: str, key: str = "a") -> Admitted:
    return on.registry.admit(
        id=name,
        type="counter.add",
        key=key,
        data=b'{"delta":1}',
        codec="json",
        tenant="t",
        principal="p",
        scopes=frozenset({"*:write"}),
    )


def add(on: SimShard, *names: str) -> list[Reply]:
    return [reply for name in names for reply in on.send(admitted(on, name))]


def tell(to: SimShard, message: Message, slot: int = SLOT) -> SlotRecord:
    is_first = to.shard == SOURCE
    to.log_own(StepSlot(slot, is_first, encode_message(message)))
    return moves_of(to).record(slot, is_first_owner=is_first)


def moves_of(one: SimShard) -> SlotMoves:
    return cast("SlotMoves", one.executor.moves)


def batch(
    of: SimShard, start: int = 0, end: int | None = None, attempt: Attempt = FIRST
) -> FillSlot:
    of.rest()
    image = of.executor.slots.get(SLOT)
    origin = Origin.of(of.shard, SLOT, None if image is None else image.lineage)
    end = int(of.executor.applied_end) if end is None else end
    groups = of.log.reader().groups(start, end)
    reached, content = next_batch(groups, origin, start, end, of.executor.skipped, EVERYTHING)
    era, number = attempt.era, attempt.number
    return FillSlot(SLOT, era, number, start, reached, int(of.executor.time), content)


def moved(source: SimShard, destination: SimShard, attempt: Attempt = FIRST) -> None:
    tell(source, Begin(attempt, destination.shard))
    tell(destination, Stage(attempt, source.shard))
    sealed = tell(source, Seal(attempt))
    position = source.machine.placement.look(SLOT).position
    destination.log_own(batch(source, end=position, attempt=attempt))
    assert tell(destination, Activate(attempt, sealed.digest)).state is State.OWNED
    assert tell(source, Finish(attempt, attempt.era + 1)).state is State.ABSENT


# --- parts ----------------------------------------------------------------------------------------


def test_what_is_not_recorded_is_not_copied() -> None:
    one = shard()
    add(one, "one")
    last = list(one.log.reader().groups(0))[-1]
    assert last.outcomes is None
    origin = Origin(SOURCE, SLOT)
    with pytest.raises(InvariantBroken, match="recorded"):
        parts(last, origin, 0, EVERYTHING)
    start = last.header.base_offset
    assert next_batch([last], origin, 0, EVERYTHING, (), EVERYTHING) == (0, encode_parts(()))
    assert next_batch([], origin, 0, start, (), EVERYTHING) == (start, encode_parts(()))


def test_a_batch_ends_where_there_is_enough() -> None:
    one = shard()
    add(one, "one", "two", "three")
    one.rest()
    end = int(one.executor.applied_end)
    origin = Origin(SOURCE, SLOT)
    reached, content = next_batch(one.log.reader().groups(0), origin, 0, end, (), 1)
    assert reached < end
    found = [part for part in decode_parts(content) if isinstance(part, Done)]
    assert [part.command.id for part in found] == ["one"]


def test_what_lies_outside_of_the_range_or_before_the_era_is_left_out() -> None:
    one = shard()
    add(one, "one", "two")
    one.send(admitted(one, "one", "somebody-else"))
    one.rest()
    groups = list(one.log.reader().groups(0))
    everything = [part for group in groups for part in parts(group, Origin(SOURCE, SLOT), 0, 99)]
    last = everything[-1].position
    assert len(everything) == 2
    for origin, start in ((Origin(SOURCE, SLOT), last), (Origin(SOURCE, SLOT, since=last), 0)):
        left = [part for group in groups for part in parts(group, origin, start, 99)]
        assert [part.position for part in left] == [last]
    assert Origin(SOURCE, SLOT, since=7).start == 7
    assert Origin(SOURCE, SLOT, since=7, chunks=frozenset({3, 5})).start == 3


def test_an_overridden_command_is_remembered_and_not_evolved() -> None:
    source, destination = shard(), shard(DESTINATION)
    (reply,) = add(source, "one")
    assert reply.offset is not None
    source.log_own(Skip(reply.offset, "for the test"))
    tell(source, Begin(FIRST, DESTINATION))
    tell(destination, Stage(FIRST, SOURCE))
    destination.log_own(batch(source))
    (part, *_) = decode_parts(batch(source).parts)
    assert isinstance(part, Done)
    assert part.skipped
    assert destination.executor.version("t", "a") == 0
    assert destination.machine.candidates("t", "a", "one")


# --- steps ----------------------------------------------------------------------------------------


def test_a_moved_slot_goes_on_where_it_was_and_answers_retries_with_the_first_reply() -> None:
    source, destination = shard(), shard(DESTINATION)
    first = add(source, "one", "two")
    moved(source, destination)
    again = add(destination, "one", "two")
    for was, now in zip(first, again, strict=True):
        assert now.duplicate
        assert (now.shard, now.epoch, now.offset) == (was.shard, was.epoch, was.offset)
    (third,) = add(destination, "three")
    assert third.version == 3
    assert third.shard == DESTINATION
    (elsewhere,) = add(source, "four")
    assert elsewhere.error is not None
    assert elsewhere.error.code == "WRONG_SHARD"


def test_a_batch_that_does_not_go_on_where_the_copy_ends_changes_nothing() -> None:
    source, destination = shard(), shard(DESTINATION)
    add(source, "one")
    tell(source, Begin(FIRST, DESTINATION))
    first = batch(source)
    destination.log_own(first)
    assert SLOT not in destination.executor.slots
    tell(destination, Stage(FIRST, SOURCE))
    for wrong in (
        msgspec.structs.replace(first, number=2),
        msgspec.structs.replace(first, start=1),
    ):
        destination.log_own(wrong)
        assert moves_of(destination).positions[SLOT] == 0
    destination.log_own(first)
    destination.log_own(first)
    assert moves_of(destination).positions[SLOT] == first.end
    assert destination.executor.version("t", "a") == 1


def test_a_message_that_does_not_fit_changes_nothing_when_it_is_executed() -> None:
    one = shard()
    assert tell(one, Seal(FIRST)).state is State.OWNED
    assert moves_of(one).records == {}
    exporting = tell(one, Begin(FIRST, DESTINATION))
    assert tell(one, Begin(FIRST, DESTINATION)) is exporting


def test_a_copy_that_does_not_evolve_is_refused_for_ever_and_stops_nothing() -> None:
    source = shard()
    add(source, "one")
    tell(source, Begin(FIRST, DESTINATION))
    for destination in (shard(DESTINATION, Ledger()), shard(DESTINATION, Other())):
        tell(destination, Stage(FIRST, SOURCE))
        destination.log_own(batch(source))
        record = moves_of(destination).records[SLOT]
        assert (record.state, record.attempt) == (State.ABSENT, FIRST)
        assert SLOT not in destination.executor.slots
    assert tell(source, Stop(FIRST)).state is State.OWNED
    assert add(source, "two")[0].version == 2


def test_a_cancelled_copy_is_dropped_and_its_source_serves_again() -> None:
    source, destination = shard(), shard(DESTINATION)
    add(source, "one")
    tell(source, Begin(FIRST, DESTINATION))
    tell(destination, Stage(FIRST, SOURCE))
    destination.log_own(batch(source))
    assert tell(source, Seal(FIRST)).state is State.SEALED
    assert add(source, "two")[0].outcome == "refused"
    tell(destination, Cancel(FIRST))
    assert SLOT not in destination.executor.slots
    assert moves_of(destination).take_dropped()
    assert not moves_of(destination).take_dropped()
    assert tell(source, Reopen(FIRST, DESTINATION, FIRST)).state is State.OWNED
    assert add(source, "two")[0].version == 2


def test_a_slot_that_nobody_used_moves_without_content() -> None:
    source, destination = shard(), shard(DESTINATION)
    moved(source, destination)
    assert SLOT not in source.executor.slots
    assert add(destination, "one")[0].version == 1


def book(on: SimShard, name: str, kind: str, data: Any, key: str = "a") -> Reply:
    admitted = on.registry.admit(
        id=name,
        type=f"ledger.{kind}",
        key=key,
        data=msgspec.json.encode(data),
        codec="json",
        tenant="t",
        principal="p",
        scopes=frozenset({"*:write"}),
    )
    (reply,) = on.send(admitted)
    assert reply.outcome == "accepted", reply
    return reply


ACCOUNTS = {
    "accounts": [
        {"id": "x", "asset": "EUR/2", "min_balance": None},
        {"id": "y", "asset": "EUR/2"},
    ]
}


def held(name: str, seconds: int) -> Any:
    return {
        "transfers": [
            {"id": name, "from": "x", "to": "y", "amount": 5, "pending_timeout_s": seconds}
        ]
    }


def test_timers_stand_still_while_a_slot_is_handed_over() -> None:
    source, destination = shard(SOURCE, Ledger()), shard(DESTINATION, Ledger())
    book(source, "o", "open_accounts", ACCOUNTS)
    book(source, "h", "create_transfers", held("h", 10))
    assert source.executor.next_due() is not None
    tell(source, Begin(FIRST, DESTINATION))
    tell(destination, Stage(FIRST, SOURCE))
    sealed = tell(source, Seal(FIRST))
    assert source.executor.next_due() is None
    position = source.machine.placement.look(SLOT).position
    destination.log_own(batch(source, end=position))
    destination.executor.reschedule()
    assert destination.executor.next_due() is None
    tell(destination, Activate(FIRST, sealed.digest))
    assert destination.executor.next_due() is not None
    assert destination.machine.time >= source.machine.time


def test_expiries_and_what_came_with_an_earlier_move_go_along() -> None:
    """There and back: holds of two slots expire in one tick; the other slot's are left out."""
    shards = [shard(SOURCE, Ledger()), shard(DESTINATION, Ledger())]
    source, destination = shards
    other = next(k for k in map(str, range(99)) if slot_of("t", k) != SLOT)
    for key in (other, "a"):
        book(source, f"o-{key}", "open_accounts", ACCOUNTS, key)
        book(source, f"h-{key}", "create_transfers", held("h", 1), key)
    source.clock.advance(5.0)
    first = book(source, "late", "create_transfers", held("late", 60))
    source.clock.advance(1.0)
    dry = {**held("dry", 60), "dry_run": True}
    assert book(source, "dry", "create_transfers", dry).version == first.version
    book(source, "other", "create_transfers", held("more", 1), other)
    source.clock.advance(5.0)
    book(source, "last", "create_transfers", held("last", 600), other)
    moved(source, destination)
    back = Attempt(1, 1)
    book(destination, "there", "create_transfers", held("there", 90))
    moved(destination, source, back)
    again = book(source, "late", "create_transfers", held("late", 60))
    assert again.duplicate
    assert (again.shard, again.offset) == (first.shard, first.offset)
    there = book(source, "there", "create_transfers", held("there", 90))
    assert (there.duplicate, there.shard) == (True, DESTINATION)
    assert not list(source.executor.check())
    assert source.executor.slots[SLOT].lineage is not None
    book(source, "post", "post_transfers", {"transfers": [{"id": "late"}]})
    for one in shards:
        assert one.validate().equal
    book(source, "end", "create_transfers", held("end", 600))
    index = SlotIndex(0)
    index.extend(source.log.reader().groups(0))
    assert index.end < source.executor.applied_end, "the last outcome is not recorded yet"
    assert first.offset is not None
    behind = index.bases(SLOT, first.offset, EVERYTHING)
    assert len(index.bases(SLOT, 0, EVERYTHING)) > len(behind)
    source.rest()
    before = [part for part in source.content() if part[0] == SLOT]
    restarted = SimShard(source.disk.kill(), source.clock, [Ledger()])
    assert [part for part in restarted.content() if part[0] == SLOT] == before


def test_a_long_log_is_looked_through_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    one = shard()
    add(one, "one", "two")
    one.rest()
    monkeypatch.setattr(slot_copy, "LOOKED_THROUGH_BYTES_MAX", 1)
    origin = Origin(SOURCE, slot_of("t", "somebody-else"))
    end = int(one.executor.applied_end)
    reached, content = next_batch(one.log.reader().groups(0), origin, 0, end, (), EVERYTHING)
    assert 0 < reached < end
    assert decode_parts(content) == []


def test_what_waits_behind_a_seal_is_refused_when_the_seal_enters_a_group() -> None:
    one = shard()
    tell(one, Begin(FIRST, DESTINATION))
    ticket = Ticket(2, lambda _: None)
    key = next(k for k in map(str, range(99)) if slot_of("t", k) != SLOT)
    one.machine.accept([admitted(one, "one"), admitted(one, "two", key)], ticket, 0, None)
    one.log_own(StepSlot(SLOT, is_first_owner=True, message=encode_message(Seal(FIRST))))
    group_answers: list[Any] = [reply for reply in ticket.answers if reply is not None]
    assert [reply.outcome for reply in group_answers] == ["accepted"]
    assert not one.machine.in_flight
    assert one.machine.waiting_bytes == 0


# --- placement ------------------------------------------------------------------------------------


def ownership(*ranges: tuple[int, int]) -> Ownership:
    return Ownership(engine_uid=bytes(16), shard=SOURCE, shard_count=2, map_version=3, slots=ranges)


def placement(owned: Ownership | None, moves: SlotMoves | None) -> Placement:
    executor = Executor(
        Bench(DOMAIN).registry, SOURCE, dedupe=MemoryDedupe(), history=Bench(DOMAIN).history,
        moves=moves,
    )  # fmt: skip
    return Placement(executor, owned)


def test_slots_says_what_is_taken_until_the_log_says_otherwise() -> None:
    owned = ownership((0, 2))
    moves = SlotMoves()
    moves.records = {
        0: SlotRecord(state=State.SEALED, attempt=FIRST, digest=bytes(8)),
        2: SlotRecord(state=State.OWNED, attempt=Attempt(1, 0)),
    }
    place = placement(owned, moves)
    taken = [slot for slot in range(SLOT_COUNT) if place.refusal(slot) is None]
    assert taken == [1, 2]
    assert place.ranges() == ((1, 3),)
    assert place.error(0).shard_map_version == 3
    assert place.look(0).position == 0
    assert place.record(1).state is State.OWNED
    assert place.record(3).state is State.ABSENT


def test_a_shard_of_everything_takes_everything_until_it_has_handed_something_over() -> None:
    moves = SlotMoves()
    place = placement(None, moves)
    assert place.foreign is None
    assert place.refusal(0) is None
    assert place.ranges() == ((0, SLOT_COUNT),)
    moves.records[5] = SlotRecord(state=State.EXPORTING, attempt=FIRST, peer=DESTINATION)
    step = StepSlot(5, is_first_owner=True, message=encode_message(Begin(FIRST, DESTINATION)))
    place.executed(step)
    assert place.foreign is None
    moves.records[5] = SlotRecord(state=State.ABSENT, attempt=FIRST)
    place.executed(step)
    assert place.refusal(5) is not None
    assert place.ranges() == ((0, 5), (6, SLOT_COUNT))
    assert place.error(5).shard_map_version == 0


def test_where_no_moves_are_kept_none_is_asked_for() -> None:
    place = placement(None, None)
    with pytest.raises(InvariantBroken):
        _ = place.moves
    none = NoMoves()
    step = StepSlot(1, is_first_owner=True, message=encode_message(Seal(FIRST)))
    with pytest.raises(InvariantBroken):
        none.evolve(None, step, 1)
    with pytest.raises(InvariantBroken):
        none.load(None, b"")
    assert none.dump(None) is None
    assert not none.take_dropped()
    NothingRemembered().drop_slot(1, 2)


def test_ids_below_the_floor_are_forgotten_with_the_shards_own() -> None:
    source, destination = shard(), shard(DESTINATION)
    add(source, "one")
    moved(source, destination)
    (chunk,) = destination.machine.candidates("t", "a", "one")
    assert destination.send(admitted(destination, "one", "somebody-else"))[0].version == 1
    dedupe = cast("DedupIndex", destination.executor.dedupe)
    dedupe._floor_offset = chunk + 1
    assert destination.machine.candidates("t", "a", "one") == ()


def test_ids_of_a_later_copy_replace_those_of_one_that_was_dropped() -> None:
    source, destination = shard(), shard(DESTINATION)
    add(source, "one")
    tell(source, Begin(FIRST, DESTINATION))
    tell(destination, Stage(FIRST, SOURCE))
    destination.log_own(batch(source))
    old = destination.machine.candidates("t", "a", "one")
    second = Attempt(0, 2)
    tell(source, Stop(FIRST))
    tell(source, Begin(second, DESTINATION))
    tell(destination, Stage(second, SOURCE))
    assert destination.machine.candidates("t", "a", "one") == ()
    destination.log_own(msgspec.structs.replace(batch(source), number=2))
    new = destination.machine.candidates("t", "a", "one")
    assert len(old) == len(new) == 1
    assert new > old
    destination.rest()
    origin = Origin.of(DESTINATION, SLOT, destination.executor.slots[SLOT].lineage)
    groups = destination.log.reader().groups(0)
    again = [part for group in groups for part in parts(group, origin, 0, EVERYTHING)]
    assert [part.position for part in again] == [1], "what was dropped does not come along"


# --- snapshots and history ------------------------------------------------------------------------


def test_what_is_logged_of_moves_is_in_snapshots() -> None:
    source, destination = shard(), shard(DESTINATION)
    add(source, "one")
    tell(source, Begin(FIRST, DESTINATION))
    tell(destination, Stage(FIRST, SOURCE))
    destination.log_own(batch(source))
    for one in (source, destination):
        one.snapshot("full")
        kept = moves_of(one).dump(one.executor)
        assert kept is not None
        moves_of(one).load(one.executor, kept)
        assert moves_of(one).dump(one.executor) == kept
        again = SimShard(one.disk.kill(), one.clock, [DOMAIN], shard=one.shard)
        assert again.replayed == 0
        assert moves_of(again).records == moves_of(one).records
        assert moves_of(again).positions == moves_of(one).positions
        sleeps = one.shard == DESTINATION
        assert again.executor.slots[SLOT].asleep == sleeps


def test_a_record_of_a_slot_without_content_is_in_snapshots_too() -> None:
    source, destination = shard(), shard(DESTINATION)
    moved(source, destination)
    chunk = moves_of(source).dump(source.executor)
    assert chunk is not None
    other = SlotMoves()
    fresh = shard()
    for _ in range(2):
        other.load(fresh.executor, chunk)
    assert other.records == moves_of(source).records
    assert fresh.executor.slots == {}
    assert SlotMoves().dump(fresh.executor) is None


class Kept(History):
    """Batches and events by offset."""

    def __init__(self, content: dict[int, Sequence[Any]]) -> None:
        self._content = content

    def events(self, offset: Offset) -> Sequence[Any] | None:
        return self._content.get(offset)


def test_history_is_read_by_position_over_all_owners() -> None:
    source, destination = shard(), shard(DESTINATION)
    add(source, "one", "two")
    moved(source, destination)
    (own,) = add(destination, "three")
    image = destination.executor.slots[SLOT]
    end = destination.executor.applied_end
    history = destination.executor.history_of(image, 0, lambda: end)
    assert image.lineage is not None
    found = [msgspec.to_builtins(history.events(Offset(at))) for at in range(4)]
    assert found == [None, [["added", 1, 1]], [["added", 1, 2]], None]
    assert own.offset is not None
    position = Offset((1 << ERA_SHIFT) + own.offset)
    assert msgspec.to_builtins(history.events(position)) == [["added", 1, 3]]


def test_history_of_a_batch_is_that_of_one_domain() -> None:
    registry = Bench(DOMAIN, Ledger()).registry
    source = shard()
    (reply,) = add(source, "one")
    source.rest()
    groups = source.log.reader().groups(0)
    done = [part for group in groups for part in parts(group, Origin(SOURCE, SLOT), 0, 99)]
    raw = msgspec.Raw(msgspec.msgpack.encode(["added", 1, 2]))
    lineage = Lineage()
    expired = Expired(7, 1, "counter", [(1, "t", "a", raw), (3, "t", "a", raw)])
    skipped = msgspec.structs.replace(cast("Done", done[0]), position=9, skipped=True)
    batch_of_parts = decode_parts(encode_parts([*done, expired, skipped]))
    lineage.note((), 3)
    lineage.note(batch_of_parts, 4)
    lineage.base = 1 << ERA_SHIFT

    def history(domain: str) -> CarriedHistory:
        kept = Kept({4: batch_of_parts})
        return CarriedHistory(domain, lineage, Kept({}), kept, registry.decoders)

    counter = history("counter")
    assert reply.offset is not None
    assert msgspec.to_builtins(counter.events(Offset(reply.offset))) == [["added", 1, 1]]
    assert msgspec.to_builtins(counter.events(Offset(7))) == [
        None, ["added", 1, 2], None, ["added", 1, 2],
    ]  # fmt: skip
    for offset in (0, 8, 9, 10):
        assert counter.events(Offset(offset)) is None
    for offset in (reply.offset, 7):
        assert history("ledger").events(Offset(offset)) is None


def test_only_a_batch_leads_to_a_command_that_was_brought_along() -> None:
    source, destination = shard(), shard(DESTINATION)
    add(source, "one")
    moved(source, destination)
    destination.rest()
    (chunk,) = destination.machine.candidates("t", "a", "one")
    recorded = destination_recorded(destination, chunk)
    assert find_carried(recorded, ("t", "a", "one")) is not None
    assert find_carried(recorded, ("t", "", "one")) is not None
    assert find_carried(recorded, ("t", "b", "one")) is None
    assert find_carried(recorded, ("t", "a", "two")) is None
    assert find_carried(destination_recorded(destination, 0), ("t", "a", "one")) is None


def destination_recorded(one: SimShard, offset: int) -> Any:
    found = one._reader.find(offset)
    assert found is not None
    header, command, outcome = found
    assert outcome is not None
    return Recorded(command, outcome, header.epoch, cast("Any", header.time))


def test_an_empty_slot_has_a_digest_that_any_content_changes() -> None:
    one = shard()
    empty = slot_digest(one.executor, SLOT)
    assert empty == slot_digest(shard().executor, SLOT)
    add(one, "one")
    assert slot_digest(one.executor, SLOT) != empty


def test_messages_are_logged_as_they_were_sent() -> None:
    for message in (Begin(FIRST, DESTINATION), Activate(FIRST, b"digest"), Finish(FIRST, 1)):
        assert decode_message(encode_message(message)) == message
    assert CARRIED == "system"


def test_memory_forgets_a_slot_below_an_offset() -> None:
    dedupe = MemoryDedupe()
    dedupe.add(1, b"id", 3)
    dedupe.add(1, b"id", 5)
    dedupe.add(2, b"id", 3)
    dedupe.drop_slot(1, 4)
    assert dedupe.find(1, b"id") == (5,)
    assert dedupe.find(2, b"id") == (3,)
