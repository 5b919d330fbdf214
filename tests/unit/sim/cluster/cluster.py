"""A whole shard: replicas, the API server, the operator and clients, on one thread in virtual time.

Everything that happens is an event of one queue; all chance comes from one seed, so a seed is a
run.  The replicas run the machine that production runs, on the real log, on simulated disks.
"""

import heapq
import random
from collections.abc import Callable

import msgspec
from tests.unit.sim.cluster.actors import Client, SkewedClock
from tests.unit.sim.cluster.beside import BESIDE, Beside, place
from tests.unit.sim.cluster.chaos import Chaos, drawn
from tests.unit.sim.cluster.checker import NOT_HEALED, Checker, Violated
from tests.unit.sim.cluster.node import CLUSTER, HANDOVER_S, Crashed, Node, Reply, Request
from tests.unit.sim.cluster.sizes import LATE_S, WIPED_S, Sizes, write_alone
from tests.unit.sim.cluster.state import Add, Done, State

from ultraengine.log.frame import Frame
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import ShardId
from ultraengine.replication.effects import Effects, Swap
from ultraengine.replication.founding import Founding
from ultraengine.replication.messages import Found, Lead, Told
from ultraengine.replication.planner import Planner, PlannerEffects, PlannerLimits
from ultraengine.replication.record import Record, bootstrap, elected
from ultraengine.testing.sim_disk import SimDisk

API, OPERATOR = -1, -2
"""Addresses beside the replicas' numbers."""
TICK_S = 0.05
HEALING_S = 10.0
"""So long after everything heals, at most, all clients are answered and all copies are equal."""
SETTLED_S = 0.5
"""How long clients go on then."""
COMMANDS_MAX = 60
PLANNER_LIMITS = PlannerLimits(round_s=0.1, answers_s=0.15, silence_s=0.3)


def swap_lands(api: Record, expected: Record) -> bool:
    """Compare-and-swap: only onto the very record that it was computed from."""
    return api == expected


class Cluster:
    """One run."""

    def __init__(self, seed: int, chaos: Chaos | None = None) -> None:
        self.seed = seed
        self.chaos = drawn(seed) if chaos is None else chaos
        self.rng = random.Random(seed * 2 + 1)
        self.now = 0.0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.count = 0
        self.steps = 0
        self.checker = Checker()
        self.trace: list[str] = []
        self.healed = False
        self.blocked: set[tuple[int, int]] = set()
        self.paused: dict[int, float] = {}
        self.slow_disk: dict[int, float] = {}
        self.wiped = 0
        self.wiped_at = -HEALING_S
        self.shown = 0
        """Reads that were answered."""
        self.handed: list[str] = []
        """How the handovers that were asked for have ended, as far as their leaders lived."""
        self.rolled_back = 0
        self.operator_away = False
        n = self.chaos.replicas
        self.resizes = self.chaos.resizes > 0
        self.sizes = Sizes(random.Random(f"sizes {seed}"), n, changes=self.resizes)
        self.clocks = [self._clock() for _ in range(n)]
        self.disks = [SimDisk(seed * 31 + number) for number in range(n)]
        self.nodes: list[Node | None] = [None] * n
        if self.sizes.alone:
            self.checker.told_before(*write_alone(self.disks[0], self.sizes.alone))
        for number in range(self.sizes.first):
            self.nodes[number] = self._started(number)
        self.api = self._founded()
        for node in self.running():
            node.receive(OPERATOR, Found(0, self.api))
        self.landed = [self.api]
        self.gone = False
        """Whether the record is not there: reads show none, and no swap lands."""
        self.era = 0
        """Of the API server's content; a request of an earlier one does not land any more."""
        self.planner = self._planner()
        self.beside: list[Beside | None] = [None] * n
        """Where every replica plans: of its life, made at its first tick."""
        self.clients = [Client(number) for number in range(self.chaos.clients)]

    def _founded(self) -> Record:
        """The first record: of all disks, or of one whose log was never replicated."""
        nodes = self.running()
        me, seats = nodes[0].machine.me, [node.seat for node in nodes]
        fewest = self.sizes.first // 2 + 1 if self.resizes else self.chaos.min_isr
        if self.sizes.alone:
            founding = Founding(CLUSTER, ShardId(0), me, replicas=3, min_isr=2, number=1)
            told = nodes[0].machine.receive(founding.ask, 0.0).sends[0].message
            assert isinstance(told, Told)
            made = founding.told(told)
            assert isinstance(made, Record)
            return made
        return bootstrap(CLUSTER, ShardId(0), me, seats, fewest)

    # --- the queue -----------------------------------------------------------------------

    def at(self, seconds: float, action: Callable[[], None]) -> None:
        """Let something happen later."""
        self.count += 1
        heapq.heappush(self.events, (self.now + seconds, self.count, action))

    def run(self) -> None:
        """All of it.  Raises `Violated`, and whatever the code that runs here raises."""
        rng = self.rng
        for number in range(self.chaos.replicas):
            self.at(rng.uniform(0, TICK_S), lambda number=number: self._tick(number))  # type: ignore[misc]
        self.at(rng.uniform(0, TICK_S), self._tick_operator)
        for client in self.clients:
            self.at(rng.uniform(0, 0.3), lambda client=client: self._next(client))  # type: ignore[misc]
        if self.chaos.faults:
            self.at(rng.expovariate(1 / self.chaos.every_s), self._fault)
        if self.chaos.stale_watch:
            self.at(0.1, self._watch)
        if self.resizes:
            self.at(rng.expovariate(self.chaos.resizes), self._wish)
        self.at(self.chaos.until_s, self._heal)
        end = self.chaos.until_s + HEALING_S
        while self.events:
            self.now, _, action = heapq.heappop(self.events)
            if self.now > end:
                raise Violated(f"{NOT_HEALED}: {self._unhealed()}")
            action()
            self.steps += 1
            if self.healed and self.steps % 8 == 0 and not self._unhealed():
                break
        for node in self.running():
            self.checker.all_is_there(node)

    def running(self) -> list[Node]:
        """Processes that live."""
        return [node for node in self.nodes if node is not None]

    def time(self) -> float:
        """Virtual seconds since the run began."""
        return self.now

    def note(self, what: str) -> None:
        """For whoever reads a failing seed."""
        self.trace.append(f"{self.now:.4f} {what}")

    # --- processes -----------------------------------------------------------------------

    def _clock(self) -> SkewedClock:
        if not self.chaos.skew:
            return SkewedClock(self.time, 1.0, 0.0)
        return SkewedClock(self.time, self.rng.uniform(0.9, 1.1), self.rng.uniform(-10, 10))

    def _started(self, number: int) -> Node:
        self.count += 1
        disk, seed = self.disks[number], self.seed * 1009 + self.count
        node = Node(number, self.chaos.replicas, disk, self.clocks[number], self, seed)
        node.machine.wish = self.sizes.wish(number, changes=self.resizes)
        if node.state.position:
            self.checker.restored(node)
        return node

    def stop(self, number: int, how: str) -> None:
        """End a process, by a kill or with the power of its machine."""
        if self.nodes[number] is None:
            return
        self.note(f"{how} of {number}")
        self.nodes[number] = None
        disk = self.disks[number]
        self.disks[number] = disk.power_cut() if how == "power cut" else disk.kill()
        self.at(self.rng.choice((0.01, 0.1, 0.5)), lambda: self._start(number))

    def _start(self, number: int) -> None:
        if self.sizes.is_wanted(number, self.api):
            self._start_anyway(number)

    def _start_anyway(self, number: int) -> None:
        if self.nodes[number] is None:
            self.note(f"start of {number}")
            self.nodes[number] = self._started(number)

    def guarded(self, number: int, node: Node, action: Callable[[], None]) -> None:
        """Let a process do something, now or when its pause ends; it may end within."""
        if self.nodes[number] is not node:
            return
        until = self.paused.get(number, 0.0)
        if until > self.now:
            self.at(until - self.now, lambda: self.guarded(number, node, action))
            return
        try:
            action()
        except Crashed:
            self.stop(number, self.rng.choice(("kill", "power cut")))

    def _tick(self, number: int) -> None:
        node = self.nodes[number]
        if node is not None:
            self.guarded(number, node, node.tick)
            if self.chaos.beside:
                self.guarded(number, node, self._beside(node).tick)
        self.at(TICK_S, lambda: self._tick(number))

    def _beside(self, node: Node) -> Beside:
        """The planner of a life."""
        found = self.beside[node.number]
        if found is None or found.node is not node:
            found = Beside(node, self.chaos.replicas, PLANNER_LIMITS, self)
            self.beside[node.number] = found
        return found

    # --- what a process sees of the world (`node.Outside`) -------------------------------

    @property
    def repeat_s(self) -> float:
        return self.chaos.repeat_s

    def soon(self, node: Node, seconds: float, action: Callable[[], None]) -> None:
        self.at(seconds, lambda: self.guarded(node.number, node, action))

    def crash_point(self, node: Node) -> None:
        often = self.chaos.crash_in_effects
        if often and self.now > 0 and not self.healed and self.rng.random() < often:
            raise Crashed

    def flush_s(self, node: Node) -> float:
        slow = self.slow_disk.get(node.number, 0.0)
        return self.rng.uniform(0, slow if slow and not self.healed else self.chaos.flush_s)

    def is_due(self, node: Node, frames: int) -> bool:
        often = self.chaos.snapshot_frames
        return often > 0 and frames >= often

    def is_greedy(self, node: Node) -> bool:
        return self.rng.random() < self.chaos.greedy

    def adopts(self, node: Node) -> bool:
        return self.sizes.alone > 0 and node.number == 0

    def filled(self, node: Node, base: int) -> None:
        self.note(f"{node.number} is filled from {base} on")

    def began(self, node: Node, epoch: int, position: int) -> None:
        self.note(f"{node.number} begins epoch {epoch} at {position}")
        self.checker.began(node, epoch, position)

    def executed(self, node: Node, frame: Frame) -> None:
        self.checker.executed(node, frame)

    def acknowledged(self, node: Node, frame: Frame, add: Add, done: Done) -> None:
        leader = node.machine.leader
        assert leader is not None
        members = [
            other
            for other in self.running()
            if other is not node and other.seat in leader.record.isr
        ]
        self.checker.acknowledge(node, frame, members)

    def reply(self, source: int, client: int, reply: Reply) -> None:
        if not self._is_lost(self.chaos.loss):
            self.at(self._delay(), lambda: self._answered(self.clients[client], reply))

    # --- the network ---------------------------------------------------------------------

    def _delay(self) -> float:
        rng, chaos = self.rng, self.chaos
        if not self.healed and chaos.slow and rng.random() < chaos.slow:
            return rng.uniform(0, 1.0)
        return rng.uniform(0, 0.002 if self.healed else chaos.delay_s)

    def _is_lost(self, often: float) -> bool:
        return not self.healed and often > 0 and self.rng.random() < often

    def send(self, source: int, to: int | None, message: object) -> None:
        if to is None or self._is_lost(self.chaos.loss):
            return
        copies = 2 if self._is_lost(self.chaos.twice) else 1
        for _ in range(copies):
            self.at(self._delay(), lambda: self._deliver(source, to, message))

    def _deliver(self, source: int, to: int, message: object) -> None:
        if (place(source), place(to)) in self.blocked:
            return
        if to >= BESIDE:
            planner = self.beside[place(to)]
            if isinstance(message, Told) and planner is not None:
                planner.told(message)
            return
        if to == OPERATOR:
            if isinstance(message, Told) and not self.operator_away:
                self.planner.told(message)
            return
        node = self.nodes[to]
        if node is not None:
            self.guarded(to, node, lambda: node.receive(source, message))

    # --- the API server ------------------------------------------------------------------

    def ask_api(self, source: int, effects: Effects | PlannerEffects) -> None:
        """A quorum read, or a swap; the request or its answer may be lost."""
        if effects.read:
            self._to_api(source, lambda: self._read(source))
        if effects.swap is not None:
            swap, era = effects.swap, self.era
            self._to_api(source, lambda: self._swap(source, swap, era))

    def _to_api(self, source: int, action: Callable[[], None]) -> None:
        if (place(source), API) not in self.blocked and not self._is_lost(self.chaos.api_loss):
            self.at(self._delay(), action)

    def _from_api(self, source: int, life: object, action: Callable[[object], None]) -> None:
        if (API, place(source)) in self.blocked or self._is_lost(self.chaos.api_loss):
            return
        self.at(self._delay(), lambda: action(life))

    def _asker(self, source: int) -> object:
        if source >= BESIDE:
            return self.beside[place(source)]
        return self.planner if source == OPERATOR else self.nodes[source]

    def _read(self, source: int) -> None:
        record = None if self.gone else self.api
        self._from_api(
            source, self._asker(source), lambda life: self._was_read(source, life, record)
        )

    def _was_read(self, source: int, life: object, record: Record | None) -> None:
        if isinstance(life, Node):
            self.guarded(
                source,
                life,
                lambda: life.do(life.machine.record_read(record, life.clock.monotonic())),
            )
        elif isinstance(life, Beside):
            self.guarded(place(source), life.node, lambda: life.record_read(record))
        elif life is self.planner and not self.operator_away:
            self._planned(self.planner.record_read(record, self.now))

    def _swap(self, source: int, swap: Swap, era: int) -> None:
        if era == self.era and not self.gone and swap_lands(self.api, swap.expected):
            self.note(f"{source} swaps in {_short(swap.new)}")
            self.sizes.changed += swap.new.replicas != self.api.replicas
            self.api = swap.new
            self.landed.append(swap.new)
        current = None if self.gone else self.api
        self._from_api(
            source, self._asker(source), lambda life: self._swapped(source, life, swap, current)
        )

    def _swapped(self, source: int, life: object, swap: Swap, current: Record | None) -> None:
        if isinstance(life, Node):
            self.guarded(
                source,
                life,
                lambda: life.do(life.machine.swap_answered(swap, current, life.clock.monotonic())),
            )
        elif isinstance(life, Beside):
            self.guarded(
                place(source),
                life.node,
                lambda: life.swapped(lambda planner: planner.swap_answered(swap, current)),
            )
        elif life is self.planner and not self.operator_away:
            self._planned(self.planner.swap_answered(swap, current))

    def _watch(self) -> None:
        """Somebody who watches hears of a record that was in force, now or long ago."""
        if self._is_lost(self.chaos.stale_watch):
            number = self.rng.randrange(self.chaos.replicas)
            self._deliver(API, number, Lead(self.rng.choice(self.landed)))
        self.at(0.1, self._watch)

    # --- the operator --------------------------------------------------------------------

    def _planner(self) -> Planner:
        return Planner(CLUSTER, self.chaos.replicas, PLANNER_LIMITS, self.now)

    def _tick_operator(self) -> None:
        if not self.operator_away:
            if not self.chaos.beside:
                self._planned(self.planner.tick(self.now))
            if self._is_lost(self.chaos.restless * TICK_S):
                self._replace()
            if self._is_lost(self.chaos.handovers * TICK_S):
                self._hand_over()
        for node in self.running() if self.chaos.reads else ():
            self._read_state(node)
        self.at(TICK_S, self._tick_operator)

    def _replace(self) -> None:
        """A switchover, or a mistake: whom the record names leads no more."""
        record = self.api
        seat = self.rng.choice(record.isr)
        node = next((one for one in self.running() if one.seat == seat), None)
        if node is not None and record.settled and seat.replica < record.replicas:
            self.note(f"the operator wants {seat.replica}")
            new = elected(record, node.machine.me, record.isr)
            self.ask_api(OPERATOR, PlannerEffects(swap=Swap(record, new)))

    def _hand_over(self) -> None:
        """A planned switchover: a leader names its successor, or one that may not be one."""
        leaders = [node for node in self.running() if node.machine.serves]
        if not leaders:
            return
        node, to = self.rng.choice(leaders), self.rng.choice(self.running())
        if node is not to:
            self.note(f"{node.number} is to hand over to {to.number}")
            self.guarded(node.number, node, lambda: node.hand_over(to.seat))
            self.at(HANDOVER_S + 1.0, lambda: self._handed_over(node))

    def _read_state(self, node: Node) -> None:
        """Whoever thinks that it leads is asked what it knows: all that was answered before."""
        asked_end = self.checker.answered_end

        def show(state: State) -> None:
            self.shown += 1
            self.checker.shown(node, state, asked_end)

        self.guarded(node.number, node, lambda: node.read(show))

    def _handed_over(self, node: Node) -> None:
        handover = node.machine.handover
        if handover is not None:
            self.note(f"{node.number} {handover.phase.value}")
            self.handed.append(handover.phase.value)

    def _planned(self, effects: PlannerEffects) -> None:
        if effects.ask is not None:
            for number in range(self.chaos.replicas):
                self.send(OPERATOR, number, effects.ask)
        if effects.lead is not None:
            self.send(OPERATOR, int(effects.lead.record.holder.seat.replica), effects.lead)
        self.ask_api(OPERATOR, Effects(read=effects.read, swap=effects.swap))

    # --- the number of copies ------------------------------------------------------------

    def _wish(self) -> None:
        """Somebody wants more copies, or fewer; processes hear of it one after the other."""
        if self.healed:
            return
        self.at(self.rng.expovariate(self.chaos.resizes), self._wish)
        if self.now - self.wiped_at < WIPED_S:
            return
        wished = self.sizes.another(self.rng)
        self.note(f"{wished} copies are wished")
        for number in range(self.chaos.replicas):
            self.at(self.rng.uniform(0, LATE_S), lambda number=number: self._hear(number, wished))  # type: ignore[misc]

    def _hear(self, number: int, wished: int) -> None:
        """A process knows of a wish; one that is not there yet starts, one too many ends."""
        if wished != self.sizes.wished:
            return
        self.sizes.known[number] = wished
        node = self.nodes[number]
        if node is not None:
            node.machine.wish = self.sizes.wish(number, changes=True)
        elif self.rng.random() < 0.5 and self._may_be_empty(number):
            self.count += 1
            self.disks[number] = SimDisk(self.seed * 41 + self.count)
            self.note(f"an empty disk for {number}")
        self._start(number)
        self.at(LATE_S, lambda: self._end_surplus(number))

    def _may_be_empty(self, number: int) -> bool:
        """Whether nothing that was acknowledged can be on a disk alone: its place was left, so all
        that any record says is somewhere else.  After a roll-back nobody knows by the record."""
        if self.rolled_back:
            return False
        newest = max(self.landed, key=lambda one: one.order)
        return number >= newest.replicas and all(one.replica != number for one in newest.isr)

    def _end_surplus(self, number: int) -> None:
        """The operator removes the process of a place that is none any more, and keeps its disk."""
        if self.nodes[number] is None or number < self.sizes.wished:
            return
        if self.sizes.is_wanted(number, self.api) or not self._is_led():
            self.at(LATE_S, lambda: self._end_surplus(number))
            return
        self.stop(number, "end")

    # --- clients -------------------------------------------------------------------------

    def _next(self, client: Client) -> None:
        """The next command, if there is still something to do."""
        if client.count >= COMMANDS_MAX or self.now > self.chaos.until_s + SETTLED_S:
            return
        client.count += 1
        key = self.rng.choice(("a", "b"))
        client.add = Add(f"{client.number}-{client.count}", key, self.rng.randint(1, 9))
        client.asked_end = self.checker.answered_end
        self._ask(client, client.add)

    def _ask(self, client: Client, add: Add) -> None:
        if client.add is not add:
            return
        number = client.attempt % self.chaos.replicas
        if not self._is_lost(self.chaos.loss):
            request = Request(client.number, add)
            self.at(self._delay(), lambda: self._deliver(-3, number, request))
        self.at(0.15, lambda: self._again(client, add))

    def _again(self, client: Client, add: Add) -> None:
        """No answer: the outcome is unknown, and the same id is sent again, elsewhere."""
        if client.add is add:
            client.attempt += 1
            self._ask(client, add)

    def _answered(self, client: Client, reply: Reply) -> None:
        add = client.add
        if add is None or add.id != reply.id or reply.done is None:
            return
        self.checker.answer(add, reply.done, client.asked_end)
        client.add = None
        self.at(self.rng.uniform(0, 0.1), lambda: self._next(client))

    # --- faults --------------------------------------------------------------------------

    def _fault(self) -> None:
        if self.healed:
            return
        kind = self.rng.choice(self.chaos.faults)
        number = self.rng.randrange(self.chaos.replicas)
        self.note(kind)
        self._do(kind, number)
        self.at(self.rng.expovariate(1 / self.chaos.every_s), self._fault)

    def _do(self, kind: str, number: int) -> None:
        rng, everybody = self.rng, range(self.chaos.replicas)
        match kind:
            case "kill" | "power cut":
                self.stop(number, kind)
            case "power cut of all":
                for one in everybody:
                    self.stop(one, "power cut")
            case "pause":
                self.paused[number] = self.now + rng.uniform(0.05, 1.0)
            case "one way":
                self._block({(number, rng.choice((*everybody, OPERATOR, API)))})
            case "isolated":
                self._block({(number, one) for one in (*everybody, OPERATOR, API)})
            case "bridge":
                others = [one for one in everybody if one != number]
                self._block({(one, other) for one in others for other in others})
            case "one is heard":
                self._block({(one, OPERATOR) for one in everybody if one != number})
            case "no api":
                self._block({(one, API) for one in (*everybody, OPERATOR)})
            case "no operator":
                self.operator_away = True
                self.at(rng.uniform(0.2, 1.0), self._operator_is_back)
            case "wiped":
                self._wipe(number)
            case "rolled back":
                self._roll_back()
            case "slow disk":
                self.slow_disk[number] = rng.choice((0.0, 0.3))
            case "clock jump":
                self.clocks[number].wall_s += rng.uniform(-100, 100)
            case "no record":
                self.gone = True
                self.at(rng.uniform(0.1, 1.0), self._record_is_back)
            case _:
                raise InvariantBroken("a fault has a name", kind=kind)

    def _block(self, pairs: set[tuple[int, int]]) -> None:
        """Nothing passes from one to the other, for a while; often nothing comes back either."""
        if self.rng.random() < 0.6:
            pairs = pairs | {(to, source) for source, to in pairs}
        fresh = pairs - self.blocked
        self.blocked |= fresh
        self.at(self.rng.uniform(0.1, 1.5), lambda: self.blocked.difference_update(fresh))

    def _record_is_back(self) -> None:
        """Somebody has put it back as it was."""
        self.gone = False

    def _operator_is_back(self) -> None:
        """Another process: it knows nothing."""
        if self.operator_away:
            self.operator_away = False
            self.planner = self._planner()

    def _wipe(self, number: int) -> None:
        """A disk is lost.  No more than `min_isr` - 1 of them: that is what is promised."""
        if self.wiped >= self.chaos.min_isr - 1:
            return
        lowest = min(self.sizes.wished, *self.sizes.known)
        steady = self.api.replicas == lowest == 3 and not self.api.before
        if self.resizes and not steady:
            return  # Two copies are both needed; what is lost blocks the shard.
        self.wiped += 1
        self.wiped_at = self.now
        self.stop(number, "kill")
        self.count += 1
        self.disks[number] = SimDisk(self.seed * 37 + self.count)

    def _roll_back(self) -> None:
        """The API server's content goes back, and nothing that was on its way to it arrives."""
        earlier = [one for one in self.landed if one.order < self.api.order]
        if self.rolled_back >= 1 or not earlier:
            return
        self.rolled_back += 1
        self.era += 1
        self.api = self.rng.choice(earlier)
        self.note(f"back to {_short(self.api)}")

    # --- the end -------------------------------------------------------------------------

    def _heal(self) -> None:
        self.note("everything heals")
        self.healed = True
        self.blocked.clear()
        self.paused.clear()
        self._operator_is_back()
        self._record_is_back()
        for number in range(self.chaos.replicas):
            if self.resizes:
                self._hear(number, self.sizes.wished)
            self._start(number)
        if not self._is_led():
            # A record that went back may count too few copies: somebody brings all of them back.
            for number in range(max(one.replicas for one in self.landed)):
                self._start_anyway(number)

    def _is_led(self) -> bool:
        """Whether somebody serves in the epoch of the record."""
        serving = [node.machine.leader for node in self.running() if node.machine.serves]
        return any(one is not None and one.epoch == self.api.epoch for one in serving)

    def _unhealed(self) -> str:
        """What is still missing to a healthy shard; empty when nothing is."""
        if any(client.add is not None for client in self.clients) or self.now < (
            self.chaos.until_s + SETTLED_S
        ):
            return "a client waits"
        if not self._is_led():
            return "nobody leads"
        nodes, wished = self.running(), self.sizes.wished
        if len({node.state.position for node in nodes}) > 1 or len(nodes) != wished:
            return f"{len(nodes)} copies at {[node.state.position for node in nodes]}"
        if len(self.api.isr) != wished or self.api.replicas != wished or self.api.before:
            return f"in sync: {_short(self.api)}"
        return ""


def _short(record: Record) -> str:
    isr = [int(one.replica) for one in record.isr]
    places = f"{record.replicas}{f' from {record.before}' if record.before else ''}"
    return f"({record.epoch}, {record.version}) {record.holder.seat.replica} of {isr}, {places}"


def run(seed: int, chaos: Chaos | None = None) -> Cluster:
    """One seed, whole."""
    cluster = Cluster(seed, chaos)
    cluster.run()
    return cluster


PLAIN = msgspec.structs.replace(Chaos(), until_s=1.0)
"""Nothing goes wrong."""
