"""The first record: made once, when every disk has said that it is empty and sworn to be in it.

    ask all -> all are empty -> `Found` to all -> all have sworn -> create
            -> the founder's log was never replicated -> create, of it alone

A log that was not replicated has been adopted by its disk (`promise.adopted`), which has acted on
no record yet and holds all there is; copies are taken in later (`sizing.py`).

A record that is missing while any disk holds something else has been lost, and is never made again
here (clause 11).
"""

from ultraengine.model.ids import Epoch, ShardId
from ultraengine.replication.messages import Ask, Found, Told
from ultraengine.replication.promotion import Answer
from ultraengine.replication.record import Holder, Record, bootstrap


class Founding:
    """One attempt; a later one begins from nothing."""

    def __init__(
        self,
        cluster_uid: bytes,
        shard: ShardId,
        me: Holder,
        *,
        replicas: int,
        min_isr: int,
        number: int,
    ) -> None:
        """`number` and the one after it are this attempt's questions, and nobody else's."""
        self.ask = Ask(number)
        """To every replica, first."""
        self.lost = False
        """Whether a disk has something: then the record was lost."""
        self._make = (cluster_uid, shard, me, min_isr)
        self._replicas = replicas
        self._number = number
        self._empty: dict[int, Told] = {}
        self._sworn: set[int] = set()
        self._record: Record | None = None

    def told(self, message: Told) -> Found | Record | None:
        """A replica has answered: what to tell everybody, or the record to create."""
        replica, answer = int(message.seat.replica), message.answer
        if message.number == self._number:
            uid, shard, me, min_isr = self._make
            if message.seat == me.seat and not self.lost and _is_adopted(answer):
                epoch = Epoch(answer.promise.epoch + 1)
                return bootstrap(uid, shard, me, [me.seat], 1, epoch=epoch)
            if answer.end or answer.promise.epoch:
                self.lost = True
            self._empty[replica] = message
            if self.lost or len(self._empty) < self._replicas or self._record is not None:
                return None
            seats = [one.seat for one in self._empty.values()]
            self._record = bootstrap(uid, shard, me, seats, min_isr)
            return Found(self._number + 1, self._record)
        if message.number == self._number + 1 and self._record is not None:
            if answer.promise.seated and message.seat in self._record.isr:
                self._sworn.add(replica)
            if len(self._sworn) == self._replicas:
                return self._record
        return None


def _is_adopted(answer: Answer) -> bool:
    """Whether a disk holds a log that was never replicated: whoever has copied or led has acted on
    a record."""
    return answer.end > 0 and answer.promise.version == 0
