"""From stored groups to events, and where each stands."""

from typing import Any

import msgspec
import pytest
from tests.unit.projection.shop import (
    T0,
    Poisoned,
    Sold,
    busy_log,
    command,
    decoder,
    override,
    sale,
    tick,
)

from ultraengine.log.serializer import MsgpackSerializer
from ultraengine.model.ids import Offset, ShardId
from ultraengine.model.outcome import CommittedGroup
from ultraengine.projection.decode import WHOLE, Decoder, Undecodable
from ultraengine.testing.memory_feed import GroupLog


def places(to: Decoder, group: CommittedGroup, start: int = 0) -> list[tuple[Any, ...]]:
    at = to.source
    return [
        (domain, event, at.offset, at.index, at.tenant, at.key, at.type, at.id, at.principal)
        for domain, event in to.events(group, Offset(start), lambda _: Offset(0))
    ]


def test_each_event_of_an_accepted_command_is_given_with_its_place() -> None:
    log = GroupLog(ShardId(3), epoch=7)
    log.add(T0, [sale(1)])
    group = log.add(T0, [(command(2), [Sold("a", 1), Sold("b", 2)])])
    to = decoder()
    found = places(to, group)
    where = ("acme", "shop-2", "shop.sell@1", "c-2", "till-0")
    assert found == [("shop", Sold("a", 1), 1, 0, *where), ("shop", Sold("b", 2), 1, 1, *where)]
    at = to.source
    assert (at.shard, at.epoch, at.time, at.correlation_id) == (3, 7, T0, "trace-2")


def test_rejected_commands_and_those_of_other_domains_give_nothing() -> None:
    log = GroupLog(ShardId(0))
    group = log.add(T0, [(command(1), None), (command(2, kind="other.do@1"), [1]), sale(3)])
    assert [place[2] for place in places(decoder(), group)] == [2]


def test_a_group_is_given_from_the_offset_on() -> None:
    log = GroupLog(ShardId(0))
    group = log.add(T0, [sale(1), sale(2), sale(3)])
    assert [place[2] for place in places(decoder(), group, start=1)] == [1, 2]


def test_what_a_timer_expired_belongs_to_whose_timer_it_was() -> None:
    log = GroupLog(ShardId(0))
    group = log.add(T0, [tick([("t1", "k1", Sold("a", 1)), ("t2", "k2", Sold("b", 2))])])
    found = places(decoder(), group)
    assert [(one[1].item, one[3], one[4], one[5]) for one in found] == [
        ("a", 0, "t1", "k1"),
        ("b", 1, "t2", "k2"),
    ]


def test_a_timer_of_another_domain_gives_nothing() -> None:
    group = GroupLog(ShardId(0)).add(T0, [tick([("t", "k", 1)], domain="other")])
    assert places(decoder(), group) == []


def test_other_commands_of_the_engine_give_nothing() -> None:
    made = msgspec.structs.replace(command(1), type="system.epoch_start@1", tenant="system")
    group = GroupLog(ShardId(0)).add(T0, [(made, [])])
    assert places(decoder(), group) == []


def test_an_override_met_in_the_log_is_told_once_and_obeyed_from_then_on() -> None:
    log, to = GroupLog(ShardId(0)), decoder()
    first = log.add(T0, [sale(1), sale(2)])
    second = log.add(T0, [override(0)])
    assert len(places(to, first)) == 2
    assert places(to, second) == []
    assert to.late_overrides() == [(0, 0)]
    assert to.late_overrides() == []
    assert [place[2] for place in places(to, first)] == [1]
    places(to, second)
    assert to.late_overrides() == []


def test_an_override_of_one_shard_says_nothing_of_another() -> None:
    to = decoder()
    places(to, GroupLog(ShardId(0)).add(T0, [override(0)]))
    assert len(places(to, GroupLog(ShardId(1)).add(T0, [sale(1)]))) == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"codec": 64}, "codec 64"),
        ({"commands": b"\xc1"}, "cannot be read"),
        ({"outcomes": b"\xc1"}, "cannot be read"),
        ({"count": 3}, "2 commands and 2 outcomes, not 3"),
        ({"outcomes": MsgpackSerializer().encode_outcomes([])}, "0 outcomes"),
    ],
)
def test_bytes_that_cannot_be_read_name_their_group(changes: dict[str, Any], reason: str) -> None:
    log = GroupLog(ShardId(0))
    log.add(T0, [sale(1)])
    group = msgspec.structs.replace(log.add(T0, [sale(2), sale(3)]), **changes)
    with pytest.raises(Undecodable, match=reason) as raised:
        places(decoder(), group)
    assert raised.value.offset == 1


def test_events_that_cannot_be_read_name_their_command() -> None:
    log = GroupLog(ShardId(0))
    group = log.add(T0, [sale(1), (command(2), ["no event"])])
    with pytest.raises(Undecodable, match="events cannot be read") as raised:
        places(decoder(), group)
    assert raised.value.offset == 1
    assert WHOLE == -1


def test_engine_data_that_cannot_be_read_name_their_command() -> None:
    broken = msgspec.structs.replace(tick([])[0], data=msgspec.Raw(b"\x01"))
    group = GroupLog(ShardId(0)).add(T0, [(broken, [])])
    with pytest.raises(Undecodable, match="tick") as raised:
        places(decoder(), group)
    assert raised.value.offset == 0


def test_groups_may_be_read_in_any_order_and_again() -> None:
    log, to = busy_log(0, 12), decoder()
    there = [places(to, group) for group in log.groups]
    back = [places(to, group) for group in reversed(log.groups)]
    assert there == back[::-1]
    assert not any(isinstance(one[1], Poisoned) for group in there for one in group)
