"""How layouts write themselves: chunks of bounded size, one format for all layouts.

A chunk is one msgpack array of lists.  A layout with one kind of entry has two of them:

    [[removed key, ...], [[key, value], ...]]

one with a second kind that belongs to the first (children, edges) has four: removed and
written entries of the first kind, then of the second.  Lists are applied in this order, so
a key that was removed and written again within one stretch of changes may stand in both.

Keys are ordered, so that a chunk depends on content alone: ``int``, ``str``, ``bytes`` or
tuples of these.  Values are anything that msgspec can encode and decode by type, except
sets: a set is encoded in the order of its hashes, which differs between processes.  A dict
keeps its insertion order, as code that iterates over it could see any other.  Integers
beyond 64 bits have no place in msgpack: keep them as ``str`` or ``bytes``.
"""

import types
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any, Final, Protocol, TypeVar, get_args, get_origin

import msgspec

from ultraengine.model.limits import KIB, MIB

CHUNK_BYTES_MAX: Final = MIB - KIB
"""Bound of a layout's chunk in bytes; the rest of a MiB is left for those who put a name before
it.  Only a chunk with a single entry may be larger; snapshots refuse chunks above 4 MiB."""

_ENCODER: Final = msgspec.msgpack.Encoder()
_HEADER_BYTES: Final = 5


class Ordered(Protocol):
    """A key: hashable, and with a total order among keys of its type."""

    def __lt__(self, other: Any, /) -> bool:
        """Whether this key comes before `other`."""

    def __hash__(self) -> int:
        """Used within one process only; never written anywhere."""


K = TypeVar("K", bound=Ordered)
V = TypeVar("V")


def check_key_type(key_type: Any) -> None:
    """Raises TypeError unless `key_type` has a total order that is the same everywhere."""
    plain = key_type
    while hasattr(plain, "__supertype__"):
        plain = plain.__supertype__
    if get_origin(plain) is tuple and get_args(plain):
        for part in get_args(plain):
            check_key_type(part)
    elif plain not in (int, str, bytes):
        raise TypeError(f"a layout's key is int, str, bytes or a tuple of these, not {key_type!r}")


def check_value_type(value_type: Any) -> None:
    """Raises TypeError when a set is anywhere in `value_type`: its order is not content."""
    pending: list[object] = [msgspec.inspect.type_info(value_type)]
    seen: list[object] = []
    while pending:
        info = pending.pop()
        if any(info is other for other in seen):
            continue
        seen.append(info)
        if isinstance(info, msgspec.inspect.SetType | msgspec.inspect.FrozenSetType):
            raise TypeError(
                f"{value_type!r} holds a set, whose order differs between processes; "
                "use a sorted tuple, or a dict with None as values"
            )
        for part in (getattr(info, name) for name in getattr(info, "__struct_fields__", ())):
            members = part if isinstance(part, tuple) else (part,)
            pending.extend(
                member
                for member in members
                if isinstance(member, msgspec.inspect.Type | msgspec.inspect.Field)
            )


def generic(origin: Any, *parameters: Any) -> Any:
    """``origin[parameters]`` for types known at run time only."""
    return types.GenericAlias(origin, parameters)


@cache
def chunk_decoder(*kinds: tuple[Any, Any]) -> msgspec.msgpack.Decoder[tuple[Any, ...]]:
    """Decoder of chunks whose kinds of entries are (key type, written entry type).

    Raises TypeError for key or entry types that could not be written the same everywhere.
    """
    lists: list[Any] = []
    for key_type, entry_type in kinds:
        check_key_type(key_type)
        check_value_type(entry_type)
        lists += (generic(list, key_type), generic(list, entry_type))
    return msgspec.msgpack.Decoder(generic(tuple, *lists))


def write_chunks(
    lists: Sequence[Iterable[object]], bytes_max: int = CHUNK_BYTES_MAX
) -> Iterator[bytes]:
    """Encode `lists`, in order, as chunks of at most `bytes_max`; nothing when all are empty.

    An entry that alone is larger than the bound becomes a chunk of its own.
    """
    encode_into = _ENCODER.encode_into
    bodies = [bytearray() for _ in lists]
    counts = [0] * len(lists)
    room = bytes_max - 1 - _HEADER_BYTES * len(lists)
    size = 0
    for index, entries in enumerate(lists):
        body = bodies[index]
        for entry in entries:
            start = len(body)
            encode_into(entry, body, start)
            added = len(body) - start
            if size + added > room and size:
                late = body[start:]
                del body[start:]
                yield _chunk(bodies, counts)
                for other in bodies:
                    other.clear()
                counts = [0] * len(lists)
                body += late
                size = 0
            counts[index] += 1
            size += added
    if size:
        yield _chunk(bodies, counts)


def _chunk(bodies: Sequence[bytearray], counts: Sequence[int]) -> bytes:
    """One msgpack array of arrays; array 32 headers throughout, so that sizes are plain."""
    parts = [bytes((0x90 | len(bodies),))]
    for body, count in zip(bodies, counts, strict=True):
        parts += (b"\xdd" + count.to_bytes(4, "big"), bytes(body))
    return b"".join(parts)
