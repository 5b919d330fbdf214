"""One replica: the protocol joined to a log, values in and values out.

    receive, tick, record_read, swap_answered, written, flushed  ->  Effects
    sent: how much of what was to be sent has been

The machine decides which promise to sync, where to cut, what to append and what to send; a driver
does it, in the order of `Effects`.  It knows its log through `LogView` and its time through `now`
(monotonic seconds, compared only with itself).  What is sent may be lost, repeated and reordered.

A leader sends what it has written before it is durable here: both flushes overlap, and its own
answer counts like everybody's.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial

from ultraengine.model.ids import Epoch
from ultraengine.replication import epochs as tables
from ultraengine.replication import follower as followers
from ultraengine.replication import leader as leaders
from ultraengine.replication import peers as copies
from ultraengine.replication import promise as promises
from ultraengine.replication.effects import Effects, ReplicaLimits, Sending, Swap
from ultraengine.replication.epochs import LogView
from ultraengine.replication.feeding import fed
from ultraengine.replication.follower import Follower, Join, Verdict
from ultraengine.replication.handover import plan as handovers
from ultraengine.replication.handover.plan import Handover, Phase
from ultraengine.replication.leader import Leader
from ultraengine.replication.messages import (
    Append,
    Ask,
    Beacon,
    Behind,
    Found,
    Held,
    Hello,
    Joining,
    Lead,
    Message,
    Reserve,
    Told,
)
from ultraengine.replication.peers import Peer
from ultraengine.replication.promise import Promise
from ultraengine.replication.promotion import Answer
from ultraengine.replication.record import Holder, NotAllowed, Record, ReplicaId, Seat
from ultraengine.replication.sizing import Wish


class Replica:
    """One life of one replica."""

    def __init__(
        self,
        me: Holder,
        promise: Promise,
        log: LogView,
        peers: Iterable[ReplicaId],
        limits: ReplicaLimits,
        now: float,
        wish: Wish | None = None,
    ) -> None:
        """`peers` are the places of the others, whatever disks are in them; `wish` is how many
        copies there are to be, where this replica leads (None: as many as there are)."""
        self.me = me
        self.log = log
        # What was cut from a log was committed before.
        first = tables.first_of(log.epochs, log.end)
        self.follower = Follower(me, promise, committed_end=first)
        self.leader: Leader | None = None
        """None, or the leadership of this life; ``over`` ones are kept until the next one."""
        self.barred = False
        """Set by whoever executes, when something came out differently here."""
        self.joins = 0
        """How often this life has begun to copy somebody, or to lead."""
        self._frozen = False
        self.handover: Handover | None = None
        """The newest attempt of this leadership to be replaced."""
        self._others = tuple(peers)
        self.wish = wish
        self._limits = limits
        self.peers: dict[Seat, Peer] = {}
        self._hello = 0
        self._asked: int | None = None
        """Number of the hello that may still be answered."""
        self._said: tuple[Held | None, float] = None, now
        """What the leader was last told of this copy, and when."""
        self.heard_at = now
        """Of the leader that is copied; or when something was done about there being none."""
        self.entered_at = now
        self._swap_at = now
        self._swap_asked = False

    # --- what a driver and its shard want to know ----------------------------------------

    @property
    def promise(self) -> Promise:
        """What this disk has sworn, once the effects so far were done."""
        return self.follower.promise

    @property
    def committed_end(self) -> int:
        """Frames below may be executed and shown."""
        led = 0 if self.leader is None else self.leader.committed_end
        return max(self.follower.committed_end, led)

    @property
    def leads(self) -> bool:
        """Whether this life is a leader or a candidate, as far as it knows."""
        return self._leading() is not None

    @property
    def serves(self) -> bool:
        """Whether commands are taken: it may append, and is not about to be replaced."""
        return self.may_append and not (self.handover is not None and self.handover.stops)

    @property
    def may_append(self) -> bool:
        """Whether frames may be appended: the epoch-start frame is committed (clause 7)."""
        leader = self._leading()
        return (
            leader is not None and leader.begin is not None and leader.committed_end > leader.begin
        )

    # --- what happens --------------------------------------------------------------------

    def receive(self, message: Message, now: float) -> Effects:
        """A message has arrived, perhaps late, perhaps again."""
        effects = Effects()
        if self._frozen:
            return effects
        match message:
            case Beacon():
                self._say_hello(message.epoch, message.leader, effects)
            case Hello():
                self._compare(message, now, effects)
            case Joining():
                self._join(message, now, effects)
            case Append():
                self._append(message, now, effects)
            case Held():
                self._held(message, now, effects)
            case Behind():
                self._fell_behind(message, effects)
            case Ask():
                effects.sends.append(Sending(None, self._told(message.number)))
            case Reserve():
                self._reserve(message, effects)
            case Found():
                self._found(message, effects)
            case Lead():
                self._enter(message.record, now, effects)
        return effects  # Nothing for `Told`, which is for whoever plans, or for `reading.asking`.

    def tick(self, now: float) -> Effects:
        """Time has passed; a few times per `ReplicaLimits.resend_s`."""
        effects = Effects()
        leader = self._leading()
        if leader is not None:
            self._hand_on(leader, now, effects)
            self._change(leader, now, effects)
            self._feed(now, effects, all_of_them=True)
        elif now - self.heard_at >= self._limits.read_s:
            self.heard_at = now
            effects.read = True
        return effects

    def record_read(self, record: Record | None, now: float) -> Effects:
        """A quorum read has answered; None: there is no record."""
        effects = Effects()
        leader = self._leading()
        if leader is not None:
            over = leader.with_(over=True)
            self._led(over if record is None else leaders.read(leader, record), now, effects)
        if record is not None:
            self._enter(record, now, effects)
        return effects

    def swap_answered(self, swap: Swap, current: Record | None, now: float) -> Effects:
        """The outcome of a swap is known: `current` is the record after it, by its own answer
        when that is `swap.new`, else by a quorum read after the refusal."""
        effects = Effects()
        leader = self._leading()
        if leader is None or swap.new not in leader.unresolved:
            return effects
        if current is None:
            self._led(leader.with_(over=True), now, effects)
        elif current == swap.new:
            self._led(leaders.won(leader, swap.new), now, effects)
        else:
            self._led(leaders.lost(leader, swap.new, current), now, effects)
        return effects

    def freeze(self, joins: int) -> bool:
        """Say nothing and join nobody any more: another copy takes the place of this one, which
        has said of nothing that it is there since `joins`.  Whether that is so."""
        self._frozen = self.joins == joins and self.leader is None
        return self._frozen

    def hand_over(self, to: Seat, until: float, now: float) -> Effects:
        """Take no more commands; let a copy lead once it holds all, or go on at `until`."""
        effects, leader = Effects(), self._leading()
        if leader is not None and self.serves:
            self.handover = Handover(to, until)
            self._change(leader, now, effects)
        return effects

    def sent(self, seat: Seat, end: int) -> None:
        """Of the frames that were to be sent to a copy, those below `end` were: it is sent the
        others when it has answered."""
        peer = self.peers.get(seat)
        if peer is not None:
            peer.sent_end = max(peer.held_end, min(peer.sent_end, end))

    def too_far(self, seat: Seat) -> Effects:
        """What a copy is to be sent has been cut from the log."""
        effects = Effects()
        leader, peer = self._leading(), self.peers.get(seat)
        if leader is not None and peer is not None:
            peer.joined, peer.behind = False, True
            behind = Behind(leader.epoch, self.me, seat)
            effects.sends.append(Sending(seat.replica, behind))
        return effects

    def needed(
        self, filling: Mapping[ReplicaId, tuple[int, float]], now: float
    ) -> dict[ReplicaId, int]:
        """From where on copies need this leader's log; see `peers.needed`."""
        entered_at, since = self.entered_at, now - self._limits.kept_s
        return copies.needed(self._others, self.peers, filling, entered_at, since)

    def written(self, now: float) -> Effects:
        """The log has grown by frames of this leader: they are sent while they are flushed."""
        effects = Effects()
        self._feed(now, effects)
        return effects

    def flushed(self, now: float) -> Effects:
        """More of the log is durable."""
        effects = Effects()
        leader = self._leading()
        if leader is not None:
            self._led(leader, now, effects)
        else:
            self._hold(effects, now=now)
        return effects

    # --- following -----------------------------------------------------------------------

    def _say_hello(self, epoch: Epoch, leader: Holder, effects: Effects) -> None:
        follower = self.follower
        if leader.seat == self.me.seat or not promises.takes(follower.promise, epoch, leader):
            return
        if follower.joined == epoch:
            self._hold(effects)  # It has not heard that this copy has joined.
            return
        self._hello += 1
        self._asked = self._hello
        hello = Hello(epoch, self.me, self._hello, self.log.epochs, self.log.end)
        effects.sends.append(Sending(leader.seat.replica, hello))

    def _join(self, message: Joining, now: float, effects: Effects) -> None:
        if message.number != self._asked:
            return
        self._asked = None
        self._retain_committed()
        joined = followers.join(self.follower, message.join, self.log)
        if joined.verdict is Verdict.DIVERGED:
            effects.diverged = True
        if joined.verdict not in {Verdict.TAKEN, Verdict.LACKING}:
            return
        self._swear(joined.follower, effects)
        self.leader = None
        self.heard_at = now
        if joined.verdict is Verdict.LACKING:
            effects.lacks = message.join.leader
            return
        self.joins += 1
        if joined.cut_to < self.log.end:
            effects.cut_to = joined.cut_to
        self._hold(effects, min(joined.cut_to, self.log.durable_end))

    def _append(self, message: Append, now: float, effects: Effects) -> None:
        follower, log = self.follower, self.log
        if not followers.copies(follower, message.seat, message.epoch, message.leader):
            # Of another disk or life in this place, or of a leader that is not copied yet.
            self._say_hello(message.epoch, message.leader, effects)
            return
        self.heard_at = now
        self._swear(followers.told(follower, message), effects)
        known = max(0, log.end - message.position)
        """Of its frames, those that are here: this leader's log up to here is this one."""
        fresh = message.frames[known:]
        if fresh and followers.may_append(
            self.follower, message.epoch, message.leader, message.position + known, log
        ):
            effects.copy = fresh
        self.follower = followers.committed(
            self.follower, message.epoch, message.committed_end, log
        )
        self._hold(effects, now=now)

    def _fell_behind(self, message: Behind, effects: Effects) -> None:
        """Not joined any more, so that nothing is said of a log that will never go on."""
        follower = self.follower
        if followers.copies(follower, message.seat, message.epoch, message.leader):
            self.follower = follower.with_(joined=None)
            effects.lacks = message.leader

    def _hold(
        self, effects: Effects, position: int | None = None, now: float | None = None
    ) -> None:
        """Tell the leader what is durable here.  The log ends where it was compared, or behind:
        what is in it now has come from this leader, or was found equal.  With `now`, not what was
        said a moment ago: if that is lost, it is said again at the next sign of life."""
        promise = self.follower.promise
        if promise.holder is None or self.follower.joined != promise.epoch:
            return
        end = self.log.durable_end if position is None else position
        held = Held(promise.epoch, promise.holder, self.me, end, promise.version)
        said, said_at = self._said
        if now is not None and held == said and now - said_at < self._limits.repeat_s:
            return
        self._said = held, said_at if now is None else now
        effects.sends.append(Sending(promise.holder.seat.replica, held))

    def _swear(self, follower: Follower, effects: Effects) -> None:
        if follower.promise != self.follower.promise:
            effects.promise = follower.promise
        self.follower = follower

    def _retain_committed(self) -> None:
        """What a leadership of this life has committed stays known when it is over."""
        self.follower = self.follower.with_(committed_end=self.committed_end)

    # --- answering a planner -------------------------------------------------------------

    def _told(self, number: int) -> Told:
        """Of the disk alone: what is not durable may be gone when it is asked to lead."""
        end, leader = self.log.durable_end, self._leading()
        last_epoch = tables.last_epoch(tables.cut(self.log.epochs, end))
        answer = Answer(self.me.start, self.follower.promise, last_epoch, end, self.barred)
        leads = None if leader is None else leader.epoch
        return Told(number, self.me.seat, answer, leads)

    def _reserve(self, message: Reserve, effects: Effects) -> None:
        reserved = promises.reserved(self.follower.promise, message.epoch)
        if reserved is not None:
            self._retain_committed()
            self._swear(self.follower.with_(promise=reserved, joined=None), effects)
            self.leader = None
        effects.sends.append(Sending(None, self._told(message.number)))

    def _found(self, message: Found, effects: Effects) -> None:
        sworn = promises.founding(self.follower.promise)
        if sworn is not None and self.me.seat in message.record.isr and self.log.end == 0:
            self._swear(self.follower.with_(promise=sworn), effects)
        effects.sends.append(Sending(None, self._told(message.number)))

    # --- leading -------------------------------------------------------------------------

    @property
    def _is_at_rest(self) -> bool:
        """Whether all is committed.  Else the next frames, or their commit, say what is."""
        return self._limits.repeat_s == 0 or self.committed_end >= self.log.end

    def _leading(self) -> Leader | None:
        leader = self.leader
        return None if leader is None or leader.over else leader

    def _enter(self, record: Record, now: float, effects: Effects) -> None:
        """Lead the record's epoch, if this life is named and has not sworn it to anybody."""
        if self._frozen or not promises.may_lead(self.follower.promise, record, self.me):
            return
        self.joins += 1
        self._retain_committed()
        sworn = promises.sworn_to(self.follower.promise, record, self.me)
        self._swear(self.follower.with_(promise=sworn, joined=None), effects)
        self.peers = {}
        self._asked = self.handover = None
        self.entered_at = self._swap_at = now
        self._led(Leader(self.me, record), now, effects)
        self._feed(now, effects, all_of_them=True)

    def _led(self, leader: Leader, now: float, effects: Effects) -> None:
        """After any step of a leader: its own disk answers, and what may begin begins."""
        self.leader = leader
        self._hand_on(leader, now, effects)
        if leader.over:
            return
        sworn = promises.sworn_to(self.follower.promise, leader.record, self.me)
        self._swear(self.follower.with_(promise=sworn), effects)
        leader = leaders.answered(
            leader,
            self.me.seat,
            start=self.me.start,
            position=self.log.durable_end,
            version=sworn.version,
        )
        if leaders.may_begin(leader):
            leader = leaders.begun(leader, self.log.end)
            effects.begin = True
        told = leader.committed_end > (0 if self.leader is None else self.leader.committed_end)
        self.leader = leader
        if told:
            self._feed(now, effects, all_of_them=self._is_at_rest)

    def _hand_on(self, leader: Leader, now: float, effects: Effects) -> None:
        before = self.handover
        if before is not None:
            self.handover = handovers.after(before, leader, now)
            if self.handover.phase is Phase.WON and before.phase is Phase.SENT:
                effects.sends.append(Sending(before.to.replica, Lead(leader.record)))

    def _compare(self, message: Hello, now: float, effects: Effects) -> None:
        leader = self._leading()
        if leader is None or message.epoch != leader.epoch:
            return
        seat, log, record = message.me.seat, self.log, leader.record
        peer = self.peers.get(seat)
        if peer is not None and peer.knows(message.me.start, message.number):
            return
        agreed = min(log.end, tables.common_end(log.epochs, log.end, message.table, message.end))
        chain = log.chain(agreed)
        if chain is None:
            return  # Cut between the two: it will ask again.
        where = (log.epochs, log.end, agreed, chain)
        of = (record.size, record.elections)
        join = Join(leader.epoch, self.me, record.version, seat in record.isr, *where, *of)
        start, hello = message.me.start, message.number
        self.peers[seat] = Peer(start, agreed, heard_at=now, moved_at=now, hello=hello)
        effects.sends.append(Sending(seat.replica, Joining(hello, join)))

    def _held(self, message: Held, now: float, effects: Effects) -> None:
        leader = self._leading()
        peer = self.peers.get(message.me.seat)
        if leader is None or (message.epoch, message.leader) != (leader.epoch, self.me):
            return
        if peer is None or peer.start != message.me.start:
            return  # Of a life before, or after; that one has not said hello yet.
        peer.heard_at = now
        if peer.behind:
            effects.sends += self.too_far(message.me.seat).sends  # It has not heard it.
            return
        peer.joined = True
        if message.position > peer.held_end:
            peer.held_end, peer.moved_at = message.position, now
        peer.sent_end = max(peer.sent_end, peer.held_end)
        answered = leaders.answered(
            leader,
            message.me.seat,
            start=message.me.start,
            position=message.position,
            version=message.version,
        )
        told = answered.committed_end > leader.committed_end
        self._led(answered, now, effects)
        self._feed(now, effects, all_of_them=told and self._is_at_rest)

    def _feed(self, now: float, effects: Effects, *, all_of_them: bool = False) -> None:
        """Send frames to whoever lacks some; with `all_of_them`, a sign of life to the others."""
        leader, end = self._leading(), self.log.end
        if leader is not None:
            reached, sends = fed(leader, self.peers, end, self._limits, now, lives=all_of_them)
            effects.sends += sends
            beacon = Beacon(leader.epoch, self.me)
            others = [one for one in self._others if all_of_them and one not in reached]
            effects.sends += [Sending(one, beacon) for one in others]

    def _change(self, leader: Leader, now: float, effects: Effects) -> None:
        """Settle the swap that is under way, or see whether the ISR should be another one."""
        attempts: list[Callable[[Leader], Leader]] = []
        if leader.unresolved:
            if now - self._swap_at < self._limits.swap_s:
                return
            self._swap_at = now
            if not self._swap_asked:
                self._swap_asked = effects.read = True
                return
            attempts.append(leaders.forcing)  # Once: it is sent again as it is.
        else:
            attempts += copies.changes(
                leader, self.peers, self.entered_at, self.log.end, self._limits, now, self.wish
            )
            handover = self.handover
            if handover is not None and handover.phase is Phase.WAITING:
                # Settled and agreed first.
                attempts.insert(2, partial(handovers.handing, to=handover.to, log_end=self.log.end))
        for attempt in attempts:
            try:
                changed = attempt(leader)
            except NotAllowed:
                continue
            self._swap_at, self._swap_asked = now, False
            new = changed.unresolved[-1]
            effects.swap = Swap(leader.record, new)
            self.handover = handovers.sent(self.handover, leader, new)
            self._led(leader if new in leader.unresolved else changed, now, effects)
            return
