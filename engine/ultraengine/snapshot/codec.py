"""How one section becomes bytes inside a block (requirement 001 §2.1, §6.1).

Shipped: binary (the default) and JSON lines for people.  A user's own codec has a number
from 64 to 255 and passes `ultraengine.testing.snapshot_codecs.SnapshotCodecContract`;
`docs/snapshots.md` shows one.  Compression, encryption, checksums and hashes lie outside of
a codec: it cannot weaken them.
"""

import base64
import binascii
import struct
from collections.abc import Iterable
from typing import Any, Final, Protocol

import msgspec

from ultraengine.model.errors import InvariantBroken
from ultraengine.model.ids import SLOT_COUNT
from ultraengine.snapshot.errors import SnapshotRefused
from ultraengine.snapshot.image import CHUNK_BYTES_MAX, NAME_BYTES_MAX, SHARD_WIDE, Section

BINARY: Final = 1
JSON: Final = 2
JSON_BYTES_MAX: Final = 2 * CHUNK_BYTES_MAX
"""Of a line with a value: a control character takes six bytes, and a block holds 16 MiB."""
USER_CODECS: Final = range(64, 256)
SCHEMA_MAX: Final = 0xFFFF_FFFF

_HEAD: Final = struct.Struct("<iIHxxI")


class SnapshotCodec(Protocol):
    """Encodes sections, without loss and the same bytes for the same section."""

    @property
    def number(self) -> int:
        """Stamped in each header: 1 binary, 2 JSON, 3-63 reserved, 64-255 a user's own."""

    def encode_section(self, section: Section) -> bytes:
        """The section as bytes, less than 16 MiB."""

    def decode_section(self, data: bytes) -> Section:
        """Inverse of ``encode_section``.  Raises ValueError for anything else."""


def check_section(section: Section) -> None:
    """Raise ValueError unless slot, name, schema and chunk are within their bounds."""
    if not SHARD_WIDE <= section.slot < SLOT_COUNT:
        raise ValueError(f"slot {section.slot} is not in {SHARD_WIDE}..{SLOT_COUNT - 1}")
    if not 0 < len(section.name.encode()) <= NAME_BYTES_MAX:
        raise ValueError(f"a section name has 1 to {NAME_BYTES_MAX} bytes: {section.name!r}")
    if not 0 <= section.schema <= SCHEMA_MAX:
        raise ValueError(f"schema {section.schema} is not in 0..{SCHEMA_MAX}")
    if len(section.chunk) > CHUNK_BYTES_MAX:
        raise ValueError(
            f"a chunk of {section.name!r} in slot {section.slot} has {len(section.chunk)} bytes;"
            f" the most is {CHUNK_BYTES_MAX}"
        )


class BinaryCodec:
    """Slot, schema, length of name, length of chunk, name, chunk."""

    number = BINARY

    def encode_section(self, section: Section) -> bytes:
        """16 bytes of head, then name and chunk."""
        name = section.name.encode()
        head = _HEAD.pack(section.slot, section.schema, len(name), len(section.chunk))
        return b"".join((head, name, section.chunk))

    def decode_section(self, data: bytes) -> Section:
        """Inverse of ``encode_section``.  Raises ValueError."""
        if len(data) < _HEAD.size:
            raise ValueError(f"a section of {len(data)} bytes is shorter than its head")
        slot, schema, name_length, chunk_length = _HEAD.unpack_from(data)
        name_end = _HEAD.size + name_length
        if data[10:12] != b"\0\0" or name_end + chunk_length != len(data):
            raise ValueError(
                f"a section of {len(data)} bytes holds a name of {name_length}"
                f" and a chunk of {chunk_length}"
            )
        return Section(slot, data[_HEAD.size : name_end].decode(), schema, data[name_end:])


class _JsonSection(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    slot: int
    name: str
    schema: int
    value: Any = msgspec.UNSET
    base64: str | None = None


class JsonCodec:
    """One line of JSON per section, for people; several times larger and slower than binary.

    A chunk that is one msgpack value is shown as that value under ``value`` when it comes
    back from JSON as the very same bytes and its line is not longer than `JSON_BYTES_MAX`;
    every other chunk stands under ``base64``.
    """

    number = JSON

    def __init__(self) -> None:
        self._line = msgspec.json.Decoder(_JsonSection)

    def encode_section(self, section: Section) -> bytes:
        """The line, newline included."""
        shown = _JsonSection(section.slot, section.name, section.schema)
        shown.value = _readable(section.chunk)
        if shown.value is not msgspec.UNSET:
            line = msgspec.json.encode(shown) + b"\n"
            if len(line) <= JSON_BYTES_MAX:
                return line
            shown.value = msgspec.UNSET
        shown.base64 = base64.b64encode(section.chunk).decode()
        return msgspec.json.encode(shown) + b"\n"

    def decode_section(self, data: bytes) -> Section:
        """Inverse of ``encode_section``.  Raises ValueError."""
        if not data.endswith(b"\n"):
            raise ValueError("a section in JSON is a line")
        shown = self._line.decode(data)
        if (shown.value is msgspec.UNSET) == (shown.base64 is None):
            raise ValueError("a section in JSON has either 'value' or 'base64'")
        if shown.base64 is None:
            chunk = msgspec.msgpack.encode(shown.value)
        else:
            try:
                chunk = base64.b64decode(shown.base64, validate=True)
            except binascii.Error as problem:
                raise ValueError(str(problem)) from None
        return Section(shown.slot, shown.name, shown.schema, chunk)


def _readable(chunk: bytes) -> Any:
    """The msgpack value of `chunk` if JSON can carry it without loss, else UNSET."""
    try:
        value = msgspec.msgpack.decode(chunk)
        back = msgspec.msgpack.encode(msgspec.json.decode(msgspec.json.encode(value)))
    except (ValueError, TypeError, OverflowError, RecursionError):
        return msgspec.UNSET
    return value if back == chunk else msgspec.UNSET


class Codecs:
    """The codecs a process can read, by number."""

    __slots__ = ("_by_number",)

    def __init__(self, own: Iterable[SnapshotCodec] = ()) -> None:
        self._by_number: dict[int, SnapshotCodec] = {BINARY: BinaryCodec(), JSON: JsonCodec()}
        for codec in own:
            if codec.number not in USER_CODECS or codec.number in self._by_number:
                raise InvariantBroken(
                    "a user's codec has a number of its own from 64 to 255", number=codec.number
                )
            self._by_number[codec.number] = codec

    def get(self, number: int, path: str = "") -> SnapshotCodec:
        """The codec with that number.  Raises `SnapshotRefused`, naming `path`."""
        codec = self._by_number.get(number)
        if codec is None:
            known = ", ".join(str(each) for each in sorted(self._by_number))
            raise SnapshotRefused(
                f"{path or 'a snapshot'} has codec {number}; this process knows {known}"
            )
        return codec
