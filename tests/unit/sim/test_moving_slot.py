"""A slot that moves between two shards stays the slot it was: after anything that happens to both.

Hypothesis chooses what happens to two shards of ledger and counter: transfers, holds that expire,
reversals, retries, kills, power cuts, snapshots; and when a coordinator carries out its next step
towards whom it wants to have the slot.
"""

from typing import Any

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from ultraengine.domains.counter import DOMAIN as COUNTER
from ultraengine.domains.ledger import Ledger
from ultraengine.execution.system import FillSlot, StepSlot
from ultraengine.model.domain import Domain
from ultraengine.model.ids import ShardId, slot_of
from ultraengine.model.reply import Reply
from ultraengine.moving.plan import Copy, Publish, Rest, Send, plan
from ultraengine.moving.record import State
from ultraengine.shard.slot_copy import Origin, next_batch
from ultraengine.shard.slot_moves import encode_message
from ultraengine.testing.sim_clock import SimClock
from ultraengine.testing.sim_disk import SimDisk
from ultraengine.testing.sim_shard import SimShard

KEYS = ("b12", "b1519", "b13")
SLOT = slot_of("t", "b12")
ACCOUNTS = ("x", "y", "z")
BATCH_BYTES = 2_000


class MovingSlot(RuleBasedStateMachine):
    @initialize(seed=st.integers(0, 2**32))
    def start(self, seed: int) -> None:
        self.seed = seed
        self.clock = SimClock()
        self.count = 0
        self.sent: list[tuple[str, str, str, Any]] = []
        self.told: dict[str, Reply] = {}
        self.shards: dict[ShardId, SimShard] = {}
        for shard in (0, 1):
            self.open(ShardId(shard), SimDisk(seed + shard))
        self.mapped, self.goal = ShardId(0), ShardId(1)
        opening = [{"id": name, "asset": "EUR/2", "min_balance": None} for name in ACCOUNTS]
        self.keys = [key for key in KEYS if slot_of("t", key) == SLOT]
        for key in self.keys:
            self.do(key, "ledger.open_accounts", {"accounts": opening})

    def open(self, shard: ShardId, disk: SimDisk) -> None:
        self.seed += 1
        domains: list[Domain] = [Ledger(), COUNTER]
        self.shards[shard] = SimShard(disk, self.clock, domains, shard=shard, seed=self.seed)

    def owner(self) -> SimShard | None:
        """The shard that serves the slot; the second one never did before it was activated."""
        for shard, one in self.shards.items():
            moves = one.machine.placement.moves
            record = moves.record(SLOT, is_first_owner=shard == 0)
            if record.state in {State.OWNED, State.EXPORTING}:
                return one
        return None

    def do(self, key: str, kind: str, data: Any) -> None:
        self.count += 1
        self.sent.append((f"id-{self.count}", key, kind, data))
        self.send(self.count - 1)

    def send(self, number: int) -> Reply | None:
        name, key, kind, data = self.sent[number]
        owner = self.owner()
        if owner is None:
            return None
        admitted = owner.registry.admit(
            id=name,
            type=kind,
            key=key,
            data=msgspec.json.encode(data),
            codec="json",
            tenant="t",
            principal="p",
            scopes=frozenset({"*:write"}),
        )
        (reply,) = owner.send(admitted)
        first = self.told.setdefault(name, reply)
        for member in ("shard", "epoch", "offset", "version", "outcome", "time", "result"):
            was, is_now = getattr(first, member), getattr(reply, member)
            assert msgspec.to_builtins(is_now) == msgspec.to_builtins(was), member
        return reply

    # --- what happens to the slot -------------------------------------------------------------

    @rule(
        key=st.integers(0, 1),
        pair=st.permutations(ACCOUNTS),
        amounts=st.lists(st.integers(1, 9), min_size=1, max_size=4),
        hold_s=st.sampled_from([None, None, 1, 30]),
    )
    def transfer(self, key: int, pair: list[str], amounts: list[int], hold_s: int | None) -> None:
        more = {} if hold_s is None else {"pending_timeout_s": hold_s}
        transfers = [
            {"id": f"t-{self.count}-{n}", "from": pair[0], "to": pair[1], "amount": amount, **more}
            for n, amount in enumerate(amounts)
        ]
        name = self.keys[key % len(self.keys)]
        self.do(name, "ledger.create_transfers", {"transfers": transfers})

    @rule(key=st.integers(0, 1), back=st.integers(0, 12))
    def post_or_reverse(self, key: int, back: int) -> None:
        """What is read from the history, of whichever owner: whether it succeeds is not the point,
        that it is found where it was posted is."""
        name = self.keys[key % len(self.keys)]
        earlier = f"t-{max(0, self.count - back)}-0"
        self.do(name, "ledger.post_transfers", {"transfers": [{"id": earlier}]})
        reversal = {"id": f"r-{self.count}", "reverses": earlier}
        self.do(name, "ledger.reverse_transfers", {"transfers": [reversal]})

    @rule(key=st.integers(0, 1), delta=st.integers(-20, 30))
    def add(self, key: int, delta: int) -> None:
        self.do(self.keys[key % len(self.keys)], "counter.add", {"delta": delta, "maximum": 50})

    @rule(back=st.integers(0, 20))
    def retry(self, back: int) -> None:
        number = max(0, len(self.sent) - 1 - back)
        known = self.sent[number][0] in self.told
        reply = self.send(number)
        assert reply is None or reply.duplicate == known

    @rule(seconds=st.floats(0.1, 60))
    def wait(self, seconds: float) -> None:
        """Holds expire: the shard logs ticks."""
        self.clock.advance(seconds)
        self.add(0, 0)

    @rule(shard=st.integers(0, 1))
    def kill(self, shard: int) -> None:
        self.open(ShardId(shard), self.shards[ShardId(shard)].disk.kill())

    @rule(shard=st.integers(0, 1))
    def cut_the_power(self, shard: int) -> None:
        self.open(ShardId(shard), self.shards[ShardId(shard)].disk.power_cut())

    @rule(shard=st.integers(0, 1), kind=st.sampled_from(("auto", "full", "increment")))
    def snapshot(self, shard: int, kind: Any) -> None:
        self.shards[ShardId(shard)].snapshot(kind)

    # --- what a coordinator does --------------------------------------------------------------

    @rule(goal=st.integers(0, 1))
    def want(self, goal: int) -> None:
        self.goal = ShardId(goal)

    @rule(count=st.integers(1, 12))
    def go_on_to_the_other_shard(self, count: int) -> None:
        """A whole move now and then, so that much happens behind one."""
        if self.step() is Rest.DONE:
            self.goal = ShardId(1 - self.goal)
        self.go_on(count)

    @rule(count=st.integers(1, 12))
    def go_on(self, count: int) -> None:
        for _ in range(count):
            if self.step() is Rest.DONE:
                return

    def step(self) -> Any:
        view = {}
        for shard, one in self.shards.items():
            placement = one.machine.placement
            record = placement.moves.record(SLOT, is_first_owner=shard == 0)
            seen = placement.look(SLOT)
            view[shard] = msgspec.structs.replace(seen, record=record)
        action = plan(self.goal, self.mapped, view, lag_max=4)
        if isinstance(action, Publish):
            self.mapped = action.owner
        elif isinstance(action, Send):
            message = encode_message(action.message)
            self.shards[action.shard].log_own(StepSlot(SLOT, action.shard == 0, message))
        elif isinstance(action, Copy):
            self.copy(action, view[action.destination].position)
        return action

    def copy(self, action: Copy, position: int) -> None:
        """One batch, twice: what comes again changes nothing."""
        source, destination = self.shards[action.source], self.shards[action.destination]
        source.rest()
        executor = source.executor
        record = source.machine.placement.moves.records[SLOT]
        end = int(executor.applied_end)
        if record.state is State.SEALED:
            end = source.machine.placement.look(SLOT).position
        image = executor.slots.get(SLOT)
        origin = Origin.of(action.source, SLOT, None if image is None else image.lineage)
        start = max(position, origin.start)
        groups = source.log.reader().groups(start, end) if start < end else ()
        reached, content = next_batch(groups, origin, position, end, executor.skipped, BATCH_BYTES)
        attempt = action.attempt
        for _ in range(2):
            destination.log_own(
                FillSlot(
                    SLOT, attempt.era, attempt.number, position, reached, executor.time, content
                )
            )

    # --- what must be so ----------------------------------------------------------------------

    @rule()
    def compare(self) -> None:
        """One owner at most; what it has is sound, and all that anybody was told is there."""
        serving = [
            shard
            for shard, one in self.shards.items()
            if one.machine.placement.moves.record(SLOT, is_first_owner=shard == 0).state
            in {State.OWNED, State.EXPORTING}
        ]
        assert len(serving) < 2
        for shard in self.shards.values():
            assert not list(shard.executor.check())
        for number in range(0, len(self.sent), 3):
            if self.sent[number][0] in self.told:
                again = self.send(number)
                assert again is None or again.duplicate

    @rule(shard=st.integers(0, 1))
    def decide_again(self, shard: int) -> None:
        assert self.shards[ShardId(shard)].validate().equal

    @rule(shard=st.integers(0, 1))
    def start_again(self, shard: int) -> None:
        """What a restart makes of log and snapshots is what was in memory."""
        one = self.shards[ShardId(shard)]
        one.rest()
        before = [part for part in one.content() if part[0] == SLOT]
        one.stop()
        self.open(ShardId(shard), one.disk.kill())
        after = [part for part in self.shards[ShardId(shard)].content() if part[0] == SLOT]
        assert before == after

    def teardown(self) -> None:
        if not hasattr(self, "goal"):
            return
        for goal in (ShardId(1), ShardId(0)):
            self.goal = goal
            for _ in range(400):
                if self.step() is Rest.DONE:
                    break
            assert self.mapped == goal
            assert self.owner() is self.shards[goal]
            for number in range(len(self.sent)):
                self.send(number)
            self.compare()
            self.decide_again(0)
            self.decide_again(1)


MovingSlot.TestCase.settings = settings(
    max_examples=30,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestMovingSlot = MovingSlot.TestCase
