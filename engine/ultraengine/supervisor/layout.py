"""What a data directory holds: one shard, or the shards that SHARDS names.

The number of shards is chosen when a directory is made, and kept:

    SHARDS              {"engine_uid": "<32 hex>", "shard_map": {"version": 1, "ranges": [...]}}
    shard-0000/SLOTS    what this shard owns, in its own keeping (`shard.ownership`)

SHARDS is written last, so a directory without it was never served by several shards; what it
says and what the shards say must agree.  A directory of one shard has neither file.
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
        _require_count(len(layout.shard_map.shards), wanted)
        for shard in layout.shard_map.shards:
            _require_same(layout.ownership(shard), found.get(shard))
        return layout, False
    logs = [shard for shard, one in found.items() if one.has_log]
    if not logs:
        if (wanted or 1) == 1 and not any(one.ownership for one in found.values()):
            return None, False
        return Layout(new_uid, ShardMap.even(wanted or 1)), True
    if logs == [0] and found[ShardId(0)].ownership is None:
        _require_count(1, wanted)
        return None, False
    listed = ", ".join(shard_directory(shard) for shard in logs)
    raise LayoutRefused(
        f"the data directory holds {listed} and no {PATH}: restore the file together with them"
    )


def _require_count(count: int, wanted: int | None) -> None:
    if wanted is not None and wanted != count:
        raise LayoutRefused(
            f"the data directory was made with {_shards(count)}, not {wanted}: start it with "
            f"--shards {count}, or choose another directory with --data; the number of shards "
            "is fixed when a directory is made"
        )


def _shards(count: int) -> str:
    return "1 shard" if count == 1 else f"{count} shards"


def _require_same(expected: Ownership, found: Found | None) -> None:
    name = shard_directory(expected.shard)
    if found is None or found.ownership is None:
        raise LayoutRefused(
            f"{name} is missing or has no SLOTS, and {PATH} names it: restore it; an empty one "
            "in its place would forget what was acknowledged"
        )
    if found.ownership != expected:
        raise LayoutRefused(
            f"{name} belongs to another engine or to another shard map than {PATH}: restore "
            "them together"
        )


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
