"""A slot, its shards, a map, clients and any number of forgetful coordinators, step by step.

`moves` lists every next state; `explorer.py` walks them all.  What shards and coordinators do in
each move are the functions of `ultraengine.moving` themselves, called by their modules' names, so
that a test may switch one off and see the explorer notice.  What a driver is trusted with (syncing
a record, refusing what waits, taking the ids along) stands under "the driver's part".

Messages and coordinators need no state: a coordinator may have seen any shard as it was at any
time, or not at all, and what it would then do arrives at any time, as often as it likes.  That is
more than coordinators that crash, race and are delayed can do on a network that loses, repeats and
reorders.  One move is one atomic step on one disk.
"""

from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from typing import Any

import msgspec

from ultraengine.model.ids import SLOT_COUNT, ShardId
from ultraengine.moving import plan as plans
from ultraengine.moving import record as records
from ultraengine.moving.plan import Copy, Publish, Rest, Seen, Send
from ultraengine.moving.record import Attempt, Message, Refused, SlotRecord, State
from ultraengine.router.shard_map import ShardMap, SlotRange

SLOT = 7
Said = tuple[tuple[Seen, ...], ...]
"""By shard."""
_ENCODE = msgspec.msgpack.Encoder().encode


class Held(msgspec.Struct, frozen=True):
    """What a shard has of the slot: commands in order, and the ids it remembers."""

    applied: tuple[int, ...] = ()
    known: tuple[int, ...] = ()

    @property
    def digest(self) -> bytes:
        """Equal digests are equal contents."""
        return _ENCODE(self)


NOTHING = Held()


class Shard(msgspec.Struct, frozen=True):
    """One shard: what its memory says, what its disk says, and what waits to be logged."""

    record: SlotRecord
    disk: SlotRecord
    held: Held = NOTHING
    staged: Held = NOTHING
    waiting: tuple[int, ...] = ()

    def seen(self) -> Seen:
        """What it tells a coordinator."""
        if self.record.state is State.STAGED:
            return Seen(self.record, self.staged.digest, len(self.staged.applied))
        return Seen(self.record, b"", len(self.held.applied))


class Budget(msgspec.Struct, frozen=True):
    """How much may still happen."""

    commands: int = 1
    """Ids; each may be sent any number of times to any shard."""
    attempts: int = 1
    """Of each owner."""
    eras: int = 1
    """Changes of the owner."""
    planned: bool = True
    """Whether coordinators follow the plan; else they send whatever is true of what they saw."""


class World(msgspec.Struct, frozen=True):
    """Everything there is."""

    shards: tuple[Shard, ...]
    version: int
    mapped: int
    mapped_era: int
    past: Said
    """All that each shard ever said."""
    since: Said
    """What each has said since the map has its version."""
    exported: tuple[tuple[Attempt, Held], ...] = ()
    """The most that could be read of each attempt."""
    acknowledged: tuple[tuple[int, int], ...] = ()
    """(id, place among the slot's commands) that a client was told."""
    budget: Budget = Budget()

    def with_(self, **changes: Any) -> "World":
        """A copy with some fields changed."""
        return msgspec.structs.replace(self, **changes)


class Violated(Exception):
    """An invariant does not hold."""


Move = tuple[str, World]


def first(budget: Budget, shards: int = 2) -> World:
    """Shard 0 owns the slot and the map says so."""
    owner = Shard(records.FIRST_OWNER, records.FIRST_OWNER)
    other = Shard(records.NEVER_HELD, records.NEVER_HELD)
    everyone = (owner, *[other] * (shards - 1))
    said = tuple((one.seen(),) for one in everyone)
    return World(everyone, 1, 0, 0, said, said, budget=budget)


# --- the driver's part -------------------------------------------------------------------


def synced(before: SlotRecord, after: SlotRecord) -> SlotRecord:
    """The record on the disk when anybody is told of the new one."""
    del before
    return after


def still_waits(waiting: tuple[int, ...]) -> tuple[int, ...]:
    """What waits behind a seal that is logged: nothing of the slot.  It is refused there and then,
    and not when its turn comes: by then the slot may be back, and the command done elsewhere."""
    del waiting
    return ()


def takes(world: World, number: int) -> bool:
    """Whether a shard takes a command of the slot."""
    return records.serves(world.shards[number].record)


def image(staged: Held) -> Held:
    """What the new owner has of what was staged: all of it, remembered ids included."""
    return staged


def swaps_onto(world: World) -> Said:
    """What a coordinator may have seen whose swap can land: its version was read before."""
    return world.since


# --- moves -------------------------------------------------------------------------------


def moves(world: World) -> Iterator[Move]:
    """Every state that one step can lead to, with what happens in it."""
    for number, shard in enumerate(world.shards):
        yield from _commanding(world, number, shard)
        yield from _copying(world, number, shard)
        if shard.waiting or shard.record != shard.disk:
            fresh = msgspec.structs.replace(shard, record=shard.disk, waiting=())
            yield f"{number} crashes", put(world, number, fresh)
    for send in messages(world.past) if world.budget.planned else truths(world.past):
        following = delivered(world, send)
        if following is not None:
            yield f"{named(send.message)} to {send.shard}", following
    for owner, era in publications(swaps_onto(world), world.mapped):
        yield f"the map names {owner} of era {era}", published(world, owner, era)


def named(message: Message) -> str:
    """A message in a trace."""
    attempt = message.attempt
    return f"{type(message).__name__} {attempt.era}.{attempt.number}"


def _note(said: Said, number: int, seen: Seen) -> Any:
    if seen in said[number]:
        return said
    more = tuple(sorted((*said[number], seen), key=repr))
    return (*said[:number], more, *said[number + 1 :])


def put(world: World, number: int, shard: Shard, **changes: Any) -> World:
    """The world with another shard, and with what it may be heard to say."""
    shards = (*world.shards[:number], shard, *world.shards[number + 1 :])
    seen = shard.seen()
    exported = world.exported
    if shard.record.state in {State.EXPORTING, State.SEALED}:
        others = [one for one in exported if one[0] != shard.record.attempt]
        exported = tuple(sorted((*others, (shard.record.attempt, shard.held)), key=repr))
    return world.with_(
        shards=shards,
        past=_note(world.past, number, seen),
        since=_note(world.since, number, seen),
        exported=exported,
        **changes,
    )


def _commanding(world: World, number: int, shard: Shard) -> Iterator[Move]:
    if takes(world, number):
        for command in range(1, world.budget.commands + 1):
            if command in shard.held.known:
                again = (command, shard.held.applied.index(command))
                _is_first_answer(world, again)
            elif command not in shard.waiting:
                more = msgspec.structs.replace(shard, waiting=(*shard.waiting, command))
                yield f"{number} takes {command}", put(world, number, more)
    if shard.waiting:
        command, rest = shard.waiting[0], shard.waiting[1:]
        held = Held((*shard.held.applied, command), (*shard.held.known, command))
        made = msgspec.structs.replace(shard, held=held, waiting=rest)
        told = (command, len(shard.held.applied))
        _is_first_answer(world, told)
        told_all = tuple(sorted({*world.acknowledged, told}))
        yield f"{number} logs {command}", put(world, number, made, acknowledged=told_all)


def _is_first_answer(world: World, told: tuple[int, int]) -> None:
    for one in world.acknowledged:
        if one[0] == told[0] and one != told:
            raise Violated(f"command {told[0]} is answered as {told[1]} and as {one[1]}")


def _copying(world: World, number: int, shard: Shard) -> Iterator[Move]:
    """Some more of what could ever be read of the attempt arrives."""
    if shard.record.state is not State.STAGED:
        return
    for attempt, held in world.exported:
        if attempt == shard.record.attempt:
            for end in range(len(shard.staged.applied) + 1, len(held.applied) + 1):
                part = Held(held.applied[:end], held.known[:end])
                more = msgspec.structs.replace(shard, staged=part)
                yield f"{number} has a copy of {end}", put(world, number, more)


def delivered(world: World, send: Send) -> World | None:
    """The world after a message, or None when it changes nothing."""
    number, message = int(send.shard), send.message
    if isinstance(message, records.Begin) and (
        message.attempt.number > world.budget.attempts or message.attempt.era >= world.budget.eras
    ):
        return None
    before = world.shards[number]
    is_staged = before.record.state is State.STAGED
    try:
        after = records.step(
            before.record, message, (before.staged if is_staged else before.held).digest
        )
    except Refused:
        return None
    if after == before.record:
        return None
    held, staged = before.held, before.staged
    if after.state is State.ABSENT:
        held = staged = NOTHING
    elif after.state is State.STAGED:
        staged = NOTHING
    elif is_staged:
        held, staged = image(staged), NOTHING
    waiting = before.waiting if records.serves(after) else still_waits(before.waiting)
    disk = synced(before.disk, after)
    return put(world, number, Shard(after, disk, held, staged, waiting))


def published(world: World, owner: int, era: int) -> World:
    """The map after a swap that has landed: the next version, with this owner."""
    if era < world.mapped_era:
        raise Violated(f"the map goes back from era {world.mapped_era} to {era}")
    before = ShardMap(world.version, (SlotRange(0, SLOT_COUNT, ShardId(world.mapped)),))
    after = before.moved(SLOT, ShardId(owner))
    return world.with_(
        version=after.version,
        mapped=int(after.owners[SLOT]),
        mapped_era=era,
        since=tuple((shard.seen(),) for shard in world.shards),
    )


def _views(said: Said) -> Iterator[dict[ShardId, Seen]]:
    for chosen in product(*[(None, *one) for one in said]):
        yield {ShardId(n): seen for n, seen in enumerate(chosen) if seen is not None}


def forget_plans() -> None:
    """To be called when the planner is another one."""
    _messages.cache_clear()
    truths.cache_clear()
    _publications.cache_clear()


@lru_cache(maxsize=100_000)
def _messages(said: Said) -> tuple[Send, ...]:
    found: dict[Send, None] = {}
    shards = [ShardId(n) for n in range(len(said))]
    for view in _views(said):
        for goal, mapped in product(shards, shards):
            action = plans.plan(goal, mapped, view, lag_max=1)
            if isinstance(action, Send):
                found[action] = None
    return tuple(sorted(found, key=repr))


def messages(said: Said) -> tuple[Send, ...]:
    """All that any coordinator may have sent until now, whatever it wanted and has seen."""
    return _messages(said)


@lru_cache(maxsize=100_000)
def truths(said: Said) -> tuple[Send, ...]:
    """All that shows nothing but what some shard has said, however foolish it is to send."""
    found: dict[Send, None] = {}
    shards = [ShardId(n) for n in range(len(said))]
    for seen, to in product([seen.record for one in said for seen in one], shards):
        attempt, peer = seen.attempt, seen.peer
        sends: list[Message] = [records.Stop(attempt), records.Seal(attempt)]
        sends.append(records.Cancel(attempt))
        if records.serves(seen):
            sends += [records.Begin(attempt.next, other) for other in shards if other != to]
        if seen.state in {State.EXPORTING, State.SEALED} and peer == to:
            source = next(n for n in shards if any(seen == one.record for one in said[n]))
            sends.append(records.Stage(attempt, source))
        if seen.state is State.SEALED:
            sends.append(records.Activate(attempt, seen.digest))
        for number, other in ((n, other.record) for n in shards for other in said[n]):
            sends.append(records.Finish(attempt, other.era))
            fence = records.fence(other)
            if fence is not None:
                sends.append(records.Reopen(attempt, number, fence))
        found.update({Send(to, message): None for message in sends})
    return tuple(sorted(found, key=repr))


@lru_cache(maxsize=100_000)
def _publications(said: Said, mapped: int) -> tuple[tuple[int, int], ...]:
    found: dict[tuple[int, int], None] = {}
    for view in _views(said):
        action = plans.plan(ShardId(mapped), ShardId(mapped), view, lag_max=1)
        if isinstance(action, Publish):
            found[int(action.owner), view[action.owner].record.era] = None
    return tuple(sorted(found))


def publications(said: Said, mapped: int) -> tuple[tuple[int, int], ...]:
    """(owner, era) of all swaps that may land now."""
    return _publications(said, mapped)


# --- what must hold ----------------------------------------------------------------------


def check(world: World) -> None:
    """One owner at most; what was acknowledged is with whoever comes next; nothing twice."""
    serving = [n for n, shard in enumerate(world.shards) if records.serves(shard.record)]
    if len(serving) > 1:
        raise Violated(f"shards {serving} serve the slot")
    has = [
        (shard.record.era, n)
        for n, shard in enumerate(world.shards)
        if shard.record.state in {State.OWNED, State.EXPORTING, State.SEALED}
    ]
    if not has:
        raise Violated("nobody has the slot")
    applied = world.shards[max(has)[1]].held.applied
    if len(set(applied)) < len(applied):
        raise Violated(f"a command was carried out twice: {applied}")
    for command, place in world.acknowledged:
        if applied[place : place + 1] != (command,):
            raise Violated(f"command {command} was acknowledged and is lost")


# --- what must be possible ---------------------------------------------------------------


def settled(world: World, goal: int, *, steps_max: int = 60) -> World | None:
    """The world after one coordinator that sees everybody and wants the slot at `goal` has done
    all it can; None when it does not come to an end."""
    wide = msgspec.structs.replace(world.budget, attempts=10**6, eras=10**6)
    world = world.with_(budget=wide)
    for _ in range(steps_max):
        view = {ShardId(n): shard.seen() for n, shard in enumerate(world.shards)}
        action = plans.plan(ShardId(goal), ShardId(world.mapped), view, lag_max=0)
        if action is Rest.DONE:
            return world
        following = _carried_out(world, action)
        if following is None:
            return None
        world = following
    return None


def _carried_out(world: World, action: plans.Action) -> World | None:
    if isinstance(action, Send):
        return delivered(world, action)
    if isinstance(action, Publish):
        return published(world, int(action.owner), world.shards[action.owner].record.era)
    if isinstance(action, Copy):
        source, number = world.shards[action.source], int(action.destination)
        made = msgspec.structs.replace(world.shards[number], staged=source.held)
        return put(world, number, made)
    return None


def unsettled(world: World, goal: int) -> str:
    """What is wrong after a coordinator has done all it can; empty when nothing is."""
    after = settled(world, goal)
    if after is None:
        return "it does not come to an end"
    try:
        check(after)
    except Violated as error:
        return str(error)
    if not records.serves(after.shards[goal].record) or after.mapped != goal:
        return "the slot is not where it was wanted"
    left = [
        n
        for n, shard in enumerate(after.shards)
        if n != goal and (shard.record.state is not State.ABSENT or shard.held != shard.staged)
    ]
    return f"something is left in {left}" if left else ""
