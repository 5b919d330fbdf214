"""Another number of copies in a run: who wishes it, whose process runs, which disk it finds.

The wish reaches each process at its own time, as by restarts in turn.  A process of a place that
the shard has no more is ended some time after the record says so, and its disk is kept; when the
place is wanted again its process finds that disk, or an empty one.
"""

import random
from typing import Final

from ultraengine.replication.record import Record
from ultraengine.replication.sizing import Wish

LATE_S: Final = 1.5
"""Until the last process knows of a wish; and how long one may outlive its place."""

WIPED_S: Final = 2.0
"""No wish follows the loss of a disk sooner: one that is in sync, as far as its leader knows, could
be counted as one of two, and what is lost of two blocks the shard."""


class Sizes:
    """The wish of a run."""

    def __init__(self, rng: random.Random, replicas: int, *, changes: bool) -> None:
        self.most = replicas
        self.first = rng.randint(1, replicas) if changes else replicas
        self.wished = self.first
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
