"""A shard against a dictionary: commands, retries, kills, power cuts, snapshots, upgrades.

Hypothesis chooses what happens and in which order; the model is what clients were told.
"""

from typing import Any

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from ultraengine.domains.counter import DOMAIN
from ultraengine.execution.registry import Admitted
from ultraengine.execution.system import DropConsumer, MoveConsumer
from ultraengine.model.reply import Reply
from ultraengine.testing.sim_clock import SimClock
from ultraengine.testing.sim_disk import SimDisk
from ultraengine.testing.sim_faults import FailedSync
from ultraengine.testing.sim_shard import SIM_LIMITS, SimShard

LIMITS = msgspec.structs.replace(SIM_LIMITS, replay_checkpoint_s=0.005)
"""So that every second start keeps something of what it replays."""


class TickingClock(SimClock):
    """A millisecond passes with every look at it."""

    def monotonic(self) -> float:
        self.advance(0.001)
        return super().monotonic()


class Versioned(type(DOMAIN)):  # type: ignore[misc]
    """The counter at some handler version; it decides the same in all of them."""

    def __init__(self, version: int) -> None:
        super().__init__()
        self._version = version

    @property
    def version(self) -> int:
        return self._version


class ShardAgainstModel(RuleBasedStateMachine):
    ids = Bundle("ids")

    @initialize(seed=st.integers(0, 2**32), eager=st.booleans())
    def start(self, seed: int, *, eager: bool) -> None:
        self.seed = seed
        self.eager = eager
        self.clock = TickingClock()
        self.handlers = 1
        self.sums: dict[str, int] = {}
        self.told: dict[str, tuple[str, int, Reply]] = {}
        """What each id asked for and the first reply to it."""
        self.unknown: dict[str, tuple[str, int]] = {}
        """Sent, and the answer never came."""
        self.slots: dict[str, int] = {}
        """What each consumer has confirmed."""
        self.count = 0
        self.open(SimDisk(seed))

    def open(self, disk: SimDisk) -> None:
        self.seed += 1
        self.shard = SimShard(
            disk,
            self.clock,
            [Versioned(self.handlers)],
            seed=self.seed,
            limits=LIMITS,
            eager=self.eager,
        )

    def admit(self, name: str, key: str, delta: int) -> Admitted:
        return self.shard.registry.admit(
            id=name,
            type="counter.add",
            key=key,
            data=msgspec.json.encode({"delta": delta, "maximum": 50}),
            codec="json",
            tenant="t",
            principal="p",
            scopes=frozenset({"*:write"}),
        )

    def learn(self, name: str, key: str, delta: int, reply: Reply) -> None:
        """Take a first reply into the model."""
        accepted = self.sums.get(key, 0) + delta <= 50
        assert reply.outcome == ("accepted" if accepted else "rejected"), reply
        if accepted:
            self.sums[key] = self.sums.get(key, 0) + delta
            assert reply.result is not None
        self.told[name] = (key, delta, reply)

    @rule(
        target=ids,
        commands=st.lists(
            st.tuples(st.sampled_from("abc"), st.integers(-20, 30)), min_size=1, max_size=40
        ),
    )
    def send(self, commands: list[tuple[str, int]]) -> Any:
        names = []
        admitted = []
        for key, delta in commands:
            name = f"id-{self.count}"
            self.count += 1
            names.append(name)
            admitted.append(self.admit(name, key, delta))
        replies = self.shard.send(*admitted)
        for name, (key, delta), reply in zip(names, commands, replies, strict=True):
            assert not reply.duplicate
            self.learn(name, key, delta, reply)
        return multiple(*names)

    @rule(name=ids)
    def retry(self, name: str) -> None:
        if name not in self.told:
            return
        key, delta, first = self.told[name]
        (reply,) = self.shard.send(self.admit(name, key, delta))
        assert reply.duplicate
        original = msgspec.structs.replace(reply, duplicate=False, result=None)
        assert original == msgspec.structs.replace(first, result=None)
        assert msgspec.to_builtins(reply.result) == msgspec.to_builtins(first.result)

    @rule(name=ids)
    def use_an_id_for_something_else(self, name: str) -> None:
        if name not in self.told:
            return
        key, delta, _ = self.told[name]
        (reply,) = self.shard.send(self.admit(name, key, delta + 1))
        assert reply.error is not None
        assert reply.error.code == "IDEMPOTENCY_MISMATCH"

    @rule(key=st.sampled_from("abc"), delta=st.integers(-20, 30), cut=st.booleans())
    def send_while_the_disk_fails(self, key: str, delta: int, *, cut: bool) -> None:
        """The flush fails: the client learns nothing, and asks again after the restart."""
        name = f"id-{self.count}"
        self.count += 1
        self.shard.disk.inject(FailedSync(), "sync", "log/*")
        (reply,) = self.shard.send(self.admit(name, key, delta))
        assert reply.error is not None
        assert reply.error.code == "OUTCOME_UNKNOWN"
        assert self.shard.failure is not None
        self.open(self.shard.disk.power_cut() if cut else self.shard.disk.kill())
        (reply,) = self.shard.send(self.admit(name, key, delta))
        self.learn(name, key, delta, reply)

    @rule()
    def kill(self) -> None:
        self.open(self.shard.disk.kill())

    @rule()
    def cut_the_power(self) -> None:
        self.open(self.shard.disk.power_cut())

    @rule()
    def upgrade(self) -> None:
        """A clean stop records every outcome, so another version may take over."""
        self.shard.stop()
        self.handlers += 1
        self.open(self.shard.disk.kill())

    @precondition(lambda self: self.eager)
    @rule(cut=st.booleans())
    def upgrade_without_a_stop(self, *, cut: bool) -> None:
        """Eager outcomes: all that was told is recorded, and nothing is left to decide again."""
        self.handlers += 1
        self.open(self.shard.disk.power_cut() if cut else self.shard.disk.kill())

    @rule(kind=st.sampled_from(("full", "increment")))
    def snapshot(self, kind: Any) -> None:
        taken = self.shard.snapshot(kind)
        assert taken.entry.offset_end == self.shard.executor.applied_end

    @rule(
        confirmations=st.lists(
            st.tuples(st.sampled_from(("mail", "books")), st.integers(0, 60)),
            min_size=1,
            max_size=5,
        )
    )
    def confirm(self, confirmations: list[tuple[str, int]]) -> None:
        """Consumers move on; what they say of earlier offsets changes nothing."""
        for name, back in confirmations:
            offset = max(0, self.shard.executor.applied_end - back)
            self.shard.log_own(MoveConsumer(name, offset))
            self.slots[name] = max(offset, self.slots.get(name, 0))

    @rule(name=st.sampled_from(("mail", "books")))
    def forget(self, name: str) -> None:
        self.shard.log_own(DropConsumer(name, "not needed"))
        self.slots.pop(name, None)

    @rule()
    def cut_the_log(self) -> None:
        report = self.shard.retain()
        for name in report.dropped:
            self.slots.pop(name, None)
        segment_ends = [self.shard.log.first_offset, *self.slots.values()]
        assert min(segment_ends) == self.shard.log.first_offset, "a slot holds what it needs"

    @rule(seconds=st.floats(0.001, 60))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def decide_everything_again(self) -> None:
        report = self.shard.validate()
        assert report.equal, report

    @rule()
    def rest(self) -> None:
        self.shard.rest()

    @precondition(lambda self: hasattr(self, "shard"))
    @invariant()
    def memory_is_what_clients_were_told(self) -> None:
        for key in "abc":
            state = self.shard.executor.slot_state("counter", "t", key)
            counter = state.get(("t", key))
            assert (0 if counter is None else counter.value) == self.sums.get(key, 0)
        assert self.shard.executor.consumers == self.slots

    def teardown(self) -> None:
        """A replay of the whole state gives the same bytes."""
        if not hasattr(self, "shard"):
            return
        self.shard.rest()
        before = self.shard.content()
        offset = self.shard.executor.applied_end
        self.shard.stop()
        self.open(self.shard.disk.kill())
        assert self.shard.executor.applied_end == offset + 1  # The epoch start.
        after = self.shard.content()
        # The shard-wide section names the epoch's handlers and times, which the start renews.
        assert [one for one in after if one[0] >= 0] == [one for one in before if one[0] >= 0]


ShardAgainstModel.TestCase.settings = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestShardAgainstModel = ShardAgainstModel.TestCase
