"""From groups to batches: what is taken, what is poison, what moves."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.projection.shop import (
    T0,
    AuditTables,
    Poisoned,
    Shop,
    ShopTables,
    Sold,
    activation,
    as_domains,
    busy_log,
    command,
    decoder,
    members,
    moved_logs,
    override,
    sale,
)

from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import Epoch, Instant, Offset, ShardId
from ultraengine.projection.projector import (
    REASON_CHARS_MAX,
    Formed,
    Former,
    ProjectionHooks,
    declared,
)
from ultraengine.projection.target import START, Checkpoint
from ultraengine.testing.memory_feed import GroupLog

NOW = Instant(T0 + 5)


def former(*projections: Any, hooks: ProjectionHooks | None = None, at: Any = None) -> Former:
    return Former(members(*projections), decoder(), at or {}, hooks or ProjectionHooks())


def content(formed: Formed, n: int = 0) -> tuple[Any, Any]:
    batch = formed.batches[n]
    return batch.appended, {name: rows.put for name, rows in batch.current.items()}


def test_groups_of_several_shards_make_one_batch_and_move_each_shard_once() -> None:
    first, second = busy_log(0, 4), busy_log(1, 3)
    making = former()
    for group in (*first.groups, *second.groups):
        assert making.take(group, NOW) is None
    formed = making.finish()
    assert [(moved.shard, moved.before, moved.groups) for moved in formed.moved] == [
        (0, START, 4),
        (1, START, 3),
    ]
    last = first.groups[-1]
    assert formed.moved[0].after == Checkpoint(first.end, Epoch(1), last.time, last.chain)
    assert formed.commands == first.end + second.end
    assert making.groups == 7
    assert making.bytes == sum(
        len(group.commands) + len(group.outcomes) for group in (*first.groups, *second.groups)
    )
    assert making.rows == formed.batches[0].row_count > 0


def test_a_group_that_was_taken_is_not_taken_again() -> None:
    log = busy_log(0, 2)
    making = former()
    for group in (*log.groups, log.groups[1]):
        making.take(group, NOW)
    once = former()
    for group in log.groups:
        once.take(group, NOW)
    assert content(making.finish()) == content(once.finish())


def test_a_position_inside_a_group_takes_its_rest() -> None:
    log = GroupLog(ShardId(0))
    group = log.add(T0, [sale(1), sale(2), sale(3)])
    at = Checkpoint(Offset(2), Epoch(1), T0, b"x" * 16)
    making = former(at={ShardId(0): at})
    making.take(group, NOW)
    formed = making.finish()
    assert [row[2] for row in formed.batches[0].appended["sale"]] == [2]
    assert formed.moved[0].before == at
    assert formed.commands == 1


def test_a_group_behind_which_another_shard_has_to_come_first_is_left_out_of_the_batch() -> None:
    source, there = moved_logs()
    making = former()
    for group in source.groups[:-1]:
        assert making.take(group, NOW) is None
    assert making.take(there.groups[0], NOW) is None
    assert making.behind is not None
    assert (making.behind.shard, making.behind.offset) == (0, source.end)
    assert (making.groups, making.position(ShardId(1))) == (4, START)
    for group in (source.groups[-1], *there.groups):
        assert making.take(group, NOW) is None
        assert making.behind is None
    assert making.groups == 7


def test_an_activation_below_the_position_of_a_set_asks_for_nothing() -> None:
    log = GroupLog(ShardId(1))
    group = log.add(T0, [activation(0, 5), activation(), sale(2)])
    at = Checkpoint(Offset(1), Epoch(1), T0, b"x" * 16)
    making = former(at={ShardId(1): at})
    assert making.take(group, NOW) is None
    assert (making.behind, making.groups) == (None, 1)


def test_a_gap_in_the_feed_is_a_broken_invariant() -> None:
    log = busy_log(0, 2)
    with pytest.raises(InvariantBroken, match="no gaps"):
        former().take(log.groups[1], NOW)


def test_several_projections_are_fed_from_one_decoding() -> None:
    log = busy_log(0, 6)
    making = former(ShopTables(), AuditTables())
    for group in log.groups:
        making.take(group, NOW)
    formed = making.finish()
    assert len(formed.batches[0].appended["sale"]) == sum(
        row[2] for row in formed.batches[1].current["seen"].put.values()
    )


def test_an_event_that_raises_is_poison_with_its_exact_place() -> None:
    log = GroupLog(ShardId(2))
    log.add(T0, [sale(1)])
    group = log.add(T0, [sale(2), (command(3), [Sold("a", 1), Poisoned("x" * 5_000)])])
    making = former()
    assert making.take(log.groups[0], NOW) is None
    poison = making.take(group, NOW)
    assert poison is not None
    assert poison.projection == "shop"
    parked = poison.parked
    assert (parked.shard, parked.offset, parked.index, parked.time) == (2, 2, 1, NOW)
    assert parked.reason.startswith("ValueError: nobody knows")
    assert len(parked.reason) == REASON_CHARS_MAX


def test_bytes_that_cannot_be_read_are_poison_for_all() -> None:
    group = GroupLog(ShardId(0)).add(T0, [(command(1), ["unreadable"])])
    poison = former(ShopTables(), AuditTables()).take(group, NOW)
    assert poison is not None
    assert (poison.projection, poison.parked.index) == (None, -1)


def test_a_row_of_a_wrong_width_is_poison() -> None:
    class Wrong(ShopTables):
        def project(self, event: Any, at: Any, rows: Any) -> None:
            rows.put("total", ("acme",))

    poison = former(Wrong()).take(GroupLog(ShardId(0)).add(T0, [sale(1)]), NOW)
    assert poison is not None
    assert "one value per column" in poison.parked.reason


def test_hooks_before_may_mask_an_event_or_leave_it_out() -> None:
    seen: list[tuple[str, int]] = []

    def mask(projection: str, event: Any, at: Any) -> Any:
        seen.append((projection, at.offset))
        return Sold("masked", event.amount) if at.offset else None

    def never_after_none(projection: str, event: Any, at: Any) -> Any:
        assert event.item == "masked"
        return event

    log = GroupLog(ShardId(0))
    making = former(hooks=ProjectionHooks(before=(mask, never_after_none)))
    making.take(log.add(T0, [sale(1), sale(2)]), NOW)
    rows = making.finish().batches[0].appended["sale"]
    assert [row[5] for row in rows] == ["masked"]
    assert seen == [("shop", 0), ("shop", 1)]


def test_a_hook_that_raises_is_poison() -> None:
    def refuse(projection: str, event: Any, at: Any) -> Any:
        raise PermissionError("not this one")

    making = former(hooks=ProjectionHooks(before=(refuse,)))
    poison = making.take(GroupLog(ShardId(0)).add(T0, [sale(1)]), NOW)
    assert poison is not None
    assert poison.parked.reason == "PermissionError: not this one"


def test_overrides_are_reported_with_the_batch() -> None:
    log = GroupLog(ShardId(0))
    log.add(T0, [sale(1)])
    making = former()
    making.take(log.groups[0], NOW)
    making.take(log.add(T0, [override(0)]), NOW)
    assert making.finish().overridden == ((0, 0),)


def test_a_batch_without_projections_has_no_rows() -> None:
    assert Former((), decoder(), {}, ProjectionHooks()).rows == 0


def test_projections_are_found_in_the_domains_that_have_them() -> None:
    class Without:
        name = "without"
        events = Sold

    found = declared(as_domains(Without(), Shop(ShopTables(), AuditTables())))
    assert [(one.domain, one.projection.name) for one in found] == [
        ("shop", "shop"),
        ("shop", "audit"),
    ]


def test_two_projections_of_one_name_are_refused() -> None:
    with pytest.raises(InvariantBroken, match="names of their own"):
        declared(as_domains(Shop(ShopTables(), ShopTables(2))))


def test_a_declaration_that_contradicts_itself_is_refused() -> None:
    class Wrong(ShopTables):
        name = "Not A Name"

    with pytest.raises(InvariantBroken, match="a name is"):
        declared(as_domains(Shop(Wrong())))


@given(cuts=st.lists(st.integers(0, 14), max_size=6), seed=st.integers(0, 30))
def test_however_a_log_is_cut_into_batches_the_rows_are_the_same(
    cuts: list[int], seed: int
) -> None:
    log = busy_log(0, 14, seed=seed)
    whole = former()
    for group in log.groups:
        whole.take(group, NOW)
    rows: list[Any] = []
    totals: dict[Any, list[Any]] = {}
    positions: dict[ShardId, Checkpoint] = {}
    bounds = sorted({0, *cuts, len(log.groups)})
    for start, end in itertools.pairwise(bounds):
        making = former(at=positions)
        for group in log.groups[start:end]:
            making.take(group, NOW)
        formed = making.finish()
        positions = {moved.shard: moved.after for moved in formed.moved}
        appended, current = content(formed)
        rows += appended["sale"]
        for key, row in current["total"].items():
            old = totals.get(key)
            totals[key] = (
                list(row)
                if old is None
                else [*row[:3], old[3] + row[3], max(old[4], row[4]), row[5]]
            )
    appended, current = content(whole.finish())
    assert rows == appended["sale"]
    assert totals == {key: list(row) for key, row in current["total"].items()}
