"""Envelope encryption of a snapshot file (requirement 001 §9; NIST SP 800-38D).

Each file has a random data key of its own, so a block's number is a nonce that never comes
twice.  The data key travels in the header, wrapped by a master key that only `Secrets` knows.
Blocks are bound to their file and place by their associated data: the digest of the header
and the block header.  The footer carries a tag over its totals under the next nonce, so an
encrypted file cannot be shortened at a block's end by somebody without the key.
"""

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ultraengine.model.errors import InvariantBroken
from ultraengine.snapshot.errors import SnapshotDamaged, SnapshotRefused

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12


def wrap_key(*, master: bytes, data_key: bytes, nonce: bytes, associated: bytes) -> bytes:
    """12 nonce, 32 wrapped key, 16 tag.  `nonce` must be random and fresh."""
    if len(master) != KEY_BYTES or len(data_key) != KEY_BYTES or len(nonce) != NONCE_BYTES:
        raise InvariantBroken(
            "AES-256-GCM has 32-byte keys and 12-byte nonces",
            master=len(master),
            data_key=len(data_key),
            nonce=len(nonce),
        )
    return nonce + AESGCM(master).encrypt(nonce, data_key, associated)


def unwrap_key(*, master: bytes, wrapped: bytes, associated: bytes, path: str, name: str) -> bytes:
    """Inverse of `wrap_key`.  Raises `SnapshotRefused` when it is another master key."""
    if len(master) != KEY_BYTES:
        raise SnapshotRefused(f"the key {name!r} has {len(master)} bytes; AES-256 needs 32")
    try:
        return AESGCM(master).decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], associated)
    except InvalidTag:
        raise SnapshotRefused(
            f"{path} was encrypted under another value of the key {name!r}"
        ) from None


class BlockCipher:
    """Seals and opens the blocks of one file under its data key."""

    __slots__ = ("_digest", "_gcm")

    def __init__(self, data_key: bytes, header_digest: bytes) -> None:
        self._gcm = AESGCM(data_key)
        self._digest = header_digest

    def seal(self, payload: bytes, number: int, sealed_header: bytes) -> bytes:
        """Encrypt a block's payload; the tag is appended."""
        return self._gcm.encrypt(_nonce(number), payload, self._digest + sealed_header)

    def open(
        self, stored: bytes, number: int, sealed_header: bytes, *, path: str, position: int
    ) -> bytes:
        """Inverse of `seal`.  Raises `SnapshotDamaged`."""
        try:
            return self._gcm.decrypt(_nonce(number), stored, self._digest + sealed_header)
        except InvalidTag:
            raise SnapshotDamaged(path, position, "its authentication tag does not hold") from None


def _nonce(number: int) -> bytes:
    return bytes(4) + number.to_bytes(8, "little")
