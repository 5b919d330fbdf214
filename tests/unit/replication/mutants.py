"""The clauses of the protocol, each switched off by a patch that only tests know.

Where two clauses prevent the same thing, both are switched off.  `docs/protocol.md` holds the
table with the traces that are found.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
from tests.unit.exploring import Explored
from tests.unit.replication import world as worlds
from tests.unit.replication.explorer import explore, walk
from tests.unit.replication.world import Budget, World, bootstrapped

from ultraengine.replication import epochs, follower, leader, promise, promotion, record
from ultraengine.replication.leader import Leader
from ultraengine.replication.record import Record

STATES_MAX = 50_000


class Mutant(NamedTuple):
    """One clause switched off."""

    clause: str
    patches: tuple[tuple[Any, str, Callable[..., Any]], ...]
    budget: Budget
    spare: int = 0
    after: tuple[str, ...] = ()
    """Moves before the walk begins, where a shortest trace would be long."""
    replicas: int = 3
    places: int | None = None
    """How many of them are the shard's at first."""


def anything_lands(_api: Record, _expected: Record) -> bool:
    return True


def same_epoch(last: Record, holder: Any, isr: Any) -> Record:
    made = record.elected(last, holder, isr)
    return msgspec.structs.replace(made, epoch=last.epoch)


def obeys_all(_promise: Any, _epoch: Any, _leader: Any) -> bool:
    return True


def pushed_before_won(world: World) -> tuple[Record, ...]:
    return (*world.landed, *(new for _, new, _ in world.swaps))


def majority(one: Leader) -> Leader:
    held = sorted((leader.held(one, seat) for seat in one.record.isr), reverse=True)
    end = held[len(held) // 2]
    if one.begin is None or end <= one.begin:
        return one
    return one.with_(committed_end=max(end, one.committed_end))


def no_minimum(last: Record, seat: Any) -> Record:
    isr = tuple(one for one in last.isr if one != seat)
    return msgspec.structs.replace(last, isr=isr, version=last.version + 1)


def newest_only(one: Leader) -> tuple[Any, ...]:
    return one.unresolved[-1].isr if one.unresolved else one.record.isr


def in_force_only(one: Leader) -> tuple[Any, ...]:
    return one.record.isr


def taken_as_won(one: Leader, swap: Record) -> Leader:
    return leader.advanced(one.with_(record=swap, unresolved=(swap,)))


def settled_by_any_read(one: Leader, current: Record) -> Leader:
    if current.holder != one.me or current.epoch != one.epoch:
        return one.with_(over=True)
    return leader.advanced(one.with_(record=current, unresolved=()))


def seat_by_name(number: int, _disk: int) -> Any:
    return record.Seat(record.ReplicaId(number), record.DiskId(b"\0"))


def same_life(replica: Any) -> int:
    return int(replica.start)


def leads_again(its: Any, known: Record, me: Any) -> bool:
    return bool(known.holder.seat == me.seat and known.epoch >= its.epoch)


def cut_to_commit(log: Any, known_committed: int) -> Any:
    return log[:known_committed]


def exposes_tail(before: Leader, after: Leader) -> tuple[int, int]:
    return 0, max(after.begin or 0, after.committed_end)


def counts_all(log: Any, end: int) -> int:
    return max(len(log), end)


def never_cuts(mine: Any, my_end: int, _theirs: Any, their_end: int) -> int:
    return min(my_end, their_end)


def never_behind(*_: Any) -> bool:
    return False


def one_is_enough(*_: Any) -> int:
    return 1


def always_knows(*_: Any) -> bool:
    return True


def oldest_of(answers: Any) -> Any:
    return [min(answers, key=lambda seat: answers[seat].order)]


def settled_at_once(*arguments: Any) -> Record:
    made = record.recovered(*arguments)
    return msgspec.structs.replace(made, settled=True)


def adds_whoever_has_the_committed(one: Leader, seat: Any) -> Leader:
    if leader.held(one, seat) < one.committed_end or one.over or one.unresolved:
        raise record.NotAllowed("as told")
    return one.with_(unresolved=(record.grown(one.record, seat),))


def anybody(last: Record, answers: Any, **_: Any) -> Any:
    best = promotion.best_of(answers, list(answers))
    holder = record.Holder(best, answers[best].start)
    isr = tuple(sorted(answers))
    changes = {"epoch": last.epoch + 1, "holder": holder, "isr": isr, "version": last.version + 1}
    return msgspec.structs.replace(last, **changes)


def nobody(*_: Any, **__: Any) -> promotion.Refused:
    return promotion.Refused.TOO_FEW


def begins_alone(one: Leader) -> bool:
    return one.begin is None and not one.over


def nobody_waits(_record: Record) -> tuple[Any, ...]:
    return ()


def anything_follows(*_: Any) -> bool:
    return True


def as_the_record_says(last: Record, _answers: Any) -> Any:
    return last.size


ROLLED = Budget(commands=1, epochs=3, changes=3, rollbacks=1)
LED = ("0 enters epoch 1", "1 copies 0 of epoch 1 as of 1", "0 hears 1", "0 begins epoch 1")
"""Replica 0 leads epoch 1."""
GONE = ("a swap lands", "0 hears of its swap")
DROPPED = (*LED, "0 drops 2", *GONE, "0 appends", "1 copies 2 of epoch 1 as of 2", "0 hears 1",
           "the record goes back to (1, 1)")  # fmt: skip
"""Acknowledged by 0 and 1 alone; the record says that 2 is in sync."""
EXCHANGED = (*LED, "2 copies 1 of epoch 1 as of 1", "0 drops 2", *GONE, "0 adds 2", *GONE,
             "0 drops 1", *GONE)  # fmt: skip
"""In sync are 0 and 2, and 2 has not heard of it yet."""
MOVED = (*LED, "1 copies 1 of epoch 1 as of 1", "2 copies 1 of epoch 1 as of 1", "0 drops 2", *GONE,
         "a failover to 1 is planned", "a swap lands", "1 enters epoch 2",
         "2 copies 1 of epoch 2 as of 3", "1 hears 2", "1 begins epoch 2", "1 adds 2",
         "a swap lands", "1 hears of its swap", "1 drops 0", "a swap lands", "1 hears of its swap",
         "1 appends", "2 copies 3 of epoch 2 as of 5", "1 hears 2",
         "the record goes back to (1, 2)")  # fmt: skip
"""Acknowledged in epoch 2 by 1 and 2; the record says that 0 and 1 are in sync in epoch 1."""
FOLLOWS = ((promise, "follows", anything_follows), (follower, "follows", anything_follows))
"""A record need not follow what a disk has sworn: that alone prevents what some others do."""
PLAIN = Budget(commands=1, epochs=2, changes=0)
CHANGE = Budget(commands=1, epochs=2, changes=1)
MUTANTS = [
    Mutant("1 only onto what was read",
           ((worlds, "swap_lands", anything_lands), *FOLLOWS), CHANGE, 0,
           (*LED, "0 appends", "0 drops 1", "a failover to 1 is planned")),
    Mutant("1 an epoch is entered once",
           ((promotion, "elected", same_epoch), (leader, "may_begin", begins_alone)), PLAIN),
    Mutant("2 lower epochs are refused", ((follower, "takes", obeys_all),), PLAIN),
    Mutant("2 pushed after it was won",
           ((worlds, "pushed", pushed_before_won), (leader, "may_begin", begins_alone)), CHANGE, 0,
           ("0 enters epoch 1", "0 drops 1", "a failover to 1 is planned", "1 enters epoch 2")),
    Mutant("2 enough have sworn", ((leader, "may_begin", begins_alone),),
           Budget(commands=0, epochs=2, changes=0, rollbacks=1), 0,
           ("a failover to 0 is planned", "a swap lands", "0 enters epoch 2")),
    Mutant("3 all in sync, not most", ((leader, "advanced", majority),), PLAIN),
    Mutant("3 never below min_isr",
           ((leader, "shrunk", no_minimum), (leader, "is_enough", always_knows),
            (promotion, "plan_failover", nobody)),
           Budget(commands=1, epochs=1, changes=2)),
    Mutant("4 whoever leaves is waited for", ((leader, "wait_set", newest_only),), CHANGE, 0,
           (*LED, "0 appends")),
    Mutant("4 whoever enters is waited for", ((leader, "wait_set", in_force_only),), CHANGE, 1),
    Mutant("4 who enters has the adopted tail",
           ((leader, "adding", adds_whoever_has_the_committed),),
           Budget(commands=1, epochs=3, changes=3), 0,
           (*LED, "2 copies 1 of epoch 1 as of 1", "0 drops 2", *GONE, "0 appends",
            "1 copies 2 of epoch 1 as of 2", "0 hears 1", "a failover to 1 is planned",
            "a swap lands", "1 enters epoch 2", "1 adds 2", "a swap lands", "1 hears of its swap",
            "1 drops 0", "a swap lands", "1 hears of its swap")),
    Mutant("4 unknown is not won", ((leader, "sending", taken_as_won), *FOLLOWS), CHANGE, 0,
           (*LED, "0 appends", "0 drops 1")),
    Mutant("4 the same version settles nothing", ((leader, "read", settled_by_any_read),),
           CHANGE, 1, after=(*LED, "0 appends", "0 adds 2")),
    Mutant("5 a seat is a disk", ((worlds, "seat", seat_by_name),),
           Budget(commands=1, epochs=2, changes=0, wipes=1)),
    Mutant("6 drawn from the ISR", ((promotion, "plan_failover", anybody),), CHANGE, 1),
    Mutant("7 a life leads once",
           ((promise, "may_lead", leads_again), (worlds, "restarted", same_life)),
           Budget(commands=1, epochs=1, changes=0, crashes=1, unsynced=True)),
    Mutant("7 the tail is adopted", ((worlds, "adopts", cut_to_commit),), PLAIN),
    Mutant("7 the tail is not shown early", ((worlds, "acknowledgement", exposes_tail),),
           Budget(commands=1, epochs=2, changes=0)),
    Mutant("8 counted from where compared", ((worlds, "held_by", counts_all),),
           Budget(commands=3, epochs=2, changes=0, crashes=1, unsynced=True), 0,
           ("0 enters epoch 1", "0 flushes", *LED[1:], "0 flushes", "0 appends", "0 appends",
            "1 copies 3 of epoch 1 as of 1", "0 crashes", "a failover to 0 is planned",
            "a swap lands", "0 enters epoch 2", "0 flushes")),
    Mutant("8 the rest is cut",
           ((follower, "common_end", never_cuts), (epochs, "common_end", never_cuts)), PLAIN),
    Mutant("11 disks outrank the record", ((promotion, "is_behind", never_behind), *FOLLOWS),
           ROLLED, 0, MOVED),
    Mutant("11 enough are heard", ((promotion, "needed", one_is_enough),), ROLLED, 0, DROPPED),
    Mutant("11 disks know the record", ((leader, "knows", always_knows),), ROLLED, 0,
           (*EXCHANGED, "0 appends", "2 copies 2 of epoch 1 as of 1", "0 hears 2",
            "the record goes back to (1, 2)")),
    Mutant("11 the newest history leads", ((promotion, "newest_of", oldest_of),), ROLLED, 0,
           DROPPED),
    Mutant("11 a record follows what is sworn",
           FOLLOWS, Budget(commands=1, epochs=2, changes=1, rollbacks=1), 0,
           (*LED, "2 copies 1 of epoch 1 as of 1", "a failover to 2 is planned", "a swap lands",
            "the record goes back to (1, 1)", "0 drops 2", *GONE, "0 appends",
            "1 copies 2 of epoch 1 as of 2", "0 hears 1")),
    Mutant("14 who was there before swears first",
           (*((one, "elders", nobody_waits) for one in (record, leader, promotion)), *FOLLOWS),
           Budget(commands=1, epochs=2, changes=1, sizes=1, rollbacks=1), replicas=2,
           after=(*LED, "0 makes less", *GONE, "0 drops 1", *GONE, "0 appends",
                  "the record goes back to (1, 1)")),
    Mutant("14 the newest number counts", ((promotion, "newest_size", as_the_record_says),),
           Budget(commands=1, epochs=3, changes=3, sizes=2, rollbacks=1), places=1,
           after=("0 enters epoch 1", "0 begins epoch 1", "1 copies 1 of epoch 1 as of 1",
                  "0 hears 1", "0 adds 1", *GONE, "1 copies 1 of epoch 1 as of 2", "0 hears 1",
                  "0 makes more", *GONE, "1 copies 1 of epoch 1 as of 3", "0 hears 1",
                  "0 says that all agree", *GONE, "2 copies 1 of epoch 1 as of 4", "0 hears 2",
                  "0 adds 2", *GONE, "1 copies 1 of epoch 1 as of 5", "0 hears 1",
                  "2 copies 1 of epoch 1 as of 5", "0 hears 2", "0 makes more", *GONE,
                  "1 copies 1 of epoch 1 as of 6", "0 hears 1", "0 says that all agree", *GONE,
                  "a failover to 1 is planned", "a swap lands", "1 enters epoch 2",
                  "2 copies 1 of epoch 2 as of 8", "1 hears 2", "1 begins epoch 2",
                  "the record goes back to (1, 1)")),
    Mutant("11 settled by its leader", ((promotion, "recovered", settled_at_once),),
           Budget(commands=1, epochs=4, changes=1, rollbacks=1), 0,
           DROPPED),
]  # fmt: skip


def find(mutant: Mutant) -> tuple[tuple[str, ...], Explored]:
    """What the explorer finds while a clause is off, and the moves before the walk."""
    saved = [(place, name, getattr(place, name)) for place, name, _ in mutant.patches]
    try:
        for place, name, broken in mutant.patches:
            setattr(place, name, broken)
        places = mutant.replicas if mutant.places is None else mutant.places
        first = bootstrapped(
            mutant.budget, mutant.replicas, places // 2 + 1, mutant.spare, mutant.places
        )
        start = walk(first, *mutant.after)
        return mutant.after, explore(start, states_max=STATES_MAX, tidy=False)
    finally:
        for place, name, whole in saved:
            setattr(place, name, whole)
