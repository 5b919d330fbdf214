"""What ``decide`` and ``evolve`` may know: one reused object each, filled per command.

Nothing here reads a clock or a random device: time and offset come from the frame, chance
is seeded by (shard, offset), so a replay sees the same (requirement 001 §1.3).
"""

from random import Random
from typing import Any, Final

import msgspec

from ultraengine.execution.carried import Lineage
from ultraengine.model.domain import Domain, History
from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import Epoch, Instant, Offset, ShardId

_ENCODER: Final = msgspec.msgpack.Encoder()


class Message(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A wished command for another key or shard, recorded in the outcome for who sends it."""

    tenant: str
    key: str
    type: str
    id: str
    data: Any


class CommandContext:
    """Implements `model.domain.Context`; the executor sets the fields before each command."""

    __slots__ = (
        "_draws",
        "_random",
        "epoch",
        "history",
        "key",
        "lineage",
        "messages",
        "offset",
        "principal",
        "sends",
        "shard",
        "tenant",
        "time",
        "used",
    )

    def __init__(self, shard: ShardId, history: History, domain: Domain | None = None) -> None:
        self.shard = shard
        self.sends: bool = getattr(domain, "sends", False)
        """Whether somebody looks for messages of this domain."""
        self.history = history
        self.lineage: Lineage | None = None
        """Of the slot that `history` is bound to; None: of any that never moved."""
        self.time = Instant(0)
        self.offset = Offset(0)
        self.epoch = Epoch(0)
        self.tenant = ""
        self.principal = ""
        self.key = ""
        self.messages: list[Message] = []
        self._random: Random | None = None
        self._draws = 0
        self.used = False
        """Whether there is anything to forget: most commands neither draw nor send."""

    def renew(self) -> None:
        """Forget what belongs to the command before."""
        self._random = None
        self._draws = 0
        self.messages = []
        self.used = False

    @property
    def random(self) -> Random:
        """Seeded by (shard, offset): the same numbers in every replay."""
        if self._random is None:
            self.used = True
            # A domain's source of chance must repeat; it is not a source of secrets.
            self._random = Random(f"{self.shard}:{self.offset}")  # noqa: S311
        return self._random

    def new_id(self) -> str:
        """``<shard>-<offset>-<n>`` in base 16: unique in the engine, the same in every replay."""
        self._draws += 1
        self.used = True
        return f"{self.shard:x}-{self.offset:x}-{self._draws:x}"

    def send(self, *, tenant: str, key: str, type: str, id: str, data: object) -> None:
        """Record a message to another shard; names as in the Domain Protocol."""
        if not self.sends:
            raise InvariantBroken("a domain that sends says so: `sends = True`", type=type)
        self.used = True
        message = Message(tenant, key, type, id, data)
        # What cannot be recorded fails here, where it is a rejection, and not behind ``evolve``.
        _ENCODER.encode(message)
        self.messages.append(message)

    def unsend(self, count: int) -> None:
        """Keep the first `count` messages: what sent the others was not done."""
        if self.used:
            del self.messages[count:]


class EventPlace:
    """Implements `model.domain.At`; the executor sets the fields before each event."""

    __slots__ = ("index", "key", "offset", "tenant", "time")

    def __init__(self) -> None:
        self.offset = Offset(0)
        self.index = 0
        self.time = Instant(0)
        self.tenant = ""
        self.key = ""
