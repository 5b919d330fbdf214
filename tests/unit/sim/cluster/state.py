"""What the simulated shard decides: totals by key, each id once, and a hash of all of it.

A stand-in for the executor, which has simulations of its own: as small as it can be, with all that
replication could spoil.
"""

from hashlib import blake2b

import msgspec

from ultraengine.log.frame import Frame, FrameDraft, FrameKind
from ultraengine.model.ids import Instant, Offset

EPOCH_START = ""
"""The id of the command with which an epoch begins."""


class Add(msgspec.Struct, frozen=True, array_like=True):
    """One command."""

    id: str
    key: str
    delta: int


class Done(msgspec.Struct, frozen=True, array_like=True):
    """What was decided."""

    epoch: int
    offset: int
    total: int


ADDS = msgspec.msgpack.Decoder(list[Add])
DONES = msgspec.msgpack.Decoder(list[Done])


class Diverged(Exception):
    """Two replicas have decided differently."""


class State:
    """All that was executed of one log."""

    def __init__(self) -> None:
        self.position = 0
        """First frame that is not executed."""
        self.offset = 0
        self.totals: dict[str, int] = {}
        self.done: dict[str, Done] = {}
        self.hash = bytes(16)
        self.outcomes: dict[int, FrameDraft] = {}
        """By base offset: those of groups whose outcomes are not in the log yet."""

    def execute(self, frame: Frame) -> list[tuple[Add, Done]]:
        """The next frame: commands are decided, and recorded outcomes compared with one's own."""
        self.position = frame.header.sequence + 1
        if frame.header.kind == FrameKind.OUTCOMES:
            own = self.outcomes.pop(frame.header.base_offset)
            if own.payload != frame.payload:
                raise Diverged(f"the outcomes of frame {frame.header.sequence} differ")
            return []
        adds = ADDS.decode(frame.payload)
        done = [self._decide(add, frame.header.epoch) for add in adds]
        payload = msgspec.msgpack.encode(done)
        self.outcomes[frame.header.base_offset] = FrameDraft(
            FrameKind.OUTCOMES, frame.header.base_offset, len(done), frame.header.time, payload
        )
        return list(zip(adds, done, strict=True))

    def _decide(self, add: Add, epoch: int) -> Done:
        total = self.totals.get(add.key, 0) + add.delta
        done = Done(epoch, self.offset, total)
        self.totals[add.key] = total
        if add.id != EPOCH_START:
            self.done.setdefault(add.id, done)
        content = msgspec.msgpack.encode((add, done))
        self.hash = blake2b(self.hash + content, digest_size=16).digest()
        self.offset += 1
        return done

    def encoded(self) -> bytes:
        """A snapshot: all of it."""
        outcomes = [
            (one.base_offset, one.count, one.time, one.payload) for one in self.outcomes.values()
        ]
        return msgspec.msgpack.encode(
            (self.position, self.offset, self.totals, self.done, self.hash, outcomes)
        )

    @classmethod
    def decoded(cls, raw: bytes) -> "State":
        """Inverse of `encoded`."""
        made = cls()
        kept = msgspec.msgpack.decode(raw, type=_Kept)
        made.position, made.offset, made.totals, made.done, made.hash, outcomes = kept
        for base, count, time, payload in outcomes:
            draft = FrameDraft(FrameKind.OUTCOMES, Offset(base), count, Instant(time), payload)
            made.outcomes[base] = draft
        return made


_Kept = tuple[int, int, dict[str, int], dict[str, Done], bytes, list[tuple[int, int, int, bytes]]]
