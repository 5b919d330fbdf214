"""Checksums and chains of the log (`FORMAT.md`, requirement 001 §2.1).

CRC-32C (Castagnoli) finds accidents in one frame; the BLAKE2b chain (RFC 7693) finds frames
that are missing, swapped or from another history.  Keyed, it also finds forgery.
"""

import hashlib
from typing import Final

import google_crc32c

from ultraengine.log.damage import LogRefused
from ultraengine.model.ids import CHAIN_BYTES

CHAIN_KEY_BYTES_MAX: Final = 64
"""Longest key of BLAKE2b (RFC 7693 §2.1)."""


def crc32c(data: bytes) -> int:
    """CRC-32C of `data`, 0 <= value < 2**32."""
    value: int = google_crc32c.value(data)
    return value


def require_fast_crc32c(implementation: str = google_crc32c.implementation) -> None:
    """Refuse to work with the pure Python fallback, which is slower by a factor of hundreds.

    Raises `LogRefused`.
    """
    if implementation != "c":
        raise LogRefused(
            f"google-crc32c has loaded its {implementation!r} implementation; the log needs the "
            f"one in C: install a binary wheel of google-crc32c for this platform"
        )


def frame_chain(identity: bytes, payload: bytes, key: bytes) -> bytes:
    """The chain after a frame: 16 bytes.

    `identity` is the frame's header with what depends on storage taken as zero; it holds the
    chain before the frame.  `payload` is plain.  `key` is empty for an unkeyed chain.
    """
    digest = hashlib.blake2b(identity, digest_size=CHAIN_BYTES, key=key)
    digest.update(payload)
    return digest.digest()


def state_chain(previous: bytes, payload: bytes) -> bytes:
    """The state chain after an OUTCOMES frame with this plain payload: 16 bytes, never keyed."""
    digest = hashlib.blake2b(previous, digest_size=CHAIN_BYTES)
    digest.update(payload)
    return digest.digest()
