"""One replica in real time: `replica.py` between sockets, a record and a log.

    messages, ticks, the record, writes and flushes -> inbox -> machine -> effects, in their order

One coroutine takes what happens, one after the other, and has done the effects of each before it
takes the next: promise and cut are durable when an answer leaves, a write is in the log (not yet
synced) when its frames are sent.  Flushes run meanwhile, here and in the followers.  A disk that
hangs stops all of it, and is then as silent as a dead one.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec
import structlog

from ultraengine.log.damage import BelowRetention
from ultraengine.log.driver import OnDurable, Written
from ultraengine.log.frame import Frame, FrameDraft, Keys
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import Epoch, Instant, Offset
from ultraengine.replication import wire
from ultraengine.replication.effects import Deposed, Diverged, Effects
from ultraengine.replication.follower import copies
from ultraengine.replication.handover.driver import HandingOver
from ultraengine.replication.installing.offer import (
    Fetch,
    Offered,
    Piece,
    Transfer,
    Withdrawn,
)
from ultraengine.replication.installing.receiving.driver import Receiving
from ultraengine.replication.installing.sending.driver import Sending
from ultraengine.replication.link import Certificates, Link, Listener
from ultraengine.replication.messages import (
    Append,
    Beacon,
    Confirm,
    Confirmed,
    Held,
    Message,
    Told,
)
from ultraengine.replication.planning.driver import Planning
from ultraengine.replication.reading.asking import Asking
from ultraengine.replication.reading.driver import Confirming
from ultraengine.replication.record import Record, ReplicaId
from ultraengine.replication.recording.driver import Records
from ultraengine.replication.replica import Replica
from ultraengine.replication.watching.driver import Watching
from ultraengine.replication.watching.report import ReplicaReport
from ultraengine.replication.wire import Greeting, WireDamaged
from ultraengine.replication.writing.driver import ReplicaFiles, ReplicaOptions, ReplicaWorld

TICK_S: Final = 0.05
BATCH_BYTES: Final = 1024 * 1024
"""Frames in one message, unless a single one is longer."""
INBOX_PER_LINK: Final = 16
"""Messages of one replica that wait here; then its connection is not read."""
CERTIFICATES_S: Final = 1.0
"""How often the certificates' files are looked at."""

log = structlog.get_logger("replication")

EpochStartDraft = Callable[[Epoch, Offset, Instant], FrameDraft]
"""The first frame of a leadership."""
Step = Callable[[float], Effects]


class _Appended(msgspec.Struct):
    """A write of this leader on its way to a commit."""

    written: Written
    on_committed: OnDurable


class ReplicaDriver:
    """One life of one replica.  Used on the event loop's thread."""

    def __init__(
        self,
        world: ReplicaWorld,
        options: ReplicaOptions,
        epoch_start: EpochStartDraft,
        *,
        on_end: Callable[[BaseException], None],
    ) -> None:
        """`on_end` is told once why the replica can not go on: the process must end."""
        self._world = world
        self._options = options
        self._epoch_start = epoch_start
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._inbox: asyncio.Queue[Callable[[], Awaitable[None]]] = asyncio.Queue()
        self.files = ReplicaFiles(
            world,
            options,
            on_failure=self._end,
            on_synced=lambda: self._post(lambda: self._step(self.machine.flushed)),
        )
        self._records = Records(world.records, len(options.addresses))
        self._links: dict[ReplicaId, Link] = {}
        self._rooms: dict[ReplicaId, asyncio.Semaphore] = {}
        self._certificates: Certificates | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._ended = False
        self._ticking = False
        self._refused: Epoch | None = None
        """The epoch whose frames found no room here, until some do."""
        self._appended: deque[_Appended] = deque()
        self._led: asyncio.Future[Epoch] = self._loop.create_future()
        self.needed: dict[ReplicaId, int] = {}
        """Of a leader: from where on copies need its log; made anew at every tick."""
        self.executed_end: Callable[[], int] = lambda: 0
        """First offset that is not executed here."""
        self.handing = HandingOver(self._soon, self._tell)
        self.committed_end = 0
        self.in_sync = 0
        """Copies that the record in force counts, when this replica leads."""
        self.on_committed: Callable[[int], None] = lambda _end: None
        """Told below which frame everything is committed and durable here, when that grows."""
        self.on_in_sync: Callable[[int], None] = lambda _count: None
        """Told how many copies a commit counts, when that has changed."""

    # --- life ----------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the log, count this life, and go among the others.

        Raises what `ReplicaFiles.open` raises, OSError, `ssl.SSLError`.
        """
        options, world = self._options, self._world
        await asyncio.to_thread(self.files.open)
        me = self.me = self.files.me
        everybody = [ReplicaId(number) for number in range(len(options.addresses))]
        others = [one for one in everybody if one != options.replica]
        now, wish = self._now(), options.wish
        promise, view = self.files.promise, self.files.view
        self.machine = Replica(me, promise, view, others, options.limits, now, wish)
        self.watching = Watching(self.machine, self.files, len(everybody), world.clock)
        self.confirming = Confirming(Asking(self.machine), self._soon)
        self._planning = Planning(
            options.cluster_uid,
            options.shard,
            me,
            everybody,
            options.wish.fewest(len(everybody)),
            options.planner,
            clock=world.clock,
            records=self._records,
            send=self._tell,
            on_record=self._read,
        )
        self._sending = Sending(
            world.stock,
            lambda: self.files.view.log.reader().first,
            world.clock,
            self._transfer,
            options.catch_up_bytes_per_s,
        )
        self._receiving = Receiving(world, options.log, self._transfer, self.machine)
        await self._connect(others)
        loops = [self._take(), self._tick(), self._planning.run(), self._records.run()]
        loops += [self._sending.run(), self._receiving.run(self.files.view.log.identity)]
        loops += [link.run() for link in self._links.values()]
        if self._certificates is not None:
            loops.append(self._renew(self._certificates))
        for loop in loops:
            task = self._loop.create_task(loop)
            task.add_done_callback(self._done)
            self._tasks.append(task)

    async def _connect(self, others: Sequence[ReplicaId]) -> None:
        options = self._options
        greeting = Greeting(options.cluster_uid, options.shard, self.me)
        if options.certificates is not None:
            self._certificates = Certificates(options.certificates)
        for one in others:
            self._rooms[one] = asyncio.Semaphore(INBOX_PER_LINK)
            self._links[one] = Link(
                options.addresses[one], greeting, self._checking(one), self._certificates
            )
        name = options.log.chain_key
        keys = Keys(None, b"" if name is None else self._world.secrets.get(name))
        told_host, port = options.addresses[options.replica]
        self._listener = Listener(
            (options.host or told_host, port),
            greeting,
            self._checking(None),
            self._certificates,
            keys,
            self._deliver,
        )
        await self._listener.start()

    async def stop(self, *, clean: bool) -> None:
        """Leave the others and close the log.  Idempotent."""
        self._ended = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._listener.close()
        await self.files.close(clean=clean)

    async def led(self) -> Epoch:
        """Wait until this replica leads and may append: the epoch."""
        return await asyncio.shield(self._led)

    def report(self) -> ReplicaReport:
        """What it says of itself and of the others."""
        return self.watching.report(self.executed_end())

    def _done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._end(error)

    def _end(self, error: BaseException) -> None:
        if not self._ended:
            self._ended = True
            log.error("replica.ends", why=str(error) or type(error).__name__)
            self._on_end(error)

    def _now(self) -> float:
        return self._world.clock.monotonic()

    # --- what happens --------------------------------------------------------------------

    def _post(self, action: Callable[[], Awaitable[None]]) -> None:
        self._inbox.put_nowait(action)

    def _soon(self, step: Step) -> None:
        self._post(lambda: self._step(step))

    async def _take(self) -> None:
        while True:
            await (await self._inbox.get())()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            if not self._ticking:
                self._ticking = True
                self._post(self._ticked)

    async def _ticked(self) -> None:
        self._ticking = False
        await self._step(self.machine.tick)
        if self.machine.leads:
            self.needed = self.machine.needed(self._sending.filling, self._now())
        await self._do(self.confirming.asking.tick())

    async def _step(self, step: Step, source: ReplicaId | None = None) -> None:
        await self._do(step(self._now()), source)

    async def _deliver(self, source: ReplicaId, message: Message | Transfer) -> None:
        """From another replica; waits while many of its messages wait."""
        if isinstance(message, Told):
            self._hear(message)
            return
        if isinstance(message, Fetch):
            self._sending.hear(source, message)
            return
        if isinstance(message, Offered | Piece | Withdrawn):
            self._receiving.hear(source, message)
            return
        if isinstance(message, Beacon):
            self.handing.heard(message)
        room = self._rooms[source]
        await room.acquire()

        async def receive() -> None:
            room.release()
            await self._step(lambda now: self._received(message, now), source)

        self._post(receive)

    def _received(self, message: Message, now: float) -> Effects:
        if isinstance(message, Confirm | Confirmed):
            return self.confirming.asking.receive(message)
        effects = self.machine.receive(message, now)
        follower = self.machine.follower
        if isinstance(message, Append) and copies(
            follower, message.seat, message.epoch, message.leader
        ):
            self.watching.fed_at = now
        return effects

    def _hear(self, message: Told) -> None:
        self.watching.told[message.seat.replica] = message
        self._planning.told(message)

    def _checking(self, expected: ReplicaId | None) -> Callable[[Greeting], None]:
        mine = (self._options.cluster_uid, self._options.shard)

        def check(greeting: Greeting) -> None:
            replica = greeting.me.seat.replica
            if (greeting.cluster_uid, greeting.shard) != mine:
                raise WireDamaged("it is a replica of another engine or shard")
            if replica not in self._links or expected not in {None, replica}:
                raise WireDamaged(f"it is replica {replica}")

        return check

    def _read(self, record: Record | None) -> None:
        self.watching.read(record)
        self._post(lambda: self._step(lambda now: self.machine.record_read(record, now)))

    async def _renew(self, certificates: Certificates) -> None:
        while True:
            await asyncio.sleep(CERTIFICATES_S)
            if await asyncio.to_thread(certificates.changed):
                log.info("certificates.renewed")
                await self._listener.renew()
                for link in self._links.values():
                    link.renew()

    # --- effects -------------------------------------------------------------------------

    async def _do(self, effects: Effects, source: ReplicaId | None = None) -> None:
        """Execute effects in their order, and then what is committed."""
        files = self.files
        if effects.diverged:
            raise Diverged("this log contradicts what is known to be committed")
        if self.handing.is_over(self.machine.handover):
            self.confirming.progress()
            return  # What stands on this log may not see it change: the process ends soon.
        self._check_led()
        if effects.promise is not None:
            await files.swear(effects.promise)
        if effects.cut_to is not None:
            await files.cut(effects.cut_to)
        if effects.copy:
            await self._copy(effects.copy)
        if effects.begin:
            await self._begin()
        self._ask_record(effects)
        for sending in effects.sends:
            to = source if sending.to is None else sending.to
            if to is not None:
                await self._send(to, sending.message, sending.frames_end)
        if effects.lacks is not None:
            self._receiving.lacks(effects.lacks)
        self._progress()
        if effects.begin:
            await self._step(self.machine.written)

    def _check_led(self) -> None:
        """Who has led and leads no more does nothing: a shard stands on this log, and may not see
        it cut or grown by another leader.  The next life swears and follows."""
        leader = self.machine.leader
        if self._led.done():
            epoch = self._led.result()
            if leader is None or leader.over or leader.epoch != epoch:
                raise Deposed(f"another replica may lead: epoch {epoch} is over here")

    async def _copy(self, frames: tuple[Frame, ...]) -> None:
        written, epoch = await self.files.copy(frames), self.machine.promise.epoch
        if written.error is None:
            self._refused = None
        elif self._refused != epoch:
            self._refused = epoch
            log.error("log.full", epoch=epoch, at=self.files.view.end, why=str(written.error))

    def _unfit(self, held: Held) -> bool:
        """Whether this copy is not to be waited for: its disk hangs or is full.

        It says nothing then, so that it is as silent as a lost one, and leaves the ISR.  A refusal
        counts in its epoch alone: the next leader may not have what was refused, and needs an
        answer before it writes.
        """
        hangs = self.files.flush_age_s >= self._options.limits.silence_s
        return hangs or held.epoch == self._refused

    async def _begin(self) -> None:
        """The epoch-start frame: alone in its write, and of nobody but this leader."""
        leader = self.machine.leader
        if leader is None:
            raise InvariantBroken("who begins an epoch leads it")
        point = self.files.view.log.point
        time = Instant(max(self._world.clock.now(), point.time))
        draft = self._epoch_start(leader.epoch, point.offset, time)
        self.watching.begins(self.executed_end())
        log.info("epoch.begins", epoch=leader.epoch, at=point.sequence)
        written = await self.files.append([draft], leader.epoch, leader.record.version)
        if written.error is not None:
            raise written.error

    def _ask_record(self, effects: Effects) -> None:
        swap = effects.swap
        if swap is not None:

            def swapped(current: Record | None) -> None:
                self._post(
                    lambda: self._step(lambda now: self.machine.swap_answered(swap, current, now))
                )

            self._records.swap(swap, swapped)
        if effects.read:
            self._records.read(self._read)

    def _tell(self, to: ReplicaId, message: Message) -> None:
        """For whoever plans: without frames, and to oneself too."""
        if to in self._links:
            self._links[to].send(wire.encode_message(message))
        elif to == self._options.replica:
            self._post(lambda: self._step(lambda now: self.machine.receive(message, now), to))

    def _transfer(self, to: ReplicaId, transfer: Transfer) -> None:
        link = self._links.get(to)
        if link is not None and link.connected:
            link.send(wire.encode_transfer(transfer))

    async def _send(self, to: ReplicaId, message: Message, frames_end: int) -> None:
        if isinstance(message, Told):
            message = msgspec.structs.replace(
                message,
                flush_age_s=self.files.flush_age_s,
                executed_end=self.executed_end(),
                url=self._options.url,
            )
            if to == self._options.replica:
                self._hear(message)
                return
        link = self._links.get(to)
        if link is None or not link.connected:
            return
        if isinstance(message, Held) and self._unfit(message):
            return
        if not isinstance(message, Append) or frames_end <= message.position:
            link.send(wire.encode_message(message))
            return
        position = message.position
        try:
            frames = await self.files.frames(position, frames_end)
        except BelowRetention as error:
            log.warning("follower.too_far_behind", replica=to, why=str(error))
            await self._do(self.machine.too_far(message.seat))
            return
        for run in wire.batches(frames, BATCH_BYTES):
            part = msgspec.structs.replace(message, position=position)
            link.send(wire.encode_message(part, run))
            position += len(run)
        self.machine.sent(message.seat, position)

    # --- leading -------------------------------------------------------------------------

    def append(self, drafts: Sequence[FrameDraft], on_committed: OnDurable) -> None:
        """Write frames of the epoch that is led; without drafts, wait for those before.

        `on_committed` is told of a commit, or at once of a lack of room.  Nothing is told when
        this replica does not lead any more: then it ends.
        """
        self._post(lambda: self._append(drafts, on_committed))

    async def _append(self, drafts: Sequence[FrameDraft], on_committed: OnDurable) -> None:
        leader = self.machine.leader
        if leader is None or not self.machine.may_append:
            return
        written = await self.files.append(drafts, leader.epoch, leader.record.version)
        if written.error is not None:
            on_committed(written)
            return
        self.watching.written(written)
        self._appended.append(_Appended(written, on_committed))
        await self._step(self.machine.written)

    def _progress(self) -> None:
        """Tell what is committed, to whom it concerns."""
        machine, leader = self.machine, self.machine.leader
        if leader is not None and len(leader.record.isr) != self.in_sync:
            self.in_sync = len(leader.record.isr)
            self.on_in_sync(self.in_sync)
        end = min(machine.committed_end, self.files.view.durable_end)
        if end > self.committed_end:
            self.committed_end = end
            self.on_committed(end)
        while self._appended and self._appended[0].written.end_sequence <= end:
            one = self._appended.popleft()
            one.on_committed(msgspec.structs.replace(one.written, durable_end=end))
        self.confirming.progress()
        if machine.serves and leader is not None and not self._led.done():
            log.info("replica.leads", epoch=leader.epoch, committed_end=end)
            self._led.set_result(leader.epoch)
