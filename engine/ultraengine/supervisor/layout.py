"""What a data directory holds: one shard, or the shards that SHARDS names.

The shards of a directory and the slots of each, as far as moving them has come:

    SHARDS              {"engine_uid": "<32 hex>", "shard_map": {"version": 1, "ranges": [...]}}
    shard-0000/SLOTS    what this shard owned at first, in its own keeping (`shard.ownership`)

SHARDS is written last, so a directory without it was never served by several shards.  Slots move
afterwards by the shards' own logs, and the map in SHARDS follows.  A directory of one shard has
neither file; it gets them when more are asked for.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from ultraengine.model.errors import EngineError
from ultraengine.model.ids import ShardId
from ultraengine.ports import Disk
from ultraengine.router.shard_map import MapRefused, ShardMap
from ultraengine.shard.ownership import Ownership

PATH: Final = "SHARDS"
BYTES_MAX: Final = 1024 * 1024
SHARDS_MAX: Final = 64
"""Shards of one machine; each is a process."""


class LayoutRefused(EngineError):
    """The directory is not what was asked for; the message says what to do."""

    code = "MALFORMED"


class Layout(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of SHARDS."""

    engine_uid: str
    """32 hexadecimal digits, minted with the directory."""
    shard_map: ShardMap

    def ownership(self, shard: ShardId) -> Ownership:
        """What one shard is to keep."""
        return Ownership(
            engine_uid=bytes.fromhex(self.engine_uid),
            shard=shard,
            shard_count=len(self.shard_map.shards),
            map_version=self.shard_map.version,
            slots=self.shard_map.slots_of(shard),
        )


class Found(msgspec.Struct, frozen=True):
    """What stands in one shard's directory."""

    ownership: Ownership | None
    has_log: bool


def shard_directory(shard: int) -> str:
    """Where a shard keeps its files, below the data directory."""
    return f"shard-{shard:04d}"


def encode_layout(layout: Layout) -> bytes:
    """The bytes of SHARDS."""
    return msgspec.json.encode(layout) + b"\n"


def decode_layout(content: bytes) -> Layout:
    """Inverse of `encode_layout`.  Raises `LayoutRefused`."""
    try:
        found = msgspec.json.decode(content, type=Layout)
        ShardMap.decode(found.shard_map.encode())
        if len(bytes.fromhex(found.engine_uid)) != 16:
            raise ValueError("engine_uid is not 32 hexadecimal digits")
    except (msgspec.MsgspecError, MapRefused, ValueError) as error:
        raise LayoutRefused(f"{PATH} cannot be read: {error}") from error
    return found


def settle(
    content: bytes | None, found: Mapping[ShardId, Found], wanted: int | None, new_uid: str
) -> tuple[Layout | None, bool]:
    """The layout to run, None for a single shard without one; and whether it is to be written.

    `content` is SHARDS, None when it is not there; `wanted` is the number of shards asked for,
    None for what the directory has.  Raises `LayoutRefused`.
    """
    if wanted is not None and not 1 <= wanted <= SHARDS_MAX:
        raise LayoutRefused(f"{wanted} shards are not 1 to {SHARDS_MAX}")
    if content is not None:
        layout = decode_layout(content)
        for shard in layout.shard_map.shards:
            _require_same(layout.ownership(shard), found.get(shard))
        return layout, False
    logs = [shard for shard, one in found.items() if one.has_log]
    if not logs:
        if (wanted or 1) == 1 and not any(one.ownership for one in found.values()):
            return None, False
        return Layout(new_uid, ShardMap.even(wanted or 1)), True
    if logs == [0]:
        ownership = found[ShardId(0)].ownership
        if ownership is None and (wanted or 1) == 1:
            return None, False
        alone = ShardMap.even(1)
        if ownership is None:
            return Layout(new_uid, alone), True
        if (ownership.shard_count, ownership.slots) == (1, alone.slots_of(ShardId(0))):
            # It was being made one of several: SHARDS was not written any more.
            return Layout(ownership.engine_uid.hex(), alone), True
    listed = ", ".join(shard_directory(shard) for shard in logs)
    raise LayoutRefused(
        f"the data directory holds {listed} and no {PATH}: restore the file together with them"
    )


def to_run(
    layout: Layout, found: Mapping[ShardId, Found], wanted: int | None
) -> tuple[ShardId, ...]:
    """The shards to run: those that own slots, those that are wanted, and those that may still
    have to hand slots over or have been left empty.  Raises `LayoutRefused`."""
    shards = {*layout.shard_map.shards, *(ShardId(shard) for shard in range(wanted or 0))}
    uid = bytes.fromhex(layout.engine_uid)
    for shard, one in found.items():
        if one.ownership is not None and one.ownership.engine_uid == uid:
            shards.add(shard)
        elif shard in shards and one.has_log and shard not in layout.shard_map.shards:
            raise LayoutRefused(
                f"{shard_directory(shard)} holds a log of another engine: move it away"
            )
    return tuple(sorted(shards))


def _require_same(expected: Ownership, found: Found | None) -> None:
    name = shard_directory(expected.shard)
    if found is None or found.ownership is None:
        raise LayoutRefused(
            f"{name} is missing or has no SLOTS, and {PATH} names it: restore it; an empty one "
            "in its place would forget what was acknowledged"
        )
    is_same = found.ownership.engine_uid == expected.engine_uid
    if not is_same or found.ownership.shard != expected.shard:
        raise LayoutRefused(f"{name} belongs to another engine than {PATH}: restore them together")


def read_content(disk: Disk) -> bytes | None:
    """SHARDS as it is; None when it is not there.  Raises OSError."""
    if not disk.exists(PATH):
        return None
    file = disk.open(PATH)
    try:
        return file.pread(BYTES_MAX, 0)
    finally:
        file.close()


def write_layout(disk: Disk, layout: Layout) -> None:
    """Make SHARDS durable; the shards' own files come first.  Raises OSError."""
    temporary = PATH + ".tmp"
    file = disk.open(temporary, create=True, write=True)
    try:
        file.truncate(0)
        file.pwrite(encode_layout(layout), 0)
        file.sync()
    finally:
        file.close()
    disk.rename(temporary, PATH)
    disk.sync_directory("")
