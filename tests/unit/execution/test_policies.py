"""Shipped policies and examples of users' own, against their contracts."""

import zlib
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from ultraengine.execution.policies import (
    ASYNC_WAIT_S_MAX,
    GROUP_WAIT_S_MAX,
    AsyncDurability,
    FairScheduling,
    FifoScheduling,
    GroupDurability,
    SyncDurability,
    durability,
)
from ultraengine.log.retention import KeyCompaction, NoCompaction, TimeRetention
from ultraengine.log.serializer import MsgpackSerializer, serializers
from ultraengine.model.command import Command
from ultraengine.model.ids import Instant
from ultraengine.model.outcome import Outcome
from ultraengine.model.policy import (
    CompactionPolicy,
    DurabilityPolicy,
    FlushRule,
    LogSerializer,
    SchedulingPolicy,
)
from ultraengine.testing.policies import (
    CompactionContract,
    DurabilityContract,
    SchedulingContract,
    SerializerContract,
    command,
)

# What is shipped.


class TestFifoScheduling(SchedulingContract):
    def make(self) -> SchedulingPolicy:
        return FifoScheduling()


class TestFairScheduling(SchedulingContract):
    def make(self) -> SchedulingPolicy:
        return FairScheduling()


class TestWeightedScheduling(SchedulingContract):
    def make(self) -> SchedulingPolicy:
        return FairScheduling({"t1": 3, "t2": 2})


class TestSyncDurability(DurabilityContract):
    def make(self) -> DurabilityPolicy:
        return SyncDurability()


class TestGroupDurability(DurabilityContract):
    def make(self) -> DurabilityPolicy:
        return GroupDurability()


class TestAsyncDurability(DurabilityContract):
    def make(self) -> DurabilityPolicy:
        return AsyncDurability()


class TestMsgpackSerializer(SerializerContract):
    def make(self) -> LogSerializer:
        return MsgpackSerializer()


class TestNoCompaction(CompactionContract):
    def make(self) -> CompactionPolicy:
        return NoCompaction()


class TestKeyCompaction(CompactionContract):
    def make(self) -> CompactionPolicy:
        return KeyCompaction()


class TestTimeRetention(CompactionContract):
    def make(self) -> CompactionPolicy:
        return TimeRetention(keep_s=7_200)


# Users' own.


class PriorityScheduling:
    """Keys that begin with ``vip.`` go first, but one place in four is for the oldest."""

    def choose(self, waiting: Sequence[Command], count_max: int) -> Sequence[int]:
        ordinary = max(1, count_max // 4)
        first = [n for n, one in enumerate(waiting) if one.key.startswith("vip.")]
        others = [n for n, one in enumerate(waiting) if not one.key.startswith("vip.")]
        kept = min(ordinary, len(others))
        chosen = first[: max(count_max - kept, 0)]
        return chosen + others[: count_max - len(chosen)]


class RecordBatchSerializer:
    """A codec as message brokers have it: magic, count, checksum, length-prefixed records."""

    @property
    def codec(self) -> int:
        return 64

    def encode_commands(self, commands: Sequence[Command]) -> bytes:
        return self._encode(commands)

    def decode_commands(self, payload: bytes) -> list[Command]:
        return [msgspec.msgpack.decode(one, type=Command) for one in self._records(payload)]

    def encode_outcomes(self, outcomes: Sequence[Outcome]) -> bytes:
        return self._encode(outcomes)

    def decode_outcomes(self, payload: bytes) -> list[Outcome]:
        return [msgspec.msgpack.decode(one, type=Outcome) for one in self._records(payload)]

    @staticmethod
    def _encode(values: Sequence[Any]) -> bytes:
        records = [msgspec.msgpack.encode(value) for value in values]
        body = b"".join(len(one).to_bytes(4, "big") + one for one in records)
        head = b"\x02" + len(records).to_bytes(4, "big")
        return head + zlib.crc32(body).to_bytes(4, "big") + body

    @staticmethod
    def _records(payload: bytes) -> list[bytes]:
        if len(payload) < 9 or payload[0] != 2:
            raise ValueError("no record batch")
        count, body = int.from_bytes(payload[1:5], "big"), payload[9:]
        if zlib.crc32(body) != int.from_bytes(payload[5:9], "big"):
            raise ValueError("the checksum of a record batch does not match")
        records: list[bytes] = []
        while body:
            end = 4 + int.from_bytes(body[:4], "big")
            records.append(body[4:end])
            body = body[end:]
        if len(records) != count:
            raise ValueError(f"{len(records)} records in a batch of {count}")
        return records


class TestPriorityScheduling(SchedulingContract):
    def make(self) -> SchedulingPolicy:
        return PriorityScheduling()


class TestRecordBatchSerializer(SerializerContract):
    def make(self) -> LogSerializer:
        return RecordBatchSerializer()

    def test_the_log_takes_it(self) -> None:
        assert serializers([RecordBatchSerializer()])[64].codec == 64


# Contracts must fail for what breaks them.


class Newest:
    def choose(self, waiting: Sequence[Command], count_max: int) -> Sequence[int]:
        return range(max(0, len(waiting) - count_max), len(waiting))


class Greedy:
    def choose(self, waiting: Sequence[Command], _count_max: int) -> Sequence[int]:
        return range(len(waiting))


class Forgetful:
    """Chooses by how often it was asked."""

    def __init__(self) -> None:
        self.calls = 0

    def choose(self, waiting: Sequence[Command], count_max: int) -> Sequence[int]:
        self.calls += 1
        return range(min(len(waiting), max(1, count_max - self.calls % 2)))


class OneTenant:
    """Serves the tenant with the most waiting commands."""

    def choose(self, waiting: Sequence[Command], count_max: int) -> Sequence[int]:
        tenants = [one.tenant for one in waiting]
        most = max(sorted(set(tenants)), key=tenants.count, default="")
        return [n for n, tenant in enumerate(tenants) if tenant == most][:count_max]


@pytest.mark.parametrize(
    ("policy", "test"),
    [
        (Newest, "test_commands_of_one_key_keep_their_order"),
        (Greedy, "test_it_chooses_some_each_once_and_not_too_many"),
        (Forgetful, "test_it_is_a_function_of_its_arguments"),
        (OneTenant, "test_nobody_starves"),
    ],
)
def test_the_contract_refuses_a_schedule_that_breaks_it(
    policy: type[SchedulingPolicy], test: str
) -> None:
    class Suite(SchedulingContract):
        def make(self) -> SchedulingPolicy:
            return policy()

    with pytest.raises(AssertionError):
        getattr(Suite(), test)()


class Hasty:
    def rule(self) -> FlushRule:
        return FlushRule("sync", 0.0, 1, reply_before_flush=True)


class Lossy(MsgpackSerializer):
    def decode_commands(self, payload: bytes) -> list[Command]:
        return super().decode_commands(payload)[:-1]


class Lax(MsgpackSerializer):
    def decode_outcomes(self, payload: bytes) -> list[Outcome]:
        try:
            return super().decode_outcomes(payload)
        except ValueError:
            return []


class Wistful:
    name = "wistful"

    def archive(self, *, sealed_at: Instant, now: Instant) -> bool:
        return now - sealed_at > 10**9


def test_the_contracts_refuse_other_policies_that_break_them() -> None:
    class Flush(DurabilityContract):
        def make(self) -> DurabilityPolicy:
            return Hasty()

    class Loss(SerializerContract):
        def make(self) -> LogSerializer:
            return Lossy()

    class Leniency(SerializerContract):
        def make(self) -> LogSerializer:
            return Lax()

    class Regret(CompactionContract):
        def make(self) -> CompactionPolicy:
            return Wistful()

    broken = [
        Flush().test_its_rule_is_one_that_the_engine_can_keep,
        Loss().test_commands_come_back_as_they_were,
        Leniency().test_what_is_cut_or_made_up_is_a_value_error,
        Regret().test_what_it_gave_up_it_does_not_want_back,
    ]
    for test in broken:
        with pytest.raises(AssertionError):
            test()


# Behaviour beyond the contracts.


def test_tenants_take_turns() -> None:
    waiting = [command(n, tenant="a") for n in range(6)] + [command(9, tenant="b")]
    assert list(FairScheduling().choose(waiting, 3)) == [0, 6, 1]
    assert list(FairScheduling({"a": 2}).choose(waiting, 4)) == [0, 1, 6, 2]
    assert list(FairScheduling().choose(waiting, 10)) == [0, 6, 1, 2, 3, 4, 5]
    assert list(FairScheduling().choose(waiting[:6], 10)) == [0, 1, 2, 3, 4, 5]


def test_first_come_first_served() -> None:
    waiting = [command(n, tenant=f"t{n % 2}") for n in range(6)]
    assert list(FifoScheduling().choose(waiting, 4)) == [0, 1, 2, 3]


def test_a_weight_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        FairScheduling({"a": 0})


def test_policies_go_by_name() -> None:
    assert durability("sync").rule() == SyncDurability().rule()
    assert durability("group", wait_s=0.001).rule().wait_s == 0.001
    assert durability("group").rule() == GroupDurability().rule()
    assert durability("async").rule() == AsyncDurability().rule()
    assert durability("sync", replicas=3, group_bytes_max=7).rule() == FlushRule(
        name="sync", wait_s=0.0, group_bytes_max=7, reply_before_flush=False
    )


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("eventual", {}, "no durability policy"),
        ("sync", {"wait_s": 0.001}, "does not wait"),
        ("group", {"wait_s": GROUP_WAIT_S_MAX * 1.01}, "at most"),
        ("group", {"wait_s": 0.0}, "above 0"),
        ("async", {"wait_s": ASYNC_WAIT_S_MAX * 1.01}, "at most"),
        ("group", {"replicas": 2}, "use sync"),
        ("async", {"replicas": 3}, "use sync"),
        ("sync", {"group_bytes_max": 0}, "above 0"),
    ],
)
def test_a_promise_that_cannot_be_kept_is_refused(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        durability(name, **options)
