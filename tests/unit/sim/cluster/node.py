"""A replica's process: the machine that production runs, the real log, and a driver in between.

The driver does what `Effects` say, in their order, and may end between any two of them.
"""

from collections.abc import Callable
from typing import Protocol

import msgspec
from tests.unit.sim.cluster.state import ADDS, EPOCH_START, Add, Done, State

from ultraengine.log.damage import BelowRetention
from ultraengine.log.driver import Log, LogOptions, Written
from ultraengine.log.frame import Frame, FrameDraft, FrameKind
from ultraengine.log.mending import truncate
from ultraengine.log.segment import KeyRing
from ultraengine.log.space import write_file
from ultraengine.log.survey import read_all
from ultraengine.model.ids import ConfigVersion, Epoch, Instant, ShardId
from ultraengine.model.limits import Limits
from ultraengine.replication.effects import Effects, ReplicaLimits
from ultraengine.replication.installing import place
from ultraengine.replication.installing.offer import OFFER, Fetch, Offered
from ultraengine.replication.installing.place import put_in_place
from ultraengine.replication.log_view import OpenLog
from ultraengine.replication.messages import Append, Confirm, Confirmed
from ultraengine.replication.promise import adopted
from ultraengine.replication.reading.asking import Asking
from ultraengine.replication.record import DiskId, Holder, ReplicaId, Seat
from ultraengine.replication.replica import Replica
from ultraengine.replication.sizing import goes
from ultraengine.replication.stored import (
    STORED_PATH,
    STORED_TEMPORARY,
    Stored,
    decode_stored,
    encode_stored,
)
from ultraengine.testing.sim_clock import SimClock, SimRandom, SimSecrets
from ultraengine.testing.sim_disk import SimDisk

LIMITS = Limits(
    segment_bytes=12 * 1024, frame_bytes_max=4 * 1024, reserve_bytes=0, segments_prepared=0
)
SMALL = msgspec.structs.replace(LIMITS, segment_bytes=8 * 1024)
"""Where logs are cut: a few frames in each."""
CLUSTER = b"simulated-engine"
KEPT = "snapshots/state"
"""The snapshot; a new one replaces it."""
HANDOVER_S = 0.3
"""After which a leader goes on whose successor does not get there."""
REPLICA_LIMITS = ReplicaLimits(silence_s=0.4, resend_s=0.1, repeat_s=0.0, swap_s=0.3, read_s=0.2)


class Crashed(Exception):
    """The process ends here."""


class DivergedReplica(Exception):
    """The replica has stopped and called a person."""


class Request(msgspec.Struct, frozen=True):
    """A client's command."""

    client: int
    add: Add


class Reply(msgspec.Struct, frozen=True):
    """Its answer; None: this replica does not serve."""

    id: str
    done: Done | None


class Filling(msgspec.Struct, frozen=True):
    """What a copy that lacks the old log is sent, in answer to its `Fetch`."""

    offered: Offered
    snapshot: bytes


class Outside(Protocol):
    """What a process sees of the world."""

    @property
    def repeat_s(self) -> float: ...
    def send(self, source: int, to: int | None, message: object) -> None: ...
    def reply(self, source: int, client: int, reply: Reply) -> None: ...
    def ask_api(self, source: int, effects: Effects) -> None: ...
    def soon(self, node: "Node", seconds: float, action: Callable[[], None]) -> None: ...
    def crash_point(self, node: "Node") -> None: ...
    def began(self, node: "Node", epoch: int, position: int) -> None: ...
    def executed(self, node: "Node", frame: Frame) -> None: ...
    def acknowledged(self, node: "Node", frame: Frame, add: Add, done: Done) -> None: ...
    def flush_s(self, node: "Node") -> float: ...
    def is_due(self, node: "Node", frames: int) -> bool: ...
    def is_greedy(self, node: "Node") -> bool: ...
    def filled(self, node: "Node", base: int) -> None: ...
    def adopts(self, node: "Node") -> bool: ...


def read_stored(disk: SimDisk) -> Stored:
    """What the disk has; nothing on a new one."""
    try:
        return decode_stored(read_all(disk, STORED_PATH))
    except FileNotFoundError:
        return Stored()


def next_life(stored: Stored) -> Stored:
    """With the start counter of the life that begins (clause 7)."""
    return msgspec.structs.replace(stored, start=stored.start + 1)


class Node:
    """One life of one replica's process."""

    def __init__(
        self,
        number: int,
        replicas: int,
        disk: SimDisk,
        clock: SimClock,
        outside: Outside,
        seed: int,
    ) -> None:
        self.number = number
        self.disk = disk
        self.clock = clock
        self.outside = outside
        self.seed = seed
        self.alive = True
        put_in_place(disk)
        known = disk.exists(STORED_PATH)
        stored = next_life(read_stored(disk))
        self.start = stored.start
        # To open a log of which nobody knows whether it is empty; nothing is stamped with it.
        self.view = OpenLog(self._open(stored.promise.epoch if known else 2**32))
        if self.view.end and not known and outside.adopts(self):
            last_epoch = self.view.log.recovered.last_epoch
            stored = msgspec.structs.replace(stored, promise=adopted(last_epoch))
        self._store(stored)
        self._recorded_end = int(self.view.log.recovered.recorded_end)
        self._offset = int(self.view.log.recovered.end_offset)
        self._time = int(self.view.log.recovered.last_time)
        seat = Seat(ReplicaId(number), DiskId(self.view.log.identity.disk_uuid))
        self.machine = Replica(
            Holder(seat, self.start),
            stored.promise,
            self.view,
            [ReplicaId(n) for n in range(replicas) if n != number],
            msgspec.structs.replace(REPLICA_LIMITS, repeat_s=outside.repeat_s),
            clock.monotonic(),
        )
        self.state = State.decoded(read_all(disk, KEPT)) if disk.exists(KEPT) else State()
        self.machine.barred = self.state.position > self.view.end
        self.kept_at = self.state.position
        self.filling: dict[ReplicaId, tuple[int, float]] = {}
        self._fetches: dict[int, int] = {}
        """By number: how often this life had joined somebody when it asked."""
        self._fetched_at = -1.0
        self.asking = Asking(self.machine)
        self.reads: list[tuple[int, Callable[[State], None]]] = []
        """By the round that each waits for."""
        self.waiting: list[Request] = []
        self.in_flight: dict[str, set[int]] = {}
        self._flushing = False
        self._forming = False

    @property
    def seat(self) -> Seat:
        return self.machine.me.seat

    def _open(self, epoch: int) -> Log:
        options = LogOptions(
            shard=ShardId(0),
            epoch=Epoch(epoch),
            handlers=b"simulate",
            limits=SMALL if self.outside.is_due(self, 2**30) else LIMITS,
            cluster_uid=CLUSTER,
        )
        self.seed += 1
        log = Log.open(self.disk, self.clock, SimRandom(self.seed), SimSecrets({}), options)
        log.start(self._failed, threads=False)
        return log

    def _failed(self, error: BaseException) -> None:
        raise error

    def _store(self, stored: Stored) -> None:
        write_file(self.disk, STORED_PATH, STORED_TEMPORARY, encode_stored(stored))

    # --- what happens --------------------------------------------------------------------

    def receive(self, source: int, message: object) -> None:
        """From a replica, or from who plans."""
        if isinstance(message, Request):
            self._request(message)
        elif isinstance(message, Fetch):
            self._fill(message)
        elif isinstance(message, tuple):
            me, filling = message
            if me == self.machine.me:
                self._filled(filling)
        elif isinstance(message, Confirm | Confirmed):
            self.do(self.asking.receive(message))
        else:
            self.do(self.machine.receive(message, self.clock.monotonic()), source)  # type: ignore[arg-type]

    def tick(self) -> None:
        self._step_aside()
        self.do(self.machine.tick(self.clock.monotonic()))
        self.do(self.asking.tick())

    def _step_aside(self) -> None:
        """A leader in a place that is not to be any more hands over, as often as it takes."""
        wish, leader = self.machine.wish, self.machine.leader
        if wish is None or leader is None or not goes(wish, self.number):
            return
        others = [seat for seat in leader.record.isr if not goes(wish, int(seat.replica))]
        if others and self.machine.serves:
            self.hand_over(others[0])

    def read(self, show: Callable[[State], None]) -> None:
        """Show the state, once it is proved that this replica leads; never, if it does not."""
        if self.machine.may_append:
            number, effects = self.asking.want()
            self.reads.append((number, show))
            self.do(effects)

    def _show(self) -> None:
        proved = self.asking.proved
        due = [show for number, show in self.reads if proved is not None and number <= proved]
        self.reads = [one for one in self.reads if proved is not None and one[0] > proved]
        for show in due:
            show(self.state)

    def hand_over(self, to: Seat) -> None:
        now = self.clock.monotonic()
        self.do(self.machine.hand_over(to, now + HANDOVER_S, now))

    def do(self, effects: Effects, source: int | None = None) -> None:
        """Execute effects in their order, and then what is committed."""
        crash_point = self.outside.crash_point
        if effects.diverged:
            raise DivergedReplica(f"replica {self.number} says DIVERGED")
        if effects.promise is not None:
            crash_point(self)
            self._store(Stored(self.start, effects.promise))
            crash_point(self)
        if effects.cut_to is not None:
            self._cut(effects.cut_to)
            crash_point(self)
        if effects.copy:
            self._copy(effects.copy)
            crash_point(self)
        if effects.begin:
            self._begin()
            crash_point(self)
        if effects.swap is not None or effects.read:
            self.outside.ask_api(self.number, effects)
        for sending in effects.sends:
            message = sending.message
            if isinstance(message, Append) and sending.frames_end > message.position:
                reader = self.view.log.reader()
                try:
                    frames = tuple(
                        reader.frames(message.position, sending.frames_end, unsynced=True)
                    )
                except BelowRetention:
                    self.do(self.machine.too_far(message.seat))
                    continue
                message = msgspec.structs.replace(message, frames=frames)
            self.outside.send(self.number, source if sending.to is None else sending.to, message)
            crash_point(self)
        if effects.lacks is not None:
            self._fetch(effects.lacks)
        self._execute()
        if effects.begin:
            self.do(self.machine.written(self.clock.monotonic()))

    def _cut(self, position: int) -> None:
        old = self.view.log
        old.close(clean=False)
        self.outside.crash_point(self)
        truncate(self.disk, position - 1, clock=self.clock, secrets=SimSecrets({}))
        self.outside.crash_point(self)
        log = self._open(self.machine.promise.epoch)
        self.view.reopened(log)
        self._recorded_end = int(log.recovered.recorded_end)
        self._offset = int(log.recovered.end_offset)
        self._time = int(log.recovered.last_time)

    def _copy(self, frames: tuple[Frame, ...]) -> None:
        done: list[Written] = []
        self.view.log.copy(frames, done.append, sync=False)
        self.view.copied(frames, done[-1])
        for frame in frames:
            header = frame.header
            self._time = max(self._time, int(header.time))
            if header.kind == FrameKind.OUTCOMES:
                self._recorded_end = int(header.offset_end)
            else:
                self._offset = int(header.offset_end)
        self._flush_later()

    def _begin(self) -> None:
        leader = self.machine.leader
        assert leader is not None
        self.outside.began(self, int(leader.epoch), self.view.end)
        self._write([Add(EPOCH_START, "epochs", 1)])

    def _write(self, adds: list[Add]) -> None:
        """Outcomes that are not in the log yet, and a group, in one write."""
        leader = self.machine.leader
        assert leader is not None
        self._time = max(self._time + 1, int(self.clock.now()))
        drafts = []
        while self._recorded_end in self.state.outcomes:
            draft = self.state.outcomes[self._recorded_end]
            drafts.append(msgspec.structs.replace(draft, time=self._time))
            self._recorded_end += draft.count
        payload = msgspec.msgpack.encode(adds)
        time = Instant(self._time)
        drafts.append(FrameDraft(FrameKind.COMMANDS, self._offset, len(adds), time, payload))
        self._offset += len(adds)
        done: list[Written] = []
        self.view.log.stamp(leader.epoch, ConfigVersion(leader.record.version))
        self.view.log.write(drafts, done.append, sync=False)
        self.view.grown(int(leader.epoch), done[-1])
        self._flush_later()

    def _flush_later(self) -> None:
        if not self._flushing:
            self._flushing = True
            self.outside.soon(self, self.outside.flush_s(self), self._flush)

    def _flush(self) -> None:
        self._flushing = False
        self.view.log.sync(lambda _written: None)
        self.outside.crash_point(self)
        self.do(self.machine.flushed(self.clock.monotonic()))

    # --- serving -------------------------------------------------------------------------

    def _request(self, request: Request) -> None:
        add = request.add
        done = self.state.done.get(add.id)
        if not self.machine.serves:
            self.outside.reply(self.number, request.client, Reply(add.id, None))
        elif done is not None:
            self.outside.reply(self.number, request.client, Reply(add.id, done))
        elif add.id in self.in_flight:
            self.in_flight[add.id].add(request.client)
        else:
            self.in_flight[add.id] = {request.client}
            self.waiting.append(request)
            if not self._forming:
                self._forming = True
                self.outside.soon(self, 0.001, self._form)

    def _form(self) -> None:
        self._forming = False
        waiting, self.waiting = self.waiting, []
        if not self.machine.serves:
            for request in waiting:
                self.in_flight.pop(request.add.id, None)
        elif waiting:
            self._write([request.add for request in waiting])
            self.do(self.machine.written(self.clock.monotonic()))

    def _execute(self) -> None:
        """What is committed, and may be shown."""
        end = min(self.machine.committed_end, self.view.durable_end)
        if self.state.position < end:
            for frame in self.view.log.reader().frames(self.state.position, end):
                answers = self.state.execute(frame)
                self.outside.executed(self, frame)
                for add, done in answers:
                    self._answer(frame, add, done)
            self._keep()
        self.machine.barred = self.state.position > self.view.end
        self._show()
        if not self.machine.leads:
            self.in_flight.clear()
            self.waiting.clear()

    # --- snapshots -----------------------------------------------------------------------

    def _keep(self) -> None:
        """Keep a snapshot of what was executed, and cut the log behind it."""
        position = self.state.position
        if not self.outside.is_due(self, position - self.kept_at):
            return
        self.kept_at = position
        self.disk.make_directory("snapshots")
        self.disk.sync_directory("")
        write_file(self.disk, KEPT, KEPT + ".tmp", self.state.encoded())
        self.outside.crash_point(self)
        self._cut_behind(position, self.state.offset)

    def _cut_behind(self, position: int, offset: int) -> None:
        if self.machine.leads and not self.outside.is_greedy(self):
            needed = self.machine.needed(self.filling, self.clock.monotonic())
            position = min([position, *needed.values()])
        self.view.log.retain(offset, position, {})
        self.outside.crash_point(self)

    def _fetch(self, leader: Holder) -> None:
        now = self.clock.monotonic()
        if now - self._fetched_at < REPLICA_LIMITS.resend_s:
            return
        self._fetched_at = now
        number = len(self._fetches)
        self._fetches[number] = self.machine.joins
        fetch = Fetch(self.machine.me, number, OFFER, 0)
        self.outside.send(self.number, int(leader.seat.replica), fetch)

    def _fill(self, fetch: Fetch) -> None:
        if not self.disk.exists(KEPT):
            return
        to, base = fetch.me.seat.replica, self.view.log.reader().first
        self.filling[to] = int(base.sequence), self.clock.monotonic()
        raw = read_all(self.disk, KEPT)
        offered = Offered(fetch.number, base, State.decoded(raw).position, ())
        self.outside.send(self.number, int(to), (fetch.me, Filling(offered, raw)))

    def _filled(self, filling: Filling) -> None:
        """All of it is written beside, then named; then this life is over."""
        number, base = filling.offered.number, filling.offered.base
        place.clear(self.disk)
        identity, ring = self.view.log.identity, KeyRing(SimSecrets({}))
        made = Instant(int(self.clock.now()))
        path, content = place.base_part(
            SimRandom(self.seed), ring, identity, base, made, master_key="", chain_key=""
        )
        for each, raw in ((KEPT, filling.snapshot), (path, content)):
            place.write_part(self.disk, each, raw)
            self.outside.crash_point(self)
        if self.machine.freeze(self._fetches[number]):
            place.ready(self.disk, [KEPT, path])
            self.outside.filled(self, int(base.sequence))
            raise Crashed

    def _answer(self, frame: Frame, add: Add, done: Done) -> None:
        clients = self.in_flight.pop(add.id, ())
        if self.machine.leads and add.id != EPOCH_START:
            self.outside.acknowledged(self, frame, add, done)
            for client in sorted(clients):
                self.outside.reply(self.number, client, Reply(add.id, done))


def decode_adds(frame: Frame) -> list[Add]:
    """The commands of a frame."""
    return ADDS.decode(frame.payload) if frame.header.kind == FrameKind.COMMANDS else []
