"""What a coordinator and the shards say to each other, as msgpack."""

from typing import Final

import msgspec

from ultraengine.model.ids import ShardId
from ultraengine.moving.plan import Seen
from ultraengine.moving.record import Attempt, SlotRecord

PATH: Final = "/admin/v1/slots"
MAP_PATH: Final = "/admin/v1/map"
"""The newest map that a shard was told of, as JSON: a hint for gateways."""


class Told(msgspec.Struct, frozen=True):
    """What a shard says of a slot, and why a message changed nothing."""

    shard: ShardId
    seen: Seen
    refused: str | None = None


class Batch(msgspec.Struct, frozen=True):
    """What a source's offsets ``start <= offset < end`` hold of a slot."""

    start: int
    end: int
    time: int
    parts: bytes
    """`execution.carried.encode_parts`."""


class Fed(msgspec.Struct, frozen=True):
    """A batch for the copy of one attempt."""

    attempt: Attempt
    batch: Batch


Records = dict[int, SlotRecord]
"""What a shard has logged, of all slots that a message ever came for."""
