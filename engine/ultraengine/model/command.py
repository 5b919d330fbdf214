"""A command as it is logged, and how its content is compared.

The log keeps `Command` as a msgpack array in field order (`log/FORMAT.md`).
``data`` is *canonical*: the domain's own schema decoded, prepared and encoded
again as msgpack, so that the same intent has the same bytes whatever codec the
client spoke.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
import xxhash

SYSTEM_TENANT: Final = "system"
SYSTEM_DOMAIN: Final = "system"


class Command(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One request to change, as received and authenticated, without its stamped time.

    Offset, epoch and time belong to the frame that carries it.  Fields are appended at
    the end only: the array form is part of log format version 1.
    """

    id: str
    """Idempotency key, unique per (tenant, key)."""
    type: str
    """``domain.verb_noun@version``; always with the handler version that accepted it."""
    key: str
    """Partition key."""
    data: msgspec.Raw
    """Canonical msgpack of the command's own schema."""
    tenant: str
    principal: str
    expected_version: int | None = None
    issued_at: int | None = None
    """Microseconds since the Unix epoch, as claimed by the client."""
    correlation_id: str | None = None
    traceparent: str | None = None
    key_id: int = 0
    """Which payload key encrypts ``data``; 0 = none beyond the segment's own key."""


def run_end(commands: Sequence[Command], index: int) -> int:
    """Where the commands end that have type, tenant and key of the one at `index`."""
    first = commands[index]
    tenant, key, type_name = first.tenant, first.key, first.type
    end, count = index + 1, len(commands)
    while (
        end < count
        and (other := commands[end]).key == key
        and other.type == type_name
        and other.tenant == tenant
    ):
        end += 1
    return end


_CONTENT: Final = msgspec.msgpack.Encoder()


def fingerprint(command: Command) -> int:
    """128-bit fingerprint of what a command asks for: type, key, data, expected_version.

    Two attempts with one id are the same attempt exactly when these agree; who sent it,
    when, and in which codec is not part of it (`docs/api.md`, idempotency).
    """
    content = (command.type, command.key, command.data, command.expected_version)
    return xxhash.xxh3_128_intdigest(_CONTENT.encode(content))


def identity_hash(tenant: str, command_id: str) -> bytes:
    """Eight bytes that stand for (tenant, id) in the packed index of the key's slot.

    Not a proof of identity: a hit is confirmed by reading the logged command, key included.
    The key is left out so that an outcome can be asked for without it, slot by slot.
    """
    return xxhash.xxh3_64_digest(f"{tenant}\0{command_id}".encode())
