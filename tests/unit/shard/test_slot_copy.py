"""The edges of copying a slot; `tests/unit/sim/test_slot_copy.py` holds what must always be so."""

import msgspec
import pytest

from ultraengine.domains.counter import DOMAIN
from ultraengine.execution.pipeline import EvolveFailed
from ultraengine.execution.registry import Registry
from ultraengine.execution.system import Skip
from ultraengine.log.reader import RecordedGroup
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import Offset, slot_of
from ultraengine.model.limits import DEFAULT_LIMITS
from ultraengine.shard.slot_copy import CopiedHistory, Done, SlotCopy, parts, slot_digest
from ultraengine.testing.sim_clock import SimClock
from ultraengine.testing.sim_disk import SimDisk
from ultraengine.testing.sim_shard import SHARD, SimShard

SLOT = slot_of("t", "a")


def added(shard: SimShard, *names: str) -> None:
    """Additions of 1 to one counter."""
    for name in names:
        admitted = shard.registry.admit(
            id=name,
            type="counter.add",
            key="a",
            data=b'{"delta":1}',
            codec="json",
            tenant="t",
            principal="p",
            scopes=frozenset({"*:write"}),
        )
        shard.send(admitted)


def shard_with(*names: str) -> SimShard:
    shard = SimShard(SimDisk(1), SimClock(), [DOMAIN])
    added(shard, *names)
    return shard


def groups(shard: SimShard) -> list[RecordedGroup]:
    return list(shard.log.reader().groups(0))


def value(copy: SlotCopy) -> int:
    return int(copy.executor.slot_state("counter", "t", "a").get(("t", "a")).value)


def test_what_is_not_recorded_is_not_copied() -> None:
    shard = shard_with("one")
    last = groups(shard)[-1]
    assert last.outcomes is None
    with pytest.raises(InvariantBroken, match="recorded"):
        parts(last, SLOT)


def test_a_batch_that_does_not_begin_where_the_copy_ends_changes_nothing() -> None:
    shard = shard_with("one", "two")
    shard.rest()
    copy = SlotCopy(shard.registry, SHARD, SLOT)
    first, *rest = groups(shard)
    assert not copy.take(1, 2, parts(rest[0], SLOT))
    assert copy.position == 0
    assert copy.take(0, first.header.offset_end, parts(first, SLOT))
    assert not copy.take(0, first.header.offset_end, parts(first, SLOT))
    assert copy.position == first.header.offset_end


def test_a_part_outside_of_its_range_is_refused() -> None:
    shard = shard_with("one")
    shard.rest()
    (part,) = parts(groups(shard)[-1], SLOT)
    with pytest.raises(InvariantBroken, match="range"):
        SlotCopy(shard.registry, SHARD, SLOT).take(0, part.offset, [part])


def test_an_overridden_command_is_remembered_and_not_evolved() -> None:
    shard = shard_with("one", "two")
    (offset,) = (one.outcomes[0].offset for one in groups(shard)[-2:-1] if one.outcomes)
    shard.log_own(Skip(offset, "for the test"))
    shard.rest()
    overridden = shard.executor.skipped
    assert overridden == {offset}
    copy = SlotCopy(shard.registry, SHARD, SLOT)
    for group in groups(shard):
        batch = parts(group, SLOT, skipped=overridden)
        skipped = [one for one in batch if isinstance(one, Done) and one.skipped]
        if skipped:
            # The counter says 1 before, and 2 after: what is left out shows as a broken chain.
            assert [one.offset for one in skipped] == [offset]
        if offset > group.header.base_offset or skipped:
            assert copy.take(group.header.base_offset, group.header.offset_end, batch)
    assert copy.find(("t", "a", "one")) is not None
    assert copy.executor.version("t", "a") == 0


def test_an_empty_slot_has_a_digest_that_any_content_changes() -> None:
    shard = shard_with()
    empty = slot_digest(shard.executor, SLOT, ())
    assert empty == SlotCopy(shard.registry, SHARD, SLOT).digest(0)
    assert slot_digest(shard.executor, SLOT, [(1, 2)]) != empty
    added(shard, "one")
    assert slot_digest(shard.executor, SLOT, ()) != empty


def test_ids_below_the_floor_are_not_part_of_the_digest() -> None:
    shard = shard_with("one", "two")
    shard.rest()
    copy = SlotCopy(shard.registry, SHARD, SLOT)
    for group in groups(shard):
        copy.take(group.header.base_offset, group.header.offset_end, parts(group, SLOT))
    last = max(one.outcome.offset for one in [copy.find(("t", "a", "two"))] if one is not None)
    assert copy.digest(0) != copy.digest(last)
    assert copy.digest(last + 1) == slot_digest(copy.executor, SLOT, ())
    assert value(copy) == 2


def test_history_of_a_copy_is_that_of_one_domain_below_what_may_be_seen() -> None:
    shard = shard_with("one")
    shard.rest()
    copy = SlotCopy(shard.registry, SHARD, SLOT)
    for group in groups(shard):
        copy.take(group.header.base_offset, group.header.offset_end, parts(group, SLOT))
    found = copy.find(("t", "a", "one"))
    assert found is not None
    offset = Offset(found.outcome.offset)
    events = copy.history.view("counter", lambda: copy.position).events(offset)
    assert msgspec.to_builtins(events) == [["added", 1, 1]]
    assert copy.history.view("counter", lambda: offset).events(offset) is None
    assert copy.history.view("ledger", lambda: copy.position).events(offset) is None


def test_a_copy_needs_the_domains_of_its_source() -> None:
    shard = shard_with("one")
    shard.rest()
    copy = SlotCopy(Registry([], limits=DEFAULT_LIMITS), SHARD, SLOT)
    first, last = groups(shard)
    assert copy.take(0, first.header.offset_end, parts(first, SLOT))
    batch = parts(last, SLOT)
    with pytest.raises(EvolveFailed, match="no domain"):
        copy.take(last.header.base_offset, last.header.offset_end, batch)


def test_a_run_of_commands_is_in_the_history_of_a_copy_at_each_offset() -> None:
    history = CopiedHistory({"box": msgspec.msgpack.decode})
    history.append_run(4, "box", [b"\x91\x01", b"\x91\x02", b"\x91\x03"])
    view = history.view("box", lambda: 6)
    assert [view.events(Offset(offset)) for offset in range(3, 8)] == [None, [1], [2], None, None]
