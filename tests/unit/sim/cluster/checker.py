"""What must hold after every step: the promise of `docs/protocol.md`, and what clients rely on.

Every answer has an epoch and an offset, so that the order of all commands is known and one pass is
enough: no search for an order that would explain the history.
"""

import msgspec
from tests.unit.sim.cluster.node import Node, decode_adds
from tests.unit.sim.cluster.state import EPOCH_START, Add, Done, State

from ultraengine.log.frame import Frame

NOT_HEALED = "not healed"
"""How a run ends whose shard does not serve again after everything heals."""


class Violated(Exception):
    """An invariant does not hold."""


class Acknowledged(msgspec.Struct, frozen=True):
    """The newest frame that was acknowledged in an epoch."""

    epoch: int
    position: int
    chain: bytes


class Checker:
    """Everything that was shown to anybody, and whether it fits together."""

    def __init__(self) -> None:
        self.chains: list[bytes] = []
        """By position: the chain after the frame, as the first to execute it has seen it."""
        self.hashes: dict[int, bytes] = {}
        """By position: the hash of the state after the frame."""
        self.offsets: dict[str, int] = {}
        """By id: where it was executed."""
        self.begun: dict[int, tuple[object, int]] = {}
        """By epoch: who began it, where."""
        self.acknowledged: list[Acknowledged] = []
        self.answered: dict[str, Done] = {}
        self.answered_end = 0
        """First offset above everything that a client was told."""

    def told_before(self, done: dict[str, Done], chain: bytes) -> None:
        """Clients of a shard of one copy were told of these; the chain is the one after the last
        frame."""
        epoch = max(one.epoch for one in done.values())
        self.answered.update(done)
        self.answered_end = 1 + max(one.offset for one in done.values())
        self.acknowledged.append(Acknowledged(epoch, epoch - 1, chain))

    def began(self, node: Node, epoch: int, position: int) -> None:
        """A leader writes its epoch-start frame."""
        me = node.machine.me
        if self.begun.setdefault(epoch, (me, position)) != (me, position):
            raise Violated(f"two leaders of one epoch: {epoch}")
        for one in self.acknowledged:
            if one.epoch < epoch and (
                position <= one.position or not self._holds(node, one.position, one.chain)
            ):
                raise Violated(f"epoch {epoch} began without what was acknowledged")

    def executed(self, node: Node, frame: Frame) -> None:
        """A replica has executed a frame; its state is after it."""
        position = int(frame.header.sequence)
        if position == len(self.chains):
            self._first(frame)
            self.hashes[position] = node.state.hash
        if position > len(self.chains) or self.chains[position] != frame.chain:
            raise Violated(f"replica {node.number} has executed another frame {position}")
        if self.hashes[position] != node.state.hash:
            raise Violated(f"replica {node.number} has another state after frame {position}")

    def restored(self, node: Node) -> None:
        """A process begins with the state of a snapshot: everybody's at that position."""
        position = node.state.position
        if position > len(self.chains) or self.hashes[position - 1] != node.state.hash:
            raise Violated(f"replica {node.number} begins with another state at {position}")

    def _holds(self, node: Node, position: int, chain: bytes) -> bool:
        """Whether a replica's log has this frame, or begins behind it: then the chain where it
        begins, which depends on all that was cut, is the one of what was executed."""
        own = node.view.chain(position + 1)
        if own is not None:
            return own == chain
        first = node.view.log.reader().first
        end = int(first.sequence)
        return position < end <= len(self.chains) and self.chains[end - 1] == first.chain

    def _first(self, frame: Frame) -> None:
        self.chains.append(frame.chain)
        for offset, add in enumerate(decode_adds(frame), int(frame.header.base_offset)):
            if add.id == EPOCH_START:
                continue
            if self.offsets.setdefault(add.id, offset) != offset:
                raise Violated(f"{add.id} was executed twice")

    def acknowledge(self, node: Node, frame: Frame, members: list[Node]) -> None:
        """A leader tells of a frame; `members` are the others of its ISR, as far as they run."""
        leader = node.machine.leader
        assert leader is not None
        position, chain, epoch = int(frame.header.sequence), frame.chain, int(leader.epoch)
        for later, (_, start) in self.begun.items():
            if later > epoch and position >= start:
                raise Violated(f"acknowledged in epoch {epoch} what epoch {later} does not have")
        for member in members:
            if member.view.durable_end <= position or not self._holds(member, position, chain):
                raise Violated(f"replica {member.number} is in sync without what is acknowledged")
        if self.acknowledged and self.acknowledged[-1].epoch == epoch:
            self.acknowledged.pop()
        self.acknowledged.append(Acknowledged(epoch, position, chain))

    def answer(self, add: Add, done: Done, asked_end: int) -> None:
        """A client hears of its command.  `asked_end` is `answered_end` when it first asked."""
        if self.answered.setdefault(add.id, done) != done:
            raise Violated(f"{add.id} has two answers")
        if done.offset < asked_end:
            raise Violated(f"{add.id} stands before what was answered before it was sent")
        if self.offsets.get(add.id) != done.offset:
            raise Violated(f"{add.id} was answered without being executed")
        self.answered_end = max(self.answered_end, done.offset + 1)

    def shown(self, node: Node, state: State, asked_end: int) -> None:
        """A read is answered.  `asked_end` is `answered_end` when it was asked."""
        if state.offset < asked_end:
            raise Violated(f"replica {node.number} shows a state from before what was answered")

    def all_is_there(self, node: Node) -> None:
        """At the end: a replica that has caught up has all that was answered, once."""
        for name, done in self.answered.items():
            if node.state.done.get(name) != done:
                raise Violated(f"replica {node.number} has lost {name}")
