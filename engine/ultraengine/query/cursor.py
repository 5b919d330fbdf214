"""Cursors: where the next page begins, as text that its holder can neither read into nor change.

    base64url( first 16 bytes of HMAC-SHA256(key, context NUL position) + position )

The position is the msgpack array of the order columns of the last row given.  The context is
everything that the list depends on (read, order, filters, tenant), so a cursor fits its own list
and tenant alone; whatever is wrong with one, the answer is the same `BAD_CURSOR`.
"""

import base64
import binascii
import hashlib
import hmac
from typing import Any, Final

import msgspec

from ultraengine.model.errors import EngineError

MAC_BYTES: Final = 16
CURSOR_CHARS_MAX: Final = 24_000
"""Some order columns at their longest: texts of 4,000 characters."""
KEY_BYTES_MIN: Final = 16
_encode: Final = msgspec.msgpack.Encoder(order="deterministic").encode
_decode: Final = msgspec.msgpack.Decoder(list[Any]).decode


class Cursors:
    """Makes and reads the cursors of one key."""

    def __init__(self, key: bytes) -> None:
        if len(key) < KEY_BYTES_MIN:
            raise ValueError(f"a cursor key has at least {KEY_BYTES_MIN} bytes, not {len(key)}")
        self._key = key

    def _mac(self, context: Any, position: bytes) -> bytes:
        # msgpack says how long each part is, so no two contexts run into each other.
        told = _encode([context, position])
        return hmac.digest(self._key, told, hashlib.sha256)[:MAC_BYTES]

    def make(self, context: Any, position: tuple[Any, ...]) -> str:
        """The cursor behind the row with these order columns."""
        # Numbers beyond 64 bits travel as text with a mark of their own.
        packed = _encode([_packed(value) for value in position])
        mac = self._mac(context, packed)
        return base64.urlsafe_b64encode(mac + packed).decode().rstrip("=")

    def read(self, context: Any, text: str) -> tuple[Any, ...]:
        """The order columns to go on behind.  Raises `EngineError` BAD_CURSOR."""
        if len(text) <= CURSOR_CHARS_MAX and text.isascii():
            padded = text + "=" * (-len(text) % 4)
            try:
                raw = base64.b64decode(padded, altchars=b"-_", validate=True)
            except (binascii.Error, ValueError):
                raw = b""
            mac, packed = raw[:MAC_BYTES], raw[MAC_BYTES:]
            if hmac.compare_digest(mac, self._mac(context, packed)):
                return tuple(_unpacked(value) for value in _decode(packed))
        raise EngineError(
            "the cursor is not of this list", code="BAD_CURSOR", pointer="/query/cursor"
        )


def _packed(value: Any) -> Any:
    wide = isinstance(value, int) and not -(1 << 63) <= value < 1 << 63
    return [str(value)] if wide else value


def _unpacked(value: Any) -> Any:
    return int(value[0]) if isinstance(value, list) else value
