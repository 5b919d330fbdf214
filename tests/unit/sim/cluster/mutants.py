"""Clauses of the protocol, each switched off by a patch that only tests know, and a seed whose run
goes wrong then.

`tests/unit/replication/mutants.py` does the same for the explorer, and lends its patches.  Here
are also the clauses that only the machine and its driver can break: what is synced before what,
and what a late message may do.  Clauses that no seed has shown are the explorer's alone.
`make sim ARGS=--mutants` prints the first seed of each; `docs/protocol.md` has the table.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
from tests.unit.replication import mutants as clauses
from tests.unit.sim.cluster import cluster as clusters
from tests.unit.sim.cluster import node as nodes
from tests.unit.sim.cluster.chaos import (
    Chaos,
    drawn,
    with_cuts,
    with_handovers,
    with_reads,
    with_sizes_back,
)
from tests.unit.sim.cluster.checker import NOT_HEALED, Violated
from tests.unit.sim.cluster.node import DivergedReplica, Node
from tests.unit.sim.cluster.state import Diverged

from ultraengine.log.damage import BelowRetention
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import ConfigVersion, Epoch
from ultraengine.replication import epochs, follower, leader, promise, promotion, record
from ultraengine.replication.effects import Effects, Sending
from ultraengine.replication.handover import plan
from ultraengine.replication.handover.plan import Handover
from ultraengine.replication.installing.place import put_in_place
from ultraengine.replication.leader import Leader
from ultraengine.replication.log_view import OpenLog
from ultraengine.replication.messages import Found, Joining, Lead
from ultraengine.replication.planner import Planner
from ultraengine.replication.promotion import Refused
from ultraengine.replication.reading.asking import Asking
from ultraengine.replication.record import DiskId, Holder, NotAllowed, Record, Seat
from ultraengine.replication.replica import Replica
from ultraengine.replication.stored import STORED_PATH, Stored

Patch = tuple[Any, str, Callable[..., Any]]
SEEDS_MAX = 1000


class Mutant(NamedTuple):
    """One clause switched off."""

    clause: str
    patches: tuple[Patch, ...]
    seed: int
    """One that shows it."""
    chaos: Callable[[int], Chaos] = drawn
    """What else goes wrong in its run."""
    heals: bool = True
    """Whether only a broken promise counts: without this clause a shard that does not heal is what
    is expected."""


def never_sworn(node: Node, stored: Stored) -> None:
    """The promise is answered and never written; the start counter is."""
    kept = nodes.read_stored(node.disk).promise
    STORE(node, msgspec.structs.replace(stored, promise=kept))


def counts_unsynced(view: OpenLog) -> int:
    return view.end


def pushed_early(cluster: Any, source: int, effects: Any) -> None:
    """The operator tells a holder of its record before the swap is known to be won."""
    if isinstance(effects, Effects) and source == clusters.OPERATOR and effects.swap is not None:
        to = int(effects.swap.new.holder.seat.replica)
        cluster.send(source, to, Lead(effects.swap.new))
    ASK_API(cluster, source, effects)


def one_disk_for_all(_raw: bytes) -> DiskId:
    return DiskId(b"")


def keeps_what_is_committed(machine: Replica, record: Any, now: float, effects: Effects) -> None:
    """The tail that is not known committed is cut when an epoch is entered."""
    before = machine.leader
    ENTER(machine, record, now, effects)
    if machine.leader is not before and machine.committed_end < machine.log.end:
        effects.cut_to = machine.committed_end


def shows_the_tail(machine: Replica) -> int:
    one = machine.leader
    begin = 0 if one is None or one.over else one.begin or 0
    return max(COMMITTED(machine), begin)


def serves_at_once(machine: Replica) -> bool:
    return (
        machine.leader is not None and not machine.leader.over and machine.leader.begin is not None
    )


def held_as_it_is(
    machine: Replica, effects: Effects, position: int | None = None, *, now: float | None = None
) -> None:
    """The whole log is counted at the join, whatever of it was compared."""
    HOLD(machine, effects, None if position is None else machine.log.end, now=now)


def cuts_nothing(machine: Replica, message: Joining, now: float, effects: Effects) -> None:
    JOIN(machine, message, now, effects)
    effects.cut_to = None


def any_hello_is_answered(machine: Replica, message: Joining, now: float, effects: Effects) -> None:
    machine._asked = message.number
    JOIN(machine, message, now, effects)


def same_start(stored: Stored) -> Stored:
    return msgspec.structs.replace(stored, start=max(1, stored.start))


def never_founded(machine: Replica, message: Found, effects: Effects) -> None:
    effects.sends.append(Sending(None, machine._told(message.number)))


def never_split(_planner: Planner, _record: Any) -> bool:
    return False


def forgets_what_it_swore(disk: Any) -> bool:
    """A snapshot brings its own promise, which is none."""
    done = put_in_place(disk)
    if done and disk.exists(STORED_PATH):
        disk.remove(STORED_PATH)
        disk.sync_directory("")
    return done


def cuts_what_is_durable(node: Node, _position: int, _offset: int) -> None:
    """The log is cut below its durable end, committed or not."""
    CUT_BEHIND(node, node.view.durable_end, 2**40)


def counts_what_it_lacks(machine: Replica, message: Joining, now: float, effects: Effects) -> None:
    """A copy that would have to be filled takes itself for joined instead, and asks for nothing."""
    JOIN(machine, message, now, effects)
    if effects.lacks is not None:
        effects.lacks = None
        machine.follower = machine.follower.with_(joined=message.join.epoch)
        machine._hold(effects, message.join.end)


def anybody_who_answers(last: Record, answers: Any, **more: Any) -> Any:
    return OFF.anybody(last, answers, **more) if answers else Refused.TOO_FEW


def leads_on(one: Leader, swap: Record) -> Leader:
    """A leader that has named its successor takes the record for its own."""
    return leader.advanced(one.with_(record=swap, unresolved=())) if swap in one.unresolved else one


def nobody(_asking: Asking, _leader: Leader) -> list[Seat]:
    """Reads are answered without asking anybody."""
    return []


def anybody_obeys(*_: object) -> bool:
    return True


def never_over(handover: Handover, one: Leader, now: float) -> Handover:
    """And takes commands again, as if nothing had been."""
    stands = AFTER(handover, one, now)
    if stands.phase is plan.Phase.WON:
        stands = msgspec.structs.replace(stands, phase=plan.Phase.GIVEN_UP)
    return stands


def anybody_may_follow(one: Leader, to: Seat, log_end: int) -> Leader:
    """Whoever copies is a successor, whatever it holds and whether it is in sync or not."""
    copy, record = leader.copy_of(one, to), one.record
    if copy is None or one.begin is None or log_end < one.committed_end:
        raise NotAllowed("it does not copy")
    swap = msgspec.structs.replace(
        record,
        epoch=Epoch(record.epoch + 1),
        version=ConfigVersion(record.version + 1),
        holder=Holder(to, copy.start),
        isr=tuple(sorted({*record.isr, to})),
    )
    return leader.sending(one, swap)


STORE, ENTER, JOIN, HOLD = Node._store, Replica._enter, Replica._join, Replica._hold
AFTER, CUT_BEHIND = plan.after, Node._cut_behind
ASK_API = clusters.Cluster.ask_api
COMMITTED: Callable[[Replica], int] = Replica.committed_end.fget  # type: ignore[attr-defined]
OFF = clauses
MUTANTS = [
    Mutant("1 an epoch is entered once",
           ((promotion, "elected", OFF.same_epoch), (leader, "may_begin", OFF.begins_alone)), 86),
    Mutant("2 a promise is synced before it is answered", ((Node, "_store", never_sworn),), 0),
    Mutant("2 pushed after it was won",
           ((clusters.Cluster, "ask_api", pushed_early), (leader, "may_begin", OFF.begins_alone)),
           35),
    Mutant("2 enough have sworn", ((leader, "may_begin", OFF.begins_alone),), 132),
    Mutant("3 what is synced counts, not what is written",
           ((OpenLog, "durable_end", property(counts_unsynced)),), 763),  # type: ignore[arg-type]
    Mutant("3 all in sync, not most", ((leader, "advanced", OFF.majority),), 0),
    Mutant("4 whoever leaves is waited for", ((leader, "wait_set", OFF.newest_only),), 5),
    Mutant("5 a seat is a disk", ((nodes, "DiskId", one_disk_for_all),), 146),
    Mutant("5 the first disks swear to be it", ((Replica, "_found", never_founded),), 49,
           heals=False),
    Mutant("6 drawn from the ISR", ((promotion, "plan_failover", anybody_who_answers),), 29),
    Mutant("7 a life leads once",
           ((promise, "may_lead", OFF.leads_again), (nodes, "next_life", same_start)), 2),
    Mutant("7 the tail is adopted", ((Replica, "_enter", keeps_what_is_committed),), 0),
    Mutant("7 the tail is not shown early",
           ((Replica, "committed_end", property(shows_the_tail)),), 6),  # type: ignore[arg-type]
    Mutant("7 served after the epoch-start frame",
           ((Replica, "serves", property(serves_at_once)),), 0),  # type: ignore[arg-type]
    Mutant("8 counted from where compared",
           ((Replica, "_hold", held_as_it_is), (Replica, "_join", cuts_nothing)), 69),
    Mutant("8 the rest is cut",
           ((follower, "common_end", OFF.never_cuts), (epochs, "common_end", OFF.never_cuts)), 69),
    Mutant("8 a hello is answered once", ((Replica, "_join", any_hello_is_answered),), 14),
    Mutant("11 the newest history leads", ((promotion, "newest_of", OFF.oldest_of),), 57),
    Mutant("11 settled by its leader",
           ((promotion, "recovered", OFF.settled_at_once), *OFF.FOLLOWS), 6401),
    Mutant("11 a record follows what is sworn",
           OFF.FOLLOWS, 67, chaos=with_sizes_back),
    Mutant("6 a leader that has named its successor is over",
           ((leader, "won", leads_on), (plan, "after", never_over)), 84, chaos=with_handovers),
    Mutant("6 a successor is drawn from the ISR", ((plan, "handing", anybody_may_follow),), 292,
           chaos=with_handovers),
    Mutant("9 all of the wait set answer before a read", ((Asking, "_others", nobody),), 3,
           chaos=with_reads),
    Mutant("9 who has sworn a later epoch does not answer", ((follower, "obeys", anybody_obeys),),
           14, chaos=with_reads),
    Mutant("13 only what is committed is cut", ((Node, "_cut_behind", cuts_what_is_durable),), 153,
           chaos=with_cuts),
    Mutant("13 a promise outlives a snapshot", ((nodes, "put_in_place", forgets_what_it_swore),),
           8, chaos=with_cuts),
    Mutant("13 who is filled holds nothing", ((Replica, "_join", counts_what_it_lacks),), 53,
           chaos=with_cuts),
    Mutant("14 who was there before swears first",
           tuple((one, "elders", OFF.nobody_waits) for one in (record, leader, promotion)), 262,
           chaos=with_sizes_back),
    Mutant("11 two candidates of one epoch are noticed", ((Planner, "_split", never_split),), 534,
           heals=False),
]  # fmt: skip


class Patched:
    """A clause is off inside."""

    def __init__(self, mutant: Mutant) -> None:
        self._patches = mutant.patches
        self._saved: list[tuple[Any, str, Any]] = []

    def __enter__(self) -> None:
        for place, name, broken in self._patches:
            self._saved.append((place, name, place.__dict__[name]))
            setattr(place, name, broken)

    def __exit__(self, *_: object) -> None:
        for place, name, whole in reversed(self._saved):
            setattr(place, name, whole)


def violation(seed: int, chaos: Chaos | None = None) -> str:
    """What goes wrong in a run; empty when nothing does."""
    try:
        clusters.run(seed, chaos)
    except (Violated, Diverged, DivergedReplica, InvariantBroken, BelowRetention) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def found(mutant: Mutant, seed: int) -> str:
    """What a seed shows of a clause that is off; empty when nothing that counts."""
    with Patched(mutant):
        wrong = violation(seed, mutant.chaos(seed))
    return "" if mutant.heals and NOT_HEALED in wrong else wrong


def find(mutant: Mutant, first: int = 0, end: int = SEEDS_MAX) -> tuple[int, str]:
    """The first seed that shows it, and how; (-1, "") without one."""
    for seed in range(first, end):
        if wrong := found(mutant, seed):
            return seed, wrong
    return -1, ""
