"""Another number of copies in a run: who wishes it, whose process runs, which disk it finds.

The wish reaches each process at its own time, as by restarts in turn.  A process of a place that
the shard has no more is ended some time after the record says so, and its disk is kept; when the
place is wanted again its process finds that disk, or an empty one.
"""

import random
from typing import Final

import msgspec
from tests.unit.sim.cluster.node import CLUSTER, LIMITS
from tests.unit.sim.cluster.state import EPOCH_START, Add, Done, State

from ultraengine.log.driver import Log, LogOptions
from ultraengine.log.frame import FrameDraft, FrameKind
from ultraengine.model.ids import Epoch, Instant, Offset, ShardId
from ultraengine.replication.record import Record
from ultraengine.replication.sizing import Wish
from ultraengine.testing.sim_clock import SimClock, SimRandom, SimSecrets
from ultraengine.testing.sim_disk import SimDisk

LATE_S: Final = 1.5
"""Until the last process knows of a wish; and how long one may outlive its place."""

WIPED_S: Final = 2.0
"""No wish follows the loss of a disk sooner: one that is in sync, as far as its leader knows, could
be counted as one of two, and what is lost of two blocks the shard."""


def write_alone(disk: SimDisk, starts: int) -> tuple[dict[str, Done], bytes]:
    """The log of a shard of one copy that nobody has thought of copying: as many epochs as it had
    starts.  What its clients were told, by id, and the chain of all of it."""
    state, offset = State(), 0
    for epoch in range(1, starts + 1):
        options = LogOptions(
            shard=ShardId(0),
            epoch=Epoch(epoch),
            handlers=b"simulate",
            limits=LIMITS,
            cluster_uid=CLUSTER,
        )
        log = Log.open(disk, SimClock(), SimRandom(epoch), SimSecrets({}), options)
        log.start(_raises, threads=False)
        adds = [Add(EPOCH_START, "epochs", 1), Add(f"alone-{epoch}", "a", epoch)]
        time = Instant(int(log.recovered.last_time) + 1)
        payload = msgspec.msgpack.encode(adds)
        draft = FrameDraft(FrameKind.COMMANDS, Offset(offset), len(adds), time, payload)
        log.write([draft], lambda _written: None, sync=True)
        offset += len(adds)
        log.close(clean=True)
        for frame in log.reader().frames(state.position, epoch):
            state.execute(frame)
            chain = frame.chain
    return state.done, chain


def _raises(error: BaseException) -> None:
    raise error


class Sizes:
    """The wish of a run."""

    def __init__(self, rng: random.Random, replicas: int, *, changes: bool) -> None:
        self.most = replicas
        self.first = rng.randint(1, replicas) if changes else replicas
        self.wished = self.first
        self.alone = rng.randint(1, 3) if changes and self.first == 1 and rng.random() < 0.7 else 0
        """How often the first copy was started before it had a record; 0: it is a new one."""
        self.known = [self.first] * replicas
        """By process."""
        self.changed = 0
        """Swaps that have landed with another number."""

    def wish(self, number: int, *, changes: bool) -> Wish | None:
        """What a process is told."""
        return Wish(self.known[number]) if changes else None

    def another(self, rng: random.Random) -> int:
        """Another wish."""
        self.wished = rng.choice([one for one in range(1, self.most + 1) if one != self.wished])
        return self.wished

    def is_wanted(self, number: int, record: Record) -> bool:
        """Whether there is to be a process, by the record."""
        in_sync = any(one.replica == number for one in record.isr)
        return in_sync or number < max(self.wished, record.replicas)
