"""A world of replicas, a configuration manager and a hostile network, step by step.

`moves` lists every next state; `explorer.py` walks them all.  What the replicas, the leader and
the planner do in each move are the functions of `ultraengine.replication` themselves, called by
their modules' names, so that a test may switch one off and see the explorer notice.  What a
driver is trusted with (syncing a promise, adopting a tail, counting lives) stands under "the
driver's part".

Messages need no queue: any prefix of the log of any leader that ever was may reach any replica
at any time, and an answer may reach its leader at any later time.  That is more than a network
that loses, repeats, delays and reorders can do.  One move is one atomic step on one disk.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec

from ultraengine.model.ids import ConfigVersion, Epoch, ShardId
from ultraengine.replication import epochs as epoch_tables
from ultraengine.replication import follower as followers
from ultraengine.replication import leader as leaders
from ultraengine.replication import promise as promises
from ultraengine.replication import promotion, record, sizing
from ultraengine.replication.epochs import EpochStart, EpochTable
from ultraengine.replication.follower import Follower, Join, Verdict
from ultraengine.replication.leader import Leader
from ultraengine.replication.promise import NO_PROMISE, Promise
from ultraengine.replication.promotion import Answer, Refused
from ultraengine.replication.record import DiskId, Holder, NotAllowed, Record, ReplicaId, Seat
from ultraengine.replication.sizing import Wish

CLUSTER = b"c"
Frame = tuple[int, int]
"""(epoch, value); the value of an epoch-start frame is 0."""
Log = tuple[Frame, ...]


class View(msgspec.Struct, frozen=True):
    """A log as `epochs.LogView`; the chain hash of a prefix is the prefix."""

    log: Log
    durable_end: int

    @property
    def end(self) -> int:
        """First position without a frame."""
        return len(self.log)

    @property
    def epochs(self) -> EpochTable:
        """Starts of the epochs in it."""
        return table_of(self.log)

    def chain(self, position: int) -> object:
        """The prefix itself."""
        return self.log[:position]


def table_of(log: Log) -> EpochTable:
    """The epoch table of a log."""
    table: EpochTable = ()
    for position, (epoch, _) in enumerate(log):
        if not table or table[-1].epoch != epoch:
            table = (*table, EpochStart(Epoch(epoch), position))
    return table


class Replica(msgspec.Struct, frozen=True):
    """One replica: what is on its disk, and what its process is doing."""

    disk: int
    start: int
    promise: Promise
    log: Log
    durable_end: int
    follower: Follower
    leader: Leader | None = None


class Sent(msgspec.Struct, frozen=True):
    """What a leader has said in its epoch, to whomever, whenever it arrives."""

    epoch: int
    leader: Holder
    log: Log
    begin: int | None
    """None: a candidate's log, which has no frame of the epoch yet."""
    record: Record
    """The newest that it knew."""


class Acknowledged(msgspec.Struct, frozen=True):
    """What a client was told, and what the log was up to there."""

    epoch: int
    prefix: Log
    min_isr: int
    """Of the record in force then."""


class Budget(msgspec.Struct, frozen=True):
    """How much may still happen."""

    commands: int = 1
    epochs: int = 2
    crashes: int = 0
    wipes: int = 0
    rollbacks: int = 0
    changes: int = 1
    """Of the ISR."""
    forces: int = 0
    sizes: int = 0
    """Places that come or go."""
    unsynced: bool = False
    """Whether a leader's newest frames may be lost in a crash: else it syncs in the same step."""
    commit_index: bool = False
    """Whether followers learn what is committed: more states, and what is exposed is checked."""


class World(msgspec.Struct, frozen=True):
    """Everything there is."""

    replicas: tuple[Replica, ...]
    api: Record
    landed: tuple[Record, ...]
    """Every record that was ever in force, oldest first."""
    swaps: tuple[tuple[Record, Record, Holder | None], ...] = ()
    """(expected, new, sender) on their way; the sender is None for the operator."""
    results: tuple[tuple[Record, bool, Holder], ...] = ()
    """(swap, won, sender): answers on their way."""
    answers: tuple[tuple[int, Holder, Seat, int, int, int], ...] = ()
    """(epoch, leader, seat, start, position, version) on their way to that leader."""
    sent: tuple[Sent, ...] = ()
    acknowledged: tuple[Acknowledged, ...] = ()
    budget: Budget = Budget()
    away: int = -1
    """A replica that nobody hears of any more."""

    def with_(self, **changes: Any) -> "World":
        """A copy with some fields changed."""
        return msgspec.structs.replace(self, **changes)


class Violated(Exception):
    """An invariant does not hold."""


Move = tuple[str, World]


def seat(number: int, disk: int) -> Seat:
    """The seat of a disk."""
    return Seat(ReplicaId(number), DiskId(bytes([disk])))


def me(number: int, replica: Replica) -> Holder:
    """This life of a replica."""
    return Holder(seat(number, replica.disk), replica.start)


def bootstrapped(
    budget: Budget, replicas: int = 3, min_isr: int = 2, spare: int = 0, places: int | None = None
) -> World:
    """Empty disks and the first record; `spare` replicas have no seat yet, and those above
    `places` are none of the shard's."""
    everyone = tuple(
        Replica(0, 1, NO_PROMISE, (), 0, Follower(Holder(seat(n, 0), 1), NO_PROMISE))
        for n in range(replicas)
    )
    places = replicas if places is None else places
    seats = [seat(n, 0) for n in range(places - spare)]
    first = record.bootstrap(
        CLUSTER, ShardId(0), Holder(seats[0], 1), seats, min_isr, replicas=places
    )
    return World(everyone, first, (first,), budget=budget)


# --- the driver's part -------------------------------------------------------------------


def swap_lands(api: Record, expected: Record) -> bool:
    """Compare-and-swap: only onto the very record that it was computed from."""
    return api == expected


def adopts(log: Log, known_committed: int) -> Log:
    """What of its log a new leader keeps: all of it (clause 7)."""
    del known_committed
    return log


def restarted(replica: Replica) -> int:
    """The start counter of the next life."""
    return replica.start + 1


def acknowledgement(before: Leader, after: Leader) -> tuple[int, int]:
    """Positions that clients are told of now: what has become committed."""
    return before.committed_end, after.committed_end


def pushed(world: World) -> tuple[Record, ...]:
    """What may tell a process that it leads: records that were in force, now or once."""
    return world.landed


def sworn(before: Replica, after: Follower) -> Promise:
    """The promise that is on the disk when an answer leaves."""
    del before
    return after.promise


def held_by(log: Log, end: int) -> int:
    """Up to where a follower says that it holds its leader's log: where it was compared."""
    del log
    return end


# --- moves -------------------------------------------------------------------------------


def moves(world: World) -> Iterator[Move]:
    """Every state that one step can lead to, with what happens in it."""
    for number, replica in enumerate(world.replicas):
        if number == world.away:
            continue
        yield from _entering(world, number, replica)
        if replica.leader is not None and not replica.leader.over:
            yield from _leading(world, number, replica, replica.leader)
        yield from _copying(world, number, replica)
        yield from _failing(world, number, replica)
    yield from _swapping(world)
    yield from _planning(world)
    yield from _rolling_back(world)


def _put(world: World, number: int, replica: Replica, **changes: Any) -> World:
    replicas = (*world.replicas[:number], replica, *world.replicas[number + 1 :])
    return world.with_(replicas=replicas, **changes)


def _entering(world: World, number: int, replica: Replica) -> Iterator[Move]:
    """A process learns of a record that names it: by a quorum read, or by a push, however late."""
    for known in pushed(world):
        if not promises.may_lead(replica.promise, known, me(number, replica)):
            continue
        sworn = promises.sworn_to(replica.promise, known, known.holder)
        log = adopts(replica.log, replica.follower.committed_end)
        leader = Leader(me(number, replica), known)
        made = msgspec.structs.replace(
            replica,
            promise=sworn,
            log=log,
            durable_end=min(replica.durable_end, len(log)),
            leader=leader,
            follower=replica.follower.with_(promise=sworn, joined=None),
        )
        sent = Sent(int(known.epoch), leader.me, log, None, known)
        entered = world.with_(sent=tuple(sorted((*world.sent, sent), key=_order)))
        yield f"{number} enters epoch {known.epoch}", _led(entered, number, made, leader)


def _sorted(*items: Any) -> tuple[Any, ...]:
    """In one order, so that two states that differ only in it are one."""
    return tuple(sorted(items, key=repr))


def _order(sent: Sent) -> tuple[int, Holder]:
    return sent.epoch, sent.leader


def _led(world: World, number: int, replica: Replica, after: Leader) -> World:
    """The world after a step of a leader: what it may tell clients now, it tells."""
    before = replica.leader
    if not world.budget.unsynced and not after.over:
        replica, after = _synced(replica, after)
    start, end = (0, 0) if before is None else acknowledgement(before, after)
    told = tuple(
        Acknowledged(int(after.epoch), replica.log[: position + 1], after.record.min_isr)
        for position in range(start, end)
        if position < len(replica.log) and replica.log[position][1]
    )
    for one in told:
        _is_held(world, after, one.prefix)
    sent = tuple(
        msgspec.structs.replace(one, log=replica.log, begin=after.begin, record=after.record)
        if one.epoch == after.epoch and one.leader == after.me
        else one
        for one in world.sent
    )
    replica = msgspec.structs.replace(replica, leader=after)
    fresh = tuple(one for one in told if one not in world.acknowledged)
    return _put(world, number, replica, sent=sent, acknowledged=(*world.acknowledged, *fresh))


def _is_held(world: World, leader: Leader, prefix: Log) -> None:
    """What is acknowledged now is on the disk of every member in sync."""
    for number, replica in enumerate(world.replicas):
        its = seat(number, replica.disk)
        in_sync = its != leader.me.seat and its in leader.record.isr
        if in_sync and replica.log[: len(prefix)] != prefix:
            raise Violated(f"replica {number} is in sync without what is acknowledged")


def _synced(replica: Replica, leader: Leader) -> tuple[Replica, Leader]:
    """The leader's own disk has everything, and has sworn to the record in force."""
    sworn = promises.sworn_to(replica.promise, leader.record, leader.me)
    replica = msgspec.structs.replace(
        replica,
        durable_end=len(replica.log),
        promise=sworn,
        follower=replica.follower.with_(promise=sworn),
    )
    after = leaders.answered(
        leader,
        leader.me.seat,
        start=replica.start,
        position=len(replica.log),
        version=sworn.version,
    )
    return replica, after


def _leading(world: World, number: int, replica: Replica, leader: Leader) -> Iterator[Move]:
    budget, epoch = world.budget, int(leader.epoch)
    if leaders.may_begin(leader):
        begun = leaders.begun(leader, len(replica.log))
        started = msgspec.structs.replace(replica, log=(*replica.log, (epoch, 0)))
        yield f"{number} begins epoch {epoch}", _led(world, number, started, begun)
    if budget.commands and leader.begin is not None:
        value = 1 + sum(1 for _, value in replica.log if value)
        longer = msgspec.structs.replace(replica, log=(*replica.log, (epoch, value)))
        less = msgspec.structs.replace(budget, commands=budget.commands - 1)
        yield f"{number} appends", _led(world, number, longer, leader).with_(budget=less)
    if budget.unsynced:
        flushed, after = _synced(replica, leader)
        if (flushed, after) != (replica, leader):
            yield f"{number} flushes", _led(world, number, flushed, after)
    for answer in world.answers:
        answered_epoch, asked, of, start, position, version = answer
        if answered_epoch == epoch and asked == leader.me:
            after = leaders.answered(
                leader, of, start=start, position=position, version=ConfigVersion(version)
            )
            if after != leader:
                yield f"{number} hears {of.replica}", _led(world, number, replica, after)
    yield from _changing(world, number, replica, leader)
    for swap, is_won, sender in world.results:
        if sender != leader.me or swap not in leader.unresolved:
            continue
        after = leaders.won(leader, swap) if is_won else leaders.lost(leader, swap, world.api)
        if after != leader:
            yield f"{number} hears of its swap", _led(world, number, replica, after)
    after = leaders.read(leader, world.api)
    if after != leader:
        yield f"{number} reads the record", _led(world, number, replica, after)


def _changing(world: World, number: int, replica: Replica, leader: Leader) -> Iterator[Move]:
    budget = world.budget
    attempts: list[tuple[str, Callable[[Leader], Leader], Budget]] = []
    if budget.changes:
        less = msgspec.structs.replace(budget, changes=budget.changes - 1)
        for other, of in enumerate(world.replicas):
            if other != number:
                its = seat(other, of.disk)
                attempts += [
                    (f"drops {other}", partial(leaders.dropping, seat=its), less),
                    (f"adds {other}", partial(leaders.adding, seat=its), less),
                ]
    if budget.sizes:
        less = msgspec.structs.replace(budget, sizes=budget.sizes - 1)
        for wished in (1, len(world.replicas)):
            attempts += [
                (f"makes {'more' if wished > 1 else 'less'}", step, less)
                for step in sizing.steps(leader.record, Wish(wished))
            ]
    attempts.append(("says that all agree", leaders.agreeing, budget))
    if budget.forces:
        less = msgspec.structs.replace(budget, forces=budget.forces - 1)
        attempts.append(("forces", leaders.forcing, less))
    for name, attempt, less in attempts:
        try:
            after = attempt(leader)
        except NotAllowed:
            continue
        swap = (leader.record, after.unresolved[-1], leader.me)
        made = _led(world, number, replica, after)
        yield f"{number} {name}", made.with_(swaps=_sorted(*world.swaps, swap), budget=less)


def _copying(world: World, number: int, replica: Replica) -> Iterator[Move]:
    """Some of some leader's log arrives: the logs are compared, then frames are appended."""
    view = View(replica.log, replica.durable_end)
    for sent in world.sent:
        if sent.leader.seat == seat(number, replica.disk):
            continue
        theirs = View(sent.log, len(sent.log))
        agreed = epoch_tables.common_end(view.epochs, view.end, theirs.epochs, theirs.end)
        for known in {sent.record, world.landed[0]}:
            if known.epoch != sent.epoch:
                continue
            message = Join(
                Epoch(sent.epoch),
                sent.leader,
                known.version,
                seat(number, replica.disk) in known.isr,
                theirs.epochs,
                theirs.end,
                agreed,
                theirs.chain(agreed),
                known.size,
                known.elections,
            )
            joined = followers.join(replica.follower, message, view)
            if joined.verdict is Verdict.DIVERGED:
                raise Violated(f"replica {number} says DIVERGED")
            if joined.verdict is not Verdict.TAKEN:
                continue
            for end in range(joined.cut_to, len(sent.log) + 1):
                made = _copied(world, number, replica, joined.follower, sent, end,
                               joined.cut_to)  # fmt: skip
                if made != world:
                    yield (
                        f"{number} copies {end} of epoch {sent.epoch} as of {known.version}",
                        made,
                    )


def _copied(
    world: World, number: int, replica: Replica, follower: Follower, sent: Sent,
    end: int, cut_to: int,
) -> World:  # fmt: skip
    log = (*replica.log[:cut_to], *sent.log[cut_to:end])
    committed = next(
        (
            one.leader.committed_end
            for one in world.replicas
            if one.leader is not None
            and one.leader.epoch == sent.epoch
            and one.leader.me == sent.leader
        ),
        0,
    )
    if world.budget.commit_index:
        follower = followers.committed(follower, Epoch(sent.epoch), committed, View(log, len(log)))
    made = msgspec.structs.replace(
        replica,
        promise=sworn(replica, follower),
        log=log,
        durable_end=len(log),
        follower=follower,
        leader=None,
    )
    key = (sent.epoch, sent.leader, seat(number, replica.disk), replica.start)
    others = tuple(one for one in world.answers if one[:4] != key)
    before = next((one for one in world.answers if one[:4] == key), None)
    position = held_by(replica.log, end)
    position = position if before is None else max(position, before[4])
    version = int(follower.promise.version)
    if before is not None:
        version = max(version, before[5])
    answers = tuple(sorted((*others, (*key, position, version))))
    return _put(world, number, made, answers=answers)


def _failing(world: World, number: int, replica: Replica) -> Iterator[Move]:
    budget = world.budget
    if budget.crashes:
        less = msgspec.structs.replace(budget, crashes=budget.crashes - 1)
        for end in sorted({replica.durable_end, len(replica.log)}):
            start = restarted(replica)
            promise = replica.promise
            life = Holder(seat(number, replica.disk), start)
            made = Replica(replica.disk, start, promise, replica.log[:end], end,
                           Follower(life, promise))  # fmt: skip
            yield f"{number} crashes", _put(world, number, made, budget=less)
    if budget.wipes:
        less = msgspec.structs.replace(budget, wipes=budget.wipes - 1)
        life = Holder(seat(number, replica.disk + 1), 1)
        made = Replica(replica.disk + 1, 1, NO_PROMISE, (), 0, Follower(life, NO_PROMISE))
        yield f"{number} loses its disk", _put(world, number, made, budget=less)


def _swapping(world: World) -> Iterator[Move]:
    """A swap arrives at the manager, now; or never, which needs no move."""
    for index, (expected, new, sender) in enumerate(world.swaps):
        left = (*world.swaps[:index], *world.swaps[index + 1 :])
        lands = swap_lands(world.api, expected)
        results = world.results
        if sender is not None:
            results = _sorted(*results, (new, lands, sender))
        if lands:
            yield (
                "a swap lands",
                world.with_(api=new, landed=(*world.landed, new), swaps=left, results=results),
            )
        else:
            yield "a swap is refused", world.with_(swaps=left, results=results)


def answer_of(replica: Replica) -> Answer:
    """What a replica tells a planner."""
    table = table_of(replica.log)
    return Answer(replica.start, replica.promise, epoch_tables.last_epoch(table), len(replica.log))


def _subsets(count: int) -> Iterator[tuple[int, ...]]:
    for bits in range(1, 1 << count):
        yield tuple(n for n in range(count) if bits >> n & 1)


def _planning(world: World) -> Iterator[Move]:
    """The operator, or a restarted holder, plans from one read and some answers."""
    if any(sender is None for _, _, sender in world.swaps):
        return
    count = len(world.replicas)
    for heard in _subsets(count):
        if world.away in heard:
            continue
        answers = {seat(n, world.replicas[n].disk): answer_of(world.replicas[n]) for n in heard}
        plan = promotion.plan_failover(world.api, answers, cluster_uid=CLUSTER)
        if plan in {Refused.ROLLED_BACK, Refused.UNSETTLED}:
            yield from _recovering(world, heard)
        elif isinstance(plan, Record) and plan.epoch <= world.budget.epochs:
            swap = (world.api, plan, None)
            yield (
                f"a failover to {plan.holder.seat.replica} is planned",
                world.with_(swaps=_sorted(*world.swaps, swap)),
            )


def _recovering(world: World, heard: tuple[int, ...]) -> Iterator[Move]:
    """After a roll-back: promises of a new epoch are collected, then one of them is chosen."""
    answers = {seat(n, world.replicas[n].disk): answer_of(world.replicas[n]) for n in heard}
    epoch = promotion.recovery_epoch(world.api, answers)
    if epoch > world.budget.epochs:
        return
    replicas = list(world.replicas)
    for n in heard:
        reserved = promises.reserved(replicas[n].promise, epoch)
        if reserved is None:
            return
        replicas[n] = msgspec.structs.replace(
            replicas[n],
            promise=reserved,
            follower=replicas[n].follower.with_(promise=reserved, joined=None),
            leader=None,
        )
    sworn = {seat(n, replicas[n].disk): answer_of(replicas[n]) for n in heard}
    plan = promotion.plan_recovery(world.api, epoch, sworn)
    swaps = world.swaps
    if isinstance(plan, Record):
        swaps = _sorted(*swaps, (world.api, plan, None))
    yield (
        f"epoch {epoch} is promised by {heard}",
        world.with_(replicas=tuple(replicas), swaps=swaps),
    )


def _rolling_back(world: World) -> Iterator[Move]:
    """The manager forgets its newest records, and with them what was on its way to it."""
    budget = world.budget
    if not budget.rollbacks:
        return
    less = msgspec.structs.replace(budget, rollbacks=budget.rollbacks - 1)
    for earlier in dict.fromkeys(world.landed):
        if earlier.order < world.api.order:
            yield (
                f"the record goes back to {earlier.order}",
                world.with_(api=earlier, landed=(*world.landed, earlier), swaps=(), budget=less),
            )


# --- what must hold ----------------------------------------------------------------------


def check(world: World) -> None:
    """Raises `Violated`."""
    _one_leader(world)
    wiped = sum(1 for replica in world.replicas if replica.disk)
    for told in world.acknowledged:
        end = len(told.prefix)
        for sent in world.sent:
            if sent.begin is None or sent.epoch <= told.epoch:
                continue
            if sent.begin < end or sent.log[:end] != told.prefix:
                raise Violated(f"epoch {sent.epoch} began without a frame acknowledged before")
        holding = sum(1 for replica in world.replicas if replica.log[:end] == told.prefix)
        if holding < told.min_isr - wiped:
            raise Violated(f"{holding} disks hold a frame that was acknowledged")
    seen: dict[tuple[int, int], Log] = {}
    for log in [*(one.log for one in world.replicas), *(one.log for one in world.sent)]:
        for position, (epoch, _) in enumerate(log):
            prefix = log[: position + 1]
            if seen.setdefault((epoch, position), prefix) != prefix:
                raise Violated("two frames at one position of one epoch")


def _one_leader(world: World) -> None:
    begun = [sent.epoch for sent in world.sent if sent.begin is not None]
    if len(set(begun)) != len(begun):
        raise Violated("two leaders of one epoch")
