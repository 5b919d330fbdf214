"""A copy of one slot is that slot: after anything that happens to its shard, at every position.

Hypothesis chooses what happens to a shard of ledger and counter: transfers, holds that expire,
reversals, retries, kills, power cuts, snapshots; and when the copy reads on.
"""

from typing import Any, cast

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from ultraengine.domains.counter import DOMAIN as COUNTER
from ultraengine.domains.ledger import Ledger
from ultraengine.execution.dedup import DedupIndex
from ultraengine.model.ids import Offset, slot_of
from ultraengine.model.reply import Reply
from ultraengine.shard.slot_copy import Part, SlotCopy, parts, remembered, slot_digest
from ultraengine.testing.sim_clock import SimClock
from ultraengine.testing.sim_disk import SimDisk
from ultraengine.testing.sim_shard import SHARD, SimShard

KEYS = ("b12", "b1519", "b13")
SLOT = slot_of("t", "b12")
"""Of the first two keys, and not of the third."""
ACCOUNTS = ("x", "y", "z")
PARTS = msgspec.msgpack.Decoder(list[Part])


class CopyAgainstShard(RuleBasedStateMachine):
    @initialize(seed=st.integers(0, 2**32))
    def start(self, seed: int) -> None:
        assert [slot_of("t", key) == SLOT for key in KEYS] == [True, True, False]
        self.seed = seed
        self.clock = SimClock()
        self.count = 0
        self.sent: list[tuple[str, str, str, Any]] = []
        self.told: dict[str, Reply] = {}
        self.open(SimDisk(seed))
        self.copy = SlotCopy(self.shard.registry, SHARD, SLOT)
        opening = [{"id": name, "asset": "EUR/2", "min_balance": None} for name in ACCOUNTS]
        for key in KEYS:
            self.do(key, "ledger.open_accounts", {"accounts": opening})

    def open(self, disk: SimDisk) -> None:
        self.seed += 1
        self.shard = SimShard(disk, self.clock, [Ledger(), COUNTER], seed=self.seed)

    def do(self, key: str, kind: str, data: Any) -> None:
        self.count += 1
        self.sent.append((f"id-{self.count}", key, kind, data))
        self.send(self.count - 1)

    def send(self, number: int) -> Reply:
        name, key, kind, data = self.sent[number]
        admitted = self.shard.registry.admit(
            id=name,
            type=kind,
            key=key,
            data=msgspec.json.encode(data),
            codec="json",
            tenant="t",
            principal="p",
            scopes=frozenset({"*:write"}),
        )
        (reply,) = self.shard.send(admitted)
        self.told.setdefault(name, reply)
        return reply

    @rule(
        key=st.sampled_from(KEYS),
        pair=st.permutations(ACCOUNTS),
        amounts=st.lists(st.integers(1, 9), min_size=1, max_size=4),
        hold_s=st.sampled_from([None, None, 1, 30]),
    )
    def transfer(self, key: str, pair: list[str], amounts: list[int], hold_s: int | None) -> None:
        more = {} if hold_s is None else {"pending_timeout_s": hold_s}
        transfers = [
            {"id": f"t-{self.count}-{n}", "from": pair[0], "to": pair[1], "amount": amount, **more}
            for n, amount in enumerate(amounts)
        ]
        self.do(key, "ledger.create_transfers", {"transfers": transfers})

    @rule(key=st.sampled_from(KEYS), back=st.integers(0, 8))
    def post_or_reverse(self, key: str, back: int) -> None:
        """What is read from the history: whether it succeeds does not matter."""
        earlier = f"t-{max(0, self.count - back)}-0"
        self.do(key, "ledger.post_transfers", {"transfers": [{"id": earlier}]})
        reversal = {"id": f"r-{self.count}", "reverses": earlier}
        self.do(key, "ledger.reverse_transfers", {"transfers": [reversal]})

    @rule(key=st.sampled_from(KEYS), delta=st.integers(-20, 30))
    def add(self, key: str, delta: int) -> None:
        self.do(key, "counter.add", {"delta": delta, "maximum": 50})

    @rule(back=st.integers(0, 20))
    def retry(self, back: int) -> None:
        number = max(0, len(self.sent) - 1 - back)
        assert self.send(number).duplicate

    @rule(seconds=st.floats(0.1, 60))
    def wait(self, seconds: float) -> None:
        """Holds expire: the shard logs ticks."""
        self.clock.advance(seconds)
        self.add("b13", 0)

    @rule(amounts=st.lists(st.integers(1, 9), min_size=1, max_size=3))
    def holds_of_several_slots_expire_in_one_tick(self, amounts: list[int]) -> None:
        """The other slot's first, so that those of the copy stand behind them."""
        for key in ("b13", "b12", "b1519"):
            self.transfer(key, ["x", "y"], amounts, 1)
            self.clock.advance(0.01)
        self.wait(2.0)

    @rule()
    def kill(self) -> None:
        self.open(self.shard.disk.kill())

    @rule()
    def cut_the_power(self) -> None:
        self.open(self.shard.disk.power_cut())

    @rule(kind=st.sampled_from(("full", "increment")))
    def snapshot(self, kind: Any) -> None:
        self.shard.snapshot(kind)

    @rule()
    def read_on(self) -> None:
        """As over a network: as bytes, and once more than needed."""
        self.shard.rest()
        for group in self.shard.log.reader().groups(self.copy.position):
            start, end = group.header.base_offset, group.header.offset_end
            found = parts(group, SLOT, skipped=self.shard.executor.skipped)
            batch = PARTS.decode(msgspec.msgpack.encode(found))
            assert self.copy.take(start, end, batch)
            assert not self.copy.take(start, end, batch)

    @rule()
    def compare(self) -> None:
        self.read_on()
        executor = self.shard.executor
        assert self.copy.position == executor.applied_end
        dedupe = cast("DedupIndex", executor.dedupe)
        ids = remembered(dedupe.dump_slot(SLOT))
        assert self.copy.digest(dedupe.floor_offset) == slot_digest(executor, SLOT, ids)
        assert self.copy.executor.next_due() == min(
            (
                (due, executor.registry.domains[index].name)
                for index, due in enumerate(executor.slots[SLOT].due)
                if due is not None
            ),
            default=None,
        )
        assert not list(self.copy.executor.check())
        for name, key, _, _ in self.sent:
            found = self.copy.find(("t", key, name))
            assert (found is not None) == (slot_of("t", key) == SLOT)
            if found is not None:
                first = self.told[name]
                again = self.shard.machine.repeat_reply(found)
                assert (again.offset, again.epoch, again.version, again.outcome) == (
                    first.offset,
                    first.epoch,
                    first.version,
                    first.outcome,
                )

    @precondition(lambda self: hasattr(self, "shard"))
    @rule()
    def compare_history(self) -> None:
        self.read_on()
        end = self.shard.executor.applied_end
        for domain in ("ledger", "counter"):
            live = self.shard.memory.history.view(domain, lambda: end)
            copied = self.copy.history.view(domain, lambda: end)
            for offset in range(end):
                events = copied.events(Offset(offset)) or ()
                all_of_them = live.events(Offset(offset)) or ()
                for place, event in enumerate(events):
                    assert event is None or event == all_of_them[place]
            for name, key, _, _ in self.sent:
                done = self.copy.find(("t", key, name))
                if done is not None:
                    at = Offset(done.outcome.offset)
                    assert copied.events(at) == live.events(at)

    def teardown(self) -> None:
        if hasattr(self, "copy"):
            self.compare()
            self.compare_history()


CopyAgainstShard.TestCase.settings = settings(
    max_examples=30,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestCopyAgainstShard = CopyAgainstShard.TestCase
