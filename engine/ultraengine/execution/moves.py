"""What an executor asks of whoever keeps the slots that move (`shard.slot_moves`)."""

from typing import Any, Protocol

from ultraengine.execution.system import SlotData
from ultraengine.model.errors import InvariantBroken


class Moves(Protocol):
    """The slots that move, or have moved.  `executor` is an `execution.executor.Executor`."""

    def evolve(self, executor: Any, data: SlotData, offset: int, /) -> None:
        """A logged step or batch of a move."""

    def load(self, executor: Any, chunk: bytes, /) -> None:
        """Take what a snapshot holds of moves."""

    def dump(self, executor: Any, /) -> bytes | None:
        """The same for a snapshot; None while no slot has ever moved."""

    def take_dropped(self) -> bool:
        """Whether the content of a slot was dropped since the last time: an increment would not
        say so, so the next snapshot is full."""


class NoMoves:
    """Of an executor to which no slot has come and that has handed none over."""

    def evolve(self, _executor: Any, _data: SlotData, offset: int, /) -> None:
        """Raises `InvariantBroken`."""
        raise InvariantBroken("slots move where moves are kept", offset=offset)

    def load(self, _executor: Any, _chunk: bytes, /) -> None:
        """Raises `InvariantBroken`."""
        raise InvariantBroken("moves are loaded where they are kept")

    def dump(self, _executor: Any, /) -> bytes | None:
        """Nothing."""
        return None

    def take_dropped(self) -> bool:
        """Never."""
        return False
