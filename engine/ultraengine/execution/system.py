"""What the engine itself decides, as commands with offsets of their own.

``system.*`` commands are made here and nowhere else; the edge refuses the domain name.
They make time and operator overrides part of the log, so that replays repeat them.
"""

from typing import Any, Final

import msgspec

from ultraengine.model.command import SYSTEM_TENANT, Command
from ultraengine.model.ids import Offset

EPOCH_START: Final = "system.epoch_start@1"
TICK: Final = "system.tick@1"
SKIP: Final = "system.skip@1"
RAISE_FLOOR: Final = "system.raise_floor@1"
MOVE_CONSUMER: Final = "system.move_consumer@1"
DROP_CONSUMER: Final = "system.drop_consumer@1"
STEP_SLOT: Final = "system.step_slot@1"
FILL_SLOT: Final = "system.fill_slot@1"


class EpochStart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """First command of a leadership: who decides from here on, with which handlers."""

    epoch: int
    handlers: dict[str, int]
    engine: str
    """Version of the engine's package."""


class Tick(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The earliest timer of one domain is due at the frame's time."""

    domain: str
    count_max: int
    """At most this many expiries; the rest enters the next tick."""


class Skip(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A person's override: the command at ``offset`` is not evolved, whatever its outcome says."""

    offset: int
    reason: str


class RaiseFloor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Ids of commands below ``offset`` are forgotten: the log no longer has their outcomes."""

    offset: int


class MoveConsumer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A consumer of the feed has made everything below ``offset`` durable itself; a slot that is
    not there is made, and none moves back."""

    name: str
    offset: int


class DropConsumer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A consumer slot is given up: by its owner, or because it held back too much of the log."""

    name: str
    reason: str


class StepSlot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A message of the protocol by which a slot moves between shards (`moving.record`)."""

    slot: int
    is_first_owner: bool
    """Whether this shard owned the slot before any move: what holds while nothing is logged."""
    message: msgspec.Raw
    after: tuple[int, int] | None = None
    """Of an activation, (the shard that had the slot, the offset of its seal): whoever follows both
    logs reads that one below the offset before this one further, or sees the slot's past after its
    present."""


class FillSlot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A batch of a slot's copy, of the range ``start <= offset < end`` of its source."""

    slot: int
    era: int
    number: int
    start: int
    end: int
    time: int
    """The source's logged time: what this shard logs from here on is not below it."""
    parts: bytes
    """`execution.carried.encode_parts`."""


SlotData = StepSlot | FillSlot
Lasting = EpochStart | Skip | RaiseFloor | MoveConsumer | DropConsumer | SlotData
"""What changes the engine's own state, by its words alone."""
SystemData = Lasting | Tick

_ENCODER: Final = msgspec.msgpack.Encoder()
_TYPES: Final[dict[str, type[msgspec.Struct]]] = {
    EPOCH_START: EpochStart,
    TICK: Tick,
    SKIP: Skip,
    RAISE_FLOOR: RaiseFloor,
    MOVE_CONSUMER: MoveConsumer,
    DROP_CONSUMER: DropConsumer,
    STEP_SLOT: StepSlot,
    FILL_SLOT: FillSlot,
}
_NAMES: Final = {kind: name for name, kind in _TYPES.items()}


def system_command(data: SystemData, *, offset: Offset) -> Command:
    """The command that logs `data`; its id is its place, so it never repeats."""
    return Command(
        f"system-{offset}",
        _NAMES[type(data)],
        "system",
        msgspec.Raw(_ENCODER.encode(data)),
        SYSTEM_TENANT,
        SYSTEM_TENANT,
    )


def system_data(command: Command) -> Any:
    """The typed data of a system command.

    Raises KeyError for a type that this build does not know, `msgspec.ValidationError` for
    data of another shape.
    """
    return msgspec.msgpack.decode(command.data, type=_TYPES[command.type])


def is_system(command: Command) -> bool:
    """Whether the engine itself made this command."""
    return command.tenant == SYSTEM_TENANT and command.type.startswith("system.")
