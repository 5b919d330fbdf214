"""Which confirmations of consumers are logged, and when: at most one a second for each slot.

    confirm   name, offset -> waiting
    due       waiting -> moves to log now, each slot at most once in `MOVE_EVERY_S`

A slot only moves on.  A move that passes nothing but moves is not logged: the consumer of an
idle log would otherwise confirm its own confirmations for ever.  Pure; the shard's driver logs.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from ultraengine.feed.source import Consumer
from ultraengine.model.errors import Malformed, Overloaded
from ultraengine.model.ids import Offset, is_name

MOVE_EVERY_S: Final = 1.0


class ConsumerMoves:
    """The consumer slots of one shard, with what is confirmed and not logged yet."""

    def __init__(
        self,
        logged: Callable[[], Mapping[str, int]],
        moves_only: Callable[[], tuple[int, int]],
        consumers_max: int,
    ) -> None:
        """`logged` gives the slots of the replicated state; `moves_only` the last run of offsets
        that holds nothing but moves."""
        self._logged = logged
        self._moves_only = moves_only
        self._consumers_max = consumers_max
        self._asked: dict[str, int] = {}
        """Confirmed, whether it is logged already or not; dropped slots are not in it."""
        self._gone: dict[str, None] = {}
        """Dropped, and the state may still hold them."""
        self._waiting: dict[str, None] = {}
        self._moved_at: dict[str, float] = {}

    @property
    def offsets(self) -> Mapping[str, int]:
        """Every slot with its newest confirmation, by name."""
        logged = {n: offset for n, offset in self._logged().items() if n not in self._gone}
        return dict(sorted({**logged, **self._asked}.items()))

    def consumers(self) -> Sequence[Consumer]:
        """Every slot as it is shown."""
        return [Consumer(name, Offset(offset)) for name, offset in self.offsets.items()]

    def confirm(self, name: str, offset: int) -> None:
        """Note a confirmation.  Raises `EngineError` MALFORMED or OVERLOADED."""
        if not is_name(name):
            raise Malformed(
                "a consumer's name is 1-128 characters of A-Z a-z 0-9 . _ : -", pointer="/name"
            )
        offsets = self.offsets
        known = offsets.get(name)
        if known is None and len(offsets) >= self._consumers_max:
            raise Overloaded(
                f"the shard has {len(offsets)} consumers (feed_consumers_max); forget one that is "
                "not needed any more",
                retry_after_s=60.0,
            )
        if known is not None and offset <= known:
            return
        self._asked[name] = offset
        first, end = self._moves_only()
        if known is None or not (first <= known and offset <= end):
            self._waiting[name] = None

    def due(self, now: float) -> list[Consumer]:
        """The slots to move now; they count as logged from here on."""
        names = [name for name in self._waiting if self._at(name) <= now]
        for name in names:
            del self._waiting[name]
            self._gone.pop(name, None)
            self._moved_at[name] = now
        return [Consumer(name, Offset(self._asked[name])) for name in names]

    def next_at(self) -> float | None:
        """When the next move is due; None while none waits."""
        return min((self._at(name) for name in self._waiting), default=None)

    def drop(self, name: str) -> bool:
        """Forget a slot at once; whether there was one to log a drop for."""
        was_there = name in self.offsets
        self._asked.pop(name, None)
        self._waiting.pop(name, None)
        self._moved_at.pop(name, None)
        logged = self._logged()
        self._gone = {gone: None for gone in (*self._gone, name) if gone in logged}
        return was_there

    def _at(self, name: str) -> float:
        return self._moved_at.get(name, float("-inf")) + MOVE_EVERY_S
